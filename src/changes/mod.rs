//! What each schedule delivered last, so that the next delivery sends only what differs.
//!
//! A delivery that sends only changes leaves a *snapshot* ([`snapshot`]): for each of its users, a
//! fingerprint of all that is sent of them, and the requests of the delivery that they are in.
//! Users come out of grouping in the order of a keyed hash, and a schedule keeps its key, so the
//! next delivery reads the snapshots beside its own users, once, from the beginning to the end:
//! memory is the same for ten users and ten million.
//!
//! **When a user is passed over.** The *base* is the snapshot of the newest delivery that has ended,
//! as long as all before it have; what came after it is *pending*. A user is passed over only if the
//! base and every pending snapshot have the fingerprint that the user has now, and the user's
//! requests of the base arrived. Pending ones may still fail, so none of them alone proves
//! anything; but they are sent before this one, so each can still change what mParticle has. A
//! snapshot proves by itself: whoever it passed over had the same fingerprint in all before it.
//! More than [`MOST_PENDING`] of them, and all users are sent.
//!
//! **An audience** is a result whose users have an attribute set to true, and set to false when they
//! leave. Who left is read from the newest snapshot alone: those of its users, and of those that it
//! still had to tell, of whom no identity occurs in the result ([`seen`]). They are told again by
//! each delivery until one of them has arrived.
//!
//! **In doubt all are sent.** A schedule is dropped, which makes its next delivery a full one, when
//! a snapshot is damaged, of another version or another key; when the outbox does not know what
//! became of a delivery, or lost its state; when dead letters of one of its deliveries are sent
//! again, since they arrive behind newer values; and when there is no room. The first delivery of a
//! schedule that is not known, or no longer, cannot tell whose the dead letters are that there are
//! already, so it notes all deliveries that are unfinished then: each may be one of its schedule. A snapshot has its
//! name, durably, before its delivery is committed, so there is never a delivery of the schedule
//! that the snapshots do not know of.
//!
//! **Several daemons** that share an outbox share this too ([`shared`]): the same bytes under the same
//! names, as rows and blocks of its database. A schedule is *entered* by the daemon that receives a
//! delivery of it, so that no other receives one at the same time, and what it leaves is published only
//! if it is still in the schedule. If it was taken for dead, its delivery has been aborted by whoever entered
//! next, or was visible before: so there is never a delivery that the snapshots do not know of.
//!
//! What is not known here: values of the same users that come to mParticle on other ways. A full
//! refresh every few days evens that out.

mod earlier;
mod files;
mod find;
mod inner;
mod reads;
mod seen;
mod session;
mod shared;
mod snapshot;
mod store;
#[cfg(test)]
mod tests;

use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::clock::UnixMillis;
use crate::model::DeliveryId;
use crate::outbox::Snapshots;
use crate::seal::{KeyError, Keyring};

pub use find::{Trace, Who};
use inner::{Inner, NOBODY};
pub use reads::Reads;
pub use session::Session;

/// Snapshots that may wait for their deliveries beside the base. More of them are rarely agreed
/// with, and each one costs the next delivery a file to read.
pub const MOST_PENDING: usize = 4;

/// How snapshots are kept.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Holds nothing else; made when it is not there. Where daemons share what they know, it holds unnamed
    /// files only.
    pub directory: PathBuf,
    /// All snapshots together, in bytes. Above, those of the schedules go that were not seen for
    /// the longest time.
    pub max_bytes: u64,
    /// A schedule that was not seen for so long is dropped.
    pub forget_after: Duration,
    /// At most this percentage of an audience may leave with one delivery.
    pub max_drop_percent: u8,
}

/// Names a schedule: what it sends is compared with what it sent before, and with nothing else.
/// Printed as 32 lower-case hex digits it is a directory's name, so it should reveal nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ScheduleKey(pub [u8; 16]);

/// What one delivery asks for.
#[derive(Clone, Debug)]
pub struct Comparison {
    /// Which schedule it belongs to: it is compared with that schedule's snapshots.
    pub schedule: ScheduleKey,
    /// After so long all users are sent.
    pub full_refresh: Duration,
    /// Set if users who leave the result are to be told.
    pub audience: Option<Audience>,
}

