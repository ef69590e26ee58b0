//! What the handles and the owner share.

use std::collections::{BTreeSet, VecDeque};
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

use crate::clock::UnixMillis;
use crate::model::{DeliveryId, DestinationId};
use crate::outbox::dead::LetterRecord;
use crate::outbox::delivery::Info;
use crate::outbox::error::Error;
use crate::outbox::local::files::capacity::Capacity;
use crate::outbox::local::files::dead::read_letter;
use crate::outbox::local::files::disk::Disk;
use crate::outbox::local::files::layout::Layout;
use crate::outbox::local::files::read::ReadError;
use crate::outbox::local::state::attempt::Registered;
use crate::outbox::local::state::index::Index;
use crate::outbox::local::state::rows::Letter;
use crate::outbox::local::unreadable::Unreadables;
use crate::outbox::local::writing::Writing;
use crate::outbox::settings::Settings;
use crate::outbox::status::{Damage, Health, SetAside};
use crate::outbox::webhook::{WebhookKey, WebhookState};

/// Losses that are remembered for the status; the log has them all.
const MAX_DAMAGE: usize = 200;

/// See the module.
#[derive(Debug)]
pub(in crate::outbox) struct Shared {
    pub settings: Settings,
    pub layout: Layout,
    pub disk: Disk,
    pub capacity: Capacity,
    pub changed: watch::Sender<u64>,
    index: Mutex<Index>,
    health: Mutex<Health>,
    closed: AtomicBool,
    damage: Mutex<VecDeque<Damage>>,
    set_aside: Mutex<SetAside>,
    pub unreadables: Unreadables,
    /// Letters that somebody who only looked has found damaged: the owner looks at them in its own time.
    suspects: Mutex<BTreeSet<u64>>,
    pub writing: Writing,
}

impl Shared {
    pub fn new(settings: Settings, layout: Layout, disk: Disk, index: Index) -> Self {
        let clock = settings.clock.clone();
        Self {
            settings,
            layout,
            disk,
            capacity: Capacity::default(),
            changed: watch::Sender::new(0),
            index: Mutex::new(index),
            health: Mutex::new(Health::Ok),
            closed: AtomicBool::new(false),
            damage: Mutex::new(VecDeque::new()),
            set_aside: Mutex::default(),
            unreadables: Unreadables::new(clock.clone()),
            suspects: Mutex::default(),
            writing: Writing::new(clock),
        }
    }

    /// The wall clock.
    pub fn now(&self) -> UnixMillis {
        self.settings.clock.now()
    }

