//! Taking another outbox in, whole or not at all.
//!
//! Its deliveries are staged like those of a daemon, by a stager whose name is the move's, so that a move
//! that was broken off goes on where it was. Dead letters lie among the blocks until then, at negative
//! places. One statement makes all of it visible: it goes through once, and only if everything that was
//! staged is there. That it has is a row of `counter`, which a move that is given up takes as well.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use data_encoding::HEXLOWER;

use super::blocks::Block;
use super::columns::{column, count, read_id};
use super::commit::{BLOCKS, REJECTS, store};
use super::daemon::database;
use super::handle::SharedOutbox;
use super::open::{OpenError, Part};
use super::session::Tries;
use super::settings::Settings;
use super::sweep;
use super::taken::{Attempts, Destinations, Letters, Notes, Rows, Turns, Webhooks};
use crate::model::DeliveryId;
use crate::outbox::carried::{Carried, CarriedDelivery};
use crate::outbox::delivery::Tally;
use crate::outbox::error::Error;
use crate::seal::KeyId;

/// The statement that makes all visible may have much to do.
const WITHIN: Duration = Duration::from_secs(600);
const STAGING: &str = "a delivery could not be taken in";
/// What `counter` has for a move that was given up.
const GIVEN_UP: i64 = -1;

/// A move into a shared outbox.
#[derive(Clone, Debug)]
pub(in crate::outbox) struct TakeIn {
    outbox: SharedOutbox,
    name: String,
}

/// How many blocks hold what.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::outbox) struct Stored {
    pub blocks: u64,
    pub entries: u64,
    pub kept: u64,
    pub bytes: u64,
}

/// What a shared outbox holds of deliveries.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::outbox) struct Counted {
    pub deliveries: u64,
    pub rows_in: u64,
    pub waiting: Tally,
    pub dead: Tally,
    pub letters: u64,
    pub kept: u64,
    pub webhooks: u64,
    pub notes: u64,
    pub attempts: u64,
}

impl TakeIn {
    /// Begins the move of this id, or goes on with it.
    ///
    /// # Errors
    /// As for [`SharedOutbox::open`].
    pub fn open(mut settings: Settings, id: [u8; 16]) -> Result<Self, OpenError> {
        settings.within = WITHIN;
        Ok(Self {
            outbox: SharedOutbox::open_as(settings, id, Part::Mover)?,
            name: format!("move {}", HEXLOWER.encode(&id)),
        })
    }

    pub fn outbox(&self) -> &SharedOutbox {
        &self.outbox
    }

    /// Whether all of it is visible: then, what was added to the numbers of its letters. It is as durable
    /// as the server makes anything.
    pub fn done(&self) -> Result<Option<u64>, Error> {
        let (inner, name) = (Arc::clone(&self.outbox.inner), self.name.clone());
        self.outbox.run(async move {
            // A write, since a read shows also what has not reached the standby.
            let sql = "UPDATE looker_feed.counter SET next = next WHERE name = $1 RETURNING next";
            let doing = "it could not be found out whether the move is done";
            let rows = inner.write(doing, sql, &[&name], Tries::UntilKnown).await?;
            let Some(row) = rows.first() else {
                return Ok(None);
            };
            match column::<i64>(row, "next")? {
                GIVEN_UP => Err(Error::Database {
                    doing,
                    why: "it was given up".into(),
                }),
                shift => Ok(Some(shift as u64)),
            }
        })
    }

    /// The deliveries that are staged whole. What others have aborted since this move was heard of last
    /// is removed, so that it can be staged again.
    pub fn staged(&self) -> Result<HashSet<DeliveryId>, Error> {
        let inner = Arc::clone(&self.outbox.inner);
        self.outbox.run(async move {
            sweep::aborted(&inner).await?;
            let sql = "SELECT id FROM looker_feed.delivery
                 WHERE stager = $1 AND state = 0 AND committed > 0";
            let rows = inner.read(STAGING, sql, &[&&inner.me[..]]).await?;
            rows.iter()
                .map(|row| Ok(DeliveryId(read_id(row, "id")?)))
                .collect()
        })
    }

