//! The body of an execute request, part by part as it arrives. Waits for bytes; never holds more of
//! the body than one piece and the small sections.

use std::time::Duration;

use axum::body::{Body, BodyDataStream};
use bytes::Bytes;
use futures::StreamExt;
use tokio::time::{Instant, timeout, timeout_at};
use zeroize::Zeroizing;

use crate::decode::{Envelope, EnvelopeError, EnvelopeLimits, Part};

/// How long the rest of a request that has failed is read and thrown away. Looker reads the answer
/// only when it has sent all; a connection that is closed under it loses the message.
const DISCARD_FOR: Duration = Duration::from_secs(120);

/// Why the request cannot be read further. Each is a sentence for the schedule's owner.
#[derive(Debug, thiserror::Error)]
pub(super) enum PartsError {
    /// The connection ended within the body, or its framing is wrong.
    #[error("The connection from Looker was cut before the request was complete.")]
    Cut { source: axum::Error },
    /// Nothing came for `looker.idle_timeout`.
    #[error("Looker stopped sending its request for {}.", humantime::format_duration(*.0))]
    Silent(Duration),
    /// The body is not what an execute request is.
    #[error("Looker's request cannot be read: {source}.")]
    Malformed { source: EnvelopeError },
}

/// One thing that the request holds; see [`Part`].
pub(super) enum Piece {
    /// A root key and its raw value, which may hold secrets.
    Section(String, Zeroizing<Vec<u8>>),
    /// Some bytes of the pushed document, never none.
    Attachment(Bytes),
    /// The request is complete.
    End,
}

/// A request body and what has been made of it so far.
pub(super) struct Parts {
    body: BodyDataStream,
    /// What [`begin`](Self::begin) has read.
    first: Option<Option<Result<Bytes, axum::Error>>>,
    envelope: Envelope,
    idle: Duration,
    /// Nothing more is to be had from the body: it has ended, well or badly, or it is stuck.
    ended: bool,
}

impl Parts {
    pub(super) fn new(body: Body, limits: EnvelopeLimits, idle: Duration) -> Self {
        Self {
            body: body.into_data_stream(),
            first: None,
            envelope: Envelope::new(limits),
            idle,
            ended: false,
        }
    }

    /// Waits for the body's first bytes, but no longer than `limit`. A client that asks before it
    /// sends (`Expect: 100-continue`) is told to go on by this, which must be before the answer's
    /// head is sent.
    pub(super) async fn begin(&mut self, limit: Duration) {
        if let Ok(first) = timeout(limit, self.body.next()).await {
            self.first = Some(first);
        }
    }

    /// The next thing in the request. After an error or the end, only [`discard`](Self::discard)
    /// makes sense.
    pub(super) async fn next(&mut self) -> Result<Piece, PartsError> {
        loop {
            let part = self.envelope.next();
            match part.map_err(|source| PartsError::Malformed { source })? {
                Part::NeedBytes => {}
                Part::Section { name, json } => {
                    let json = Zeroizing::new(json.to_vec());
                    return Ok(Piece::Section(name.to_owned(), json));
                }
                Part::AttachmentBegins { .. } | Part::Attachment([]) => continue,
                Part::Attachment(bytes) => {
                    return Ok(Piece::Attachment(Bytes::copy_from_slice(bytes)));
                }
                Part::End => return Ok(Piece::End),
            }
            match self.read().await? {
                Some(bytes) => self.envelope.push(&bytes),
                None => self.envelope.close(),
            }
        }
    }

    async fn read(&mut self) -> Result<Option<Bytes>, PartsError> {
        if self.ended {
            return Ok(None);
        }
        let next = match self.first.take() {
            Some(first) => Ok(first),
            None => timeout(self.idle, self.body.next()).await,
        };
        match next {
            Ok(Some(Ok(bytes))) => Ok(Some(bytes)),
            Ok(None) => {
                self.ended = true;
                Ok(None)
            }
            Ok(Some(Err(source))) => {
                self.ended = true;
                Err(PartsError::Cut { source })
            }
            Err(_) => {
                self.ended = true;
                Err(PartsError::Silent(self.idle))
            }
        }
    }

    /// Reads what is left of the body and throws it away, within bounds.
    pub(super) async fn discard(mut self) {
        let until = Instant::now() + DISCARD_FOR;
        while let Ok(Ok(Some(_))) = timeout_at(until, self.read()).await {}
    }
}
