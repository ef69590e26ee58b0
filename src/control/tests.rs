//! Tests over real sockets, with a scripted daemon behind.

mod guarding;
mod live;
mod metrics;
mod page;
mod routes;
pub(crate) mod scripted;
