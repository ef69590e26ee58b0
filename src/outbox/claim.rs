//! Claims: what the drain takes out to send. They live in memory only; after a restart all that
//! has not settled is due again.

use std::sync::Arc;

use bytes::Bytes;

use crate::clock::UnixMillis;
use crate::model::DeliveryId;
use crate::outbox::letter::Dead;

/// One ready request, to be sent and then settled or released.
#[derive(Clone, Debug)]
pub struct Claim {
    /// The delivery it came with.
    pub delivery: DeliveryId,
    /// Names it within its delivery. Opaque: a replayed dead letter has one of its own kind.
    pub ordinal: u64,
    /// The newest sealed account of the destination.
    pub account: Arc<[u8]>,
    /// Which of the destination's addresses it goes to, as it was appended.
    pub route: u8,
    /// The batches, byte by byte as they were appended.
    pub slices: Vec<Bytes>,
    /// Rows of the delivery in each slice.
    pub rows: Vec<u32>,
    /// When the delivery began.
    pub received: UnixMillis,
}

/// How a claim ended: the slices not named dead are delivered.
#[derive(Clone, Debug)]
pub struct Settlement {
    /// The claim's delivery.
    pub delivery: DeliveryId,
    /// The claim's ordinal.
    pub ordinal: u64,
    /// Slices that are given up.
    pub dead: Vec<Dead>,
}

/// What a settlement came to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Settled {
    /// Entries that have settled now.
    pub entries: u64,
    /// Entries that had settled before, or are not known.
    pub unknown: u64,
    /// Deliveries that have settled whole now.
    pub finished: Vec<DeliveryId>,
}
