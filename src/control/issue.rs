//! What the roll-up of health is made of: issues, their kinds and levels, and how deliveries stand.
//! Only values; `health` makes them.

use serde::{Deserialize, Serialize};

use crate::clock::UnixMillis;

/// How bad something is. The order is that of urgency.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(rename_all = "snake_case")]
pub enum Level {
    /// All is well.
    #[default]
    Ok,
    /// Something waits, and goes on by itself.
    Waiting,
    /// Something stays as it is until a person acts.
    Attention,
    /// New deliveries are not taken.
    Failing,
}

impl Level {
    /// Every level, the best first.
    pub const ALL: [Self; 4] = [Self::Ok, Self::Waiting, Self::Attention, Self::Failing];

    /// As it stands in JSON and in labels.
    pub fn name(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Waiting => "waiting",
            Self::Attention => "attention",
            Self::Failing => "failing",
        }
    }

    /// Whether it needs a person.
    pub fn needs_a_person(self) -> bool {
        self >= Self::Attention
    }
}

/// What an issue is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// New deliveries are not taken.
    NotReady,
    /// The outbox writes nothing.
    OutboxRefusing,
    /// Part of the outbox cannot be read at the moment.
    OutboxUnreadable,
    /// Something on the disk is damaged.
    OutboxDamage,
    /// The outbox is near its bound.
    OutboxNearlyFull,
    /// Nothing is sent to a destination until a person changes something.
    DestinationPaused,
    /// A destination does not answer.
    DestinationDown,
    /// Batches that mParticle refused for good wait for a person.
    DeadLetters,
    /// Deliveries of an unusual size wait for a person.
    DeliveriesHeld,
    /// Deliveries failed of late, and none of them was sent.
    DeliveriesFailed,
    /// Failed deliveries cannot be asked for again, since Looker's API cannot be used.
    LookerApi,
}

impl Kind {
    /// Every kind, the most urgent first.
    pub const ALL: [Self; 11] = [
        Self::NotReady,
        Self::OutboxRefusing,
        Self::OutboxUnreadable,
        Self::OutboxDamage,
        Self::DestinationPaused,
        Self::DeliveriesFailed,
        Self::LookerApi,
        Self::DeliveriesHeld,
        Self::DeadLetters,
        Self::OutboxNearlyFull,
        Self::DestinationDown,
    ];

    /// As it stands in JSON and in labels.
    pub fn name(self) -> &'static str {
        match self {
            Self::NotReady => "not_ready",
            Self::OutboxRefusing => "outbox_refusing",
            Self::OutboxUnreadable => "outbox_unreadable",
            Self::OutboxDamage => "outbox_damage",
            Self::OutboxNearlyFull => "outbox_nearly_full",
            Self::DestinationPaused => "destination_paused",
            Self::DestinationDown => "destination_down",
            Self::DeadLetters => "dead_letters",
            Self::DeliveriesHeld => "deliveries_held",
            Self::DeliveriesFailed => "deliveries_failed",
            Self::LookerApi => "looker_api",
        }
    }
}

/// One thing that a person may want to know of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Issue {
    /// What it is about.
    pub kind: Kind,
    /// How bad it is.
    pub level: Level,
    /// What is wrong, as a sentence. Labels in it come from outside: escape it.
    pub title: String,
    /// Why, what it means, and what to do, as sentences. May hold mParticle's words: escape it.
    pub text: String,
    /// Since when; `None`: not known.
    pub since: Option<UnixMillis>,
    /// The destination's id, when it is about one.
    pub destination: Option<String>,
}

impl Issue {
    /// One that is about no destination, and of which nobody knows since when.
    pub(super) fn new(
        kind: Kind,
        level: Level,
        title: impl Into<String>,
        text: impl Into<String>,
    ) -> Self {
        Self {
            kind,
            level,
            title: title.into(),
            text: text.into(),
            since: None,
            destination: None,
        }
    }
}

/// The roll-up: `health` in `GET /api/v1/overview`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Health {
    /// The worst level of the issues.
    pub level: Level,
    /// The whole in a few words.
    pub headline: String,
    /// The most urgent first.
    pub issues: Vec<Issue>,
}

/// Where a delivery stands, for people: more than its state, since it takes its destination and the
/// rows that did not arrive into account.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Standing {
    /// None of it is sent yet.
    #[default]
    Queued,
    /// It is being sent.
    Sending,
    /// It cannot go on: its destination waits, is down or is paused.
    Blocked,
    /// It is not sent before somebody releases it.
    Held,
    /// All of it that was to be sent has arrived.
    Delivered,
    /// It is over, and some of its rows did not arrive: rejected, dead, discarded or damaged.
    Incomplete,
    /// A person cancelled what was left of it.
    Cancelled,
}

impl Standing {
    /// As in JSON.
    pub fn name(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Sending => "sending",
            Self::Blocked => "blocked",
            Self::Held => "held",
            Self::Delivered => "delivered",
            Self::Incomplete => "incomplete",
            Self::Cancelled => "cancelled",
        }
    }
}

impl Health {
    /// Issues that need a person.
    pub fn for_a_person(&self) -> usize {
        let issues = self.issues.iter();
        issues.filter(|issue| issue.level.needs_a_person()).count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_json() {
        for kind in Kind::ALL {
            assert_eq!(serde_json::json!(kind), kind.name());
        }
        for level in Level::ALL {
            assert_eq!(serde_json::json!(level), level.name());
        }
        for standing in [
            Standing::Queued,
            Standing::Sending,
            Standing::Blocked,
            Standing::Held,
            Standing::Delivered,
            Standing::Incomplete,
            Standing::Cancelled,
        ] {
            assert_eq!(serde_json::json!(standing), standing.name());
        }
    }
}
