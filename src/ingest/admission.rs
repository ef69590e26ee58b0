//! What deliveries that are received at once share: places, turns for the part of the work that needs
//! memory of its own, and memory.
//!
//! A delivery that waits for its first byte has none of it. With the first byte it takes a place, or
//! waits for one, unread. While rows come it has a share of the memory ([`Memory`]), and what lies
//! between the stream and the worker is bounded by the number of deliveries. When all rows have come it
//! waits for a turn: grouping reads its runs back, and requests are made of them. That keeps a processor
//! busy, so more at once would only need more memory.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::IngestError;
use crate::group::Memory;

/// Deliveries whose requests are made at once; those that merge runs are among them. So small ones need
/// not wait for two large ones.
const FINISHING: usize = 4;
/// Deliveries that merge runs at once.
const MERGING: usize = 2;

/// Parts of all streams that wait for their workers, together: with one delivery some 100 of those that
/// HTTP gives, enough to keep the worker busy while the threads that feed it have to share a processor
/// with the one that sorts.
const WAITING_BYTES: usize = 12 << 20;
/// The same when there are several deliveries: each has work for a processor while another waits.
const WAITING_OF_SEVERAL: usize = 4 << 20;
/// Of one stream at least so many bytes wait, whatever the others have.
const LEAST_WAITING: usize = 64 << 10;
/// The largest parts and the smallest into which a stream is cut.
const PARTS: (usize, usize) = (16 << 10, 128 << 10);

/// See the module's page. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Admission {
    places: Arc<Semaphore>,
    at_once: usize,
    within: Duration,
    merging: Arc<Turns>,
    finishing: Arc<Turns>,
    memory: Memory,
    /// Bytes between all streams and their workers.
    waiting: Arc<AtomicUsize>,
    stopping: CancellationToken,
}

/// A place among the deliveries whose rows come in.
#[derive(Debug)]
pub struct Place {
    _permit: OwnedSemaphorePermit,
}

/// The turn of a delivery whose rows have all come.
pub(super) struct Finishing<'a> {
    // Given back in this order.
    _finishing: Turn<'a>,
    _merging: Option<Turn<'a>>,
}

impl Admission {
    /// So many deliveries at once, which share `memory`. One that must wait longer than `within` for
    /// its place is given up.
    pub fn new(at_once: usize, within: Duration, memory: Memory) -> Self {
        Self {
            places: Arc::new(Semaphore::new(at_once)),
            at_once,
            within,
            merging: Arc::new(Turns::new(MERGING)),
            finishing: Arc::new(Turns::new(FINISHING)),
            memory,
            waiting: Arc::default(),
            stopping: CancellationToken::new(),
        }
    }

    /// From now on nobody waits to begin.
    pub fn stop(&self) {
        self.stopping.cancel();
    }

    /// Waits until a delivery that begins now would find a place. It does not have it then.
    pub async fn free(&self) -> Result<(), IngestError> {
        let place = self.stopping.run_until_cancelled(self.enter()).await;
        place.ok_or(IngestError::Stopped)?.map(drop)
    }

    /// Waits for a place, in the order in which they are asked for.
    pub async fn enter(&self) -> Result<Place, IngestError> {
        let place = Arc::clone(&self.places).acquire_owned();
        match timeout(self.within, place).await {
            Ok(Ok(permit)) => Ok(Place { _permit: permit }),
            // The semaphore is never closed.
            Ok(Err(_)) | Err(_) => Err(IngestError::Busy {
                at_once: self.at_once,
                waited: self.within,
            }),
        }
    }

    /// Waits for the turn of a delivery whose rows have all come. Blocks.
    pub(super) fn finish(&self, merges: bool) -> Finishing<'_> {
        let merging = merges.then(|| self.merging.take());
        Finishing {
            _finishing: self.finishing.take(),
            _merging: merging,
        }
    }

    /// What lies between one more stream and its worker.
    pub(super) fn window(&self) -> Window {
        Window {
            all: Arc::clone(&self.waiting),
            bytes: AtomicUsize::new(0),
            wake_at: AtomicUsize::new(0),
            read: Notify::new(),
        }
    }

    /// How much of one stream may wait for its worker, as things are now.
    pub(super) fn waiting(&self) -> usize {
        let shares = self.memory.shares().max(1);
        let all = match shares {
            1 => WAITING_BYTES,
            _ => WAITING_OF_SEVERAL,
        };
        // Those that came when there were fewer may have more than their part.
        if self.waiting.load(Ordering::Acquire) >= all {
            return LEAST_WAITING;
        }
        (all / shares).max(LEAST_WAITING)
    }
}

/// Into how large parts a stream is cut of which so much may wait.
pub(super) fn part_of(waiting: usize) -> usize {
    (waiting / 8).clamp(PARTS.0, PARTS.1)
}

/// Turns, so many at once, for threads.
#[derive(Debug)]
struct Turns {
    free: Mutex<usize>,
    given_back: Condvar,
}

struct Turn<'a>(&'a Turns);

impl Turns {
    fn new(turns: usize) -> Self {
        Self {
            free: Mutex::new(turns),
            given_back: Condvar::new(),
        }
    }

    /// Waits for one.
    fn take(&self) -> Turn<'_> {
        // Whole after any panic: a number is changed in one step.
        let free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = self.given_back.wait_while(free, |free| *free == 0);
        *waited.unwrap_or_else(PoisonError::into_inner) -= 1;
        Turn(self)
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        *self.0.free.lock().unwrap_or_else(PoisonError::into_inner) += 1;
        self.0.given_back.notify_one();
    }
}

