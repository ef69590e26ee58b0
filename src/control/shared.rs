//! What the routes and the sampler of the admin side share.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use tokio::sync::{Semaphore, watch};

use super::calls::Calls;
use super::daemon::{Daemon, Problem};
use super::estimate;
use super::guard::Guard;
use super::history::Recorder;
use super::view::Overview;
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
    recorder: Mutex<Recorder>,
}

impl Shared {
    pub fn new(daemon: Arc<dyn Daemon>, guard: Guard, shutdown: Shutdown) -> Self {
        Self {
            calls: Calls::new(daemon),
            guard,
            pulses: watch::Sender::new(Bytes::new()),
            listeners: Arc::new(Semaphore::new(LISTENERS)),
            shutdown,
            recorder: Mutex::default(),
        }
    }

    /// The recorder holds plain numbers: one that a panic left behind is as good as before.
    pub fn recorder(&self) -> MutexGuard<'_, Recorder> {
        self.recorder.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Fills what the daemon leaves to the admin side.
    pub fn complete(&self, overview: &mut Overview) {
        self.recorder().fill(overview);
        estimate::destinations(overview);
    }

    /// The overview as it is shown.
    pub async fn overview(&self) -> Result<Overview, Problem> {
        let mut overview = self.calls.ask(|daemon| Ok(daemon.overview())).await?;
        self.complete(&mut overview);
        Ok(overview)
    }
}
