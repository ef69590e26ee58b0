//! The daemon's tasks, in the order in which they end.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::Poll;
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::RunError;
use crate::shutdown::{self, Shutdown, Trigger};

/// What runs. Parts that were started between two calls of [`Parts::then`] are told to stop at the same
/// moment; those behind are told when these have ended.
#[derive(Default)]
pub(super) struct Parts {
    steps: Vec<Vec<Part>>,
}

struct Part {
    name: &'static str,
    /// How long it may take once it has been told to stop; then it is cut off.
    grace: Duration,
    /// Without it the daemon must not go on.
    vital: bool,
    trigger: Trigger,
    /// `None` once its end has been seen.
    task: Option<JoinHandle<io::Result<()>>>,
}

impl Parts {
    /// Starts a part without which the daemon ends.
    pub fn start<F>(&mut self, name: &'static str, grace: Duration, run: impl FnOnce(Shutdown) -> F)
    where
        F: Future<Output = io::Result<()>> + Send + 'static,
    {
        self.add(name, grace, true, run);
    }

    /// Starts a part that the others can do without; its own end before its time is logged.
    pub fn start_aside<F>(
        &mut self,
        name: &'static str,
        grace: Duration,
        run: impl FnOnce(Shutdown) -> F,
    ) where
        F: Future<Output = ()> + Send + 'static,
    {
        self.add(name, grace, false, |stop| {
            let run = run(stop);
            async {
                run.await;
                Ok(())
            }
        });
    }

    /// What is started from now on ends after what was started before.
    pub fn then(&mut self) {
        self.steps.push(Vec::new());
    }

    fn add<F>(
        &mut self,
        name: &'static str,
        grace: Duration,
        vital: bool,
        run: impl FnOnce(Shutdown) -> F,
    ) where
        F: Future<Output = io::Result<()>> + Send + 'static,
    {
        let (trigger, stop) = shutdown::channel();
        let part = Part {
            name,
            grace,
            vital,
            trigger,
            task: Some(tokio::spawn(run(stop))),
        };
        match self.steps.last_mut() {
            Some(step) => step.push(part),
            None => self.steps.push(vec![part]),
        }
    }

    /// Waits until a vital part ends by itself, which none should; says what it was.
    pub async fn failed(&mut self) -> RunError {
        poll_fn(|context| {
            for part in self.steps.iter_mut().flatten() {
                let Some(task) = &mut part.task else {
                    continue;
                };
                let Poll::Ready(ended) = Pin::new(task).poll(context) else {
                    continue;
                };
                part.task = None;
                let why = match ended {
                    Ok(Ok(())) => RunError::Ended(part.name),
                    Ok(Err(source)) => RunError::Server {
                        what: part.name,
                        source,
                    },
                    Err(_) => RunError::Panicked(part.name),
                };
                if part.vital {
                    return Poll::Ready(why);
                }
                tracing::error!(error = %why, "a part of the daemon has ended; the others go on");
            }
            Poll::Pending
        })
        .await
    }

    /// Ends all, step by step. None runs when this returns.
    ///
    /// # Errors
    /// The first that did not end well; the others are ended all the same.
    pub async fn end(self) -> Result<(), RunError> {
        let mut outcome = Ok(());
        for step in self.steps {
            for part in &step {
                part.trigger.pull();
            }
            for part in step {
                let name = part.name;
                let ended = part.end().await;
                if let (Err(error), Err(_)) = (&ended, &outcome) {
                    tracing::error!(part = name, %error, "a part of the daemon failed at its end");
                }
                outcome = outcome.and(ended);
            }
        }
        outcome
    }
}

impl Part {
    async fn end(self) -> Result<(), RunError> {
        let Some(mut task) = self.task else {
            return Ok(());
        };
        let what = self.name;
        match timeout(self.grace, &mut task).await {
            Ok(Ok(ended)) => ended.map_err(|source| RunError::Server { what, source }),
            Ok(Err(_)) if self.vital => Err(RunError::Panicked(what)),
            Ok(Err(_)) => Ok(()),
            Err(_) => {
                tracing::warn!(what, "did not end in time and is cut off");
                task.abort();
                Ok(())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    const GRACE: Duration = Duration::from_secs(60);

    #[tokio::test]
    async fn parts_end_step_by_step_and_in_a_step_together() {
        let order = Arc::new(Mutex::new(Vec::new()));
        let mut parts = Parts::default();
        let part = |name| {
            let order = Arc::clone(&order);
            move |mut stop: Shutdown| async move {
                stop.wait().await;
                tokio::task::yield_now().await;
                order.lock().unwrap().push(name);
            }
        };
        parts.start_aside("first", GRACE, part("first"));
        parts.then();
        parts.start_aside("second", GRACE, part("second"));
        parts.start_aside("third", GRACE, part("second"));
        parts.then();
        parts.start_aside("last", GRACE, part("last"));
        parts.end().await.unwrap();
        let order = order.lock().unwrap().clone();
        assert_eq!(order, ["first", "second", "second", "last"]);
    }

    #[tokio::test]
    async fn a_vital_part_that_ends_is_said_and_another_is_not() {
        let mut parts = Parts::default();
        parts.start_aside("aside", GRACE, |_| async {});
        parts.start("vital", GRACE, |_| async {
            Err(io::Error::other("broken"))
        });
        parts.start("steady", GRACE, |mut stop| async move {
            stop.wait().await;
            Ok(())
        });
        let why = parts.failed().await;
        assert!(
            matches!(&why, RunError::Server { what: "vital", source } if source.to_string() == "broken"),
            "{why:?}"
        );
        parts.end().await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn a_part_that_does_not_end_is_cut_off_and_a_panic_is_an_error() {
        let mut parts = Parts::default();
        parts.start("stuck", GRACE, |_| std::future::pending());
        parts.start("broken", GRACE, |mut stop| async move {
            stop.wait().await;
            panic!("on purpose")
        });
        let ended = parts.end().await;
        assert!(
            matches!(ended, Err(RunError::Panicked("broken"))),
            "{ended:?}"
        );
    }
}
