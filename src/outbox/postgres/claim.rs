//! Claims under a lease: what flies is known to the owner alone.

use std::sync::Arc;

use bytes::Bytes;

use super::blocks::Block;
use super::cancel::cancel_given_back;
use super::change::Change;
use super::columns::column;
use super::columns::count;
use super::daemon::Inner;
use super::held::{Brief, Flight, Held, Open, Turn, Work};
use super::read::{Read, entry, read_body};
use crate::model::DeliveryId;
use crate::outbox::claim::Claim;
use crate::outbox::dead::LetterRecord;
use crate::outbox::delivery::Tally;
use crate::outbox::error::Error;
use crate::outbox::ordinal::{Ordinal, REPLAYED};

/// Bodies of letters that are read at once.
const LETTERS: usize = 16;

pub(super) async fn claim(
    inner: &Inner,
    held: &Held,
    max_entries: usize,
) -> Result<Vec<Claim>, Error> {
    held.check()?;
    let mut work = held.work.lock().await;
    work.refresh(inner, held).await?;
    cancel_given_back(inner, held, &mut work).await?;
    let mut claims = Vec::new();
    while claims.len() < max_entries {
        let room = max_entries - claims.len();
        match claim_more(inner, held, &mut work, room, &mut claims).await {
            Ok(true) => work.refresh(inner, held).await?,
            Ok(false) => break,
            // What is claimed already is handed out; the error will be met again.
            Err(error) if claims.is_empty() => return Err(error),
            Err(_) => break,
        }
    }
    // Reading may have taken long.
    if let Err(lost) = held.check() {
        release_all(held, &claims);
        return Err(lost);
    }
    Ok(claims)
}

/// Returns whether there may be more.
async fn claim_more(
    inner: &Inner,
    held: &Held,
    work: &mut Work,
    room: usize,
    claims: &mut Vec<Claim>,
) -> Result<bool, Error> {
    let Some((_, turn)) = work.turns.first_key_value() else {
        return Ok(false);
    };
    match turn.clone() {
        Turn::Delivery(id) => {
            let Some(open) = work.open.get(&id) else {
                return Ok(false);
            };
            if open.is_cancelled() {
                return Ok(false);
            }
            let picked = pick(held, open, room);
            if picked.is_empty() {
                return Ok(false);
            }
            let brief = Arc::clone(&open.brief);
            let read = read_entries(inner, held, work, &brief, &picked, claims).await;
            give_up(inner, held, work, read, &picked, id).await
        }
        Turn::Letters(letters) => {
            let picked: Vec<u64> = {
                let mut flight = held.flight();
                flight.forget_erasing();
                let free = |id: &u64| {
                    let cancelled = work
                        .letters
                        .get(id)
                        .and_then(|letter| work.open.get(&letter.delivery))
                        .is_none_or(|open| open.is_cancelled());
                    let kept = flight.erasing_letters.contains_key(id);
                    !cancelled && !kept && !flight.letters.contains_key(id)
                };
                let free = letters.iter().copied().filter(free);
                free.take(room.min(LETTERS)).collect()
            };
            if picked.is_empty() {
                return Ok(false);
            }
            claim_letters(inner, held, work, &picked, claims).await
        }
    }
}

fn pick(held: &Held, open: &Open, room: usize) -> Vec<u64> {
    let (marks, end) = (&open.progress.marks, open.brief.requests);
    let mut flight = held.flight();
    flight.forget_erasing();
    let Flight {
        deliveries,
        erasing,
        ..
    } = &mut *flight;
    let id = open.brief.id;
    let kept = |ordinal: u64| erasing.contains_key(&(id, ordinal));
    let flying = deliveries.entry(id).or_default();
    let mut picked = Vec::new();
    while picked.len() < room {
        let mut released = flying.released.iter().copied();
        let again = released.find(|ordinal| !kept(*ordinal));
        let ordinal = match again {
            Some(ordinal) => {
                flying.released.remove(&ordinal);
                ordinal
            }
            None => match marks.next_open(flying.cursor, end) {
                Some(ordinal) => {
                    flying.cursor = ordinal + 1;
                    if kept(ordinal) {
                        // Its turn comes when what is meant of it is gone.
                        flying.released.insert(ordinal);
                        continue;
                    }
                    ordinal
                }
                None => break,
            },
        };
        if !marks.get(ordinal) && !flying.claimed.contains_key(&ordinal) {
            // Its weight is known when its block has been read.
            flying.claimed.insert(ordinal, Tally::default());
            picked.push(ordinal);
        }
    }
    picked
}

