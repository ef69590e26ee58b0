//! The durable store between intake and drain.
//!
//! A delivery is staged ([`Outbox::begin`], [`Staging::append`]), becomes visible whole and
//! durable at once ([`Staging::commit`]), is claimed and settled request by request by the drain
//! through a lease on its destination ([`Lease::claim`], [`Lease::settle`]), and stays listed for a while. The outbox knows nothing
//! of what the payloads mean: an entry is some opaque slices, each with a number of rows.
//!
//! The nouns stand here; what keeps them is a backend: `local`, a directory of one process, or
//! [`postgres`], a database that many daemons share.
//!
//! **What is promised.** When `commit` or `settle` returns `Ok`, it survives the loss of power.
//! A delivery that was not committed vanishes whole. First in, first out by delivery for each
//! destination: nothing of the next one is handed out before the last has settled. Every row of a
//! committed delivery is at every moment in exactly one of the columns of [`DeliveryState`].
//! **The loss window**: none for deliveries. Claims are in memory only, and a settlement that has
//! not returned may be lost: after a crash those requests are sent again, byte by byte the same.
//!
//! Damage never stops the open: what is damaged is set aside, each loss is named once as an error
//! with its delivery and rows ([`Outbox::damage`]), and everything else goes on.
//!
//! Calls may block, on a disk or a server: a caller on tokio uses `spawn_blocking`. Those that answer
//! at once from memory return no `Result`.

mod attempt;
mod attempt_row;
mod bits;
mod carried;
mod claim;
mod codec;
mod counters;
mod dead;
mod delivery;
mod entry;
mod erase;
mod erasing;
mod error;
mod lane_request;
mod lease;
mod letter;
mod local;
mod moving;
mod note;
mod ordinal;
pub mod postgres;
mod record;
mod rejected;
mod reservation;
mod settings;
mod sharing;
mod staging;
mod status;
mod webhook;

use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::watch;

pub use attempt::{
    Arrived, Attempt, AttemptEnd, INTERRUPTED, MAX_ABOUT, MAX_JOURNAL, NewAttempt, Receiving,
};
pub use claim::{Claim, Settled, Settlement};
pub use codec::Malformed;
pub use delivery::{
    DeliveryCursor, DeliveryCursorError, DeliveryPage, DeliveryState, Ending, MAX_ACCOUNT,
    MAX_LINK, NewDelivery, Receipt, Tally, Totals,
};
pub use entry::{Appended, Entry};
pub use erase::{Erased, Matcher, Occurrence, Scan};
pub use error::{Error, OpenError};
pub use lane_request::LaneRequest;
pub use lease::Lease;
pub use letter::{Dead, DeadFilter, DeadLetter, DeadPage, LetterId, LetterIdError, Moved};
pub use local::files::disk::{Disk, Op};
pub use local::files::keys::{KeyUse, needed_keys};
pub use local::files::probe::{Probe, probe, probe_sealed};
pub use local::offline::batches::{BatchesError, Found, read_batches};
pub use local::offline::check::{CheckReport, Fault};
pub use local::offline::salvage::{SalvageIntoError, Salvaged, salvage_into, salvage_into_on};
pub use local::offline::{DeliveryStatus, Inspected, Inspection, inspect, inspect_on};
pub use moving::{
    Holdings, MoveError, MoveStep, MovedOutbox, give_up_move, move_back, move_outbox,
};
pub use note::{MAX_NOTE, Note, NoteKey};
pub use postgres::{
    BlobReader, BlobWriter, Entered, Inside, Published, SnapshotEntry, SnapshotName, Snapshots,
};
pub use record::Slice;
pub use rejected::{Rejected, RejectedPage, RejectedRow};
pub use reservation::Reservation;
pub use settings::Settings;
pub use staging::Staging;
pub use status::{Damage, DestinationState, Health, Holder, SetAside, Title, Usage};
pub use webhook::WebhookState;

use crate::clock::UnixMillis;
use crate::model::{DeliveryId, DestinationId};
use local::handle::Local;
use local::owner::command::Command;
use postgres::SharedOutbox;

/// An open outbox. Cloning gives another handle to the same one.
#[derive(Clone, Debug)]
pub struct Outbox {
    backend: Backend,
}

