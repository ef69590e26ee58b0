//! A local stand-in for mParticle's Events API that enforces the documented contract.
//!
//! For people who try the feed without an account (`looker-feed sandbox`), for `looker-feed demo`,
//! and as the strict double in tests, in process ([`Handle`]) and as a child process (the
//! `/sandbox/*` addresses). It shares no code with the room that encodes batches, so that one
//! mistake cannot hide in both.
//!
//! What a request to `/v2/bulkevents` goes through, in this order; the first refusal is the reply:
//!
//! 1. injected faults ([`Faults`]) that need no body;
//! 2. Basic auth: missing 401, wrong 403;
//! 3. content type (400) and request size (413);
//! 4. a JSON array of batches (400), at most [`Limits::batches_per_request`] (400), each within
//!    [`Limits::batch_bytes`] (413);
//! 5. the rate (429): one bucket for each API key, counted in batches, see `bucket.rs`;
//! 6. the shape of every batch (400), see `contract/`, and [`Limits::events_per_request`] (400).
//!    One bad batch refuses the whole request: mParticle may also accept such a request and drop
//!    the batch unseen, which a test could not see;
//! 7. injected faults that look for a marker in the body;
//! 8. deduplication by API key and `source_request_id`, the ledger, 202.
//!
//! Batches of a request that passes step 5 count against the rate whatever becomes of them.
//! Requests to `/v2/bulkevents/historical` go the same way, then lose what mParticle documents to
//! drop in silence: batches without events, events without a timestamp or younger than 72 hours.
//!
//! "256 KB" and "128 KB" can mean 256,000 or 262,144 bytes, and nobody has published which. The
//! default is the smaller reading, since a sender that keeps to it is right under both.

mod bucket;
mod check;
mod contract;
mod faults;
mod ledger;
mod name;
mod page;
mod refusal;
#[cfg(test)]
mod schema_tests;
pub(crate) mod serve;
mod service;

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::net::TcpListener;

use crate::clock::UnixMillis;
use crate::shutdown::Shutdown;
use bucket::Buckets;
use faults::FaultState;
use ledger::Ledger;

pub use faults::{Fault, Faults, FaultsError, Rule, Window};
pub use ledger::{Accepted, Counts, Second};

/// What stands in a batch that keeps to the contract.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Checked {
    /// Its events.
    pub events: u64,
    /// Those of them that the address for old events would keep.
    pub old_events: u64,
}

/// Checks one batch, as JSON text, against mParticle's documented contract, `now`.
pub fn check_batch(batch: &str, now: UnixMillis) -> Result<Checked, String> {
    match check::check(batch, service::old_before(now)) {
        Ok(facts) => Ok(Checked {
            events: facts.events,
            old_events: facts.old_events,
        }),
        Err(refusal) => Err(refusal.to_string()),
    }
}

/// What the stand-in listens on, whom it lets in, and what it enforces.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Address to listen on; port 0 picks a free one (see [`Sandbox::addr`]).
    pub listen: SocketAddr,
    /// Batches a second for each API key; `None` is without limit. mParticle's default is 270.
    pub batches_per_second: Option<u32>,
    /// Pairs of API key and secret that are let in; `None` lets any non-empty pair in.
    pub credentials: Option<Vec<(String, String)>>,
    /// What is kept of accepted batches.
    pub ledger: LedgerMode,
    /// Sizes and counts of a request.
    pub limits: Limits,
    /// How long [`Sandbox::run`] lets requests in progress finish after the shutdown has begun;
    /// then their connections are cut.
    pub close_within: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            batches_per_second: Some(270),
            credentials: None,
            ledger: LedgerMode::Full,
            limits: Limits::default(),
            close_within: Duration::from_secs(2),
        }
    }
}

/// Sizes and counts that a request must keep to; the defaults are mParticle's documented ones.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Batches in a request.
    pub batches_per_request: usize,
    /// Events in a request, all batches together.
    pub events_per_request: u64,
    /// Bytes of a request's body.
    pub request_bytes: usize,
    /// Bytes of one batch as it stands in the body.
    pub batch_bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            batches_per_request: 100,
            events_per_request: 100,
            request_bytes: 256_000,
            batch_bytes: 128_000,
        }
    }
}

