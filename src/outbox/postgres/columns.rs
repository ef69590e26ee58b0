//! Columns of rows, as the outbox writes them.

use tokio_postgres::Row;
use tokio_postgres::types::FromSql;

use crate::clock::UnixMillis;
use crate::outbox::counters::Counters;
use crate::outbox::delivery::Tally;
use crate::outbox::error::Error;

/// A column of a row that the program's own statement asked for.
pub(super) fn column<'a, T: FromSql<'a>>(row: &'a Row, name: &'static str) -> Result<T, Error> {
    row.try_get(name).map_err(|error| Error::Database {
        doing: "a row is not as the outbox writes it",
        why: error.to_string().into(),
    })
}

pub(super) fn read_id(row: &Row, name: &'static str) -> Result<[u8; 16], Error> {
    let bytes: &[u8] = column(row, name)?;
    bytes.try_into().map_err(|_| Error::Database {
        doing: "a row is not as the outbox writes it",
        why: format!("{name} has {} bytes and not 16", bytes.len()).into(),
    })
}

/// The columns that say where rows and batches went.
pub(super) fn counters(row: &Row) -> Result<Counters, Error> {
    let tally = |rows, batches| {
        Ok::<_, Error>(Tally {
            rows: count(row, rows)?,
            batches: count(row, batches)?,
        })
    };
    Ok(Counters {
        delivered: tally("delivered_rows", "delivered_batches")?,
        dead: tally("dead_rows", "dead_batches")?,
        discarded: tally("discarded_rows", "discarded_batches")?,
        damaged: tally("damaged_rows", "damaged_batches")?,
        cancelled: tally("cancelled_rows", "cancelled_batches")?,
        erased: tally("erased_rows", "erased_batches")?,
        erased_rejected: count(row, "erased_rejected")?,
        cancelled_at: column::<Option<i64>>(row, "cancelled_at")?.map(|at| UnixMillis(at as u64)),
        finished: column::<Option<i64>>(row, "finished")?.map(|at| UnixMillis(at as u64)),
    })
}

pub(super) fn count(row: &Row, name: &'static str) -> Result<u64, Error> {
    column::<i64>(row, name).map(|value| u64::try_from(value).unwrap_or(0))
}

pub(super) fn millis(row: &Row, name: &'static str) -> Result<UnixMillis, Error> {
    count(row, name).map(UnixMillis)
}
