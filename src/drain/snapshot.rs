//! What can be seen of a destination from outside: the values behind the status page and metrics.

use std::time::Duration;

use serde::Serialize;

use crate::clock::UnixMillis;
use crate::model::DestinationId;

use super::transport::Reply;

/// One destination at one moment.
#[derive(Clone, Debug, Serialize)]
pub struct Snapshot {
    /// Which, as 32 hexadecimal digits.
    #[serde(serialize_with = "as_text")]
    pub destination: DestinationId,
    /// The same for people.
    pub label: String,
    /// How it stands.
    pub state: Standing,
    /// Batches per second that may be sent just now; `None` without a limit.
    pub rate: Option<f64>,
    /// The configured limit in batches per second; `None` without one.
    pub limit: Option<u32>,
    /// Requests in flight.
    pub in_flight: usize,
    /// Entries taken from the outbox and not yet settled there.
    pub held: usize,
    /// Requests sent since the start of the daemon, repeated ones included.
    pub requests: u64,
    /// Batches in them.
    pub batches: u64,
    /// What came back.
    pub replies: Replies,
    /// Batches sent to the dead letters since the start of the daemon.
    pub dead_letters: u64,
    /// The last complaint, as a sentence. It can hold the server's words.
    pub last_error: Option<String>,
    /// When that was.
    pub last_error_at: Option<UnixMillis>,
    /// When a request was accepted last.
    pub last_success: Option<UnixMillis>,
    /// Mean time from sending to reply, of the recent requests.
    pub latency_mean: Option<Duration>,
    /// The time within which 99 of 100 recent replies came, rounded up by at most a fifth.
    pub latency_p99: Option<Duration>,
}

/// How a destination stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum Standing {
    /// Requests go out as they come, or would.
    Flowing,
    /// Nothing goes out until then.
    Waiting {
        /// When it goes on.
        until: UnixMillis,
        /// Why, as a clause.
        why: String,
    },
    /// Nothing goes out but a slow probe, if any, until a person changes something.
    Paused {
        /// Since when.
        since: UnixMillis,
        /// Why, as a clause.
        why: String,
        /// The next probe; `None` when an operator has paused it.
        probe_at: Option<UnixMillis>,
    },
    /// Not available: one probe at a time.
    Down {
        /// The next probe.
        probe_at: UnixMillis,
        /// Failures in a row.
        failures: u32,
        /// Since when.
        since: UnixMillis,
        /// Why, as a clause.
        why: String,
    },
}

/// Replies by kind, since the start of the daemon.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Replies {
    /// 202.
    pub accepted: u64,
    /// 429.
    pub throttled: u64,
    /// 5xx, timeouts, broken connections.
    pub unavailable: u64,
    /// 401, 403.
    pub unauthorized: u64,
    /// Statuses that are not documented.
    pub unexpected: u64,
    /// 400, 422.
    pub rejected: u64,
    /// 413.
    pub too_large: u64,
}

impl Replies {
    /// Counts one.
    pub(super) fn count(&mut self, reply: &Reply) {
        let counter = match reply {
            Reply::Accepted { .. } => &mut self.accepted,
            Reply::Throttled { .. } => &mut self.throttled,
            Reply::Unavailable { .. } => &mut self.unavailable,
            Reply::Unauthorized { .. } => &mut self.unauthorized,
            Reply::Unexpected { .. } => &mut self.unexpected,
            Reply::Rejected { .. } => &mut self.rejected,
            Reply::TooLarge { .. } => &mut self.too_large,
        };
        *counter += 1;
    }
}

fn as_text<S: serde::Serializer>(id: &DestinationId, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(id)
}
