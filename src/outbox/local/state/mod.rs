//! What is small and changes together: the rows, sled that holds them, the index of them in memory,
//! and changes that are made durable in the one before they are seen in the other.

pub(in crate::outbox) mod attempt;
pub(in crate::outbox) mod change;
pub(in crate::outbox) mod delivery;
pub(in crate::outbox) mod error;
mod held;
pub(in crate::outbox) mod index;
mod key;
pub(in crate::outbox) mod load;
pub(in crate::outbox) mod opening;
pub(in crate::outbox) mod rows;
pub(in crate::outbox) mod store;