    pub fn index(&self) -> MutexGuard<'_, Index> {
        lock(&self.index)
    }

    pub fn health(&self) -> Health {
        let health = lock(&self.health).clone();
        match self.unreadables.summary() {
            Some((since, what)) if health == Health::Ok => Health::Unreadable { since, what },
            _ => health,
        }
    }

    /// Somebody who only looks has found a dead letter damaged. It is named, and nothing changes.
    pub fn suspect(&self, delivery: DeliveryId, id: u64, letter: &Letter) -> Error {
        let what: Arc<str> = format!("dead letter {id}").into();
        if lock(&self.suspects).insert(id) {
            self.report_damage(Some(delivery), letter.tally.rows, what.to_string());
        }
        Error::Damaged { what }
    }

    /// Letters that were found damaged by somebody who only looked.
    pub fn take_suspects(&self) -> BTreeSet<u64> {
        std::mem::take(&mut *lock(&self.suspects))
    }

    pub fn damage(&self) -> Vec<Damage> {
        lock(&self.damage).iter().cloned().collect()
    }

    /// The directory is about to be another process's.
    pub fn close(&self) {
        self.closed.store(true, Ordering::Release);
    }

    pub fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }

    pub fn check_healthy(&self) -> Result<(), Error> {
        if self.is_closed() {
            return Err(Error::Closed);
        }
        match lock(&self.health).clone() {
            // What cannot be read does not keep anything from being written.
            Health::Ok | Health::Unreadable { .. } => Ok(()),
            Health::RefusingWrites { since, what } => Err(Error::RefusingWrites { since, what }),
        }
    }

    /// Whether a delivery that began now would be taken.
    pub fn admit(&self) -> Result<(), Error> {
        self.check_healthy()?;
        self.capacity.admit(&self.settings)
    }

    /// Whether a delivery that began now could be written down.
    pub fn try_writing(&self) -> Result<(), Error> {
        self.admit()?;
        self.writing.attempt(&self.disk, &self.layout.probe())
    }

    /// Why nothing can be made durable now.
    pub fn refusal(&self) -> Error {
        self.check_healthy().err().unwrap_or(Error::Closed)
    }

    pub fn refuse_writes(&self, what: &str) {
        tracing::error!(what, "the outbox refuses writes until it has been reopened");
        *lock(&self.health) = Health::RefusingWrites {
            since: self.now(),
            what: Arc::from(what),
        };
    }

    pub fn accept_writes(&self) {
        tracing::info!("the outbox has been reopened and takes writes again");
        *lock(&self.health) = Health::Ok;
    }

    pub fn report_damage(&self, delivery: Option<DeliveryId>, rows: u64, what: String) {
        self.note_damage(Damage {
            delivery,
            rows,
            what: format!("{what} is damaged"),
            found: self.now(),
        });
    }

    pub fn note_damage(&self, damage: Damage) {
        match damage.delivery {
            Some(delivery) => tracing::error!(
                %delivery, rows = damage.rows, what = damage.what,
                "the outbox is damaged; these rows are in doubt"
            ),
            None => tracing::error!(what = damage.what, "the outbox is damaged"),
        }
        let mut known = lock(&self.damage);
        if known.len() == MAX_DAMAGE {
            known.pop_front();
        }
        known.push_back(damage);
    }

    /// Reads a letter of `delivery`.
    pub fn read_letter(
        &self,
        delivery: DeliveryId,
        letter: &Letter,
    ) -> Result<LetterRecord, ReadError> {
        read_letter(
            &self.disk,
            &self.layout,
            &self.settings.keys,
            letter.name(delivery),
            letter.place(),
        )
    }

    /// What lay in `damaged/` when it was counted last.
    pub fn set_aside(&self) -> SetAside {
        *lock(&self.set_aside)
    }

    /// Counts what lies in `damaged/`, and says so when it has become more: it is kept forever, and
    /// takes room.
    pub fn count_set_aside(&self) {
        let now = self.layout.set_aside_size();
        let before = std::mem::replace(&mut *lock(&self.set_aside), now);
        if now.bytes > before.bytes || now.files > before.files {
            tracing::warn!(
                files = now.files, bytes = now.bytes,
                directory = %self.layout.damaged().display(),
                "damaged files are kept, and count towards no bound; remove them when nobody needs them any more"
            );
        }
    }

    pub fn account(&self, destination: DestinationId) -> Arc<[u8]> {
        self.index()
            .accounts
            .get(&destination)
            .map_or_else(|| Arc::from([]), |account| Arc::clone(&account.sealed))
    }

    pub fn webhook_state(&self, index: &Index, key: WebhookKey) -> WebhookState {
        let receiving = |other: &Registered| other.webhook == Some(key);
        if index.receiving.values().any(receiving) {
            return WebhookState::Receiving;
        }
        let memory = self.settings.webhook_memory.as_millis();
        let now = self.now().0;
        match index.webhooks.get(&key) {
            Some(webhook) if u128::from(now.saturating_sub(webhook.committed.0)) < memory => {
                WebhookState::Committed(webhook.delivery, webhook.rows)
            }
            _ => WebhookState::Unknown,
        }
    }

    /// Removes a file that has done its work, or sets it aside if it was damaged. Returns whether
    /// it is gone. One that stays is met again at the next open.
    pub fn remove_spent(&self, path: &Path, bytes: u64, damaged: bool) -> bool {
        let removed = if damaged {
            match self.layout.set_aside(&self.disk, path, self.now()) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
                moved => moved.map(|_| ()),
            }
        } else {
            self.disk.remove(path)
        };
        match removed {
            Ok(()) => {
                self.capacity.give_back(bytes);
                if damaged {
                    self.count_set_aside();
                }
                true
            }
            Err(error) => {
                tracing::warn!(file = %path.display(), %error, "a file of the outbox could not be removed; the next start removes it");
                false
            }
        }
    }

    /// Undoes a commit whose footer may be on the disk: its last segment is renamed to a mark
    /// that says so, durably. The rest is removed by the one who asked for the commit.
    pub fn withdraw(&self, info: &Info, number: u32) -> bool {
        let (last, mark) = (
            self.layout.segment(info.id, number),
            self.layout.aborted(info.id),
        );
        let withdrawn = self
            .disk
            .rename(&last, &mark)
            .and_then(|()| self.disk.sync_directory(&self.layout.segments()));
        if let Err(error) = &withdrawn {
            tracing::error!(
                delivery = %info.id, %error,
                "a delivery was refused and could not be withdrawn: it may be sent after a restart"
            );
        }
        withdrawn.is_ok()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // What is behind these locks is changed in steps that do not panic half-way.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
