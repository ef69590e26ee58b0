//! A change of what is held: built in memory, carried out by one statement under the fence, and only
//! then taken over. Rows of progress are written whole, with the version that they had, so carrying
//! a change out twice does no harm: the second finds another version.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use tokio::sync::oneshot;
use tokio_postgres::Row;

use super::blocks::Block;
use super::columns::read_id;
use super::daemon::Inner;
use super::held::{Held, Letter, Open, Work};
use super::image::{Columns, Image, Job};
use super::session::Tries;
use crate::outbox::error::Error;

use crate::model::{DeliveryId, DestinationId};

/// What will be different; see the module.
#[derive(Default)]
pub(super) struct Change {
    progress: BTreeMap<DeliveryId, Open>,
    gone: Vec<u64>,
    put: Vec<(u64, Letter)>,
    added: Vec<NewLetter>,
    answers: Vec<([u8; 16], Vec<u8>)>,
    blocks: Vec<(DeliveryId, Block)>,
}

/// A letter that was not there.
pub(super) struct NewLetter {
    pub id: u64,
    pub letter: Letter,
    pub body: Body,
}

/// Where its body comes from.
pub(super) enum Body {
    Sealed(Vec<u8>),
    CopyOf(u64),
}

impl Change {
    /// A delivery as it will be; `None`: it is not held.
    pub fn open(&mut self, work: &Work, id: DeliveryId) -> Option<&mut Open> {
        use std::collections::btree_map::Entry;
        match self.progress.entry(id) {
            Entry::Occupied(there) => Some(there.into_mut()),
            Entry::Vacant(free) => Some(free.insert(work.open.get(&id)?.clone())),
        }
    }

    pub fn drop_letter(&mut self, id: u64) {
        self.gone.push(id);
    }

    pub fn drops(&self, id: u64) -> bool {
        self.gone.contains(&id)
    }

    pub fn put_letter(&mut self, id: u64, letter: Letter) {
        self.put.push((id, letter));
    }

    pub fn add_letter(&mut self, new: NewLetter) {
        self.added.push(new);
    }

    /// Puts a block into the place of the one that begins at the same request.
    pub fn rewrite(&mut self, id: DeliveryId, block: Block) {
        self.blocks.push((id, block));
    }

    pub fn answer(&mut self, request: [u8; 16], answer: Vec<u8>) {
        self.answers.push((request, answer));
    }

    /// Carries it out. Returns the deliveries of which nothing waits or flies any more, and did before.
    ///
    /// # Errors
    /// Another daemon has the destination, or the server cannot be asked: then it may have been carried
    /// out, and the work is in doubt.
    pub async fn carry_out(
        mut self,
        inner: &Inner,
        held: &Held,
        work: &mut Work,
    ) -> Result<Vec<DeliveryId>, Error> {
        if self.progress.is_empty() {
            return Ok(Vec::new());
        }
        let now = inner.settings.clock.now();
        let mut finished = Vec::new();
        for (id, open) in &mut self.progress {
            // Nothing is left that could be.
            open.progress.held &= open.is_open();
            let was = open.progress.counters.finished;
            open.progress.counters.finished = if open.is_open() {
                None
            } else {
                was.or(Some(now))
            };
            if was.is_none() && !open.is_open() {
                finished.push(*id);
            }
        }
        let images: Vec<Image> = self
            .progress
            .values()
            .map(|open| Image::of(open, held.epoch))
            .collect();
        let done = self.run(inner, &images).await;
        let done = match done {
            Ok(done) => done,
            Err(error) => {
                work.doubt = true;
                return Err(error);
            }
        };
        if done.len() < images.len()
            && !applied(inner, &images)
                .await
                .inspect_err(|_| work.doubt = true)?
        {
            // Some of them may have been changed.
            work.doubt = true;
            held.lose();
            inner.wake();
            return Err(Error::LeaseLost);
        }
        self.take_over(work);
        Ok(finished)
    }

