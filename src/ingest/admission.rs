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

/// Parts of all streams that wait for their workers: with one delivery some 100 of those that HTTP
/// gives, enough to keep the worker busy while the threads that feed it have to share a processor with
/// the one that sorts.
const WAITING_BYTES: usize = 12 << 20;
/// Of one stream at least so many bytes wait.
const LEAST_WAITING: usize = 128 << 10;
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
            stopping: CancellationToken::new(),
        }
    }

    /// From now on nobody waits to begin.
    pub fn stop(&self) {
        self.stopping.cancel();
    }

    /// Waits until a delivery that begins now would find a place. It does not have it then.
    ///
    /// # Errors
    /// [`IngestError::Busy`], [`IngestError::Stopped`].
    pub async fn free(&self) -> Result<(), IngestError> {
        let place = self.stopping.run_until_cancelled(self.enter()).await;
        place.ok_or(IngestError::Stopped)?.map(drop)
    }

    /// Waits for a place, in the order in which they are asked for.
    ///
    /// # Errors
    /// [`IngestError::Busy`].
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

    /// How much of one stream may wait for its worker, as things are now.
    pub(super) fn waiting(&self) -> usize {
        let shares = self.memory.shares().max(1);
        (WAITING_BYTES / shares).max(LEAST_WAITING)
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
#[derive(Debug, Default)]
pub(super) struct Window {
    bytes: AtomicUsize,
    read: Notify,
}

impl Window {
    /// Waits until no more than so many bytes are under way.
    pub async fn below(&self, most: usize) {
        while self.bytes() > most {
            self.read.notified().await;
        }
    }

    /// How many are under way.
    pub fn bytes(&self) -> usize {
        self.bytes.load(Ordering::Acquire)
    }

    /// So many more are.
    pub fn sent(&self, bytes: usize) {
        self.bytes.fetch_add(bytes, Ordering::AcqRel);
    }

    /// So many have been read. `most` is what may be under way: who waits is woken at half of it, and
    /// not for every part.
    pub fn read(&self, bytes: usize, most: usize) {
        let before = self.bytes.fetch_sub(bytes, Ordering::AcqRel);
        let after = before - bytes;
        if after == 0 || (before > most / 2 && after <= most / 2) {
            self.read.notify_one();
        }
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
        let _shares: Vec<_> = (0..64).map(|_| admission.memory.share()).collect();
        assert_eq!(admission.waiting(), WAITING_BYTES / 64);
        assert_eq!(part_of(WAITING_BYTES), PARTS.1);
        assert!(part_of(admission.waiting()) < 32 << 10);
        let _more: Vec<_> = (0..640).map(|_| admission.memory.share()).collect();
        assert_eq!(admission.waiting(), LEAST_WAITING);
    }

    #[tokio::test]
    async fn who_waits_is_woken_when_half_has_been_read_and_at_the_latest_when_all_has() {
        let window = Window::default();
        window.sent(100);
        window.below(100).await;
        let mut waits = Box::pin(window.below(60));
        assert!((&mut waits).now_or_never().is_none());
        window.read(10, 60);
        assert!((&mut waits).now_or_never().is_none());
        // The bound is another one by now, which has been passed already.
        window.read(50, 1000);
        assert!((&mut waits).now_or_never().is_none());
        window.read(40, 1000);
        assert!(waits.now_or_never().is_some());
        window.sent(100);
        let mut waits = Box::pin(window.below(60));
        assert!((&mut waits).now_or_never().is_none());
        window.read(70, 60);
        assert!(waits.now_or_never().is_some());
    }
}
