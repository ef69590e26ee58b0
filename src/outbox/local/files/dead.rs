//! Dead letters: batches that will not be sent any more unless a person replays them.
//!
//! A record ([`DeadMeta`]) holds the dead slices of one entry, so that a settlement is in the file whole or
//! not at all. It is durable before the state says that the entry has settled; a record that the
//! state does not know (a crash between the two) is taken up at open. Files are never appended to by
//! a later process, and go when their last letter goes.

use std::io;
use std::sync::Arc;

use crate::outbox::dead::{DeadMeta, LetterRecord};
use crate::outbox::local::files::disk::Disk;
use crate::outbox::local::files::format::{FileKind, Header};
use crate::outbox::local::files::layout::Layout;
use crate::outbox::local::files::read::{ReadError, ReadFile};
use crate::outbox::local::files::segment::{AppendError, LogWriter, read_record};
use crate::outbox::record::{Kind, Name, Slice};
use crate::outbox::settings::Settings;
use crate::seal::Keyring;

/// Where a record was put.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::outbox) struct DeadPlace {
    pub file: u32,
    pub offset: u64,
    pub length: u32,
}

/// Writes dead-letter records. After any failure the file at hand is left and a new one begun,
/// so that nothing is ever written behind bytes of unknown fate.
#[derive(Debug)]
pub(in crate::outbox) struct DeadWriter {
    disk: Disk,
    layout: Layout,
    keys: Arc<Keyring>,
    next_file: u32,
    roll_at: u64,
    current: Option<(u32, LogWriter)>,
    /// What of it is durable.
    durable: u64,
    fresh: bool,
}

impl DeadWriter {
    pub fn new(disk: &Disk, layout: &Layout, next_file: u32, settings: &Settings) -> Self {
        Self {
            disk: disk.clone(),
            layout: layout.clone(),
            keys: Arc::clone(&settings.keys),
            next_file,
            roll_at: settings.segment_bytes,
            current: None,
            durable: 0,
            fresh: false,
        }
    }

    /// The file that is written to and its length.
    pub fn current(&self) -> Option<(u32, u64)> {
        self.current
            .as_ref()
            .map(|(number, log)| (*number, log.length()))
    }

    pub fn append(
        &mut self,
        meta: &DeadMeta,
        ordinal: u32,
        slices: &[Slice<'_>],
    ) -> Result<DeadPlace, AppendError> {
        let appended = self.try_append(meta, ordinal, slices);
        if appended.is_err() {
            self.abandon();
        }
        appended
    }

    fn try_append(
        &mut self,
        meta: &DeadMeta,
        ordinal: u32,
        slices: &[Slice<'_>],
    ) -> Result<DeadPlace, AppendError> {
        let (file, log) = match &mut self.current {
            Some((number, log)) => (*number, log),
            none => {
                let number = self.next_file;
                self.next_file = self.next_file.saturating_add(1);
                let header = Header {
                    kind: FileKind::Dead,
                    number,
                    first: 0,
                    key: self.keys.current(),
                    info: None,
                };
                let path = self.layout.dead(number);
                let log = LogWriter::create(&self.disk, path, &header, &self.keys)?;
                self.fresh = true;
                self.durable = 0;
                let (_, log) = none.insert((number, log));
                (number, log)
            }
        };
        let name = Name {
            kind: Kind::Dead,
            delivery: meta.delivery,
            ordinal,
        };
        let (offset, length) = log.append(name, &meta.encode(), slices)?;
        Ok(DeadPlace {
            file,
            offset,
            length: u32::try_from(length).map_err(|_| AppendError::TooLarge)?,
        })
    }

    /// Makes all that was appended durable.
    pub fn sync(&mut self) -> io::Result<()> {
        let synced = self.try_sync();
        if synced.is_err() {
            self.abandon();
        }
        synced
    }

    /// Leaves the file at hand and cuts off what is not durable: after a failed sync the system
    /// may take it for written though it is not.
    fn abandon(&mut self) {
        if let Some((_, log)) = self.current.take()
            && let Err(error) = self.disk.cut(log.path(), self.durable)
        {
            tracing::warn!(%error, "a dead-letter file could not be cut to what is durable of it");
        }
    }

    fn try_sync(&mut self) -> io::Result<()> {
        if let Some((_, log)) = &mut self.current {
            log.sync()?;
            self.durable = log.length();
            if self.fresh {
                self.disk.sync_directory(&self.layout.dead_directory())?;
                self.fresh = false;
            }
        }
        Ok(())
    }

    /// Ends the file at hand if it is this one.
    pub fn leave(&mut self, number: u32) {
        self.current.take_if(|(current, _)| *current == number);
    }

    /// Ends the file at hand when it is full.
    pub fn roll(&mut self) {
        if self
            .current
            .as_ref()
            .is_some_and(|(_, log)| log.length() >= self.roll_at)
        {
            self.current = None;
        }
    }
}

/// Reads the record of this name.
///
/// # Errors
/// It cannot be read, or it is damaged, or its file is gone.
pub(in crate::outbox) fn read_letter(
    disk: &Disk,
    layout: &Layout,
    keys: &Keyring,
    name: Name,
    place: DeadPlace,
) -> Result<LetterRecord, ReadError> {
    let file = ReadFile::open(disk, &layout.dead(place.file))?;
    file.twice(|file| {
        let record = read_record(file, place.offset, place.length, name, keys)?;
        let meta = DeadMeta::decode(&record)?;
        Ok(LetterRecord { record, meta })
    })
}
