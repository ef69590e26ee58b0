//! How a shared outbox is kept.

use std::sync::Arc;
use std::time::Duration;

use super::server::Server;
use crate::clock::Clock;
use crate::seal::Keyring;

/// How a shared outbox is kept.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where it is.
    pub server: Server,
    /// What people call this daemon.
    pub name: String,
    /// Connections at most.
    pub pool: usize,
    /// How long a daemon that has died keeps others from its destinations. It is renewed three times
    /// in that time.
    pub lease: Duration,
    /// How long a call may take, with all its tries; what became of a commit that was not answered is
    /// asked for twice as long.
    pub within: Duration,
    /// Whether a server that has no synchronous standby will do.
    pub allow_unreplicated: bool,
    /// Bytes that may wait before deliveries are refused; `None`: no bound.
    pub max_bytes: Option<u64>,
    /// How long the webhook ids of committed deliveries are remembered.
    pub webhook_memory: Duration,
    /// How many settled deliveries stay listed. One with dead letters stays in any case.
    pub history: usize,
    /// How many rejected rows of a delivery are kept (and at most 64 MiB of them).
    pub rejected_rows: u64,
    /// What records are sealed with, and opened with.
    pub keys: Arc<Keyring>,
    /// Tells the time of the day. How long a lease holds is counted by the machine's steady clock.
    pub clock: Clock,
}

impl Settings {
    /// The defaults, for `server`, sealed with `keys`.
    pub fn new(server: Server, name: impl Into<String>, keys: Arc<Keyring>) -> Self {
        Self {
            server,
            name: name.into(),
            pool: 8,
            lease: Duration::from_secs(15),
            within: Duration::from_secs(30),
            allow_unreplicated: false,
            max_bytes: None,
            webhook_memory: Duration::from_secs(7 * 24 * 60 * 60),
            history: 1_000,
            rejected_rows: 10_000,
            keys,
            clock: Clock::default(),
        }
    }
}
