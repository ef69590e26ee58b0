//! The shared outbox against real servers: what it promises, with daemons that come and go.

mod attempts;
mod basics;
mod daemons;
mod faults;
#[path = "../outbox/kit.rs"]
#[allow(dead_code)] // Each test program uses its own part of this.
mod generated;
mod held;
mod kit;
#[path = "../outbox/model.rs"]
mod model;
mod moving;
mod own;
mod serve;
mod server;
#[path = "../support/mod.rs"]
mod support;
