//! Reading all of a shared outbox that no daemon uses, to be moved elsewhere.

use std::sync::Arc;

use super::attempts;
use super::blocks::{Block, Unreadable, open};
use super::columns::{column, count, counters, millis, read_id};
use super::daemon::{MOVED_AWAY, MOVER};
use super::handle::SharedOutbox;
use super::marks::Marks;
use super::open::{OpenError, Part};
use super::session::Tries;
use super::settings::Settings;
use crate::clock::UnixMillis;
use crate::model::{DeliveryId, DestinationId};
use crate::outbox::bits::Bits;
use crate::outbox::carried::{
    Carried, CarriedAccount, CarriedDelivery, CarriedLetter, CarriedWebhook,
};
use crate::outbox::delivery::{Info, Tally, Totals};
use crate::outbox::error::Error;
use crate::outbox::record::{Frame, Kind, Name, scan};
use crate::outbox::webhook::WebhookKey;
use crate::seal::{KeyId, Keyring};

const READING: &str = "what is in it could not be read";
/// See the module.
pub(in crate::outbox) struct TakeOut {
    outbox: SharedOutbox,
}

impl TakeOut {
    /// Opens it, and is heard of like any daemon.
    ///
    /// # Errors
    /// As for [`SharedOutbox::open`].
    pub fn open(mut settings: Settings) -> Result<Self, OpenError> {
        MOVER.clone_into(&mut settings.name);
        let mut me = [0; 16];
        getrandom::fill(&mut me).map_err(|error| OpenError::System(error.to_string()))?;
        Ok(Self {
            outbox: SharedOutbox::open_as(settings, me, Part::Reader)?,
        })
    }

    pub fn outbox(&self) -> &SharedOutbox {
        &self.outbox
    }

    /// The daemons that use it, and how much of what people have asked for is not done.
    pub fn in_use(&self) -> Result<(Vec<String>, u64), Error> {
        let daemons = self.outbox.daemons()?.into_iter();
        let names = daemons.map(|daemon| daemon.name);
        // A move that was killed is heard of for a while, and sends nothing.
        let names = names.filter(|name| name != MOVER).collect();
        let inner = Arc::clone(&self.outbox.inner);
        let asked = self.outbox.run(async move {
            let sql = "SELECT (SELECT count(*) FROM looker_feed.request WHERE answer IS NULL)
                + (SELECT count(*) FROM looker_feed.erasure) AS asked";
            let rows = inner.read(READING, sql, &[]).await?;
            rows.first().map_or(Ok(0), |row| count(row, "asked"))
        })?;
        Ok((names, asked))
    }

    /// Says that nothing here counts any more, unless a daemon has been heard of. `false`: one has.
    pub fn mark(&self) -> Result<bool, Error> {
        let inner = Arc::clone(&self.outbox.inner);
        self.outbox.run(async move {
            let doing = "it could not be marked as moved away";
            let rows = inner
                .write(doing, MARK, &[&MOVED_AWAY, &MOVER], Tries::UntilKnown)
                .await?;
            Ok(!rows.is_empty())
        })
    }

    /// All that it holds.
    pub fn contents(&self) -> Result<Carried, Error> {
        let inner = Arc::clone(&self.outbox.inner);
        self.outbox.run(async move {
            let mut carried = Carried::default();
            for row in &inner.read(READING, DELIVERIES, &[]).await? {
                carried.deliveries.push(delivery(row)?);
            }
            for row in &inner.read(READING, LETTERS, &[]).await? {
                carried.letters.push(CarriedLetter {
                    id: count(row, "id")?,
                    delivery: DeliveryId(read_id(row, "delivery")?),
                    destination: DestinationId(read_id(row, "destination")?),
                    ordinal: u32::try_from(count(row, "ordinal")?).unwrap_or(u32::MAX),
                    live: Bits::from_bytes(&column::<Vec<u8>>(row, "live")?),
                    tally: Tally {
                        rows: count(row, "rows")?,
                        batches: count(row, "batches")?,
                    },
                    queued: column::<Option<i64>>(row, "queued")?.map(|turn| turn as u64),
                });
            }
            for row in &inner.read(READING, ACCOUNTS, &[]).await? {
                carried.accounts.push(CarriedAccount {
                    destination: DestinationId(read_id(row, "id")?),
                    label: column(row, "label")?,
                    sealed: column::<Vec<u8>>(row, "account")?.into(),
                });
            }
            for row in &inner.read(READING, NOTES, &[]).await? {
                let destination = DestinationId(read_id(row, "destination")?);
                let topic = column::<i16>(row, "topic")? as u8;
                let text: Vec<u8> = column(row, "text")?;
                carried.notes.push(((destination, topic), text.into()));
            }
            for row in &inner.read(READING, WEBHOOKS, &[]).await? {
                carried.webhooks.push(CarriedWebhook {
                    key: webhook_key(column(row, "key")?)?,
                    delivery: DeliveryId(read_id(row, "delivery")?),
                    rows: count(row, "rows")?,
                    committed: millis(row, "committed")?,
                });
            }
            for row in &inner.read(READING, ATTEMPTS, &[]).await? {
                carried
                    .attempts
                    .push(Arc::new(attempts::read(&inner, row)?));
            }
            let next = inner.read(READING, NEXT_LETTER, &[]).await?;
            carried.next_letter = next.first().map_or(Ok(0), |row| count(row, "next"))?;
            Ok(carried)
        })
    }

