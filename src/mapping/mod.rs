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
//!   timestamp is not a whole number is rejected. Other typed fields that do not fit are left
//!   out, and counted.
//! - A `custom_event_type` that mParticle does not know becomes `other`, and is counted.
//! - Null attributes are left out; so a later null does not undo an earlier value of the user.
//! - A measure that is pivoted has many values in one row. Tagged, it fails the delivery, since
//!   no choice among them could be right.

mod cells;
mod notes;
mod plan;
mod tags;
mod values;

pub use notes::{Note, Tally};
pub use plan::{ColumnFate, Names, Plan, PlanError, Rejection};
pub use tags::{DeviceType, EVENT_TYPES, Identity, TAGS, Tag, device_field, tag};

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
}

/// The choices that a mapping depends on.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// Profiles or events.
    pub data_type: DataType,
    /// Wire names of the identities.
    pub identity_names: IdentityNames,
    /// What happens to columns without an `mp_` tag.
    pub untagged: Untagged,
}

#[cfg(test)]
mod tests;
