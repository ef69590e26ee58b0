//! The connections that are open at once. When all places are taken, one gives up its place for the
//! next: connections that are held open without asking for anything must not keep others out.
//!
//! Who goes first: the connections that are not [known](Peer::is_known), those that are idle before
//! those within a request; then the known ones that are idle. Of several, the one that has been quiet
//! for the longest time. A known connection within a request always keeps its place.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
use tokio::time::sleep;

/// A place that does not become free in this time is looked for again: who was to leave may have become
/// known meanwhile.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// All connections of a server.
#[derive(Debug)]
pub struct Admission {
    places: Arc<Semaphore>,
    peers: Arc<Mutex<Peers>>,
}

#[derive(Debug, Default)]
struct Peers {
    /// Counts whatever happens, so that what happened earlier has the lower number.
    clock: u64,
    open: HashMap<u64, State>,
}

/// What decides on a connection's place.
#[derive(Debug)]
struct State {
    known: bool,
    /// Under way, until the last byte of the answer has been handed over.
    requests: u32,
    /// When it came, or when its last request ended.
    quiet_since: u64,
    leaving: bool,
    leave: Arc<Notify>,
}

/// One connection, as its requests see it: each has it among its extensions.
#[derive(Debug)]
pub struct Peer {
    /// Where it comes from.
    pub address: IpAddr,
    id: u64,
    leave: Arc<Notify>,
    peers: Arc<Mutex<Peers>>,
}

/// A place that a connection has until this is dropped.
#[derive(Debug)]
pub struct Place {
    /// Who has it.
    pub peer: Arc<Peer>,
    _permit: Option<OwnedSemaphorePermit>,
}

/// A request that is under way, until this is dropped.
#[derive(Debug)]
pub struct Request(Arc<Peer>);

impl Admission {
    /// So many places.
    pub fn new(places: usize) -> Self {
        Self {
            places: Arc::new(Semaphore::new(places)),
            peers: Arc::default(),
        }
    }

    /// Waits for a place; makes another connection give up its own if there is none free.
    pub async fn enter(&self, address: IpAddr) -> Place {
        let permit = loop {
            if let Ok(permit) = Arc::clone(&self.places).try_acquire_owned() {
                break Some(permit);
            }
            self.evict();
            tokio::select! {
                // The semaphore is never closed.
                permit = Arc::clone(&self.places).acquire_owned() => break permit.ok(),
                () = sleep(LOOK_AGAIN) => {}
            }
        };
        let leave = Arc::new(Notify::new());
        let mut peers = lock(&self.peers);
        let id = peers.tick();
        let state = State {
            known: false,
            requests: 0,
            quiet_since: id,
            leaving: false,
            leave: Arc::clone(&leave),
        };
        peers.open.insert(id, state);
        let peer = Arc::new(Peer {
            address,
            id,
            leave,
            peers: Arc::clone(&self.peers),
        });
        Place {
            peer,
            _permit: permit,
        }
    }

    /// Tells one connection to leave, if there is one that may be told so.
    pub fn evict(&self) {
        let mut peers = lock(&self.peers);
        let staying = peers.open.values_mut().filter(|state| !state.leaving);
        let ranked = staying.filter_map(|state| Some((state.rank()?, state.quiet_since, state)));
        if let Some((_, _, state)) = ranked.min_by_key(|(rank, since, _)| (*rank, *since)) {
            state.leaving = true;
            state.leave.notify_one();
        }
    }
}

impl Peers {
    fn tick(&mut self) -> u64 {
        self.clock += 1;
        self.clock
    }
}

impl State {
    /// Lower ones leave first; `None`: it stays.
    fn rank(&self) -> Option<u8> {
        match (self.known, self.requests > 0) {
            (false, false) => Some(0),
            (false, true) => Some(1),
            (true, false) => Some(2),
            (true, true) => None,
        }
    }
}

impl Peer {
    /// The connection has shown that it belongs here, for example by a key.
    pub fn is_known(&self) {
        if let Some(state) = lock(&self.peers).open.get_mut(&self.id) {
            state.known = true;
        }
    }

