//! Tests over real sockets, with a scripted daemon behind.

mod guarding;
mod lists;
mod live;
mod metrics;
mod page;
mod routes;
pub(crate) mod scripted;
