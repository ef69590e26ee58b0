//! What can be asked about the outbox, from any daemon. What flies is known to the owner of its
//! destination alone: another daemon counts it as waiting.

use std::collections::BTreeSet;
use std::sync::Arc;

use tokio_postgres::Row;

use super::columns::column;
use super::columns::read_id;
use super::columns::{count, counters, millis};
use super::daemon::Inner;
use super::handle::SharedOutbox;
use super::lock::lock;
use crate::clock::UnixMillis;
use crate::model::{DeliveryId, DestinationId};
use crate::outbox::delivery::Ending;
use crate::outbox::delivery::{DeliveryCursor, DeliveryPage, DeliveryState, Tally};
use crate::outbox::error::Error;
use crate::outbox::status::{Damage, DestinationState, Holder, Title, Usage};
use crate::outbox::webhook::{WebhookKey, WebhookState};

/// A daemon of the outbox.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Daemon {
    /// What people call it.
    pub name: String,
    /// Since when it runs, by the server's clock.
    pub since: UnixMillis,
    /// Since when it has been silent, in seconds; 5 and more are unusual.
    pub silent: u64,
    /// The destinations that it sends to.
    pub destinations: Vec<DestinationId>,
    /// Whether it is this one.
    pub own: bool,
}

macro_rules! states {
    ($which:literal) => {
        concat!(
            "SELECT d.id, d.destination, d.label, d.title, d.link, d.received, d.committed,
                d.rows_in, d.users, d.rows_mapped, d.batches, d.requests, d.rejected, d.unchanged,
                d.notes, p.delivered_rows, p.delivered_batches, p.dead_rows, p.dead_batches,
                p.discarded_rows, p.discarded_batches, p.damaged_rows, p.damaged_batches,
                p.cancelled_rows, p.cancelled_batches, p.erased_rows, p.erased_batches,
                d.erased_rejected, p.held, p.cancelled_at, p.finished
             FROM looker_feed.delivery d JOIN looker_feed.progress p ON p.delivery = d.id ",
            $which
        )
    };
}
const ONE: &str = states!("WHERE d.id = $1 AND d.state = 1");
const NEWEST: &str = states!(
    "WHERE d.state = 1 AND (d.committed, d.id) < ($1::int8, $2::bytea)
     ORDER BY d.committed DESC, d.id DESC LIMIT $3"
);
const TITLES: &str = "SELECT title, count(*) AS deliveries, max(received) AS newest
     FROM looker_feed.delivery WHERE state = 1 GROUP BY title ORDER BY title";
const DESTINATIONS: &str =
    "SELECT t.id, t.label, w.deliveries, w.rows, w.batches, w.bytes, w.oldest,
        (SELECT count(DISTINCT l.queued) FROM looker_feed.letter l
            WHERE l.destination = t.id AND l.queued IS NOT NULL) AS replays,
        CASE WHEN t.lease_until > clock_timestamp() THEN t.owner END AS owner,
        (SELECT m.name FROM looker_feed.daemon m WHERE m.id = t.owner) AS holder
     FROM (SELECT p.destination, count(*) FILTER (WHERE p.frontier < d.requests) AS deliveries,
            sum(d.rows_mapped - p.delivered_rows - p.dead_rows - p.discarded_rows - p.damaged_rows
                - p.cancelled_rows - p.erased_rows)::int8 AS rows,
            sum(d.batches - p.delivered_batches - p.dead_batches - p.discarded_batches
                - p.damaged_batches - p.cancelled_batches - p.erased_batches)::int8 AS batches,
            sum(d.bytes)::int8 AS bytes, min(d.received) AS oldest
        FROM looker_feed.progress p JOIN looker_feed.delivery d ON d.id = p.delivery
        WHERE p.open AND NOT p.held GROUP BY p.destination) w
     JOIN looker_feed.destination t ON t.id = w.destination ORDER BY t.id";
