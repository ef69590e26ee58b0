//! What the owner works with: sled, the dead-letter file, and what the handles see. Every change of
//! the state is made durable here.

use std::sync::Arc;
use std::time::{Duration, Instant};

use fastrand::Rng;

use crate::backoff::Backoff;
use crate::causes::with_causes;
use crate::model::DeliveryId;
use crate::outbox::dead::DeadMeta;
use crate::outbox::error::Error;
use crate::outbox::local::files::dead::{DeadPlace, DeadWriter};
use crate::outbox::local::files::layout::Lock;
use crate::outbox::local::files::read::Unreadable;
use crate::outbox::local::files::segment::AppendError;
use crate::outbox::local::owner::command::Reply;
use crate::outbox::local::recovery::{self, Recovered};
use crate::outbox::local::shared::Shared;
use crate::outbox::local::state::change::{Change, Effects};
use crate::outbox::local::state::error::StateError;
use crate::outbox::local::state::store::Store;
use crate::outbox::record::{MAX_RAW, Slice};

/// Waits between tries to reopen after a failure.
const BACKOFF: Backoff = Backoff {
    base: Duration::from_millis(50),
    cap: Duration::from_secs(5),
};

/// Ends a command, once it is known whether its change is durable.
pub(in crate::outbox) type Ack = Box<dyn FnOnce(Result<&Effects, Error>)>;

/// See the module.
pub(in crate::outbox) struct Keeper {
    pub shared: Arc<Shared>,
    /// `None`: it failed and is to be reopened.
    pub store: Option<Store>,
    pub dead: DeadWriter,
    /// Held, and let go with the thread.
    _lock: Lock,
    pub retry_at: Instant,
    /// Tries to reopen since the last that went well.
    retries: u32,
    rng: Rng,
    /// A delivery may have become old.
    pub history_due: bool,
    pub webhooks_due: Instant,
    /// Something of a cancelled delivery may wait.
    pub sweep_due: bool,
}

impl Keeper {
    pub fn new(shared: Arc<Shared>, store: Store, dead: DeadWriter, lock: Lock) -> Self {
        let now = shared.settings.clock.instant();
        Self {
            shared,
            store: Some(store),
            dead,
            _lock: lock,
            retry_at: now,
            retries: 0,
            rng: Rng::new(),
            history_due: true,
            webhooks_due: now,
            sweep_due: true,
        }
    }

    /// The steady clock.
    pub fn instant(&self) -> Instant {
        self.shared.settings.clock.instant()
    }

