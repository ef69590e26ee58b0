//! Looking for somebody in a shared outbox, and erasing them. Any daemon searches: it reads all that lies on the
//! server, piece by piece. What it finds is written anew by the owner of its destination
//! ([`rewriting`](super::rewriting)); rejected rows by itself ([`rejects`](super::rejects)).
//!
//! What a settled delivery leaves in its blocks is deleted. Row versions that the server has replaced are
//! sealed, and go with its next vacuum.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;
use std::time::Duration;

use tokio_postgres::Row;

use super::action::{Action, Hit, Removed};
use super::blocks::{Block, Unreadable};
use super::columns::{column, count, read_id};
use super::handle::SharedOutbox;
use super::held::Letter;
use super::marks::Marks;
use super::read::{Read, read_body};
use super::rewriting::one;
use super::session::Tries;
use crate::model::{DeliveryId, DestinationId};
use crate::outbox::dead::LetterRecord;
use crate::outbox::erase::{Erased, Matcher, Occurrence, Scan};
use crate::outbox::error::Error;

/// Between two looks whether what flies has landed: at first, and at most.
const LOOKS: [Duration; 2] = [Duration::from_millis(100), Duration::from_secs(5)];
/// Letters that one request names at most.
const LETTERS: usize = 16;
const READING: &str = "what lies in the outbox could not be read";

macro_rules! blocks {
    ($which:literal) => {
        concat!(
            "SELECT b.delivery, p.destination, p.open, p.frontier, p.beyond, b.first, b.entries,
                b.places, b.body
             FROM looker_feed.block b JOIN looker_feed.progress p ON p.delivery = b.delivery ",
            $which
        )
    };
}
const NEXT: &str = blocks!(
    "WHERE (b.delivery, b.first) > ($1, $2) AND ($3::bytea[] IS NULL OR b.delivery = ANY($3))
     ORDER BY b.delivery, b.first LIMIT 4"
);
const ONE: &str = blocks!("WHERE b.delivery = $1 AND b.first = $2");
const LETTER: &str =
    "SELECT id AS letter, destination, delivery, ordinal, live, rows, batches, queued, body
     FROM looker_feed.letter WHERE id > $1 ORDER BY id LIMIT 16";
const BYTES: &str = "SELECT ((SELECT coalesce(sum(octet_length(body)), 0) FROM looker_feed.block)
        + (SELECT coalesce(sum(octet_length(body)), 0) FROM looker_feed.letter)
        + (SELECT coalesce(sum(octet_length(body)), 0) FROM looker_feed.reject))::int8 AS bytes";
const ARRIVING: &str = "SELECT id FROM looker_feed.delivery WHERE state = 0
     UNION SELECT id FROM looker_feed.attempt WHERE ended IS NULL";
/// Of a delivery that has settled.
const DROP: &str = "DELETE FROM looker_feed.block b USING looker_feed.progress p
     WHERE b.delivery = $1 AND b.first = $2 AND p.delivery = b.delivery AND NOT p.open RETURNING 1";

/// A block as it lies on the server, with what is known of its delivery.
struct StoredBlock {
    delivery: DeliveryId,
    destination: DestinationId,
    open: bool,
    marks: Marks,
    block: Block,
}

/// Something of a delivery that lies on the server among others of its kind.
pub(super) trait Piece: Sized + Send + 'static {
    /// Reads the next ones behind a delivery ($1) and a place in it ($2), of all deliveries or of these ($3).
    const NEXT: &'static str;
    /// What is said when that fails.
    const READING: &'static str;

    fn read(row: &Row) -> Result<Self, Error>;

    fn place(&self) -> (DeliveryId, i64);

    fn body(&self) -> &[u8];
}

/// A letter as it lies on the server.
struct StoredLetter {
    id: u64,
    destination: DestinationId,
    letter: Letter,
    body: Vec<u8>,
}

/// Whom is looked for, and how far it is.
#[derive(Clone, Copy)]
struct Search<'a> {
    matcher: &'a dyn Matcher,
    scan: &'a Scan,
    give_back: &'a dyn Fn(DestinationId, DeliveryId),
}

