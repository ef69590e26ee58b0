//! Where what is known of one schedule is kept: in files of this daemon, or in a database that several
//! daemons share. The bytes are the same.

use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use super::Error;
use super::Missing;
use super::files::{Item, Kind, ScheduleFiles};
use super::reads::Source;
use super::shared::ScheduleRows;
use crate::model::DeliveryId;
use crate::outbox::BlobWriter;

/// See the module.
#[derive(Clone)]
pub(super) enum Store {
    Files(ScheduleFiles),
    Shared(ScheduleRows),
}

/// Something that is written and not there yet under its name.
pub(super) enum Draft {
    File(File),
    Blob(BlobWriter),
}

/// What a delivery leaves.
pub(super) struct Left<'a> {
    pub number: u64,
    pub delivery: DeliveryId,
    /// Deliveries that were unfinished when it began.
    pub before: &'a [DeliveryId],
    pub gone: Option<Draft>,
    pub users: Option<Draft>,
}

impl Store {
    /// Where that is, as a message names it.
    pub fn place(&self) -> PathBuf {
        match self {
            Self::Files(files) => files.directory().to_owned(),
            Self::Shared(rows) => rows.place(),
        }
    }

    /// Why a delivery fails that needs something which cannot be read now.
    pub fn unreadable(&self, source: io::Error) -> Error {
        Error::Unreadable {
            directory: self.place(),
            source,
        }
    }

    /// Why a delivery fails of which something cannot be kept.
    pub fn failed(&self, source: io::Error) -> Error {
        Error::Io {
            directory: self.place(),
            source,
        }
    }

    /// Opens something of a delivery for reading.
    pub fn open(&self, number: u64, delivery: DeliveryId, kind: Kind) -> io::Result<Source> {
        match self {
            Self::Files(files) => files.open(number, delivery, kind),
            Self::Shared(rows) => rows.open(number, kind),
        }
    }

    /// By number, oldest first.
    pub fn items(&self) -> io::Result<Vec<Item>> {
        match self {
            Self::Files(files) => files.items(),
            Self::Shared(rows) => rows.items(),
        }
    }

    /// Begins something that is not there under its name before it is published.
    pub fn draft(&self, number: u64, delivery: DeliveryId, kind: Kind) -> io::Result<Draft> {
        match self {
            Self::Files(files) => files.draft(number, delivery, kind).map(Draft::File),
            Self::Shared(rows) => rows.draft(number, delivery, kind).map(Draft::Blob),
        }
    }

    /// Begins something anew that is there.
    pub fn anew(&self, number: u64, delivery: DeliveryId, kind: Kind) -> io::Result<Draft> {
        match self {
            Self::Files(files) => files.anew(number, delivery, kind).map(Draft::File),
            Self::Shared(rows) => rows.draft(number, delivery, kind).map(Draft::Blob),
        }
    }

    /// Gives what was begun anew its name, durably.
    pub fn publish_anew(
        &self,
        draft: Draft,
        number: u64,
        delivery: DeliveryId,
        kind: Kind,
    ) -> io::Result<()> {
        match (self, draft) {
            (Self::Files(files), Draft::File(file)) => files.publish(&file, number, delivery, kind),
            (Self::Shared(rows), Draft::Blob(mut blob)) => rows.publish(vec![blob.finish()?]),
            _ => Err(elsewhere()),
        }
    }

    /// Gives all that a delivery leaves its names, durably.
    pub fn publish(&self, left: Left<'_>) -> io::Result<()> {
        let (number, delivery) = (left.number, left.delivery);
        match self {
            Self::Files(files) => {
                if !left.before.is_empty() {
                    files.note_before(number, delivery, left.before)?;
                }
                let drafts = [(left.gone, Kind::Gone), (left.users, Kind::Users)];
                for (draft, kind) in drafts {
                    match draft {
                        Some(Draft::File(file)) => files.publish(&file, number, delivery, kind)?,
                        Some(Draft::Blob(_)) => return Err(elsewhere()),
                        None => {}
                    }
                }
                Ok(())
            }
            Self::Shared(rows) => {
                let mut all = Vec::new();
                if !left.before.is_empty() {
                    all.push(rows.draft_before(number, delivery, left.before)?);
                }
                for draft in [left.gone, left.users] {
                    match draft {
                        Some(Draft::Blob(mut blob)) => all.push(blob.finish()?),
                        Some(Draft::File(_)) => return Err(elsewhere()),
                        None => {}
                    }
                }
                rows.publish(all)
            }
        }
    }

