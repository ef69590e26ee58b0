//! Why a delivery, or one row of it, cannot be mapped.

use super::guess::Guess;
use super::more::MoreColumnsError;

/// The delivery as a whole makes no sense.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    /// No column has an identity tag. The wording is that of Looker's own action.
    #[error(
        "Each row must specify at least 1 identity tag. Add a tag such as mp_customer_id or mp_email to a dimension of the Look, in its LookML, or name a column and its tag under \"More Columns\" in the schedule."
    )]
    NoIdentity,
    /// A measure or table calculation with a tag, in a query with pivots.
    #[error(
        "Column {column} has the tag {tag}, but the query pivots on {pivot}, so each row holds several values of it. Remove the pivot from the Look, or the tag from the column. Or choose in the schedule, under \"Pivoted Measures\", how they are sent, if the tag is one of attributes."
    )]
    Pivoted {
        /// The tagged column.
        column: String,
        /// Its tag.
        tag: String,
        /// The first pivot.
        pivot: String,
    },
    /// What the schedule says of columns beside their tags cannot be done.
    #[error(transparent)]
    MoreColumns(#[from] MoreColumnsError),
    /// Events that were sent before are to be skipped, and nothing tells events apart.
    #[error(
        "\"Skip events already sent\" needs a column that tells events apart: tag the event's time with mp_timestamp_unixtime_ms, or its id with mp_event_id. Without one, two events that happen to be equal could not be told from one that is sent twice. Or choose \"No\" for this field of the schedule."
    )]
    NothingTellsApart,
    /// All events are to be sent as historical ones, and none has a time.
    #[error(
        "mParticle takes historical events only with their time: tag the column that has it with mp_timestamp_unixtime_ms. Or choose another setting for historical events."
    )]
    HistoricalWithoutTime,
    /// No column has an identity tag, and one has what is nearly one.
    #[error(
        "Each row must specify at least 1 identity tag. Column {column} has the tag {tag}: did you mean {meant}? Tags are lower case, with underscores."
    )]
    MisspeltIdentity {
        /// The column.
        column: String,
        /// Its tag.
        tag: String,
        /// The tag that is spelled most like it.
        meant: &'static str,
    },
    /// More names of events than mParticle takes in a workspace.
    #[error(
        "The events have more than {most} different names (column {columns}). mParticle takes that many in a workspace and drops events with further names without a word, so nothing was sent. Name events by what happened, and tag what differs from event to event (an id, a date, an address) mp_custom_attribute. If mParticle has raised the limit for you, raise mparticle.max_event_names."
    )]
    TooManyEventNames {
        /// The limit.
        most: usize,
        /// The columns that the names are taken from.
        columns: String,
    },
    /// More columns than a plan can hold.
    #[error("The result has {0} columns with tags; at most 65,535 can be mapped.")]
    TooManyColumns(usize),
}

/// One row cannot be sent. Of the row's values its text holds at most the one that is not a time.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Rejection {
    /// Every identity column is null, empty or absent.
    #[error("no identity: {0} null, empty or absent")]
    NoIdentity(String),
    /// An identity is a number that no double holds.
    #[error("the identity in column {0} is not a number that can be sent, such as 1e400")]
    IdentityTooLarge(String),
    /// The event's name is there, and has nothing that can be seen.
    #[error("the event name in column {0} is blank")]
    BlankEventName(String),
    /// The event's time is not a time, or no plausible one.
    #[error("the timestamp in column {column} {}: {value}", guess.words())]
    Timestamp {
        /// Its column.
        column: String,
        /// What it may be.
        guess: Guess,
        /// Its beginning.
        value: String,
    },
    /// Events that were sent before are to be skipped, and nothing tells this one from others.
    #[error(
        "the event has neither a time nor an event id, so it cannot be known whether it was sent before"
    )]
    NotDistinct,
    /// The event's type is not one that is understood.
    #[error("the event type in column {0} is none of custom_event, screen_view and commerce_event")]
    EventType(String),
    /// The row is a screen view, and its screen has no name.
    #[error(
        "the row is a screen_view, and no column with mp_screen_name has a name for the screen"
    )]
    NoScreenName,
    /// The action is not one that mParticle knows.
    #[error(
        "the product action in column {0} is not one that mParticle knows, such as purchase, refund or add_to_cart"
    )]
    ProductAction(String),
    /// All events are to be sent as historical ones, and this one has no time.
    #[error("the event has no time, and mParticle drops historical events without one")]
    HistoricalWithoutTime,
    /// All events are to be sent as historical ones, and this one is too young for that.
    #[error(
        "the event is younger than 73 hours: mParticle drops historical events younger than 72 hours, and one hour is left for clocks that differ"
    )]
    TooYoung,
}

impl Rejection {
    /// What rows that are refused for the same cause share: the text without the row's value.
    pub fn kind(&self) -> String {
        match self {
            Self::Timestamp { column, guess, .. } => {
                format!("the timestamp in column {column} {}", guess.words())
            }
            other => other.to_string(),
        }
    }

    /// The value that the row is refused for, shortened, where it says something.
    pub fn value(&self) -> Option<&str> {
        match self {
            Self::Timestamp { value, .. } => Some(value),
            _ => None,
        }
    }
}
