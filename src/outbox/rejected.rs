//! Rows that could not be mapped, as callers see them: kept so that a person can see and mend them.

/// A row that could not be mapped, on its way in.
#[derive(Clone, Copy, Debug)]
pub struct RejectedRow<'a> {
    /// Its number in the delivery, from 0.
    pub row: u64,
    /// Why; cut at 1 KiB.
    pub reason: &'a str,
    /// The row as it came; cut at 64 KiB.
    pub text: &'a [u8],
}

/// A row that could not be mapped, read back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejected {
    /// Its number in the delivery, from 0.
    pub row: u64,
    /// Why.
    pub reason: String,
    /// The row as it came, or its first 64 KiB.
    pub text: Vec<u8>,
}

/// A part of the rejected rows of a delivery.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RejectedPage {
    /// At most as many as asked for.
    pub rows: Vec<Rejected>,
    /// How many rows of the delivery were rejected, kept or not.
    pub total: u64,
    /// How many of them are kept and can be read.
    pub kept: u64,
    /// Where the next page begins; `None`: this was the last.
    pub next: Option<u64>,
}