    /// Begins to stage a delivery, or goes on with it.
    ///
    /// # Errors
    /// The delivery is there already and not this move's, or the server cannot be asked.
    pub fn begin(&self, delivery: &CarriedDelivery) -> Result<(), Error> {
        let (inner, delivery) = (Arc::clone(&self.outbox.inner), delivery.clone());
        self.outbox.run(async move {
            let (info, totals) = (&delivery.info, &delivery.totals);
            let key = info.webhook.map(|key| key.0);
            let key = key.as_ref().map(|key| &key[..]);
            let mapped = totals.mapped();
            let rows = inner
                .write(
                    STAGING,
                    BEGIN,
                    &[
                        &&info.id.0[..],
                        &&info.destination.0[..],
                        &&inner.me[..],
                        &&delivery.key.0[..],
                        &key,
                        &&*info.title,
                        &&*info.label,
                        &info.link.as_deref(),
                        &(info.received.0 as i64),
                        &(totals.rows_in as i64),
                        &(totals.rows_rejected as i64),
                        &(totals.rows_unchanged as i64),
                        &(totals.users as i64),
                        &(mapped.rows as i64),
                        &(mapped.batches as i64),
                        &(totals.requests as i64),
                        &totals.notes,
                    ],
                    Tries::UntilKnown,
                )
                .await?;
            match rows.first() {
                Some(_) => Ok(()),
                None => Err(Error::Duplicate(info.id)),
            }
        })
    }

    /// Stores blocks of requests, and of rejected rows.
    ///
    /// # Errors
    /// The delivery is not staged any more, or the server cannot be asked.
    pub(super) fn store(
        &self,
        id: DeliveryId,
        blocks: Vec<Block>,
        rejects: Vec<Block>,
    ) -> Result<(), Error> {
        let inner = Arc::clone(&self.outbox.inner);
        self.outbox.run(async move {
            store(&inner, id, BLOCKS, &blocks).await?;
            store(&inner, id, REJECTS, &rejects).await
        })
    }

    /// Notes that a delivery is staged whole, if it is.
    ///
    /// # Errors
    /// A part of it is not there, or the server cannot be asked.
    pub fn whole(&self, delivery: &CarriedDelivery, stored: Stored) -> Result<(), Error> {
        let inner = Arc::clone(&self.outbox.inner);
        let (id, committed) = (delivery.info.id, delivery.committed.0 as i64);
        self.outbox.run(async move {
            let Stored {
                blocks,
                entries,
                kept,
                bytes,
            } = stored;
            let rows = inner
                .write(
                    STAGING,
                    WHOLE,
                    &[
                        &&id.0[..],
                        &&inner.me[..],
                        &(blocks as i64),
                        &(entries as i64),
                        &(kept as i64),
                        &(bytes as i64),
                        &committed,
                    ],
                    Tries::UntilKnown,
                )
                .await?;
            match rows.first() {
                Some(_) => Ok(()),
                None => Err(incomplete()),
            }
        })
    }

    /// Makes all visible, at once. Returns what was added to the numbers of letters.
    ///
    /// # Errors
    /// Not all that was staged is there any more, or the server cannot be asked. Nothing is visible
    /// then, unless nobody knows; the move can be made again, and finds out.
    pub fn finish(
        &self,
        carried: Arc<Carried>,
        letter_keys: Vec<KeyId>,
        stored: Stored,
    ) -> Result<u64, Error> {
        let (inner, name) = (Arc::clone(&self.outbox.inner), self.name.clone());
        let flipped = self.outbox.run(async move {
            let turns = Turns::of(&carried);
            let destinations = Destinations::of(&carried, &turns);
            let progress = Rows::of(&carried, &turns);
            let attempts = Attempts::of(&carried);
            let letters = Letters::of(&carried, &turns, &letter_keys);
            let hooks = Webhooks::of(&carried);
            let notes = Notes::of(&carried);
            let [a, b, c, d, e, f, g, h, i, j, k, l] = &progress.tallies;
            let run = inner
                .sessions
                .run(
                    FLIP,
                    &[
                        &&inner.me[..],
                        &name,
                        &(carried.deliveries.len() as i64),
                        &(stored.blocks as i64),
                        &(stored.entries as i64),
                        &(stored.kept as i64),
                        &(carried.next_letter as i64),
                        &destinations.ids,
                        &destinations.labels,
                        &destinations.accounts,
                        &destinations.turns,
                        &destinations.newest,
                        &destinations.queued,
                        &progress.ids,
                        &progress.turns,
                        &progress.open,
                        &progress.cleared,
                        &progress.frontiers,
                        &progress.beyond,
                        a,
                        b,
                        c,
                        d,
                        e,
                        f,
                        g,
                        h,
                        i,
                        j,
                        k,
                        l,
                        &progress.held,
                        &progress.erased_rejected,
                        &progress.cancelled_at,
                        &progress.finished,
                        &letters.ids,
                        &letters.deliveries,
                        &letters.ordinals,
                        &letters.live,
                        &letters.rows,
                        &letters.batches,
                        &letters.queued,
                        &letters.keys,
                        &hooks.keys,
                        &hooks.deliveries,
                        &hooks.rows,
                        &hooks.times,
                        &notes.ids,
                        &notes.topics,
                        &notes.texts,
                        &attempts.ids,
                        &attempts.webhooks,
                        &attempts.received,
                        &attempts.ended,
                        &attempts.kinds,
                        &attempts.rows,
                        &attempts.bytes,
                        &attempts.keys,
                        &attempts.sealed,
                    ],
                    Tries::UntilKnown,
                    inner.settings.within,
                )
                .await;
            match run {
                Ok(rows) => rows.first().map(|row| count(row, "shift")).transpose(),
                // An earlier try of this call went through, or the move was given up.
                Err(fault) if fault.code() == "23505" => Ok(None),
                Err(fault) => Err(database("the move could not be ended", &fault)),
            }
        })?;
        match flipped {
            Some(shift) => Ok(shift),
            None => self.done()?.ok_or_else(incomplete),
        }
    }

