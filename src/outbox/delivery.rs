//! A delivery as the outbox sees it: what is said when it begins and ends, and what can be asked
//! about it afterwards.

use std::fmt;
use std::ops::{AddAssign, SubAssign};
use std::str::FromStr;
use std::sync::Arc;

use crate::clock::UnixMillis;
use crate::model::{DeliveryId, DestinationId};
use crate::outbox::codec::{Decoder, Encoder, Malformed, cut};
use crate::outbox::error::Error;
use crate::outbox::webhook::WebhookKey;

/// Most bytes of the sealed account of a destination.
pub const MAX_ACCOUNT: usize = 3 << 10;
const MAX_LABEL: usize = 200;
const MAX_TITLE: usize = 400;
/// Most bytes of [`NewDelivery::link`]; a longer one is not kept.
pub const MAX_LINK: usize = 1800;
const MAX_NOTES: usize = 1200;

/// What is known of a delivery before its first row.
#[derive(Clone, Debug)]
pub struct NewDelivery {
    /// Its name, never used before.
    pub id: DeliveryId,
    /// Where it goes.
    pub destination: DestinationId,
    /// The destination for people; cut at 200 bytes.
    pub destination_label: String,
    /// What the drain needs to send, sealed by the caller; at most [`MAX_ACCOUNT`] bytes. The
    /// newest one of a destination is used for all that waits there.
    pub account: Vec<u8>,
    /// Looker's name for this execution, by which a repetition is known.
    pub webhook: Option<String>,
    /// For people; cut at 400 bytes.
    pub title: String,
    /// For people, in the caller's own form; one longer than [`MAX_LINK`] is not kept.
    pub link: Option<String>,
    /// When it began.
    pub received: UnixMillis,
}

/// What the caller has counted by the end of a delivery. The outbox holds it against what it was
/// given and refuses a delivery whose rows do not add up.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Rows that Looker sent.
    pub rows_in: u64,
    /// Rows among them that could not be mapped.
    pub rows_rejected: u64,
    /// Rows among them that need not be sent, since what they say has been sent before.
    pub rows_unchanged: u64,
    /// Different users.
    pub users: u64,
    /// Slices appended.
    pub batches: u64,
    /// Entries appended.
    pub requests: u64,
    /// Remarks for people; kept up to 1200 bytes together.
    pub notes: Vec<String>,
}

/// The proof that a delivery is on the disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Receipt {
    /// Which.
    pub delivery: DeliveryId,
    /// When it became durable.
    pub committed: UnixMillis,
    /// Rows that wait for the drain.
    pub rows: u64,
    /// Batches that wait for the drain.
    pub batches: u64,
    /// Requests that wait for the drain.
    pub requests: u64,
    /// Size of its segment files.
    pub bytes: u64,
}

/// Rows, and the batches that they are in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Rows of the delivery.
    pub rows: u64,
    /// Batches, one slice each.
    pub batches: u64,
}

impl Tally {
    pub(in crate::outbox) fn encode(self, out: &mut Encoder) {
        out.u64(self.rows).u64(self.batches);
    }

    pub(in crate::outbox) fn decode(read: &mut Decoder<'_>) -> Result<Self, Malformed> {
        Ok(Self {
            rows: read.u64()?,
            batches: read.u64()?,
        })
    }
}

impl AddAssign for Tally {
    fn add_assign(&mut self, other: Self) {
        self.rows = self.rows.saturating_add(other.rows);
        self.batches = self.batches.saturating_add(other.batches);
    }
}

impl SubAssign for Tally {
    fn sub_assign(&mut self, other: Self) {
        self.rows = self.rows.saturating_sub(other.rows);
        self.batches = self.batches.saturating_sub(other.batches);
    }
}