/// What is kept of accepted batches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LedgerMode {
    /// Every accepted batch, byte for byte. Memory grows with what is sent.
    Full,
    /// Counts, and for each `source_request_id` 16 bytes (about 20-40 with the table's slack).
    Counts,
}

/// The stand-in, bound to its address and not yet serving.
#[derive(Debug)]
pub struct Sandbox {
    listener: TcpListener,
    addr: SocketAddr,
    shared: Arc<Shared>,
}

impl Sandbox {
    /// Opens the port. Must be called inside a tokio runtime.
    pub async fn bind(settings: Settings) -> io::Result<Self> {
        let listener = TcpListener::bind(settings.listen).await?;
        let addr = listener.local_addr()?;
        let shared = Arc::new(Shared {
            state: Mutex::new(State::new(&settings)),
            settings,
            started: Instant::now(),
        });
        Ok(Self {
            listener,
            addr,
            shared,
        })
    }

    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Access to the ledger and the faults from within the process.
    pub fn handle(&self) -> Handle {
        Handle {
            shared: Arc::clone(&self.shared),
        }
    }

    /// Serves until `shutdown`, then lets requests in progress finish within
    /// [`Settings::close_within`]. No connection is left open when it returns.
    pub async fn run(self, shutdown: Shutdown) -> io::Result<()> {
        let close_within = self.shared.settings.close_within;
        let shared = self.shared;
        serve::serve(self.listener, shutdown, close_within, move |request| {
            service::answer(Arc::clone(&shared), request)
        })
        .await;
        Ok(())
    }
}

/// In-process access to a [`Sandbox`]. Cheap to clone; outlives the server.
#[derive(Clone, Debug)]
pub struct Handle {
    shared: Arc<Shared>,
}

impl Handle {
    /// What has happened so far.
    pub fn counts(&self) -> Counts {
        self.shared.state().ledger.counts()
    }

    /// The accepted batches in order of first arrival; empty in [`LedgerMode::Counts`].
    pub fn ledger(&self) -> Vec<Accepted> {
        self.shared.state().ledger.accepted().to_vec()
    }

    /// Replaces the injected faults; time windows and counts begin now.
    ///
    /// # Errors
    /// A share outside 0..=1, a status outside 200..=999, an empty marker, a header value that
    /// HTTP cannot carry.
    pub fn set_faults(&self, faults: Faults) -> Result<(), FaultsError> {
        let state = FaultState::new(faults, Instant::now())?;
        self.shared.state().faults = state;
        Ok(())
    }

    /// The limit from now on, in batches a second for each API key; `None` is without limit.
    pub fn set_rate(&self, batches_per_second: Option<u32>) {
        self.shared.state().buckets.set_rate(batches_per_second);
    }

    /// As if just started: ledger, counts, remembered ids, buckets, faults and rate.
    pub fn reset(&self) {
        let fresh = State::new(&self.shared.settings);
        let mut state = self.shared.state();
        let generation = state.generation + 1;
        *state = fresh;
        state.generation = generation;
    }
}

/// What all connections share.
#[derive(Debug)]
struct Shared {
    settings: Settings,
    started: Instant,
    state: Mutex<State>,
}

impl Shared {
    /// Held for bookkeeping only, never across an await or while a batch is checked.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[derive(Debug)]
struct State {
    ledger: Ledger,
    buckets: Buckets,
    faults: FaultState,
    /// Grows with each reset, so that a ledger that is being read out notices.
    generation: u64,
}

impl State {
    fn new(settings: &Settings) -> Self {
        Self {
            ledger: Ledger::new(settings.ledger),
            buckets: Buckets::new(
                settings.batches_per_second,
                settings.limits.batches_per_request,
            ),
            faults: FaultState::default(),
            generation: 0,
        }
    }
}
