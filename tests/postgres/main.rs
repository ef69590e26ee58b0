//! The shared outbox against real servers: daemons that come and go, and servers that fail. What every
//! outbox promises is tested in the test program `backends`, on this one too.

mod attempts;
mod daemons;
mod erasing;
mod faults;
#[path = "../outbox/kit.rs"]
#[allow(dead_code)] // Each test program uses its own part of this.
mod generated;
mod held;
mod kit;
mod moving;
mod own;
mod room;
mod serve;
mod server;
mod snapshots;
#[path = "../support/mod.rs"]
mod support;
