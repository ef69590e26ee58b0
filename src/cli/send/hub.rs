//! The call of the hub's execute endpoint, with the document inside it.
//!
//! The settings come before the document, so that the hub can work on it while it arrives, and the
//! document as base64, so that whatever is in the file stays the document's own business.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use futures::StreamExt;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HeaderValue, USER_AGENT};
use hyper::{Method, StatusCode};
use hyper_util::client::legacy;
use serde_json::{Value, json};
use tokio::sync::{mpsc, oneshot};
use tokio_stream::wrappers::ReceiverStream;
use url::Url;

use crate::cli::document::Document;
use crate::cli::web::{Web, web};
use crate::config::Secret;
use crate::tls::{self, TlsError};

/// Parts of the document between the file and the connection: each waits little for the other.
const PARTS_AHEAD: usize = 4;
/// For opening a connection.
const CONNECT: Duration = Duration::from_secs(10);
/// Neither side has moved for at least so long: it will not any more.
const STALLED: Duration = Duration::from_secs(300);
/// A hub's answer is short.
const ANSWER_BYTES: usize = 1 << 20;

/// What Looker would hand over beside the rows.
pub struct Request<'a> {
    pub title: &'a str,
    pub api_key: &'a str,
    pub api_secret: &'a Secret,
    /// The form as Looker would send it.
    pub form: Value,
}

/// What the hub said.
#[derive(Debug)]
pub struct Answer {
    pub success: bool,
    pub message: String,
}

impl Answer {
    /// The delivery's id, which the message names.
    pub fn delivery(&self) -> Option<String> {
        let words = self.message.split(|c: char| !c.is_ascii_alphanumeric());
        words
            .filter(|word| word.len() == 32)
            .find(|word| word.parse::<crate::model::DeliveryId>().is_ok())
            .map(str::to_owned)
    }
}

/// The document was not delivered to the hub.
#[derive(Debug, thiserror::Error)]
pub enum HubError {
    /// `--hub` holds something else, or the key cannot stand in a header.
    #[error("`{0}` is not the address of a hub, such as http://127.0.0.1:8080")]
    Address(Url),
    /// The file of authorities cannot be used, or rustls refuses its own defaults.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The connection was refused, or the name is unknown.
    #[error(
        "no hub answers at {url}. Is `looker-feed serve` running? Another address is given with --hub"
    )]
    NoHub {
        /// Where it was looked for.
        url: Url,
        /// Why it was not found.
        source: Box<legacy::Error>,
    },
    /// Somebody answers, whose certificate nobody vouches for.
    #[error(
        "the certificate of the hub at {url} cannot be trusted: {why}. name the authority that vouches for it with --ca, and call the hub with --hub by the name that its certificate is for"
    )]
    Untrusted {
        /// Where it was looked for.
        url: Url,
        /// What is wrong with it.
        why: String,
    },
    /// The connection broke, so it is not known whether the delivery was accepted.
    #[error(
        "the connection to the hub at {url} broke before it answered; `looker-feed deliveries` shows whether it has accepted the delivery"
    )]
    Broken {
        /// Where it led.
        url: Url,
        /// How.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// Nothing moved any more.
    #[error(
        "the hub at {0} neither takes more nor answers; `looker-feed deliveries` shows whether it has accepted the delivery"
    )]
    Stalled(Url),
    /// The document could not be read to its end, and none of it was sent on.
    #[error("{name} cannot be read")]
    Document {
        /// The file.
        name: String,
        /// Why.
        source: io::Error,
    },
    /// The hub was started with another secret.
    #[error(
        "the hub at {0} does not accept the key: it runs with another secret than this configuration's"
    )]
    Key(Url),
    /// What answers is no hub.
    #[error("what answers at {url} is not an action hub of looker-feed (status {status})")]
    Strange {
        /// Where.
        url: Url,
        /// Its status.
        status: StatusCode,
    },
}

