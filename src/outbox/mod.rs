//! The durable store between intake and drain.
//!
//! A delivery is staged ([`Outbox::begin`], [`Staging::append`]), becomes visible whole and
//! durable at once ([`Staging::commit`]), is claimed and settled request by request by the drain
//! ([`Outbox::claim`], [`Outbox::settle`]), and stays listed for a while. The outbox knows nothing
//! of what the payloads mean: an entry is some opaque slices, each with a number of rows.
//!
//! Bodies lie in append-only segment files (`format`, `record`, `segment`); what is small and
//! changes together lies in sled (`state`, `store`). `layout` names the files. Payloads, rejected
//! rows and dead letters with their reasons are sealed under [`Settings::keys`]; titles, labels,
//! times, sizes and counts are not.
//!
//! **What is promised.** When `commit` or `settle` returns `Ok`, it survives the loss of power.
//! A delivery that was not committed vanishes whole. First in, first out by delivery for each
//! destination: nothing of the next one is handed out before the last has settled. Every row of a
//! committed delivery is at every moment in exactly one of the columns of [`DeliveryState`].
//! **The loss window**: none for deliveries. Claims are in memory only, and a settlement that has
//! not returned may be lost: after a crash those requests are sent again, byte by byte the same.
//! If sled's files are lost, the state is built anew from the segments, and more of what had
//! settled is sent again; dead letters that had been replayed or discarded are dead letters
//! again, notes are gone, settled deliveries are listed no more, segments that are gone count as delivered, and of a
//! cancelled delivery that had work left all that had not settled is cancelled.
//!
//! **Commit**, in this order: segments written and fsynced; their directory fsynced; the last
//! segment's footer, which carries the commit, written and fsynced; sled's batch; flush; fdatasync
//! of sled's file; the answer. A crash before the footer: the delivery was never there. After it:
//! the delivery is adopted at the next open. `commit` returns an error only after the footer has
//! been withdrawn.
//!
//! **After a failed sync** the outbox refuses writes and says so ([`Health`]), drops sled, and
//! opens and checks the directory anew. Damage never stops the open: what is damaged is set aside
//! in `damaged/`, each loss is named once as an error with its delivery and rows
//! ([`Outbox::damage`]), and everything else goes on.
//!
//! Calls block on the disk: a caller on tokio uses `spawn_blocking`. One thread of its own holds
//! sled and groups what is waiting into one sync (`owner`).

mod accounts;
mod adopt;
mod cancel;
mod capacity;
mod change;
mod check;
mod claim;
mod codec;
mod dead;
mod delivery;
mod disk;
mod edit;
mod ending;
mod error;
mod format;
mod index;
mod keys;
mod layout;
mod letters;
mod load;
mod maintain;
mod note;
mod offline;
mod orphans;
mod owner;
mod probe;
mod record;
mod recover;
mod rejected;
mod segment;
mod settings;
mod settle;
mod shared;
mod staging;
mod state;
mod status;
mod store;