    /// A request begins; `None` for a connection that has been told to leave, which must not begin one.
    pub fn begin(self: &Arc<Self>) -> Option<Request> {
        let mut peers = lock(&self.peers);
        let state = peers.open.get_mut(&self.id)?;
        if state.leaving {
            return None;
        }
        state.requests += 1;
        Some(Request(Arc::clone(self)))
    }

    /// Completes when the place must be given up; not for one that has become known within a request
    /// meanwhile.
    pub async fn told_to_leave(&self) {
        loop {
            self.leave.notified().await;
            match lock(&self.peers).open.get_mut(&self.id) {
                Some(state) if state.rank().is_none() => state.leaving = false,
                _ => return,
            }
        }
    }
}

impl Drop for Request {
    fn drop(&mut self) {
        let mut peers = lock(&self.0.peers);
        let now = peers.tick();
        if let Some(state) = peers.open.get_mut(&self.0.id) {
            state.requests = state.requests.saturating_sub(1);
            state.quiet_since = now;
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        lock(&self.peer.peers).open.remove(&self.peer.id);
    }
}

/// The table is whole after any panic: its changes are single assignments.
fn lock(peers: &Mutex<Peers>) -> MutexGuard<'_, Peers> {
    peers.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::FutureExt;

    const ADDRESS: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

    fn leaves(place: &Place) -> bool {
        place.peer.told_to_leave().now_or_never().is_some()
    }

    #[tokio::test]
    async fn the_quietest_stranger_leaves_and_the_known_ones_stay() {
        let admission = Admission::new(3);
        let enter = || admission.enter(ADDRESS).now_or_never();
        let [known, first, second] = [enter(), enter(), enter()].map(Option::unwrap);
        known.peer.is_known();
        let _at_work = known.peer.begin().unwrap();
        // It waits until the place is free.
        assert!(enter().is_none());
        assert!(leaves(&first) && !leaves(&second));
        assert!(first.peer.begin().is_none());
        drop(first);
        let third = enter().unwrap();
        assert!(enter().is_none());
        assert!(leaves(&second));
        drop(second);
        let fourth = enter().unwrap();
        let _others = [&third, &fourth].map(|place| {
            place.peer.is_known();
            place.peer.begin().unwrap()
        });
        // All are known and at work: nobody leaves, and the next one waits.
        assert!(enter().is_none());
        assert!(![&known, &third, &fourth].into_iter().any(leaves));
        drop(known);
        assert!(enter().is_some());
        assert_eq!(lock(&admission.peers).open.len(), 2);
    }

    #[tokio::test]
    async fn strangers_leave_before_known_ones_and_idle_ones_before_busy_ones() {
        let admission = Admission::new(4);
        let enter = || admission.enter(ADDRESS).now_or_never();
        let [idle, busy, stranger, asking] = [(); 4].map(|()| enter().unwrap());
        for place in [&idle, &busy] {
            place.peer.is_known();
        }
        let _one = busy.peer.begin().unwrap();
        let two = asking.peer.begin().unwrap();
        for place in [stranger, asking, idle] {
            assert!(enter().is_none());
            assert!(leaves(&place));
            drop(place);
            let new = enter().unwrap();
            new.peer.is_known();
            std::mem::forget(new.peer.begin());
            std::mem::forget(new);
        }
        drop(two);
        assert!(!leaves(&busy));
    }

    #[tokio::test]
    async fn who_becomes_known_within_its_request_stays_and_another_is_looked_for() {
        let admission = Admission::new(2);
        let enter = || admission.enter(ADDRESS).now_or_never();
        let [first, second] = [(); 2].map(|()| enter().unwrap());
        let _asks = [&first, &second].map(|place| place.peer.begin().unwrap());
        assert!(enter().is_none());
        first.peer.is_known();
        assert!(!leaves(&first) && !leaves(&second));
        assert!(enter().is_none());
        assert!(!leaves(&first) && leaves(&second));
    }

    #[tokio::test]
    async fn a_request_counts_as_the_last_time_that_something_was_heard() {
        let admission = Admission::new(2);
        let enter = || admission.enter(ADDRESS).now_or_never();
        let [first, second] = [(); 2].map(|()| enter().unwrap());
        drop(first.peer.begin());
        assert!(enter().is_none());
        assert!(leaves(&second) && !leaves(&first));
    }
}
