//! The hub's paths. All but `GET /status` ask for a hub key before they look at anything else.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Extension, Json, Router};
use http_body_util::{BodyExt, Limited};
use hyper::header::{AUTHORIZATION, CONNECTION, CONTENT_ENCODING, EXPECT, RETRY_AFTER, USER_AGENT};
use serde_json::json;
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::Instrument;

use super::Settings;
use super::action;
use super::execute::Executor;
use super::form::{self, Filled};
use super::live::Handle;
use super::parts::Parts;
use super::receiver::{Choices, Receiver};
use super::reply::{Outcome, when_done};
use super::request::Origin;
use super::throttle::{Throttle, Verdict};
use crate::decode::EnvelopeLimits;
use crate::net::Peer;
use crate::shutdown::Shutdown;

/// What a listing or form request may bring along. Of a listing's nothing is used.
const MAX_SMALL_BODY: usize = 1 << 20;
const SMALL_BODY_TIMEOUT: Duration = Duration::from_secs(10);

/// Of a request that is refused so much is read and thrown away, for so long at most.
const UNREAD_BYTES: usize = 64 << 10;
const UNREAD_FOR: Duration = Duration::from_millis(500);

/// Shorter secrets are worth a warning, in characters.
const SHORT_SECRET: usize = 16;

/// What the paths share.
pub(super) struct Hub<R> {
    executor: Arc<Executor<R>>,
    receiver: Arc<R>,
    settings: Settings,
    live: Handle,
    throttle: Throttle,
    /// Without a slash at its end.
    base: String,
    shutdown: Shutdown,
    /// Every delivery that is being received.
    pub(super) works: TaskTracker,
    /// Ends them all at once.
    pub(super) give_up: CancellationToken,
}

impl<R: Receiver> Hub<R> {
    pub(super) fn new(
        receiver: Arc<R>,
        settings: Settings,
        live: Handle,
        address: SocketAddr,
        shutdown: Shutdown,
    ) -> Self {
        let base = match &settings.intake.base_url {
            Some(url) => url.as_str().trim_end_matches('/').to_owned(),
            None => {
                if address.ip().is_unspecified() {
                    tracing::warn!(
                        "`intake.listen` is every address of this machine and `intake.base_url` is not \
                         set: Looker will be told an address that it cannot reach"
                    );
                }
                let scheme = if settings.identity.is_some() {
                    "https"
                } else {
                    "http"
                };
                format!("{scheme}://{address}")
            }
        };
        if settings.secret.expose().len() < SHORT_SECRET {
            tracing::warn!(
                "`intake.secret` is shorter than {SHORT_SECRET} characters and could be guessed; \
                 make one with `openssl rand -hex 32`"
            );
        }
        Self {
            throttle: Throttle::default(),
            executor: Arc::new(Executor::new(
                Arc::clone(&receiver),
                settings.clone(),
                live.clone(),
            )),
            live,
            receiver,
            settings,
            base,
            shutdown,
            works: TaskTracker::new(),
            give_up: CancellationToken::new(),
        }
    }
}

pub(super) fn router<R: Receiver>(hub: Arc<Hub<R>>) -> Router {
    let small = Router::new()
        .route("/", get(listing::<R>).post(listing::<R>))
        .route("/actions/mparticle", get(describe::<R>).post(describe::<R>))
        .route("/actions/mparticle/form", get(form::<R>).post(form::<R>))
        .layer(middleware::from_fn(whole_body));
    Router::new()
        .merge(small)
        .route("/actions/mparticle/execute", post(execute::<R>))
        .layer(middleware::from_fn_with_state(
            Arc::clone(&hub),
            authorized::<R>,
        ))
        .route("/status", get(status::<R>))
        .fallback(no_such_path)
        .with_state(hub)
}

async fn authorized<R: Receiver>(
    State(hub): State<Arc<Hub<R>>>,
    Extension(peer): Extension<Arc<Peer>>,
    request: Request,
    next: Next,
) -> Response {
    let mut values = request.headers().get_all(AUTHORIZATION).iter();
    let value = values.next().filter(|_| values.next().is_none());
    if hub
        .live
        .now()
        .keys
        .accept(value.map(|value| value.as_bytes()))
    {
        peer.is_known();
        return next.run(request).await;
    }
    let source = peer.address;
    match hub.throttle.failed(source, Instant::now()) {
        Verdict::Refuse => {
            tracing::warn!(%source, "a request without a valid hub key");
            // Who waits to be asked for its body has sent none.
            if !request.headers().contains_key(EXPECT) {
                let _ = timeout(UNREAD_FOR, read_some(request.into_body())).await;
            }
            refuse(StatusCode::FORBIDDEN, "Invalid 'Authorization' header.")
        }
        verdict => {
            if verdict == Verdict::HoldFirst {
                tracing::warn!(
                    %source,
                    "many requests without a valid hub key; further ones from there are not logged"
                );
            }
            let mut response = refuse(
                StatusCode::TOO_MANY_REQUESTS,
                "Too many requests with an invalid 'Authorization' header.",
            );
            let headers = response.headers_mut();
            headers.insert(RETRY_AFTER, Verdict::RETRY_AFTER.into());
            headers.insert(CONNECTION, HeaderValue::from_static("close"));
            response
        }
    }
}

