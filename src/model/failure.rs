//! Why a delivery failed, as far as it matters for what is done about it.

/// Why a delivery failed. The numbers stand in the outbox and are never used for something else.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum FailureKind {
    /// The request is not one that this action takes, or misses a setting.
    Request = 1,
    /// The rows broke off before their end.
    Cut = 2,
    /// Looker could not be reached, gave an error instead of rows, or was silent.
    Looker = 3,
    /// Rows may not be fetched from the download address.
    Address = 4,
    /// Looker's query failed.
    Query = 5,
    /// The document is not what Looker should send.
    Document = 6,
    /// The columns make no sense for mParticle.
    Columns = 7,
    /// Rows came, and none of them can be sent.
    Rows = 8,
    /// Only changes were to be sent, and that cannot be done.
    Changes = 9,
    /// The outbox, its disk or temporary space is full or failed.
    Disk = 10,
    /// The outbox refuses writes.
    Refusing = 11,
    /// Too many deliveries came at once, or two of one schedule.
    Busy = 12,
    /// The daemon was being stopped.
    Stopping = 13,
    /// A mistake in looker-feed.
    Program = 14,
    /// Looker says that it failed, and it never came here.
    Missed = 15,
    /// The daemon ended while the delivery was being received.
    Interrupted = 255,
}

impl FailureKind {
    /// All of them.
    pub const ALL: [Self; 16] = [
        Self::Request,
        Self::Cut,
        Self::Looker,
        Self::Address,
        Self::Query,
        Self::Document,
        Self::Columns,
        Self::Rows,
        Self::Changes,
        Self::Disk,
        Self::Refusing,
        Self::Busy,
        Self::Stopping,
        Self::Program,
        Self::Missed,
        Self::Interrupted,
    ];

    /// Its number.
    pub fn number(self) -> u8 {
        self as u8
    }

    /// The kind of a number; one that this version does not know is a mistake in looker-feed.
    pub fn of_number(number: u8) -> Self {
        let found = Self::ALL.into_iter().find(|kind| kind.number() == number);
        found.unwrap_or(Self::Program)
    }

    /// Its name in the API and in metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::Request => "request",
            Self::Cut => "cut",
            Self::Looker => "looker",
            Self::Address => "address",
            Self::Query => "query",
            Self::Document => "document",
            Self::Columns => "columns",
            Self::Rows => "rows",
            Self::Changes => "changes",
            Self::Disk => "disk",
            Self::Refusing => "refusing",
            Self::Busy => "busy",
            Self::Stopping => "stopping",
            Self::Program => "program",
            Self::Missed => "missed",
            Self::Interrupted => "interrupted",
        }
    }

    /// Whether it is an affair of this daemon and its disk, whatever the delivery holds.
    pub fn is_ours(self) -> bool {
        matches!(
            self,
            Self::Disk | Self::Refusing | Self::Busy | Self::Stopping
        )
    }

    /// Whether the same delivery may well succeed another time, with nothing changed by anybody.
    pub fn is_passing(self) -> bool {
        match self {
            Self::Cut
            | Self::Looker
            | Self::Disk
            | Self::Refusing
            | Self::Busy
            | Self::Stopping
            | Self::Missed
            | Self::Interrupted => true,
            Self::Request
            | Self::Address
            | Self::Query
            | Self::Document
            | Self::Columns
            | Self::Rows
            | Self::Changes
            | Self::Program => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn numbers_and_names_are_each_kinds_own() {
        let names: HashSet<_> = FailureKind::ALL.iter().map(|kind| kind.name()).collect();
        assert_eq!(names.len(), FailureKind::ALL.len());
        for kind in FailureKind::ALL {
            assert_eq!(FailureKind::of_number(kind.number()), kind);
        }
        assert_eq!(FailureKind::of_number(200), FailureKind::Program);
    }
}
