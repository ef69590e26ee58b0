//! What the encoder hands out: requests, rows that fit in none, and how much was made.

use crate::mparticle::route::Route;
use crate::record::RecordView;

/// One batch in a request's bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Batch<'a> {
    /// The batch as JSON.
    pub json: &'a [u8],
    /// Rows of the delivery that are settled when this batch is.
    pub rows: u32,
}

/// The batches of a request, in one piece of memory.
#[derive(Debug, Default)]
pub struct Batches {
    /// Their JSON, one after the other.
    pub(super) bytes: Vec<u8>,
    /// End and rows of each.
    pub(super) ends: Vec<(usize, u32)>,
}

impl Batches {
    /// One after the other.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = Batch<'_>> {
        let mut start = 0;
        self.ends.iter().map(move |&(end, rows)| {
            let json = self.bytes.get(start..end).unwrap_or_default();
            start = end;
            Batch { json, rows }
        })
    }

    /// Adds one.
    pub fn push(&mut self, batch: Batch<'_>) {
        self.bytes.extend_from_slice(batch.json);
        self.ends.push((self.bytes.len(), batch.rows));
    }

    /// Bytes of all of them.
    pub fn bytes(&self) -> usize {
        self.bytes.len()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }
}

/// Takes what the encoder makes.
pub trait Sink {
    /// Why it could not.
    type Error;
    /// A request that is ready to be sent: a JSON array of these batches. They can be taken, by
    /// putting others in their place, whose memory is used again.
    ///
    /// # Errors
    /// It could not be kept; the delivery must be given up.
    fn request(&mut self, route: Route, batches: &mut Batches) -> Result<(), Self::Error>;
    /// A row that no batch can hold.
    ///
    /// # Errors
    /// It could not be kept; the delivery must be given up.
    fn unsendable(&mut self, row: RecordView<'_>, why: Unsendable) -> Result<(), Self::Error>;

    /// Whether a user need not be sent; asked only by an encoder that sends only changes, see
    /// [`Encoder::sending_changes`]. `people` are the sets of identities (`record::parts`);
    /// `fingerprint` is of all that would be sent, `None`: the user must be sent.
    ///
    /// # Errors
    /// It could not be noted; the delivery must be given up.
    fn is_known(&mut self, _: u64, _: Option<u128>, _: &[u8]) -> Result<bool, Self::Error> {
        Ok(false)
    }

    /// The requests, from 0, that hold whoever was asked about last, unless there was no fingerprint.
    ///
    /// # Errors
    /// It could not be noted; the delivery must be given up.
    fn placed(&mut self, _first: u64, _last: u64) -> Result<(), Self::Error> {
        Ok(())
    }

    /// Fills `people` with the next user who is not in the result any more; `false`: no other.
    ///
    /// # Errors
    /// It is not known; the delivery must be given up.
    fn next_gone(&mut self, _people: &mut Vec<u8>) -> Result<bool, Self::Error> {
        Ok(false)
    }
}

/// Why no batch can hold a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unsendable {
    /// The row's event alone is larger than a batch may be.
    #[error("the row needs a batch of {bytes} bytes, and mParticle takes at most {most}")]
    TooLarge {
        /// What it would need.
        bytes: usize,
        /// The limit.
        most: usize,
    },
    /// The row is part of a purchase that needs more than a batch may be, and half a purchase would
    /// be a wrong one.
    #[error(
        "the row is one of {rows} or more of a transaction that is too large for one event: mParticle takes at most {most} bytes"
    )]
    Purchase {
        /// Rows of the transaction that had come.
        rows: usize,
        /// The limit.
        most: usize,
    },
}

/// How much was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Made {
    /// Sets of identities (see the module's page).
    pub users: u64,
    /// Batches.
    pub batches: u64,
    /// Events.
    pub events: u64,
    /// Requests.
    pub requests: u64,
    /// Bytes of all batches.
    pub bytes: u64,
    /// What of these goes to mParticle's address for historical events.
    pub historical: Share,
    /// Rows of users who were not sent, since they are as they were.
    pub unchanged_rows: u64,
    /// Those users.
    pub unchanged_users: u64,
    /// Users who are told that they are not in the result any more.
    pub gone: u64,
}

/// A part of what was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Share {
    /// Batches.
    pub batches: u64,
    /// Events.
    pub events: u64,
    /// Requests.
    pub requests: u64,
}
