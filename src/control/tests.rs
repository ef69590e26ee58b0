//! Tests over real sockets, with a scripted daemon behind.

pub(crate) mod csv;
mod guarding;
mod lists;
mod live;
mod metrics;
mod page;
mod routes;
pub(crate) mod scripted;
