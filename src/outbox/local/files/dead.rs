//! Dead letters: batches that will not be sent any more unless a person replays them.
//!
//! One record holds the dead slices of one entry, so that a settlement is in the file whole or
//! not at all. It is durable before the state says that the entry has settled; a record that the
//! state does not know (a crash between the two) is taken up at open. Its meta part:
//!
//! ```text
//! delivery 16, destination 16, received 8, label, title, sealed account,
//! replaces 8 (the letter that was replayed, or all ones), route 1 (that of its entry),
//! then for each slice: number in its entry 4, attempts 4, first try 8, last try 8, reason
//! ```
//! Files are never appended to by a later process, and go when their last letter goes.

use std::io;
use std::sync::Arc;

use bytes::Bytes;

use crate::clock::UnixMillis;
use crate::model::{DeliveryId, DestinationId};
use crate::outbox::codec::{Decoder, Encoder, Malformed, cut};
use crate::outbox::delivery::Info;
use crate::outbox::letter::{Dead, DeadLetter, LetterId};
use crate::outbox::local::files::disk::Disk;
use crate::outbox::local::files::format::{FileKind, Header};
use crate::outbox::local::files::layout::Layout;
use crate::outbox::local::files::read::{ReadError, ReadFile};
use crate::outbox::local::files::segment::{AppendError, LogWriter, read_record};
use crate::outbox::record::{Kind, Name, Record, Slice};
use crate::outbox::settings::Settings;
use crate::seal::Keyring;

/// Bytes of a reason that are kept.
pub(in crate::outbox) const MAX_REASON: usize = 1 << 10;
const NONE: u64 = u64::MAX;

/// The meta part of a dead-letter record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::outbox) struct DeadMeta {
    pub delivery: DeliveryId,
    pub destination: DestinationId,
    pub received: UnixMillis,
    pub label: String,
    pub title: String,
    pub account: Arc<[u8]>,
    pub replaces: Option<u64>,
    pub route: u8,
    pub slices: Vec<DeadSlice>,
}

/// What is known of one slice of a dead-letter record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::outbox) struct DeadSlice {
    pub original: u32,
    pub attempts: u32,
    pub first_try: UnixMillis,
    pub last_try: UnixMillis,
    pub reason: String,
}

impl DeadSlice {
    pub fn new(original: u32, dead: &Dead) -> Self {
        Self {
            original,
            attempts: dead.attempts,
            first_try: dead.first_try,
            last_try: dead.last_try,
            reason: cut(&dead.reason, MAX_REASON).to_owned(),
        }
    }
}

impl DeadMeta {
    pub fn new(info: &Info, account: Arc<[u8]>, replaces: Option<u64>, route: u8) -> Self {
        Self {
            delivery: info.id,
            destination: info.destination,
            received: info.received,
            label: info.label.clone(),
            title: info.title.clone(),
            account,
            replaces,
            route,
            slices: Vec::new(),
        }
    }

    pub fn encode(&self) -> Vec<u8> {
        let mut out = Encoder::default();
        out.raw(&self.delivery.0)
            .raw(&self.destination.0)
            .time(self.received)
            .text(&self.label)
            .text(&self.title)
            .blob(&self.account)
            .u64(self.replaces.unwrap_or(NONE))
            .u8(self.route);
        for slice in &self.slices {
            out.u32(slice.original)
                .u32(slice.attempts)
                .time(slice.first_try)
                .time(slice.last_try)
                .text(&slice.reason);
        }
        out.bytes
    }

    /// Reads the meta part of `record`; there is one slice here for each there.
    pub fn decode(record: &Record) -> Result<Self, Malformed> {
        let mut read = Decoder::new(&record.meta);
        let mut meta = Self {
            delivery: DeliveryId(read.array()?),
            destination: DestinationId(read.array()?),
            received: read.time()?,
            label: read.text()?,
            title: read.text()?,
            account: read.blob()?.into(),
            replaces: Some(read.u64()?).filter(|id| *id != NONE),
            route: read.u8()?,
            slices: Vec::new(),
        };
        for _ in &record.slices {
            meta.slices.push(DeadSlice {
                original: read.u32()?,
                attempts: read.u32()?,
                first_try: read.time()?,
                last_try: read.time()?,
                reason: read.text()?,
            });
        }
        read.end()?;
        if (record.name.kind, record.name.delivery) != (Kind::Dead, meta.delivery) {
            return Err(Malformed);
        }
        Ok(meta)
    }
}

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

/// A dead-letter record, read back.
pub(in crate::outbox) struct LetterRecord {
    pub record: Record,
    pub meta: DeadMeta,
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

impl LetterRecord {
    /// One slice of it as the API shows it, with its payload.
    pub fn slice(&self, id: LetterId) -> Option<(DeadLetter, Bytes)> {
        let at = id.slice as usize;
        let (slice, payload) = (self.meta.slices.get(at)?, self.record.slices.get(at)?);
        let letter = DeadLetter {
            id,
            delivery: self.meta.delivery,
            destination: self.meta.destination,
            route: self.meta.route,
            rows: self.record.rows.get(at).copied()?,
            bytes: payload.len() as u64,
            reason: slice.reason.clone(),
            attempts: slice.attempts,
            first_try: slice.first_try,
            last_try: slice.last_try,
        };
        Some((letter, payload.clone()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outbox::record::{self, Frame};

    #[test]
    fn letter_ids_print_and_parse_back() {
        let id = LetterId {
            letter: 17,
            slice: 3,
        };
        assert_eq!(id.to_string(), "17-3");
        assert_eq!("17-3".parse::<LetterId>().unwrap(), id);
        for bad in ["", "17", "17-", "-3", "a-b", "1-2-3"] {
            assert!(bad.parse::<LetterId>().is_err(), "{bad}");
        }
    }

    #[test]
    fn the_meta_part_comes_back() {
        let meta = DeadMeta {
            delivery: DeliveryId([1; 16]),
            destination: DestinationId([2; 16]),
            received: UnixMillis(3),
            label: "label".to_owned(),
            title: "title".to_owned(),
            account: Arc::from(*b"sealed"),
            replaces: Some(4),
            route: 9,
            slices: vec![DeadSlice {
                original: 5,
                attempts: 6,
                first_try: UnixMillis(7),
                last_try: UnixMillis(8),
                reason: "reason".to_owned(),
            }],
        };
        let slices = [Slice {
            bytes: b"payload",
            rows: 1,
        }];
        let keys = Keyring::ephemeral().unwrap();
        let written = |delivery| {
            let name = Name {
                kind: Kind::Dead,
                delivery,
                ordinal: 9,
            };
            let (mut bytes, mut sealer) = (Vec::new(), keys.sealer().unwrap());
            record::encode(&mut bytes, &mut sealer, name, &meta.encode(), &slices).unwrap();
            Frame::decode(&bytes).unwrap().open(&keys).unwrap()
        };
        assert_eq!(
            DeadMeta::decode(&written(meta.delivery)).as_ref(),
            Ok(&meta)
        );
        // The record says so in the clear, and its text says otherwise.
        let other = DeliveryId([7; 16]);
        assert_eq!(DeadMeta::decode(&written(other)), Err(Malformed));
    }
}