/// What keeps an outbox.
#[derive(Clone, Debug)]
enum Backend {
    /// A directory of this process.
    Local(Local),
    /// A database that many daemons share.
    Postgres(SharedOutbox),
}

impl Outbox {
    /// Opens the directory, makes it if it is not there, and mends what a crash has left.
    ///
    /// # Errors
    /// The directory is in use, holds something else or another version, or files sealed under a key
    /// that is not there, or the system refuses.
    /// Damage is not an error: see [`Outbox::damage`].
    pub fn open(settings: Settings) -> Result<Self, OpenError> {
        Self::open_on(settings, Disk::default())
    }

    /// The same on a disk whose every change a test can watch and fail.
    pub fn open_on(settings: Settings, disk: Disk) -> Result<Self, OpenError> {
        Ok(Self {
            backend: Backend::Local(local::open(settings, disk)?),
        })
    }

    /// Takes part in a shared outbox, whose tables it makes if they are not there.
    ///
    /// # Errors
    /// The server cannot be used as it is, or not with these keys.
    pub fn open_shared(settings: postgres::Settings) -> Result<Self, postgres::OpenError> {
        Ok(Self {
            backend: Backend::Postgres(SharedOutbox::open(settings)?),
        })
    }

    /// Begins to stage a delivery, which may have been reserved. Touches the disk only to ask how much of it is free.
    ///
    /// # Errors
    /// The outbox or the disk is full, the outbox refuses writes, or the delivery or its webhook
    /// id is known already.
    pub fn begin(&self, new: NewDelivery) -> Result<Staging, Error> {
        match &self.backend {
            Backend::Local(local) => local::staging::begin(local, new).map(Staging::local),
            Backend::Postgres(shared) => shared.begin(new).map(Staging::postgres),
        }
    }

    /// Begins to receive a delivery: registers it and its webhook id, and makes durable that it has
    /// begun. [`Outbox::begin`] of the same id stages it. Blocks on the disk.
    ///
    /// # Errors
    /// The delivery or its webhook id is known already, `about` is too long, the outbox or its disk is
    /// full, the outbox refuses writes, or the disk failed. Nothing is registered then.
    pub fn reserve(&self, new: NewAttempt) -> Result<Reservation, Error> {
        match &self.backend {
            Backend::Local(local) => {
                local::reservation::reserve(local, new).map(Reservation::local)
            }
            Backend::Postgres(shared) => shared.reserve(new).map(Reservation::postgres),
        }
    }

    /// Remembers a delivery that failed before it was reserved. It is listed at once and durable
    /// with the next sync, also when the outbox refuses writes now. Returns it as it is listed. Does not
    /// block.
    ///
    /// # Errors
    /// `about` is too long, or the system gives no random bytes to seal with.
    pub fn record_failure(&self, new: &NewAttempt, end: AttemptEnd) -> Result<Attempt, Error> {
        match &self.backend {
            Backend::Local(local) => local::reservation::record_failure(local, new, end),
            Backend::Postgres(shared) => shared.record_failure(new, end),
        }
    }

    /// Deliveries that are being received, oldest first. Those of other daemons are as they were ten
    /// seconds ago at most, without how far they have come.
    pub fn receiving(&self) -> Vec<Receiving> {
        match &self.backend {
            Backend::Local(local) => local::reservation::receiving(local),
            Backend::Postgres(shared) => shared.receiving(),
        }
    }

    /// Deliveries that failed, newest first: at most `limit`, of those that began before `before`.
    pub fn failed(&self, before: Option<DeliveryId>, limit: usize) -> Result<Vec<Attempt>, Error> {
        match &self.backend {
            Backend::Local(local) => Ok(local::reservation::failed(local, before, limit)),
            Backend::Postgres(shared) => shared.failed(before, limit),
        }
    }

    /// A delivery that has begun and is not committed.
    pub fn attempt(&self, id: DeliveryId) -> Result<Option<Attempt>, Error> {
        match &self.backend {
            Backend::Local(local) => Ok(local::reservation::attempt(local, id)),
            Backend::Postgres(shared) => shared.attempt(id),
        }
    }

