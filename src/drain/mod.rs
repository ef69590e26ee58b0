//! (room: drain)

pub mod backoff;
pub mod circuit;
pub mod latency;
pub mod moment;
pub mod pace;
pub mod policy;
pub mod transport;
