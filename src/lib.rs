//! looker-feed carries large scheduled Looker deliveries to mParticle.

pub mod app;
pub mod cli;
pub mod clock;
pub mod config;
pub mod control;
pub mod decode;
pub mod drain;
pub mod group;
pub mod ingest;
pub mod intake;
pub mod looker;
pub mod mapping;
pub mod model;
pub mod mparticle;
pub mod outbox;
pub mod record;
pub mod sandbox;
pub mod seal;
pub mod shutdown;
