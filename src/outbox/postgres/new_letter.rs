//! Dead letters as they are made: what was given up of a request, sealed into a record of its own.

use std::sync::Arc;

use super::change::{Body, Change, NewLetter};
use super::columns::count;
use super::daemon::Inner;
use super::held::{Letter, Work};
use super::lock::lock;
use super::session::Tries;
use crate::model::DeliveryId;
use crate::outbox::bits::Bits;
use crate::outbox::dead::{self, DeadBody, DeadMeta};
use crate::outbox::error::Error;
use crate::outbox::record::{self, EncodeError, Kind, MAX_RAW, Name, Slice};

/// Ids that are taken from the server at once.
const IDS: i64 = 64;

/// What is given up of a request.
pub(super) struct GivenUp {
    pub delivery: DeliveryId,
    pub ordinal: u32,
    pub route: u8,
    /// The letter that was replayed and died again.
    pub replaces: Option<u64>,
    pub dead: Vec<DeadBody>,
}

/// Makes a letter of it.
pub(super) async fn to_letter(
    inner: &Inner,
    work: &Work,
    given_up: GivenUp,
    change: &mut Change,
) -> Result<(), Error> {
    let GivenUp {
        delivery,
        ordinal,
        route,
        replaces,
        dead,
    } = given_up;
    let Some(open) = work.open.get(&delivery) else {
        return Ok(());
    };
    let meta = DeadMeta {
        delivery,
        destination: open.brief.destination,
        received: open.brief.received,
        label: open.brief.label.clone(),
        title: open.brief.title.clone(),
        account: Arc::clone(&work.account),
        replaces,
        route,
        slices: dead.iter().map(|body| body.meta.clone()).collect(),
    };
    let slices = dead::slices(&dead);
    let letter = Letter {
        delivery,
        ordinal,
        live: Bits::all(slices.len() as u32),
        tally: dead::weight(&dead),
        queued: None,
    };
    let body = seal_letter(inner, &meta, ordinal, &slices)?;
    let id = inner.new_letter_id().await?;
    change.add_letter(NewLetter {
        id,
        letter,
        body: Body::Sealed(body),
    });
    Ok(())
}

/// The sealed record of a letter.
pub(super) fn seal_letter(
    inner: &Inner,
    meta: &DeadMeta,
    ordinal: u32,
    slices: &[Slice<'_>],
) -> Result<Vec<u8>, Error> {
    let name = Name {
        kind: Kind::Dead,
        delivery: meta.delivery,
        ordinal,
    };
    let mut body = Vec::new();
    let mut sealer = inner.sealer()?;
    record::encode(&mut body, &mut sealer, name, &meta.encode(), slices)
        .map_err(|error| encode_error("a dead letter", error))?;
    Ok(body)
}

impl Inner {
    /// An id that no letter has had. Some are taken at once, and those that are left over are never used.
    pub async fn new_letter_id(&self) -> Result<u64, Error> {
        if let Some(id) = lock(&self.letter_ids).next() {
            return Ok(id);
        }
        let rows = self
            .write(
                "names for letters could not be taken",
                "UPDATE looker_feed.counter SET next = next + $1
                 WHERE name = 'letter' RETURNING next - $1 AS first",
                &[&IDS],
                Tries::UntilKnown,
            )
            .await?;
        let Some(row) = rows.first() else {
            return Err(Error::Database {
                doing: "names for letters could not be taken",
                why: "the counter is not there".into(),
            });
        };
        let first = count(row, "first")?;
        let mut ids = lock(&self.letter_ids);
        *ids = first + 1..first + IDS as u64;
        Ok(first)
    }
}

pub(super) fn encode_error(what: &'static str, error: EncodeError) -> Error {
    match error {
        EncodeError::TooLarge => Error::TooLarge {
            what,
            limit: MAX_RAW,
        },
        EncodeError::Seal(error) => Error::Database {
            doing: "a record could not be sealed",
            why: error.to_string().into(),
        },
    }
}
