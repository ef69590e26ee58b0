//! Deliveries that failed: how they are written down, and how they are shown.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::about::About;
use super::again::AskAgain;
use super::arrivals::FailureCounts;
use super::readiness::Readiness;
use crate::again::State;
use crate::clock::{self, UnixMillis};
use crate::control::{Filter, view};
use crate::intake::Caller;
use crate::model::{DeliveryId, FailureKind};
use crate::outbox::{self, Arrived, Attempt, AttemptEnd, NewAttempt, Outbox, Reservation};

/// A failed delivery concerns somebody for so long; by then its schedule has run again.
const NEWS: Duration = Duration::from_secs(24 * 3600);

/// What is on record is read again after so long: other daemons may have changed it, and it grows old.
const KEPT: Duration = Duration::from_secs(5);

/// Failed deliveries that are read at once.
const READ_AT_ONCE: usize = 500;

/// Writes down what fails.
pub(super) struct Failures {
    outbox: Outbox,
    readiness: Arc<Readiness>,
    counts: Arc<FailureCounts>,
    again: Arc<AskAgain>,
    /// Deliveries that were committed here.
    came: AtomicU64,
    read: Lately<view::Failures>,
}

/// What was read last, at which mark, and when.
#[derive(Debug)]
struct Lately<T>(Mutex<Option<([u64; 3], Instant, T)>>);

impl<T: Copy> Lately<T> {
    /// Reads it, if the mark is another or it is older than [`KEPT`]. Whoever asks meanwhile waits for the
    /// same answer. An error is not kept.
    fn get<E>(
        &self,
        mark: [u64; 3],
        now: Instant,
        read: impl FnOnce() -> Result<T, E>,
    ) -> Result<T, E> {
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((at_mark, at, value)) = *last
            && at_mark == mark
            && now.saturating_duration_since(at) < KEPT
        {
            return Ok(value);
        }
        let value = read()?;
        *last = Some((mark, now, value));
        Ok(value)
    }
}

/// The right to receive one delivery, for the hub. Dropped without an end it is written down as
/// failed.
pub(super) struct Reserved {
    id: DeliveryId,
    title: String,
    about: About,
    began: UnixMillis,
    arrived: Arc<Arrived>,
    /// `None` once it has ended.
    reservation: Option<Reservation>,
    failures: Arc<Failures>,
}

impl Failures {
    /// Counts what the last process has left without an end, too.
    pub fn new(
        outbox: Outbox,
        readiness: Arc<Readiness>,
        counts: Arc<FailureCounts>,
        again: Arc<AskAgain>,
        started: UnixMillis,
    ) -> Result<Self, outbox::Error> {
        for attempt in outbox.failed(None, usize::MAX)? {
            if attempt.end.is_some_and(|end| end.at >= started) {
                counts.add(FailureKind::Interrupted);
            }
        }
        Ok(Self {
            outbox,
            readiness,
            counts,
            again,
            came: AtomicU64::new(0),
            read: Lately(Mutex::new(None)),
        })
    }

    /// A delivery that is reserved; `new` is what the outbox was told of it.
    pub fn reserved(
        self: &Arc<Self>,
        reservation: Reservation,
        title: String,
        about: About,
        began: UnixMillis,
    ) -> Reserved {
        Reserved {
            id: reservation.id(),
            title,
            about,
            began,
            arrived: Arc::clone(reservation.arrived()),
            reservation: Some(reservation),
            failures: Arc::clone(self),
        }
    }

    /// One that was never reserved.
    pub fn refused(&self, caller: &Caller, kind: FailureKind, message: &str) {
        let now = UnixMillis::now();
        let written = clock::new_delivery_id(now)
            .map_err(|error| error.to_string())
            .and_then(|id| {
                let end = AttemptEnd {
                    at: now,
                    kind: kind.number(),
                    rows: 0,
                    bytes: 0,
                    message: message.to_owned(),
                };
                let repeat = self.again.correlate_now(caller);
                let about = About {
                    repeat_of: repeat.map(|repeat| repeat.of.to_string()),
                    ..About::of(caller)
                };
                let new = NewAttempt {
                    id,
                    webhook: caller.webhook_id.clone(),
                    title: caller.title.clone(),
                    about: about.write(),
                    received: now,
                };
                let recorded = self.outbox.record_failure(&new, end);
                recorded.map_err(|error| error.to_string())
            });
        // Who sees the count finds it in the list.
        self.counts.add(kind);
        match written {
            Ok(attempt) => self.again.failed(&attempt),
            Err(error) => {
                tracing::warn!(
                    error,
                    "that a delivery was refused could not be written down"
                );
            }
        }
    }