/// Where every row of one delivery is. `rows_in` is the sum of the rows of `waiting`,
/// `in_flight`, `delivered`, `dead`, `discarded`, `damaged`, `cancelled` and `erased`, and of `rejected`
/// and `unchanged`, at every moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeliveryState {
    /// Which.
    pub id: DeliveryId,
    /// Its place in the list.
    pub cursor: DeliveryCursor,
    /// Where it goes.
    pub destination: DestinationId,
    /// The destination for people.
    pub destination_label: String,
    /// For people.
    pub title: String,
    /// For people.
    pub link: Option<String>,
    /// When it began.
    pub received: UnixMillis,
    /// When it became durable.
    pub committed: UnixMillis,
    /// Rows that Looker sent.
    pub rows_in: u64,
    /// Different users.
    pub users: u64,
    /// Batches made of them.
    pub batches: u64,
    /// Requests made of them.
    pub requests: u64,
    /// Not sent yet, or replayed from the dead letters and not sent yet.
    pub waiting: Tally,
    /// Claimed by the drain.
    pub in_flight: Tally,
    /// Accepted by the destination.
    pub delivered: Tally,
    /// In the dead letters.
    pub dead: Tally,
    /// Were in the dead letters, and a person threw them away.
    pub discarded: Tally,
    /// Lost to damage of the disk. Each loss was logged as an error when it was found.
    pub damaged: Tally,
    /// Waited when a person cancelled the delivery, and are not sent.
    pub cancelled: Tally,
    /// When a person cancelled it.
    pub cancelled_at: Option<UnixMillis>,
    /// Belonged to somebody who was erased before it was sent; its rows are those too that could not be
    /// mapped.
    pub erased: Tally,
    /// Rows that could not be mapped and were not erased.
    pub rejected: u64,
    /// Rows that need not be sent, since what they say has been sent before.
    pub unchanged: u64,
    /// Remarks for people.
    pub notes: Vec<String>,
    /// Nothing of it is sent before somebody releases it.
    pub held: bool,
    /// Nothing of it waits or flies.
    pub settled: bool,
    /// When the last of it settled; `None` too if the state that said so was lost.
    pub finished: Option<UnixMillis>,
}

/// A place in the list of deliveries. Opaque; printed as a text of digits, and read back from one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeliveryCursor {
    pub(in crate::outbox) place: u64,
    /// Of those in one place, where several can be; else zeros.
    pub(in crate::outbox) id: DeliveryId,
}

/// The text is no place in the list of deliveries.
#[derive(Debug, thiserror::Error)]
#[error("a place in the list of deliveries is what a list gave")]
pub struct DeliveryCursorError;

impl DeliveryCursor {
    pub(in crate::outbox) fn at(place: u64) -> Self {
        Self {
            place,
            id: DeliveryId([0; 16]),
        }
    }
}

impl fmt::Display for DeliveryCursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.place.fmt(f)?;
        match self.id.0 == [0; 16] {
            true => Ok(()),
            false => write!(f, "-{}", self.id),
        }
    }
}

impl FromStr for DeliveryCursor {
    type Err = DeliveryCursorError;

    fn from_str(text: &str) -> Result<Self, DeliveryCursorError> {
        let (place, id) = match text.split_once('-') {
            Some((place, id)) => (place, id.parse().map_err(|_| DeliveryCursorError)?),
            None => (text, DeliveryId([0; 16])),
        };
        let place = place.parse().map_err(|_| DeliveryCursorError)?;
        Ok(Self { place, id })
    }
}

/// A part of the list of deliveries.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DeliveryPage {
    /// At most as many as asked for, the newest first.
    pub deliveries: Vec<DeliveryState>,
    /// Where the next page begins; `None`: this was the last.
    pub next: Option<DeliveryCursor>,
}

/// How a delivery ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ending {
    /// It is not listed: never committed, or forgotten.
    Unknown,
    /// Something of it waits or flies.
    Open,
    /// Nothing of it waits or flies, and all arrived but for something in these requests (from 0,
    /// ascending), which lies in the dead letters.
    Settled(Vec<u32>),
    /// Nothing of it waits or flies, and what did not arrive cannot be told by its request:
    /// discarded, cancelled or damaged.
    InDoubt,
}

/// The lasting part of [`NewDelivery`], within its bounds. The deliveries of a schedule have the same texts,
/// which can be shared.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::outbox) struct Info {
    pub id: DeliveryId,
    pub destination: DestinationId,
    pub label: Arc<str>,
    pub account: Arc<[u8]>,
    pub webhook: Option<WebhookKey>,
    pub title: Arc<str>,
    pub link: Option<Arc<str>>,
    pub received: UnixMillis,
}

impl Info {
    pub fn new(new: NewDelivery) -> Result<Self, Error> {
        if new.account.len() > MAX_ACCOUNT {
            return Err(Error::TooLarge {
                what: "the account",
                limit: MAX_ACCOUNT,
            });
        }
        Ok(Self {
            id: new.id,
            destination: new.destination,
            label: cut(&new.destination_label, MAX_LABEL).into(),
            account: new.account.into(),
            webhook: new.webhook.as_deref().map(WebhookKey::of),
            title: cut(&new.title, MAX_TITLE).into(),
            link: new
                .link
                .filter(|link| link.len() <= MAX_LINK)
                .map(Arc::from),
            received: new.received,
        })
    }

