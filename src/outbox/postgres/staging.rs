//! A delivery on its way in: visible to nobody until it is committed, gone whole when it is not.
//!
//! Blocks go to the server as they fill, each few in a small statement of their own, which does not
//! wait for any disk: the statement that makes the delivery visible does, and goes through only if
//! all blocks are there. A delivery whose daemon is silent is aborted and removed by any other.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, sync_channel};
use std::time::Duration;

use super::blocks::Block;
use super::commit::{ABORT, BLOCKS, Flip, REJECTS, begin, store};
use super::daemon::{BEAT, Inner, database};
use super::handle::SharedOutbox;
use super::lock::lock;
use super::new_letter::encode_error;
use super::session::Tries;
use crate::model::DeliveryId;
use crate::outbox::delivery::{Info, NewDelivery, Receipt, Tally, Totals};
use crate::outbox::entry::{Appended, Entry, Given};
use crate::outbox::error::Error;
use crate::outbox::record::{Kind, Name, encode};
use crate::outbox::rejected::RejectedRow;
use crate::outbox::status::Health;
use crate::seal::Sealer;

/// Bytes of blocks that one statement carries, about.
const TOGETHER: usize = 1 << 20;
/// Bytes of rejected rows that are kept of a delivery.
const MAX_REJECTED: u64 = 64 << 20;
/// How long a write may take that only finds out whether one is possible.
const TRYING: Duration = Duration::from_secs(3);
/// How long a caller waits for an abort; what is not aborted by then is later.
const ABORTING: Duration = Duration::from_secs(5);

/// A delivery that has begun. Dropping it aborts it.
#[derive(Debug)]
pub(in crate::outbox) struct Staging {
    outbox: SharedOutbox,
    info: Arc<Info>,
    sealer: Sealer,
    block: Block,
    full: Vec<Block>,
    full_bytes: usize,
    sending: Option<Receiver<Result<(), Error>>>,
    rejects: Block,
    rejected_kept: u64,
    rejected_bytes: u64,
    given: Given,
    blocks: u64,
    bytes: u64,
    scratch: Vec<u8>,
    held: bool,
    failed: Option<Error>,
    committed: bool,
}

impl SharedOutbox {
    /// Whether a delivery that began now would be taken.
    ///
    /// # Errors
    /// The outbox is full, or the server takes no writes.
    pub fn admit(&self) -> Result<(), Error> {
        self.inner.admit()
    }

    /// Whether a delivery that began now could be written down, found out by a write.
    pub fn try_writing(&self) -> Result<(), Error> {
        self.inner.admit()?;
        let inner = Arc::clone(&self.inner);
        self.run(async move {
            let params: super::session::Params<'_> = &[&&inner.me[..], &inner.settings.name];
            let written = inner
                .sessions
                .run(BEAT, params, Tries::UntilKnown, TRYING)
                .await;
            let written = written
                .map(drop)
                .map_err(|fault| database("it does not take a write now", &fault));
            if written.is_err() {
                inner.seen(&written);
            }
            written
        })
    }

    /// Begins a delivery.
    ///
    /// # Errors
    /// The outbox is full, the server cannot be asked, or the delivery or its webhook id is known
    /// already.
    pub fn begin(&self, new: NewDelivery) -> Result<Staging, Error> {
        self.inner.admit()?;
        let info = Arc::new(Info::new(new)?);
        if !lock(&self.inner.staging).insert(info.id) {
            return Err(Error::Duplicate(info.id));
        }
        let (inner, begun) = (Arc::clone(&self.inner), Arc::clone(&info));
        let begun = self.run(async move { begin(&inner, &begun).await });
        if let Err(error) = begun {
            lock(&self.inner.staging).remove(&info.id);
            return Err(error);
        }
        Ok(Staging {
            outbox: self.clone(),
            sealer: self.inner.sealer()?,
            info,
            block: Block::default(),
            full: Vec::new(),
            full_bytes: 0,
            sending: None,
            rejects: Block::default(),
            rejected_kept: 0,
            rejected_bytes: 0,
            given: Given::default(),
            blocks: 0,
            bytes: 0,
            scratch: Vec::new(),
            held: false,
            failed: None,
            committed: false,
        })
    }
}

impl Staging {
    /// Which delivery this is.
    pub fn id(&self) -> DeliveryId {
        self.info.id
    }

