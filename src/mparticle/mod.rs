//! (room: mparticle)

pub mod client;
pub mod reply;