    async fn run(&self, inner: &Inner, images: &[Image]) -> Result<HashSet<DeliveryId>, Error> {
        let plain = self.gone.is_empty()
            && self.put.is_empty()
            && self.added.is_empty()
            && self.answers.is_empty()
            && self.blocks.is_empty();
        if plain {
            let (reply, answer) = oneshot::channel();
            let job = Job {
                images: images.to_vec(),
                reply,
            };
            inner.settles.send(job).await.map_err(|_| Error::Closed)?;
            return answer.await.map_err(|_| Error::Closed)?;
        }
        let columns = Columns::of(images);
        let me = &inner.me[..];
        let gone: Vec<i64> = self.gone.iter().map(|id| *id as i64).collect();
        let put = Letters::of(self.put.iter().map(|(id, letter)| (*id, letter)));
        let new = Letters::of(self.added.iter().map(|new| (new.id, &new.letter)));
        let destination = images.first().map(|image| image.destination);
        let destination = destination.unwrap_or(DestinationId([0; 16]));
        let (copies, bodies): (Vec<Option<i64>>, Vec<&[u8]>) = self
            .added
            .iter()
            .map(|new| match &new.body {
                Body::Sealed(body) => (None, body.as_slice()),
                Body::CopyOf(id) => (Some(*id as i64), &[][..]),
            })
            .unzip();
        let requests: Vec<&[u8]> = self.answers.iter().map(|(id, _)| &id[..]).collect();
        let (mut of, mut firsts) = (Vec::new(), Vec::new());
        let (mut places, mut anew) = (Vec::new(), Vec::new());
        for (id, block) in &self.blocks {
            of.push(&id.0[..]);
            firsts.push(block.first as i64);
            places.push(&block.places[..]);
            anew.push(&block.body[..]);
        }
        let answers: Vec<&[u8]> = self.answers.iter().map(|(_, text)| &text[..]).collect();
        let rows = inner
            .write(
                DOING,
                CHANGE,
                &[
                    &me,
                    &columns.deliveries,
                    &columns.epochs,
                    &columns.versions,
                    &columns.open,
                    &columns.frontiers,
                    &columns.beyond,
                    &columns.tallies[0],
                    &columns.tallies[1],
                    &columns.tallies[2],
                    &columns.tallies[3],
                    &columns.tallies[4],
                    &columns.tallies[5],
                    &columns.tallies[6],
                    &columns.tallies[7],
                    &columns.tallies[8],
                    &columns.tallies[9],
                    &columns.tallies[10],
                    &columns.tallies[11],
                    &columns.held,
                    &columns.cancelled_at,
                    &columns.finished,
                    &gone,
                    &put.ids,
                    &put.live,
                    &put.rows,
                    &put.batches,
                    &put.queued,
                    &new.ids,
                    &new.deliveries,
                    &new.ordinals,
                    &new.live,
                    &new.rows,
                    &new.batches,
                    &new.queued,
                    &copies,
                    &bodies,
                    &&destination.0[..],
                    &requests,
                    &answers,
                    &&inner.settings.keys.current().0[..],
                    &of,
                    &firsts,
                    &places,
                    &anew,
                ],
                Tries::UntilKnown,
            )
            .await?;
        ids(&rows)
    }

    fn take_over(self, work: &mut Work) {
        for id in &self.gone {
            work.remove_letter(*id);
        }
        for (id, letter) in self.put {
            work.put_letter(id, letter);
        }
        for new in self.added {
            work.put_letter(new.id, new.letter);
        }
        for (_, mut open) in self.progress {
            open.progress.version += 1;
            work.put(open);
        }
    }
}

const DOING: &str = "the change could not be written down";

/// Letters, column by column.
#[derive(Default)]
struct Letters<'a> {
    ids: Vec<i64>,
    deliveries: Vec<&'a [u8]>,
    ordinals: Vec<i64>,
    live: Vec<&'a [u8]>,
    rows: Vec<i64>,
    batches: Vec<i64>,
    queued: Vec<Option<i64>>,
}

