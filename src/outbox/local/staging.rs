//! A delivery on its way into the outbox: visible to nobody until it is committed, gone whole
//! when it is not.

use std::sync::Arc;

use crate::model::DeliveryId;
use crate::outbox::delivery::NewDelivery;
use crate::outbox::delivery::{Info, Receipt, Totals};
use crate::outbox::entry::{Appended, Entry, Given};
use crate::outbox::error::Error;
use crate::outbox::local::files::format::{Commit, FileKind, Header};
use crate::outbox::local::files::rejected::RejectedWriter;
use crate::outbox::local::files::segment::{AppendError, SegmentWriter, Summary};
use crate::outbox::local::handle::Local;
use crate::outbox::local::owner::command::{Command, Prepared};
use crate::outbox::record::MAX_RAW;
use crate::outbox::rejected::RejectedRow;
use crate::outbox::webhook::WebhookState;

/// Begins to stage a delivery, which may have been reserved.
pub(in crate::outbox) fn begin(local: &Local, new: NewDelivery) -> Result<Staging, Error> {
    let shared = &local.shared;
    shared.admit()?;
    let info = Info::new(new)?;
    let mut index = shared.index();
    let reserved = index.receiving.contains_key(&info.id);
    if let Some(key) = info.webhook.filter(|_| !reserved) {
        match shared.webhook_state(&index, key) {
            WebhookState::Unknown => {}
            known => return Err(Error::Webhook(known)),
        }
    }
    if !index.stage(info.id, info.webhook) {
        return Err(Error::Duplicate(info.id));
    }
    drop(index);
    Ok(Staging::new(local.clone(), info))
}

/// A delivery that has begun. Dropping it aborts it.
#[derive(Debug)]
pub(in crate::outbox) struct Staging {
    local: Local,
    info: Arc<Info>,
    /// Segments that are full, on the disk with their footers.
    full: Vec<Summary>,
    writer: Option<SegmentWriter>,
    rejected: Option<RejectedWriter>,
    given: Given,
    /// Bytes that the capacity counts for this delivery.
    counted: u64,
    /// Why nothing more is taken.
    failed: Option<Error>,
    committed: bool,
    /// It is to be held once it is committed.
    hold: bool,
}

impl Staging {
    pub(in crate::outbox) fn new(local: Local, info: Info) -> Self {
        Self {
            local,
            info: Arc::new(info),
            full: Vec::new(),
            writer: None,
            rejected: None,
            given: Given::default(),
            counted: 0,
            failed: None,
            committed: false,
            hold: false,
        }
    }

    /// Nothing of the delivery is sent before somebody releases it.
    pub fn hold(&mut self) {
        self.hold = true;
    }

    /// Which delivery this is.
    pub fn id(&self) -> DeliveryId {
        self.info.id
    }

    /// Appends one ready request. Blocks on the disk at times.
    ///
    /// # Errors
    /// The entry is too large (the delivery can go on without it), the outbox or the disk is
    /// full, or the disk failed: then the delivery can only be aborted.
    pub fn append(&mut self, entry: Entry<'_>) -> Result<Appended, Error> {
        self.check_usable()?;
        entry.check()?;
        let appended = self.try_append(entry);
        self.note(appended)
    }

    fn try_append(&mut self, entry: Entry<'_>) -> Result<Appended, Error> {
        let shared = &self.local.shared;
        if self
            .writer
            .as_ref()
            .is_some_and(|writer| writer.length() >= shared.settings.segment_bytes)
        {
            self.roll()?;
        }
        let writer = self.open_writer()?;
        let before = writer.length();
        let (ordinal, bytes) = writer
            .append(entry.route, entry.slices)
            .map_err(append_error("an entry could not be written"))?;
        let grown = writer.length() - before;
        self.given.entries += 1;
        self.given.tally += entry.tally();
        self.count(grown)?;
        Ok(Appended {
            ordinal: u64::from(ordinal),
            bytes: bytes as u64,
        })
    }

    /// Keeps a row that could not be mapped; beyond
    /// [`Settings::rejected_rows`](super::Settings::rejected_rows) it is only counted.
    pub fn reject(&mut self, row: RejectedRow<'_>) -> Result<(), Error> {
        self.check_usable()?;
        let rejected = self.try_reject(row);
        self.note(rejected)
    }

    fn try_reject(&mut self, row: RejectedRow<'_>) -> Result<(), Error> {
        self.given.rejected += 1;
        let shared = &self.local.shared;
        if self.given.rejected > shared.settings.rejected_rows {
            return Ok(());
        }
        let failed = "a rejected row could not be written";
        let writer = match &mut self.rejected {
            Some(writer) => writer,
            none => {
                let writer = RejectedWriter::create(
                    &shared.disk,
                    &shared.layout,
                    &self.info,
                    &shared.settings.keys,
                );
                let writer = writer.map_err(Error::io(failed))?;
                none.insert(writer)
            }
        };
        let before = writer.length();
        writer.append(row).map_err(append_error(failed))?;
        let grown = writer.length() - before;
        self.count(grown)
    }