impl SharedOutbox {
    /// See [`Outbox::find`](crate::outbox::Outbox::find). What other daemons send now counts as waiting.
    pub fn find(&self, matcher: &dyn Matcher, scan: &Scan) -> Result<Vec<Occurrence>, Error> {
        scan.will_read(self.bytes()?);
        let mut found: BTreeMap<DeliveryId, Occurrence> = BTreeMap::new();
        let at =
            |found: &mut BTreeMap<DeliveryId, Occurrence>, id, add: &dyn Fn(&mut Occurrence)| {
                add(found.entry(id).or_insert_with(|| Occurrence::none(id)));
            };
        // Letters first, since what died is in its block too as long as that is there.
        let mut dead = HashSet::new();
        self.each_letter(scan, |stored| {
            let Some(read) = self.read_letter(&stored)? else {
                return Ok(());
            };
            let (id, letter) = (stored.letter.delivery, &stored.letter);
            let flies = self.flies(stored.destination, |flight| {
                flight.letters.contains_key(&stored.id)
            });
            for (bytes, rows, meta) in read.live(&letter.live) {
                dead.insert((id, u64::from(letter.ordinal), meta.original));
                if matcher.batch(bytes) {
                    at(&mut found, id, &|one_of| match (letter.queued, flies) {
                        (None, _) => one_of.dead += one(rows),
                        (Some(_), true) => one_of.in_flight += one(rows),
                        (Some(_), false) => one_of.waiting += one(rows),
                    });
                }
            }
            Ok(())
        })?;
        self.each_piece(None, scan, |stored: StoredBlock| {
            let id = stored.delivery;
            self.search(&stored, matcher, |ordinal, _, meant| {
                let settled = !stored.open || stored.marks.get(ordinal);
                let flies = self.flies(stored.destination, |flight| {
                    let flying = flight.deliveries.get(&id);
                    flying.is_some_and(|flying| flying.claimed.contains_key(&ordinal))
                });
                for (slice, rows) in meant {
                    match (settled, flies) {
                        (true, _) if dead.contains(&(id, ordinal, slice)) => {}
                        (true, _) => at(&mut found, id, &|this| this.decided += one(rows)),
                        (_, true) => at(&mut found, id, &|this| this.in_flight += one(rows)),
                        (_, false) => at(&mut found, id, &|this| this.waiting += one(rows)),
                    }
                }
            })
        })?;
        self.find_rejected(matcher, scan, |id, rows| {
            at(&mut found, id, &|this| this.rejected += rows);
        })?;
        Ok(found.into_values().collect())
    }

    /// See [`Outbox::erase`](crate::outbox::Outbox::erase).
    pub fn erase(
        &self,
        matcher: &dyn Matcher,
        scan: &Scan,
        give_back: &dyn Fn(DestinationId, DeliveryId),
    ) -> Result<Erased, Error> {
        let search = Search {
            matcher,
            scan,
            give_back,
        };
        let mut sum = Erased::default();
        let mut arriving = self.arriving()?;
        // What nobody needs any more need not be searched.
        self.sweep()?;
        scan.will_read(self.bytes()?);
        let mut again = BTreeSet::new();
        self.erase_blocks(None, search, &mut sum, &mut again)?;
        sum.rejected += self.erase_rejected(None, matcher, scan)?;
        let mut wait = LOOKS[0];
        loop {
            for (id, first) in std::mem::take(&mut again) {
                if let Some(stored) = self.one_block(id, first)?
                    && self.erase_block(&stored, search, &mut sum)?
                {
                    again.insert((id, first));
                }
            }
            // What was in flight may have died, and what has been replayed may be in flight.
            let letters = self.erase_all_letters(search, &mut sum)?;
            let now = self.arriving()?;
            let here: BTreeSet<DeliveryId> = arriving.difference(&now).copied().collect();
            arriving.retain(|id| now.contains(id));
            if !here.is_empty() {
                self.erase_blocks(Some(&here), search, &mut sum, &mut again)?;
                sum.rejected += self.erase_rejected(Some(&here), matcher, scan)?;
                continue;
            }
            if again.is_empty() && !letters && arriving.is_empty() {
                break;
            }
            scan.set_waits(true);
            if scan.is_stopped() {
                return Err(Error::Stopped);
            }
            std::thread::sleep(wait);
            wait = (wait * 2).min(LOOKS[1]);
        }
        scan.set_waits(false);
        Ok(sum)
    }

    /// Erases what is meant of blocks, of these deliveries or of all; those that are to be looked at again
    /// go into `again`.
    fn erase_blocks(
        &self,
        of: Option<&BTreeSet<DeliveryId>>,
        search: Search<'_>,
        sum: &mut Erased,
        again: &mut BTreeSet<(DeliveryId, u64)>,
    ) -> Result<(), Error> {
        self.each_piece(of, search.scan, |stored: StoredBlock| {
            if self.erase_block(&stored, search, sum)? {
                again.insert((stored.delivery, stored.block.first));
            }
            Ok(())
        })
    }

