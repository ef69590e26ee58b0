//! What schedules delivered last, kept for whoever uses the outbox: bytes by the name of a schedule, a number,
//! a delivery and a kind, which mean nothing here. Long ones lie in blocks, which are written once.
//!
//! One delivery of a schedule is received at a time: who receives it has *entered* the schedule, and is in it
//! until it leaves, or its daemon is taken for dead. Whoever enters after such a daemon aborts the
//! delivery that it was taking in, so that none becomes visible that the next ones do not know of. What is
//! written is seen by nobody before it is published, and that goes through only for who is in the
//! schedule. What has been removed is gone from lists at once; its blocks stay as long as anybody is in the
//! schedule, who may still read them.

use std::sync::Arc;
use std::time::Duration;

use tokio_postgres::Row;

use super::columns::{column, count, millis, read_id};
use super::daemon::Inner;
use super::handle::SharedOutbox;
use super::lock::lock;
use super::pending::Leaving;
use super::session::Tries;
use crate::clock::UnixMillis;
use crate::model::DeliveryId;
use crate::outbox::error::Error;

/// Bytes of a block.
pub(super) const BLOCK: usize = 256 << 10;
/// How long somebody waits who comes while a schedule is searched for a person.
const ENTERING: Duration = Duration::from_secs(30);
const LOOK: Duration = Duration::from_millis(100);

/// Whose, and which. See the module.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SnapshotName {
    /// The schedule.
    pub schedule: [u8; 16],
    /// Grows from delivery to delivery.
    pub number: u64,
    /// The delivery that it is of.
    pub delivery: DeliveryId,
    /// What of it.
    pub kind: u8,
}

/// What is kept under a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SnapshotEntry {
    /// The name.
    pub name: SnapshotName,
    /// Its bytes in blocks.
    pub bytes: u64,
    /// What is kept beside them.
    pub body: Vec<u8>,
    /// When it was published, by the server's clock.
    pub written: UnixMillis,
    pub(super) blob: [u8; 16],
}

/// Somebody in a schedule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Inside {
    /// The schedule.
    pub schedule: [u8; 16],
    /// The delivery that is received; `None`: it is searched for a person.
    pub delivery: Option<DeliveryId>,
    /// What was noted; `None`: not yet.
    pub noted: Option<Vec<u8>>,
}

/// Whether a schedule can be entered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Entered {
    /// It has been.
    Yes,
    /// Another delivery is received.
    Busy,
}

/// What came of publishing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Published {
    /// It is there, durably.
    Yes,
    /// The schedule was forgotten meanwhile, and this with it.
    Dropped,
    /// Another daemon has taken this one for dead, or a part is missing.
    Lost,
}

/// What schedules delivered last, in a shared outbox. Cloning gives another handle. Calls block.
#[derive(Clone, Debug)]
pub struct Snapshots {
    pub(super) outbox: SharedOutbox,
}

macro_rules! alive {
    ($owner:literal, $silent:literal) => {
        concat!(
            "EXISTS (SELECT 1 FROM looker_feed.daemon m WHERE m.id = ",
            $owner,
            " AND m.beat > clock_timestamp() - ",
            $silent,
            "::float8 * interval '1 second')"
        )
    };
}

const ENTER: &str = concat!(
    "WITH dead AS (UPDATE looker_feed.delivery d SET state = 2 FROM looker_feed.schedule c
        WHERE c.id = $1 AND c.owner IS NOT NULL AND c.holder <> $3 AND d.id = c.holder
        AND d.state = 0 AND NOT ",
    alive!("c.owner", "$5"),
    " RETURNING d.id),
     forgotten AS (DELETE FROM looker_feed.webhook w USING dead
        WHERE w.delivery = dead.id AND w.committed IS NULL AND NOT EXISTS
            (SELECT 1 FROM looker_feed.attempt a WHERE a.id = dead.id AND a.ended IS NOT NULL))
     INSERT INTO looker_feed.schedule AS t (id, owner, holder, receives)
     VALUES ($1, $2, $3, $4) ON CONFLICT (id) DO UPDATE SET owner = excluded.owner,
        holder = excluded.holder, receives = excluded.receives,
        dropped = CASE WHEN t.holder = $3 THEN t.dropped ELSE false END,
        noted = CASE WHEN t.holder = $3 THEN t.noted END
     WHERE t.owner IS NULL OR (t.owner = $2 AND t.holder = $3) OR NOT ",
    alive!("t.owner", "$5"),
    " RETURNING 1"
);
const RECEIVES: &str =
    "SELECT receives FROM looker_feed.schedule WHERE id = $1 AND owner IS NOT NULL";