use std::sync::mpsc::{SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use tokio::sync::watch;

pub use check::{CheckReport, Fault, SalvageError, check};
pub use claim::{Claim, Settled, Settlement};
pub use codec::Malformed;
pub use dead::{Dead, DeadFilter, DeadLetter, DeadPage, LetterId, LetterIdError};
pub use delivery::{DeliveryState, MAX_ACCOUNT, NewDelivery, Receipt, Tally, Totals, WebhookState};
pub use disk::{Disk, Op};
pub use ending::Ending;
pub use error::{Error, OpenError, StateError};
pub use keys::{KeyUse, needed_keys};
pub use letters::Moved;
pub use note::{MAX_NOTE, NoteKey};
pub use offline::{
    Found, Inspected, Inspection, SalvageIntoError, Salvaged, Standing, inspect, read_batches,
    salvage_into,
};
pub use probe::{Probe, probe, probe_sealed};
pub use record::Slice;
pub use rejected::{Rejected, RejectedPage, RejectedRow};
pub use settings::Settings;
pub use staging::{Appended, Entry, Staging};
pub use status::{Damage, DestinationState, Health, SetAside, Title, Usage};

use dead::DeadWriter;
use delivery::{Info, WebhookKey};
use keys::check_keys;
use layout::Layout;
use owner::{Command, Owner};
use recover::recover;
use shared::Shared;

/// Commands that may wait for the owner; a caller beyond waits itself. Twice a group, so that the
/// next one gathers while the last is being synced.
const COMMANDS: usize = 512;

/// An open outbox. Cloning gives another handle to the same one.
#[derive(Clone, Debug)]
pub struct Outbox {
    shared: Arc<Shared>,
    handle: Arc<Handle>,
}

/// Ends the owner with the last handle.
#[derive(Debug)]
struct Handle {
    commands: SyncSender<Command>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Outbox {
    /// Opens the directory, makes it if it is not there, and mends what a crash has left.
    ///
    /// # Errors
    /// The directory is in use, holds something else or another version, or files sealed under a key
    /// that is not there, or the system refuses.
    /// Damage is no error: see [`Outbox::damage`].
    pub fn open(settings: Settings) -> Result<Self, OpenError> {
        Self::open_on(settings, Disk::default())
    }

    /// The same on a disk whose every change a test can watch and fail.
    ///
    /// # Errors
    /// As for [`Outbox::open`].
    pub fn open_on(settings: Settings, disk: Disk) -> Result<Self, OpenError> {
        settings.check()?;
        let layout = Layout::new(&settings.path);
        let lock = layout.enter(&disk)?;
        check_keys(&settings.path, &layout, &settings.keys)?;
        let recovered = recover(&settings, &layout, &disk, &Default::default())?;
        let dead = DeadWriter::new(&disk, &layout, recovered.next_dead_file, &settings);
        let path = settings.path.clone();
        let shared = Arc::new(Shared::new(settings, layout, disk, recovered.index));
        shared.capacity.set_files(shared.layout.files_size());
        shared.capacity.set_state(recovered.store.size());
        for damage in recovered.damage {
            shared.note_damage(damage);
        }
        shared.count_set_aside();
        let (commands, receiver) = sync_channel(COMMANDS);
        let mut owner = Owner::new(Arc::clone(&shared), receiver, recovered.store, dead, lock);
        owner.maintain();
        let thread = std::thread::Builder::new()
            .name("outbox".to_owned())
            .spawn(move || owner.run())
            .map_err(|source| OpenError::Io {
                path,
                doing: "its thread could not be started",
                source,
            })?;
        Ok(Self {
            shared,
            handle: Arc::new(Handle {
                commands,
                thread: Mutex::new(Some(thread)),
            }),
        })
    }

    /// Begins a delivery. Touches the disk only to ask how much of it is free.
    ///
    /// # Errors
    /// The outbox or the disk is full, the outbox refuses writes, or the delivery or its webhook
    /// id is known already.
    pub fn begin(&self, new: NewDelivery) -> Result<Staging, Error> {
        self.shared.check_healthy()?;
        self.shared.capacity.admit(&self.shared.settings)?;
        let info = Info::new(new)?;
        let mut index = self.shared.index();
        if index.by_id.contains_key(&info.id) || index.receiving.contains_key(&info.id) {
            return Err(Error::Duplicate(info.id));
        }
        if let Some(key) = info.webhook {
            match self.shared.webhook_state(&index, key) {
                WebhookState::Unknown => {}
                known => return Err(Error::Webhook(known)),
            }
        }
        index.receiving.insert(info.id, info.webhook);
        drop(index);
        Ok(Staging::new(self.clone(), info))
    }

    /// Whether a delivery that began now would be taken.
    ///
    /// # Errors
    /// The outbox or the disk is full, or the outbox refuses writes.
    pub fn admit(&self) -> Result<(), Error> {
        self.shared.check_healthy()?;
        self.shared.capacity.admit(&self.shared.settings)
    }

    /// What is known of a webhook id.
    pub fn webhook(&self, id: &str) -> WebhookState {
        let index = self.shared.index();
        self.shared.webhook_state(&index, WebhookKey::of(id))
    }

    /// Records how claims ended: slices not named dead are delivered. Durable on return. A
    /// settlement of an entry that is not claimed is taken all the same: it is what happened.
    ///
    /// # Errors
    /// A slice does not exist, or the disk failed. Nothing of the call has been applied then, and
    /// it can be made again.
    pub fn settle(&self, settlements: Vec<Settlement>) -> Result<Settled, Error> {
        self.ask(|reply| Command::Settle(settlements, reply))
    }

    /// Whether the outbox's thread is there: not after [`Outbox::close`], nor after a panic.
    pub fn is_alive(&self) -> bool {
        !self.shared.is_closed()
    }

    /// Changes whenever something can be claimed that could not be before.
    pub fn subscribe(&self) -> watch::Receiver<u64> {
        self.shared.changed.subscribe()
    }

    /// Ends the outbox's thread when it has done what it was asked before. Other handles get
    /// [`Error::Closed`] from then on; deliveries on their way in can only be aborted.
    pub fn close(&self) {
        self.handle.close();
    }

    fn send(&self, command: Command) -> Result<(), Error> {
        self.handle
            .commands
            .send(command)
            .map_err(|_| Error::Closed)
    }
}

impl Handle {
    fn close(&self) {
        let mut thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(thread) = thread.take() {
            // An owner that has ended already needs no telling.
            let _ = self.commands.send(Command::Close);
            if thread.join().is_err() {
                tracing::error!("the outbox's thread has panicked");
            }
        }
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.close();
    }
}
