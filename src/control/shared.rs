//! What the routes and the sampler of the admin side share.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::sync::{Semaphore, watch};

use axum::body::Body;
use axum::http::Response;

use super::answer::Said;
use super::audit::{Audit, AuditLog};
use super::calls::Calls;
use super::daemon::{Daemon, Page, Problem};
use super::estimate;
use super::guard::Guard;
use super::health;
use super::history::Recorder;
use super::issue::Health;
use super::speeds::Speeds;
use super::view::{Action, Delivery, Listing, Overview, Setting};
use crate::clock::Clock;
use crate::shutdown::Shutdown;

/// Live pages at once, well below the bound on connections, so that probes always get through.
pub(super) const LISTENERS: usize = 32;

/// Longest call and longest message in the audit log, in characters.
const LONGEST: usize = 500;

/// Attempts that are refused are written down this often at most, so that whoever makes many pushes nothing
/// else out of the record.
const REFUSED_EVERY: Duration = Duration::from_secs(60);

/// Attempts that were refused.
#[derive(Default)]
struct Refused {
    /// When one was last written down.
    written: Option<Instant>,
    /// Since then.
    more: u64,
}

/// What the routes share.
pub(super) struct Shared {
    pub calls: Calls,
    pub guard: Guard,
    pub pulses: watch::Sender<Bytes>,
    pub listeners: Arc<Semaphore>,
    pub shutdown: Shutdown,
    pub configuration: Vec<Setting>,
    pub clock: Clock,
    audit: Option<Arc<Audit>>,
    refused: Mutex<Refused>,
    recorder: Mutex<Recorder>,
    speeds: Mutex<Speeds>,
}

impl Shared {
    pub fn new(
        daemon: Arc<dyn Daemon>,
        guard: Guard,
        configuration: Vec<Setting>,
        audit: Option<AuditLog>,
        clock: Clock,
        shutdown: Shutdown,
    ) -> Self {
        Self {
            calls: Calls::new(daemon),
            guard,
            pulses: watch::Sender::new(Bytes::new()),
            listeners: Arc::new(Semaphore::new(LISTENERS)),
            shutdown,
            configuration,
            audit: audit.map(|log| log.0),
            clock,
            refused: Mutex::default(),
            recorder: Mutex::default(),
            speeds: Mutex::default(),
        }
    }

    /// The recorder holds plain numbers: one that a panic left behind is as good as before.
    pub fn recorder(&self) -> MutexGuard<'_, Recorder> {
        self.recorder.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What was seen in the last seconds; see [`Self::recorder`].
    pub fn speeds(&self) -> MutexGuard<'_, Speeds> {
        self.speeds.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Fills what the daemon leaves to the admin side.
    pub fn complete(&self, overview: &mut Overview) {
        let speeds = self.speeds();
        speeds.fill(overview);
        estimate::destinations(overview, &speeds);
        overview.health = Health::of(overview);
    }

    /// The same for deliveries. `ahead`: they hold every open delivery of a destination from the
    /// newest on, so that it is known what stands before one.
    pub fn complete_deliveries(&self, overview: &Overview, all: &mut [Delivery], ahead: bool) {
        health::deliveries(overview, all);
        if ahead {
            estimate::deliveries(overview, &self.speeds(), all);
        }
    }

    /// Writes a changing call down, before it is answered.
    pub async fn record(&self, action: Action) {
        let Some(audit) = self.audit.clone() else {
            return;
        };
        let written = tokio::task::spawn_blocking(move || audit.record(&action)).await;
        if let Err(error) = written.map_err(io::Error::other).flatten() {
            tracing::error!(%error, "the audit log could not be written");
        }
    }

    /// Writes a refused attempt down, with how many came since the last that was.
    pub async fn record_refused(&self, mut attempt: Action) {
        let more = {
            let mut refused = self.refused.lock().unwrap_or_else(PoisonError::into_inner);
            let written = refused.written;
            if written.is_some_and(|written| written.elapsed() < REFUSED_EVERY) {
                refused.more += 1;
                return;
            }
            refused.written = Some(Instant::now());
            std::mem::take(&mut refused.more)
        };
        if more > 0 {
            let so = format!(" So were {more} more since the one before.");
            attempt.said.push_str(&so);
        }
        self.record(attempt).await;
    }

    /// Changing calls, newest first.
    pub async fn audited(&self, page: Page) -> Result<Listing<Action>, Problem> {
        let Some(audit) = self.audit.clone() else {
            return Ok(Listing::default());
        };
        let skip = page.after.as_deref().unwrap_or("0").parse::<usize>();
        let skip =
            skip.map_err(|_| Problem::Refused("`after` is not what a list gave.".to_owned()))?;
        let read = tokio::task::spawn_blocking(move || audit.newest(skip, page.limit)).await;
        let (items, more) = read
            .map_err(io::Error::other)
            .flatten()
            .map_err(|error| Problem::Failed(format!("The audit log cannot be read: {error}.")))?;
        let next = more.then(|| (skip + items.len()).to_string());
        Ok(Listing { items, next })
    }

    /// The overview as it is shown.
    pub async fn overview(&self) -> Result<Overview, Problem> {
        let mut overview = self.calls.ask(|daemon| Ok(daemon.overview())).await?;
        self.complete(&mut overview);
        Ok(overview)
    }

    /// A changing call, as the audit log has it.
    pub fn action(&self, who: Option<String>, call: &str, response: &Response<Body>) -> Action {
        let said = response.extensions().get::<Said>();
        Action {
            at: self.clock.now(),
            who: who.unwrap_or_else(|| "somebody on this machine".to_owned()),
            call: call.chars().take(LONGEST).collect(),
            status: response.status().as_u16(),
            said: said.map_or_else(String::new, |said| said.0.chars().take(LONGEST).collect()),
        }
    }
}