const NOTE: &str = "UPDATE looker_feed.schedule SET noted = $4
     WHERE id = $1 AND owner = $2 AND holder = $3 RETURNING 1";
const LEAVE: &str = "WITH gone AS (UPDATE looker_feed.schedule SET owner = NULL, noted = NULL,
        dropped = false WHERE id = $1 AND owner = $2 AND holder = $3 RETURNING id)
     UPDATE looker_feed.snapshot s SET state = 2 FROM gone
     WHERE s.schedule = gone.id AND (s.state = 0 OR ($4 AND s.state = 1)) RETURNING 1";
const INSIDE: &str = concat!(
    "SELECT c.id, c.holder, c.receives, c.noted FROM looker_feed.schedule c WHERE ",
    alive!("c.owner", "$1")
);
const FORGET: &str = "WITH dropped AS (UPDATE looker_feed.schedule SET dropped = true
        WHERE id = $1 AND owner IS NOT NULL AND holder <> $2)
     UPDATE looker_feed.snapshot SET state = 2 WHERE schedule = $1 AND state = 1 RETURNING 1";
const LIST: &str = "SELECT blob, schedule, number, delivery, kind, bytes, body, written
     FROM looker_feed.snapshot WHERE state = 1 AND ($1::bytea IS NULL OR schedule = $1)
     ORDER BY schedule, number, kind";
/// One snapshot whose delivery has come to its end, and of which that is not noted. $1: the kind of
/// snapshots, $2: that of notes.
const ENDED: &str = "SELECT DISTINCT s.schedule FROM looker_feed.snapshot s
     WHERE s.state = 1 AND s.kind = $1 AND NOT EXISTS (SELECT 1 FROM looker_feed.snapshot t
        WHERE t.schedule = s.schedule AND t.number = s.number AND t.kind = $2 AND t.state = 1)
     AND NOT EXISTS (SELECT 1 FROM looker_feed.progress p WHERE p.delivery = s.delivery AND p.open)
     AND NOT EXISTS (SELECT 1 FROM looker_feed.schedule c
        WHERE c.id = s.schedule AND c.owner IS NOT NULL AND c.holder = s.delivery)";
const REMOVE: &str = "UPDATE looker_feed.snapshot SET state = 2
     WHERE schedule = $1 AND number = $2 AND kind = $3 AND state = 1 RETURNING 1";
const REMOVE_DRAFTS: &str = "UPDATE looker_feed.snapshot SET state = 2
     WHERE schedule = $1 AND state = 0 RETURNING 1";
const PUT: &str = "INSERT INTO looker_feed.snapshot
        (blob, schedule, number, delivery, kind, state, body, written)
     SELECT $1, $2, $3, $4, $5, $6, $7, (extract(epoch FROM clock_timestamp()) * 1000)::int8
     ON CONFLICT (blob) DO NOTHING RETURNING 1";
const STORE: &str = "WITH quick AS (SELECT set_config('synchronous_commit', 'off', true)),
     mine AS (SELECT s.blob FROM looker_feed.snapshot s, quick
        WHERE s.blob = $1 AND s.state = 0 FOR SHARE OF s),
     stored AS (INSERT INTO looker_feed.snapshot_block (blob, number, body)
        SELECT mine.blob, s.number, s.body FROM mine, unnest($2::int8[], $3::bytea[])
            AS s(number, body) ON CONFLICT (blob, number) DO NOTHING)
     SELECT blob FROM mine";
/// What had these names before is gone.
const PUBLISH: &str = "WITH mine AS (SELECT id FROM looker_feed.schedule
        WHERE id = $1 AND owner = $2 AND holder = $3 AND NOT dropped FOR UPDATE),
     whole AS (SELECT s.blob, s.schedule, s.number, s.kind, w.bytes
        FROM unnest($4::bytea[], $5::int8[], $6::int8[]) AS w(blob, blocks, bytes)
        JOIN looker_feed.snapshot s ON s.blob = w.blob AND s.state = 0
        JOIN mine ON mine.id = s.schedule
        WHERE w.blocks = (SELECT count(*) FROM looker_feed.snapshot_block b WHERE b.blob = s.blob)),
     are AS (SELECT 1 FROM whole HAVING count(*) = cardinality($4::bytea[]))
     UPDATE looker_feed.snapshot s SET state = CASE WHEN s.blob = w.blob THEN 1 ELSE 2 END,
        bytes = CASE WHEN s.blob = w.blob THEN w.bytes ELSE s.bytes END,
        written = (extract(epoch FROM clock_timestamp()) * 1000)::int8
     FROM whole w, are WHERE s.schedule = w.schedule AND s.number = w.number AND s.kind = w.kind
        AND (s.blob = w.blob OR s.state = 1) RETURNING 1";
