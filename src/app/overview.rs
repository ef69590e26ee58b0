//! The state of the daemon at one moment, as the admin side has it.

use std::sync::atomic::Ordering::Relaxed;

use super::facts::Facts;
use super::readiness::NotReady;
use crate::causes::with_causes;
use crate::clock::UnixMillis;
use crate::control::view;
use crate::outbox::{self, Health};

impl Facts {
    /// What all pages begin with.
    pub(super) fn look(&self) -> view::Overview {
        let now = UnixMillis::now();
        let checked = self.readiness.check().err();
        let not_ready = checked.as_ref().map(|why| with_causes(why));
        let not_ready = not_ready.or_else(|| unreadable(&self.outbox));
        // Who asks whether it is ready does not wait for a database that does not answer.
        let away = checked.and_then(NotReady::away);
        let usage = unless(&away, || self.outbox.usage());
        let away = away.or_else(|| usage.as_ref().err().cloned());
        let waiting = unless(&away, || self.outbox.destinations());
        let away = away.or_else(|| waiting.as_ref().err().cloned());
        let failures = unless(&away, || self.failures.on_record());
        let silent = usage.as_ref().err().or(waiting.as_ref().err());
        let silent = silent.or(failures.as_ref().err());
        let not_ready = not_ready.or_else(|| silent.map(|error| with_causes(error)));
        view::Overview {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            started: self.started,
            now,
            ready: not_ready.is_none(),
            not_ready,
            receiving: self.receiving(),
            destinations: self.destination_views(waiting.unwrap_or_default()),
            outbox: self.outbox_view(usage.unwrap_or_default()),
            totals: self.arrivals.totals_view(self.failures.totals()),
            failures: failures.unwrap_or_default(),
            ask_again: self.again.overview(),
            spans: self.telemetry.counts().map(|counts| view::Spans {
                exported: counts.exported,
                dropped: counts.dropped,
            }),
            health: view::Health::default(),
        }
    }

    fn receiving(&self) -> Vec<view::Receiving> {
        let receiving = self.outbox.receiving().into_iter();
        let views = receiving.map(|one| view::Receiving {
            title: one.title,
            rows: one.arrived.rows.load(Relaxed),
            bytes: one.arrived.bytes.load(Relaxed),
            since: one.since,
        });
        views.collect()
    }

    fn outbox_view(&self, usage: outbox::Usage) -> view::Outbox {
        view::Outbox {
            bytes: usage.bytes,
            max_bytes: Some(self.max_bytes),
            free_bytes: usage.free.unwrap_or(0),
            dead_letters: usage.dead_letters.batches,
            rejected_rows: usage.rejected_rows,
            cancelled_rows: usage.cancelled.rows,
            held_deliveries: usage.held,
            set_aside_bytes: usage.set_aside.bytes,
            database: self.outbox.known_server().map(|facts| facts.to_string()),
            refusing: match self.outbox.health() {
                Health::Ok => None,
                Health::RefusingWrites { what, .. } => Some(what.to_string()),
                Health::Unreadable { .. } => None,
            },
            unreadable: unreadable(&self.outbox),
            damage: self
                .outbox
                .damage()
                .into_iter()
                .map(|damage| match damage.delivery {
                    Some(id) => {
                        format!(
                            "Delivery {id}, {} rows in doubt: {}",
                            damage.rows, damage.what
                        )
                    }
                    None => damage.what,
                })
                .collect(),
        }
    }
}

/// Asks the outbox, unless it is known not to answer.
fn unless<T>(
    away: &Option<outbox::Error>,
    ask: impl FnOnce() -> Result<T, outbox::Error>,
) -> Result<T, outbox::Error> {
    match away {
        Some(error) => Err(error.clone()),
        None => ask(),
    }
}

/// What of the outbox cannot be read now, as a sentence.
fn unreadable(outbox: &outbox::Outbox) -> Option<String> {
    match outbox.health() {
        Health::Unreadable { what, .. } => Some(format!(
            "Part of the outbox cannot be read, and is not sent until it can; nothing is lost. {what}"
        )),
        Health::Ok | Health::RefusingWrites { .. } => None,
    }
}