/// Throws away a part of a body, which is all of a small one: a caller that is still sending when the
/// connection is closed may never see the answer.
async fn read_some(body: Body) {
    let mut body = Limited::new(body, UNREAD_BYTES);
    while let Some(Ok(_)) = body.frame().await {}
}

/// Looker sends the same envelope to every path. One that is left unread would make the connection
/// be closed under the answer.
async fn whole_body(request: Request, next: Next) -> Response {
    let (head, body) = request.into_parts();
    let read = axum::body::to_bytes(body, MAX_SMALL_BODY);
    match timeout(SMALL_BODY_TIMEOUT, read).await {
        Ok(Ok(body)) => next.run(Request::from_parts(head, body.into())).await,
        Ok(Err(_)) => refuse(
            StatusCode::PAYLOAD_TOO_LARGE,
            "The request's body cannot be read.",
        ),
        Err(_) => refuse(
            StatusCode::REQUEST_TIMEOUT,
            "The request's body did not arrive in time.",
        ),
    }
}

async fn listing<R: Receiver>(State(hub): State<Arc<Hub<R>>>, headers: HeaderMap) -> Response {
    let user_agent = user_agent(&headers);
    Json(action::listing(
        &hub.settings.intake.label,
        &hub.base,
        user_agent,
        &hub.settings.action,
    ))
    .into_response()
}

async fn describe<R: Receiver>(State(hub): State<Arc<Hub<R>>>, headers: HeaderMap) -> Response {
    let user_agent = user_agent(&headers);
    Json(action::action(&hub.base, user_agent, &hub.settings.action)).into_response()
}

async fn form<R: Receiver>(State(hub): State<Arc<Hub<R>>>, body: Bytes) -> Response {
    let kind = hub.settings.action.form;
    let allowed = |choices: &Choices| hub.receiver.allows(choices);
    Json(form::form(kind, Filled::read(&body), allowed)).into_response()
}

async fn status<R: Receiver>(State(hub): State<Arc<Hub<R>>>) -> Response {
    let ready = !hub.shutdown.begun() && hub.receiver.admit().is_ok();
    Json(json!({
        "name": env!("CARGO_PKG_NAME"),
        "version": env!("CARGO_PKG_VERSION"),
        "ready": ready,
    }))
    .into_response()
}

async fn no_such_path() -> Response {
    refuse(
        StatusCode::NOT_FOUND,
        "There is no such path; this hub has one action, mparticle.",
    )
}

async fn execute<R: Receiver>(State(hub): State<Arc<Hub<R>>>, request: Request) -> Response {
    let keep_alive = hub.settings.intake.keep_alive;
    let (head, body) = request.into_parts();
    let origin = Origin::of(&head.headers);
    let looker = &hub.settings.looker;
    let limits = EnvelopeLimits {
        // An inline document stands in `attachment`, which stands in the request.
        max_depth: looker.max_depth + 2,
        ..EnvelopeLimits::default()
    };
    let mut parts = Parts::new(body, limits, looker.idle_timeout);
    parts.begin(keep_alive).await;

    let (sender, outcome) = oneshot::channel();
    let span = tracing::info_span!(
        "delivery",
        webhook = origin.webhook_id.as_deref(),
        delivery = tracing::field::Empty,
    );
    let executor = Arc::clone(&hub.executor);
    let give_up = hub.give_up.clone();
    let stopping = hub.shutdown.begun();
    let compressed = is_compressed(&head.headers);
    let work = async move {
        let outcome = if compressed {
            tracing::warn!("a compressed request was refused");
            parts.discard().await;
            Outcome::failure(
                "The request's body is compressed (Content-Encoding), which Looker does not do and the \
                 feed does not take. A proxy before the feed must leave it as it is.",
            )
        } else if stopping {
            parts.discard().await;
            Outcome::failure(
                "The feed is shutting down and takes no delivery now. Send it again in a minute.",
            )
        } else {
            executor.run(origin, parts).await
        };
        // A client that has gone away does not hear it; the log has it.
        let _ = sender.send(outcome);
    };
    // Dropping the work drops the sender, which is an outcome too.
    let work = async move { give_up.run_until_cancelled(work).await };
    hub.works.spawn(work.instrument(span));
    when_done(outcome, keep_alive)
}

/// What is expanded here could be any number of times its size.
fn is_compressed(headers: &HeaderMap) -> bool {
    let mut encodings = headers.get_all(CONTENT_ENCODING).iter();
    encodings.any(|encoding| !encoding.as_bytes().eq_ignore_ascii_case(b"identity"))
}

fn user_agent(headers: &HeaderMap) -> Option<&str> {
    headers.get(USER_AGENT)?.to_str().ok()
}

fn refuse(status: StatusCode, error: &str) -> Response {
    (status, Json(json!({"success": false, "error": error}))).into_response()
}
