//! Records on the server, opened. What is damaged is read twice before it counts as damaged; what cannot
//! be read now, or not with the keys at hand, is an error, and no loss.

use std::sync::Arc;

use super::blocks::{self, Block, Unreadable};
use super::columns::{column, count};
use super::daemon::Inner;
use super::held::{Letter, Work};
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
