//! The connections that are open at once. When all places are taken, the oldest connection that has
//! not shown a hub key gives up its place: strangers who hold connections open without asking for
//! anything must not keep Looker out.

use std::collections::VecDeque;
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;

/// All connections.
#[derive(Debug)]
pub(super) struct Crowd {
    places: Arc<Semaphore>,
    /// Oldest first; those that are known or have left are taken out when one is looked for.
    strangers: Mutex<VecDeque<Arc<Guest>>>,
}

/// One connection, as its requests see it.
#[derive(Debug)]
pub(super) struct Guest {
    pub(super) address: IpAddr,
    known: AtomicBool,
    leave: CancellationToken,
}

/// A place that a connection has until this is dropped.
pub(super) struct Seat {
    pub(super) guest: Arc<Guest>,
    _place: Option<OwnedSemaphorePermit>,
}

impl Crowd {
    pub(super) fn new(places: usize) -> Self {
        Self {
            places: Arc::new(Semaphore::new(places)),
            strangers: Mutex::default(),
        }
    }

    /// Waits for a place; sends a stranger away if there is none free.
    pub(super) async fn enter(&self, address: IpAddr) -> Seat {
        let place = match Arc::clone(&self.places).try_acquire_owned() {
            Ok(place) => Some(place),
            Err(_) => {
                self.send_one_away();
                // The semaphore is never closed.
                Arc::clone(&self.places).acquire_owned().await.ok()
            }
        };
        let guest = Arc::new(Guest {
            address,
            known: AtomicBool::new(false),
            leave: CancellationToken::new(),
        });
        let mut strangers = self.strangers();
        strangers.retain(|guest| guest.is_stranger());
        strangers.push_back(Arc::clone(&guest));
        Seat {
            guest,
            _place: place,
        }
    }

    fn send_one_away(&self) {
        let mut strangers = self.strangers();
        strangers.retain(|guest| guest.is_stranger());
        if let Some(oldest) = strangers.pop_front() {
            tracing::debug!(source = %oldest.address, "a connection that showed no hub key gives up its place");
            oldest.leave.cancel();
        }
    }

    /// Whole after any panic: its changes are single calls.
    fn strangers(&self) -> std::sync::MutexGuard<'_, VecDeque<Arc<Guest>>> {
        self.strangers
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

impl Guest {
    /// The connection has shown a hub key and keeps its place.
    pub(super) fn is_known(&self) {
        self.known.store(true, Ordering::Relaxed);
    }

    /// Completes when the place must be given up; never for one who has become known meanwhile.
    pub(super) async fn sent_away(&self) {
        self.leave.cancelled().await;
        if self.known.load(Ordering::Relaxed) {
            std::future::pending::<()>().await;
        }
    }

    fn is_stranger(&self) -> bool {
        !self.known.load(Ordering::Relaxed) && !self.leave.is_cancelled()
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        // Taken out of the queue the next time that it is looked at.
        self.guest.leave.cancel();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::FutureExt;

    const ADDRESS: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

    #[test]
    fn the_oldest_stranger_leaves_and_the_known_ones_stay() {
        let crowd = Crowd::new(3);
        let enter = || crowd.enter(ADDRESS).now_or_never();
        let [known, first, second] = [enter(), enter(), enter()].map(Option::unwrap);
        known.guest.is_known();
        // It waits until the place is free.
        assert!(enter().is_none());
        assert!(first.guest.sent_away().now_or_never().is_some());
        assert!(second.guest.sent_away().now_or_never().is_none());
        drop(first);
        let third = enter().unwrap();
        assert!(enter().is_none());
        assert!(second.guest.sent_away().now_or_never().is_some());
        drop(second);
        let fourth = enter().unwrap();
        third.guest.is_known();
        fourth.guest.is_known();
        // All are known: nobody is sent away, and the next one waits.
        assert!(enter().is_none());
        for seat in [&known, &third, &fourth] {
            assert!(seat.guest.sent_away().now_or_never().is_none());
        }
        drop(known);
        assert!(enter().is_some());
        assert!(crowd.strangers().len() <= 3);
    }
}
