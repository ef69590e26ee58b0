//! Why a delivery, or one row of it, cannot be mapped.

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
    /// More columns than a plan can hold.
    #[error("The result has {0} columns with tags; at most 65,535 can be mapped.")]
    TooManyColumns(usize),
}

/// One row cannot be sent. Its text never holds a value of the row.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Rejection {
    /// Every identity column is null, empty or absent.
    #[error("no identity: {0} null, empty or absent")]
    NoIdentity(String),
    /// The event's time is no time.
    #[error(
        "the timestamp in column {0} is neither a whole number of milliseconds since 1970 nor a date (2026-11-20, 2026-11-20 13:05:00, 2026-11-20T13:05:00Z) nor seconds"
    )]
    Timestamp(String),
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