    /// What is visible of these.
    pub fn counted(&self, carried: Arc<Carried>) -> Result<Counted, Error> {
        let inner = Arc::clone(&self.outbox.inner);
        self.outbox.run(async move {
            let ids: Vec<&[u8]> = carried
                .deliveries
                .iter()
                .map(|delivery| &delivery.info.id.0[..])
                .collect();
            let hooks = Webhooks::of(&carried).keys;
            let notes = Notes::of(&carried);
            let failed = Attempts::of(&carried).ids;
            let doing = "what was moved could not be counted";
            let rows = inner
                .read(
                    doing,
                    COUNTED,
                    &[&ids, &hooks, &notes.ids, &notes.topics, &failed],
                )
                .await?;
            let Some(row) = rows.first() else {
                return Ok(Counted::default());
            };
            let tally = |rows, batches| {
                Ok::<_, Error>(Tally {
                    rows: count(row, rows)?,
                    batches: count(row, batches)?,
                })
            };
            Ok(Counted {
                deliveries: count(row, "deliveries")?,
                rows_in: count(row, "rows_in")?,
                waiting: tally("rows_waiting", "batches_waiting")?,
                dead: tally("dead_rows", "dead_batches")?,
                letters: count(row, "letters")?,
                kept: count(row, "kept")?,
                webhooks: count(row, "webhooks")?,
                notes: count(row, "notes")?,
                attempts: count(row, "attempts")?,
            })
        })
    }

    /// Whether no daemon takes part in the outbox now.
    pub fn alone(&self) -> Result<bool, Error> {
        Ok(self.outbox.daemons()?.iter().all(|daemon| daemon.own))
    }

    /// Gives the move up, and removes what was staged. `false`: it is done.
    pub fn give_up(&self) -> Result<bool, Error> {
        let (inner, name) = (Arc::clone(&self.outbox.inner), self.name.clone());
        self.outbox.run(async move {
            let doing = "the move could not be given up";
            let taken = inner
                .write(doing, GIVE_UP, &[&name, &GIVEN_UP], Tries::UntilKnown)
                .await?;
            let is_given_up = match taken.first() {
                Some(row) => column::<i64>(row, "next")? == GIVEN_UP,
                None => false,
            };
            if is_given_up {
                let params: super::session::Params<'_> = &[&&inner.me[..]];
                inner.write(doing, ABORT, params, Tries::UntilKnown).await?;
                sweep::aborted(&inner).await?;
            }
            Ok(is_given_up)
        })
    }
}

fn incomplete() -> Error {
    Error::Database {
        doing: "the move could not be ended",
        why: "a part of what was copied is not there any more; run it again, and it copies that again"
            .into(),
    }
}

const BEGIN: &str = "WITH begun AS (INSERT INTO looker_feed.delivery
        (id, destination, state, stager, key, webhook, title, label, link, received, rows_in,
         rejected, unchanged, users, rows_mapped, batches, requests, notes)
        VALUES ($1, $2, 0, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17)
        ON CONFLICT (id) DO NOTHING RETURNING id)
     SELECT id FROM begun UNION ALL
     SELECT id FROM looker_feed.delivery WHERE id = $1 AND state = 0 AND stager = $3";
const WHOLE: &str =
    "WITH there AS (SELECT count(*) AS blocks, coalesce(sum(entries), 0)::int8 AS entries
        FROM looker_feed.block WHERE delivery = $1),
     kept AS (SELECT coalesce(sum(entries), 0)::int8 AS entries
        FROM looker_feed.reject WHERE delivery = $1)
     UPDATE looker_feed.delivery d SET committed = $7, kept = $5, bytes = $6 FROM there, kept
     WHERE d.id = $1 AND d.stager = $2 AND d.state = 0
        AND there.blocks = $3 AND there.entries = $4 AND kept.entries = $5 RETURNING d.id";
