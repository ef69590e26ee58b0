//! What is written anew without somebody who is erased: blocks and letters, by the owner of their
//! destination, who knows what flies. What flies lands first: until then what is meant is not given out any
//! more, and the caller asks again. The bytes and the ledger change in one statement, under the fence.

use std::collections::{BTreeMap, BTreeSet};

use super::action::{Answer, CONTEXT, Hit, Removed};
use super::blocks::{Block, Unreadable};
use super::change::{Body, Change, NewLetter};
use super::columns::{column, count, read_id};
use super::daemon::Inner;
use super::held::{Held, Letter, Work};
use super::new_letter::{encode_error, seal_letter};
use super::read::{Read, read_body};
use crate::model::{DeliveryId, DestinationId};
use crate::outbox::bits::Bits;
use crate::outbox::delivery::Tally;
use crate::outbox::error::Error;
use crate::outbox::lane_request::LaneRequest;
use crate::outbox::record::{Kind, Slice, encode};

const BLOCK: &str = "SELECT entries, places, body FROM looker_feed.block
     WHERE delivery = $1 AND first = $2";
const WHOSE: &str = "SELECT delivery FROM looker_feed.letter WHERE id = ANY($1::int8[])";
const THESE: &str = "SELECT id AS letter, delivery, ordinal, live, rows, batches, queued, body
     FROM looker_feed.letter WHERE id = ANY($1::int8[]) AND destination = $2 ORDER BY id";
const READING: &str = "what is to be erased could not be read";

/// A request to which the answer goes.
type Asked = Option<[u8; 16]>;

/// Erases batches of requests that lie in one block.
pub(super) async fn erase_entries(
    inner: &Inner,
    held: &Held,
    work: &mut Work,
    (id, first): (DeliveryId, u64),
    hits: &[Hit],
    asked: Asked,
) -> Result<Removed, Error> {
    work.fetch(inner, held, vec![id]).await?;
    let ordinals = || hits.iter().map(|hit| hit.at);
    let flies = held.flight().keep_back(id, ordinals());
    // What the lane remembers of these requests names batches by their places, which are about to change.
    held.tell_lane(LaneRequest::Forget(id));
    inner.wake();
    if flies {
        return Ok(Removed {
            again: true,
            ..Removed::default()
        });
    }
    let removed = rewrite(inner, held, work, (id, first), hits, asked).await;
    {
        let mut flight = held.flight();
        for ordinal in ordinals() {
            flight.erasing.remove(&(id, ordinal));
        }
    }
    inner.wake();
    removed
}

async fn rewrite(
    inner: &Inner,
    held: &Held,
    work: &mut Work,
    (id, first): (DeliveryId, u64),
    hits: &[Hit],
    asked: Asked,
) -> Result<Removed, Error> {
    let mut removed = Removed::default();
    let mut change = Change::default();
    let Some(open) = change.open(work, id) else {
        return Ok(removed);
    };
    let rows = inner
        .read(READING, BLOCK, &[&&id.0[..], &(first as i64)])
        .await?;
    let Some(row) = rows.first() else {
        return Ok(removed);
    };
    let block = Block {
        first,
        entries: column::<i32>(row, "entries")? as u32,
        places: column(row, "places")?,
        body: column(row, "body")?,
    };
    let mut anew = Block::starting(first);
    for ordinal in block.ordinals() {
        let (bytes, tally) = (
            block.bytes(ordinal).unwrap_or_default(),
            block.tally(ordinal).unwrap_or_default(),
        );
        let Some(hit) = hits.iter().find(|hit| hit.at == ordinal) else {
            anew.put(bytes, tally);
            continue;
        };
        let without = match crc32c::crc32c(bytes) == hit.crc {
            true => without(inner, &block, (id, ordinal), hit)?,
            false => None,
        };
        let Some((record, left, gone)) = without else {
            removed.again = true;
            anew.put(bytes, tally);
            continue;
        };
        anew.put(&record, left);
        if open.progress.marks.get(ordinal) {
            removed.copies += gone.batches;
            continue;
        }
        removed.waiting += gone;
        open.progress.counters.erased += gone;
        if left == Tally::default() {
            open.progress.marks.set(ordinal);
        }
    }
    change.rewrite(id, anew);
    carry_out(inner, held, work, change, asked, removed).await?;
    work.block = None;
    Ok(removed)
}

