//! Rows that could not be mapped, kept so that a person can see and mend them: one file a
//! delivery, header, records (meta: row number and reason; one slice: the row's text), and a
//! footer with the totals. It goes when the delivery leaves the history.

use std::fs::File;
use std::io;

use super::codec::{Decoder, Encoder, Malformed, cut};
use super::disk::Disk;
use super::format::{Commit, FileKind, Footer, Header};
use super::layout::Layout;
use super::record::{self, Kind, Record, Slice};
use super::segment::{AppendError, LogWriter, read_whole};

const MAX_REASON: usize = 1 << 10;
const MAX_TEXT: usize = 64 << 10;
/// A file of rejected rows is read whole; rows beyond this size are only counted.
const MAX_FILE: u64 = 64 << 20;

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
}

/// Gathers the rejected rows of one delivery.
#[derive(Debug)]
pub(super) struct RejectedWriter {
    log: LogWriter,
    kept: u32,
}

impl RejectedWriter {
    pub fn create(disk: &Disk, layout: &Layout, header: &Header) -> io::Result<Self> {
        let info = header.info.clone();
        let id = info.as_ref().map(|info| info.id);
        let id = id.ok_or_else(|| io::Error::other("a file of rejected rows has a delivery"))?;
        let header = Header {
            kind: FileKind::Rejected,
            number: 0,
            first: 0,
            info,
        };
        Ok(Self {
            log: LogWriter::create(disk, layout.rejected(id), &header)?,
            kept: 0,
        })
    }

    pub fn append(&mut self, rejected: RejectedRow<'_>) -> Result<(), AppendError> {
        if self.log.length() >= MAX_FILE {
            return Ok(());
        }
        let mut meta = Encoder::default();
        meta.u64(rejected.row)
            .text(cut(rejected.reason, MAX_REASON));
        let slice = Slice {
            bytes: rejected.text.get(..MAX_TEXT).unwrap_or(rejected.text),
            rows: 1,
        };
        self.log
            .append(Kind::Rejected, self.kept, &meta.bytes, &[slice])?;
        self.kept += 1;
        Ok(())
    }

    pub fn length(&self) -> u64 {
        self.log.length()
    }

    /// Ends the file, durably.
    pub fn finish(&mut self, commit: Commit) -> io::Result<()> {
        self.log.finish(&Footer {
            places: Vec::new(),
            commit: Some(commit),
        })
    }
}

/// Reads up to `limit` of the rows kept, leaving out the first `skip`; the second value is how
/// many can be read in all. A damaged row is left out.
pub(super) fn read(file: &File, skip: usize, limit: usize) -> io::Result<(Vec<Rejected>, u64)> {
    let bytes = read_whole(file)?;
    let mut rows = Vec::new();
    let mut kept = 0u64;
    for (n, (_, _, record)) in record::scan(&bytes).enumerate() {
        kept += 1;
        if n >= skip
            && rows.len() < limit
            && let Ok(row) = decode(&record)
        {
            rows.push(row);
        }
    }
    Ok((rows, kept))
}

fn decode(record: &Record) -> Result<Rejected, Malformed> {
    let text = record.slices.first().ok_or(Malformed)?;
    if record.kind != Kind::Rejected {
        return Err(Malformed);
    }
    let mut meta = Decoder::new(&record.meta);
    Ok(Rejected {
        row: meta.u64()?,
        reason: meta.text()?,
        text: text.to_vec(),
    })
}
