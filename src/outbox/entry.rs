//! A ready request on its way in.

use crate::outbox::delivery::{Tally, Totals};
use crate::outbox::error::Error;
use crate::outbox::record::{MAX_RAW, MAX_SLICES, Slice};

/// One ready request: its batches, in order.
#[derive(Clone, Copy, Debug)]
pub struct Entry<'a> {
    /// At most 8192, and 32 MiB together.
    pub slices: &'a [Slice<'a>],
    /// Which of the destination's addresses it goes to. Opaque here: it is handed back with each claim,
    /// also of a replayed dead letter.
    pub route: u8,
}

/// Where an entry was put.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Appended {
    /// Its place in the delivery, from 0.
    pub ordinal: u64,
    /// Its size on the disk, compressed.
    pub bytes: u64,
}

impl Entry<'_> {
    /// Refuses what no record holds.
    pub(in crate::outbox) fn check(&self) -> Result<(), Error> {
        if self.slices.len() > MAX_SLICES {
            return Err(Error::TooLarge {
                what: "the number of slices of an entry",
                limit: MAX_SLICES,
            });
        }
        let raw: usize = self.slices.iter().map(|slice| slice.bytes.len()).sum();
        if raw > MAX_RAW {
            return Err(Error::TooLarge {
                what: "an entry",
                limit: MAX_RAW,
            });
        }
        Ok(())
    }

    /// Rows and batches in it.
    pub(in crate::outbox) fn tally(&self) -> Tally {
        Tally {
            rows: self.slices.iter().map(|slice| u64::from(slice.rows)).sum(),
            batches: self.slices.len() as u64,
        }
    }
}

/// What a delivery was given so far.
#[derive(Clone, Copy, Debug, Default)]
pub(in crate::outbox) struct Given {
    pub entries: u64,
    pub tally: Tally,
    pub rejected: u64,
}

impl Given {
    /// Holds the caller's totals against it.
    pub fn check(&self, totals: &Totals) -> Result<(), Error> {
        for (what, said, held) in [
            ("rejected rows", totals.rows_rejected, self.rejected),
            ("rows", totals.mapped().rows, self.tally.rows),
            ("batches", totals.batches, self.tally.batches),
            ("requests", totals.requests, self.entries),
        ] {
            if said != held {
                return Err(Error::Unbalanced { what, said, held });
            }
        }
        Ok(())
    }
}