    pub fn totals(&self) -> BTreeMap<String, u64> {
        self.counts.by_reason()
    }

    /// Those that began before `before` and that the filter admits, newest first.
    ///
    /// # Errors
    /// The outbox does not say.
    pub fn listed(
        &self,
        filter: &Filter,
        before: Option<DeliveryId>,
        limit: usize,
    ) -> Result<view::Listing<view::FailedDelivery>, outbox::Error> {
        let mut items = Vec::new();
        let mut before = before;
        loop {
            let part = self.outbox.failed(before, READ_AT_ONCE)?;
            for attempt in &part {
                let view = failed_view(&self.again, attempt);
                items.extend(view.filter(|view| filter.admits_failed(view)));
                if items.len() == limit {
                    let next = Some(attempt.id.to_string());
                    return Ok(view::Listing { items, next });
                }
            }
            before = match part.last() {
                Some(last) if part.len() == READ_AT_ONCE => Some(last.id),
                _ => return Ok(view::Listing { items, next: None }),
            };
        }
    }

    /// What is on record. Whoever looks each second has it read when something has become of a failed
    /// delivery here, and else every [`KEPT`].
    ///
    /// # Errors
    /// The outbox does not say.
    pub fn on_record(&self) -> Result<view::Failures, outbox::Error> {
        let mark = [
            self.counts.total(),
            self.came.load(Relaxed),
            self.again.changes(),
        ];
        self.read.get(mark, Instant::now(), || self.read_record())
    }

    fn read_record(&self) -> Result<view::Failures, outbox::Error> {
        let all = self.outbox.failed(None, usize::MAX)?;
        let alone = self.alone(&all);
        let ends = |attempt: &&Attempt| Some(attempt.end.as_ref()?.at);
        Ok(view::Failures {
            on_record: all.len() as u64,
            newest: all.iter().filter_map(|one| ends(&one)).max(),
            for_a_person: alone.len() as u64,
            since: alone.iter().filter_map(ends).min(),
            changes: self.again.changes(),
        })
    }

    /// Those of the last day that nobody mends.
    fn alone<'a>(&self, all: &'a [Attempt]) -> Vec<&'a Attempt> {
        let from = UnixMillis::now().minus(NEWS);
        let is_left = |attempt: &&Attempt| {
            attempt.end.as_ref().is_some_and(|end| end.at >= from)
                && matches!(self.again.state_of(attempt), None | Some(State::GivenUp))
                && About::read(attempt).repeat_of.is_none()
        };
        let mut left: Vec<&Attempt> = all.iter().filter(is_left).collect();
        if left.is_empty() {
            return left;
        }
        // What cannot be read mends nothing.
        let titles = self.outbox.titles().unwrap_or_default();
        let newest: HashMap<&str, UnixMillis> = titles
            .iter()
            .filter(|one| !one.title.is_empty())
            .map(|one| (one.title.as_str(), one.newest))
            .collect();
        left.retain(|attempt| {
            let newest = newest.get(attempt.title.as_str());
            newest.is_none_or(|newest| *newest < attempt.received)
        });
        left
    }
}

impl Reserved {
    /// Which delivery this is.
    pub fn id(&self) -> DeliveryId {
        self.id
    }

    /// The schedule that it belongs to: that of what it repeats, if it does.
    pub fn schedule(&self) -> Option<&str> {
        self.about.schedule.as_deref()
    }

    /// Where to count what arrives.
    pub fn arrived(&self) -> Arc<Arrived> {
        Arc::clone(&self.arrived)
    }

    /// What is known of where it goes is known now.
    pub fn describe(&mut self, destination: &str, data: &str) {
        self.about.destination = Some(destination.to_owned());
        self.about.data = Some(data.to_owned());
        if let Some(reservation) = &self.reservation
            && let Err(error) = reservation.describe(&self.title, &self.about.write())
        {
            tracing::warn!(delivery = %self.id, %error, "what is known of a delivery could not be kept");
        }
    }

