//! What can go wrong with a call, in sentences for the operator. None holds a secret, nor what Looker
//! says of people.

use std::time::Duration;

/// A call did not do what it should.
#[derive(Debug, thiserror::Error)]
pub enum ApiError {
    /// Nothing was sent: the name does not resolve, nothing listens, TLS fails.
    #[error("Looker's API at {host} cannot be reached")]
    Unreachable {
        /// Host and port.
        host: String,
        /// What the system said.
        source: hyper_util::client::legacy::Error,
    },
    /// It was sent, and the answer did not come whole.
    #[error("Looker's API at {host} was asked, and its answer was lost")]
    Lost {
        /// Host and port.
        host: String,
        /// Why.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// It was sent, and no answer came in time.
    #[error("Looker's API at {host} did not answer within {}", humantime::format_duration(*.limit))]
    Timeout {
        /// Host and port.
        host: String,
        /// The time.
        limit: Duration,
    },
    /// The key is not one that Looker knows. (Looker answers 404 to a login that it refuses.)
    #[error(
        "Looker at {host} refuses the API key: check `client_id` and `client_secret` in [looker.api]"
    )]
    Credentials {
        /// Host and port.
        host: String,
    },
    /// The user of the key may not do this.
    #[error("The user of Looker's API key may not {what}")]
    Forbidden {
        /// Half a sentence.
        what: String,
    },
    /// What was asked for is not there.
    #[error("Looker does not know {what} (any more)")]
    NotFound {
        /// Half a sentence.
        what: String,
    },
    /// Too many calls.
    #[error("Looker's API at {host} says that it is called too often")]
    TooMany {
        /// Host and port.
        host: String,
        /// When to come back, if it said so.
        after: Option<Duration>,
    },
    /// Looker or something before it failed.
    #[error("Looker's API at {host} answered with status {status}")]
    Server {
        /// Host and port.
        host: String,
        /// 500 and up.
        status: u16,
    },
    /// Looker does not take the call.
    #[error("Looker's API at {host} refused the call with status {status}: {message}")]
    Refused {
        /// Host and port.
        host: String,
        /// 400 and up.
        status: u16,
        /// Looker's words, shortened.
        message: String,
    },
    /// A page of a proxy, or another server.
    #[error(
        "{host} did not answer as Looker's API does; `url` in [looker.api] must be the API's address (often the Looker's own, sometimes with port 19999)"
    )]
    Foreign {
        /// Host and port.
        host: String,
    },
    /// The answer is longer than it can be.
    #[error("The answer of Looker's API at {host} has more than {limit} bytes")]
    TooLong {
        /// Host and port.
        host: String,
        /// The bound.
        limit: usize,
    },
}

impl ApiError {
    /// Whether Looker has surely not done what it was asked for.
    pub fn is_surely_undone(&self) -> bool {
        match self {
            Self::Unreachable { .. }
            | Self::Credentials { .. }
            | Self::Forbidden { .. }
            | Self::NotFound { .. }
            | Self::TooMany { .. }
            | Self::Refused { .. } => true,
            Self::Lost { .. }
            | Self::Timeout { .. }
            | Self::Server { .. }
            | Self::Foreign { .. }
            | Self::TooLong { .. } => false,
        }
    }

    /// Whether it concerns the Looker as a whole rather than what it was asked for: the next call
    /// will most likely end as this one.
    pub fn is_of_the_looker(&self) -> bool {
        match self {
            Self::Unreachable { .. }
            | Self::Lost { .. }
            | Self::Timeout { .. }
            | Self::Credentials { .. }
            | Self::TooMany { .. }
            | Self::Server { .. }
            | Self::Foreign { .. } => true,
            Self::Forbidden { .. }
            | Self::NotFound { .. }
            | Self::Refused { .. }
            | Self::TooLong { .. } => false,
        }
    }
}
