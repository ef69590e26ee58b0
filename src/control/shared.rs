//! What the routes and the sampler of the admin side share.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use tokio::sync::{Semaphore, watch};

use super::calls::Calls;
use super::daemon::{Daemon, Problem};
use super::estimate;
use super::guard::Guard;
use super::health;
use super::history::Recorder;
use super::issue::Health;
use super::speeds::Speeds;
use super::view::{Delivery, Overview, Setting};
use crate::shutdown::Shutdown;

/// Live pages at once, well below the bound on connections, so that probes always get through.
pub(super) const LISTENERS: usize = 32;

/// What the routes share.
pub(super) struct Shared {
    pub calls: Calls,
    pub guard: Guard,
    pub pulses: watch::Sender<Bytes>,
    pub listeners: Arc<Semaphore>,
    pub shutdown: Shutdown,
    pub configuration: Vec<Setting>,
    recorder: Mutex<Recorder>,
    speeds: Mutex<Speeds>,
}

impl Shared {
    pub fn new(
        daemon: Arc<dyn Daemon>,
        guard: Guard,
        configuration: Vec<Setting>,
        shutdown: Shutdown,
    ) -> Self {
        Self {
            calls: Calls::new(daemon),
            guard,
            pulses: watch::Sender::new(Bytes::new()),
            listeners: Arc::new(Semaphore::new(LISTENERS)),
            shutdown,
            configuration,
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

    /// The overview as it is shown.
    pub async fn overview(&self) -> Result<Overview, Problem> {
        let mut overview = self.calls.ask(|daemon| Ok(daemon.overview())).await?;
        self.complete(&mut overview);
        Ok(overview)
    }
}
