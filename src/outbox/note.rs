//! What somebody wants to find again after a restart: a few bytes under a destination and a topic,
//! which mean nothing to the outbox. A note stays until it is replaced or removed. If the state is
//! lost, so are the notes.

use std::sync::Arc;

use super::Outbox;
use super::change::Change;
use super::error::Error;
use super::owner::{Command, Owner};
use crate::model::DestinationId;

/// The longest note, in bytes.
pub const MAX_NOTE: usize = 1024;
/// Notes of all destinations, at most.
const MOST: usize = 20_000;

/// Names a note: whose it is, and what it is about.
pub type NoteKey = (DestinationId, u8);

impl Outbox {
    /// Every note that there is, in the order of destinations and topics.
    pub fn notes(&self) -> Vec<(NoteKey, Arc<[u8]>)> {
        let index = self.shared.index();
        let notes = index.notes.iter();
        notes.map(|(key, text)| (*key, Arc::clone(text))).collect()
    }

    /// Writes a note, in the place of one with the same name, or removes it (`None`). Durable on
    /// return. Blocks on the disk.
    ///
    /// # Errors
    /// The note is too long, there are too many, the outbox refuses writes, or the disk failed.
    pub fn note(&self, key: NoteKey, text: Option<&[u8]>) -> Result<(), Error> {
        let text: Option<Arc<[u8]>> = text.map(Arc::from);
        if text.as_ref().is_some_and(|text| text.len() > MAX_NOTE) {
            return Err(Error::TooLarge {
                what: "a note",
                limit: MAX_NOTE,
            });
        }
        self.ask(|reply| Command::Note(key, text, reply))
    }
}

impl Owner {
    pub(super) fn note(
        &mut self,
        key: NoteKey,
        text: Option<Arc<[u8]>>,
        change: &mut Change,
    ) -> Result<(), Error> {
        let index = self.shared().index();
        if !change.alters_note(&index, key, text.as_ref()) {
            return Ok(());
        }
        self.shared().check_healthy()?;
        let another = text.is_some() && !index.notes.contains_key(&key);
        if another && index.notes.len() >= MOST {
            return Err(Error::TooLarge {
                what: "the number of notes",
                limit: MOST,
            });
        }
        change.note(key, text);
        Ok(())
    }
}
