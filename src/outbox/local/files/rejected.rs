//! Rows that could not be mapped, kept so that a person can see and mend them: one file a delivery,
//! which goes when the delivery leaves the history.

use std::io;
use std::path::PathBuf;

use crate::model::DeliveryId;
use crate::outbox::delivery::{Info, Tally};
use crate::outbox::local::files::disk::Disk;
use crate::outbox::local::files::format::{Commit, FileKind, Footer, Header};
use crate::outbox::local::files::layout::Layout;
use crate::outbox::local::files::read::{ReadError, ReadFile};
use crate::outbox::local::files::segment::{AppendError, LogWriter};
use crate::outbox::record::{self, Frame, Kind, Name};
use crate::outbox::rejected::{Rejected, RejectedRow};
use crate::seal::Keyring;

/// A file of rejected rows is read whole; rows beyond this size are only counted.
const MAX_FILE: u64 = 64 << 20;

/// Gathers the rejected rows of one delivery.
#[derive(Debug)]
pub(in crate::outbox) struct RejectedWriter {
    log: LogWriter,
    delivery: DeliveryId,
    kept: u32,
    /// Rows that were erased.
    erased: u64,
}

impl RejectedWriter {
    pub fn create(disk: &Disk, layout: &Layout, info: &Info, keys: &Keyring) -> io::Result<Self> {
        Self::create_at(disk, layout.rejected(info.id), info, keys)
    }

    /// The same under another name.
    pub fn create_at(disk: &Disk, path: PathBuf, info: &Info, keys: &Keyring) -> io::Result<Self> {
        let header = Header {
            kind: FileKind::Rejected,
            number: 0,
            first: 0,
            key: keys.current(),
            info: Some(info.clone()),
        };
        Ok(Self {
            log: LogWriter::create(disk, path, &header, keys)?,
            delivery: info.id,
            kept: 0,
            erased: 0,
        })
    }

    pub fn append(&mut self, rejected: RejectedRow<'_>) -> Result<(), AppendError> {
        if self.log.length() >= MAX_FILE {
            return Ok(());
        }
        let name = Name {
            kind: Kind::Rejected,
            delivery: self.delivery,
            ordinal: self.kept,
        };
        self.log
            .append(name, &rejected.meta(), &[rejected.slice()])?;
        self.kept += 1;
        Ok(())
    }

    /// Says how many rows have been erased of the delivery.
    pub fn erased(&mut self, rows: u64) {
        self.erased = rows;
    }

    /// Rows that were appended.
    pub fn kept(&self) -> u32 {
        self.kept
    }

    pub fn length(&self) -> u64 {
        self.log.length()
    }

    /// Ends the file, durably.
    pub fn finish(&mut self, commit: Commit) -> io::Result<()> {
        self.log.finish(&Footer {
            places: Vec::new(),
            commit: Some(commit),
            erased: Tally {
                rows: self.erased,
                batches: 0,
            },
        })
    }
}

/// Reads up to `limit` of the rows kept, leaving out the first `skip`; the second value is how
/// many there are in all. A damaged row is left out.
pub(in crate::outbox) fn read(
    file: &ReadFile,
    delivery: DeliveryId,
    keys: &Keyring,
    skip: usize,
    limit: usize,
) -> Result<(Vec<Rejected>, u64), ReadError> {
    let bytes = file.whole()?;
    let mut rows = Vec::new();
    let mut kept = 0u64;
    for (_, _, frame) in frames(&bytes, delivery) {
        if kept >= skip as u64
            && rows.len() < limit
            && let Ok(row) = frame.open(keys).and_then(|record| Rejected::of(&record))
        {
            rows.push(row);
        }
        kept += 1;
    }
    Ok((rows, kept))
}

/// The rows of this delivery that are sound by their checksum.
fn frames(bytes: &[u8], delivery: DeliveryId) -> impl Iterator<Item = (usize, usize, Frame<'_>)> {
    record::scan(bytes).filter(move |(_, _, frame)| {
        (frame.name.kind, frame.name.delivery) == (Kind::Rejected, delivery)
    })
}

/// How many rows are sound by their checksum, and how many of them do not open.
pub(in crate::outbox) fn weigh(
    bytes: &[u8],
    delivery: DeliveryId,
    keys: Option<&Keyring>,
) -> (u64, u64) {
    let (mut sound, mut shut) = (0, 0);
    for (_, _, frame) in frames(bytes, delivery) {
        sound += 1;
        shut += u64::from(keys.is_some_and(|keys| frame.open(keys).is_err()));
    }
    (sound, shut)
}
