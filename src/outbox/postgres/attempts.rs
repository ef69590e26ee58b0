//! Deliveries that have begun and are not visible: those that are being received, and those that failed.
//!
//! That one has begun is on the server before anything is spent on it; its row goes in the statement
//! that makes it visible. How one failed is in memory at once, and on the server within a second. One
//! whose daemon ended before that is ended by any other ([`INTERRUPTED`]), as soon as that daemon has
//! been silent for so long that it is taken for dead.

use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex};

use tokio_postgres::Row;

use super::columns::{column, count, millis, read_id};
use super::commit::{forget_expired, webhook};
use super::daemon::{Inner, database};
use super::handle::SharedOutbox;
use super::lock::lock;
use super::pending::Ended;
use super::session::Tries;
use crate::clock::UnixMillis;
use crate::model::DeliveryId;
use crate::outbox::attempt::{
    Arrived, Attempt, AttemptEnd, INTERRUPTED, MAX_ABOUT, MAX_JOURNAL, MAX_MESSAGE, MAX_TITLE,
    NewAttempt, Receiving, bounded,
};
use crate::outbox::attempt_row::AttemptRow;
use crate::outbox::codec::cut;
use crate::outbox::error::Error;
use crate::outbox::webhook::{WebhookKey, WebhookState};

/// The right to receive one delivery. Dropping it without a commit fails the delivery.
#[derive(Debug)]
pub(in crate::outbox) struct Reservation {
    outbox: SharedOutbox,
    arrived: Arc<Arrived>,
    row: Mutex<AttemptRow>,
    id: DeliveryId,
}

const RESERVE: &str = "WITH begun AS (INSERT INTO looker_feed.attempt
        (id, stager, webhook, received, key, sealed) VALUES ($1, $2, $3, $4, $5, $6) RETURNING id),
     hook AS (INSERT INTO looker_feed.webhook (key, delivery)
        SELECT $3::bytea, id FROM begun WHERE $3::bytea IS NOT NULL)
     SELECT id FROM begun";
const OURS: &str = "SELECT stager, ended FROM looker_feed.attempt WHERE id = $1";
/// One that has become visible meanwhile has not failed. What stands there is only replaced if it is what
/// was written when the delivery began ($11), with an end that others have said of it or none: whoever
/// finds the same to have failed, or writes it a second time, leaves what was asked since.
const END: &str = "WITH put AS (INSERT INTO looker_feed.attempt AS a
        (id, stager, webhook, received, ended, kind, rows, bytes, key, sealed)
        SELECT $1, $2, $3, $4, $5, $6, $7, $8, $9, $10
        WHERE NOT EXISTS (SELECT 1 FROM looker_feed.delivery d WHERE d.id = $1 AND d.state = 1)
        ON CONFLICT (id) DO UPDATE SET ended = excluded.ended, kind = excluded.kind,
            rows = excluded.rows, bytes = excluded.bytes, key = excluded.key, sealed = excluded.sealed
            WHERE a.stager = excluded.stager AND (a.ended IS NULL OR a.sealed = $11)
        RETURNING a.id)
     DELETE FROM looker_feed.webhook w USING put
     WHERE w.delivery = put.id AND w.committed IS NULL AND NOT EXISTS
        (SELECT 1 FROM looker_feed.delivery d WHERE d.id = put.id AND d.state = 0) RETURNING 1";
const FAILED: &str = "SELECT id, webhook, received, ended, kind, rows, bytes, sealed
     FROM looker_feed.attempt
     WHERE ended IS NOT NULL AND ($1::bytea IS NULL OR id < $1) ORDER BY id DESC LIMIT $2";
const ONE: &str = "SELECT id, webhook, received, ended, kind, rows, bytes, sealed
     FROM looker_feed.attempt WHERE id = $1";
const ELSEWHERE: &str = "SELECT id, webhook, received, ended, kind, rows, bytes, sealed
     FROM looker_feed.attempt WHERE ended IS NULL AND stager <> $1 ORDER BY id LIMIT 256";
const OLD_KEYS: &str = "SELECT id, webhook, received, ended, kind, rows, bytes, sealed
     FROM looker_feed.attempt WHERE ended IS NOT NULL AND key <> $1 ORDER BY id LIMIT 4096";