    /// Nothing of the delivery is sent before somebody releases it.
    pub fn hold(&mut self) {
        self.held = true;
    }

    /// Appends one ready request. Blocks on the server at times.
    ///
    /// # Errors
    /// The entry is too large (the delivery can go on without it), the outbox is full, or the server
    /// has failed: then the delivery can only be aborted.
    pub fn append(&mut self, entry: Entry<'_>) -> Result<Appended, Error> {
        self.check_usable()?;
        entry.check()?;
        let appended = self.try_append(entry);
        self.note(appended)
    }

    fn try_append(&mut self, entry: Entry<'_>) -> Result<Appended, Error> {
        let ordinal = u32::try_from(self.given.entries).map_err(|_| Error::TooLarge {
            what: "the number of requests of a delivery",
            limit: u32::MAX as usize,
        })?;
        let name = Name {
            kind: Kind::Entry,
            delivery: self.info.id,
            ordinal,
        };
        self.scratch.clear();
        encode(
            &mut self.scratch,
            &mut self.sealer,
            name,
            &[entry.route],
            entry.slices,
        )
        .map_err(|error| encode_error("an entry", error))?;
        let tally = entry.tally();
        let length = self.scratch.len() as u64;
        if let Some(full) = self.block.push(&self.scratch, tally) {
            self.push(full)?;
        }
        self.given.entries += 1;
        self.given.tally += tally;
        self.count(length)?;
        Ok(Appended {
            ordinal: u64::from(ordinal),
            bytes: length,
        })
    }

    /// Keeps a row that could not be mapped; beyond [`Settings::rejected_rows`](super::Settings) it is
    /// only counted.
    ///
    /// # Errors
    /// As for [`Staging::append`].
    pub fn reject(&mut self, row: RejectedRow<'_>) -> Result<(), Error> {
        self.check_usable()?;
        let rejected = self.try_reject(row);
        self.note(rejected)
    }

    fn try_reject(&mut self, row: RejectedRow<'_>) -> Result<(), Error> {
        self.given.rejected += 1;
        let most = self.outbox.inner.settings.rejected_rows;
        if self.given.rejected > most || self.rejected_bytes >= MAX_REJECTED {
            return Ok(());
        }
        let name = Name {
            kind: Kind::Rejected,
            delivery: self.info.id,
            ordinal: self.rejected_kept as u32,
        };
        self.scratch.clear();
        encode(
            &mut self.scratch,
            &mut self.sealer,
            name,
            &row.meta(),
            &[row.slice()],
        )
        .map_err(|error| encode_error("a rejected row", error))?;
        self.rejected_kept += 1;
        self.rejected_bytes += self.scratch.len() as u64;
        let length = self.scratch.len() as u64;
        if let Some(full) = self.rejects.push(&self.scratch, Tally::default()) {
            self.send(Vec::new(), vec![full])?;
        }
        self.count(length)
    }

    /// Makes the delivery durable and visible. When this returns `Ok`, it is as durable as the server
    /// makes anything.
    ///
    /// # Errors
    /// The totals do not match what was given, or the server failed: the delivery is gone then, or, if
    /// the server has stayed away for so long that it is not known, goes as soon as it is back,
    /// unless it was visible already.
    pub fn commit(mut self, totals: Totals) -> Result<Receipt, Error> {
        let committed = self.try_commit(totals);
        match &committed {
            Ok(_) => self.committed = true,
            Err(_) => self.abort(),
        }
        committed
    }

    fn try_commit(&mut self, totals: Totals) -> Result<Receipt, Error> {
        self.check_usable()?;
        self.given.check(&totals)?;
        let totals = totals.bounded();
        let mut last = std::mem::take(&mut self.full);
        last.push(std::mem::take(&mut self.block));
        last.retain(|block| block.entries > 0);
        self.blocks += last.len() as u64;
        let rejects = std::mem::take(&mut self.rejects);
        let rejects: Vec<Block> = Some(rejects)
            .filter(|block| block.entries > 0)
            .into_iter()
            .collect();
        if !last.is_empty() || !rejects.is_empty() {
            self.send(last, rejects)?;
        }
        self.wait()?;
        let flip = Flip {
            info: Arc::clone(&self.info),
            blocks: self.blocks,
            entries: self.given.entries,
            kept: self.rejected_kept,
            bytes: self.bytes,
            held: self.held,
            totals,
        };
        let inner = Arc::clone(&self.outbox.inner);
        let receipt = self.outbox.run(async move { flip.run(&inner).await })?;
        self.outbox.inner.received(self.info.id);
        let held = self
            .outbox
            .inner
            .held()
            .get(&self.info.destination)
            .cloned();
        if let Some(held) = held {
            held.stale.store(true, Ordering::Release);
        }
        self.outbox.inner.wake();
        Ok(receipt)
    }

