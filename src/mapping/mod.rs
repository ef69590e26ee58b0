//! Columns to mParticle's fields, by LookML tag.
//!
//! [`Plan::new`] reads the header once and decides what each column is for; [`Plan::map`] turns
//! one row into one [`Record`](crate::record::Record), straight from the decoder's buffer, with
//! no allocation once the record has grown to size.
//!
//! What cannot be sent as it is, is never dropped in silence: a whole delivery that makes no
//! sense is a [`PlanError`], a row that cannot be sent is a [`Rejection`] (kept with its reason),
//! and a value that had to be left out or changed is counted in a [`Tally`].
//!
//! Where mParticle's contract leaves a choice:
//! - An event without a usable time would be filed under the time of its arrival, so a row whose
//!   timestamp cannot be read is rejected. Dates and seconds are turned into milliseconds, and
//!   counted. Other typed fields that do not fit are left out, and counted.
//! - A `custom_event_type` that mParticle does not know becomes `other`, and is counted.
//! - What a null attribute means is a choice, see [`Nulls`]. Left out, which is the default, a
//!   later null does not undo an earlier value of the user.
//! - A measure that is pivoted has many values in one row. Tagged, it fails the delivery, since
//!   no choice among them could be right, unless it was chosen how attributes take them all, see
//!   [`PivotedMeasures`].

mod batch_columns;
mod cells;
mod columns;
mod commerce;
mod error;
mod event;
mod event_names;
mod guess;
mod historical;
mod html;
mod identity;
mod limits;
mod list;
mod more;
mod names;
mod notes;
mod number;
mod pivot;
mod place;
mod placeholders;
mod plan;
mod row;
mod shared;
mod spelling;
mod tags;
mod time;
mod typed;
mod values;

pub use error::{PlanError, Rejection};
pub use event_names::EventNames;
pub use guess::Guess;
pub use historical::Historical;
pub use identity::user_of;
pub use more::{MoreColumns, MoreColumnsError};
pub use names::Names;
pub use notes::{Note, Tally};
pub use pivot::PivotedMeasures;
pub use placeholders::Placeholders;
pub use plan::{ColumnFate, Plan};
pub use spelling::nearest_tag;

pub use tags::{
    CommerceTag, DeviceType, EVENT_TYPES, Identity, PRODUCT_ACTIONS, ProductField, TAGS, Tag,
    device_field, identity_tags, tag,
};
pub use time::Plausible;
pub use typed::AttributeTypes;

use crate::clock::UnixMillis;
use crate::model::DataType;

/// Names of the identities on the wire.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum IdentityNames {
    /// As mParticle's schema has them: `customer_id`, `other_id_2`.
    #[default]
    Current,
    /// As Looker's own action wrote them: `customerid`, `other2`. For accounts that depend on it.
    Legacy,
}

/// What happens to columns without an `mp_` tag.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Untagged {
    /// They are not sent.
    #[default]
    Ignore,
    /// In user mode they are sent as user attributes, as Looker's own action did.
    UserAttribute,
    /// In event mode they are sent as attributes of the event.
    EventAttribute,
}

/// What is sent for an attribute that is null.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Nulls {
    /// Nothing: mParticle keeps what it has.
    #[default]
    Omit,
    /// `null`.
    Null,
    /// User attributes are deleted; nothing is sent for an event's attributes.
    Delete,
}

/// Stands in a record's attribute settings for "delete it", where else a JSON literal stands. It
/// is none, so it cannot be mistaken for a value.
pub const DELETED: &[u8] = b"-";

/// The bits of [`Record::user`](crate::record::Record::user) that tell a user's events apart in a
/// delivery that skips what was sent (see [`Settings::skip_sent`]): in such a delivery equal events of a user come
/// one after the other. So do the rows of a user's transaction, where rows are grouped by it.
pub const EVENT_BITS: u64 = 0xFF_FFFF;

/// Names of events that mParticle takes in a workspace. ("Default Service Limits")
pub const MAX_EVENT_NAMES: usize = 1000;

/// The choices that a mapping depends on.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Profiles or events.
    pub data_type: DataType,
    /// Wire names of the identities.
    pub identity_names: IdentityNames,
    /// What happens to columns without an `mp_` tag.
    pub untagged: Untagged,
    /// What happens to tagged measures that are pivoted.
    pub pivoted_measures: PivotedMeasures,
    /// White space around an identity is not sent.
    pub trim_identities: bool,
    /// E-mail addresses are sent in lower case.
    pub lowercase_email: bool,
    /// Of a string that holds HTML only the text is sent.
    pub strip_html: bool,
    /// What is sent for an attribute that is null.
    pub nulls: Nulls,
    /// Events that were sent by an earlier delivery are not to arrive again. Each row must be
    /// told from others by a timestamp or an event id. Without effect on profiles, which can
    /// arrive twice without harm.
    pub skip_sent: bool,
    /// Whether attributes are sent by the type of their column.
    pub attribute_types: AttributeTypes,
    /// What counts as no identity.
    pub placeholders: Placeholders,
    /// Which times of events are plausible.
    pub plausible: Plausible,
    /// Different names that the events of a delivery may have.
    pub max_event_names: usize,
    /// Which events are sent as historical ones.
    pub historical: Historical,
    /// When the delivery came in: what the age of an event is measured against.
    pub now: UnixMillis,
}

impl Settings {
    /// All other choices as they are without a configuration.
    pub fn new(data_type: DataType) -> Self {
        Self {
            data_type,
            identity_names: IdentityNames::default(),
            untagged: Untagged::default(),
            pivoted_measures: PivotedMeasures::default(),
            trim_identities: false,
            lowercase_email: false,
            strip_html: false,
            nulls: Nulls::default(),
            skip_sent: false,
            attribute_types: AttributeTypes::default(),
            placeholders: Placeholders::new(Placeholders::COMMON),
            plausible: Plausible::default(),
            max_event_names: MAX_EVENT_NAMES,
            historical: Historical::default(),
            now: UnixMillis::default(),
        }
    }
}

#[cfg(test)]
mod tests;