const USAGE: &str = "SELECT
     (SELECT coalesce(sum(d.bytes), 0)::int8 FROM looker_feed.progress p
        JOIN looker_feed.delivery d ON d.id = p.delivery WHERE NOT p.cleared) AS bytes,
     (SELECT coalesce(sum(d.requests - p.frontier), 0)::int8 FROM looker_feed.progress p
        JOIN looker_feed.delivery d ON d.id = p.delivery WHERE p.open) AS entries,
     (SELECT coalesce(sum(dead_rows), 0)::int8 FROM looker_feed.progress
        WHERE dead_batches > 0) AS dead_rows,
     (SELECT coalesce(sum(dead_batches), 0)::int8 FROM looker_feed.progress
        WHERE dead_batches > 0) AS dead_batches,
     (SELECT count(*) FROM looker_feed.attempt WHERE ended IS NULL)
        + (SELECT count(*) FROM looker_feed.delivery d WHERE d.state = 0 AND NOT EXISTS
            (SELECT 1 FROM looker_feed.attempt a WHERE a.id = d.id)) AS receiving,
     (SELECT count(*) FROM looker_feed.delivery WHERE state = 1) AS deliveries,
     (SELECT coalesce(sum(kept), 0)::int8 FROM looker_feed.delivery WHERE state = 1) AS kept,
     (SELECT coalesce(sum(cancelled_rows), 0)::int8 FROM looker_feed.progress) AS cancelled_rows,
     (SELECT coalesce(sum(cancelled_batches), 0)::int8 FROM looker_feed.progress)
        AS cancelled_batches,
     (SELECT count(*) FROM looker_feed.progress WHERE open AND held) AS held";
const READING: &str = "its state could not be read";

impl SharedOutbox {
    /// What is known of a webhook id.
    ///
    /// # Errors
    /// The server cannot be asked.
    pub fn webhook(&self, id: &str) -> Result<WebhookState, Error> {
        let inner = Arc::clone(&self.inner);
        let key = WebhookKey::of(id);
        self.run(async move { super::commit::webhook(&inner, &key.0).await })
    }

    /// Destinations with something to do, in the order of their ids.
    ///
    /// # Errors
    /// The server cannot be asked.
    pub fn destinations(&self) -> Result<Vec<DestinationState>, Error> {
        let inner = Arc::clone(&self.inner);
        self.run(async move {
            let rows = inner.show(READING, DESTINATIONS, &[]).await?;
            rows.iter().map(|row| destination(&inner, row)).collect()
        })
    }

    /// Deliveries in the order of their commit, the newest first: at most `limit`, those behind `after`.
    pub fn deliveries(
        &self,
        after: Option<DeliveryCursor>,
        limit: usize,
    ) -> Result<DeliveryPage, Error> {
        let inner = Arc::clone(&self.inner);
        // One more, to know whether there is more.
        let wanted = i64::try_from(limit).unwrap_or(i64::MAX).saturating_add(1);
        self.run(async move {
            let (place, id) = after.map_or((i64::MAX, [255; 16]), |after| {
                (after.place as i64, after.id.0)
            });
            let rows = inner
                .show(READING, NEWEST, &[&place, &&id[..], &wanted])
                .await?;
            let mut deliveries = rows
                .iter()
                .map(|row| state(&inner, row))
                .collect::<Result<Vec<_>, Error>>()?;
            let more = deliveries.len() > limit;
            deliveries.truncate(limit);
            let last = deliveries.last().map(|last| last.cursor);
            Ok(DeliveryPage {
                next: last.filter(|_| more),
                deliveries,
            })
        })
    }

    /// One delivery, while it is listed.
    ///
    /// # Errors
    /// The server cannot be asked.
    pub fn delivery(&self, id: DeliveryId) -> Result<Option<DeliveryState>, Error> {
        let inner = Arc::clone(&self.inner);
        self.run(async move { delivery(&inner, id).await })
    }

