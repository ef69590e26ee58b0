//! An open shared outbox: calls that block, run by threads of its own.

use std::future::Future;
use std::sync::mpsc::sync_channel;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::runtime::Runtime;
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};

use super::daemon::Inner;
use super::lease;
use super::lock::lock;
use crate::outbox::error::Error;
use crate::outbox::status::Health;

/// How long `close` may take to give the leases back; who does not hear of it waits for their end.
const CLOSING: Duration = Duration::from_secs(2);

/// An open shared outbox. Cloning gives another handle to the same one.
#[derive(Clone, Debug)]
pub(in crate::outbox) struct SharedOutbox {
    pub(super) inner: Arc<Inner>,
    pub(super) runner: Arc<Runner>,
}

/// Ends the tasks with the last handle.
#[derive(Debug)]
pub(super) struct Runner {
    pub inner: Arc<Inner>,
    pub parts: Mutex<Option<Parts>>,
    pub handle: tokio::runtime::Handle,
}

/// What runs while the outbox is open.
#[derive(Debug)]
pub(super) struct Parts {
    pub runtime: Runtime,
    /// Ends by itself when the outbox is closed.
    pub beat: JoinHandle<()>,
    /// All others are stopped.
    pub tasks: JoinSet<()>,
}

impl SharedOutbox {
    /// Runs a future of a bounded time on the outbox's own threads, and waits for it.
    pub(super) fn run<T: Send + 'static>(
        &self,
        future: impl Future<Output = Result<T, Error>> + Send + 'static,
    ) -> Result<T, Error> {
        if self.inner.is_closed() {
            return Err(Error::Closed);
        }
        self.runner.run(future)
    }

    /// Changes whenever something can be claimed that could not be before, or a person has asked for
    /// something.
    pub fn subscribe(&self) -> watch::Receiver<u64> {
        self.inner.changed.subscribe()
    }

    /// See [`Outbox::is_at_rest`](crate::outbox::Outbox::is_at_rest).
    pub fn is_at_rest(&self) -> bool {
        self.inner.is_at_rest()
    }

    /// Not after [`SharedOutbox::close`].
    pub fn is_alive(&self) -> bool {
        !self.inner.is_closed()
    }

    /// Gives all leases back and ends the outbox's tasks. Other handles get [`Error::Closed`] from
    /// then on.
    pub fn close(&self) {
        self.runner.close();
    }

    /// See [`Outbox::retire`](crate::outbox::Outbox::retire).
    pub fn retire(&self) {
        let inner = Arc::clone(&self.inner);
        let retired = self.run(async move {
            let said = tokio::time::timeout(CLOSING, lease::retire(&inner)).await;
            Ok(matches!(said, Ok(Ok(()))))
        });
        if !matches!(retired, Ok(true)) {
            tracing::warn!("other daemons could not be told that this one stops");
        }
    }

    /// Whether the server takes writes, as far as this daemon has seen.
    pub fn health(&self) -> Health {
        self.inner.health()
    }
}

impl Runner {
    pub(super) fn run<T: Send + 'static>(
        &self,
        future: impl Future<Output = Result<T, Error>> + Send + 'static,
    ) -> Result<T, Error> {
        let (reply, answer) = sync_channel(1);
        // Awaited right here, by the answer; it ends by the deadlines of its statements.
        drop(self.handle.spawn(async move {
            let _ = reply.send(future.await);
        }));
        answer.recv().map_err(|_| Error::Closed)?
    }

    fn close(&self) {
        let parts = lock(&self.parts).take();
        let Some(Parts {
            runtime,
            beat,
            mut tasks,
        }) = parts
        else {
            return;
        };
        self.inner.closed.cancel();
        tasks.abort_all();
        let inner = Arc::clone(&self.inner);
        let given_back = self.run(async move {
            let giving = async {
                // One that arrived after the leave would say that this daemon is still there.
                let _ = beat.await;
                // What failed at the very end first: nobody knows it after this.
                if let Err(error) = inner.write_ends().await {
                    tracing::warn!(%error, "how deliveries failed could not be written down");
                }
                lease::give_all_back(&inner).await
            };
            let ended = tokio::time::timeout(CLOSING, giving).await;
            Ok(matches!(ended, Ok(Ok(()))))
        });
        if !matches!(given_back, Ok(true)) {
            tracing::warn!(
                "the leases could not be given back; other daemons take over when they have run out"
            );
        }
        // Dropped where blocking may not be allowed.
        runtime.shutdown_background();
    }
}

impl Drop for Runner {
    fn drop(&mut self) {
        self.close();
    }
}