    /// The requests of a delivery that are there, in their order: each as it is sealed, once it has been
    /// opened. Those that have settled may be among them.
    pub fn entries(
        &self,
        delivery: &CarriedDelivery,
        mut put: impl FnMut(u32, &[u8], Tally) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let id = delivery.info.id;
        let keys = Arc::clone(&self.outbox.inner.settings.keys);
        let mut from = 0;
        while let Some(block) = self.block(id, from)? {
            let end = block.first + u64::from(block.entries);
            for ordinal in block.first.max(from)..end {
                let narrow = u32::try_from(ordinal).unwrap_or(u32::MAX);
                match block.sealed(id, ordinal, &keys) {
                    Ok((record, tally)) => put(narrow, record, tally)?,
                    // Nobody needs it any more.
                    Err(_) if delivery.settled.get(narrow) => {}
                    Err(why) => return Err(unreadable(&format!("request {ordinal} of {id}"), why)),
                }
            }
            from = end;
        }
        Ok(())
    }

    fn block(&self, id: DeliveryId, from: u64) -> Result<Option<Block>, Error> {
        let inner = Arc::clone(&self.outbox.inner);
        self.outbox.run(async move {
            let rows = inner
                .read(READING, BLOCK, &[&&id.0[..], &(from as i64)])
                .await?;
            let Some(row) = rows.first() else {
                return Ok(None);
            };
            Ok(Some(Block {
                first: count(row, "first")?,
                entries: column::<i32>(row, "entries")? as u32,
                places: column(row, "places")?,
                body: column(row, "body")?,
            }))
        })
    }

    /// The rejected rows of a delivery that are kept, each as it is sealed.
    pub fn rejected(&self, id: DeliveryId) -> Result<Vec<Vec<u8>>, Error> {
        let inner = Arc::clone(&self.outbox.inner);
        let keys = Arc::clone(&inner.settings.keys);
        let bodies: Vec<Vec<u8>> = self.outbox.run(async move {
            let rows = inner.read(READING, REJECTS, &[&&id.0[..]]).await?;
            rows.iter().map(|row| column(row, "body")).collect()
        })?;
        let mut records = Vec::new();
        for body in &bodies {
            for (offset, length, frame) in scan(body) {
                let bytes = body.get(offset..offset + length).unwrap_or_default();
                let name = Name {
                    kind: Kind::Rejected,
                    delivery: id,
                    ordinal: frame.name.ordinal,
                };
                sound(bytes, name, &keys, &format!("a rejected row of {id}"))?;
                records.push(bytes.to_vec());
            }
        }
        Ok(records)
    }

    /// The record of a letter as it is sealed, once it has been opened, and under which key.
    pub fn letter(&self, letter: &CarriedLetter) -> Result<(Vec<u8>, KeyId), Error> {
        let inner = Arc::clone(&self.outbox.inner);
        let keys = Arc::clone(&inner.settings.keys);
        let id = letter.id as i64;
        let body: Option<Vec<u8>> = self.outbox.run(async move {
            let rows = inner.read(READING, LETTER, &[&id]).await?;
            rows.first().map(|row| column(row, "body")).transpose()
        })?;
        let body = body.unwrap_or_default();
        let name = Name {
            kind: Kind::Dead,
            delivery: letter.delivery,
            ordinal: letter.ordinal,
        };
        sound(&body, name, &keys, &format!("dead letter {id}"))?;
        let key = Frame::decode(&body).ok().and_then(|frame| frame.key_id());
        let key = key.unwrap_or(keys.current());
        Ok((body, key))
    }
}

fn sound(bytes: &[u8], name: Name, keys: &Keyring, what: &str) -> Result<(), Error> {
    match open(bytes, name, keys) {
        Ok(_) => Ok(()),
        Err(why) => Err(unreadable(what, why)),
    }
}