/// How a result is an audience.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Audience {
    /// The user attribute that says who is in it.
    pub attribute: String,
    /// Whether any number may leave at once.
    pub may_shrink: bool,
}

/// How a delivery ended, as its sender knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ending {
    /// There is no such delivery, or it is forgotten.
    Unknown,
    /// Something of it still waits or flies.
    Open,
    /// All of it has arrived or never will, but for what is missing.
    Settled(Missing),
}

/// What of a delivery that has ended did not arrive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Missing {
    /// Something in these requests, in ascending order, from 0. None: all arrived.
    Requests(Vec<u32>),
    /// Something, and nobody can say what.
    InDoubt,
}

impl Missing {
    fn is_nothing(&self) -> bool {
        *self == Self::Requests(Vec::new())
    }

    /// Whether all requests from the first to the last have arrived.
    fn spares(&self, (first, last): (u32, u32)) -> bool {
        match self {
            Self::InDoubt => false,
            Self::Requests(missing) => {
                let at = missing.partition_point(|request| *request < first);
                missing.get(at).is_none_or(|request| *request > last)
            }
        }
    }
}

/// Knows what became of deliveries.
pub trait Ledger {
    /// How this one ended.
    fn ending(&self, delivery: DeliveryId) -> Ending;

    /// All deliveries of which something waits, flies, or can be sent again.
    ///
    /// # Errors
    /// They cannot be listed now.
    fn unfinished(&self) -> io::Result<Vec<DeliveryId>>;

    /// When it was last found that what is known of deliveries in general was lost, so that no
    /// ending before that can be relied on.
    fn lost(&self) -> Option<UnixMillis>;
}

/// A delivery cannot send only changes.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Two deliveries of one schedule at once: neither could know what the other one sends.
    #[error(
        "This schedule is already being received. With \"Send only changes\" its deliveries must come one after the other; send it again when the first one is done."
    )]
    Busy,
    /// A file cannot be made, written or named: most often the disk is full.
    #[error(
        "What was delivered could not be noted in {directory}, which \"Send only changes\" needs"
    )]
    Io {
        /// The schedule's directory, or the database.
        directory: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// What earlier deliveries of the schedule said cannot be read now.
    #[error(
        "What was delivered before cannot be read in {directory} now, which \"Send only changes\" needs. None of the delivery was sent, and nothing is forgotten; send it again when the disk can be read"
    )]
    Unreadable {
        /// The schedule's directory, or the database.
        directory: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The system gives no random bytes.
    #[error("What was delivered could not be sealed, which \"Send only changes\" needs")]
    Seal(#[from] KeyError),
    /// More users left the audience at once than may.
    #[error(
        "{left} of {members} users would leave the audience at once, which looks like a mistake in the query; at most {most} in a hundred may. None of the delivery was sent. If it is right, choose \"Any number\" for \"Users Who May Leave\" in the schedule, or raise `changes.max_drop_percent`."
    )]
    Shrunk {
        /// Users of the last result that are not in this one.
        left: u64,
        /// Users of the last result.
        members: u64,
        /// Of a hundred.
        most: u8,
    },
    /// Looker cut the result, so nobody can say who left.
    #[error(
        "Looker cut the result at its row limit, so it cannot be told who left the audience. None of the delivery was sent. Choose \"All results\" in the schedule's advanced options."
    )]
    Truncated,
}

/// The snapshots of all schedules. Cloning gives another handle to the same ones.
#[derive(Clone)]
pub struct Changes {
    inner: Arc<Inner>,
}

impl std::fmt::Debug for Changes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Changes").finish_non_exhaustive()
    }
}

impl Changes {
    /// Those in the directory. Touches no file before a delivery asks.
    pub fn new(settings: Settings, keys: Arc<Keyring>) -> Self {
        Self::reading(settings, keys, Reads::default())
    }

    /// The same, read in a way that a test can watch and fail.
    pub fn reading(settings: Settings, keys: Arc<Keyring>, reads: Reads) -> Self {
        Self {
            inner: Arc::new(Inner {
                settings,
                keys,
                reads,
                state: Mutex::default(),
                snapshots: None,
            }),
        }
    }

    /// Those that daemons which share an outbox keep together. The directory holds unnamed files.
    pub fn shared(settings: Settings, keys: Arc<Keyring>, snapshots: Snapshots) -> Self {
        Self {
            inner: Arc::new(Inner {
                settings,
                keys,
                reads: Reads::default(),
                state: Mutex::default(),
                snapshots: Some(snapshots),
            }),
        }
    }

