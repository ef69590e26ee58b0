//! How the owner of a destination comes to know it: it reads rows as it puts its fence on them.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use tokio_postgres::Row;

use super::columns::{column, count, counters, millis, read_id};
use super::daemon::Inner;
use super::held::{Brief, Held, Letter, Open, Progress, Work};
use super::marks::Marks;
use super::session::Tries;
use crate::model::{DeliveryId, DestinationId};
use crate::outbox::bits::Bits;
use crate::outbox::delivery::Tally;
use crate::outbox::error::Error;

/// Deliveries that are looked at ahead; more are fetched when these have settled.
const AHEAD: i64 = 256;

/// Puts the fence on rows of progress, and reads them: who had it before can change them no more.
/// Carried out twice it comes to the same.
macro_rules! fence {
    ($which:literal) => {
        concat!(
            "WITH held AS (SELECT id FROM looker_feed.destination
                WHERE id = $1 AND owner = $2 AND epoch = $3 FOR SHARE),
             heads AS (SELECT p.delivery FROM looker_feed.progress p, held
                WHERE p.destination = held.id AND ",
            $which,
            ")
             UPDATE looker_feed.progress p SET owner = $2, epoch = $3
             FROM heads h, looker_feed.delivery d
             WHERE p.delivery = h.delivery AND d.id = p.delivery
             RETURNING d.id, d.destination, d.label, d.title, d.received, d.requests, d.rows_mapped,
                d.batches, p.position, p.version, p.frontier, p.beyond,
                p.delivered_rows, p.delivered_batches, p.dead_rows, p.dead_batches,
                p.discarded_rows, p.discarded_batches, p.damaged_rows, p.damaged_batches,
                p.cancelled_rows, p.cancelled_batches, p.erased_rows, p.erased_batches,
                d.erased_rejected, p.held, p.cancelled_at, p.finished"
        )
    };
}
const FENCE_NEXT: &str =
    fence!("p.open AND NOT p.held AND p.position > $4 ORDER BY p.position LIMIT $5");
const FENCE_THESE: &str = fence!("p.delivery = ANY($4::bytea[])");
const STILL_HELD: &str =
    "SELECT account FROM looker_feed.destination WHERE id = $1 AND owner = $2 AND epoch = $3";
const QUEUED: &str = "SELECT id AS letter, delivery, ordinal, live, rows, batches, queued
     FROM looker_feed.letter WHERE destination = $1 AND queued IS NOT NULL ORDER BY queued, id";

impl Work {
    /// Looks at what it has not looked at, if there may be something.
    pub async fn refresh(&mut self, inner: &Inner, held: &Held) -> Result<(), Error> {
        if self.doubt {
            inner.confirm().await?;
            self.forget();
        }
        let stale = held.stale.swap(false, Ordering::AcqRel);
        let seen = self.seen;
        let beyond = |turn: &u64| *turn as i64 > seen;
        let ahead = self.more && self.turns.keys().next().is_none_or(beyond);
        if self.loaded && !stale && !ahead {
            return Ok(());
        }
        let loaded = self.load(inner, held).await;
        if loaded.is_err() {
            held.stale.store(true, Ordering::Release);
        }
        loaded
    }

    /// Everything is to be read again.
    fn forget(&mut self) {
        let account = Arc::clone(&self.account);
        *self = Self {
            account,
            seen: -1,
            ..Self::default()
        };
    }

    async fn load(&mut self, inner: &Inner, held: &Held) -> Result<(), Error> {
        let (destination, me) = (&held.destination.0[..], &inner.me[..]);
        let rows = inner
            .write(
                "its queue could not be read",
                FENCE_NEXT,
                &[&destination, &me, &held.epoch, &self.seen, &AHEAD],
                Tries::UntilKnown,
            )
            .await?;
        self.more = rows.len() as i64 == AHEAD;
        self.fresh = true;
        let mut new = Vec::new();
        for row in &rows {
            new.push(Open::read(row)?);
        }
        self.check_held(inner, held).await?;
        for open in new {
            self.seen = self.seen.max(open.progress.position as i64);
            self.put(open);
        }
        if !self.loaded {
            self.load_letters(inner, held).await?;
            self.loaded = true;
        }
        Ok(())
    }