    /// Replaces the journal of a delivery that failed, if it still says `before`. Durable on return;
    /// `false`: it says something else, or the delivery is not listed any more. Blocks on the disk.
    ///
    /// # Errors
    /// The journal is too long, the outbox refuses writes, or the disk failed.
    pub fn put_journal(
        &self,
        id: DeliveryId,
        before: &[u8],
        journal: &[u8],
    ) -> Result<bool, Error> {
        match &self.backend {
            Backend::Local(local) => local::reservation::put_journal(local, id, before, journal),
            Backend::Postgres(shared) => shared.put_journal(id, before, journal),
        }
    }

    /// Whether a delivery that began now would be taken.
    ///
    /// # Errors
    /// The outbox or the disk is full, or the outbox refuses writes.
    pub fn admit(&self) -> Result<(), Error> {
        match &self.backend {
            Backend::Local(local) => local.shared.admit(),
            Backend::Postgres(shared) => shared.admit(),
        }
    }

    /// Whether a delivery that began now could be written down, found out by trying it: a file is
    /// made and synced where deliveries go, and removed again; or a row is written. What was found holds for three
    /// seconds, so a probe may ask at any rate. Blocks on the disk.
    ///
    /// # Errors
    /// As for [`Outbox::admit`], or the disk refuses a step or does not answer.
    pub fn try_writing(&self) -> Result<(), Error> {
        match &self.backend {
            Backend::Local(local) => local.shared.try_writing(),
            Backend::Postgres(shared) => shared.try_writing(),
        }
    }

    /// What is known of a webhook id.
    pub fn webhook(&self, id: &str) -> Result<WebhookState, Error> {
        match &self.backend {
            Backend::Local(local) => Ok(local::status::webhook(local, id)),
            Backend::Postgres(shared) => shared.webhook(id),
        }
    }

    /// The right to send what waits for a destination; `None`: another daemon holds it.
    pub fn lease(&self, destination: DestinationId) -> Result<Option<Lease>, Error> {
        match &self.backend {
            Backend::Local(local) => {
                let lease = local::lease::Lease::new(local, destination);
                Ok(Some(Lease::local(lease)))
            }
            Backend::Postgres(shared) => Ok(shared.lease(destination)?.map(Lease::postgres)),
        }
    }

    /// Cancels what is left of a delivery: returns what has been cancelled now, replayed dead
    /// letters included; `None`: the delivery is not listed. Its dead letters stay where they are
    /// and can be looked at and discarded, but not replayed. Durable on return. Blocks on the disk.
    ///
    /// # Errors
    /// The outbox refuses writes, or the disk failed: then it may have been cancelled all the same,
    /// and the call can be made again.
    pub fn cancel(&self, delivery: DeliveryId) -> Result<Option<Tally>, Error> {
        match &self.backend {
            Backend::Local(local) => local.ask(|reply| Command::Cancel(delivery, reply)),
            Backend::Postgres(shared) => shared.cancel(delivery),
        }
    }

    /// Lets a delivery that is held go: what waits of it is sent, at its place in the order. `None`: it is
    /// not listed; `false`: it was not held. Durable on return. Blocks on the disk.
    ///
    /// # Errors
    /// The outbox refuses writes, or the disk failed: then it is still held. Or the daemon that holds
    /// the destination's lease has not answered in time: the call can be made again.
    pub fn release_delivery(&self, delivery: DeliveryId) -> Result<Option<bool>, Error> {
        match &self.backend {
            Backend::Local(local) => local::ending::release(local, delivery),
            Backend::Postgres(shared) => shared.release(delivery),
        }
    }

    /// The dead letters behind `after`, at most `limit` (and at least one, if there is one).
    /// Those that are being sent again are not among them. Blocks on the disk.
    ///
    /// # Errors
    /// A damaged letter was met and the state that says so could not be made durable.
    pub fn dead_letters(
        &self,
        filter: DeadFilter,
        after: Option<LetterId>,
        limit: usize,
    ) -> Result<DeadPage, Error> {
        match &self.backend {
            Backend::Local(local) => local::letters::dead_letters(local, filter, after, limit),
            Backend::Postgres(shared) => shared.dead_letters(filter, after, limit),
        }
    }

    /// One dead letter with its payload; `None`: it is not there, or it waits to be sent again.
    ///
    /// # Errors
    /// It is damaged and the state that says so could not be made durable.
    pub fn dead_letter(&self, id: LetterId) -> Result<Option<(DeadLetter, Bytes)>, Error> {
        match &self.backend {
            Backend::Local(local) => local::letters::dead_letter(local, id),
            Backend::Postgres(shared) => shared.dead_letter(id),
        }
    }

