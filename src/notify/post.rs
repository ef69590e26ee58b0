//! Sends messages, one after the other, each to every target.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{CONTENT_TYPE, USER_AGENT};
use hyper::{Method, Request, StatusCode};
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};
use url::Url;

use super::event::Event;
use super::{LAST_WORDS, Target};
use crate::backoff::Backoff;
use crate::net::client::{self, HttpsClient, Kept};
use crate::shutdown::Shutdown;

/// Tries of one message.
const TRIES: u32 = 4;
/// Waits between them.
const BACKOFF: Backoff = Backoff {
    base: Duration::from_secs(1),
    cap: Duration::from_secs(10),
};
/// From connecting to the head of the answer.
const WITHIN: Duration = Duration::from_secs(10);
const AGENT: &str = concat!("looker-feed/", env!("CARGO_PKG_VERSION"));

/// Sends.
pub(super) struct Poster {
    http: HttpsClient<Full<Bytes>>,
    page: Option<Url>,
    rng: fastrand::Rng,
    pub(super) backoff: Backoff,
}

/// How a try ended that did not succeed. No address and no body in it.
enum Failed {
    /// It may go better later.
    Later(String),
    /// It will not.
    Refused(StatusCode),
}

impl Poster {
    pub(super) fn new(trust: rustls::ClientConfig, page: Option<Url>) -> Self {
        Self {
            http: client::https(trust, WITHIN, Kept::NONE),
            page,
            rng: fastrand::Rng::new(),
            backoff: BACKOFF,
        }
    }

    /// Until the queue ends; once the shutdown has begun, for [`LAST_WORDS`] more.
    pub(super) async fn run(
        mut self,
        targets: &[Target],
        mut messages: mpsc::Receiver<Event>,
        mut shutdown: Shutdown,
    ) {
        let work = async {
            while let Some(event) = messages.recv().await {
                for target in targets.iter().filter(|target| target.wants(&event)) {
                    self.tell(target, &event).await;
                }
            }
        };
        let over = async {
            shutdown.wait().await;
            // The last look, and what it finds.
            sleep(2 * LAST_WORDS).await;
        };
        tokio::select! {
            () = work => {}
            () = over => tracing::warn!("callbacks were still waiting at the shutdown and are dropped"),
        }
    }

    async fn tell(&mut self, target: &Target, event: &Event) {
        let body = Bytes::from(event.body(target.form, self.page.as_ref()));
        let (host, name) = (target.host(), event.name());
        for attempt in 1..=TRIES {
            match self.try_once(target, body.clone()).await {
                Ok(()) => {
                    tracing::debug!(host, event = name, "told");
                    return;
                }
                Err(Failed::Refused(status)) => {
                    tracing::warn!(
                        host,
                        event = name,
                        status = status.as_u16(),
                        "a callback was refused; check the address in [notify]"
                    );
                    return;
                }
                Err(Failed::Later(why)) if attempt == TRIES => {
                    tracing::warn!(
                        host,
                        event = name,
                        why,
                        "a callback could not be sent and is dropped"
                    );
                }
                Err(Failed::Later(_)) => {
                    sleep(self.backoff.full_jitter(attempt, &mut self.rng)).await;
                }
            }
        }
    }

    async fn try_once(&self, target: &Target, body: Bytes) -> Result<(), Failed> {
        let request = Request::builder()
            .method(Method::POST)
            .uri(target.url.as_str())
            .header(CONTENT_TYPE, "application/json")
            .header(USER_AGENT, AGENT)
            .body(Full::new(body))
            // Its text could quote the address.
            .map_err(|_| Failed::Refused(StatusCode::BAD_REQUEST))?;
        let answer = match timeout(WITHIN, self.http.request(request)).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(error)) => {
                let what = if error.is_connect() {
                    "no connection"
                } else {
                    "it broke off"
                };
                return Err(Failed::Later(what.to_owned()));
            }
            Err(_) => return Err(Failed::Later(format!("no answer within {WITHIN:?}"))),
        };
        let status = answer.status();
        let later = status.is_server_error()
            || status == StatusCode::TOO_MANY_REQUESTS
            || status == StatusCode::REQUEST_TIMEOUT;
        match status {
            _ if status.is_success() => Ok(()),
            _ if later => Err(Failed::Later(format!("status {}", status.as_u16()))),
            _ => Err(Failed::Refused(status)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::UnixMillis;
    use crate::notify::event::What;
    use crate::notify::{Form, Good, Target};
    use crate::shutdown;
    use axum::Router;
    use axum::extract::State;
    use axum::http::Uri;
    use std::sync::{Arc, Mutex};
    use tokio::sync::mpsc::Sender;

    /// Answers with the statuses in turn, then with 200; hands on what it was told.
    #[derive(Clone)]
    struct Ear {
        statuses: Arc<Mutex<Vec<u16>>>,
        heard: Sender<(String, String)>,
    }

    async fn listen(State(ear): State<Ear>, uri: Uri, body: String) -> StatusCode {
        ear.heard.send((uri.to_string(), body)).await.unwrap();
        let status = ear.statuses.lock().unwrap().pop().unwrap_or(200);
        StatusCode::from_u16(status).unwrap()
    }

    /// How many requests one event takes when they are answered so (last one first).
    async fn tries(statuses: &[u16]) -> Vec<(String, String)> {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (heard, mut all) = mpsc::channel(100);
        let ear = Ear {
            statuses: Arc::new(Mutex::new(statuses.to_vec())),
            heard,
        };
        let router = Router::new().fallback(listen).with_state(ear);
        let server = tokio::spawn(async move { axum::serve(listener, router).await });
        let target = Target::new(
            &format!("http://{address}/a?key=b"),
            Form::Slack,
            Good::Each,
        )
        .unwrap();
        // Nobody is called over TLS here.
        let trust = rustls::ClientConfig::builder_with_provider(Arc::new(
            rustls::crypto::ring::default_provider(),
        ))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(rustls::RootCertStore::empty())
        .with_no_client_auth();
        let mut poster = Poster::new(trust, None);
        poster.backoff.base = Duration::from_millis(1);
        let (queue, messages) = mpsc::channel(1);
        let event = Event {
            at: UnixMillis(1),
            what: What::Writing,
        };
        queue.send(event).await.unwrap();
        drop(queue);
        let (_trigger, stop) = shutdown::channel();
        poster.run(&[target], messages, stop).await;
        server.abort();
        let mut found = Vec::new();
        while let Ok(one) = all.try_recv() {
            found.push(one);
        }
        found
    }

    #[tokio::test]
    async fn a_message_is_sent_to_the_address_and_sent_again_while_that_can_help() {
        let heard = tries(&[]).await;
        let slack = r#"{"text":"looker-feed: the outbox writes again."}"#;
        assert_eq!(heard, [("/a?key=b".to_owned(), slack.to_owned())]);
        assert_eq!(tries(&[429, 503]).await.len(), 3);
        assert_eq!(tries(&[500; 9]).await.len(), TRIES as usize);
        assert_eq!(tries(&[404]).await.len(), 1);
        assert_eq!(tries(&[302]).await.len(), 1, "it is not sent elsewhere");
    }
}