const THERE: &str = "SELECT (SELECT count(*) FROM looker_feed.snapshot
        WHERE blob = ANY($4::bytea[]) AND state = 1) AS there,
     (SELECT count(*) FROM looker_feed.schedule
        WHERE id = $1 AND owner = $2 AND holder = $3 AND dropped) AS dropped";
const READ: &str = "SELECT number, body FROM looker_feed.snapshot_block
     WHERE blob = $1 AND number >= $2 ORDER BY number LIMIT 2";
const READING: &str = "what schedules delivered could not be read";
const WRITING: &str = "what a schedule delivered could not be written down";

impl SharedOutbox {
    /// What schedules delivered last.
    pub fn snapshots(&self) -> Snapshots {
        Snapshots {
            outbox: self.clone(),
        }
    }
}

impl Snapshots {
    /// Hosts and database, as they may be shown.
    pub fn place(&self) -> String {
        self.outbox.inner.settings.server.to_string()
    }

    /// Enters a schedule: to receive a delivery, which is the `holder`, or to search it under any random
    /// name. Who is in it already enters again. Waits a while for those who search.
    ///
    /// # Errors
    /// The server cannot be asked.
    pub fn enter(
        &self,
        schedule: [u8; 16],
        holder: [u8; 16],
        receives: bool,
    ) -> Result<Entered, Error> {
        let inner = Arc::clone(&self.outbox.inner);
        self.outbox
            .run(async move { enter(&inner, schedule, holder, receives).await })
    }

    /// Notes something for all to see as long as the holder is in the schedule.
    ///
    /// # Errors
    /// It is not in it any more, or the server cannot be asked.
    pub fn note(&self, schedule: [u8; 16], holder: [u8; 16], text: Vec<u8>) -> Result<(), Error> {
        let inner = Arc::clone(&self.outbox.inner);
        self.outbox.run(async move {
            let params: super::session::Params<'_> =
                &[&&schedule[..], &&inner.me[..], &&holder[..], &text];
            let rows = inner
                .write(WRITING, NOTE, params, Tries::UntilKnown)
                .await?;
            match rows.is_empty() {
                true => Err(taken_for_dead()),
                false => Ok(()),
            }
        })
    }

    /// Leaves a schedule; `forget`: with all that is known of it. What cannot be done now is done later.
    pub fn leave(&self, schedule: [u8; 16], holder: [u8; 16], forget: bool) {
        let leaving = Leaving {
            schedule,
            holder,
            forget,
        };
        lock(&self.outbox.inner.leaving_schedules).push(leaving);
        let inner = Arc::clone(&self.outbox.inner);
        let left = self
            .outbox
            .run(async move { leave_schedules(&inner).await });
        if let Err(error) = left {
            tracing::warn!(%error, "a schedule could not be left; it is tried again");
        }
    }

    /// Who is in which schedule now.
    ///
    /// # Errors
    /// The server cannot be asked.
    pub fn inside(&self) -> Result<Vec<Inside>, Error> {
        let inner = Arc::clone(&self.outbox.inner);
        self.outbox.run(async move {
            let silent = inner.silence();
            let rows = inner.read(READING, INSIDE, &[&silent]).await?;
            rows.iter()
                .map(|row| {
                    let receives: bool = column(row, "receives")?;
                    let holder = DeliveryId(read_id(row, "holder")?);
                    Ok(Inside {
                        schedule: read_id(row, "id")?,
                        delivery: receives.then_some(holder),
                        noted: column(row, "noted")?,
                    })
                })
                .collect()
        })
    }

    /// Forgets all of a schedule, durably, also what is about to be published by who is in it, unless that
    /// is this holder.
    ///
    /// # Errors
    /// The server cannot be asked; it may have been done.
    pub fn forget(&self, schedule: [u8; 16], holder: [u8; 16]) -> Result<(), Error> {
        self.change(
            FORGET,
            vec![Box::new(schedule.to_vec()), Box::new(holder.to_vec())],
        )
    }

    /// Removes what was being written by who is not in the schedule any more. Who asks is in it.
    ///
    /// # Errors
    /// The server cannot be asked; it may have been done.
    pub fn remove_drafts(&self, schedule: [u8; 16]) -> Result<(), Error> {
        self.change(REMOVE_DRAFTS, vec![Box::new(schedule.to_vec())])
    }