    /// Sends dead letters again, with the payload they have. They queue behind what waits for
    /// their destination now. Those of a cancelled delivery stay where they are. Durable on return. Blocks on the disk.
    ///
    /// # Errors
    /// The state could not be made durable. Of many letters the first may have been moved; the
    /// call can be made again.
    pub fn replay(&self, ids: &[LetterId]) -> Result<Moved, Error> {
        match &self.backend {
            Backend::Local(local) => local::letters::replay(local, ids),
            Backend::Postgres(shared) => shared.replay(ids),
        }
    }

    /// Throws dead letters away. Durable on return. Blocks on the disk.
    pub fn discard(&self, ids: &[LetterId]) -> Result<Moved, Error> {
        match &self.backend {
            Backend::Local(local) => local::letters::discard(local, ids),
            Backend::Postgres(shared) => shared.discard(ids),
        }
    }

    /// Puts another payload into a dead letter and returns its new name; `None`: it is not there,
    /// or it waits to be sent again. Its rows, its tries and its reason stay. Durable on return.
    /// Blocks on the disk.
    ///
    /// # Errors
    /// The payload is too large for a record, or the outbox refuses writes: the letter is as it
    /// was. Or the disk failed: then it may have been exchanged all the same, under another name.
    pub fn edit(&self, id: LetterId, payload: Vec<u8>) -> Result<Option<LetterId>, Error> {
        match &self.backend {
            Backend::Local(local) => local.ask(|reply| Command::Edit(id, payload, reply)),
            Backend::Postgres(shared) => shared.edit(id, payload),
        }
    }

    /// Rows of a delivery that could not be mapped: at most `limit`, from `after` on, which is what the
    /// page before has said. `None`: the delivery is not listed. Blocks on the disk.
    pub fn rejected(
        &self,
        delivery: DeliveryId,
        after: Option<u64>,
        limit: usize,
    ) -> Result<Option<RejectedPage>, Error> {
        match &self.backend {
            Backend::Local(local) => local::status::rejected(local, delivery, after, limit),
            Backend::Postgres(shared) => shared.rejected(delivery, after, limit),
        }
    }

    /// Destinations with something to do, in the order of their ids.
    pub fn destinations(&self) -> Result<Vec<DestinationState>, Error> {
        match &self.backend {
            Backend::Local(local) => Ok(local::status::destinations(local)),
            Backend::Postgres(shared) => shared.destinations(),
        }
    }

    /// Deliveries in the order of their commit, the newest first: at most `limit`, from behind
    /// `after` on.
    pub fn deliveries(
        &self,
        after: Option<DeliveryCursor>,
        limit: usize,
    ) -> Result<DeliveryPage, Error> {
        match &self.backend {
            Backend::Local(local) => Ok(local::status::deliveries(local, after, limit)),
            Backend::Postgres(shared) => shared.deliveries(after, limit),
        }
    }

    /// One delivery, while it is listed.
    pub fn delivery(&self, id: DeliveryId) -> Result<Option<DeliveryState>, Error> {
        match &self.backend {
            Backend::Local(local) => Ok(local::status::delivery(local, id)),
            Backend::Postgres(shared) => shared.delivery(id),
        }
    }

    /// The titles of listed deliveries, in alphabetical order. A schedule is known for as long as one
    /// of its deliveries is listed.
    pub fn titles(&self) -> Result<Vec<Title>, Error> {
        match &self.backend {
            Backend::Local(local) => Ok(local::status::titles(local)),
            Backend::Postgres(shared) => shared.titles(),
        }
    }

    /// How a delivery ended.
    pub fn ending(&self, id: DeliveryId) -> Result<Ending, Error> {
        match &self.backend {
            Backend::Local(local) => Ok(local::ending::ending(local, id)),
            Backend::Postgres(shared) => shared.ending(id),
        }
    }

    /// The deliveries of these dead letters, as far as they are there.
    pub fn deliveries_of(&self, letters: &[LetterId]) -> Result<Vec<DeliveryId>, Error> {
        match &self.backend {
            Backend::Local(local) => Ok(local::ending::deliveries_of(local, letters)),
            Backend::Postgres(shared) => shared.deliveries_of(letters),
        }
    }