    /// The titles of listed deliveries, in alphabetical order.
    ///
    /// # Errors
    /// The server cannot be asked.
    pub fn titles(&self) -> Result<Vec<Title>, Error> {
        let inner = Arc::clone(&self.inner);
        self.run(async move {
            let rows = inner.show(READING, TITLES, &[]).await?;
            let mut titles = rows
                .iter()
                .map(|row| {
                    Ok(Title {
                        title: column(row, "title")?,
                        deliveries: count(row, "deliveries")?,
                        newest: millis(row, "newest")?,
                    })
                })
                .collect::<Result<Vec<Title>, Error>>()?;
            // The server may sort by a language.
            titles.sort_by(|one, other| one.title.cmp(&other.title));
            Ok(titles)
        })
    }

    /// How large the outbox is. `free` is not known.
    ///
    /// # Errors
    /// The server cannot be asked.
    pub fn usage(&self) -> Result<Usage, Error> {
        let inner = Arc::clone(&self.inner);
        self.run(async move {
            let rows = inner.show(READING, USAGE, &[]).await?;
            let Some(row) = rows.first() else {
                return Ok(Usage::default());
            };
            Ok(Usage {
                bytes: count(row, "bytes")?,
                entries: count(row, "entries")?,
                dead_letters: Tally {
                    rows: count(row, "dead_rows")?,
                    batches: count(row, "dead_batches")?,
                },
                receiving: count(row, "receiving")?,
                deliveries: count(row, "deliveries")?,
                rejected_rows: count(row, "kept")?,
                cancelled: Tally {
                    rows: count(row, "cancelled_rows")?,
                    batches: count(row, "cancelled_batches")?,
                },
                held: count(row, "held")?,
                ..Usage::default()
            })
        })
    }

    /// How a delivery ended.
    ///
    /// # Errors
    /// The server cannot be asked.
    pub fn ending(&self, id: DeliveryId) -> Result<Ending, Error> {
        let inner = Arc::clone(&self.inner);
        self.run(async move { ending(&inner, id).await })
    }

    /// What was found damaged, the latest 200: as of the last sweep, and here since.
    pub fn damage(&self) -> Vec<Damage> {
        lock(&self.inner.damage).clone()
    }

    /// The daemons that have been heard of within the last minute, by their names, with what each sends
    /// to.
    ///
    /// # Errors
    /// The server cannot be asked.
    pub fn daemons(&self) -> Result<Vec<Daemon>, Error> {
        let inner = Arc::clone(&self.inner);
        self.run(async move {
            let sql = "SELECT m.id, m.name, (extract(epoch FROM m.since) * 1000)::int8 AS since,
                    greatest(0, extract(epoch FROM clock_timestamp() - m.beat))::int8 AS silent,
                    (SELECT coalesce(array_agg(t.id ORDER BY t.id), '{}')
                        FROM looker_feed.destination t WHERE t.owner = m.id
                        AND t.lease_until > clock_timestamp()) AS destinations
                 FROM looker_feed.daemon m
                 WHERE m.beat > clock_timestamp() - interval '1 minute' ORDER BY m.name, m.id";
            let rows = inner.show(READING, sql, &[]).await?;
            rows.iter()
                .map(|row| {
                    let ids: Vec<&[u8]> = column(row, "destinations")?;
                    let ids = ids.into_iter().filter_map(|id| id.try_into().ok());
                    Ok(Daemon {
                        name: column(row, "name")?,
                        since: millis(row, "since")?,
                        silent: count(row, "silent")?,
                        destinations: ids.map(DestinationId).collect(),
                        own: read_id(row, "id")? == inner.me,
                    })
                })
                .collect()
        })
    }
}

