//! Dead letters as callers see them: batches that will not be sent any more unless a person replays
//! them.

use std::fmt;
use std::str::FromStr;

use crate::clock::UnixMillis;
use crate::model::{DeliveryId, DestinationId};

/// Names one dead letter. Printed as `letter-slice`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LetterId {
    /// The record, by a counter of the outbox. It changes when the letter is replayed and dies
    /// again, and when the state had to be rebuilt.
    pub letter: u64,
    /// The slice in the record.
    pub slice: u32,
}

impl fmt::Display for LetterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.letter, self.slice)
    }
}

/// The text does not name a dead letter.
#[derive(Debug, thiserror::Error)]
#[error("a dead letter is named by two numbers, like 17-3")]
pub struct LetterIdError;

impl FromStr for LetterId {
    type Err = LetterIdError;

    fn from_str(text: &str) -> Result<Self, LetterIdError> {
        let (letter, slice) = text.split_once('-').ok_or(LetterIdError)?;
        Ok(Self {
            letter: letter.parse().map_err(|_| LetterIdError)?,
            slice: slice.parse().map_err(|_| LetterIdError)?,
        })
    }
}

/// Which dead letters are meant; an empty filter means all.
#[derive(Clone, Copy, Debug, Default)]
pub struct DeadFilter {
    /// Only those of this delivery.
    pub delivery: Option<DeliveryId>,
    /// Only those of this destination.
    pub destination: Option<DestinationId>,
}

/// One dead letter, without its payload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeadLetter {
    /// Its name.
    pub id: LetterId,
    /// The delivery it came with.
    pub delivery: DeliveryId,
    /// Where it was to go.
    pub destination: DestinationId,
    /// The route of the entry it was a part of.
    pub route: u8,
    /// Rows of the delivery in it.
    pub rows: u32,
    /// Size of the payload.
    pub bytes: u64,
    /// Why it was given up; cut at 1 KiB.
    pub reason: String,
    /// How often it was tried.
    pub attempts: u32,
    /// The first of these.
    pub first_try: UnixMillis,
    /// The last of these.
    pub last_try: UnixMillis,
}

/// A part of the dead letters, in the order of their names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DeadPage {
    /// At most as many as asked for.
    pub letters: Vec<DeadLetter>,
    /// Where the next page begins; `None`: this was the last.
    pub next: Option<LetterId>,
    /// Batches of this part that are left out, since their records are damaged. They are named among
    /// the damage, and the outbox sets them aside in its own time.
    pub damaged: u64,
}

/// What the drain says of a slice that it gives up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dead {
    /// Place in the claim's slices.
    pub slice: usize,
    /// Why, with the server's words.
    pub reason: String,
    /// How often it was tried.
    pub attempts: u32,
    /// The first of these.
    pub first_try: UnixMillis,
    /// The last of these.
    pub last_try: UnixMillis,
}

/// How many dead letters a call has moved. One that is not there, not dead any more, or damaged,
/// does not count.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Moved {
    /// Batches.
    pub letters: u64,
    /// Rows in them.
    pub rows: u64,
}
