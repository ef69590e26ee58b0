//! What the holder of a lease is told beside its work.

use crate::model::DeliveryId;

/// What the holder of the lease of a destination is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LaneRequest {
    /// A person has paused the destination.
    Pause,
    /// A person has ended the pause, or whatever it waits for.
    Resume,
    /// A person wants it tried now.
    Retry,
    /// A delivery has been cancelled: what is held of it and has not been begun is to be given back.
    Cancelled(DeliveryId),
    /// Requests of a delivery are about to change: what is held of it and has not been begun is to be
    /// given back, and what is remembered of its requests forgotten.
    Forget(DeliveryId),
    /// Another daemon has less to do: the lease is to be given back when nothing flies.
    GiveBack,
}
