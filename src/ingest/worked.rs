//! What became of a document: the counts, and what a person should know of it.

use super::IngestError;
use crate::mapping::{Plan, Tally};
use crate::model::Header;
use crate::mparticle::encode::Made;

/// Notes that are kept of one delivery; more would not be read.
const MOST_NOTES: usize = 100;

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
    ///
    /// # Errors
    /// [`IngestError::NothingToSend`].
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
            .chain(self.tally.sentences(self.plan.columns()))
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
            .chain(self.historical())
            .chain(self.plan.remarks())
            .chain(self.header.notes.iter().cloned())
            .collect();
        if notes.len() > MOST_NOTES {
            let more = notes.len() - MOST_NOTES;
            notes.truncate(MOST_NOTES);
            notes.push(format!("And {more} more."));
        }
        notes
    }
}
