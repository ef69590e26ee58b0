//! What the ordinal of a claim means in this backend.

/// Set in the ordinal of a claim on a replayed dead letter.
pub(in crate::outbox) const REPLAYED: u64 = 1 << 63;

/// What a claim's ordinal means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::outbox) enum Ordinal {
    Entry(u32),
    Letter(u64),
    /// Not one that was ever given out.
    Unknown,
}

impl Ordinal {
    pub fn read(ordinal: u64) -> Self {
        if ordinal & REPLAYED != 0 {
            Self::Letter(ordinal & !REPLAYED)
        } else {
            u32::try_from(ordinal).map_or(Self::Unknown, Self::Entry)
        }
    }
}
