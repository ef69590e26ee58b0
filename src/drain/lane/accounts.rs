//! With which account a destination is sent to, and when to look whether there is another.

use std::sync::Arc;
use std::time::Duration;

/// A paused destination looks for a new account at most this often.
const LOOK: Duration = Duration::from_secs(5);

/// The accounts that were seen of one destination.
pub(super) struct Accounts {
    /// It is the same destination, so it holds for all that waits here.
    newest: Option<Arc<[u8]>>,
    /// Of the last refused request.
    refused: Option<Arc<[u8]>>,
    /// The outbox has changed since the last look.
    changed: bool,
    /// The tick of the last look.
    looked: Duration,
}

impl Accounts {
    pub fn new(now: Duration) -> Self {
        Self {
            newest: None,
            refused: None,
            changed: false,
            looked: now,
        }
    }

    /// A claim has brought an account.
    pub fn seen(&mut self, account: Arc<[u8]>) {
        self.newest = Some(account);
    }

    /// The newest account.
    pub fn newest(&self) -> Option<Arc<[u8]>> {
        self.newest.clone()
    }

    /// A request with this account was refused.
    pub fn refused(&mut self, account: Arc<[u8]>) {
        self.refused = Some(account);
    }

    /// Whether there is another account than the refused one. True once for each: if it is refused
    /// too, it is the refused one.
    pub fn another(&mut self) -> bool {
        let another = self.newest.is_some() && self.newest != self.refused;
        if another {
            self.refused.clone_from(&self.newest);
        }
        another
    }

    /// The outbox has changed: there may be another account.
    pub fn changed(&mut self) {
        self.changed = true;
    }

    /// The tick of the next look; `None` while nothing has changed since the last.
    pub fn look_at(&self) -> Option<Duration> {
        self.changed.then_some(self.looked + LOOK)
    }

    /// A look begins. Said before it, so that a change during it is not taken for seen.
    pub fn look(&mut self, now: Duration) {
        self.changed = false;
        self.looked = now;
    }
}
