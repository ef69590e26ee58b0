//! What the drain needs of the wire: somewhere to hand a request to, and what came back.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use crate::model::{DeliveryId, DestinationId};

/// Carries one request to its destination and says what came back.
///
/// An implementation bounds its own time and never panics over what a server sent. It does not
/// retry: when to try again is the drain's business.
pub trait Transport: Send + Sync + 'static {
    /// Sends one request. Dropping the future abandons the request; whether the server has got it
    /// is then unknown.
    fn send(&self, request: Request) -> impl Future<Output = Reply> + Send;
}

/// One request as the drain hands it over.
#[derive(Clone)]
pub struct Request {
    /// Whose request it is; for the transport's own bookkeeping.
    pub destination: DestinationId,
    /// Endpoint and credentials, sealed: opaque to the drain.
    pub account: Arc<[u8]>,
    /// The delivery that it is a part of.
    pub delivery: DeliveryId,
    /// How often this piece has been sent with it, from 1.
    pub attempt: u32,
    /// Which of the destination's addresses it goes to: opaque to the drain, as in the outbox.
    pub route: u8,
    /// The batches, one JSON object each, never empty.
    pub batches: Vec<Bytes>,
}

/// What came back for a request. Texts are bounded and printable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    /// 202: the server has taken over every batch of the request.
    Accepted {
        /// Share of the rate limit in use, 0 to 100, when the server says so.
        percent_used: Option<u8>,
    },
    /// 429: too fast.
    Throttled {
        /// How long the server asks to wait.
        retry_after: Option<Duration>,
        /// Which limit was passed, when the server says so.
        exceeded: Option<Exceeded>,
    },
    /// 5xx, a timeout, a refused or broken connection: the server may or may not have the request.
    Unavailable {
        /// What happened, as a clause.
        what: String,
        /// How long the server asks to wait, if it answered.
        retry_after: Option<Duration>,
    },
    /// 401, 403, or an account that cannot be opened (status 0).
    Unauthorized {
        /// The HTTP status.
        status: u16,
        /// The server's words.
        words: String,
    },
    /// A status that the API does not document for this call: 3xx, 404, 200.
    Unexpected {
        /// The HTTP status.
        status: u16,
        /// The server's words.
        words: String,
    },
    /// 400, 422: at least one batch of the request is bad.
    Rejected {
        /// The HTTP status.
        status: u16,
        /// The server's words.
        words: String,
    },
    /// 413: the request is too large as a whole.
    TooLarge {
        /// The server's words.
        words: String,
    },
}

impl Reply {
    /// No answer, or none that says how long to wait.
    pub fn unavailable(what: impl Into<String>) -> Self {
        Self::Unavailable {
            what: what.into(),
            retry_after: None,
        }
    }
}

/// Which limit a throttled request has passed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Exceeded {
    /// The growth of the rate, not the rate itself.
    Acceleration,
    /// A limit on the rate: `org`, `account`, `app`, `feed`, `workspace`, `system`, ...
    Speed(String),
}
