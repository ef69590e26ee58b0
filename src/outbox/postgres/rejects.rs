//! Rows that could not be mapped: shown page by page, searched, and erased. They lie in blocks of their own,
//! which any daemon may write anew: nobody keeps them in memory.

use std::collections::BTreeSet;
use std::sync::Arc;

use tokio_postgres::Row;

use super::blocks::Block;
use super::columns::{column, count, read_id};
use super::daemon::Inner;
use super::erasing::Piece;
use super::handle::SharedOutbox;
use super::session::Tries;
use super::status::delivery;
use crate::model::DeliveryId;
use crate::outbox::delivery::Tally;
use crate::outbox::erase::{Matcher, Scan};
use crate::outbox::error::Error;
use crate::outbox::record::{Frame, Kind, scan as frames};
use crate::outbox::rejected::{Rejected, RejectedPage};

const READING: &str = "rejected rows could not be read";

/// The block that holds a row by its place among those that are kept, and how many are kept up to its end.
const AT: &str = "SELECT r.entries, r.body, s.upto
     FROM (SELECT first, sum(entries) OVER (ORDER BY first)::int8 AS upto
        FROM looker_feed.reject WHERE delivery = $1) s
     JOIN looker_feed.reject r ON r.delivery = $1 AND r.first = s.first
     WHERE s.upto > $2 ORDER BY r.first LIMIT 1";
const KEPT: &str = "SELECT coalesce(sum(entries), 0)::int8 AS kept FROM looker_feed.reject
     WHERE delivery = $1";
const NEXT: &str = "SELECT r.delivery, r.first, r.entries, r.body FROM looker_feed.reject r
     JOIN looker_feed.delivery d ON d.id = r.delivery AND d.state = 1
     WHERE (r.delivery, r.first) > ($1, $2) AND ($3::bytea[] IS NULL OR r.delivery = ANY($3))
     ORDER BY r.delivery, r.first LIMIT 4";
/// Written anew, unless it has been changed since it was read; gone, if nothing of it is left.
const ANEW: &str = "WITH anew AS (UPDATE looker_feed.reject SET entries = $4, body = $5
        WHERE delivery = $1 AND first = $2 AND body = $3 AND $4 > 0 RETURNING delivery),
     gone AS (DELETE FROM looker_feed.reject
        WHERE delivery = $1 AND first = $2 AND body = $3 AND $4 = 0 RETURNING delivery),
     done AS (SELECT delivery FROM anew UNION ALL SELECT delivery FROM gone)
     UPDATE looker_feed.delivery d SET erased_rejected = d.erased_rejected + $6, kept = d.kept - $6
     FROM done WHERE d.id = done.delivery RETURNING 1";

/// Some rows of a delivery, as they lie on the server.
struct Stored {
    delivery: DeliveryId,
    first: i64,
    entries: i32,
    body: Vec<u8>,
}

impl SharedOutbox {
    /// Rows of a delivery that could not be mapped: at most `limit`, from `after` on.
    pub fn rejected(
        &self,
        id: DeliveryId,
        after: Option<u64>,
        limit: usize,
    ) -> Result<Option<RejectedPage>, Error> {
        let inner = Arc::clone(&self.inner);
        let from = after.unwrap_or(0);
        self.run(async move { page(&inner, id, from, limit).await })
    }

    /// Shows how many rows are meant, delivery by delivery.
    pub(super) fn find_rejected(
        &self,
        matcher: &dyn Matcher,
        scan: &Scan,
        mut found: impl FnMut(DeliveryId, u64),
    ) -> Result<(), Error> {
        self.each_piece(None, scan, |stored: Stored| {
            let meant = self.meant_rows(&stored, matcher)?.len() as u64;
            if meant > 0 {
                found(stored.delivery, meant);
            }
            Ok(())
        })
    }

