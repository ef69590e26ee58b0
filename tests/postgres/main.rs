//! The shared outbox against real servers: what it promises, with daemons that come and go.

mod basics;
#[path = "../outbox/kit.rs"]
#[allow(dead_code)]
mod generated;
mod kit;
mod server;