impl<'a> Letters<'a> {
    fn of(letters: impl Iterator<Item = (u64, &'a Letter)>) -> Self {
        let mut columns = Self::default();
        for (id, letter) in letters {
            columns.ids.push(id as i64);
            columns.deliveries.push(&letter.delivery.0);
            columns.ordinals.push(i64::from(letter.ordinal));
            columns.live.push(letter.live.bytes());
            columns.rows.push(letter.tally.rows as i64);
            columns.batches.push(letter.tally.batches as i64);
            columns.queued.push(letter.queued.map(|turn| turn as i64));
        }
        columns
    }
}

macro_rules! progress {
    () => {
        "WITH said AS (SELECT * FROM unnest($2::bytea[], $3::int8[], $4::int8[], $5::bool[],
            $6::int8[], $7::bytea[], $8::int8[], $9::int8[], $10::int8[], $11::int8[], $12::int8[],
            $13::int8[], $14::int8[], $15::int8[], $16::int8[], $17::int8[], $18::int8[], $19::int8[],
            $20::bool[], $21::int8[], $22::int8[])
            AS s(delivery, epoch, version, open, frontier, beyond, delivered_rows, delivered_batches,
            dead_rows, dead_batches, discarded_rows, discarded_batches, damaged_rows, damaged_batches,
            cancelled_rows, cancelled_batches, erased_rows, erased_batches, held, cancelled_at, finished)),
         done AS (UPDATE looker_feed.progress p SET version = s.version + 1, open = s.open,
            frontier = s.frontier, beyond = s.beyond,
            delivered_rows = s.delivered_rows, delivered_batches = s.delivered_batches,
            dead_rows = s.dead_rows, dead_batches = s.dead_batches,
            discarded_rows = s.discarded_rows, discarded_batches = s.discarded_batches,
            damaged_rows = s.damaged_rows, damaged_batches = s.damaged_batches,
            cancelled_rows = s.cancelled_rows, cancelled_batches = s.cancelled_batches,
            erased_rows = s.erased_rows, erased_batches = s.erased_batches, held = s.held,
            cancelled_at = s.cancelled_at, finished = s.finished
            FROM said s WHERE p.delivery = s.delivery AND p.owner = $1 AND p.epoch = s.epoch
            AND p.version = s.version RETURNING p.delivery AS id)"
    };
}
const PROGRESS: &str = concat!(progress!(), " SELECT id FROM done");
const CHANGE: &str = concat!(
    progress!(),
    ", gone AS (DELETE FROM looker_feed.letter l USING done
        WHERE l.id = ANY($23::int8[]) AND l.delivery = done.id),
     put AS (UPDATE looker_feed.letter l
        SET live = s.live, rows = s.rows, batches = s.batches, queued = s.queued
        FROM unnest($24::int8[], $25::bytea[], $26::int8[], $27::int8[], $28::int8[])
        AS s(id, live, rows, batches, queued), done WHERE l.id = s.id AND l.delivery = done.id),
     added AS (INSERT INTO looker_feed.letter
        (id, delivery, destination, ordinal, live, rows, batches, queued, key, body)
        SELECT s.id, s.delivery, $38::bytea, s.ordinal, s.live, s.rows, s.batches, s.queued,
        coalesce(o.key, $41::bytea), coalesce(o.body, s.body)
        FROM unnest($29::int8[], $30::bytea[], $31::int8[], $32::bytea[], $33::int8[], $34::int8[],
        $35::int8[], $36::int8[], $37::bytea[])
        AS s(id, delivery, ordinal, live, rows, batches, queued, copy_of, body)
        JOIN done ON done.id = s.delivery LEFT JOIN looker_feed.letter o ON o.id = s.copy_of),
     rewritten AS (UPDATE looker_feed.block b SET places = s.places, body = s.body
        FROM unnest($42::bytea[], $43::int8[], $44::bytea[], $45::bytea[])
        AS s(delivery, first, places, body), done
        WHERE b.delivery = s.delivery AND b.first = s.first AND done.id = s.delivery),
     answered AS (UPDATE looker_feed.request r SET answer = s.answer, argument = ''
        FROM unnest($39::bytea[], $40::bytea[]) AS s(id, answer)
        WHERE r.id = s.id AND r.answer IS NULL AND EXISTS (SELECT 1 FROM done))
     SELECT id FROM done"
);
const APPLIED: &str = "SELECT p.delivery AS id FROM looker_feed.progress p,
     unnest($2::bytea[], $3::int8[], $4::int8[]) AS s(delivery, epoch, version)
     WHERE p.delivery = s.delivery AND p.owner = $1 AND p.epoch = s.epoch
     AND p.version = s.version + 1";

/// Writes rows of progress of any destinations that this daemon holds; returns which were written.
pub(super) async fn write_progress(
    inner: &Inner,
    images: &[Image],
) -> Result<HashSet<DeliveryId>, Error> {
    let columns = Columns::of(images);
    let me = &inner.me[..];
    let rows = inner
        .write(
            DOING,
            PROGRESS,
            &[
                &me,
                &columns.deliveries,
                &columns.epochs,
                &columns.versions,
                &columns.open,
                &columns.frontiers,
                &columns.beyond,
                &columns.tallies[0],
                &columns.tallies[1],
                &columns.tallies[2],
                &columns.tallies[3],
                &columns.tallies[4],
                &columns.tallies[5],
                &columns.tallies[6],
                &columns.tallies[7],
                &columns.tallies[8],
                &columns.tallies[9],
                &columns.tallies[10],
                &columns.tallies[11],
                &columns.held,
                &columns.cancelled_at,
                &columns.finished,
            ],
            Tries::UntilKnown,
        )
        .await?;
    ids(&rows)
}

/// Whether these are what is on the server: an earlier try of the statement went through.
async fn applied(inner: &Inner, images: &[Image]) -> Result<bool, Error> {
    inner.confirm().await?;
    let columns = Columns::of(images);
    let me = &inner.me[..];
    let rows = inner
        .read(
            DOING,
            APPLIED,
            &[&me, &columns.deliveries, &columns.epochs, &columns.versions],
        )
        .await?;
    let found: BTreeSet<DeliveryId> = ids(&rows)?.into_iter().collect();
    Ok(images.iter().all(|image| found.contains(&image.delivery)))
}

fn ids(rows: &[Row]) -> Result<HashSet<DeliveryId>, Error> {
    rows.iter()
        .map(|row| read_id(row, "id").map(DeliveryId))
        .collect()
}