const GIVE_UP: &str = "INSERT INTO looker_feed.counter AS c (name, next) VALUES ($1, $2)
     ON CONFLICT (name) DO UPDATE SET next = c.next RETURNING next";
const ABORT: &str = "UPDATE looker_feed.delivery SET state = 2
     WHERE stager = $1 AND state = 0 RETURNING 1";
const COUNTED: &str = "SELECT count(*) AS deliveries, coalesce(sum(d.rows_in), 0)::int8 AS rows_in,
        coalesce(sum(d.rows_mapped - p.delivered_rows - p.dead_rows - p.discarded_rows
            - p.damaged_rows - p.cancelled_rows - p.erased_rows), 0)::int8 AS rows_waiting,
        coalesce(sum(d.batches - p.delivered_batches - p.dead_batches - p.discarded_batches
            - p.damaged_batches - p.cancelled_batches - p.erased_batches), 0)::int8 AS batches_waiting,
        coalesce(sum(p.dead_rows), 0)::int8 AS dead_rows,
        coalesce(sum(p.dead_batches), 0)::int8 AS dead_batches,
        coalesce(sum(d.kept), 0)::int8 AS kept,
        (SELECT count(*) FROM looker_feed.letter l WHERE l.delivery = ANY($1)) AS letters,
        (SELECT count(*) FROM looker_feed.webhook w WHERE w.key = ANY($2)) AS webhooks,
        (SELECT count(*) FROM looker_feed.note n JOIN unnest($3::bytea[], $4::int2[])
            AS s(destination, topic) USING (destination, topic)) AS notes,
        (SELECT count(*) FROM looker_feed.attempt a WHERE a.id = ANY($5::bytea[])) AS attempts
     FROM looker_feed.delivery d JOIN looker_feed.progress p ON p.delivery = d.id
     WHERE d.state = 1 AND d.id = ANY($1::bytea[])";
