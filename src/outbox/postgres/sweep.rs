//! Room: what nobody needs any more is deleted, in small statements, by any of the daemons. Each of them
//! may be carried out twice, or by two at once.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use tokio::time::sleep;

use super::columns::count;
use super::daemon::Inner;
use super::facts::ServerFacts;
use super::lock::lock;
use super::session::{Params, Tries};
use crate::outbox::attempt::INTERRUPTED;
use crate::outbox::error::Error;

/// Between two sweeps, about.
const EVERY: Duration = Duration::from_secs(10);
/// The same for what nobody is in a hurry for, while nothing happens.
const AT_REST: Duration = Duration::from_secs(120);
/// Rows that one statement deletes at most; a block has up to 256 KiB.
const PART: i64 = 64;

pub(super) async fn sweep(inner: Arc<Inner>) {
    let mut rested = None;
    loop {
        if let Err(error) = turn(&inner, &mut rested).await {
            tracing::debug!(%error, "the outbox could not be swept; it is tried again");
        }
        sleep(EVERY.mul_f64(0.75 + fastrand::f64() / 2.0)).await;
    }
}

/// Where nothing has happened since the last sweep, most of it waits for [`AT_REST`]. `rested`: when that
/// was, and at which version of the outbox.
async fn turn(inner: &Inner, rested: &mut Option<(Instant, u64)>) -> Result<(), Error> {
    let version = *inner.changed.borrow();
    let is_at_rest = inner.is_at_rest()
        && rested.is_some_and(|(since, at)| at == version && since.elapsed() < AT_REST);
    let mut swept = take_from_the_dead(inner).await?;
    if !is_at_rest || swept > 0 {
        swept += tidy(inner).await?;
        *rested = (swept == 0).then(|| (Instant::now(), version));
    }
    look(inner).await
}

/// Begun by a daemon that is not heard of, and without an end. $2: how they ended.
const INTERRUPTED_ATTEMPTS: &str = "WITH lost AS (UPDATE looker_feed.attempt a
        SET kind = $2, ended = (extract(epoch FROM clock_timestamp()) * 1000)::int8
        WHERE a.ended IS NULL AND NOT EXISTS (SELECT 1 FROM looker_feed.daemon m
            WHERE m.id = a.stager
            AND m.beat > clock_timestamp() - $1::float8 * interval '1 second') RETURNING a.id)
     DELETE FROM looker_feed.webhook w USING lost
     WHERE w.delivery = lost.id AND w.committed IS NULL RETURNING 1";
/// The oldest that failed, beyond those that are remembered.
const ATTEMPTS: &str = "DELETE FROM looker_feed.attempt WHERE id IN (
        SELECT id FROM looker_feed.attempt WHERE ended IS NOT NULL
        ORDER BY id DESC OFFSET $1 LIMIT $2) RETURNING 1";
/// Staged by a daemon that is not heard of.
const ORPHANS: &str = "WITH gone AS (UPDATE looker_feed.delivery d SET state = 2
        WHERE d.state = 0 AND NOT EXISTS (SELECT 1 FROM looker_feed.daemon m WHERE m.id = d.stager
            AND m.beat > clock_timestamp() - $1::float8 * interval '1 second') RETURNING d.id),
     forgotten AS (DELETE FROM looker_feed.webhook w USING gone
        WHERE w.delivery = gone.id AND w.committed IS NULL AND NOT EXISTS
            (SELECT 1 FROM looker_feed.attempt a WHERE a.id = gone.id AND a.ended IS NULL))
     SELECT id FROM gone";
const ABORTED_BLOCKS: &str = "DELETE FROM looker_feed.block WHERE (delivery, first) IN (
        SELECT b.delivery, b.first FROM looker_feed.delivery d
        JOIN looker_feed.block b ON b.delivery = d.id WHERE d.state = 2 LIMIT $1) RETURNING 1";
const ABORTED_REJECTS: &str = "DELETE FROM looker_feed.reject WHERE (delivery, first) IN (
        SELECT b.delivery, b.first FROM looker_feed.delivery d
        JOIN looker_feed.reject b ON b.delivery = d.id WHERE d.state = 2 LIMIT $1) RETURNING 1";
const ABORTED: &str = "DELETE FROM looker_feed.delivery WHERE id IN (
        SELECT d.id FROM looker_feed.delivery d WHERE d.state = 2
        AND NOT EXISTS (SELECT 1 FROM looker_feed.block b WHERE b.delivery = d.id)
        AND NOT EXISTS (SELECT 1 FROM looker_feed.reject r WHERE r.delivery = d.id) LIMIT $1)
     RETURNING 1";
/// Blocks all of whose requests have settled, of deliveries that have not.
const PASSED: &str = "DELETE FROM looker_feed.block WHERE (delivery, first) IN (
        SELECT b.delivery, b.first FROM looker_feed.progress p
        JOIN looker_feed.block b ON b.delivery = p.delivery AND b.first < p.frontier
            AND b.first + b.entries <= p.frontier WHERE p.open LIMIT $1) RETURNING 1";