    /// When it was last found, since the outbox was opened, that the state as a whole was lost or
    /// could not be read.
    pub fn state_lost(&self) -> Option<UnixMillis> {
        match &self.backend {
            Backend::Local(local) => local::ending::state_lost(local),
            Backend::Postgres(_) => None,
        }
    }

    /// How large the outbox is.
    pub fn usage(&self) -> Result<Usage, Error> {
        match &self.backend {
            Backend::Local(local) => Ok(local::status::usage(local)),
            Backend::Postgres(shared) => shared.usage(),
        }
    }

    /// Whether the outbox can do its work.
    pub fn health(&self) -> Health {
        match &self.backend {
            Backend::Local(local) => local.shared.health(),
            Backend::Postgres(shared) => shared.health(),
        }
    }

    /// What was found damaged since the outbox was opened, the latest 200. Each was logged as an
    /// error when it was found.
    pub fn damage(&self) -> Vec<Damage> {
        match &self.backend {
            Backend::Local(local) => local.shared.damage(),
            Backend::Postgres(shared) => shared.damage(),
        }
    }

    /// Reads all that waits and all dead letters, and gives up what cannot be read, as a claim
    /// would when its turn came. Each loss is logged and listed ([`Outbox::damage`]). Blocks on
    /// the disk for as long as it takes to read everything.
    ///
    /// # Errors
    /// A file cannot be opened, or the losses cannot be recorded.
    pub fn verify(&self) -> Result<(), Error> {
        match &self.backend {
            Backend::Local(local) => local::verify::verify(local),
            Backend::Postgres(shared) => shared.verify(),
        }
    }

    /// Every note that there is, in the order of destinations and topics.
    pub fn notes(&self) -> Result<Vec<Note>, Error> {
        match &self.backend {
            Backend::Local(local) => Ok(local::status::notes(local)),
            Backend::Postgres(shared) => shared.notes(),
        }
    }

    /// Writes a note, in the place of one with the same name, or removes it (`None`). Durable on
    /// return. Blocks on the disk.
    ///
    /// # Errors
    /// The note is too long, there are too many, the outbox refuses writes, or the disk failed.
    pub fn note(&self, key: NoteKey, text: Option<&[u8]>) -> Result<(), Error> {
        let text: Option<Arc<[u8]>> = text.map(Arc::from);
        if text.as_ref().is_some_and(|text| text.len() > MAX_NOTE) {
            return Err(Error::TooLarge {
                what: "a note",
                limit: MAX_NOTE,
            });
        }
        match &self.backend {
            Backend::Local(local) => local.ask(|reply| Command::Note(key, text, reply)),
            Backend::Postgres(shared) => shared.note(key, text.as_deref()),
        }
    }

    /// Shows `reseal` every sealed account and puts what comes back in its place; `None` leaves it
    /// as it is. Durable on return. Returns how many were replaced.
    ///
    /// # Errors
    /// The state could not be made durable; the call can be made again.
    pub fn reseal_accounts(
        &self,
        reseal: impl FnMut(DestinationId, &[u8]) -> Option<Vec<u8>>,
    ) -> Result<usize, Error> {
        match &self.backend {
            Backend::Local(local) => local::accounts::reseal_accounts(local, reseal),
            Backend::Postgres(shared) => shared.reseal_accounts(reseal),
        }
    }

    /// Whether the outbox's thread is there: not after [`Outbox::close`], nor after a panic.
    pub fn is_alive(&self) -> bool {
        match &self.backend {
            Backend::Local(local) => !local.shared.is_closed(),
            Backend::Postgres(shared) => shared.is_alive(),
        }
    }

    /// Changes whenever something can be claimed that could not be before.
    pub fn subscribe(&self) -> watch::Receiver<u64> {
        match &self.backend {
            Backend::Local(local) => local.shared.changed.subscribe(),
            Backend::Postgres(shared) => shared.subscribe(),
        }
    }

    /// Ends the outbox's thread when it has done what it was asked before. Other handles get
    /// [`Error::Closed`] from then on; deliveries on their way in can only be aborted.
    pub fn close(&self) {
        match &self.backend {
            Backend::Local(local) => local.close(),
            Backend::Postgres(shared) => shared.close(),
        }
    }
}
