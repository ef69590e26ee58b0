//! What can be asked about an outbox.

use std::sync::Arc;

use crate::clock::UnixMillis;
use crate::model::{DeliveryId, DestinationId};
use crate::outbox::delivery::Tally;

/// Whether the outbox can do its work.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Health {
    /// It can.
    Ok,
    /// A sync or a write of the state failed; it is tried again at least every five seconds.
    RefusingWrites {
        /// When that was.
        since: UnixMillis,
        /// What failed.
        what: Arc<str>,
    },
    /// Something cannot be read now. Deliveries are taken; what cannot be read is not sent, and is
    /// tried again at least every five seconds. Nothing is lost.
    Unreadable {
        /// When that was met first.
        since: UnixMillis,
        /// What, and why.
        what: Arc<str>,
    },
}

/// A loss, or what may be one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damage {
    /// Whose rows; `None`: not of one delivery.
    pub delivery: Option<DeliveryId>,
    /// How many rows are in doubt.
    pub rows: u64,
    /// What is damaged.
    pub what: String,
    /// When it was found.
    pub found: UnixMillis,
}

/// What waits for one destination. Deliveries that are held wait for a person and are none of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DestinationState {
    /// Which.
    pub id: DestinationId,
    /// The destination for people.
    pub label: String,
    /// Turns in the queue: deliveries, and replays of dead letters.
    pub deliveries: u64,
    /// Not claimed yet.
    pub waiting: Tally,
    /// Claimed.
    pub in_flight: Tally,
    /// Size of the segment files that still have work.
    pub bytes: u64,
    /// When the oldest delivery that waits began.
    pub oldest: Option<UnixMillis>,
    /// The daemon that sends to it, where several share the outbox; `None`: this one alone can, or none
    /// does just now.
    pub holder: Option<Holder>,
}

/// A daemon that holds the lease of a destination.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holder {
    /// What people call it.
    pub name: String,
    /// Whether it is the one that was asked.
    pub own: bool,
}

/// The deliveries of one title that are listed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Title {
    /// The title, as it came.
    pub title: String,
    /// How many deliveries of it are listed.
    pub deliveries: u64,
    /// When the newest of them began.
    pub newest: UnixMillis,
}

/// What was found damaged and is kept for a person. It is never removed by the outbox, and not
/// counted in [`Usage::bytes`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SetAside {
    /// Files.
    pub files: u64,
    /// Bytes of them.
    pub bytes: u64,
}

/// How large the outbox is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Deliveries that are held.
    pub held: u64,
    /// Bytes held on the disk.
    pub bytes: u64,
    /// Bytes free on the disk; `None`: the system does not say.
    pub free: Option<u64>,
    /// Entries that have not settled.
    pub entries: u64,
    /// Batches and rows in the dead letters.
    pub dead_letters: Tally,
    /// Deliveries on their way in.
    pub receiving: u64,
    /// Deliveries that are listed.
    pub deliveries: u64,
    /// Rows that could not be mapped, of listed deliveries, as far as they are kept.
    pub rejected_rows: u64,
    /// What is not sent of listed deliveries, since a person cancelled them.
    pub cancelled: Tally,
    /// What was set aside as damaged, as of a minute ago at most.
    pub set_aside: SetAside,
}