    /// Makes the delivery durable and visible to the drain. When this returns `Ok` it survives
    /// the loss of power.
    ///
    /// # Errors
    /// The totals do not match what was given, or the disk failed. The delivery is gone then.
    pub fn commit(mut self, totals: Totals) -> Result<Receipt, Error> {
        self.check_usable()?;
        self.given.check(&totals)?;
        let totals = totals.bounded();
        self.open_writer()?;
        let Some(mut writer) = self.writer.take() else {
            return Err(Error::Closed);
        };
        // The files of this delivery are known by their number from here on.
        self.full.push(writer.summary());
        let shared = &self.local.shared;
        let synced = "the delivery could not be synced";
        writer.sync().map_err(Error::io(synced))?;
        if self.hold {
            // Before the directory is synced, so it is durable before the commit is.
            let path = shared.layout.held(self.info.id);
            let mark = shared.disk.create(&path).map_err(Error::io(synced))?;
            shared.disk.sync(&mark, &path).map_err(Error::io(synced))?;
            shared.index().held.insert(self.info.id);
        }
        if let Some(rejected) = &mut self.rejected {
            let commit = Commit {
                position: 0,
                committed: shared.now(),
                segments: 0,
                totals: totals.clone(),
            };
            rejected.finish(commit).map_err(Error::io(synced))?;
            shared
                .disk
                .sync_directory(&shared.layout.rejected_directory())
                .map_err(Error::io(synced))?;
        }
        shared
            .disk
            .sync_directory(&shared.layout.segments())
            .map_err(Error::io(synced))?;
        self.full.pop();
        let prepared = Box::new(Prepared {
            info: Arc::clone(&self.info),
            full: self.full.clone(),
            writer,
            totals,
            kept: self.rejected.as_ref().map_or(0, RejectedWriter::kept),
        });
        self.full.push(prepared.writer.summary());
        let receipt = self.local.ask(|reply| Command::Commit(prepared, reply))?;
        let rejected = self.rejected.as_ref().map_or(0, RejectedWriter::length);
        let capacity = &self.local.shared.capacity;
        capacity.add((receipt.bytes + rejected).saturating_sub(self.counted));
        self.committed = true;
        Ok(receipt)
    }

    fn check_usable(&self) -> Result<(), Error> {
        match &self.failed {
            Some(error) => Err(error.clone()),
            None => self.local.shared.check_healthy(),
        }
    }

    fn open_writer(&mut self) -> Result<&mut SegmentWriter, Error> {
        let shared = &self.local.shared;
        match &mut self.writer {
            Some(writer) => Ok(writer),
            none => {
                let (number, first) = self
                    .full
                    .last()
                    .map_or((0, 0), |last| (last.number + 1, last.first + last.entries));
                let keys = &shared.settings.keys;
                let header = Header {
                    kind: FileKind::Segment,
                    number,
                    first,
                    key: keys.current(),
                    info: Some((*self.info).clone()),
                };
                let (id, path) = (self.info.id, shared.layout.segment(self.info.id, number));
                let writer = SegmentWriter::create(&shared.disk, path, id, &header, keys)
                    .map_err(Error::io("a segment could not be made"))?;
                Ok(none.insert(writer))
            }
        }
    }

    /// Ends the segment at hand, on the disk.
    fn roll(&mut self) -> Result<(), Error> {
        if let Some(writer) = &mut self.writer {
            let finished = writer.finish(None);
            let summary = writer.summary();
            self.full.push(summary);
            self.writer = None;
            finished.map_err(Error::io("a segment could not be synced"))?;
        }
        Ok(())
    }

    fn count(&mut self, grown: u64) -> Result<(), Error> {
        let shared = &self.local.shared;
        shared.capacity.add(grown);
        self.counted += grown;
        shared.capacity.admit_more(&shared.settings, 0)
    }

    fn note<T>(&mut self, result: Result<T, Error>) -> Result<T, Error> {
        if let Err(error) = &result
            && !matches!(error, Error::TooLarge { .. })
        {
            self.failed = Some(error.clone());
        }
        result
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        if self.committed {
            return;
        }
        let shared = &self.local.shared;
        let mut paths: Vec<_> = self
            .full
            .iter()
            .map(|segment| shared.layout.segment(self.info.id, segment.number))
            .collect();
        paths.extend(self.writer.take().map(|writer| writer.path().to_owned()));
        if self.hold {
            shared.index().held.remove(&self.info.id);
            paths.push(shared.layout.held(self.info.id));
        }
        if self.rejected.take().is_some() {
            paths.push(shared.layout.rejected(self.info.id));
        }
        // A closed outbox may be another process's by now, which has removed them at its open.
        paths.retain(|_| !shared.is_closed());
        for path in paths.iter().rev() {
            if let Err(error) = shared.disk.remove(path) {
                tracing::warn!(
                    delivery = %self.info.id,
                    %error,
                    "a file of an aborted delivery could not be removed; the next start removes it"
                );
            }
        }
        shared.capacity.give_back(self.counted);
        shared.index().unstage(self.info.id);
    }
}

fn append_error(doing: &'static str) -> impl Fn(AppendError) -> Error {
    move |error| match error {
        AppendError::TooLarge => Error::TooLarge {
            what: "an entry",
            limit: MAX_RAW,
        },
        AppendError::Io(source) => Error::io(doing)(source),
    }
}
