//! What can be seen of a destination from outside: the values behind the status page and metrics.

use std::time::Duration;

use crate::clock::UnixMillis;
use crate::model::DestinationId;

use super::circuit::{Circuit, State};
use super::moment::Moment;
use super::transport::Reply;

/// One destination at one moment.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// Which, as 32 hexadecimal digits.
    pub destination: DestinationId,
    /// The same for people.
    pub label: String,
    /// How it stands.
    pub state: SendState,
    /// Batches per second that may be sent just now; `None` without a limit.
    pub rate: Option<f64>,
    /// The rate that it is growing to, in batches per second; `None` without a limit.
    pub heading: Option<f64>,
    /// The configured limit in batches per second; `None` without one.
    pub limit: Option<u32>,
    /// Requests in flight.
    pub in_flight: usize,
    /// Entries taken from the outbox and not yet settled there.
    pub held: usize,
    /// What has happened so far.
    pub record: Record,
    /// Mean time from sending to reply, of the recent requests.
    pub latency_mean: Option<Duration>,
    /// The time within which 99 of 100 recent replies came, rounded up by at most a fifth.
    pub latency_p99: Option<Duration>,
}

/// What has happened to a destination since the start of the daemon.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Record {
    /// Requests sent, repeated ones included.
    pub requests: u64,
    /// Batches in them.
    pub batches: u64,
    /// Batches that were accepted.
    pub accepted_batches: u64,
    /// What came back.
    pub replies: Replies,
    /// Batches sent to the dead letters.
    pub dead_letters: u64,
    /// The last complaint, as a sentence. It can hold the server's words.
    pub last_error: Option<String>,
    /// When that was.
    pub last_error_at: Option<UnixMillis>,
    /// When a request was accepted last.
    pub last_success: Option<UnixMillis>,
}

/// How a destination stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SendState {
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
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
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

impl SendState {
    /// How a circuit stands, by the wall clock.
    pub(super) fn of(circuit: &Circuit, now: Moment) -> Self {
        if let Some(since) = circuit.held() {
            return Self::Paused {
                since,
                why: "paused by an operator".to_owned(),
                probe_at: None,
            };
        }
        match circuit.state() {
            State::Flowing => Self::Flowing,
            State::Waiting { until, .. } if *until <= now.tick => Self::Flowing,
            State::Waiting { until, why } => Self::Waiting {
                until: now.wall_at(*until),
                why: why.clone(),
            },
            State::Down {
                probe_at,
                failures,
                why,
                since,
            } => Self::Down {
                probe_at: now.wall_at(*probe_at),
                failures: *failures,
                since: since.wall,
                why: why.clone(),
            },
            State::Paused {
                probe_at,
                why,
                since,
                ..
            } => Self::Paused {
                since: since.wall,
                why: why.clone(),
                probe_at: Some(now.wall_at(*probe_at)),
            },
        }
    }
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
