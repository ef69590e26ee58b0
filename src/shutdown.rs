//! Shutdown as a value that is handed in: [`Shutdown`] is what a task waits on, [`Trigger`] is
//! what the composition root pulls. Dropping the trigger pulls it too.

use tokio::sync::watch;

/// Ends everything that holds a [`Shutdown`] made with it.
#[derive(Debug)]
pub struct Trigger(watch::Sender<bool>);

/// Told when it is time to stop. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Shutdown(watch::Receiver<bool>);

/// A trigger and what it ends.
pub fn channel() -> (Trigger, Shutdown) {
    let (sender, receiver) = watch::channel(false);
    (Trigger(sender), Shutdown(receiver))
}

impl Trigger {
    /// Begins the shutdown. Pulling twice is the same as once.
    pub fn pull(&self) {
        self.0.send_replace(true);
    }
}

impl Shutdown {
    /// Whether it is time to stop.
    pub fn begun(&self) -> bool {
        *self.0.borrow() || self.0.has_changed().is_err()
    }

    /// Waits until it is time to stop. Cancel safe.
    pub async fn wait(&mut self) {
        // An error means that the trigger is gone, which is a shutdown too.
        let _ = self.0.wait_for(|stop| *stop).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn pulling_or_dropping_the_trigger_ends_the_wait() {
        let (trigger, mut shutdown) = channel();
        assert!(!shutdown.begun());
        trigger.pull();
        shutdown.wait().await;
        assert!(shutdown.begun());

        let (trigger, mut shutdown) = channel();
        drop(trigger);
        shutdown.wait().await;
        assert!(shutdown.begun());
    }
}
