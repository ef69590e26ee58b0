//! What the drain tells the log: few lines, none of them with the server's words or with data of a
//! user. An outage of hours is a line when it begins, one an hour, and one when it ends.

use std::time::Duration;

use super::moment::Moment;
use crate::model::DeliveryId;

/// Between two lines about the same kind of trouble.
const OFTEN: Duration = Duration::from_secs(60);
/// Between two lines about the same outage.
const SELDOM: Duration = Duration::from_secs(3600);

/// One thing worth a log line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Notice {
    /// So many rounds were throttled since the last such line. Nothing is lost.
    Throttled {
        /// How many.
        rounds: u64,
    },
    /// The destination is down, or still is. Nothing is lost.
    Down {
        /// What happened last.
        why: String,
        /// So many probes have failed since the last such line.
        probes: u64,
    },
    /// The destination refuses everything: a person is needed. Nothing is lost.
    Paused {
        /// The HTTP status; 0 when no request could be made.
        status: u16,
    },
    /// So many batches in a row were rejected that sending is paused: a person is needed. Nothing
    /// more becomes a dead letter.
    Doubted {
        /// How many.
        batches: u32,
    },
    /// It is back.
    Recovered {
        /// For how long it was away.
        after: Duration,
    },
    /// So many batches went to the dead letters since the last such line: a person is needed.
    DeadLetters {
        /// The delivery of the last of them.
        delivery: DeliveryId,
        /// How many.
        batches: u64,
    },
}

/// Gathers notices, and holds back what has been said a short while ago.
#[derive(Debug, Default)]
pub struct Notices {
    pending: Vec<Notice>,
    throttled: Gate,
    down: Gate,
    dead_letters: Gate,
}

impl Notices {
    /// Hands over what has gathered.
    pub fn take(&mut self) -> Vec<Notice> {
        std::mem::take(&mut self.pending)
    }

    /// A round was throttled.
    pub fn throttled(&mut self, now: Moment) {
        let rounds = self.throttled.count(now, 1, OFTEN);
        self.pending
            .extend(rounds.map(|rounds| Notice::Throttled { rounds }));
    }

    /// The destination went down.
    pub fn down(&mut self, now: Moment, why: String) {
        self.down = Gate::default();
        self.still_down(now, why);
    }

    /// Another probe has failed.
    pub fn still_down(&mut self, now: Moment, why: String) {
        let probes = self.down.count(now, 1, SELDOM);
        self.pending
            .extend(probes.map(|probes| Notice::Down { why, probes }));
    }

    /// The destination refuses everything.
    pub fn paused(&mut self, status: u16) {
        self.pending.push(Notice::Paused { status });
    }

    /// Too much was rejected in a row.
    pub fn doubted(&mut self, batches: u32) {
        self.pending.push(Notice::Doubted { batches });
    }

    /// It is back.
    pub fn recovered(&mut self, after: Duration) {
        self.pending.push(Notice::Recovered { after });
    }

    /// Batches went to the dead letters.
    pub fn dead_letters(&mut self, now: Moment, delivery: DeliveryId, batches: usize) {
        let batches = self.dead_letters.count(now, batches as u64, OFTEN);
        self.pending
            .extend(batches.map(|batches| Notice::DeadLetters { delivery, batches }));
    }
}

/// Lets one line through at a time, with the count of what it stands for.
#[derive(Debug, Default)]
struct Gate {
    last: Option<Duration>,
    held_back: u64,
}

impl Gate {
    fn count(&mut self, now: Moment, more: u64, every: Duration) -> Option<u64> {
        self.held_back += more;
        if self.last.is_some_and(|last| now.tick < last + every) {
            return None;
        }
        self.last = Some(now.tick);
        Some(std::mem::take(&mut self.held_back))
    }
}
