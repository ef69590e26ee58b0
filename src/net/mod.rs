//! Connections, in both directions: one way to accept them ([`server`]), with one rule for who keeps a
//! place when all are taken ([`admission`]), one way to make an HTTP client ([`client`]), and how many
//! of all that there may be ([`descriptors`]).
//!
//! Looker's hub, the admin side and the stand-ins are served by it; requests to mParticle, callbacks,
//! traces and the commands go out by it.

pub mod admission;
pub mod client;
pub mod descriptors;
pub mod server;

pub use admission::Peer;
pub use client::{HttpsClient, Kept};
pub use server::{Limits, Open};
