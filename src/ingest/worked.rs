//! What became of a document: the counts, and what a person should know of it.

use super::IngestError;
use crate::mapping::{EventNames, Plan, Tally};
use crate::model::Header;
use crate::mparticle::encode::Made;
use crate::mparticle::limits::ATTRIBUTES;

/// Notes that are kept of one delivery; more would not be read.
const MOST_NOTES: usize = 100;
/// From this part of the names that a delivery's events may have on, their number is worth a look.
const MANY_NAMES: usize = 10;
/// Events of a user in a day, on average over a workspace's users, that mParticle's contracts allow.
/// ("Default Service Limits")
const EVENTS_A_USER: u64 = 150;

/// A document that was worked through to its end. Nothing of it is durable by this alone.
#[derive(Clone, Debug)]
pub struct Worked {
    /// What Looker said beside the rows.
    pub header: Header,
    /// What each column was for.
    pub plan: Plan,
    /// Rows that came.
    pub rows: u64,
    /// Rows of them that cannot be sent.
    pub rejected: u64,
    /// Users, batches and requests that were made.
    pub made: Made,
    pub(super) tally: Tally,
    pub(super) first_reason: Option<String>,
}

impl Worked {
    /// Whether it is a delivery: of many rows that all were refused nothing would arrive.
    pub fn check(&self) -> Result<(), IngestError> {
        if self.rows == 0 || self.rejected < self.rows {
            return Ok(());
        }
        Err(IngestError::NothingToSend {
            rows: self.rows,
            reason: self.first_reason.clone().unwrap_or_default(),
        })
    }

    /// What a person should know of the values, in sentences, most important first.
    pub fn warnings(&self) -> impl Iterator<Item = String> + '_ {
        let cut = self.header.truncated.then(|| {
            "Looker cut the result at its row limit: there are more rows than were delivered. Choose \"All results\" in the schedule's advanced options.".to_owned()
        });
        cut.into_iter()
            .chain(self.event_names().filter(|_| self.has_many_names()))
            .chain(self.tally.sentences(self.plan.columns()))
            .chain(self.events_a_user())
    }

    /// What a person may like to know, and expects.
    pub fn remarks(&self) -> impl Iterator<Item = String> + '_ {
        self.historical()
            .into_iter()
            .chain(self.event_names().filter(|_| !self.has_many_names()))
            .chain(self.user_attributes())
            .chain(self.tally.expected(self.plan.columns()))
    }

    /// The names of the events; none of them: no column has names.
    pub fn names(&self) -> &EventNames {
        self.tally.event_names()
    }

    fn has_many_names(&self) -> bool {
        self.names().distinct() * MANY_NAMES >= self.plan.most_event_names()
    }

    fn event_names(&self) -> Option<String> {
        let count = self.names().distinct();
        if count == 0 {
            return None;
        }
        let common = self.names().most_common();
        let common = common
            .iter()
            .map(|(name, events)| format!("{name} ({events})"));
        let common = common.collect::<Vec<_>>().join(", ");
        let names = if count == 1 {
            "name"
        } else {
            "different names"
        };
        let limit = match self.has_many_names() {
            true => format!(
                ", and mParticle drops events with new names beyond {} in a workspace",
                self.plan.most_event_names()
            ),
            false => String::new(),
        };
        Some(format!(
            "The events have {count} {names}{limit}; most often: {common}."
        ))
    }

    fn user_attributes(&self) -> Option<String> {
        let count = self.plan.names().attributes.len();
        (count > ATTRIBUTES).then(|| {
            format!(
                "There are {count} user attributes, and mParticle takes {ATTRIBUTES} in a batch: a user who has more is sent in several batches."
            )
        })
    }

    fn events_a_user(&self) -> Option<String> {
        let made = self.made;
        (made.events > EVENTS_A_USER.saturating_mul(made.users)).then(|| {
            format!(
                "A user has {:.0} events here on average; mParticle's contracts allow {EVENTS_A_USER} a user in 24 hours and 175 in 30 days, on average over a workspace.",
                made.events as f64 / made.users.max(1) as f64
            )
        })
    }

    /// How much is sent as historical events.
    fn historical(&self) -> Option<String> {
        let share = self.made.historical;
        (share.events > 0).then(|| {
            format!(
                "{} of {} events are sent to mParticle's address for historical events.",
                share.events, self.made.events
            )
        })
    }

    /// Everything that a person should know, in sentences: of the values, of the columns, and
    /// Looker's own notes. Not more than 101.
    pub fn notes(&self) -> Vec<String> {
        let mut notes: Vec<_> = self
            .warnings()
            .chain(self.plan.remarks())
            .chain(self.header.notes.iter().cloned())
            .chain(self.remarks())
            .collect();
        if notes.len() > MOST_NOTES {
            let more = notes.len() - MOST_NOTES;
            notes.truncate(MOST_NOTES);
            notes.push(format!("And {more} more."));
        }
        notes
    }
}
