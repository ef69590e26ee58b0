//! What somebody wants to find again after a restart: a few bytes under a destination and a topic,
//! which mean nothing to the outbox. A note stays until it is replaced or removed. If the state is
//! lost, so are the notes.

use crate::model::DestinationId;

/// The longest note, in bytes.
pub const MAX_NOTE: usize = 1024;
/// Notes of all destinations, at most.
pub(in crate::outbox) const MOST_NOTES: usize = 20_000;

/// Names a note: whose it is, and what it is about.
pub type NoteKey = (DestinationId, u8);

/// A note, as it was written.
pub type Note = (NoteKey, std::sync::Arc<[u8]>);
