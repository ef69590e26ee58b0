//! A ready request on its way in.

use crate::outbox::record::Slice;

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