    /// Returns whether it is to be looked at again.
    fn erase_block(
        &self,
        stored: &StoredBlock,
        search: Search<'_>,
        sum: &mut Erased,
    ) -> Result<bool, Error> {
        let (id, first) = (stored.delivery, stored.block.first);
        let (mut hits, mut batches) = (Vec::new(), 0);
        self.search(stored, search.matcher, |ordinal, bytes, meant| {
            batches += meant.len() as u64;
            hits.push(Hit {
                at: ordinal,
                crc: crc32c::crc32c(bytes),
                slices: meant.into_iter().map(|(slice, _)| slice).collect(),
            });
        })?;
        if hits.is_empty() {
            return Ok(false);
        }
        if !stored.open {
            let inner = Arc::clone(&self.inner);
            let dropped = self.run(async move {
                let params: super::session::Params<'_> = &[&&id.0[..], &(first as i64)];
                let doing = "a block could not be deleted";
                inner.write(doing, DROP, params, Tries::UntilKnown).await
            })?;
            sum.copies += if dropped.is_empty() { 0 } else { batches };
            return Ok(dropped.is_empty());
        }
        (search.give_back)(stored.destination, id);
        let action = Action::EraseEntries(id, first, hits);
        Ok(count_in(sum, self.have_erased(stored.destination, action)?))
    }

    /// Returns whether something was found, so that it has to be done again.
    fn erase_all_letters(&self, search: Search<'_>, sum: &mut Erased) -> Result<bool, Error> {
        let mut hits: BTreeMap<DestinationId, Vec<Hit>> = BTreeMap::new();
        self.each_letter(search.scan, |stored| {
            let Some(read) = self.read_letter(&stored)? else {
                return Ok(());
            };
            let slices = (0u32..).zip(&read.record.slices);
            let meant = slices.filter(|(_, slice)| search.matcher.batch(slice));
            let meant: Vec<u32> = meant.map(|(at, _)| at).collect();
            if !meant.is_empty() {
                if stored.letter.queued.is_some() {
                    (search.give_back)(stored.destination, stored.letter.delivery);
                }
                hits.entry(stored.destination).or_default().push(Hit {
                    at: stored.id,
                    crc: crc32c::crc32c(&stored.body),
                    slices: meant,
                });
            }
            Ok(())
        })?;
        let found = !hits.is_empty();
        for (destination, hits) in hits {
            for part in hits.chunks(LETTERS) {
                let action = Action::EraseLetters(part.to_vec());
                count_in(sum, self.have_erased(destination, action)?);
            }
        }
        Ok(found)
    }

    /// Shows each request of which something is meant: its ordinal, its record as it is sealed, and place
    /// and rows of each batch.
    fn search(
        &self,
        stored: &StoredBlock,
        matcher: &dyn Matcher,
        mut found: impl FnMut(u64, &[u8], Vec<(u32, u32)>),
    ) -> Result<(), Error> {
        for ordinal in stored.block.ordinals() {
            let keys = &self.inner.settings.keys;
            let record = match stored.block.open(stored.delivery, ordinal, keys) {
                Ok(record) => record,
                Err(Unreadable::Key(key)) => return Err(Error::MissingKey { key }),
                // It is given up when its turn comes.
                Err(Unreadable::Damaged) => continue,
            };
            let slices = (0u32..).zip(record.slices.iter().zip(&record.rows));
            let meant = slices.filter(|(_, (slice, _))| matcher.batch(slice));
            let meant: Vec<_> = meant.map(|(at, (_, rows))| (at, *rows)).collect();
            if !meant.is_empty() {
                found(
                    ordinal,
                    stored.block.bytes(ordinal).unwrap_or_default(),
                    meant,
                );
            }
        }
        Ok(())
    }

    /// `None`: it is damaged.
    fn read_letter(&self, stored: &StoredLetter) -> Result<Option<LetterRecord>, Error> {
        let (keys, letter) = (&self.inner.settings.keys, &stored.letter);
        match read_body(&stored.body, letter.delivery, letter.ordinal, keys)? {
            Read::There(read) => Ok(Some(read)),
            Read::Damaged => Ok(None),
        }
    }