    /// It is committed.
    pub fn done(mut self) {
        self.reservation = None;
        self.failures.came.fetch_add(1, Relaxed);
        let again = &self.failures.again;
        again.committed(self.id, &self.title, &self.about, self.began);
    }

    /// It failed. Returns whether Looker will be asked for it again.
    pub fn fail(mut self, kind: FailureKind, message: &str) -> bool {
        self.end(kind, message);
        self.failures.again.is_open(self.id, &self.about)
    }

    fn end(&mut self, kind: FailureKind, message: &str) {
        if let Some(reservation) = self.reservation.take() {
            let attempt = reservation.fail(kind.number(), message);
            // Who sees the count finds it in the list.
            self.failures.counts.add(kind);
            if let Some(attempt) = attempt {
                self.failures.again.failed(&attempt);
            }
        }
    }
}

impl Drop for Reserved {
    fn drop(&mut self) {
        if self.reservation.is_none() {
            return;
        }
        let (kind, message) = match self.failures.readiness.is_stopping() {
            true => (
                FailureKind::Stopping,
                "looker-feed was stopped before the delivery was complete. None of it was sent; send it again.",
            ),
            false => (
                FailureKind::Program,
                "looker-feed made a mistake while it worked on the delivery. None of it was sent. Please report this with the log.",
            ),
        };
        self.end(kind, message);
    }
}

/// A failed delivery for the admin side; `None`: it has not failed.
pub(super) fn failed_view(again: &AskAgain, attempt: &Attempt) -> Option<view::FailedDelivery> {
    let end = attempt.end.as_ref()?;
    let about = About::read(attempt);
    let kind = FailureKind::of_number(end.kind);
    let message = match (end.message.is_empty(), kind) {
        (true, FailureKind::Interrupted) => {
            "looker-feed ended (a crash, a kill or a loss of power) while it received the delivery. None of it was sent; send it again."
                .to_owned()
        }
        _ => end.message.clone(),
    };
    Some(view::FailedDelivery {
        id: attempt.id.to_string(),
        state: "failed".to_owned(),
        title: attempt.title.clone(),
        link: about.link,
        instance: about.instance,
        schedule: about.schedule,
        destination: about.destination,
        received: attempt.received,
        ended: end.at,
        reason: kind.name().to_owned(),
        passing: kind.is_passing(),
        message,
        rows: end.rows,
        bytes: end.bytes,
        again: again.view(attempt),
        why_not: again.why_not(attempt, kind),
        repeat_of: again.repeat_of(attempt.id).map(repeat_view),
    })
}

/// Which try a delivery is, and of what.
pub(super) fn repeat_view((of, number): (DeliveryId, u32)) -> view::RepeatOf {
    view::RepeatOf {
        delivery: of.to_string(),
        number,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_read_is_kept_while_nothing_has_changed_and_not_for_long() {
        let lately = Lately(Mutex::new(None));
        let start = Instant::now();
        let mut reads = 0;
        let mut get = |mark: u64, millis: u64, answer: Result<u32, &'static str>| {
            let read = || {
                reads += 1;
                answer
            };
            let at = start + Duration::from_millis(millis);
            let got = lately.get([1, mark, 1], at, read);
            (got, reads)
        };
        assert_eq!(get(1, 0, Err("away")), (Err("away"), 1));
        assert_eq!(get(1, 1, Ok(7)), (Ok(7), 2));
        assert_eq!(get(1, 4_999, Ok(8)), (Ok(7), 2));
        assert_eq!(get(2, 5_000, Ok(8)), (Ok(8), 3));
        assert_eq!(get(2, 9_999, Ok(9)), (Ok(8), 3));
        assert_eq!(get(2, 10_000, Ok(9)), (Ok(9), 4));
        // What failed to be read leaves what was read before it, and is read again at once.
        assert_eq!(get(3, 10_001, Err("away")), (Err("away"), 5));
        assert_eq!(get(3, 10_002, Ok(10)), (Ok(10), 6));
    }
}
