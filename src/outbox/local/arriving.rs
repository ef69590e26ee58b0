//! A fresh outbox that is filled with what was carried from elsewhere. What is sealed stays as it is.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::sync::Arc;

use crate::model::{DeliveryId, DestinationId};
use crate::outbox::attempt_row::AttemptRow;
use crate::outbox::bits::{Bits, CHUNK, encode_bytes};
use crate::outbox::carried::{CarriedAccount, CarriedDelivery, CarriedLetter, CarriedWebhook};
use crate::outbox::delivery::{Info, Tally};
use crate::outbox::error::{Error, OpenError};
use crate::outbox::local::files::disk::Disk;
use crate::outbox::local::files::format::{Commit, FileKind, Footer, Header, Place};
use crate::outbox::local::files::layout::{Layout, Lock};
use crate::outbox::local::files::segment::{AppendError, LogWriter, SegmentWriter};
use crate::outbox::local::state::rows::{
    Account, Counters, DeadFileRow, DeliveryRow, Key, Letter, Meta, SegmentRow, Webhook,
};
use crate::outbox::local::state::store::Store;
use crate::outbox::note::Note;
use crate::outbox::settings::Settings;
use crate::seal::{KeyId, Keyring};

/// Rows of the state that are written at once.
const TOGETHER: usize = 4096;

/// See the module.
pub(in crate::outbox) struct Arriving {
    settings: Settings,
    disk: Disk,
    layout: Layout,
    store: Store,
    rows: Vec<(Key, Vec<u8>)>,
    /// The position of each delivery.
    positions: BTreeMap<DeliveryId, u64>,
    /// The position of the last delivery of each destination.
    newest: BTreeMap<DestinationId, u64>,
    dead: Option<DeadFile>,
    dead_files: u32,
    _lock: Lock,
}

struct DeadFile {
    number: u32,
    key: KeyId,
    log: LogWriter,
}

impl Arriving {
    /// In a directory that is not there yet.
    pub fn new(path: &Path, keys: Arc<Keyring>) -> Result<Self, OpenError> {
        let settings = Settings::new(path, keys);
        let (disk, layout) = (Disk::default(), Layout::new(path));
        let lock = layout.enter(&disk)?;
        let store = Store::open(&layout.state(), &disk, settings.state_bytes);
        Ok(Self {
            store: store.map_err(|error| error.at(path))?,
            settings,
            disk,
            layout,
            rows: Vec::new(),
            positions: BTreeMap::new(),
            newest: BTreeMap::new(),
            dead: None,
            dead_files: 0,
            _lock: lock,
        })
    }