type Body = StreamBody<futures::stream::BoxStream<'static, Result<Frame<Bytes>, io::Error>>>;

/// One hub.
pub struct Hub {
    url: Url,
    authorization: HeaderValue,
    stalled: Duration,
    http: Web<Body>,
}

impl Hub {
    /// The hub at `url`, which writes a newline every `keep_alive` while it works. Whose authority is in
    /// the file `ca` is trusted as public ones are.
    pub fn new(
        url: Url,
        key: &str,
        keep_alive: Duration,
        ca: Option<&Path>,
    ) -> Result<Self, HubError> {
        let wrong = || HubError::Address(url.clone());
        if !matches!(url.scheme(), "http" | "https") || !url.has_host() {
            return Err(wrong());
        }
        let mut execute = url.clone();
        execute
            .path_segments_mut()
            .map_err(|()| wrong())?
            .pop_if_empty()
            .extend(["actions", "mparticle", "execute"]);
        let mut authorization =
            HeaderValue::from_str(&format!("Token token=\"{key}\"")).map_err(|_| wrong())?;
        authorization.set_sensitive(true);
        Ok(Self {
            url: execute,
            authorization,
            stalled: STALLED.max(3 * keep_alive),
            http: web(CONNECT, tls::client("--ca", ca)?),
        })
    }

    /// Sends the document and waits for the answer, which comes when the delivery is durable.
    pub async fn execute(
        &self,
        request: &Request<'_>,
        document: Document,
    ) -> Result<Answer, HubError> {
        let moved = Arc::new(AtomicU64::new(0));
        let (body, mut failed) = body(request, document, Arc::clone(&moved));
        let webhook = format!("{:032x}", fastrand::u128(..));
        let request = hyper::Request::builder()
            .method(Method::POST)
            .uri(self.url.as_str())
            .header(AUTHORIZATION, self.authorization.clone())
            .header(CONTENT_TYPE, "application/json")
            .header(
                USER_AGENT,
                concat!("looker-feed/", env!("CARGO_PKG_VERSION")),
            )
            .header("x-looker-webhook-id", webhook)
            .body(body)
            .map_err(|_| HubError::Address(self.url.clone()))?;
        let answer = async {
            let response = self.http.request(request).await.map_err(|source| {
                let url = self.url.clone();
                if let Some(why) = distrust(&source) {
                    return HubError::Untrusted { url, why };
                }
                match source.is_connect() {
                    true => HubError::NoHub {
                        url,
                        source: Box::new(source),
                    },
                    false => self.broken(source),
                }
            })?;
            self.read(response, &moved).await
        };
        let answer = tokio::select! {
            answer = answer => answer,
            () = self.no_movement(&moved) => Err(HubError::Stalled(self.url.clone())),
        };
        // A document that cannot be read breaks the connection, which is then not the reason.
        match (answer, failed.try_recv()) {
            (Err(_), Ok((name, source))) => Err(HubError::Document { name, source }),
            (answer, _) => answer,
        }
    }

    async fn read(
        &self,
        response: hyper::Response<Incoming>,
        moved: &AtomicU64,
    ) -> Result<Answer, HubError> {
        let status = response.status();
        let mut incoming = response.into_body();
        let mut text = Vec::new();
        while let Some(frame) = incoming.frame().await {
            let frame = frame.map_err(|error| self.broken(error))?;
            moved.fetch_add(1, Ordering::Relaxed);
            if let Ok(data) = frame.into_data() {
                text.extend_from_slice(&data);
            }
            if text.len() > ANSWER_BYTES {
                return Err(self.strange(status));
            }
        }
        if status == StatusCode::FORBIDDEN {
            return Err(HubError::Key(self.url.clone()));
        }
        let answer: serde_json::Value = serde_json::from_slice(&text).unwrap_or_default();
        let looker = answer.get("looker");
        let success = looker.and_then(|looker| looker.get("success")?.as_bool());
        let message = looker.and_then(|looker| looker.get("message")?.as_str());
        match (status, success) {
            (StatusCode::OK, Some(success)) => Ok(Answer {
                success,
                message: message.unwrap_or("The hub gives no reason.").to_owned(),
            }),
            _ => Err(self.strange(status)),
        }
    }