    /// All that is kept, of one schedule or of all, by schedule and number.
    ///
    /// # Errors
    /// The server cannot be asked.
    pub fn list(&self, schedule: Option<[u8; 16]>) -> Result<Vec<SnapshotEntry>, Error> {
        let inner = Arc::clone(&self.outbox.inner);
        self.outbox.run(async move {
            let schedule = schedule.as_ref().map(|id| &id[..]);
            let rows = inner.read(READING, LIST, &[&schedule]).await?;
            rows.iter().map(SnapshotEntry::read).collect()
        })
    }

    /// Schedules with something of `kind` whose delivery is neither under way nor to be sent, and of which
    /// nothing of the kind `noted` is there.
    ///
    /// # Errors
    /// The server cannot be asked.
    pub fn ended(&self, kind: u8, noted: u8) -> Result<Vec<[u8; 16]>, Error> {
        let inner = Arc::clone(&self.outbox.inner);
        self.outbox.run(async move {
            let (kind, noted) = (i16::from(kind), i16::from(noted));
            let rows = inner.read(READING, ENDED, &[&kind, &noted]).await?;
            rows.iter().map(|row| read_id(row, "schedule")).collect()
        })
    }

    /// Keeps something short, durably.
    ///
    /// # Errors
    /// The server cannot be asked; it may have been done.
    pub fn put(&self, name: SnapshotName, body: Vec<u8>) -> Result<(), Error> {
        self.insert(name, 1, body).map(drop)
    }

    /// Removes what has a name.
    ///
    /// # Errors
    /// The server cannot be asked; it may have been done.
    pub fn remove(&self, name: SnapshotName) -> Result<(), Error> {
        let (number, kind) = (name.number as i64, i16::from(name.kind));
        self.change(
            REMOVE,
            vec![
                Box::new(name.schedule.to_vec()),
                Box::new(number),
                Box::new(kind),
            ],
        )
    }

    /// Begins something that is seen by nobody before it is published. Who begins it is in the schedule.
    ///
    /// # Errors
    /// The server cannot be asked.
    pub fn draft(&self, name: SnapshotName, body: Vec<u8>) -> Result<[u8; 16], Error> {
        self.insert(name, 0, body)
    }

    fn insert(&self, name: SnapshotName, state: i16, body: Vec<u8>) -> Result<[u8; 16], Error> {
        let mut blob = [0; 16];
        getrandom::fill(&mut blob).map_err(|error| Error::Database {
            doing: WRITING,
            why: error.to_string().into(),
        })?;
        let kind = i16::from(name.kind);
        self.change(
            PUT,
            vec![
                Box::new(blob.to_vec()),
                Box::new(name.schedule.to_vec()),
                Box::new(name.number as i64),
                Box::new(name.delivery.0.to_vec()),
                Box::new(kind),
                Box::new(state),
                Box::new(body),
            ],
        )?;
        Ok(blob)
    }

    fn change(
        &self,
        sql: &'static str,
        params: Vec<Box<dyn tokio_postgres::types::ToSql + Sync + Send>>,
    ) -> Result<(), Error> {
        let inner = Arc::clone(&self.outbox.inner);
        self.outbox.run(async move {
            let params: Vec<&(dyn tokio_postgres::types::ToSql + Sync)> =
                params.iter().map(|one| &**one as _).collect();
            inner
                .write(WRITING, sql, &params, Tries::UntilKnown)
                .await?;
            Ok(())
        })
    }

    /// Stores blocks of something that has begun, the first of which has this number.
    ///
    /// # Errors
    /// It is gone, since this daemon was taken for dead, or the server cannot be asked.
    pub(super) fn store(
        &self,
        blob: [u8; 16],
        first: u64,
        blocks: Vec<Vec<u8>>,
    ) -> Result<(), Error> {
        let inner = Arc::clone(&self.outbox.inner);
        self.outbox.run(async move {
            let numbers: Vec<i64> = (first as i64..).take(blocks.len()).collect();
            let params: super::session::Params<'_> = &[&&blob[..], &numbers, &blocks];
            let rows = inner
                .write(WRITING, STORE, params, Tries::UntilKnown)
                .await?;
            match rows.is_empty() {
                true => Err(taken_for_dead()),
                false => Ok(()),
            }
        })
    }

