//! Dead letters: each a row with its own sealed body, so that the blocks of its delivery can go. What
//! is done with them is done by the owner of their destination; looking at them changes nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;

use super::change::{Body, Change, NewLetter};
use super::columns::column;
use super::columns::count;
use super::columns::read_id;
use super::daemon::Inner;
use super::handle::SharedOutbox;
use super::held::{Held, Letter, Work};
use super::new_letter::seal_letter;
use super::read::{Read, read_body};
use super::session::Tries;
use crate::model::{DeliveryId, DestinationId};
use crate::outbox::bits::Bits;
use crate::outbox::delivery::Tally;
use crate::outbox::error::Error;
use crate::outbox::letter::{DeadFilter, DeadLetter, DeadPage, LetterId, Moved};
use crate::outbox::record::{Frame, Slice};

/// Letters whose bodies are read at once.
const PART: i64 = 16;
const PAGE: &str = "SELECT id AS letter, delivery, ordinal, live, rows, batches, queued, body
     FROM looker_feed.letter WHERE queued IS NULL AND id >= $1
     AND ($2::bytea IS NULL OR delivery = $2) AND ($3::bytea IS NULL OR destination = $3)
     ORDER BY id LIMIT $4";
const THESE: &str = "SELECT id AS letter, delivery, ordinal, live, rows, batches, queued, body
     FROM looker_feed.letter WHERE queued IS NULL AND id = ANY($1::int8[])
     AND destination = $2 ORDER BY id";
const WHOSE: &str =
    "SELECT id AS letter, delivery, destination FROM looker_feed.letter WHERE id = ANY($1::int8[])";
impl SharedOutbox {
    /// The dead letters behind `after`, at most `limit` (and at least one, if there is one). Those that
    /// are being sent again are not among them, nor those that cannot be read: they are logged.
    ///
    /// # Errors
    /// A key is missing, or the server cannot be asked.
    pub fn dead_letters(
        &self,
        filter: DeadFilter,
        after: Option<LetterId>,
        limit: usize,
    ) -> Result<DeadPage, Error> {
        let inner = Arc::clone(&self.inner);
        self.run(async move { page(&inner, filter, after, limit.max(1)).await })
    }

    /// One dead letter with its payload; `None`: it is not there, or it waits to be sent again.
    ///
    /// # Errors
    /// It is damaged, a key is missing, or the server cannot be asked.
    pub fn dead_letter(&self, id: LetterId) -> Result<Option<(DeadLetter, Bytes)>, Error> {
        let inner = Arc::clone(&self.inner);
        self.run(async move {
            let (none, limit) = (None::<&[u8]>, 1i64);
            let from = id.letter as i64;
            let rows = inner
                .read(READING, PAGE, &[&from, &none, &none, &limit])
                .await?;
            let Some(row) = rows.first() else {
                return Ok(None);
            };
            let letter = Letter::read(row)?;
            if count(row, "letter")? != id.letter || !letter.live.get(id.slice) {
                return Ok(None);
            }
            let body: &[u8] = column(row, "body")?;
            match read_body(body, letter.delivery, letter.ordinal, &inner.settings.keys)? {
                Read::There(read) => Ok(read.slice(id)),
                Read::Damaged => Err(Error::Damaged {
                    what: format!("dead letter {id}").into(),
                }),
            }
        })
    }

    /// The deliveries of these dead letters, as far as they are there.
    ///
    /// # Errors
    /// The server cannot be asked.
    pub fn deliveries_of(&self, letters: &[LetterId]) -> Result<Vec<DeliveryId>, Error> {
        let inner = Arc::clone(&self.inner);
        let ids: Vec<i64> = letters.iter().map(|id| id.letter as i64).collect();
        self.run(async move {
            let mut found = BTreeSet::new();
            for row in inner.read(READING, WHOSE, &[&ids]).await? {
                found.insert(DeliveryId(read_id(&row, "delivery")?));
            }
            Ok(found.into_iter().collect())
        })
    }
}

const READING: &str = "dead letters could not be read";

