//! The client of Looker's API 4.0, as far as deliveries and previews need it: log in, run a schedule
//! once more, read what failed, run a query, read an Explore's fields.
//!
//! One [`LookerApi`] a Looker. It logs in when it must, keeps the token until shortly before it
//! expires, logs in once more when Looker says 401, and never makes more than a few calls a second:
//! `run_once` is limited to 10 a second there. Nothing is tried again in here: whoever calls knows when
//! that is safe, and [`ApiError::is_surely_undone`] says whether Looker can have done anything.
//!
//! Facts are from Looker's public API reference
//! (<https://cloud.google.com/looker/docs/reference/looker-api/latest>).

mod activity;
mod client;
mod content;
mod error;
mod plans;
mod user;

use std::time::Duration;

use url::Url;

pub use activity::{Job, JobStatus};
pub use client::LookerApi;
pub use content::ExploreField;
pub use error::ApiError;
pub use plans::Plan;
pub use user::{Rights, User};

use crate::config::Secret;

/// One Looker, and as whom it is asked.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Its address, with its port and without a path.
    pub url: Url,
    /// Of an API key of a user.
    pub client_id: String,
    /// Of the same.
    pub client_secret: Secret,
    /// Whom to trust.
    pub trust: rustls::ClientConfig,
    /// For opening a connection.
    pub connect_timeout: Duration,
    /// From the first byte of a request to the last of its answer.
    pub timeout: Duration,
}
