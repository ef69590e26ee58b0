//! Why a request is refused before anything is spent on it.

use super::changes::ChangesError;
use crate::config::MoreColumnsError;

/// Why a request is not taken. Each is a sentence for the schedule's owner.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum RequestError {
    /// A root key came twice: which of the two counts would be a guess.
    #[error("Looker's request has two `{0}` sections.")]
    Twice(&'static str),
    /// A section is not an object, or a member of it has another type than Looker documents. The
    /// parser's words are left out: they would quote the value, which may be a secret.
    #[error("The `{0}` section of Looker's request is not what an action hub expects.")]
    Shape(&'static str),
    /// Another action type than the one that the listing offers.
    #[error(
        "This action supports type \"query\" only (a Look or an Explore), but the request is of type {0}."
    )]
    Type(String),
    /// The action was enabled in Looker without its settings.
    #[error("Required setting \"{0}\" not specified in action settings.")]
    Setting(&'static str),
    /// The form's first field was left out.
    #[error("Missing data type (user|event).")]
    NoDataType,
    /// Neither of the two that the form offers.
    #[error("Unknown data type {0}: it must be \"user_data\" or \"event_data\".")]
    DataType(String),
    /// The form's second field was left out.
    #[error("Missing environment (production|development).")]
    NoEnvironment,
    /// Neither of the two that the form offers. Never taken for one of them: the environment is
    /// the only guard between a trial and real data.
    #[error("Unknown environment {0}: it must be \"production\" or \"development\".")]
    Environment(String),
    /// None of the options that the form offers for an optional field. Not taken for its default:
    /// somebody has chosen something else.
    #[error("Unknown choice {found} for {label}: it must be {known}.")]
    Choice {
        /// The field as the form shows it.
        label: &'static str,
        /// What came.
        found: String,
        /// What the form offers.
        known: String,
    },
    /// Text that is not a version.
    #[error("The data plan version {0} is not a whole number from 1 on.")]
    PlanVersion(String),
    /// The version of what?
    #[error("A data plan version was given without a data plan id.")]
    NoPlan,
    /// What was chosen around "Send Only Changes" cannot be done.
    #[error(transparent)]
    Changes(#[from] ChangesError),
    /// What the schedule says of columns beside their tags cannot be done.
    #[error(transparent)]
    MoreColumns(#[from] MoreColumnsError),
    /// A request for the form is not a JSON object.
    #[error("Looker's request for the form is not what an action hub expects.")]
    NotJson,
}