    /// An unnamed file.
    pub fn temporary(&self) -> io::Result<File> {
        match self {
            Self::Files(files) => files.temporary(),
            Self::Shared(rows) => rows.temporary(),
        }
    }

    /// Reads an unnamed file.
    pub fn source(&self, file: File) -> Source {
        match self {
            Self::Files(files) => files.source(file),
            Self::Shared(rows) => rows.source(file),
        }
    }

    /// Removes what was being written when the process died, or when the delivery was given up.
    pub fn remove_drafts(&self) -> io::Result<()> {
        match self {
            Self::Files(files) => files.remove_drafts(),
            Self::Shared(rows) => rows.remove_drafts(),
        }
    }

    /// Removes something of a delivery. Not there is as good.
    pub fn remove(&self, number: u64, delivery: DeliveryId, kind: Kind) -> io::Result<()> {
        match self {
            Self::Files(files) => files.remove(number, delivery, kind),
            Self::Shared(rows) => rows.remove(number, delivery, kind),
        }
    }

    /// Removes all at once and durably.
    pub fn clear(&self) -> io::Result<()> {
        match self {
            Self::Files(files) => files.clear(),
            Self::Shared(rows) => rows.clear(),
        }
    }

    /// Notes durably how a delivery ended.
    pub fn settle(&self, number: u64, delivery: DeliveryId, missing: &Missing) -> io::Result<()> {
        match self {
            Self::Files(files) => files.settle(number, delivery, missing),
            Self::Shared(rows) => rows.settle(number, delivery, missing),
        }
    }

    /// Which deliveries were unfinished when this one began; `None`: it may have been any.
    ///
    /// # Errors
    /// It cannot be read now.
    fn before(&self, number: u64, delivery: DeliveryId) -> io::Result<Option<Vec<DeliveryId>>> {
        match self {
            Self::Files(files) => files.before(number, delivery),
            Self::Shared(rows) => rows.before(number),
        }
    }

    /// How a delivery ended; what is damaged or gone is in doubt.
    ///
    /// # Errors
    /// It cannot be read now.
    pub fn missing(&self, number: u64, delivery: DeliveryId) -> io::Result<Missing> {
        match self {
            Self::Files(files) => files.missing(number, delivery),
            Self::Shared(rows) => rows.missing(number),
        }
    }

    /// Whether one of these deliveries is the item's, or may be one of the schedule's before it.
    ///
    /// # Errors
    /// What was noted cannot be read now.
    pub fn may_be_of(&self, item: &Item, deliveries: &[DeliveryId]) -> io::Result<bool> {
        let Some(own) = item.delivery else {
            return Ok(false);
        };
        let noted = match item.before {
            true => self.before(item.number, own)?,
            false => Some(Vec::new()),
        };
        Ok(deliveries
            .iter()
            .any(|id| *id == own || noted.as_ref().is_none_or(|noted| noted.contains(id))))
    }

    /// Removes what was noted of deliveries of which none is unfinished any more.
    ///
    /// # Errors
    /// It cannot be read, or removed, now.
    pub fn forget_before(&self, items: &[Item], unfinished: &[DeliveryId]) -> io::Result<()> {
        for item in items.iter().filter(|item| item.before) {
            if let Some(delivery) = item.delivery
                && !self.may_be_of(item, unfinished)?
            {
                self.remove(item.number, delivery, Kind::Before)?;
            }
        }
        Ok(())
    }
}

/// A draft is published where it was begun.
fn elsewhere() -> io::Error {
    io::Error::other("it was begun in another place")
}

impl Write for Draft {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::File(file) => file.write(bytes),
            Self::Blob(blob) => blob.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::File(file) => file.flush(),
            Self::Blob(blob) => blob.flush(),
        }
    }
}

/// A schedule's directory in that of all.
pub(super) fn directory(of_all: &Path, schedule: super::ScheduleKey) -> PathBuf {
    of_all.join(schedule.to_string())
}