    /// Puts a record into the dead-letter file. It is not durable before the file is synced.
    pub fn append_dead(
        &mut self,
        meta: &DeadMeta,
        ordinal: u32,
        slices: &[Slice<'_>],
    ) -> Result<DeadPlace, Error> {
        let before = self.dead.current();
        let place = self
            .dead
            .append(meta, ordinal, slices)
            .map_err(|error| match error {
                AppendError::TooLarge => Error::TooLarge {
                    what: "a dead letter",
                    limit: MAX_RAW,
                },
                AppendError::Io(error) => Error::io("a dead letter could not be written")(error),
            })?;
        let grown = match (before, self.dead.current()) {
            (Some((file, length)), Some((now, longer))) if file == now => longer - length,
            (_, Some((_, length))) => length,
            _ => 0,
        };
        self.shared.capacity.add(grown);
        Ok(place)
    }

    /// Makes durable what was put into the dead-letter file.
    pub fn sync_dead(&mut self) -> Result<(), Error> {
        let synced = self.dead.sync();
        synced.map_err(|error| {
            self.shared
                .refuse_writes(&format!("a sync of the dead letters failed: {error}"));
            self.store = None;
            Error::io("dead letters could not be written")(error)
        })
    }

    /// Takes note of what cannot be read, so that the health says it and it is tried again.
    pub fn unreadable(&self, error: Unreadable) -> Error {
        let said = Error::from(error.clone());
        self.shared.unreadables.note(error);
        said
    }

    pub fn make_durable(&mut self, mut change: Change, acks: Vec<Ack>) {
        let batch = {
            let index = self.shared.index();
            change.close(&index, Some(self.shared.now()));
            (!change.is_empty()).then(|| change.batch(&index))
        };
        let outcome = match (batch, &self.store) {
            (None, _) => Ok(Effects::default()),
            (Some(_), None) => Err(self.shared.refusal()),
            (Some(batch), Some(store)) => match store.apply(batch) {
                Ok(()) => {
                    self.shared.capacity.set_state(store.size());
                    Ok(change.apply(&mut self.shared.index(), &self.shared.layout))
                }
                Err(error) => Err(self.fail(error)),
            },
        };
        match outcome {
            Ok(effects) => {
                for (path, bytes, damaged) in &effects.spent {
                    self.shared.remove_spent(path, *bytes, *damaged);
                }
                self.remove_marks(&effects.finished);
                self.history_due |= effects.wake;
                if effects.wake {
                    self.shared.changed.send_modify(|changes| *changes += 1);
                }
                for ack in acks {
                    ack(Ok(&effects));
                }
            }
            Err(error) => {
                for ack in acks {
                    ack(Err(error.clone()));
                }
            }
        }
    }

    /// Removes the marks of deliveries that have settled whole.
    pub fn remove_marks(&self, finished: &[DeliveryId]) {
        let shared = &self.shared;
        for &id in finished {
            let held = shared.index().held.remove(&id);
            if held && let Err(error) = shared.disk.remove(&shared.layout.held(id)) {
                tracing::warn!(delivery = %id, %error, "the mark of a delivery that was held could not be removed; the next start removes it");
            }
            let cancelled = shared
                .index()
                .delivery(id)
                .is_some_and(|(_, delivery)| delivery.counters().cancelled_at.is_some());
            if cancelled && let Err(error) = shared.disk.remove(&shared.layout.cancelled(id)) {
                tracing::warn!(delivery = %id, %error, "the mark of a cancelled delivery could not be removed; the next start removes it");
            }
        }
    }

    pub fn fail(&mut self, error: StateError) -> Error {
        let error = Error::State {
            source: Arc::new(error),
        };
        self.shared.refuse_writes(&with_causes(&error));
        self.store = None;
        self.retry_at = self.instant();
        error
    }

    /// Reopens everything after a failure. Claims and deliveries on their way in stay.
    pub fn reopen(&mut self) {
        let now = self.instant();
        if now < self.retry_at {
            return;
        }
        self.retries = self.retries.saturating_add(1);
        self.retry_at = now + BACKOFF.probe(self.retries, &mut self.rng);
        let live = self.shared.index().receiving.clone();
        let recovered = recovery::recover(
            &self.shared.settings,
            &self.shared.layout,
            &self.shared.disk,
            &live.keys().copied().collect(),
        );
        match recovered {
            Ok(Recovered {
                store,
                mut index,
                damage,
                next_dead_file,
            }) => {
                for damage in damage {
                    self.shared.note_damage(damage);
                }
                self.shared.capacity.set_state(store.size());
                self.store = Some(store);
                self.dead = DeadWriter::new(
                    &self.shared.disk,
                    &self.shared.layout,
                    next_dead_file,
                    &self.shared.settings,
                );
                let mut current = self.shared.index();
                index.take_over(&mut current);
                *current = index;
                drop(current);
                self.retries = 0;
                self.sweep_due = true;
                self.shared.accept_writes();
                self.shared.changed.send_modify(|changes| *changes += 1);
            }
            Err(error) => {
                tracing::warn!(
                    error = with_causes(&error),
                    "the outbox could not be reopened yet"
                );
            }
        }
    }
}

impl Drop for Keeper {
    /// Before the lock goes with the keeper, by a panic too: nobody may write from here on.
    fn drop(&mut self) {
        self.shared.close();
    }
}

/// Answers a command with a value once its change is durable.
pub(in crate::outbox) fn ack<T: 'static>(
    reply: Reply<T>,
    value: impl FnOnce(&Effects) -> T + 'static,
) -> Ack {
    Box::new(move |outcome| {
        // One who no longer waits for the answer needs none.
        let _ = reply.send(outcome.map(value));
    })
}