const SEALED_ANEW: &str = "UPDATE looker_feed.attempt SET key = $4, sealed = $3
     WHERE id = $1 AND sealed IN ($2, $3) RETURNING 1";
const READING: &str = "deliveries that failed could not be read";
const WRITING: &str = "what is known of a delivery could not be written down";

impl SharedOutbox {
    /// See [`Outbox::reserve`](crate::outbox::Outbox::reserve).
    pub fn reserve(&self, new: NewAttempt) -> Result<Reservation, Error> {
        let row = AttemptRow::new(&new, None, &self.inner.settings.keys)?;
        self.inner.admit()?;
        let (id, arrived) = (new.id, Arc::new(Arrived::default()));
        let one = Receiving {
            id,
            title: row.attempt.title.clone(),
            since: new.received,
            arrived: Arc::clone(&arrived),
        };
        {
            let mut receiving = lock(&self.inner.attempts.receiving);
            if receiving.contains_key(&id) {
                return Err(Error::Duplicate(id));
            }
            receiving.insert(id, one);
        }
        let (inner, wanted) = (Arc::clone(&self.inner), row.clone());
        if let Err(error) = self.run(async move { reserve(&inner, &wanted).await }) {
            lock(&self.inner.attempts.receiving).remove(&id);
            return Err(error);
        }
        Ok(Reservation {
            outbox: self.clone(),
            arrived,
            row: Mutex::new(row),
            id,
        })
    }

    /// See [`Outbox::record_failure`](crate::outbox::Outbox::record_failure).
    pub fn record_failure(&self, new: &NewAttempt, end: AttemptEnd) -> Result<Attempt, Error> {
        let row = AttemptRow::new(new, Some(end), &self.inner.settings.keys)?;
        let attempt = row.attempt.clone();
        self.inner.keep_end(row, None);
        Ok(attempt)
    }

    /// Deliveries that are being received, oldest first.
    pub fn receiving(&self) -> Vec<Receiving> {
        let attempts = &self.inner.attempts;
        let mut all: Vec<Receiving> = lock(&attempts.receiving).values().cloned().collect();
        all.extend(lock(&attempts.elsewhere).iter().cloned());
        all.sort_by_key(|one| (one.since, one.id));
        all
    }

    /// Deliveries that failed, newest first.
    pub fn failed(&self, before: Option<DeliveryId>, limit: usize) -> Result<Vec<Attempt>, Error> {
        let inner = Arc::clone(&self.inner);
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        self.run(async move {
            inner.write_ends().await?;
            let before = before.map(|id| id.0);
            let before = before.as_ref().map(|id| &id[..]);
            let rows = inner.show(READING, FAILED, &[&before, &limit]).await?;
            let rows = rows.iter().map(|row| read(&inner, row));
            rows.map(|row| row.map(|row| row.attempt)).collect()
        })
    }

    /// A delivery that has begun and is not visible.
    pub fn attempt(&self, id: DeliveryId) -> Result<Option<Attempt>, Error> {
        // One that has just failed here is known without asking.
        if let Some(ended) = lock(&self.inner.attempts.ended).get(&id) {
            return Ok(Some(ended.row.attempt.clone()));
        }
        let inner = Arc::clone(&self.inner);
        self.run(async move {
            inner.write_ends().await?;
            Ok(one(&inner, id).await?.map(|row| row.attempt))
        })
    }

    /// See [`Outbox::put_journal`](crate::outbox::Outbox::put_journal).
    pub fn put_journal(
        &self,
        id: DeliveryId,
        before: &[u8],
        journal: &[u8],
    ) -> Result<bool, Error> {
        bounded("the journal of a delivery", journal, MAX_JOURNAL)?;
        let inner = Arc::clone(&self.inner);
        let (before, journal) = (before.to_vec(), Arc::from(journal));
        self.run(async move {
            inner.write_ends().await?;
            let row = one(&inner, id).await?;
            // One that cannot be opened stays as it is: its key may come back.
            let same = |row: &AttemptRow| row.opened && *row.attempt.journal == *before;
            let Some(row) = row.filter(same) else {
                return Ok(false);
            };
            let attempt = Attempt {
                journal,
                ..row.attempt
            };
            let anew = AttemptRow::seal(attempt, row.webhook, &inner.settings.keys)?;
            put_anew(&inner, id, &row.sealed, &anew.sealed).await
        })
    }
}

