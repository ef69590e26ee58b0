//! mParticle, the receiving side: its limits, how batches and requests are written for it, how they
//! travel, and what its replies mean.

pub mod client;
pub mod edit;
pub mod encode;
pub mod limits;
pub mod reply;
pub mod route;
