//! A delivery that has begun and is not committed: one that is being received, or one that failed. What
//! the caller says of it (`about`, `journal`) means nothing to the outbox; it is sealed at rest, with
//! the title and the message.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use crate::clock::UnixMillis;
use crate::model::DeliveryId;
use crate::outbox::error::Error;

/// Most bytes of [`NewAttempt::about`].
pub const MAX_ABOUT: usize = 2200;
/// Most bytes of a journal.
pub const MAX_JOURNAL: usize = 700;
pub(in crate::outbox) const MAX_TITLE: usize = 400;
pub(in crate::outbox) const MAX_MESSAGE: usize = 600;
/// The kind of the end of a delivery that a start found without one.
pub const INTERRUPTED: u8 = 255;

/// What is known of a delivery before anything is spent on it.
#[derive(Clone, Debug)]
pub struct NewAttempt {
    /// Its name, never used before.
    pub id: DeliveryId,
    /// Looker's name for this execution, by which a repetition is known.
    pub webhook: Option<String>,
    /// For people; cut at 400 bytes.
    pub title: String,
    /// What the caller wants to find again; at most [`MAX_ABOUT`] bytes.
    pub about: Vec<u8>,
    /// When it began.
    pub received: UnixMillis,
}

/// How a delivery failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AttemptEnd {
    /// When.
    pub at: UnixMillis,
    /// Of what kind, in the caller's numbers; [`INTERRUPTED`] is the outbox's own.
    pub kind: u8,
    /// Rows that had come.
    pub rows: u64,
    /// Bytes that had come.
    pub bytes: u64,
    /// A sentence for people; cut at 600 bytes.
    pub message: String,
}

/// A delivery that has begun and is not committed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attempt {
    /// Which.
    pub id: DeliveryId,
    /// For people.
    pub title: String,
    /// As it was given; empty if it was sealed under a key that is not there.
    pub about: Arc<[u8]>,
    /// When it began.
    pub received: UnixMillis,
    /// `None`: it is being received.
    pub end: Option<AttemptEnd>,
    /// What the caller has written beside it since.
    pub journal: Arc<[u8]>,
}

/// How far a delivery has come that is being received. Counted by whoever receives it.
#[derive(Debug, Default)]
pub struct Arrived {
    /// Rows so far.
    pub rows: AtomicU64,
    /// Bytes so far.
    pub bytes: AtomicU64,
}

/// A delivery that is being received at this moment.
#[derive(Clone, Debug)]
pub struct Receiving {
    /// Which.
    pub id: DeliveryId,
    /// For people.
    pub title: String,
    /// When it began.
    pub since: UnixMillis,
    /// How far it has come.
    pub arrived: Arc<Arrived>,
}

/// Refuses what is longer than `limit`.
pub(in crate::outbox) fn bounded(
    what: &'static str,
    bytes: &[u8],
    limit: usize,
) -> Result<(), Error> {
    match bytes.len() <= limit {
        true => Ok(()),
        false => Err(Error::TooLarge { what, limit }),
    }
}
