//! Why a delivery is not taken, in the hub's terms.

use super::readiness::NotReady;
use crate::changes;
use crate::decode::Problem;
use crate::group::GroupError;
use crate::ingest::IngestError;
use crate::intake::{self, Refusal};
use crate::model::FailureKind;
use crate::outbox;

pub(super) fn refusal(kind: FailureKind, message: &str) -> Refusal {
    Refusal {
        kind,
        message: message.to_owned(),
    }
}

pub(super) fn not_ready(why: NotReady) -> Refusal {
    let why = match why {
        // Of one that has not begun.
        NotReady::Outbox(outbox::Error::Database { doing, why }) => {
            let why = format!("{doing}: {why}").into();
            NotReady::Outbox(outbox::Error::Away { why })
        }
        other => other,
    };
    let kind = match &why {
        NotReady::Leaving | NotReady::Stopping => FailureKind::Stopping,
        NotReady::Outbox(error) => kind_of_outbox(error),
    };
    refusal(kind, &why.to_string())
}

/// What failed, for the machine, and for a log that must not quote the delivery.
pub(super) fn kind(error: &IngestError) -> FailureKind {
    match error {
        IngestError::Stream { source, .. } if intake::was_not_read_back(source) => {
            FailureKind::Disk
        }
        IngestError::Stream { .. } => FailureKind::Cut,
        IngestError::Decode(error) => match error.problem {
            Problem::Truncated => FailureKind::Cut,
            // A proxy's page, or a Looker that is just starting.
            Problem::Empty | Problem::Html => FailureKind::Looker,
            _ => FailureKind::Document,
        },
        IngestError::Query(_) => FailureKind::Query,
        IngestError::Plan(_) => FailureKind::Columns,
        IngestError::NothingToSend { .. } => FailureKind::Rows,
        IngestError::Changes(error) => match error {
            changes::Error::Busy => FailureKind::Busy,
            changes::Error::Io { .. }
            | changes::Error::Unreadable { .. }
            | changes::Error::Seal(_) => FailureKind::Disk,
            changes::Error::Shrunk { .. } | changes::Error::Truncated => FailureKind::Changes,
        },
        IngestError::Group(GroupError::RowTooLarge(_)) => FailureKind::Document,
        IngestError::Group(_) | IngestError::Early(_) => FailureKind::Disk,
        IngestError::Thread(_) | IngestError::Busy { .. } => FailureKind::Busy,
        IngestError::Outbox(error) => kind_of_outbox(error),
        IngestError::Stopped => FailureKind::Stopping,
        IngestError::Panicked => FailureKind::Program,
    }
}

fn kind_of_outbox(error: &outbox::Error) -> FailureKind {
    match error {
        outbox::Error::RefusingWrites { .. }
        | outbox::Error::State { .. }
        | outbox::Error::Away { .. } => FailureKind::Refusing,
        outbox::Error::Closed => FailureKind::Stopping,
        outbox::Error::Duplicate(_)
        | outbox::Error::Unbalanced { .. }
        | outbox::Error::NoSuchSlice { .. } => FailureKind::Program,
        _ => FailureKind::Disk,
    }
}