    /// Tells an empty answer from a lost lease, and brings the newest account.
    async fn check_held(&mut self, inner: &Inner, held: &Held) -> Result<(), Error> {
        let (destination, me) = (&held.destination.0[..], &inner.me[..]);
        let still = inner
            .read(
                "the lease could not be looked at",
                STILL_HELD,
                &[&destination, &me, &held.epoch],
            )
            .await?;
        let Some(row) = still.first() else {
            held.lose();
            return Err(Error::LeaseLost);
        };
        self.account = column::<Vec<u8>>(row, "account")?.into();
        Ok(())
    }

    async fn load_letters(&mut self, inner: &Inner, held: &Held) -> Result<(), Error> {
        let destination = &held.destination.0[..];
        let doing = "its replayed letters could not be read";
        let rows = inner.read(doing, QUEUED, &[&destination]).await?;
        let mut strange = BTreeSet::new();
        for row in &rows {
            let letter = Letter::read(row)?;
            if !self.open.contains_key(&letter.delivery) {
                strange.insert(letter.delivery);
            }
        }
        self.fetch(inner, held, strange.into_iter().collect())
            .await?;
        // All of their deliveries are fenced now: nobody else changes them any more.
        for row in &inner.read(doing, QUEUED, &[&destination]).await? {
            let id = count(row, "letter")?;
            self.put_letter(id, Letter::read(row)?);
        }
        Ok(())
    }

    /// Puts the fence on these deliveries, wherever they stand, and reads them.
    pub async fn fetch(
        &mut self,
        inner: &Inner,
        held: &Held,
        ids: Vec<DeliveryId>,
    ) -> Result<(), Error> {
        let unknown: Vec<&[u8]> = ids
            .iter()
            .filter(|id| !self.open.contains_key(id))
            .map(|id| &id.0[..])
            .collect();
        if unknown.is_empty() {
            return Ok(());
        }
        let (destination, me) = (&held.destination.0[..], &inner.me[..]);
        let rows = inner
            .write(
                "deliveries could not be read",
                FENCE_THESE,
                &[&destination, &me, &held.epoch, &unknown],
                Tries::UntilKnown,
            )
            .await?;
        if rows.len() < unknown.len() {
            // They are not there, or the lease is not.
            self.check_held(inner, held).await?;
        }
        for row in &rows {
            let open = Open::read(row)?;
            // One further behind gets its turn when it is looked at in its order.
            let ahead = open.progress.position as i64 > self.seen;
            if ahead {
                self.open.insert(open.brief.id, open);
            } else {
                self.put(open);
            }
        }
        Ok(())
    }
}

impl Open {
    fn read(row: &Row) -> Result<Self, Error> {
        let counters = counters(row)?;
        let brief = Brief {
            id: DeliveryId(read_id(row, "id")?),
            destination: DestinationId(read_id(row, "destination")?),
            label: column(row, "label")?,
            title: column(row, "title")?,
            received: millis(row, "received")?,
            requests: count(row, "requests")?,
            mapped: Tally {
                rows: count(row, "rows_mapped")?,
                batches: count(row, "batches")?,
            },
        };
        let progress = Progress {
            position: count(row, "position")?,
            version: column(row, "version")?,
            marks: Marks::from_parts(count(row, "frontier")?, column(row, "beyond")?),
            held: column(row, "held")?,
            counters,
        };
        Ok(Self {
            brief: Arc::new(brief),
            progress,
        })
    }
}

impl Letter {
    pub fn read(row: &Row) -> Result<Self, Error> {
        Ok(Self {
            delivery: DeliveryId(read_id(row, "delivery")?),
            ordinal: u32::try_from(count(row, "ordinal")?).unwrap_or(u32::MAX),
            live: Bits::from_bytes(&column::<Vec<u8>>(row, "live")?),
            tally: Tally {
                rows: count(row, "rows")?,
                batches: count(row, "batches")?,
            },
            queued: column::<Option<i64>>(row, "queued")?.map(|turn| turn as u64),
        })
    }
}