const SETTLED: &str = "DELETE FROM looker_feed.block WHERE (delivery, first) IN (
        SELECT b.delivery, b.first FROM looker_feed.progress p
        JOIN looker_feed.block b ON b.delivery = p.delivery
        WHERE NOT p.cleared AND NOT p.open LIMIT $1) RETURNING 1";
const CLEARED: &str = "UPDATE looker_feed.progress SET cleared = true WHERE delivery IN (
        SELECT p.delivery FROM looker_feed.progress p WHERE NOT p.cleared AND NOT p.open
        AND NOT EXISTS (SELECT 1 FROM looker_feed.block b WHERE b.delivery = p.delivery) LIMIT $1)
     RETURNING 1";
/// The oldest settled deliveries beyond those that stay listed. With dead letters they stay.
const HISTORY: &str = "WITH old AS (SELECT d.id FROM looker_feed.delivery d
        JOIN looker_feed.progress p ON p.delivery = d.id
        WHERE d.state = 1 AND NOT p.open AND p.cleared AND p.dead_batches = 0
        ORDER BY d.committed DESC, d.id DESC OFFSET $1 LIMIT $2),
     rejects AS (DELETE FROM looker_feed.reject r USING old WHERE r.delivery = old.id),
     progress AS (DELETE FROM looker_feed.progress p USING old
        WHERE p.delivery = old.id AND NOT p.open RETURNING p.delivery)
     DELETE FROM looker_feed.delivery d USING progress WHERE d.id = progress.delivery RETURNING 1";
const WEBHOOKS: &str = "DELETE FROM looker_feed.webhook WHERE key IN (
        SELECT key FROM looker_feed.webhook WHERE committed < $1 LIMIT $2) RETURNING 1";
const REQUESTS: &str = "DELETE FROM looker_feed.request
     WHERE asked < clock_timestamp() - interval '1 hour' AND answer IS NOT NULL RETURNING 1";
const DAEMONS: &str = "DELETE FROM looker_feed.daemon m
     WHERE m.beat < clock_timestamp() - interval '1 day'
     AND NOT EXISTS (SELECT 1 FROM looker_feed.delivery d WHERE d.stager = m.id AND d.state = 0)
     AND NOT EXISTS (SELECT 1 FROM looker_feed.attempt a WHERE a.stager = m.id AND a.ended IS NULL)
     RETURNING 1";
const DAMAGES: &str = "DELETE FROM looker_feed.damage WHERE found < (
        SELECT min(found) FROM (SELECT found FROM looker_feed.damage ORDER BY found DESC LIMIT 200) n)
     RETURNING 1";
/// Accounts that nobody needs any more. A delivery that comes brings one.
const ACCOUNTS: &str = "UPDATE looker_feed.destination t SET account = ''
     WHERE length(t.account) > 0 AND t.owner IS NULL
     AND NOT EXISTS (SELECT 1 FROM looker_feed.delivery d WHERE d.destination = t.id)
     AND t.next_position = $1 AND t.id = $2 RETURNING 1";
const UNNEEDED: &str = "SELECT t.id, t.next_position FROM looker_feed.destination t
     WHERE length(t.account) > 0 AND t.owner IS NULL
     AND NOT EXISTS (SELECT 1 FROM looker_feed.delivery d WHERE d.destination = t.id) LIMIT 64";
const USED: &str = "SELECT coalesce(sum(d.bytes), 0)::int8 AS bytes FROM looker_feed.progress p
     JOIN looker_feed.delivery d ON d.id = p.delivery WHERE NOT p.cleared";

/// Sweeps all that can be swept now.
pub(super) async fn once(inner: &Inner) -> Result<(), Error> {
    take_from_the_dead(inner).await?;
    tidy(inner).await?;
    look(inner).await
}

/// What daemons were taking in that are not heard of.
async fn take_from_the_dead(inner: &Inner) -> Result<usize, Error> {
    let silent = inner.silence();
    let interrupted = i16::from(INTERRUPTED);
    let orphans = delete(inner, ORPHANS, &[&silent]).await?;
    Ok(orphans + delete(inner, INTERRUPTED_ATTEMPTS, &[&silent, &interrupted]).await?)
}

/// Deletes what nobody needs any more; how much that was.
async fn tidy(inner: &Inner) -> Result<usize, Error> {
    let mut swept = aborted(inner).await?;
    for sql in [PASSED, SETTLED, CLEARED] {
        swept += delete_all(inner, sql, &[&PART]).await?;
    }
    let history = i64::try_from(inner.settings.history).unwrap_or(i64::MAX);
    for sql in [HISTORY, ATTEMPTS] {
        swept += delete_all(inner, sql, &[&history, &PART]).await?;
    }
    let memory = inner.settings.webhook_memory.as_millis() as i64;
    let since = inner.settings.clock.now().0 as i64 - memory;
    swept += delete_all(inner, WEBHOOKS, &[&since, &PART]).await?;
    for sql in [REQUESTS, DAEMONS, DAMAGES] {
        swept += delete(inner, sql, &[]).await?;
    }
    for row in inner.read(DOING, UNNEEDED, &[]).await? {
        let id: &[u8] = super::columns::column(&row, "id")?;
        let position = count(&row, "next_position")? as i64;
        swept += delete(inner, ACCOUNTS, &[&position, &id]).await?;
    }
    Ok(swept + snapshots(inner).await?)
}