/// Bytes between a stream and its worker.
#[derive(Debug)]
pub(super) struct Window {
    all: Arc<AtomicUsize>,
    bytes: AtomicUsize,
    /// Who waits is woken when there are no more than so many.
    wake_at: AtomicUsize,
    read: Notify,
}

impl Window {
    /// Returns at once if no more than so many bytes are under way, else when half of that is: who
    /// waits is not woken for every part.
    pub async fn below(&self, most: usize) {
        if self.bytes() <= most {
            return;
        }
        // The worker looks at this after each part, and here the bytes are looked at once more: one of
        // the two sees the other.
        self.wake_at.store(most / 2, Ordering::SeqCst);
        while self.bytes() > most / 2 {
            self.read.notified().await;
        }
    }

    /// How many are under way.
    pub fn bytes(&self) -> usize {
        self.bytes.load(Ordering::SeqCst)
    }

    /// So many more are.
    pub fn sent(&self, bytes: usize) {
        self.all.fetch_add(bytes, Ordering::AcqRel);
        self.bytes.fetch_add(bytes, Ordering::SeqCst);
    }

    /// So many have been read.
    pub fn read(&self, bytes: usize) {
        self.all.fetch_sub(bytes, Ordering::AcqRel);
        let before = self.bytes.fetch_sub(bytes, Ordering::SeqCst);
        let wake_at = self.wake_at.load(Ordering::SeqCst);
        if before > wake_at && before - bytes <= wake_at {
            self.read.notify_one();
        }
    }
}

impl Drop for Window {
    fn drop(&mut self) {
        self.all.fetch_sub(self.bytes(), Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    fn admission(at_once: usize) -> Admission {
        Admission::new(at_once, Duration::from_secs(60), Memory::new(1 << 20))
    }

    #[tokio::test(start_paused = true)]
    async fn a_place_is_waited_for_in_turn_and_not_without_end() {
        let admission = admission(1);
        admission.free().await.unwrap();
        let place = admission.enter().await.unwrap();
        let mut second = Box::pin(admission.enter());
        let mut third = Box::pin(admission.enter());
        assert!((&mut second).now_or_never().is_none());
        assert!((&mut third).now_or_never().is_none());
        drop(place);
        let place = second.await.unwrap();
        assert!((&mut third).now_or_never().is_none());
        drop(place);
        let _place = third.await.unwrap();
        let late = admission.free().await.unwrap_err().to_string();
        assert!(late.contains("1m"), "{late}");
        admission.stop();
        let stopped = admission.free().await;
        assert!(matches!(stopped, Err(IngestError::Stopped)), "{stopped:?}");
    }

    #[test]
    fn merging_leaves_turns_for_those_that_do_not_merge() {
        let admission = admission(1);
        let merging = [admission.finish(true), admission.finish(true)];
        let small = [admission.finish(false), admission.finish(false)];
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| drop(admission.finish(true)));
            drop(small);
            drop(admission.finish(false));
            assert!(!waiting.is_finished());
            drop(merging);
            waiting.join().unwrap();
        });
    }

    #[test]
    fn streams_get_less_of_the_window_when_there_are_more() {
        let admission = admission(1);
        assert_eq!(admission.waiting(), WAITING_BYTES);
        let _shares: Vec<_> = (0..16).map(|_| admission.memory.share()).collect();
        assert_eq!(admission.waiting(), WAITING_OF_SEVERAL / 16);
        assert_eq!(part_of(WAITING_BYTES), PARTS.1);
        assert_eq!(part_of(admission.waiting()), 32 << 10);
        let _more: Vec<_> = (0..640).map(|_| admission.memory.share()).collect();
        assert_eq!(admission.waiting(), LEAST_WAITING);
    }

    #[test]
    fn a_stream_that_took_much_when_it_was_alone_leaves_the_others_the_least_only() {
        let admission = admission(1);
        let _shares: Vec<_> = (0..2).map(|_| admission.memory.share()).collect();
        let first = admission.window();
        first.sent(WAITING_BYTES);
        assert_eq!(admission.waiting(), LEAST_WAITING);
        first.read(WAITING_BYTES - WAITING_OF_SEVERAL / 2);
        assert_eq!(admission.waiting(), WAITING_OF_SEVERAL / 2);
        // One that is given up.
        let second = admission.window();
        second.sent(WAITING_BYTES);
        assert_eq!(admission.waiting(), LEAST_WAITING);
        drop(second);
        assert_eq!(admission.waiting(), WAITING_OF_SEVERAL / 2);
    }

    #[tokio::test]
    async fn who_waits_is_woken_when_half_has_been_read_and_at_the_latest_when_all_has() {
        let window = admission(1).window();
        window.sent(100);
        window.below(100).await;
        let mut waits = Box::pin(window.below(60));
        assert!((&mut waits).now_or_never().is_none());
        window.read(10);
        assert!((&mut waits).now_or_never().is_none());
        window.read(50);
        assert!((&mut waits).now_or_never().is_none());
        window.read(10);
        assert!(waits.now_or_never().is_some());
        window.sent(70);
        let mut waits = Box::pin(window.below(1));
        assert!((&mut waits).now_or_never().is_none());
        window.read(99);
        assert!((&mut waits).now_or_never().is_none());
        window.read(1);
        assert!(waits.now_or_never().is_some());
    }
}