    fn flies(
        &self,
        destination: DestinationId,
        is: impl FnOnce(&super::held::Flight) -> bool,
    ) -> bool {
        let held = self.inner.held().get(&destination).cloned();
        held.is_some_and(|held| is(&held.flight()))
    }

    fn bytes(&self) -> Result<u64, Error> {
        let inner = Arc::clone(&self.inner);
        self.run(async move {
            let rows = inner.read(READING, BYTES, &[]).await?;
            rows.first().map_or(Ok(0), |row| count(row, "bytes"))
        })
    }

    /// Deliveries that are being received by any daemon.
    fn arriving(&self) -> Result<BTreeSet<DeliveryId>, Error> {
        let inner = Arc::clone(&self.inner);
        self.run(async move {
            let rows = inner.read(READING, ARRIVING, &[]).await?;
            rows.iter()
                .map(|row| read_id(row, "id").map(DeliveryId))
                .collect()
        })
    }

    fn one_block(&self, id: DeliveryId, first: u64) -> Result<Option<StoredBlock>, Error> {
        let inner = Arc::clone(&self.inner);
        self.run(async move {
            let params: super::session::Params<'_> = &[&&id.0[..], &(first as i64)];
            let rows = inner.read(READING, ONE, params).await?;
            rows.first().map(StoredBlock::read).transpose()
        })
    }

    /// Hands the pieces of all deliveries, or of these, to `each`, by delivery and place.
    pub(super) fn each_piece<P: Piece>(
        &self,
        of: Option<&BTreeSet<DeliveryId>>,
        scan: &Scan,
        mut each: impl FnMut(P) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let of: Option<Vec<Vec<u8>>> = of.map(|of| of.iter().map(|id| id.0.to_vec()).collect());
        let mut after = (Vec::new(), -1);
        loop {
            if scan.is_stopped() {
                return Err(Error::Stopped);
            }
            let (inner, of) = (Arc::clone(&self.inner), of.clone());
            let (id, first) = after.clone();
            let next: Vec<P> = self.run(async move {
                let rows = inner.read(P::READING, P::NEXT, &[&id, &first, &of]).await?;
                rows.iter().map(P::read).collect()
            })?;
            if next.is_empty() {
                return Ok(());
            }
            for piece in next {
                let (id, first) = piece.place();
                after = (id.0.to_vec(), first);
                scan.add(piece.body().len() as u64);
                each(piece)?;
            }
        }
    }

    fn each_letter(
        &self,
        scan: &Scan,
        mut each: impl FnMut(StoredLetter) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let mut after = -1;
        loop {
            if scan.is_stopped() {
                return Err(Error::Stopped);
            }
            let inner = Arc::clone(&self.inner);
            let next: Vec<StoredLetter> = self.run(async move {
                let rows = inner.read(READING, LETTER, &[&after]).await?;
                rows.iter()
                    .map(|row| {
                        Ok(StoredLetter {
                            id: count(row, "letter")?,
                            destination: DestinationId(read_id(row, "destination")?),
                            letter: Letter::read(row)?,
                            body: column(row, "body")?,
                        })
                    })
                    .collect()
            })?;
            if next.is_empty() {
                return Ok(());
            }
            for stored in next {
                after = stored.id as i64;
                scan.add(stored.body.len() as u64);
                each(stored)?;
            }
        }
    }
}

impl Piece for StoredBlock {
    const NEXT: &'static str = NEXT;
    const READING: &'static str = READING;

    fn read(row: &Row) -> Result<Self, Error> {
        Ok(Self {
            delivery: DeliveryId(read_id(row, "delivery")?),
            destination: DestinationId(read_id(row, "destination")?),
            open: column(row, "open")?,
            marks: Marks::from_parts(count(row, "frontier")?, column(row, "beyond")?),
            block: Block {
                first: count(row, "first")?,
                entries: column::<i32>(row, "entries")? as u32,
                places: column(row, "places")?,
                body: column(row, "body")?,
            },
        })
    }

    fn place(&self) -> (DeliveryId, i64) {
        (self.delivery, self.block.first as i64)
    }

    fn body(&self) -> &[u8] {
        &self.block.body
    }
}

/// Returns whether it is to be looked at again.
fn count_in(sum: &mut Erased, removed: Removed) -> bool {
    sum.waiting += removed.waiting;
    sum.dead += removed.dead;
    sum.copies += removed.copies;
    removed.again
}