    /// Publishes what was begun, all at once: each with its blocks and its bytes. What had their names before
    /// is gone.
    ///
    /// # Errors
    /// The server cannot be asked; it may have been done.
    pub fn publish(
        &self,
        schedule: [u8; 16],
        holder: [u8; 16],
        drafts: Vec<([u8; 16], u64, u64)>,
    ) -> Result<Published, Error> {
        let inner = Arc::clone(&self.outbox.inner);
        self.outbox.run(async move {
            let blobs: Vec<&[u8]> = drafts.iter().map(|(blob, _, _)| &blob[..]).collect();
            let blocks: Vec<i64> = drafts.iter().map(|(_, blocks, _)| *blocks as i64).collect();
            let bytes: Vec<i64> = drafts.iter().map(|(_, _, bytes)| *bytes as i64).collect();
            let (schedule, me, holder) = (&schedule[..], &inner.me[..], &holder[..]);
            let published = inner
                .write(
                    WRITING,
                    PUBLISH,
                    &[&schedule, &me, &holder, &blobs, &blocks, &bytes],
                    Tries::UntilKnown,
                )
                .await?;
            if !published.is_empty() {
                return Ok(Published::Yes);
            }
            // An earlier try may have gone through.
            inner.confirm().await?;
            let rows = inner
                .read(READING, THERE, &[&schedule, &me, &holder, &blobs])
                .await?;
            let Some(row) = rows.first() else {
                return Ok(Published::Lost);
            };
            Ok(match (count(row, "there")?, count(row, "dropped")?) {
                (there, _) if there == blobs.len() as u64 => Published::Yes,
                (_, 0) => Published::Lost,
                _ => Published::Dropped,
            })
        })
    }

    /// Blocks from this number on, as many as are read at once, without a gap; none behind the last.
    pub(super) fn read(&self, blob: [u8; 16], from: u64) -> Result<Vec<Vec<u8>>, Error> {
        let inner = Arc::clone(&self.outbox.inner);
        self.outbox.run(async move {
            let rows = inner
                .read(READING, READ, &[&&blob[..], &(from as i64)])
                .await?;
            let mut blocks = Vec::new();
            for row in &rows {
                if count(row, "number")? != from + blocks.len() as u64 {
                    break;
                }
                blocks.push(column(row, "body")?);
            }
            Ok(blocks)
        })
    }
}

impl SnapshotEntry {
    fn read(row: &Row) -> Result<Self, Error> {
        Ok(Self {
            name: SnapshotName {
                schedule: read_id(row, "schedule")?,
                number: count(row, "number")?,
                delivery: DeliveryId(read_id(row, "delivery")?),
                kind: column::<i16>(row, "kind")? as u8,
            },
            bytes: count(row, "bytes")?,
            body: column(row, "body")?,
            written: millis(row, "written")?,
            blob: read_id(row, "blob")?,
        })
    }
}

fn taken_for_dead() -> Error {
    Error::Database {
        doing: WRITING,
        why: "this daemon was not heard of for long, and another has taken over".into(),
    }
}

async fn enter(
    inner: &Inner,
    schedule: [u8; 16],
    holder: [u8; 16],
    receives: bool,
) -> Result<Entered, Error> {
    let deadline = tokio::time::Instant::now() + ENTERING;
    let (schedule, silent) = (&schedule[..], inner.silence());
    let doing = "a schedule could not be entered";
    loop {
        let params: super::session::Params<'_> =
            &[&schedule, &&inner.me[..], &&holder[..], &receives, &silent];
        let entered = inner.write(doing, ENTER, params, Tries::UntilKnown).await?;
        if !entered.is_empty() {
            return Ok(Entered::Yes);
        }
        let rows = inner.read(doing, RECEIVES, &[&schedule]).await?;
        let busy = match rows.first() {
            Some(row) => column(row, "receives")?,
            None => false,
        };
        if busy || tokio::time::Instant::now() >= deadline {
            return Ok(Entered::Busy);
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// Leaves the schedules that are to be left. What cannot be done now is tried again.
pub(super) async fn leave_schedules(inner: &Inner) -> Result<(), Error> {
    loop {
        let Some(one) = lock(&inner.leaving_schedules).last().copied() else {
            return Ok(());
        };
        let params: super::session::Params<'_> = &[
            &&one.schedule[..],
            &&inner.me[..],
            &&one.holder[..],
            &one.forget,
        ];
        let doing = "a schedule could not be left";
        inner.write(doing, LEAVE, params, Tries::UntilKnown).await?;
        lock(&inner.leaving_schedules).retain(|other| *other != one);
    }
}
