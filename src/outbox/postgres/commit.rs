//! The statements by which a delivery comes in: it is begun, its blocks are stored, and it becomes
//! visible or is aborted.

use std::sync::Arc;

use super::blocks::Block;
use super::columns::{column, count, millis, read_id};
use super::daemon::{Inner, database};
use super::lock::lock;
use super::session::{Fault, Tries};
use crate::model::DeliveryId;
use crate::outbox::delivery::{Info, Receipt, Totals};
use crate::outbox::error::Error;
use crate::outbox::webhook::WebhookState;

const EXPIRED: &str =
    "DELETE FROM looker_feed.webhook WHERE key = $1 AND committed < $2 RETURNING 1";
const BEGIN: &str = "WITH place AS (INSERT INTO looker_feed.destination (id, label, account)
        VALUES ($2, $5, '') ON CONFLICT (id) DO NOTHING),
     begun AS (INSERT INTO looker_feed.delivery
        (id, destination, state, stager, title, label, link, received, webhook, key)
        SELECT $1, $2, 0, $3, $4, $5, $6, $7, $8, $9 WHERE NOT EXISTS
            (SELECT 1 FROM looker_feed.attempt a WHERE a.id = $1 AND a.ended IS NOT NULL)
        RETURNING id),
     hook AS (INSERT INTO looker_feed.webhook (key, delivery)
        SELECT $8::bytea, id FROM begun WHERE $8::bytea IS NOT NULL AND NOT EXISTS
            (SELECT 1 FROM looker_feed.webhook w WHERE w.key = $8 AND w.delivery = $1))
     SELECT id FROM begun";
const OURS: &str = "SELECT state, stager FROM looker_feed.delivery WHERE id = $1";

/// Forgets a webhook id that is so old that it counts as new.
pub(super) async fn forget_expired(inner: &Inner, key: Option<&[u8]>) -> Result<(), Error> {
    let Some(key) = key else {
        return Ok(());
    };
    let memory = inner.settings.webhook_memory.as_millis() as i64;
    let since = inner.settings.clock.now().0 as i64 - memory;
    let doing = "a webhook id could not be looked up";
    inner
        .write(doing, EXPIRED, &[&key, &since], Tries::UntilKnown)
        .await
        .map(drop)
}

pub(super) async fn begin(inner: &Inner, info: &Info) -> Result<(), Error> {
    let doing = "a delivery could not be begun";
    let key = info.webhook.map(|key| key.0);
    let key = key.as_ref().map(|key| &key[..]);
    forget_expired(inner, key).await?;
    let id = &info.id.0[..];
    let begun = inner
        .sessions
        .run(
            BEGIN,
            &[
                &id,
                &&info.destination.0[..],
                &&inner.me[..],
                &&*info.title,
                &&*info.label,
                &info.link.as_deref(),
                &(info.received.0 as i64),
                &key,
                &&inner.settings.keys.current().0[..],
            ],
            Tries::UntilKnown,
            inner.settings.within,
        )
        .await;
    match begun {
        // What was reserved has been ended by another daemon.
        Ok(rows) if rows.is_empty() => Err(Error::Database {
            doing,
            why: GONE.into(),
        }),
        Ok(_) => Ok(()),
        // Unique violations: it is known, its webhook is, or an earlier try of this call went through.
        Err(fault) if fault.code() == "23505" => {
            let rows = inner.read(doing, OURS, &[&id]).await?;
            if let Some(row) = rows.first() {
                let ours = column::<i16>(row, "state")? == 0 && read_id(row, "stager")? == inner.me;
                // Ids are never used twice, so one that is ours and new was begun here.
                return if ours && !lock(&inner.aborting).contains(&info.id) {
                    Ok(())
                } else {
                    Err(Error::Duplicate(info.id))
                };
            }
            match info.webhook {
                Some(key) => match webhook(inner, &key.0).await? {
                    WebhookState::Unknown => Err(database(doing, &fault)),
                    known => Err(Error::Webhook(known)),
                },
                None => Err(database(doing, &fault)),
            }
        }
        Err(fault) => Err(database(doing, &fault)),
    }
}

const WEBHOOK: &str = "SELECT delivery, rows, committed FROM looker_feed.webhook WHERE key = $1";