    /// Adds a delivery at this position, with the requests that `fill` puts into it, in their order.
    pub fn delivery(
        &mut self,
        carried: &CarriedDelivery,
        position: u64,
        rejected: &[Vec<u8>],
        fill: impl FnOnce(&mut Requests<'_>) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let id = carried.info.id;
        let mut requests = Requests {
            into: self,
            carried,
            writer: None,
            settled: Vec::new(),
            weight: Tally::default(),
            segments: Vec::new(),
        };
        if carried.requests_left() > 0 {
            fill(&mut requests)?;
            requests.end(position)?;
        }
        for (row, settled) in requests.segments {
            let number = row.summary.number;
            for chunk in 0..row.summary.entries.div_ceil(CHUNK) {
                let bytes = settled.chunk(chunk);
                if bytes.iter().any(|byte| *byte != 0) {
                    self.put(Key::Bits(position, number, chunk), encode_bytes(bytes))?;
                }
            }
            self.put(Key::Segment(position, number), row.encode())?;
        }
        self.rejected(carried, rejected)?;
        if carried.held {
            let mark = self.layout.held(id);
            let made = self.disk.create(&mark);
            made.and_then(|file| self.disk.sync(&file, &mark))
                .map_err(failed("a delivery could not be held"))?;
        }
        let row = DeliveryRow {
            info: Arc::clone(&carried.info),
            totals: carried.totals.clone(),
            committed: carried.committed,
            kept: Some(rejected.len() as u32),
        };
        self.put(Key::Delivery(position), row.encode())?;
        if carried.counters != Counters::default() {
            self.put(Key::Counters(position), carried.counters.encode())?;
        }
        self.positions.insert(id, position);
        self.newest.insert(carried.info.destination, position);
        Ok(())
    }

    fn rejected(&mut self, carried: &CarriedDelivery, records: &[Vec<u8>]) -> Result<(), Error> {
        if records.is_empty() {
            return Ok(());
        }
        let path = self.layout.rejected(carried.info.id);
        let header = self.header(FileKind::Rejected, carried.key, Some(&carried.info));
        let commit = Commit {
            position: 0,
            committed: carried.committed,
            segments: 0,
            totals: carried.totals.clone(),
        };
        (|| {
            let mut log = LogWriter::create(&self.disk, path, &header, &self.settings.keys)?;
            for record in records {
                log.copy(record)?;
            }
            log.finish(&Footer {
                commit: Some(commit),
                erased: Tally {
                    rows: carried.counters.erased_rejected,
                    batches: 0,
                },
                ..Footer::default()
            })
        })()
        .map_err(failed("rejected rows could not be written"))
    }

    /// Adds a letter of a delivery that is there, with its turn if it waits.
    pub fn letter(
        &mut self,
        carried: &CarriedLetter,
        record: &[u8],
        key: KeyId,
        queued: Option<u64>,
    ) -> Result<(), Error> {
        let Some(&position) = self.positions.get(&carried.delivery) else {
            return Err(Error::Damaged {
                what: format!("dead letter {} has no delivery", carried.id).into(),
            });
        };
        let place = self.append_dead(record, key);
        let (file, offset, length) = place.map_err(failed("a dead letter could not be written"))?;
        let row = Letter {
            position,
            file,
            offset,
            length,
            ordinal: carried.ordinal,
            live: carried.live.clone(),
            tally: carried.tally,
            queued,
        };
        self.put(Key::Letter(carried.id), row.encode())
    }

    fn append_dead(&mut self, record: &[u8], key: KeyId) -> io::Result<(u32, u64, u32)> {
        let full =
            |file: &DeadFile| file.key != key || file.log.length() >= self.settings.segment_bytes;
        if self.dead.as_ref().is_some_and(full) {
            self.end_dead()?;
        }
        if self.dead.is_none() {
            let number = self.dead_files;
            let header = Header {
                number,
                ..self.header(FileKind::Dead, key, None)
            };
            let path = self.layout.dead(number);
            let log = LogWriter::create(&self.disk, path, &header, &self.settings.keys)?;
            self.dead_files += 1;
            self.dead = Some(DeadFile { number, key, log });
        }
        let Some(file) = &mut self.dead else {
            return Err(io::Error::other("there is no file of dead letters"));
        };
        let offset = file.log.copy(record)?;
        let length = u32::try_from(record.len()).map_err(io::Error::other)?;
        Ok((file.number, offset, length))
    }

    fn end_dead(&mut self) -> io::Result<()> {
        let Some(mut file) = self.dead.take() else {
            return Ok(());
        };
        file.log.sync()?;
        let row = DeadFileRow {
            length: file.log.length(),
            damaged: false,
        };
        self.rows.push((Key::DeadFile(file.number), row.encode()));
        Ok(())
    }

    /// Adds the rest, and makes all of it durable.
    pub fn end(
        mut self,
        accounts: &[CarriedAccount],
        notes: &[Note],
        webhooks: &[CarriedWebhook],
        attempts: &[Arc<AttemptRow>],
        next: Meta,
    ) -> Result<(), Error> {
        self.end_dead()
            .map_err(failed("dead letters could not be synced"))?;
        for account in accounts {
            let position = self.newest.get(&account.destination);
            let row = Account {
                position: position.copied().unwrap_or_default(),
                label: account.label.clone(),
                sealed: Arc::clone(&account.sealed),
            };
            self.put(Key::Account(account.destination), row.encode())?;
        }
        for ((destination, topic), text) in notes {
            self.put(Key::Note(*destination, *topic), encode_bytes(text))?;
        }
        for hook in webhooks {
            let row = Webhook {
                delivery: hook.delivery,
                rows: hook.rows,
                committed: hook.committed,
            };
            self.put(Key::Webhook(hook.key), row.encode())?;
        }
        for attempt in attempts {
            self.put(Key::Attempt(attempt.id()), attempt.encode())?;
        }
        self.put(Key::Meta, next.encode())?;
        self.flush()?;
        for directory in [
            self.layout.segments(),
            self.layout.dead_directory(),
            self.layout.rejected_directory(),
        ] {
            let synced = self.disk.sync_directory(&directory);
            synced.map_err(failed("a directory could not be synced"))?;
        }
        Ok(())
    }

    fn put(&mut self, key: Key, row: Vec<u8>) -> Result<(), Error> {
        self.rows.push((key, row));
        match self.rows.len() < TOGETHER {
            true => Ok(()),
            false => self.flush(),
        }
    }

    fn flush(&mut self) -> Result<(), Error> {
        let mut batch = sled::Batch::default();
        for (key, row) in self.rows.drain(..) {
            batch.insert(key.encode(), row);
        }
        self.store.apply(batch).map_err(|error| Error::State {
            source: Arc::new(error),
        })
    }

    fn header(&self, kind: FileKind, key: KeyId, info: Option<&Arc<Info>>) -> Header {
        Header {
            kind,
            number: 0,
            first: 0,
            key,
            info: info.map(|info| (**info).clone()),
        }
    }
}

/// The requests of a delivery on their way into its segments: a segment holds requests that follow each
/// other, and those that are in none have settled.
pub(in crate::outbox) struct Requests<'a> {
    into: &'a mut Arriving,
    carried: &'a CarriedDelivery,
    writer: Option<SegmentWriter>,
    /// Of the segment at hand: which have settled, and what these weigh.
    settled: Vec<bool>,
    weight: Tally,
    segments: Vec<(SegmentRow, Bits)>,
}