async fn page(
    inner: &Inner,
    filter: DeadFilter,
    after: Option<LetterId>,
    limit: usize,
) -> Result<DeadPage, Error> {
    let mut page = DeadPage::default();
    let delivery = filter.delivery.map(|id| id.0);
    let delivery = delivery.as_ref().map(|id| &id[..]);
    let destination = filter.destination.map(|id| id.0);
    let destination = destination.as_ref().map(|id| &id[..]);
    let mut from = after.map_or(0, |after| after.letter as i64);
    loop {
        let rows = inner
            .show(READING, PAGE, &[&from, &delivery, &destination, &PART])
            .await?;
        for row in &rows {
            let (id, letter) = (count(row, "letter")?, Letter::read(row)?);
            from = id as i64 + 1;
            let body: &[u8] = column(row, "body")?;
            let keys = &inner.settings.keys;
            let Read::There(read) = read_body(body, letter.delivery, letter.ordinal, keys)? else {
                tracing::error!(letter = id, delivery = %letter.delivery, "a dead letter is damaged and cannot be shown");
                continue;
            };
            for slice in letter.live.ones() {
                let id = LetterId { letter: id, slice };
                if after.is_some_and(|after| id <= after) {
                    continue;
                }
                if page.letters.len() == limit {
                    page.next = page.letters.last().map(|last| last.id);
                    return Ok(page);
                }
                page.letters
                    .extend(read.slice(id).map(|(letter, _)| letter));
            }
        }
        if (rows.len() as i64) < PART {
            return Ok(page);
        }
    }
}

/// The letters of a call, by the destinations that they belong to.
pub(super) async fn by_destination(
    inner: &Inner,
    ids: &[LetterId],
) -> Result<BTreeMap<DestinationId, Vec<LetterId>>, Error> {
    let names: BTreeSet<u64> = ids.iter().map(|id| id.letter).collect();
    let names: Vec<i64> = names.into_iter().map(|id| id as i64).collect();
    let mut whose = BTreeMap::new();
    for row in inner.read(READING, WHOSE, &[&names]).await? {
        let destination = DestinationId(read_id(&row, "destination")?);
        whose.insert(count(&row, "letter")?, destination);
    }
    let mut sorted: BTreeMap<DestinationId, Vec<LetterId>> = BTreeMap::new();
    for id in ids.iter().copied().collect::<BTreeSet<_>>() {
        if let Some(destination) = whose.get(&id.letter) {
            sorted.entry(*destination).or_default().push(id);
        }
    }
    Ok(sorted)
}

/// A letter that can be done something with, and its body.
struct Dead {
    id: u64,
    letter: Letter,
    body: Vec<u8>,
}

/// Reads those of these that are dead, with their deliveries under the fence.
async fn fetch(
    inner: &Inner,
    held: &Held,
    work: &mut Work,
    ids: &[u64],
) -> Result<Vec<Dead>, Error> {
    let names: Vec<i64> = ids.iter().map(|id| *id as i64).collect();
    let mut deliveries = BTreeSet::new();
    for row in inner.read(READING, WHOSE, &[&names]).await? {
        deliveries.insert(DeliveryId(read_id(&row, "delivery")?));
    }
    work.fetch(inner, held, deliveries.into_iter().collect())
        .await?;
    let destination = &held.destination.0[..];
    let mut found = Vec::new();
    for row in inner.read(READING, THESE, &[&names, &destination]).await? {
        let letter = Letter::read(&row)?;
        if work.open.contains_key(&letter.delivery) {
            found.push(Dead {
                id: count(&row, "letter")?,
                letter,
                body: column(&row, "body")?,
            });
        }
    }
    Ok(found)
}