/// Takes note of what others have done.
async fn look(inner: &Inner) -> Result<(), Error> {
    if let Some(row) = inner.read(DOING, USED, &[]).await?.first() {
        inner.used.store(count(row, "bytes")?, Ordering::Relaxed);
    }
    inner.look_at_damage().await?;
    inner.look_elsewhere().await?;
    inner.look_at_server().await
}

/// Removes what was aborted; how much that was.
pub(super) async fn aborted(inner: &Inner) -> Result<usize, Error> {
    let mut swept = 0;
    for sql in [ABORTED_BLOCKS, ABORTED_REJECTS, ABORTED] {
        swept += delete_all(inner, sql, &[&PART]).await?;
    }
    Ok(swept)
}

macro_rules! inside {
    ($schedule:literal) => {
        concat!(
            "EXISTS (SELECT 1 FROM looker_feed.schedule c JOIN looker_feed.daemon m ON m.id = c.owner
                WHERE c.id = ",
            $schedule,
            " AND m.beat > clock_timestamp() - $1::float8 * interval '1 second')"
        )
    };
}
/// What was being written by who is not there any more.
const DRAFTS: &str = concat!(
    "UPDATE looker_feed.snapshot s SET state = 2 WHERE s.state = 0 AND NOT ",
    inside!("s.schedule"),
    " RETURNING 1"
);
/// Whoever is in a schedule may read what is gone.
const SNAPSHOT_BLOCKS: &str = concat!(
    "DELETE FROM looker_feed.snapshot_block WHERE (blob, number) IN (
        SELECT b.blob, b.number FROM looker_feed.snapshot s
        JOIN looker_feed.snapshot_block b ON b.blob = s.blob WHERE s.state = 2 AND NOT ",
    inside!("s.schedule"),
    " LIMIT $2) RETURNING 1"
);
const SNAPSHOTS: &str = concat!(
    "DELETE FROM looker_feed.snapshot WHERE blob IN (SELECT s.blob FROM looker_feed.snapshot s
        WHERE s.state = 2 AND NOT EXISTS
            (SELECT 1 FROM looker_feed.snapshot_block b WHERE b.blob = s.blob) AND NOT ",
    inside!("s.schedule"),
    " LIMIT $2) RETURNING 1"
);
/// Whoever enters after a daemon that has ended must see which delivery it was taking in.
const SCHEDULES: &str = concat!(
    "DELETE FROM looker_feed.schedule t WHERE NOT ",
    inside!("t.id"),
    " AND NOT EXISTS (SELECT 1 FROM looker_feed.snapshot s WHERE s.schedule = t.id)
     AND (t.owner IS NULL OR NOT EXISTS
        (SELECT 1 FROM looker_feed.delivery d WHERE d.id = t.holder AND d.state = 0)) RETURNING 1"
);

/// What schedules delivered before.
async fn snapshots(inner: &Inner) -> Result<usize, Error> {
    let silent = inner.silence();
    let mut swept = delete(inner, DRAFTS, &[&silent]).await?;
    for sql in [SNAPSHOT_BLOCKS, SNAPSHOTS] {
        swept += delete_all(inner, sql, &[&silent, &PART]).await?;
    }
    Ok(swept + delete(inner, SCHEDULES, &[&silent]).await?)
}

const DOING: &str = "the outbox could not be swept";

async fn delete(inner: &Inner, sql: &'static str, params: Params<'_>) -> Result<usize, Error> {
    let rows = inner.write(DOING, sql, params, Tries::UntilKnown).await?;
    Ok(rows.len())
}

/// Part after part.
async fn delete_all(inner: &Inner, sql: &'static str, params: Params<'_>) -> Result<usize, Error> {
    let mut all = 0;
    loop {
        let part = delete(inner, sql, params).await?;
        all += part;
        if (part as i64) < PART {
            return Ok(all);
        }
    }
}

impl Inner {
    /// Whether no destination had anything to do when it was looked last.
    pub fn is_at_rest(&self) -> bool {
        lock(&self.active).is_empty()
    }

    /// How the server replicates may change while it runs: a standby is promoted and has none itself.
    async fn look_at_server(&self) -> Result<(), Error> {
        let now = ServerFacts::ask(&self.sessions, self.settings.within).await?;
        let before = lock(&self.facts).replace(now.clone());
        if before.is_some_and(|before| before.is_replicated() != now.is_replicated()) {
            match now.is_replicated() {
                true => {
                    tracing::info!(facts = %now, "the database of the outbox replicates what it commits")
                }
                false => {
                    tracing::error!(facts = %now, "the database of the outbox does not replicate what it commits any more")
                }
            }
        }
        Ok(())
    }
}