/// A request without what is meant of it, what is left of it, and what is gone; `None`: it is damaged.
fn without(
    inner: &Inner,
    block: &Block,
    (id, ordinal): (DeliveryId, u64),
    hit: &Hit,
) -> Result<Option<(Vec<u8>, Tally, Tally)>, Error> {
    let record = match block.open(id, ordinal, &inner.settings.keys) {
        Ok(record) => record,
        Err(Unreadable::Key(key)) => return Err(Error::MissingKey { key }),
        // It is given up when its turn comes.
        Err(Unreadable::Damaged) => return Ok(None),
    };
    let Ok(route) = record.route() else {
        return Ok(None);
    };
    let (mut left, mut gone) = (Tally::default(), Tally::default());
    let mut slices = Vec::new();
    for (at, (bytes, &rows)) in (0u32..).zip(record.slices.iter().zip(&record.rows)) {
        match hit.slices.contains(&at) {
            true => gone += one(rows),
            false => {
                left += one(rows);
                slices.push(Slice { bytes, rows });
            }
        }
    }
    let mut bytes = Vec::new();
    let (mut sealer, name) = (inner.sealer()?, record.name);
    debug_assert_eq!(name.kind, Kind::Entry);
    encode(&mut bytes, &mut sealer, name, &[route], &slices)
        .map_err(|error| encode_error("an entry", error))?;
    Ok(Some((bytes, left, gone)))
}

/// The weight of one batch.
pub(super) fn one(rows: u32) -> Tally {
    Tally {
        rows: u64::from(rows),
        batches: 1,
    }
}

async fn carry_out(
    inner: &Inner,
    held: &Held,
    work: &mut Work,
    mut change: Change,
    asked: Asked,
    removed: Removed,
) -> Result<(), Error> {
    if let Some(asked) = asked {
        let answer = Answer::Erased(removed).encode();
        change.answer(asked, inner.seal(&answer, CONTEXT)?);
    }
    change.carry_out(inner, held, work).await.map(drop)
}

/// Erases batches of letters. One of which none is left is gone; what is left has another number, since its
/// places are others.
pub(super) async fn erase_letters(
    inner: &Inner,
    held: &Held,
    work: &mut Work,
    hits: &[Hit],
    asked: Asked,
) -> Result<Removed, Error> {
    let names: Vec<i64> = hits.iter().map(|hit| hit.at as i64).collect();
    let mut deliveries = BTreeSet::new();
    for row in inner.read(READING, WHOSE, &[&names]).await? {
        deliveries.insert(DeliveryId(read_id(&row, "delivery")?));
    }
    work.fetch(inner, held, deliveries.into_iter().collect())
        .await?;
    let mut kept_back = Vec::new();
    let removed = leave(inner, held, work, (hits, &names), asked, &mut kept_back).await;
    {
        let mut flight = held.flight();
        for id in kept_back {
            flight.erasing_letters.remove(&id);
        }
    }
    inner.wake();
    removed
}

async fn leave(
    inner: &Inner,
    held: &Held,
    work: &mut Work,
    (hits, names): (&[Hit], &[i64]),
    asked: Asked,
    kept_back: &mut Vec<u64>,
) -> Result<Removed, Error> {
    let hits: BTreeMap<u64, &Hit> = hits.iter().map(|hit| (hit.at, hit)).collect();
    let mut removed = Removed::default();
    let mut change = Change::default();
    let DestinationId(destination) = held.destination;
    let rows = inner
        .read(READING, THESE, &[&names, &&destination[..]])
        .await?;
    for row in &rows {
        let (id, letter) = (count(row, "letter")?, Letter::read(row)?);
        let Some(hit) = hits.get(&id) else {
            continue;
        };
        if letter.queued.is_some() {
            let flies = held.flight().keep_letter_back(id);
            held.tell_lane(LaneRequest::Forget(letter.delivery));
            if flies {
                removed.again = true;
                continue;
            }
            kept_back.push(id);
        }
        let body: &[u8] = column(row, "body")?;
        if crc32c::crc32c(body) != hit.crc {
            removed.again = true;
            continue;
        }
        let keys = &inner.settings.keys;
        let Read::There(read) = read_body(body, letter.delivery, letter.ordinal, keys)? else {
            continue;
        };
        let Some(open) = change.open(work, letter.delivery) else {
            continue;
        };
        let stays = |at: u32| letter.live.get(at) && !hit.slices.contains(&at);
        let (meta, slices) = read.only(stays);
        let meant = hit.slices.iter();
        removed.copies += meant.filter(|at| !letter.live.get(**at)).count() as u64;
        let mut left = Tally::default();
        slices.iter().for_each(|slice| left += one(slice.rows));
        let mut gone = letter.tally;
        gone -= left;
        let counters = &mut open.progress.counters;
        counters.erased += gone;
        match letter.queued {
            None => {
                counters.dead -= gone;
                removed.dead += gone;
            }
            Some(_) => removed.waiting += gone,
        }
        change.drop_letter(id);
        if slices.is_empty() {
            continue;
        }
        let body = seal_letter(inner, &meta, letter.ordinal, &slices)?;
        change.add_letter(NewLetter {
            id: inner.new_letter_id().await?,
            letter: Letter {
                live: Bits::all(slices.len() as u32),
                tally: left,
                ..letter
            },
            body: Body::Sealed(body),
        });
    }
    carry_out(inner, held, work, change, asked, removed).await?;
    Ok(removed)
}