    /// Erases the rows that are meant, of these deliveries or of all. Returns how many.
    pub(super) fn erase_rejected(
        &self,
        of: Option<&BTreeSet<DeliveryId>>,
        matcher: &dyn Matcher,
        scan: &Scan,
    ) -> Result<u64, Error> {
        let mut sum = 0;
        self.each_piece(of, scan, |stored: Stored| {
            let meant = self.meant_rows(&stored, matcher)?;
            if meant.is_empty() {
                return Ok(());
            }
            let mut kept = Block::default();
            for (offset, length, _) in frames(&stored.body) {
                if !meant.contains(&offset) {
                    let record = stored.body.get(offset..offset + length);
                    kept.put(record.unwrap_or_default(), Tally::default());
                }
            }
            // One that is damaged cannot be told from others: it goes with them.
            let gone = i64::from(stored.entries) - i64::from(kept.entries);
            let inner = Arc::clone(&self.inner);
            let rows = self.run(async move {
                let params: super::session::Params<'_> = &[
                    &&stored.delivery.0[..],
                    &stored.first,
                    &stored.body,
                    &(kept.entries as i32),
                    &kept.body,
                    &gone,
                ];
                let doing = "rejected rows could not be erased";
                inner.write(doing, ANEW, params, Tries::UntilUnknown).await
            })?;
            if rows.is_empty() {
                return Err(Error::Database {
                    doing: "rejected rows could not be erased",
                    why: "they have been changed meanwhile".into(),
                });
            }
            sum += gone as u64;
            Ok(())
        })?;
        Ok(sum)
    }

    /// Where the rows begin that are meant.
    fn meant_rows(&self, stored: &Stored, matcher: &dyn Matcher) -> Result<BTreeSet<usize>, Error> {
        let mut meant = BTreeSet::new();
        for (offset, _, frame) in frames(&stored.body) {
            let row = open(&self.inner, stored.delivery, &frame)?;
            if row.is_some_and(|row| matcher.row(&row.text)) {
                meant.insert(offset);
            }
        }
        Ok(meant)
    }
}

impl Piece for Stored {
    const NEXT: &'static str = NEXT;
    const READING: &'static str = READING;

    fn read(row: &Row) -> Result<Self, Error> {
        Ok(Self {
            delivery: DeliveryId(read_id(row, "delivery")?),
            first: column(row, "first")?,
            entries: column(row, "entries")?,
            body: column(row, "body")?,
        })
    }

    fn place(&self) -> (DeliveryId, i64) {
        (self.delivery, self.first)
    }

    fn body(&self) -> &[u8] {
        &self.body
    }
}

/// A row, opened; `None`: it is damaged.
fn open(inner: &Inner, delivery: DeliveryId, frame: &Frame<'_>) -> Result<Option<Rejected>, Error> {
    if (frame.name.kind, frame.name.delivery) != (Kind::Rejected, delivery) {
        return Ok(None);
    }
    let keys = &inner.settings.keys;
    if let Some(key) = frame.key_id()
        && !keys.holds(key)
    {
        return Err(Error::MissingKey { key });
    }
    let opened = frame.open(keys);
    Ok(opened.and_then(|record| Rejected::of(&record)).ok())
}

async fn page(
    inner: &Inner,
    id: DeliveryId,
    from: u64,
    limit: usize,
) -> Result<Option<RejectedPage>, Error> {
    let Some(state) = delivery(inner, id).await? else {
        return Ok(None);
    };
    let mut page = RejectedPage {
        total: state.rejected,
        ..RejectedPage::default()
    };
    if let Some(row) = inner.read(READING, KEPT, &[&&id.0[..]]).await?.first() {
        page.kept = count(row, "kept")?;
    }
    let until = from.saturating_add(limit as u64).min(page.kept);
    page.next = (until < page.kept).then_some(until);
    let mut at = from;
    while at < until {
        let rows = inner.read(READING, AT, &[&&id.0[..], &(at as i64)]).await?;
        let Some(row) = rows.first() else {
            break;
        };
        let (body, upto): (&[u8], u64) = (column(row, "body")?, count(row, "upto")?);
        let entries: i32 = column(row, "entries")?;
        let first = upto.saturating_sub(entries.max(0) as u64);
        for ((_, _, frame), place) in frames(body).zip(first..upto) {
            if (at..until).contains(&place) {
                // A damaged row is left out.
                page.rows.extend(open(inner, id, &frame)?);
            }
        }
        at = upto;
    }
    Ok(Some(page))
}