/// Reads requests into claims; returns those that are damaged, with what they weigh, if that is known.
async fn read_entries(
    inner: &Inner,
    held: &Held,
    work: &mut Work,
    brief: &Brief,
    picked: &[u64],
    claims: &mut Vec<Claim>,
) -> Result<Vec<(u64, Option<Tally>)>, Error> {
    let mut lost = Vec::new();
    let before = claims.len();
    for &ordinal in picked {
        let read = entry(inner, work, brief.id, ordinal).await;
        let read = match read {
            Ok(read) => read,
            Err(error) => {
                // Nothing of this call is handed out, and all of it can be claimed again.
                claims.truncate(before);
                return Err(error);
            }
        };
        let (tally, Read::There((route, record))) = read else {
            lost.push((ordinal, read.0));
            continue;
        };
        if let Some(flying) = held.flight().deliveries.get_mut(&brief.id) {
            flying.claimed.insert(ordinal, tally.unwrap_or_default());
        }
        claims.push(Claim {
            delivery: brief.id,
            ordinal,
            account: Arc::clone(&work.account),
            route,
            slices: record.slices,
            rows: record.rows,
            received: brief.received,
        });
    }
    Ok(lost)
}

/// Records losses; what was picked and not handed out can be claimed again. Returns whether there may
/// be more.
async fn give_up(
    inner: &Inner,
    held: &Held,
    work: &mut Work,
    read: Result<Vec<(u64, Option<Tally>)>, Error>,
    picked: &[u64],
    id: DeliveryId,
) -> Result<bool, Error> {
    let lost = match read {
        Ok(lost) => lost,
        Err(error) => {
            release(held, id, picked);
            return Err(error);
        }
    };
    if lost.is_empty() {
        return Ok(true);
    }
    let ordinals: Vec<u64> = lost.iter().map(|(ordinal, _)| *ordinal).collect();
    let recorded = record_losses(inner, held, work, id, &lost).await;
    // Settled, or to be met again.
    release(held, id, &ordinals);
    recorded.map(|()| true)
}

const PLACES: &str = "SELECT first, entries, places FROM looker_feed.block
     WHERE delivery = $1 AND first + entries > $2 ORDER BY first";

async fn record_losses(
    inner: &Inner,
    held: &Held,
    work: &mut Work,
    id: DeliveryId,
    lost: &[(u64, Option<Tally>)],
) -> Result<(), Error> {
    let mut change = Change::default();
    let Some(open) = change.open(work, id) else {
        return Ok(());
    };
    let mut sum = Tally::default();
    let mut nameless = false;
    for (ordinal, tally) in lost {
        if let Some(tally) = tally {
            open.progress.marks.set(*ordinal);
            sum += *tally;
        } else {
            nameless = true;
        }
    }
    if nameless {
        // Whole blocks are missing: what waits, and is in no block, is lost with them.
        let from = open.progress.marks.frontier() as i64;
        let rows = inner
            .read("a block could not be read", PLACES, &[&&id.0[..], &from])
            .await?;
        let mut left = open.brief.mapped;
        left -= open.progress.counters.settled();
        left -= sum;
        let mut there = std::collections::HashSet::new();
        for row in &rows {
            let block = Block {
                first: count(row, "first")?,
                entries: column::<i32>(row, "entries")? as u32,
                places: column(row, "places")?,
                body: Vec::new(),
            };
            for ordinal in block.first..block.first + u64::from(block.entries) {
                there.insert(ordinal);
                if !open.progress.marks.get(ordinal) {
                    left -= block.tally(ordinal).unwrap_or_default();
                }
            }
        }
        for letter in work.letters.values().filter(|letter| letter.delivery == id) {
            left -= letter.tally;
        }
        for ordinal in from as u64..open.brief.requests {
            if !there.contains(&ordinal) {
                open.progress.marks.set(ordinal);
            }
        }
        sum += left;
    }
    open.progress.counters.damaged += sum;
    change.carry_out(inner, held, work).await?;
    inner
        .report_damage(id, sum.rows, "a request in its block".to_owned())
        .await;
    Ok(())
}