async fn put_anew(inner: &Inner, id: DeliveryId, old: &[u8], new: &[u8]) -> Result<bool, Error> {
    let key = &inner.settings.keys.current().0[..];
    let params: super::session::Params<'_> = &[&&id.0[..], &old, &new, &key];
    let rows = inner
        .write(WRITING, SEALED_ANEW, params, Tries::UntilKnown)
        .await?;
    Ok(!rows.is_empty())
}

async fn reserve(inner: &Inner, row: &AttemptRow) -> Result<(), Error> {
    let doing = "a delivery could not be reserved";
    // What has failed here has let go of its webhook id.
    inner.write_ends().await?;
    let key = row.webhook.map(|key| key.0);
    let key = key.as_ref().map(|key| &key[..]);
    forget_expired(inner, key).await?;
    let id = &row.id().0[..];
    let begun = inner
        .sessions
        .run(
            RESERVE,
            &[
                &id,
                &&inner.me[..],
                &key,
                &(row.attempt.received.0 as i64),
                &&inner.settings.keys.current().0[..],
                &&row.sealed[..],
            ],
            Tries::UntilKnown,
            inner.settings.within,
        )
        .await;
    let fault = match begun {
        Ok(_) => return Ok(()),
        Err(fault) if fault.code() == "23505" => fault,
        Err(fault) => return Err(database(doing, &fault)),
    };
    // It is known, its webhook id is, or an earlier try of this call went through.
    if let Some(there) = inner.read(doing, OURS, &[&id]).await?.first() {
        let ours = read_id(there, "stager")? == inner.me;
        let open = column::<Option<i64>>(there, "ended")?.is_none();
        return match ours && open {
            true => Ok(()),
            false => Err(Error::Duplicate(row.id())),
        };
    }
    match key {
        Some(key) => match webhook(inner, key).await? {
            WebhookState::Unknown => Err(database(doing, &fault)),
            known => Err(Error::Webhook(known)),
        },
        None => Err(database(doing, &fault)),
    }
}

async fn one(inner: &Inner, id: DeliveryId) -> Result<Option<AttemptRow>, Error> {
    let rows = inner.read(READING, ONE, &[&&id.0[..]]).await?;
    rows.first().map(|row| read(inner, row)).transpose()
}

pub(super) fn read(inner: &Inner, row: &Row) -> Result<AttemptRow, Error> {
    let ended: Option<i64> = column(row, "ended")?;
    let end = match ended {
        Some(at) => Some(AttemptEnd {
            at: UnixMillis(at as u64),
            kind: column::<i16>(row, "kind")? as u8,
            rows: count(row, "rows")?,
            bytes: count(row, "bytes")?,
            message: String::new(),
        }),
        None => None,
    };
    let webhook: Option<&[u8]> = column(row, "webhook")?;
    let sealed: &[u8] = column(row, "sealed")?;
    let row = AttemptRow {
        attempt: Attempt {
            id: DeliveryId(read_id(row, "id")?),
            title: String::new(),
            about: Arc::from([]),
            received: millis(row, "received")?,
            end,
            journal: Arc::from([]),
        },
        webhook: webhook.and_then(|key| key.try_into().ok().map(WebhookKey)),
        sealed: sealed.into(),
        opened: false,
    };
    Ok(row.unseal(&inner.settings.keys))
}

impl Inner {
    /// It is visible: it has not failed, whatever its reservation says.
    pub fn received(&self, id: DeliveryId) {
        lock(&self.attempts.receiving).remove(&id);
    }

    /// `begun` is what was written down of it when it began.
    fn keep_end(&self, row: AttemptRow, begun: Option<Arc<[u8]>>) {
        let mut ended = lock(&self.attempts.ended);
        ended.insert(row.id(), Ended { row, begun });
        // With the server away for long, the newest are what a person looks for.
        while ended.len() > self.settings.history {
            ended.pop_first();
        }
        drop(ended);
        self.nudge.notify_one();
    }

    /// Writes down what has ended.
    pub async fn write_ends(&self) -> Result<(), Error> {
        loop {
            let Some(one) = lock(&self.attempts.ended).values().next_back().cloned() else {
                return Ok(());
            };
            self.write_end(&one).await?;
            let mut ended = lock(&self.attempts.ended);
            if ended.get(&one.row.id()) == Some(&one) {
                ended.remove(&one.row.id());
            }
        }
    }

