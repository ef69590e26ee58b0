//! Deliveries that have begun and are not committed: those that are being received, and those that
//! failed. That one has begun is durable before anything is spent on it; its row goes in the very batch
//! that commits it. So a start finds exactly those that never ended, and none that was committed.
//!
//! How one failed is in memory at once, and durable with the next sync: a crash before that leaves a
//! row without an end, which the next start ends as [`INTERRUPTED`]. At most
//! [`Settings::history`](crate::outbox::Settings::history) failed ones are kept, the newest. If the
//! state is lost, so are they.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use crate::model::DeliveryId;
use crate::outbox::attempt::{
    Arrived, Attempt, AttemptEnd, INTERRUPTED, MAX_ABOUT, MAX_JOURNAL, MAX_MESSAGE, MAX_TITLE,
    NewAttempt, Receiving, bounded,
};
use crate::outbox::attempt_row::AttemptRow;
use crate::outbox::codec::cut;
use crate::outbox::error::Error;
use crate::outbox::local::handle::Local;
use crate::outbox::local::owner::command::Command;
use crate::outbox::local::state::attempt::Registered;
use crate::outbox::webhook::WebhookState;

/// The right to receive one delivery. Dropping it without a commit fails the delivery.
#[derive(Debug)]
pub(in crate::outbox) struct Reservation {
    local: Local,
    id: DeliveryId,
    arrived: Arc<Arrived>,
    ended: bool,
}

/// See [`Outbox::reserve`](crate::outbox::Outbox::reserve).
pub(in crate::outbox) fn reserve(local: &Local, new: NewAttempt) -> Result<Reservation, Error> {
    let row = AttemptRow::new(&new, None, &local.shared.settings.keys)?;
    let room = local.shared.admit();
    let arrived = Arc::new(Arrived::default());
    {
        let mut index = local.shared.index();
        if index.is_known(new.id) {
            return Err(Error::Duplicate(new.id));
        }
        if let Some(key) = row.webhook {
            match local.shared.webhook_state(&index, key) {
                WebhookState::Unknown => {}
                known => return Err(Error::Webhook(known)),
            }
        }
        room?;
        let registered = Registered {
            webhook: row.webhook,
            reserved: Some(Receiving {
                id: new.id,
                title: row.attempt.title.clone(),
                since: new.received,
                arrived: Arc::clone(&arrived),
            }),
            staged: false,
        };
        index.receiving.insert(new.id, registered);
    }
    let durable = local.ask(|reply| Command::Reserve(Arc::new(row), reply));
    if let Err(error) = durable {
        // A row that was written all the same is that of a delivery that was interrupted, and
        // whoever is refused here writes it down as failed.
        local.shared.index().receiving.remove(&new.id);
        return Err(error);
    }
    Ok(Reservation {
        local: local.clone(),
        id: new.id,
        arrived,
        ended: false,
    })
}

/// See [`Outbox::record_failure`](crate::outbox::Outbox::record_failure).
pub(in crate::outbox) fn record_failure(
    local: &Local,
    new: &NewAttempt,
    end: AttemptEnd,
) -> Result<Attempt, Error> {
    let row = AttemptRow::new(new, Some(end), &local.shared.settings.keys)?;
    let attempt = row.attempt.clone();
    keep(local, row);
    Ok(attempt)
}

/// Deliveries that are being received, oldest first.
pub(in crate::outbox) fn receiving(local: &Local) -> Vec<Receiving> {
    let index = local.shared.index();
    let reserved = index.receiving.values();
    let mut all: Vec<_> = reserved.filter_map(|one| one.reserved.clone()).collect();
    drop(index);
    all.sort_by_key(|one| (one.since, one.id));
    all
}