fn destination(inner: &Inner, row: &Row) -> Result<DestinationState, Error> {
    let id = DestinationId(read_id(row, "id")?);
    let mut waiting = Tally {
        rows: count(row, "rows")?,
        batches: count(row, "batches")?,
    };
    let mut in_flight = Tally::default();
    let held = inner.held().get(&id).cloned();
    if let Some(held) = held {
        let flight = held.flight();
        for flying in flight.deliveries.values() {
            flying
                .claimed
                .values()
                .for_each(|tally| in_flight += *tally);
        }
        for (_, tally) in flight.letters.values() {
            in_flight += *tally;
        }
    }
    in_flight = least(in_flight, waiting);
    waiting -= in_flight;
    let owner: Option<&[u8]> = column(row, "owner")?;
    let name: Option<String> = column(row, "holder")?;
    let holder = owner.map(|owner| Holder {
        name: name.unwrap_or_default(),
        own: *owner == inner.me,
    });
    Ok(DestinationState {
        id,
        label: column(row, "label")?,
        deliveries: count(row, "deliveries")? + count(row, "replays")?,
        waiting,
        in_flight,
        bytes: count(row, "bytes")?,
        oldest: Some(millis(row, "oldest")?),
        holder,
    })
}

/// What flies and what has settled are read one after the other; no row counts twice.
fn least(one: Tally, other: Tally) -> Tally {
    Tally {
        rows: one.rows.min(other.rows),
        batches: one.batches.min(other.batches),
    }
}

pub(super) async fn delivery(
    inner: &Inner,
    id: DeliveryId,
) -> Result<Option<DeliveryState>, Error> {
    let rows = inner.read(READING, ONE, &[&&id.0[..]]).await?;
    rows.first().map(|row| state(inner, row)).transpose()
}

fn state(inner: &Inner, row: &Row) -> Result<DeliveryState, Error> {
    let id = DeliveryId(read_id(row, "id")?);
    let destination = DestinationId(read_id(row, "destination")?);
    let counters = counters(row)?;
    let mapped = Tally {
        rows: count(row, "rows_mapped")?,
        batches: count(row, "batches")?,
    };
    let mut waiting = mapped;
    waiting -= counters.settled();
    let held = inner.held().get(&destination).cloned();
    let flying = held.map_or_else(Tally::default, |held| held.flight().tally(id));
    let in_flight = least(flying, waiting);
    waiting -= in_flight;
    let committed = millis(row, "committed")?;
    Ok(DeliveryState {
        id,
        cursor: DeliveryCursor {
            place: committed.0,
            id,
        },
        destination,
        destination_label: column(row, "label")?,
        title: column(row, "title")?,
        link: column(row, "link")?,
        received: millis(row, "received")?,
        committed,
        rows_in: count(row, "rows_in")?,
        users: count(row, "users")?,
        batches: mapped.batches,
        requests: count(row, "requests")?,
        waiting,
        in_flight,
        delivered: counters.delivered,
        dead: counters.dead,
        discarded: counters.discarded,
        damaged: counters.damaged,
        cancelled: counters.cancelled,
        cancelled_at: counters.cancelled_at,
        erased: counters.all_erased(),
        held: column(row, "held")?,
        rejected: count(row, "rejected")?.saturating_sub(counters.erased_rejected),
        unchanged: count(row, "unchanged")?,
        notes: column(row, "notes")?,
        settled: counters.settled() == mapped,
        finished: counters.finished,
    })
}

async fn ending(inner: &Inner, id: DeliveryId) -> Result<Ending, Error> {
    let Some(state) = delivery(inner, id).await? else {
        return Ok(Ending::Unknown);
    };
    if !state.settled {
        return Ok(Ending::Open);
    }
    let sql = "SELECT ordinal FROM looker_feed.letter WHERE delivery = $1";
    let mut requests = BTreeSet::new();
    for row in inner.read(READING, sql, &[&&id.0[..]]).await? {
        requests.insert(u32::try_from(count(&row, "ordinal")?).unwrap_or(u32::MAX));
    }
    let mut told = state.delivered;
    told += state.dead;
    // What is known of users who were erased is gone as well.
    told += state.erased;
    let mapped = Tally {
        rows: state.rows_in - state.rejected - state.unchanged,
        batches: state.batches,
    };
    if told != mapped {
        return Ok(Ending::InDoubt);
    }
    Ok(Ending::Settled(requests.into_iter().collect()))
}