    async fn write_end(&self, Ended { row, begun }: &Ended) -> Result<(), Error> {
        let Some(end) = &row.attempt.end else {
            return Ok(());
        };
        let key = row.webhook.map(|key| key.0);
        let key = key.as_ref().map(|key| &key[..]);
        self.write(
            WRITING,
            END,
            &[
                &&row.id().0[..],
                &&self.me[..],
                &key,
                &(row.attempt.received.0 as i64),
                &(end.at.0 as i64),
                &i16::from(end.kind),
                &(end.rows as i64),
                &(end.bytes as i64),
                &&self.settings.keys.current().0[..],
                &&row.sealed[..],
                &begun.as_deref(),
            ],
            Tries::UntilKnown,
        )
        .await
        .map(drop)
    }

    /// Looks at what other daemons are receiving.
    pub async fn look_elsewhere(&self) -> Result<(), Error> {
        let rows = self.read(READING, ELSEWHERE, &[&&self.me[..]]).await?;
        let mut elsewhere = Vec::new();
        for row in &rows {
            let attempt = read(self, row)?.attempt;
            elsewhere.push(Receiving {
                id: attempt.id,
                title: attempt.title,
                since: attempt.received,
                arrived: Arc::default(),
            });
        }
        *lock(&self.attempts.elsewhere) = elsewhere;
        Ok(())
    }

    /// Seals what is known of failed deliveries under the current key, so that a previous one is not
    /// needed for it any more.
    pub async fn reseal_attempts(&self) -> Result<(), Error> {
        let keys = &self.settings.keys;
        let rows = self
            .read(READING, OLD_KEYS, &[&&keys.current().0[..]])
            .await?;
        for row in &rows {
            let row = read(self, row)?;
            if row.opened {
                let (id, old) = (row.id(), Arc::clone(&row.sealed));
                let anew = AttemptRow::seal(row.attempt, row.webhook, keys)?;
                put_anew(self, id, &old, &anew.sealed).await?;
            }
        }
        Ok(())
    }
}

impl Reservation {
    /// Which delivery this is.
    pub fn id(&self) -> DeliveryId {
        self.id
    }

    /// Where to count what arrives.
    pub fn arrived(&self) -> &Arc<Arrived> {
        &self.arrived
    }

    /// Adds to what is known of the delivery; on the server with its end.
    pub fn describe(&self, title: &str, about: &[u8]) -> Result<(), Error> {
        bounded("what is said of a delivery", about, MAX_ABOUT)?;
        let title = cut(title, MAX_TITLE);
        let mut receiving = lock(&self.outbox.inner.attempts.receiving);
        if let Some(one) = receiving.get_mut(&self.id) {
            title.clone_into(&mut one.title);
        }
        drop(receiving);
        let mut row = lock(&self.row);
        title.clone_into(&mut row.attempt.title);
        row.attempt.about = about.into();
        Ok(())
    }

    /// Ends the delivery as failed, and returns it as it is listed; `None`: it is visible and stays so.
    pub fn fail(self, kind: u8, message: &str) -> Option<Attempt> {
        self.end(kind, message)
    }

    fn end(&self, kind: u8, message: &str) -> Option<Attempt> {
        let inner = &self.outbox.inner;
        // If it is not there, it is visible, or has ended.
        lock(&inner.attempts.receiving).remove(&self.id)?;
        let row = lock(&self.row).clone();
        let begun = row.sealed;
        let attempt = Attempt {
            end: Some(AttemptEnd {
                at: inner.settings.clock.now(),
                kind,
                rows: self.arrived.rows.load(Relaxed),
                bytes: self.arrived.bytes.load(Relaxed),
                message: cut(message, MAX_MESSAGE).to_owned(),
            }),
            ..row.attempt
        };
        match AttemptRow::seal(attempt, row.webhook, &inner.settings.keys) {
            Ok(row) => {
                let attempt = row.attempt.clone();
                inner.keep_end(row, Some(begun));
                Some(attempt)
            }
            // Its row says that it has begun, and another daemon ends it when this one has.
            Err(error) => {
                tracing::warn!(delivery = %self.id, %error, "that a delivery failed cannot be written down");
                None
            }
        }
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.end(INTERRUPTED, "");
    }
}
