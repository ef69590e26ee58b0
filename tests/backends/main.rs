//! What an outbox promises of deliveries it promises on every backend: each test is run in a directory, in
//! a database of PostgreSQL with its defaults, and in one that is serializable. What is about files is in
//! the test program `outbox`, and what is about servers and daemons that come and go, in `postgres`.

#[macro_use]
mod place;

mod attempts;
mod deliveries;
mod ending;
mod held;
#[path = "../outbox/kit.rs"]
#[allow(dead_code)] // Each test program uses its own part of this.
mod kit;
mod letters;
mod model;
mod plain_text;
#[path = "../postgres/server.rs"]
#[allow(dead_code)] // Each test program uses its own part of this.
mod server;
