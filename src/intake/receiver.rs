//! What intake knows of the rest of the daemon: one trait, and the nouns that pass through it.

use std::io;
use std::pin::Pin;
use std::time::Duration;

use bytes::Bytes;
use futures::Stream;

use crate::config::{
    AttributeTypes, Historical, MoreColumns, Nulls, PivotedMeasures, Pod, Secret, Untagged,
};
use crate::model::{DataType, DeliveryId, Environment, FailureKind};

/// Takes deliveries over. Implemented by the composition root; tests bring a scripted one.
pub trait Receiver: Send + Sync + 'static {
    /// The right to receive one delivery. Dropping it fails the delivery.
    type Reservation: Send + 'static;

    /// Whether a delivery that came now would be taken (room on the disk, health of the outbox).
    /// Asked before a download url is spent, again and again while a push is spooled, and for
    /// `GET /status`. Must not block.
    fn admit(&self) -> Result<(), Refusal>;

    /// Whether a delivery with these choices would be taken, as far as they decide. Asked while a person
    /// fills in the form. Must not block.
    fn allows(&self, _choices: &Choices) -> Result<(), Refusal> {
        Ok(())
    }

    /// Registers a delivery and its webhook id, and makes durable that it has begun: called before
    /// its url is spent, so that one whose rows are lost on the way is known to have been. The
    /// order is there if all of the request but its rows is.
    ///
    /// # Errors
    /// It is known already, or nothing can be taken now.
    fn reserve(
        &self,
        caller: &Caller,
        request: Option<&DeliveryRequest>,
    ) -> impl Future<Output = Result<Self::Reservation, NotReserved>> + Send;

    /// Writes down that a delivery came to nothing before [`Receiver::receive`] was called. Must not
    /// block.
    fn failed(
        &self,
        reservation: Option<Self::Reservation>,
        caller: &Caller,
        kind: FailureKind,
        message: &str,
    );

    /// Waits until a delivery that begins now would be worked on at once, and not without end. Asked
    /// before a download url is spent: it is valid for an hour. In [`Receiver::receive`] a delivery may
    /// have to wait again, once its first bytes have come: those that are silent keep nobody waiting.
    fn turn(&self) -> impl Future<Output = Result<(), Refusal>> + Send;

    /// Carries one delivery to where it is durable: `Ok` means committed and on the disk. Must read
    /// `source` to its end before it commits, even when the document is complete before: only the
    /// end means that all came and that nothing behind the document speaks against it. An error in
    /// it means that the delivery was cut.
    /// Dropping the future gives the delivery up, and nothing of it may remain but that it failed.
    ///
    /// # Errors
    /// The sentence that Looker is to be told; nothing of the delivery remains.
    fn receive(
        &self,
        reservation: Self::Reservation,
        request: DeliveryRequest,
        source: Source,
    ) -> impl Future<Output = Result<Accepted, Refusal>> + Send;
}

/// Why a delivery was not reserved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NotReserved {
    /// One with its webhook id is being received.
    Receiving,
    /// One with its webhook id is in the outbox or beyond it.
    Committed {
        /// Rows that the delivery had.
        rows: u64,
    },
    /// Nothing can be taken now.
    Refused(Refusal),
}

/// Who has an execute request made, as far as it says so. All of it comes from outside; texts are
/// bounded.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Caller {
    /// `X-Looker-Webhook-Id`: visible ASCII, at most 128 characters.
    pub webhook_id: Option<String>,
    /// `X-Looker-Instance`: visible ASCII, at most 128 characters.
    pub instance: Option<String>,
    /// The schedule's title, as its owner wrote it; empty if Looker sent none. User text.
    pub title: String,
    /// Where the content stands in Looker; one that is very long is left out. User text.
    pub link: Option<String>,
    /// The schedule's id, which is a number in old Looker and text in new.
    pub schedule_id: Option<String>,
    /// The query's id.
    pub query_id: Option<String>,
    /// The hosts of link and download address, with their ports if they stand there.
    pub hosts: Vec<String>,
}

/// What Looker asks for with one execute request, checked.
#[derive(Clone, Debug)]
pub struct DeliveryRequest {
    /// mParticle's key; not empty.
    pub api_key: String,
    /// mParticle's secret; not empty.
    pub api_secret: Secret,
    /// Profiles or events.
    pub data_type: DataType,
    /// mParticle's environment.
    pub environment: Environment,
    /// `X-Looker-Webhook-Id`: visible ASCII, at most 128 characters.
    pub webhook_id: Option<String>,
    /// The schedule's title, as its owner wrote it; empty if Looker sent none. User text.
    pub title: String,
    /// Where the content stands in Looker. User text.
    pub link: Option<String>,
    /// `X-Looker-Instance`: visible ASCII, at most 128 characters.
    pub instance: Option<String>,
    /// The schedule's id, which is a number in old Looker and text in new.
    pub schedule_id: Option<String>,
    /// What the form leaves to the schedule's owner.
    pub choices: Choices,
}

/// The optional fields of the form. `None`, or a field that is not there, since the schedule was
/// saved before there was one: as it is configured.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Choices {
    /// mParticle's data centre.
    pub pod: Option<Pod>,
    /// What becomes of columns without a tag.
    pub untagged: Option<Untagged>,
    /// Tags of columns that count before those of LookML; fit for the type of data.
    pub more_columns: MoreColumns,
    /// What becomes of tagged measures that are pivoted.
    pub pivoted_measures: Option<PivotedMeasures>,
    /// What is sent for attributes that are null.
    pub null_attributes: Option<Nulls>,
    /// Whether attributes are sent by the type of their column.
    pub attribute_types: Option<AttributeTypes>,
    /// Of values that hold HTML only the text is sent.
    pub strip_html: Option<bool>,
    /// Which events are sent as historical ones.
    pub historical_events: Option<Historical>,
    /// Events that were sent before are not to arrive again.
    pub skip_sent: bool,
    /// Only users who differ from the schedule's last delivery are sent. Then the data are profiles,
    /// and there is a `schedule_id`.
    pub only_changes: Option<OnlyChanges>,
    /// The data plan that batches name.
    pub plan_id: Option<String>,
    /// Its version; only with a `plan_id`.
    pub plan_version: Option<u32>,
}

/// How only changes are sent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OnlyChanges {
    /// After so long all users are sent; `None`: as it is configured.
    pub full_refresh: Option<Duration>,
    /// The user attribute that is true for who is in the result and false for who has left it: a
    /// name that mParticle takes and no column has.
    pub audience: Option<String>,
    /// Any number may leave at once.
    pub may_shrink: bool,
}

/// The bytes of the result document, of any chunking. Ends only if all of them came.
pub type Source = Pin<Box<dyn Stream<Item = io::Result<Bytes>> + Send>>;

/// A delivery that is committed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Accepted {
    /// Its id.
    pub delivery: DeliveryId,
    /// Rows that the document had.
    pub rows: u64,
    /// Rows among them that cannot be sent and were kept with their reason.
    pub rejected: u64,
}

/// A delivery that was not taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Refusal {
    /// Why, for the machine.
    pub kind: FailureKind,
    /// A sentence for the mail that Looker sends to the schedule's owner.
    pub message: String,
}