/// What a destination has already goes before, but for an account that is older. Letters that are to be
/// sent again are read when a lease is taken, so one that is held is taken away: who had it sends
/// again what was in flight, with the ids that it had. What schedules delivered last is forgotten, since some
/// of what comes may be theirs.
const FLIP: &str = "WITH there AS (SELECT count(*) AS n FROM looker_feed.delivery
        WHERE stager = $1 AND state = 0 AND committed > 0),
     blocks AS (SELECT count(*) AS n, coalesce(sum(b.entries), 0)::int8 AS entries
        FROM looker_feed.delivery d JOIN looker_feed.block b ON b.delivery = d.id
        WHERE d.stager = $1 AND d.state = 0),
     kept AS (SELECT coalesce(sum(r.entries), 0)::int8 AS entries
        FROM looker_feed.delivery d JOIN looker_feed.reject r ON r.delivery = d.id
        WHERE d.stager = $1 AND d.state = 0),
     ids AS (UPDATE looker_feed.counter c SET next = c.next + $7 FROM there, blocks, kept
        WHERE c.name = 'letter' AND there.n = $3 AND blocks.n = $4 AND blocks.entries = $5
        AND kept.entries = $6
        AND NOT EXISTS (SELECT 1 FROM looker_feed.counter o WHERE o.name IN ($2, 'moved away'))
        RETURNING c.next - $7 AS shift),
     done AS (INSERT INTO looker_feed.counter (name, next) SELECT $2, shift FROM ids
        RETURNING next AS shift),
     turns AS (INSERT INTO looker_feed.destination AS t (id, label, account, next_position, version)
        SELECT s.id, s.label, s.account, s.turns, 1
        FROM unnest($8::bytea[], $9::text[], $10::bytea[], $11::int8[])
            AS s(id, label, account, turns), done
        ON CONFLICT (id) DO UPDATE SET next_position = t.next_position + excluded.next_position,
            version = t.version + 1,
            label = CASE WHEN t.label = '' THEN excluded.label ELSE t.label END,
            account = CASE WHEN length(t.account) = 0
                OR (length(excluded.account) > 0
                    AND (SELECT s.newest FROM unnest($8::bytea[], $12::int8[]) AS s(id, newest)
                        WHERE s.id = t.id)
                    > coalesce((SELECT max(d.committed) FROM looker_feed.delivery d
                        WHERE d.destination = t.id AND d.state = 1), 0))
                THEN excluded.account ELSE t.account END,
            owner = CASE WHEN t.id = ANY($13::bytea[]) THEN NULL ELSE t.owner END,
            lease_until = CASE WHEN t.id = ANY($13::bytea[]) THEN NULL ELSE t.lease_until END
        RETURNING t.id, t.next_position AS after),
     base AS (SELECT turns.id, turns.after - s.turns AS base FROM turns
        JOIN unnest($8::bytea[], $11::int8[]) AS s(id, turns) ON s.id = turns.id),
     flipped AS (UPDATE looker_feed.delivery d SET state = 1, erased_rejected = coalesce(
            (SELECT s.rows FROM unnest($14::bytea[], $33::int8[]) AS s(id, rows) WHERE s.id = d.id), 0)
        FROM done
        WHERE d.stager = $1 AND d.state = 0 RETURNING d.id, d.destination),
     begun AS (INSERT INTO looker_feed.progress (delivery, destination, position, open, cleared,
            frontier, beyond, delivered_rows, delivered_batches, dead_rows, dead_batches,
            discarded_rows, discarded_batches, damaged_rows, damaged_batches, cancelled_rows,
            cancelled_batches, erased_rows, erased_batches, held, cancelled_at, finished)
        SELECT s.id, f.destination, base.base + s.turn, s.open, s.cleared, s.frontier, s.beyond,
            s.a, s.b, s.c, s.d, s.e, s.f, s.g, s.h, s.i, s.j, s.k, s.l,
            s.held, s.cancelled_at, s.finished
        FROM unnest($14::bytea[], $15::int8[], $16::bool[], $17::bool[], $18::int8[], $19::bytea[],
            $20::int8[], $21::int8[], $22::int8[], $23::int8[], $24::int8[], $25::int8[],
            $26::int8[], $27::int8[], $28::int8[], $29::int8[], $30::int8[], $31::int8[], $32::bool[],
            $34::int8[], $35::int8[])
            AS s(id, turn, open, cleared, frontier, beyond, a, b, c, d, e, f, g, h, i, j, k, l, held,
                cancelled_at, finished)
        JOIN flipped f ON f.id = s.id JOIN base ON base.id = f.destination),
     letters AS (INSERT INTO looker_feed.letter
            (id, delivery, destination, ordinal, live, rows, batches, queued, key, body)
        SELECT done.shift + s.id, s.delivery, f.destination, s.ordinal, s.live, s.rows, s.batches,
            base.base + s.queued, s.key, b.body
        FROM unnest($36::int8[], $37::bytea[], $38::int8[], $39::bytea[], $40::int8[],
            $41::int8[], $42::int8[], $43::bytea[])
            AS s(id, delivery, ordinal, live, rows, batches, queued, key)
        JOIN flipped f ON f.id = s.delivery JOIN base ON base.id = f.destination
        JOIN looker_feed.block b ON b.delivery = s.delivery AND b.first = -1 - s.id, done),
     moved AS (DELETE FROM looker_feed.block b USING flipped f
        WHERE b.delivery = f.id AND b.first < 0),
     hooks AS (INSERT INTO looker_feed.webhook (key, delivery, rows, committed)
        SELECT s.* FROM unnest($44::bytea[], $45::bytea[], $46::int8[], $47::int8[])
            AS s(key, delivery, rows, committed), done ON CONFLICT (key) DO NOTHING),
     doubted AS (UPDATE looker_feed.schedule SET dropped = true FROM done WHERE owner IS NOT NULL),
     unknown AS (UPDATE looker_feed.snapshot SET state = 2 FROM done WHERE state = 1),
     notes AS (INSERT INTO looker_feed.note (destination, topic, text)
        SELECT s.* FROM unnest($48::bytea[], $49::int2[], $50::bytea[])
            AS s(destination, topic, text), done ON CONFLICT (destination, topic) DO NOTHING),
     attempts AS (INSERT INTO looker_feed.attempt
            (id, stager, webhook, received, ended, kind, rows, bytes, key, sealed)
        SELECT s.id, ''::bytea, s.webhook, s.received, s.ended, s.kind, s.rows, s.bytes, s.key,
            s.sealed
        FROM unnest($51::bytea[], $52::bytea[], $53::int8[], $54::int8[], $55::int2[],
            $56::int8[], $57::int8[], $58::bytea[], $59::bytea[])
            AS s(id, webhook, received, ended, kind, rows, bytes, key, sealed), done
        ON CONFLICT (id) DO NOTHING)
     SELECT shift FROM done";