fn unreadable(what: &str, why: Unreadable) -> Error {
    match why {
        Unreadable::Damaged => Error::Damaged { what: what.into() },
        Unreadable::Key(key) => Error::MissingKey { key },
    }
}

fn webhook_key(bytes: &[u8]) -> Result<WebhookKey, Error> {
    let key = bytes.try_into().map_err(|_| Error::Damaged {
        what: "a webhook id".into(),
    })?;
    Ok(WebhookKey(key))
}

fn delivery(row: &tokio_postgres::Row) -> Result<CarriedDelivery, Error> {
    let id = DeliveryId(read_id(row, "id")?);
    let key: &[u8] = column(row, "key")?;
    let webhook: Option<&[u8]> = column(row, "webhook")?;
    let (rows_in, rejected, unchanged) = (
        count(row, "rows_in")?,
        count(row, "rejected")?,
        count(row, "unchanged")?,
    );
    let totals = Totals {
        rows_in,
        rows_rejected: rejected,
        rows_unchanged: unchanged,
        users: count(row, "users")?,
        batches: count(row, "batches")?,
        requests: count(row, "requests")?,
        notes: column(row, "notes")?,
    };
    let marks = Marks::from_parts(count(row, "frontier")?, column(row, "beyond")?);
    let requests = u32::try_from(totals.requests).unwrap_or(u32::MAX);
    let mut settled = Bits::none(requests);
    for ordinal in 0..requests {
        settled.set(ordinal, marks.get(u64::from(ordinal)));
    }
    Ok(CarriedDelivery {
        info: Arc::new(Info {
            id,
            destination: DestinationId(read_id(row, "destination")?),
            label: column::<String>(row, "label")?.into(),
            account: Arc::default(),
            webhook: webhook.map(webhook_key).transpose()?,
            title: column::<String>(row, "title")?.into(),
            link: column::<Option<String>>(row, "link")?.map(Arc::from),
            received: millis(row, "received")?,
        }),
        totals,
        committed: UnixMillis(count(row, "committed")?),
        counters: counters(row)?,
        held: column(row, "held")?,
        turn: count(row, "position")?,
        settled,
        key: KeyId(key.try_into().map_err(|_| Error::Damaged {
            what: format!("delivery {id}").into(),
        })?),
    })
}

const DELIVERIES: &str =
    "SELECT d.id, d.destination, d.key, d.webhook, d.title, d.label, d.link, d.received,
        d.committed, d.rows_in, d.rejected, d.unchanged, d.users, d.batches, d.requests, d.notes,
        p.position, p.frontier, p.beyond, p.delivered_rows, p.delivered_batches, p.dead_rows,
        p.dead_batches, p.discarded_rows, p.discarded_batches, p.damaged_rows, p.damaged_batches,
        p.cancelled_rows, p.cancelled_batches, p.erased_rows, p.erased_batches,
        d.erased_rejected, p.held, p.cancelled_at, p.finished
     FROM looker_feed.delivery d JOIN looker_feed.progress p ON p.delivery = d.id
     WHERE d.state = 1 ORDER BY d.committed, d.id";
const LETTERS: &str = "SELECT id, delivery, destination, ordinal, live, rows, batches, queued
     FROM looker_feed.letter ORDER BY id";
const ACCOUNTS: &str = "SELECT id, label, account FROM looker_feed.destination
     WHERE length(account) > 0 ORDER BY id";
const NOTES: &str =
    "SELECT destination, topic, text FROM looker_feed.note ORDER BY destination, topic";
const WEBHOOKS: &str = "SELECT key, delivery, rows, committed FROM looker_feed.webhook
     WHERE committed IS NOT NULL AND rows IS NOT NULL";
const ATTEMPTS: &str = "SELECT id, webhook, received, ended, kind, rows, bytes, sealed
     FROM looker_feed.attempt WHERE ended IS NOT NULL ORDER BY id";
const NEXT_LETTER: &str = "SELECT next FROM looker_feed.counter WHERE name = 'letter'";
const BLOCK: &str = "SELECT first, entries, places, body FROM looker_feed.block
     WHERE delivery = $1 AND first >= 0 AND first + entries > $2 ORDER BY first LIMIT 1";
const REJECTS: &str = "SELECT body FROM looker_feed.reject WHERE delivery = $1 ORDER BY first";
const LETTER: &str = "SELECT body FROM looker_feed.letter WHERE id = $1";
const MARK: &str = "INSERT INTO looker_feed.counter AS c (name, next)
     SELECT $1, 0 WHERE NOT EXISTS (SELECT 1 FROM looker_feed.daemon m WHERE m.name <> $2
        AND m.beat > clock_timestamp() - interval '1 minute')
     ON CONFLICT (name) DO UPDATE SET next = c.next + 1 RETURNING next";
