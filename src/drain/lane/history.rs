//! What has happened to a destination, for operators and for the log.

use std::time::Duration;

use super::super::entry::Piece;
use super::super::latency::Latencies;
use super::super::moment::Moment;
use super::super::notice::Notices;
use super::super::snapshot::Record;
use super::super::transport::Reply;

/// Counts, times, the last complaint, and what is worth a log line.
#[derive(Default)]
pub(super) struct History {
    pub record: Record,
    pub latencies: Latencies,
    pub notices: Notices,
}

impl History {
    /// A request of so many batches goes out.
    pub fn sent(&mut self, batches: usize) {
        self.record.requests += 1;
        self.record.batches += batches as u64;
    }

    /// The reply to one.
    pub fn replied(&mut self, now: Moment, latency: Duration, batches: usize, reply: &Reply) {
        self.latencies.record(latency);
        self.record.replies.count(reply);
        if matches!(reply, Reply::Accepted { .. }) {
            self.record.accepted_batches += batches as u64;
            self.record.last_success = Some(now.wall);
        }
    }

    /// The batches of a piece went to the dead letters.
    pub fn dead_letters(&mut self, now: Moment, piece: &Piece) {
        self.record.dead_letters += piece.slices.len() as u64;
        self.notices
            .dead_letters(now, piece.entry.0, piece.slices.len());
    }

    /// Something went wrong; `sentence` may hold the server's words.
    pub fn complain(&mut self, now: Moment, sentence: String) {
        self.record.last_error = Some(sentence);
        self.record.last_error_at = Some(now.wall);
    }
}