pub(super) async fn webhook(inner: &Inner, key: &[u8]) -> Result<WebhookState, Error> {
    let rows = inner
        .read("a webhook id could not be looked up", WEBHOOK, &[&key])
        .await?;
    let Some(row) = rows.first() else {
        return Ok(WebhookState::Unknown);
    };
    let Some(committed) = column::<Option<i64>>(row, "committed")? else {
        return Ok(WebhookState::Receiving);
    };
    let memory = inner.settings.webhook_memory.as_millis();
    let age = inner
        .settings
        .clock
        .now()
        .0
        .saturating_sub(committed as u64);
    if u128::from(age) >= memory {
        return Ok(WebhookState::Unknown);
    }
    let delivery = DeliveryId(read_id(row, "delivery")?);
    Ok(WebhookState::Committed(delivery, count(row, "rows")?))
}

macro_rules! store {
    ($table:literal, $columns:literal) => {
        concat!(
            // No disk is waited for: the statement that makes the delivery visible waits for all.
            "WITH quick AS (SELECT set_config('synchronous_commit', 'off', true)),
             mine AS (SELECT d.id FROM looker_feed.delivery d, quick
                WHERE d.id = $1 AND d.state = 0 AND d.stager = $2 FOR SHARE OF d),
             stored AS (INSERT INTO looker_feed.",
            $table,
            " (delivery, first, entries, ",
            $columns,
            "body) SELECT mine.id, s.first, s.entries, ",
            $columns,
            "s.body FROM mine, unnest($3::int8[], $4::int4[], $5::bytea[], $6::bytea[])
                AS s(first, entries, places, body) ON CONFLICT (delivery, first) DO NOTHING)
             SELECT id FROM mine"
        )
    };
}
pub(super) const BLOCKS: &str = store!("block", "places, ");
pub(super) const REJECTS: &str = store!("reject", "");

pub(super) async fn store(
    inner: &Inner,
    id: DeliveryId,
    sql: &'static str,
    blocks: &[Block],
) -> Result<(), Error> {
    if blocks.is_empty() {
        return Ok(());
    }
    let first: Vec<i64> = blocks.iter().map(|block| block.first as i64).collect();
    let entries: Vec<i32> = blocks.iter().map(|block| block.entries as i32).collect();
    let places: Vec<&[u8]> = blocks.iter().map(|block| block.places.as_slice()).collect();
    let bodies: Vec<&[u8]> = blocks.iter().map(|block| block.body.as_slice()).collect();
    let doing = "requests could not be stored";
    let rows = inner
        .write(
            doing,
            sql,
            &[
                &&id.0[..],
                &&inner.me[..],
                &first,
                &entries,
                &places,
                &bodies,
            ],
            Tries::UntilKnown,
        )
        .await?;
    if rows.is_empty() {
        return Err(Error::Database {
            doing,
            why: GONE.into(),
        });
    }
    Ok(())
}

const GONE: &str = "the delivery has been aborted, since this daemon was not heard of for long";

/// What makes a delivery visible.
pub(super) struct Flip {
    pub info: Arc<Info>,
    pub blocks: u64,
    pub entries: u64,
    pub kept: u64,
    pub bytes: u64,
    /// Nothing of it is sent before a person releases it.
    pub held: bool,
    pub totals: Totals,
}

const FLIP: &str =
    "WITH there AS (SELECT count(*) AS blocks, coalesce(sum(entries), 0)::int8 AS entries
        FROM looker_feed.block WHERE delivery = $1),
     kept AS (SELECT coalesce(sum(entries), 0)::int8 AS entries
        FROM looker_feed.reject WHERE delivery = $1),
     mine AS (SELECT d.id, d.destination FROM looker_feed.delivery d, there, kept
        WHERE d.id = $1 AND d.state = 0 AND d.stager = $2
        AND there.blocks = $3 AND there.entries = $4 AND kept.entries = $5 FOR UPDATE OF d),
     turn AS (UPDATE looker_feed.destination t
        SET next_position = t.next_position + 1, version = t.version + 1, label = $6,
            account = CASE WHEN length($7::bytea) > 0 THEN $7::bytea ELSE t.account END
        FROM mine WHERE t.id = mine.destination
        RETURNING t.id, t.next_position - 1 AS position),
     flipped AS (UPDATE looker_feed.delivery d
        SET state = 1, committed = (extract(epoch FROM clock_timestamp()) * 1000)::int8,
            rows_in = $8, rejected = $9, unchanged = $10, users = $11, rows_mapped = $12,
            batches = $13, requests = $4, bytes = $14, kept = $5, notes = $15
        FROM turn WHERE d.id = $1 AND d.state = 0 RETURNING d.id, d.committed),
     known AS (UPDATE looker_feed.webhook w SET rows = $8, committed = flipped.committed
        FROM flipped WHERE w.delivery = flipped.id AND w.key = $16),
     arrived AS (DELETE FROM looker_feed.attempt a USING flipped WHERE a.id = flipped.id),
     begun AS (INSERT INTO looker_feed.progress (delivery, destination, position, open, held, finished)
        SELECT flipped.id, turn.id, turn.position, $13::int8 > 0, $17::bool AND $13::int8 > 0,
            CASE WHEN $13::int8 > 0 THEN NULL ELSE flipped.committed END
        FROM flipped, turn RETURNING position)
     SELECT flipped.committed FROM flipped, begun";
