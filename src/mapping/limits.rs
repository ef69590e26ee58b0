//! What mParticle takes of an event.

/// Attributes of one event, and characters of names. ("Default Service Limits")
pub(super) const MOST_ATTRIBUTES: usize = 100;
pub(super) const MOST_NAME_CHARACTERS: usize = 256;