/// Takes slices out of their letters. Replayed ones wait behind what waits now, all of a call in one
/// turn; those of a cancelled delivery stay where they are.
pub(super) async fn move_letters(
    inner: &Inner,
    held: &Held,
    work: &mut Work,
    ids: &[LetterId],
    replay: bool,
) -> Result<Moved, Error> {
    let mut moved = Moved::default();
    let mut turn = None;
    let groups: Vec<&[LetterId]> = ids
        .chunk_by(|one, other| one.letter == other.letter)
        .collect();
    for part in groups.chunks(PART as usize) {
        let names: Vec<u64> = part
            .iter()
            .filter_map(|group| group.first())
            .map(|id| id.letter)
            .collect();
        let mut change = Change::default();
        let mut sum = Moved::default();
        for dead in fetch(inner, held, work, &names).await? {
            let cancelled = work
                .open
                .get(&dead.letter.delivery)
                .is_some_and(|open| open.is_cancelled());
            // How many rows are in each slice stands outside the seal.
            let rows: Vec<u32> = match Frame::decode(&dead.body) {
                Ok(frame) if !(replay && cancelled) => frame.rows().collect(),
                _ => continue,
            };
            let mut rest = dead.letter.clone();
            let mut taken = Bits::none(rest.live.bytes().len() as u32 * 8);
            let mut tally = Tally::default();
            for id in ids.iter().filter(|id| id.letter == dead.id) {
                if rest.live.set(id.slice, false) {
                    taken.set(id.slice, true);
                    tally += Tally {
                        rows: rows.get(id.slice as usize).copied().unwrap_or(0).into(),
                        batches: 1,
                    };
                }
            }
            if tally.batches == 0 {
                continue;
            }
            sum.letters += tally.batches;
            sum.rows += tally.rows;
            rest.tally -= tally;
            if let Some(open) = change.open(work, dead.letter.delivery) {
                open.progress.counters.dead -= tally;
                if !replay {
                    open.progress.counters.discarded += tally;
                }
            }
            let whole = rest.live.count() == 0;
            if !replay {
                if whole {
                    change.drop_letter(dead.id);
                } else {
                    change.put_letter(dead.id, rest);
                }
                continue;
            }
            let queued = match turn {
                Some(turn) => turn,
                None => *turn.insert(take_turn(inner, held).await?),
            };
            let waiting = Letter {
                live: taken,
                tally,
                queued: Some(queued),
                ..dead.letter.clone()
            };
            if whole {
                change.put_letter(dead.id, waiting);
            } else {
                change.put_letter(dead.id, rest);
                change.add_letter(NewLetter {
                    id: inner.new_letter_id().await?,
                    letter: waiting,
                    body: Body::CopyOf(dead.id),
                });
            }
        }
        change.carry_out(inner, held, work).await?;
        moved.letters += sum.letters;
        moved.rows += sum.rows;
    }
    if moved.letters > 0 {
        // What was committed before the turn was taken comes first.
        held.stale.store(true, std::sync::atomic::Ordering::Release);
        inner.wake();
    }
    Ok(moved)
}

/// What a new name is answered with.
pub(super) type Answering<'a> = dyn Fn(LetterId) -> Result<Vec<u8>, Error> + Sync + 'a;

/// Puts another payload into a dead letter and returns its new name; `None`: it is not there, or it
/// waits to be sent again, or it is damaged.
pub(super) async fn edit(
    inner: &Inner,
    held: &Held,
    work: &mut Work,
    id: LetterId,
    payload: &[u8],
    answer: Option<([u8; 16], &Answering<'_>)>,
) -> Result<Option<LetterId>, Error> {
    let found = fetch(inner, held, work, &[id.letter]).await?;
    let Some(dead) = found
        .into_iter()
        .find(|dead| dead.letter.live.get(id.slice))
    else {
        return Ok(None);
    };
    let keys = &inner.settings.keys;
    let read = read_body(&dead.body, dead.letter.delivery, dead.letter.ordinal, keys)?;
    let Read::There(read) = read else {
        return Err(Error::Damaged {
            what: format!("dead letter {id}").into(),
        });
    };
    let Some((meta, rows)) = read.mended(id) else {
        return Ok(None);
    };
    let slices = [Slice {
        bytes: payload,
        rows,
    }];
    let body = seal_letter(inner, &meta, dead.letter.ordinal, &slices)?;
    let tally = Tally {
        rows: u64::from(rows),
        batches: 1,
    };
    let new = inner.new_letter_id().await?;
    let mut change = Change::default();
    if change.open(work, dead.letter.delivery).is_none() {
        return Ok(None);
    }
    change.add_letter(NewLetter {
        id: new,
        letter: Letter {
            live: Bits::all(1),
            tally,
            ..dead.letter.clone()
        },
        body: Body::Sealed(body),
    });
    let mut rest = dead.letter;
    rest.live.set(id.slice, false);
    rest.tally -= tally;
    if rest.live.count() == 0 {
        change.drop_letter(dead.id);
    } else {
        change.put_letter(dead.id, rest);
    }
    let name = LetterId {
        letter: new,
        slice: 0,
    };
    if let Some((request, text)) = answer {
        change.answer(request, text(name)?);
    }
    change.carry_out(inner, held, work).await?;
    Ok(Some(name))
}

/// The next place in the queue of a destination.
async fn take_turn(inner: &Inner, held: &Held) -> Result<u64, Error> {
    let rows = inner
        .write(
            "a turn could not be taken",
            "UPDATE looker_feed.destination
             SET next_position = next_position + 1, version = version + 1
             WHERE id = $1 AND owner = $2 AND epoch = $3 RETURNING next_position - 1 AS turn",
            &[&&held.destination.0[..], &&inner.me[..], &held.epoch],
            Tries::UntilKnown,
        )
        .await?;
    match rows.first() {
        Some(row) => count(row, "turn"),
        None => {
            held.lose();
            Err(Error::LeaseLost)
        }
    }
}
