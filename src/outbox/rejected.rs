//! Rows that could not be mapped, as callers see them: kept so that a person can see and mend them.

use crate::outbox::codec::{Decoder, Encoder, Malformed, cut};
use crate::outbox::record::{Record, Slice};

const MAX_REASON: usize = 1 << 10;
const MAX_TEXT: usize = 64 << 10;

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

impl RejectedRow<'_> {
    /// What its record says beside its text.
    pub(in crate::outbox) fn meta(&self) -> Vec<u8> {
        let mut meta = Encoder::default();
        meta.u64(self.row).text(cut(self.reason, MAX_REASON));
        meta.bytes
    }

    /// Its text.
    pub(in crate::outbox) fn slice(&self) -> Slice<'_> {
        Slice {
            bytes: self.text.get(..MAX_TEXT).unwrap_or(self.text),
            rows: 1,
        }
    }
}

impl Rejected {
    /// What a record holds.
    pub(in crate::outbox) fn of(record: &Record) -> Result<Self, Malformed> {
        let text = record.slices.first().ok_or(Malformed)?;
        let mut meta = Decoder::new(&record.meta);
        Ok(Self {
            row: meta.u64()?,
            reason: meta.text()?,
            text: text.to_vec(),
        })
    }
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
