//! Notes, on the owner's thread.

use std::sync::Arc;

use crate::outbox::error::Error;
use crate::outbox::local::owner::keeper::Keeper;
use crate::outbox::local::state::change::Change;
use crate::outbox::note::{MOST_NOTES, NoteKey};

/// Puts a note into the change.
pub(in crate::outbox) fn note(
    keeper: &mut Keeper,
    key: NoteKey,
    text: Option<Arc<[u8]>>,
    change: &mut Change,
) -> Result<(), Error> {
    let index = keeper.shared.index();
    if !change.alters_note(&index, key, text.as_ref()) {
        return Ok(());
    }
    keeper.shared.check_healthy()?;
    let another = text.is_some() && !index.notes.contains_key(&key);
    if another && index.notes.len() >= MOST_NOTES {
        return Err(Error::TooLarge {
            what: "the number of notes",
            limit: MOST_NOTES,
        });
    }
    change.note(key, text);
    Ok(())
}