const BODIES: &str = "SELECT id AS letter, body FROM looker_feed.letter WHERE id = ANY($1::int8[]) AND destination = $2";

async fn claim_letters(
    inner: &Inner,
    held: &Held,
    work: &mut Work,
    picked: &[u64],
    claims: &mut Vec<Claim>,
) -> Result<bool, Error> {
    let ids: Vec<i64> = picked.iter().map(|id| *id as i64).collect();
    let destination = &held.destination.0[..];
    let doing = "a letter could not be read";
    let mut rows = inner.read(doing, BODIES, &[&ids, &destination]).await?;
    let mut lost = Vec::new();
    for &id in picked {
        let Some(letter) = work.letters.get(&id).cloned() else {
            continue;
        };
        let Some(brief) = work
            .open
            .get(&letter.delivery)
            .map(|open| Arc::clone(&open.brief))
        else {
            continue;
        };
        let mut read = find(&rows, id, &letter, inner)?;
        if matches!(read, Read::Damaged) {
            rows = inner.read(doing, BODIES, &[&ids, &destination]).await?;
            read = find(&rows, id, &letter, inner)?;
        }
        let Read::There(read) = read else {
            lost.push((id, letter));
            continue;
        };
        let live = |at: &usize| letter.live.get(*at as u32);
        let all = 0..read.record.slices.len();
        let slices: Vec<Bytes> = all
            .clone()
            .filter(live)
            .filter_map(|at| read.record.slices.get(at).cloned())
            .collect();
        let row_counts = all
            .filter(live)
            .filter_map(|at| read.record.rows.get(at).copied());
        claims.push(Claim {
            delivery: letter.delivery,
            ordinal: id | REPLAYED,
            account: Arc::clone(&work.account),
            route: read.meta.route,
            slices,
            rows: row_counts.collect(),
            received: brief.received,
        });
        let mut flight = held.flight();
        flight.letters.insert(id, (letter.delivery, letter.tally));
    }
    for (id, letter) in lost {
        let mut change = Change::default();
        if let Some(open) = change.open(work, letter.delivery) {
            open.progress.counters.damaged += letter.tally;
        }
        change.drop_letter(id);
        change.carry_out(inner, held, work).await?;
        inner
            .report_damage(
                letter.delivery,
                letter.tally.rows,
                "a dead letter".to_owned(),
            )
            .await;
    }
    Ok(true)
}

fn find(
    rows: &[tokio_postgres::Row],
    id: u64,
    letter: &super::held::Letter,
    inner: &Inner,
) -> Result<Read<LetterRecord>, Error> {
    for row in rows {
        if count(row, "letter")? == id {
            let body: &[u8] = column(row, "body")?;
            return read_body(body, letter.delivery, letter.ordinal, &inner.settings.keys);
        }
    }
    Ok(Read::Damaged)
}

/// Gives claims back.
pub(super) fn release(held: &Held, delivery: DeliveryId, ordinals: &[u64]) {
    let mut flight = held.flight();
    for &ordinal in ordinals {
        match Ordinal::read(ordinal) {
            Ordinal::Entry(entry) => {
                let entry = u64::from(entry);
                if let Some(flying) = flight.deliveries.get_mut(&delivery)
                    && flying.claimed.remove(&entry).is_some()
                {
                    flying.released.insert(entry);
                }
            }
            Ordinal::Letter(id) => {
                flight.letters.remove(&id);
            }
            Ordinal::Unknown => {}
        }
    }
    flight.given_back.insert(delivery);
}

fn release_all(held: &Held, claims: &[Claim]) {
    for claim in claims {
        release(held, claim.delivery, &[claim.ordinal]);
    }
}
