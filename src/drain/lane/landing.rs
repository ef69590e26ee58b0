//! What a reply does to the destination, and to the piece that it came for.

use std::sync::Arc;

use super::super::circuit::{Change, Pass};
use super::super::entry::Piece;
use super::super::moment::Moment;
use super::super::policy::{Bearing, Fate};
use super::Lane;

impl Lane {
    /// What a reply says of the destination.
    pub(super) fn heard(&mut self, now: Moment, pass: Pass, account: Arc<[u8]>, bearing: Bearing) {
        let mut status = 0;
        let mut exceeded = None;
        match &bearing {
            Bearing::Works { percent_used } => self.pace.clean(now.tick, *percent_used),
            Bearing::Rejects { .. } => self.pace.clean(now.tick, None),
            Bearing::Throttles {
                exceeded: which, ..
            } => {
                exceeded.clone_from(which);
                self.complain(now, "The rate limit was exceeded.".to_owned());
            }
            Bearing::Fails { why, .. } => self.complain(now, format!("Not available: {why}.")),
            Bearing::Refuses { status: code, why } => {
                status = *code;
                self.refused = Some(account);
                self.complain(now, format!("Refused: {why}."));
            }
        }
        let shut_since = self.circuit.shut_since();
        match self.circuit.heard(now, pass, bearing) {
            Change::None => {}
            Change::Throttled => {
                // A server that throttles a probe is back.
                if let Some(since) = shut_since {
                    self.notices.recovered(now.tick.saturating_sub(since));
                }
                self.pace.throttled(now.tick, exceeded.as_ref());
                self.notices.throttled(now);
            }
            Change::WentDown => {
                self.pace.restart(now.tick);
                self.notices.down(now, self.why());
            }
            Change::StillDown => self.notices.still_down(now, self.why()),
            Change::WentPaused => {
                self.pace.restart(now.tick);
                self.notices.paused(status);
            }
            Change::WentDoubted(batches) => {
                self.pace.restart(now.tick);
                self.notices.doubted(batches);
                self.complain(now, format!("Sending is paused: {}.", self.why()));
            }
            Change::Recovered(after) => {
                self.pace.restart(now.tick);
                self.notices.recovered(after);
            }
        }
    }

    /// What becomes of a piece whose reply has come.
    pub(super) fn landed(&mut self, now: Moment, piece: Piece, fate: Fate, expired: bool) {
        let key = piece.entry;
        let decided = match fate {
            Fate::Delivered => {
                self.record.last_success = Some(now.wall);
                let entry = self.entries.get_mut(&key);
                entry.is_some_and(|entry| entry.deliver(&piece))
            }
            // While there is doubt, probes come soon to a single batch, and the next ones to
            // another: this one may really be bad.
            Fate::Again if self.circuit.doubted() => {
                self.ready.push_back(piece);
                false
            }
            Fate::Halve if self.circuit.doubted() => {
                let [left, right] = piece.halves();
                self.ready.push_back(right);
                self.ready.push_front(left);
                false
            }
            Fate::Again => {
                self.ready.push_front(piece);
                false
            }
            Fate::Halve => {
                let [left, right] = piece.halves();
                self.ready.push_front(right);
                self.ready.push_front(left);
                false
            }
            Fate::Dead(reason) => {
                self.expiring |= expired && self.circuit.shut();
                self.buried(now, &piece);
                self.complain(now, format!("A batch went to the dead letters: {reason}."));
                let entry = self.entries.get_mut(&key);
                entry.is_some_and(|entry| entry.bury(&piece, &reason, now.wall))
            }
        };
        if decided && let Some(entry) = self.entries.remove(&key) {
            self.settlements.push(entry.settlement(key));
        }
    }

    pub(super) fn buried(&mut self, now: Moment, piece: &Piece) {
        self.record.dead_letters += piece.slices.len() as u64;
        self.notices.buried(now, piece.entry.0, piece.slices.len());
    }

    fn complain(&mut self, now: Moment, sentence: String) {
        self.record.last_error = Some(sentence);
        self.record.last_error_at = Some(now.wall);
    }
}