impl Requests<'_> {
    /// A sealed request, which may have settled. They come in their order.
    pub fn entry(&mut self, ordinal: u32, record: &[u8], tally: Tally) -> Result<(), Error> {
        let most = self.into.settings.segment_bytes;
        let ends =
            |writer: &SegmentWriter| writer.length() >= most || writer.next_ordinal() != ordinal;
        if self.writer.as_ref().is_some_and(ends) {
            self.finish(None)?;
        }
        let narrow = |number: u64| u32::try_from(number).unwrap_or(u32::MAX);
        let place = Place {
            offset: 0,
            length: narrow(record.len() as u64),
            batches: narrow(tally.batches),
            rows: narrow(tally.rows),
        };
        self.writer(ordinal)?
            .copy(place, record)
            .map_err(|error| match error {
                AppendError::Io(error) => failed("a request could not be written")(error),
                AppendError::TooLarge => Error::TooLarge {
                    what: "a segment",
                    limit: u32::MAX as usize,
                },
            })?;
        let settled = self.carried.settled.get(ordinal);
        if settled {
            self.weight += tally;
        }
        self.settled.push(settled);
        Ok(())
    }

    fn end(&mut self, position: u64) -> Result<(), Error> {
        let commit = Commit {
            position,
            committed: self.carried.committed,
            segments: self.segments.len() as u32 + 1,
            totals: self.carried.totals.clone(),
        };
        self.finish(Some(commit))
    }

    /// The segment at hand, or one that begins with this request.
    fn writer(&mut self, first: u32) -> Result<&mut SegmentWriter, Error> {
        let info = &self.carried.info;
        let number = self.segments.len() as u32;
        match &mut self.writer {
            Some(writer) => Ok(writer),
            none => {
                let header = Header {
                    number,
                    first,
                    ..self
                        .into
                        .header(FileKind::Segment, self.carried.key, Some(info))
                };
                let path = self.into.layout.segment(info.id, number);
                let (disk, keys) = (&self.into.disk, &self.into.settings.keys);
                let writer = SegmentWriter::create(disk, path, info.id, &header, keys)
                    .map_err(failed("a segment could not be made"))?;
                Ok(none.insert(writer))
            }
        }
    }

    fn finish(&mut self, commit: Option<Commit>) -> Result<(), Error> {
        let Some(mut writer) = self.writer.take() else {
            return Ok(());
        };
        let summary = writer
            .finish(commit)
            .map_err(failed("a segment could not be synced"))?;
        let mut settled = Bits::none(summary.entries);
        for (at, done) in (0..).zip(self.settled.drain(..)) {
            settled.set(at, done);
        }
        let row = SegmentRow {
            summary,
            settled_entries: settled.count(),
            settled: std::mem::take(&mut self.weight),
            damaged: false,
        };
        self.segments.push((row, settled));
        Ok(())
    }
}

fn failed(doing: &'static str) -> impl Fn(io::Error) -> Error {
    Error::io(doing)
}
