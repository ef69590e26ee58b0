//! Calls to the daemon: on the blocking pool, few at a time, and not waited for without end.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;

use super::daemon::{Daemon, Problem};

/// Calls under way at once. A call that hangs keeps its place, so that a stuck disk cannot fill
/// the blocking pool with our questions.
const AT_ONCE: usize = 8;

/// A call that takes longer is answered with an error; it is left to end by itself.
const WITHIN: Duration = Duration::from_secs(15);

/// The way to the daemon.
#[derive(Clone)]
pub(super) struct Calls {
    daemon: Arc<dyn Daemon>,
    places: Arc<Semaphore>,
}

impl Calls {
    pub fn new(daemon: Arc<dyn Daemon>) -> Self {
        Self {
            daemon,
            places: Arc::new(Semaphore::new(AT_ONCE)),
        }
    }

    /// Asks the daemon.
    pub async fn ask<T: Send + 'static>(
        &self,
        question: impl FnOnce(&dyn Daemon) -> Result<T, Problem> + Send + 'static,
    ) -> Result<T, Problem> {
        let answered = tokio::time::timeout(WITHIN, async {
            let place = Arc::clone(&self.places).acquire_owned().await.ok();
            let daemon = Arc::clone(&self.daemon);
            tokio::task::spawn_blocking(move || {
                let _place = place;
                question(&*daemon)
            })
            .await
        });
        match answered.await {
            Ok(Ok(answer)) => answer,
            Ok(Err(error)) => {
                tracing::error!(%error, "a call of the admin side ended in a panic");
                Err(Problem::Failed(
                    "The daemon could not answer: this is a defect of looker-feed.".into(),
                ))
            }
            Err(_) => Err(Problem::Failed(format!(
                "The daemon did not answer within {} seconds: its disk, or the database of the outbox, may be stuck.",
                WITHIN.as_secs()
            ))),
        }
    }
}