    /// Ends when nothing has moved for long.
    async fn no_movement(&self, moved: &AtomicU64) {
        let mut before = moved.load(Ordering::Relaxed);
        loop {
            tokio::time::sleep(self.stalled).await;
            let now = moved.load(Ordering::Relaxed);
            if now == before {
                return;
            }
            before = now;
        }
    }

    fn broken(&self, source: impl std::error::Error + Send + Sync + 'static) -> HubError {
        HubError::Broken {
            url: self.url.clone(),
            source: Box::new(source),
        }
    }

    fn strange(&self, status: StatusCode) -> HubError {
        HubError::Strange {
            url: self.url.clone(),
            status,
        }
    }
}

/// What is wrong with the certificate of whom a connection was to be opened to, if that is it.
fn distrust(error: &(dyn std::error::Error + 'static)) -> Option<String> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(tls @ rustls::Error::InvalidCertificate(_)) = error.downcast_ref() {
            return Some(tls.to_string());
        }
        // An I/O error passes over what it holds when it is asked for its source.
        let held = error
            .downcast_ref::<io::Error>()
            .and_then(io::Error::get_ref);
        next = match held {
            Some(held) => Some(held),
            None => error.source(),
        };
    }
    None
}

/// The request's body, and why the document could not be read, if so.
fn body(
    request: &Request<'_>,
    mut document: Document,
    moved: Arc<AtomicU64>,
) -> (Body, oneshot::Receiver<(String, io::Error)>) {
    let plan = json!({"title": request.title, "type": "Look"});
    let data = json!({"apiKey": request.api_key, "apiSecret": request.api_secret.expose()});
    let form = &request.form;
    let before = format!(
        r#"{{"type":"query","scheduled_plan":{plan},"data":{data},"form_params":{form},"attachment":{{"mimetype":"application/json;base64","extension":"json","data":""#
    );
    let (failed, failure) = oneshot::channel();
    let (sender, parts) = mpsc::channel(PARTS_AHEAD);
    // Ends with the document, or when the connection wants no more.
    tokio::task::spawn_blocking(move || {
        let end = loop {
            match document.next() {
                Ok(Some(part)) => {
                    moved.fetch_add(1, Ordering::Relaxed);
                    let part = Bytes::from(BASE64.encode(part));
                    if sender.blocking_send(Ok(part)).is_err() {
                        return;
                    }
                }
                Ok(None) => break Ok(Bytes::from_static(b"\"}}")),
                Err(error) => {
                    let copy = io::Error::from(error.kind());
                    // Told before the connection breaks, and nobody may be there to hear it.
                    let _ = failed.send((document.name().to_owned(), error));
                    break Err(copy);
                }
            }
        };
        let _ = sender.blocking_send(end);
    });
    let before = futures::stream::once(async { Ok(Bytes::from(before)) });
    let frames = before
        .chain(ReceiverStream::new(parts))
        .map(|part: io::Result<Bytes>| part.map(Frame::data));
    (StreamBody::new(frames.boxed()), failure)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_delivery_is_found_in_the_answer() {
        let id = "0192f0c1a2b3c4d5e6f708192a3b4c5d";
        for (message, want) in [
            (format!("4 rows accepted as delivery {id}."), Some(id)),
            (
                format!("4 rows accepted as delivery {id}, 1 of them cannot be sent."),
                Some(id),
            ),
            ("4 rows were accepted before.".to_owned(), None),
            (format!("{id}0"), None),
        ] {
            let answer = Answer {
                success: true,
                message,
            };
            assert_eq!(answer.delivery().as_deref(), want);
        }
    }
}
