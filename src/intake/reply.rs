//! What Looker is told. The status is always 200, since Looker drops the message of any other; and
//! the answer's head is sent before the work is done, with a newline now and then, which JSON allows
//! before a document, so that no proxy takes the connection for dead.

use std::convert::Infallible;
use std::time::Duration;

use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use futures::stream;
use hyper::header::{CONTENT_TYPE, HeaderValue};
use serde_json::json;
use tokio::sync::oneshot;
use tokio::time::{Instant, MissedTickBehavior, interval_at};

/// How one execute request ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Outcome {
    pub(super) success: bool,
    /// Looker shows it only if there was no success.
    pub(super) message: String,
}

impl Outcome {
    pub(super) fn success(message: String) -> Self {
        Self {
            success: true,
            message,
        }
    }

    pub(super) fn failure(message: impl ToString) -> Self {
        Self {
            success: false,
            message: message.to_string(),
        }
    }

    fn json(&self) -> Bytes {
        let answer = json!({"looker": {
            "success": self.success,
            "message": self.message,
            "refresh_query": false,
            "validation_errors": {},
        }});
        Bytes::from(answer.to_string())
    }
}

/// An answer whose body ends when the outcome is known. A sender that is dropped without one is a
/// failure too: the body ends in any case.
pub(super) fn when_done(outcome: oneshot::Receiver<Outcome>, keep_alive: Duration) -> Response {
    let mut ticks = interval_at(Instant::now() + keep_alive, keep_alive);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let body = stream::unfold(Some((outcome, ticks)), |state| async move {
        let (mut outcome, mut ticks) = state?;
        tokio::select! {
            biased;
            outcome = &mut outcome => {
                let outcome = outcome.unwrap_or_else(|_| {
                    Outcome::failure("The feed was stopped before the delivery was complete. Send it again.")
                });
                Some((Ok::<_, Infallible>(outcome.json()), None))
            }
            _ = ticks.tick() => Some((Ok(Bytes::from_static(b"\n")), Some((outcome, ticks)))),
        }
    });
    let mut response = Response::new(Body::from_stream(body));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    // nginx would collect the newlines instead of passing them on.
    headers.insert("x-accel-buffering", HeaderValue::from_static("no"));
    response
}
