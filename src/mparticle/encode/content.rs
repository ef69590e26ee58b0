//! Ids that are functions of what an event says, so that mParticle knows an event that an earlier
//! delivery has brought.
//!
//! mParticle drops a *batch* whose `source_request_id` it has seen, not an event. So an event that
//! shares a batch with others would be lost or doubled with them as soon as a re-sent delivery
//! puts other events beside it, which one added row is enough for; batches that end where the
//! content says so would only make that rarer. Only a batch of one event is the same in every
//! delivery. That costs the rate: 270 events a second by default, where events grouped by user go
//! many to a batch.
//!
//! What goes into an id: the account (key and address), mParticle's environment, all identities,
//! the device and the place, ids at partners and consents, and the event's data. User attributes do not: they describe the user
//! at the time of the delivery and may arrive twice without harm, so they travel in batches of
//! their own under ids of the delivery. If they went with an event, they would be dropped with it.
//!
//! Equal events of one delivery are told apart by counting, so that none is lost: the second of
//! two equal events has the same id in every delivery that holds two of them.

use std::collections::HashMap;
use std::fmt;

use data_encoding::HEXLOWER;
use sha2::{Digest, Sha256};

use crate::mapping::Names;
use crate::model::Environment;
use crate::record::{EventKind, Mark, RecordView, settings};

use super::latest::name;

/// Changed whenever the same event would get another id, so that a change is a decision.
const VERSION: &[u8] = b"looker-feed event 1";

/// Makes ids of events.
#[derive(Debug)]
pub(super) struct Content {
    start: Sha256,
    /// How often each event has occurred among records with this order key. Equal events have the
    /// same key and come one after the other, so few are held at once.
    seen: HashMap<[u8; 16], u32>,
    key: u64,
}

/// Names one event forever.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ContentId {
    hash: [u8; 16],
    /// How many equal events came before it in the delivery.
    before: u32,
}

impl fmt::Display for ContentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "event-{}", HEXLOWER.encode_display(&self.hash))?;
        match self.before {
            0 => Ok(()),
            before => write!(f, "-{before}"),
        }
    }
}

impl Content {
    /// Ids for one account.
    pub(super) fn new(account: [u8; 16], environment: Environment) -> Self {
        let environment: &[u8] = match environment {
            Environment::Production => b"production",
            Environment::Development => b"development",
        };
        let mut start = Sha256::new();
        for part in [VERSION, &account, environment] {
            update(&mut start, part);
        }
        Self {
            start,
            seen: HashMap::new(),
            key: 0,
        }
    }

    /// The id of a record's event. Equal events must come with the same [`RecordView::user`], one
    /// after the other.
    pub(super) fn id(&mut self, record: &RecordView<'_>, names: &Names) -> ContentId {
        let mut hash = self.start.clone();
        update(&mut hash, record.identities);
        for (slot, literal) in settings(record.device) {
            update(&mut hash, name(&names.device, slot).as_bytes());
            update(&mut hash, literal);
        }
        update(&mut hash, b"");
        let (mark, members) = Mark::split(record.event);
        update(&mut hash, members);
        // Whether it is old says nothing: an event stays the same when it has grown old since.
        if mark.kind != EventKind::Custom {
            update(&mut hash, mark.kind.name().as_bytes());
        }
        let whole = hash.finalize();
        let mut hash = [0; 16];
        hash.iter_mut().zip(whole).for_each(|(to, from)| *to = from);
        if self.key != record.user {
            self.seen.clear();
            self.key = record.user;
        }
        let count = self.seen.entry(hash).or_default();
        let before = *count;
        *count = count.saturating_add(1);
        ContentId { hash, before }
    }
}

/// With its length, so that no two lists of parts run together to the same bytes.
fn update(hash: &mut Sha256, part: &[u8]) {
    hash.update((part.len() as u64).to_le_bytes());
    hash.update(part);
}