pub(super) const ABORT: &str = "WITH gone AS (UPDATE looker_feed.delivery SET state = 2
        WHERE id = $1 AND state = 0 AND stager = $2 RETURNING id),
     forgotten AS (DELETE FROM looker_feed.webhook w USING gone
        WHERE w.delivery = gone.id AND w.committed IS NULL AND NOT EXISTS
            (SELECT 1 FROM looker_feed.attempt a WHERE a.id = gone.id AND a.ended IS NULL))
     SELECT id FROM gone";
/// A write, so that its answer says that what came before it is as durable as it is itself.
const CONFIRM: &str = "UPDATE looker_feed.delivery SET confirmed = confirmed + 1
     WHERE id = $1 AND state = 1 RETURNING committed";

impl Flip {
    pub async fn run(&self, inner: &Inner) -> Result<Receipt, Error> {
        let doing = "the delivery could not be committed";
        let (info, totals) = (&self.info, &self.totals);
        let mapped = totals.mapped();
        let key = info.webhook.map(|key| key.0);
        let key = key.as_ref().map(|key| &key[..]);
        let flipped = inner
            .sessions
            .run(
                FLIP,
                &[
                    &&info.id.0[..],
                    &&inner.me[..],
                    &(self.blocks as i64),
                    &(self.entries as i64),
                    &(self.kept as i64),
                    &&*info.label,
                    &&info.account[..],
                    &(totals.rows_in as i64),
                    &(totals.rows_rejected as i64),
                    &(totals.rows_unchanged as i64),
                    &(totals.users as i64),
                    &(mapped.rows as i64),
                    &(mapped.batches as i64),
                    &(self.bytes as i64),
                    &totals.notes,
                    &key,
                    &self.held,
                ],
                Tries::UntilUnknown,
                inner.settings.within,
            )
            .await;
        let rows = match flipped {
            Ok(rows) => rows,
            Err(Fault::Unknown(words)) => self.resolve(inner, &words).await?,
            Err(fault) => return Err(database(doing, &fault)),
        };
        let Some(row) = rows.first() else {
            return Err(Error::Database {
                doing,
                why: "it was aborted since this daemon was not heard of for long, or a part of it is not there any more".into(),
            });
        };
        Ok(Receipt {
            delivery: info.id,
            committed: millis(row, "committed")?,
            rows: mapped.rows,
            batches: mapped.batches,
            requests: totals.requests,
            bytes: self.bytes,
        })
    }

    /// Whether a delivery whose commit was not answered is visible: by trying to abort it. It returns
    /// rows if it is.
    async fn resolve(&self, inner: &Inner, words: &str) -> Result<Vec<tokio_postgres::Row>, Error> {
        tracing::warn!(
            delivery = %self.info.id, why = words,
            "the commit of a delivery was not answered; finding out what became of it"
        );
        let id = &self.info.id.0[..];
        let doing = "it is not known whether the delivery was committed";
        let aborted = inner
            .sessions
            .run(
                ABORT,
                &[&id, &&inner.me[..]],
                Tries::UntilKnown,
                inner.settings.within * 2,
            )
            .await
            .map_err(|fault| database(doing, &fault))?;
        if !aborted.is_empty() {
            return Ok(Vec::new());
        }
        // It is visible, or an earlier try has aborted it: no row comes back then.
        inner
            .sessions
            .run(
                CONFIRM,
                &[&id],
                Tries::UntilKnown,
                inner.settings.within * 2,
            )
            .await
            .map_err(|fault| database(doing, &fault))
    }
}

/// Aborts what callers have let go of. What cannot be aborted now is tried again.
pub(super) async fn abort_all(inner: &Inner) -> Result<(), Error> {
    loop {
        let Some(id) = lock(&inner.aborting).last().copied() else {
            return Ok(());
        };
        inner
            .write(
                "a delivery could not be aborted",
                ABORT,
                &[&&id.0[..], &&inner.me[..]],
                Tries::UntilKnown,
            )
            .await?;
        lock(&inner.aborting).retain(|other| *other != id);
    }
}