    /// Begins a delivery that sends only changes. Blocks on the disk.
    ///
    /// # Errors
    /// Another delivery of the schedule is on its way in, or the disk or the system refuses. What
    /// is damaged of earlier deliveries is not an error: all users are sent then.
    pub fn begin(
        &self,
        comparison: &Comparison,
        delivery: DeliveryId,
        now: UnixMillis,
        ledger: &dyn Ledger,
    ) -> Result<Session, Error> {
        let schedule = comparison.schedule;
        let mut here = self.inner.alone_here();
        let files = self.inner.store(schedule, delivery.0);
        let unreadable = |source| files.unreadable(source);
        self.inner
            .hear_of_loss(&mut here, ledger)
            .map_err(unreadable)?;
        let entered = self.inner.enter(&here, schedule, delivery.0, true);
        let Some(entered) = entered.map_err(unreadable)? else {
            return Err(Error::Busy);
        };
        let failed = |source| files.failed(source);
        files.remove_drafts().map_err(failed)?;
        self.inner
            .settle_one(&mut here, &files, schedule, ledger)
            .map_err(unreadable)?;
        let items = files.items().map_err(unreadable)?;
        let is_first = !items.iter().any(|item| item.users);
        let unfinished = match is_first || items.iter().any(|item| item.before) {
            true => ledger.unfinished().map_err(unreadable)?,
            false => Vec::new(),
        };
        files
            .forget_before(&items, &unfinished)
            .map_err(unreadable)?;
        let before = if is_first { unfinished } else { Vec::new() };
        let session = Session::begin(
            &self.inner,
            comparison,
            delivery,
            now,
            &items,
            before.clone(),
        )?;
        entered
            .receive(&mut here, delivery, before)
            .map_err(failed)?;
        // It leaves the schedule with the lock in its own hands.
        drop(here);
        Ok(session)
    }

    /// Takes up what has become of deliveries, and forgets schedules that are old or for which there
    /// is no room. Call it when deliveries end, and at a start before anything else. Blocks on the
    /// disk.
    pub fn settle(&self, ledger: &dyn Ledger) {
        let mut here = self.inner.alone_here();
        if let Err(error) = self.inner.hear_of_loss(&mut here, ledger) {
            tracing::warn!(%error, "snapshots could not be dropped; it is tried again");
            return;
        }
        let schedules = match self.inner.to_settle() {
            Ok(schedules) => schedules,
            Err(error) => {
                tracing::warn!(%error, "what was delivered cannot be listed; it is tried again");
                return;
            }
        };
        for schedule in schedules {
            let files = self.inner.store(schedule, NOBODY);
            let settled = self.inner.settle_one(&mut here, &files, schedule, ledger);
            if let Err(error) = settled {
                tracing::warn!(schedule = %schedule, %error, "what was delivered could not be noted; it is tried again");
            }
        }
        self.inner.make_room(&mut here);
    }

    /// Something of these deliveries arrives again, behind what came after it: their schedules are
    /// dropped. Durable on return. Blocks on the disk.
    ///
    /// # Errors
    /// The disk refuses; then some may not have been dropped, and nothing should be sent again.
    pub fn doubt(&self, deliveries: &[DeliveryId]) -> io::Result<()> {
        let mut here = self.inner.alone_here();
        for schedule in self.inner.may_be_of(&here, deliveries)? {
            let why = "dead letters of one of its deliveries are sent again";
            self.inner.drop_schedule(&mut here, schedule, why)?;
        }
        Ok(())
    }

    /// Drops a schedule, since a delivery of it is sent past its snapshots. Blocks on the disk.
    ///
    /// # Errors
    /// The disk refuses; then the delivery must not be sent.
    pub fn forget(&self, schedule: ScheduleKey) -> io::Result<()> {
        let mut here = self.inner.alone_here();
        if self.inner.is_known(schedule)? {
            let why = "a delivery of it does not send only changes";
            self.inner.drop_schedule(&mut here, schedule, why)?;
        }
        Ok(())
    }
}

impl std::fmt::Display for ScheduleKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        DeliveryId(self.0).fmt(f)
    }
}