    pub fn encode(&self, out: &mut Encoder) {
        out.raw(&self.id.0)
            .raw(&self.destination.0)
            .time(self.received)
            .text(&self.label)
            .blob(&self.account);
        match self.webhook {
            Some(key) => out.u8(1).raw(&key.0),
            None => out.u8(0),
        };
        out.text(&self.title).optional_text(self.link.as_deref());
    }

    pub fn decode(read: &mut Decoder<'_>) -> Result<Self, Malformed> {
        Ok(Self {
            id: DeliveryId(read.array()?),
            destination: DestinationId(read.array()?),
            received: read.time()?,
            label: read.text()?.into(),
            account: match read.blob()? {
                // Of a row: it needs no memory of its own.
                [] => Arc::default(),
                account => account.into(),
            },
            webhook: match read.u8()? {
                0 => None,
                1 => Some(WebhookKey(read.array()?)),
                _ => return Err(Malformed),
            },
            title: read.text()?.into(),
            link: read.optional_text()?.map(Arc::from),
        })
    }
}

impl Totals {
    /// What was to be sent.
    pub(in crate::outbox) fn mapped(&self) -> Tally {
        Tally {
            rows: self
                .rows_in
                .saturating_sub(self.rows_rejected)
                .saturating_sub(self.rows_unchanged),
            batches: self.batches,
        }
    }

    /// The same with its notes cut to what is kept.
    pub(in crate::outbox) fn bounded(mut self) -> Self {
        let mut room = MAX_NOTES;
        let mut dropped = 0usize;
        self.notes.retain(|note| {
            let keep = note.len() <= room;
            if keep {
                room -= note.len();
            } else {
                dropped += 1;
            }
            keep
        });
        if dropped > 0 {
            self.notes.push(format!("and {dropped} longer notes"));
        }
        self
    }

    pub(in crate::outbox) fn encode(&self, out: &mut Encoder) {
        out.u64(self.rows_in)
            .u64(self.rows_rejected)
            .u64(self.rows_unchanged)
            .u64(self.users)
            .u64(self.batches)
            .u64(self.requests)
            .u32(self.notes.len() as u32);
        for note in &self.notes {
            out.text(note);
        }
    }

    pub(in crate::outbox) fn decode(read: &mut Decoder<'_>) -> Result<Self, Malformed> {
        let mut totals = Self {
            rows_in: read.u64()?,
            rows_rejected: read.u64()?,
            rows_unchanged: read.u64()?,
            users: read.u64()?,
            batches: read.u64()?,
            requests: read.u64()?,
            notes: Vec::new(),
        };
        for _ in 0..read.u32()? {
            totals.notes.push(read.text()?);
        }
        Ok(totals)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_from_outside_are_bounded() {
        let info = Info::new(NewDelivery {
            id: DeliveryId([1; 16]),
            destination: DestinationId([2; 16]),
            destination_label: "é".repeat(1_000),
            account: vec![1; MAX_ACCOUNT],
            webhook: Some("w".repeat(100_000)),
            title: "t".repeat(100_000),
            link: Some("l".repeat(100_000)),
            received: UnixMillis(5),
        })
        .unwrap();
        let mut out = Encoder::default();
        info.encode(&mut out);
        assert!(out.bytes.len() < 4 << 10, "{}", out.bytes.len());
        assert_eq!(info.link, None);
        let mut read = Decoder::new(&out.bytes);
        assert_eq!(Info::decode(&mut read).as_ref(), Ok(&info));
        assert_eq!(read.end(), Ok(()));
    }

    #[test]
    fn notes_beyond_the_bound_are_counted() {
        let totals = Totals {
            notes: vec!["a".repeat(1_000), "b".repeat(1_000), "c".to_owned()],
            ..Totals::default()
        };
        let notes = totals.bounded().notes;
        assert_eq!(
            notes[1..],
            ["c".to_owned(), "and 1 longer notes".to_owned()]
        );
    }

    #[test]
    fn an_account_that_is_too_large_is_refused() {
        let new = NewDelivery {
            id: DeliveryId([1; 16]),
            destination: DestinationId([2; 16]),
            destination_label: String::new(),
            account: vec![1; MAX_ACCOUNT + 1],
            webhook: None,
            title: String::new(),
            link: None,
            received: UnixMillis(5),
        };
        assert!(matches!(Info::new(new), Err(Error::TooLarge { .. })));
    }
}
