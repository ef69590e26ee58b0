//! Records, user by user, to batches, and batches to ready requests.
//!
//! A batch holds one user and any number of their events. mParticle's rate limit counts batches,
//! so every event that shares a batch with another one of its user is sent for nothing.
//!
//! - **A user is the set of identities of a row.** Rows with exactly the same identities share
//!   batches; rows that share only the first one are kept next to each other, the one with the
//!   latest row last, so that its attributes win.
//! - **A batch describes one device.** Events of one user from several devices are sent in one
//!   batch for each device, since `device_info` belongs to the batch. In user mode there are no
//!   events, and device fields merge as attributes do: later rows win.
//! - **Old events travel apart**: those that the mapping has marked are sent in batches and requests
//!   of their own, to mParticle's address for historical events.
//! - **User attributes merge over all rows of the user**, later rows win, and go out with the
//!   last of the user's batches that is not historical, so that no older value can arrive after a newer one. Attributes beyond
//!   what one batch may hold go out in further batches of their own.
//! - **`source_request_id`** is the delivery's id and the number of the first row in the batch. A
//!   row is in one batch only, so the id names the batch forever. `source_message_id` of an
//!   event is the delivery's id and the number of its row. A delivery that skips what was sent
//!   before has other ids and other batches, see `content.rs`.
//!
//! - **Rows of one transaction are one event** of a user, with the product of each: see `commerce.rs`.
//!
//! Memory: one request, and what is held of the current user, which is bounded (`users.rs`).

mod changes;
mod commerce;
mod content;
mod latest;
mod members;
mod person;
mod request;
mod sink;
mod text;
mod users;
mod writer;

use crate::mapping::Names;
use crate::model::{DataType, DeliveryId, Environment};
use crate::mparticle::limits;
use crate::record::RecordView;
pub use members::DataPlan;
pub use sink::{Batch, Batches, Made, Share, Sink, Unsendable};

use commerce::Purchases;
use users::Users;
use writer::Writer;

/// Limits of what is written. All of mParticle's own limits are upper bounds of these.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// Batches of one request, 1 to 100.
    pub max_batches_per_request: usize,
    /// Events of one request, and so of one batch, 1 to 100.
    pub max_events_per_request: usize,
    /// Bytes of one request.
    pub max_request_bytes: usize,
    /// Bytes of one batch.
    pub max_batch_bytes: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            max_batches_per_request: limits::BATCHES_PER_REQUEST,
            max_events_per_request: limits::EVENTS_PER_REQUEST,
            max_request_bytes: limits::REQUEST_BYTES,
            max_batch_bytes: limits::BATCH_BYTES,
        }
    }
}

/// What all batches of a delivery have in common.
#[derive(Clone, Debug)]
pub struct Delivery {
    /// Names the delivery in every id.
    pub id: DeliveryId,
    /// Profiles or events.
    pub data_type: DataType,
    /// mParticle's `environment`.
    pub environment: Environment,
    /// Names of the slots in the records' settings.
    pub names: Names,
}

/// Writes the batches of one delivery. Records must come grouped: those of one user together,
/// rows ascending.
///
/// A record passes through three hands: rows of one purchase are put together, the rows of a user
/// wait for each other, and batches are written into requests.
#[derive(Debug)]
pub struct Encoder {
    /// Purchases whose rows are still coming; empty in a delivery that has none.
    purchases: Purchases,
    users: Users,
}

impl Encoder {
    /// An encoder for one delivery.
    pub fn new(settings: Settings, delivery: Delivery) -> Self {
        Self {
            purchases: Purchases::default(),
            users: Users::new(Writer::new(settings, delivery)),
        }
    }

    /// Every batch names this data plan.
    pub fn with_data_plan(mut self, plan: &DataPlan) -> Self {
        self.users.writer.name_plan(plan);
        self
    }

    /// Ids become functions of the account and of what each event says, see `content.rs`. Records
    /// must come from a plan that skips what was sent. Without effect on profiles.
    pub fn skipping_sent(mut self, account: [u8; 16]) -> Self {
        if self.users.writer.delivery.data_type == DataType::Event {
            self.users.skip_sent(account);
        }
        self
    }

    /// Asks the sink of each user whether they are known. Records must come sorted by user under a
    /// key that is the same in all deliveries that are compared. `key` makes fingerprints
    /// unforeseeable. `attribute` is set to true for all users, and to false for those that the sink
    /// names at the end. Without effect on events.
    pub fn sending_changes(mut self, key: [u8; 16], attribute: Option<&str>) -> Self {
        if self.users.writer.delivery.data_type == DataType::User {
            self.users.send_changes(key, attribute);
        }
        self
    }

    /// Adds a record.
    pub fn push<S: Sink>(&mut self, record: RecordView<'_>, sink: &mut S) -> Result<(), S::Error> {
        if self.users.writer.names().purchases {
            return self.purchases.push(record, &mut self.users, sink);
        }
        self.users.push(record, 1, sink)
    }

    /// Writes what is still held and returns how much was made in all.
    pub fn finish<S: Sink>(mut self, sink: &mut S) -> Result<Made, S::Error> {
        self.purchases.end(&mut self.users, sink)?;
        self.users.finish(sink)
    }
}

#[cfg(test)]
mod tests;
