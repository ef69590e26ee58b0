//! Deliveries that failed: how they are written down, and how they are shown.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use serde::{Deserialize, Serialize};

use super::readiness::Readiness;
use crate::clock::{self, UnixMillis};
use crate::control::view;
use crate::intake::Caller;
use crate::model::{DeliveryId, FailureKind};
use crate::outbox::{Arrived, Attempt, AttemptEnd, MAX_ABOUT, NewAttempt, Outbox, Reservation};

/// What is written of a delivery beside its title: for [`Attempt::about`], as JSON. Members may be
/// added; one that is not there was not known.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct About {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub link: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub instance: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub schedule: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub query: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub hosts: Vec<String>,
}

impl About {
    pub fn of(caller: &Caller) -> Self {
        Self {
            link: caller.link.clone(),
            instance: caller.instance.clone(),
            schedule: caller.schedule_id.clone(),
            query: caller.query_id.clone(),
            hosts: caller.hosts.clone(),
        }
    }

    /// What was written; nothing, if it cannot be read.
    pub fn read(attempt: &Attempt) -> Self {
        serde_json::from_slice(&attempt.about).unwrap_or_default()
    }

    /// Without the link, if it would be too long with it.
    pub fn write(&self) -> Vec<u8> {
        let short = |about: &Self| {
            let text = serde_json::to_vec(about).ok()?;
            (text.len() <= MAX_ABOUT).then_some(text)
        };
        let bare = || Self {
            link: None,
            ..self.clone()
        };
        let text = short(self).or_else(|| short(&bare()));
        text.unwrap_or_default()
    }
}

/// Failures since the start, by kind.
#[derive(Debug, Default)]
pub(super) struct FailureCounts([AtomicU64; FailureKind::ALL.len()]);

impl FailureCounts {
    pub fn add(&self, kind: FailureKind) {
        let counters = FailureKind::ALL.iter().zip(&self.0);
        for (_, counter) in counters.filter(|(one, _)| **one == kind) {
            counter.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// By name; every kind is there.
    pub fn by_reason(&self) -> BTreeMap<String, u64> {
        let counters = FailureKind::ALL.iter().zip(&self.0);
        let named = counters.map(|(kind, counter)| {
            let count = counter.load(Ordering::Relaxed);
            (kind.name().to_owned(), count)
        });
        named.collect()
    }
}

/// Writes down what fails.
pub(super) struct Failures {
    outbox: Outbox,
    readiness: Arc<Readiness>,
    counts: FailureCounts,
}

/// The right to receive one delivery, for the hub. Dropped without an end it is written down as
/// failed.
pub(super) struct Reserved {
    id: DeliveryId,
    arrived: Arc<Arrived>,
    /// `None` once it has ended.
    reservation: Option<Reservation>,
    failures: Arc<Failures>,
}

impl Failures {
    /// Counts what the last process has left without an end, too.
    pub fn new(outbox: Outbox, readiness: Arc<Readiness>, started: UnixMillis) -> Self {
        let counts = FailureCounts::default();
        for attempt in outbox.failed(None, usize::MAX) {
            if attempt.end.is_some_and(|end| end.at >= started) {
                counts.add(FailureKind::Interrupted);
            }
        }
        Self {
            outbox,
            readiness,
            counts,
        }
    }

    pub fn reserved(self: &Arc<Self>, reservation: Reservation) -> Reserved {
        Reserved {
            id: reservation.id(),
            arrived: Arc::clone(reservation.arrived()),
            reservation: Some(reservation),
            failures: Arc::clone(self),
        }
    }

    /// One that was never reserved.
    pub fn refused(&self, caller: &Caller, kind: FailureKind, message: &str) {
        self.counts.add(kind);
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
                let new = new_attempt(id, caller, now);
                let recorded = self.outbox.record_failure(&new, end);
                recorded.map_err(|error| error.to_string())
            });
        if let Err(error) = written {
            tracing::warn!(
                error,
                "that a delivery was refused could not be written down"
            );
        }
    }

    pub fn totals(&self) -> BTreeMap<String, u64> {
        self.counts.by_reason()
    }

    /// What is on record.
    pub fn on_record(&self) -> view::Failures {
        let all = self.outbox.failed(None, usize::MAX);
        view::Failures {
            on_record: all.len() as u64,
            newest: all
                .iter()
                .filter_map(|one| Some(one.end.as_ref()?.at))
                .max(),
        }
    }
}

/// What the outbox is told before anything is spent on a delivery.
pub(super) fn new_attempt(id: DeliveryId, caller: &Caller, received: UnixMillis) -> NewAttempt {
    NewAttempt {
        id,
        webhook: caller.webhook_id.clone(),
        title: caller.title.clone(),
        about: About::of(caller).write(),
        received,
    }
}

impl Reserved {
    /// Which delivery this is.
    pub fn id(&self) -> DeliveryId {
        self.id
    }

    /// Where to count what arrives.
    pub fn arrived(&self) -> Arc<Arrived> {
        Arc::clone(&self.arrived)
    }

    /// It is committed.
    pub fn done(mut self) {
        self.reservation = None;
    }

    pub fn fail(mut self, kind: FailureKind, message: &str) {
        if let Some(reservation) = self.reservation.take() {
            self.failures.counts.add(kind);
            reservation.fail(kind.number(), message);
        }
    }
}

impl Drop for Reserved {
    fn drop(&mut self) {
        let Some(reservation) = self.reservation.take() else {
            return;
        };
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
        self.failures.counts.add(kind);
        reservation.fail(kind.number(), message);
    }
}

/// A failed delivery for the admin side; `None`: it has not failed.
pub(super) fn failed_view(attempt: &Attempt) -> Option<view::FailedDelivery> {
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
        received: attempt.received,
        ended: end.at,
        reason: kind.name().to_owned(),
        passing: kind.is_passing(),
        message,
        rows: end.rows,
        bytes: end.bytes,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_known_of_a_schedule_fits_whatever_came() {
        let most = "\"".repeat(64);
        let caller = |link: usize| Caller {
            link: Some("\"".repeat(link)),
            instance: Some("\"".repeat(128)),
            schedule_id: Some(most.clone()),
            query_id: Some(most.clone()),
            hosts: vec!["h".repeat(260); 2],
            ..Caller::default()
        };
        for link in [10, 1000] {
            let about = About::of(&caller(link)).write();
            assert!(about.len() <= MAX_ABOUT, "{}", about.len());
            let read: About = serde_json::from_slice(&about).unwrap();
            assert_eq!(read.link.is_some(), link == 10);
            assert_eq!(read.schedule.as_ref(), Some(&most));
        }
    }
}