/// Deliveries that failed, newest first.
pub(in crate::outbox) fn failed(
    local: &Local,
    before: Option<DeliveryId>,
    limit: usize,
) -> Vec<Attempt> {
    let index = local.shared.index();
    let end = before.unwrap_or(DeliveryId([255; 16]));
    let newest = index.attempts.range(..end).rev();
    newest
        .map(|(_, row)| &row.attempt)
        .filter(|attempt| attempt.end.is_some())
        .take(limit)
        .cloned()
        .collect()
}

/// A delivery that has begun and is not committed.
pub(in crate::outbox) fn attempt(local: &Local, id: DeliveryId) -> Option<Attempt> {
    let index = local.shared.index();
    index.attempts.get(&id).map(|row| row.attempt.clone())
}

/// See [`Outbox::put_journal`](crate::outbox::Outbox::put_journal).
pub(in crate::outbox) fn put_journal(
    local: &Local,
    id: DeliveryId,
    before: &[u8],
    journal: &[u8],
) -> Result<bool, Error> {
    bounded("the journal of a delivery", journal, MAX_JOURNAL)?;
    let (before, journal) = (Arc::from(before), Arc::from(journal));
    local.ask(|reply| Command::Journal(id, before, journal, reply))
}

fn keep(local: &Local, row: AttemptRow) {
    let id = row.attempt.id;
    let mut index = local.shared.index();
    index.attempts.insert(id, Arc::new(row));
    index.unsaved.insert(id);
    drop(index);
    local.nudge();
}

impl Reservation {
    /// Which delivery this is.
    pub fn id(&self) -> DeliveryId {
        self.id
    }

    /// Where to count what arrives.
    pub fn arrived(&self) -> &Arc<Arrived> {
        &self.arrived
    }

    /// Adds to what is known of the delivery; durable with its end. One that is too long changes
    /// nothing.
    pub fn describe(&self, title: &str, about: &[u8]) -> Result<(), Error> {
        bounded("what is said of a delivery", about, MAX_ABOUT)?;
        let mut index = self.local.shared.index();
        let title = cut(title, MAX_TITLE);
        if let Some(one) = index.receiving.get_mut(&self.id)
            && let Some(reserved) = &mut one.reserved
        {
            title.clone_into(&mut reserved.title);
        }
        if let Some(row) = index.attempts.get_mut(&self.id) {
            let attempt = Attempt {
                title: title.to_owned(),
                about: about.into(),
                ..row.attempt.clone()
            };
            // What is sealed follows with the end.
            *row = Arc::new(AttemptRow {
                attempt,
                ..AttemptRow::clone(row)
            });
        }
        Ok(())
    }

    /// Ends the delivery as failed, and returns it as it is listed; `None`: it was committed.
    pub fn fail(mut self, kind: u8, message: &str) -> Option<Attempt> {
        self.end(kind, message)
    }

    fn end(&mut self, kind: u8, message: &str) -> Option<Attempt> {
        if std::mem::replace(&mut self.ended, true) {
            return None;
        }
        let shared = &self.local.shared;
        let mut index = shared.index();
        // If it is not there, it is committed.
        let registered = index.receiving.get_mut(&self.id)?;
        registered.reserved = None;
        if !registered.staged {
            index.receiving.remove(&self.id);
        }
        let row = index.attempts.get(&self.id).map(Arc::clone)?;
        drop(index);
        let end = AttemptEnd {
            at: shared.now(),
            kind,
            rows: self.arrived.rows.load(Relaxed),
            bytes: self.arrived.bytes.load(Relaxed),
            message: cut(message, MAX_MESSAGE).to_owned(),
        };
        let attempt = Attempt {
            end: Some(end),
            ..row.attempt.clone()
        };
        match AttemptRow::seal(attempt, row.webhook, &shared.settings.keys) {
            Ok(row) => {
                let attempt = row.attempt.clone();
                keep(&self.local, row);
                Some(attempt)
            }
            // Its row says that it has begun, and the next start ends it.
            Err(error) => {
                tracing::warn!(delivery = %self.id, %error, "that a delivery failed cannot be written down");
                None
            }
        }
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.end(INTERRUPTED, "");
    }
}
