//! Records on the server, opened. What is damaged is read twice before it counts as damaged; what cannot
//! be read now, or not with the keys at hand, is an error, and no loss.

use std::sync::Arc;

use super::blocks::{self, Block, Unreadable};
use super::columns::{column, count, read_id};
use super::daemon::Inner;
use super::handle::SharedOutbox;
use super::held::{Letter, Work};
use super::marks::Marks;
use crate::model::DeliveryId;
use crate::outbox::dead::{DeadMeta, LetterRecord};
use crate::outbox::delivery::Tally;
use crate::outbox::error::Error;
use crate::outbox::record::{Kind, Name, Record};
use crate::seal::Keyring;

/// What a record that was read twice is.
pub(super) enum Read<T> {
    There(T),
    Damaged,
}

type EntryRecord = (u8, Record);

/// One request, opened, and what it weighs. One that is damaged is read twice.
pub(super) async fn entry(
    inner: &Inner,
    work: &mut Work,
    id: DeliveryId,
    ordinal: u64,
) -> Result<(Option<Tally>, Read<EntryRecord>), Error> {
    let keys = &inner.settings.keys;
    for _ in 0..2 {
        let Some(block) = block(inner, work, id, ordinal).await? else {
            work.block = None;
            continue;
        };
        let tally = block.tally(ordinal);
        let opened = block.open(id, ordinal, keys);
        match opened.and_then(|record| match record.route() {
            Ok(route) => Ok((route, record)),
            Err(_) => Err(Unreadable::Damaged),
        }) {
            Ok(read) => return Ok((tally, Read::There(read))),
            Err(Unreadable::Key(key)) => return Err(Error::MissingKey { key }),
            Err(Unreadable::Damaged) => work.block = None,
        }
    }
    let tally = block(inner, work, id, ordinal)
        .await?
        .and_then(|block| block.tally(ordinal));
    Ok((tally, Read::Damaged))
}

const BLOCK: &str = "SELECT first, entries, places, body FROM looker_feed.block
     WHERE delivery = $1 AND first <= $2 ORDER BY first DESC LIMIT 1";

/// The block that holds a request; `None`: there is none.
async fn block(
    inner: &Inner,
    work: &mut Work,
    id: DeliveryId,
    ordinal: u64,
) -> Result<Option<Arc<Block>>, Error> {
    if let Some((of, block)) = &work.block
        && *of == id
        && block.holds(ordinal)
    {
        return Ok(Some(Arc::clone(block)));
    }
    let rows = inner
        .read(
            "a block could not be read",
            BLOCK,
            &[&&id.0[..], &(ordinal as i64)],
        )
        .await?;
    let Some(row) = rows.first() else {
        return Ok(None);
    };
    let block = Block {
        first: count(row, "first")?,
        entries: column::<i32>(row, "entries")? as u32,
        places: column(row, "places")?,
        body: column(row, "body")?,
    };
    if !block.holds(ordinal) {
        return Ok(None);
    }
    let block = Arc::new(block);
    work.block = Some((id, Arc::clone(&block)));
    Ok(Some(block))
}

const ONE: &str = "SELECT body FROM looker_feed.letter WHERE id = $1";

const READING: &str = "a dead letter could not be read";

/// The sealed body of a letter, opened.
pub(super) fn read_body(
    body: &[u8],
    delivery: DeliveryId,
    ordinal: u32,
    keys: &Keyring,
) -> Result<Read<LetterRecord>, Error> {
    let name = Name {
        kind: Kind::Dead,
        delivery,
        ordinal,
    };
    match blocks::open(body, name, keys) {
        Ok(record) => Ok(match DeadMeta::decode(&record) {
            Ok(meta) => Read::There(LetterRecord { record, meta }),
            Err(_) => Read::Damaged,
        }),
        Err(Unreadable::Key(key)) => Err(Error::MissingKey { key }),
        Err(Unreadable::Damaged) => Ok(Read::Damaged),
    }
}

/// The body of a letter that is held. One that is damaged is read twice.
pub(super) async fn one_body(
    inner: &Inner,
    id: u64,
    letter: &Letter,
) -> Result<Read<LetterRecord>, Error> {
    for _ in 0..2 {
        let rows = inner.read(READING, ONE, &[&(id as i64)]).await?;
        if let Some(row) = rows.first() {
            let body: &[u8] = column(row, "body")?;
            let keys = &inner.settings.keys;
            let read = read_body(body, letter.delivery, letter.ordinal, keys)?;
            if matches!(read, Read::There(_)) {
                return Ok(read);
            }
        }
    }
    Ok(Read::Damaged)
}

const OPEN: &str = "SELECT p.delivery, p.frontier, p.beyond, d.requests
     FROM looker_feed.progress p JOIN looker_feed.delivery d ON d.id = p.delivery
     WHERE p.open ORDER BY p.destination, p.position";

impl SharedOutbox {
    /// Reads all that waits and all dead letters, and names what cannot be read. Nothing is changed: it
    /// is counted as damaged by the owner of its destination when its turn comes.
    pub fn verify(&self) -> Result<(), Error> {
        let inner = Arc::clone(&self.inner);
        self.run(async move { verify(&inner).await })
    }
}

async fn verify(inner: &Inner) -> Result<(), Error> {
    let mut work = Work::default();
    for row in inner
        .read("what waits could not be read", OPEN, &[])
        .await?
    {
        let id = DeliveryId(read_id(&row, "delivery")?);
        let marks = Marks::from_parts(count(&row, "frontier")?, column(&row, "beyond")?);
        let end = count(&row, "requests")?;
        let mut from = 0;
        while let Some(ordinal) = marks.next_open(from, end) {
            from = ordinal + 1;
            if let (tally, Read::Damaged) = entry(inner, &mut work, id, ordinal).await? {
                let rows = tally.map_or(0, |tally| tally.rows);
                let what = format!("request {ordinal} in its block");
                inner.report_damage(id, rows, what).await;
            }
        }
    }
    let (mut from, limit) = (0i64, 16i64);
    loop {
        let sql = "SELECT id AS letter, delivery, ordinal, live, rows, batches, queued, body
             FROM looker_feed.letter WHERE id >= $1 ORDER BY id LIMIT $2";
        let rows = inner.read(READING, sql, &[&from, &limit]).await?;
        for row in &rows {
            let (id, letter) = (count(row, "letter")?, Letter::read(row)?);
            from = id as i64 + 1;
            if let Read::Damaged = one_body(inner, id, &letter).await? {
                let what = format!("dead letter {id}");
                inner
                    .report_damage(letter.delivery, letter.tally.rows, what)
                    .await;
            }
        }
        if (rows.len() as i64) < limit {
            return Ok(());
        }
    }
}
