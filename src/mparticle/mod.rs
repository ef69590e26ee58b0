//! mParticle, the receiving side: its limits, and how batches and requests are written for it.

pub mod encode;
pub mod limits;