    /// Ends the delivery without a trace. Dropping it does so too, a little later.
    pub fn abort(self) {
        let inner = Arc::clone(&self.outbox.inner);
        let (id, outbox) = (self.info.id, self.outbox.clone());
        drop(self);
        let aborted = outbox.run(async move {
            let aborted = inner
                .sessions
                .run(
                    ABORT,
                    &[&&id.0[..], &&inner.me[..]],
                    Tries::UntilKnown,
                    ABORTING,
                )
                .await;
            aborted.map_err(|fault| database("a delivery could not be aborted", &fault))
        });
        if aborted.is_ok() {
            lock(&outbox.inner.aborting).retain(|other| *other != id);
        }
    }

    fn check_usable(&self) -> Result<(), Error> {
        match &self.failed {
            Some(error) => Err(error.clone()),
            None if !self.outbox.is_alive() => Err(Error::Closed),
            None => Ok(()),
        }
    }

    fn push(&mut self, full: Block) -> Result<(), Error> {
        self.full_bytes += full.size();
        self.full.push(full);
        if self.full_bytes < TOGETHER {
            return Ok(());
        }
        self.full_bytes = 0;
        self.blocks += self.full.len() as u64;
        let full = std::mem::take(&mut self.full);
        self.send(full, Vec::new())
    }

    /// Sends blocks while more are made: one statement at a time.
    fn send(&mut self, blocks: Vec<Block>, rejects: Vec<Block>) -> Result<(), Error> {
        self.wait()?;
        let (reply, answer) = sync_channel(1);
        let (inner, id) = (Arc::clone(&self.outbox.inner), self.info.id);
        // Waited for before the next one, and before the commit; it ends by its deadlines.
        drop(self.outbox.runner.handle.spawn(async move {
            let stored = async {
                store(&inner, id, BLOCKS, &blocks).await?;
                store(&inner, id, REJECTS, &rejects).await
            };
            let _ = reply.send(stored.await);
        }));
        self.sending = Some(answer);
        Ok(())
    }

    fn wait(&mut self) -> Result<(), Error> {
        match self.sending.take() {
            Some(answer) => answer.recv().map_err(|_| Error::Closed)?,
            None => Ok(()),
        }
    }

    fn count(&mut self, grown: u64) -> Result<(), Error> {
        self.bytes += grown;
        let inner = &self.outbox.inner;
        inner.staged.fetch_add(grown, Ordering::Relaxed);
        inner.check_room()
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
        let inner = &self.outbox.inner;
        let staged = &inner.staged;
        // It cannot fail: the closure always has a value.
        let _ = staged.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |staged| {
            Some(staged.saturating_sub(self.bytes))
        });
        if self.committed {
            inner.used.fetch_add(self.bytes, Ordering::Relaxed);
        } else {
            lock(&inner.aborting).push(self.info.id);
        }
        lock(&inner.staging).remove(&self.info.id);
        inner.nudge.notify_one();
    }
}

impl Inner {
    pub fn admit(&self) -> Result<(), Error> {
        if self.is_closed() {
            return Err(Error::Closed);
        }
        if let Health::RefusingWrites { what, .. } = self.health() {
            return Err(Error::Away { why: what });
        }
        self.check_replicated()?;
        self.check_room()
    }

    fn check_replicated(&self) -> Result<(), Error> {
        match &*lock(&self.facts) {
            Some(facts) if !self.settings.allow_unreplicated && !facts.is_replicated() => {
                Err(Error::Unreplicated {
                    facts: facts.to_string().into(),
                })
            }
            _ => Ok(()),
        }
    }

    fn check_room(&self) -> Result<(), Error> {
        let used = self.used.load(Ordering::Relaxed) + self.staged.load(Ordering::Relaxed);
        match self.settings.max_bytes {
            Some(limit) if used >= limit => Err(Error::Full { used, limit }),
            _ => Ok(()),
        }
    }
}
