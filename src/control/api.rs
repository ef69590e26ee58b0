//! Routes of the admin side. `openapi.json` describes each of them; a test compares the two.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{Path, Query, Request, State};
use axum::http::{Response, StatusCode};
use axum::middleware::{self, Next};
use axum::response::IntoResponse;
use axum::routing::{MethodRouter, get, post};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;

use super::answer::{Failure, JSON, content, json, protect};
use super::daemon::{Page, Which};
use super::shared::Shared;
use super::{estimate, events, export, metrics, page, schedules};
use crate::clock::UnixMillis;
use crate::net::Peer;

/// The API's description.
pub(super) const OPENAPI: &str = include_str!("openapi.json");

/// Entries of a list in one answer: at most, and when nothing is said.
const MOST: usize = 500;
const USUAL: usize = 50;

/// Ids of one changing call.
const IDS: usize = 1000;

/// Bytes of an id or a cursor. Ours are far shorter.
const NAME: usize = 128;

/// Bytes of a request's body: [`IDS`] ids fit.
const BODY: usize = 256 << 10;

/// Bytes of an edited batch with what stands around it: a batch may have 128,000, and indents.
const EDIT: usize = 1 << 20;

/// A client that sends its body slower than this is given up.
const BODY_WITHIN: Duration = Duration::from_secs(10);

type Answer = Result<Response<Body>, Failure>;

/// Every route there is.
pub(super) fn routes() -> Vec<(&'static str, MethodRouter<Arc<Shared>>)> {
    vec![
        ("/", get(page::html)),
        ("/page.css", get(page::css)),
        ("/page.js", get(page::js)),
        ("/icon.svg", get(page::icon)),
        ("/livez", get(livez)),
        ("/readyz", get(readyz)),
        ("/metrics", get(scrape)),
        (
            "/api/v1/openapi.json",
            get(|| async { content(JSON, OPENAPI) }),
        ),
        ("/api/v1/overview", get(overview)),
        ("/api/v1/history", get(history)),
        ("/api/v1/events", get(listen)),
        ("/api/v1/deliveries", get(deliveries)),
        ("/api/v1/deliveries/{id}", get(delivery)),
        ("/api/v1/deliveries/{id}/rejected", get(rejected)),
        (
            "/api/v1/deliveries/{id}/rejected/export",
            get(rejected_export),
        ),
        ("/api/v1/deliveries/{id}/cancel", post(cancel)),
        ("/api/v1/dead-letters", get(dead_letters)),
        ("/api/v1/dead-letters/export", get(dead_letters_export)),
        ("/api/v1/dead-letters/replay", post(replay)),
        ("/api/v1/dead-letters/discard", post(discard)),
        ("/api/v1/dead-letters/{id}", get(dead_letter).put(edit)),
        ("/api/v1/destinations/{id}/pause", post(pause)),
        ("/api/v1/destinations/{id}/resume", post(resume)),
        ("/api/v1/destinations/{id}/retry", post(retry)),
    ]
}

const TEXT: &str = "text/plain; charset=utf-8";

/// The routes behind the guard, and the headers around all.
pub(super) fn router(shared: Arc<Shared>) -> Router {
    let mut router = Router::new();
    for (path, method) in routes() {
        router = router.route(path, method.fallback(wrong_method));
    }
    router
        .fallback(nothing_here)
        .layer(middleware::from_fn_with_state(Arc::clone(&shared), admit))
        .layer(middleware::map_response(
            |mut response: Response<Body>| async {
                protect(response.headers_mut());
                response
            },
        ))
        .with_state(shared)
}

async fn admit(State(shared): State<Arc<Shared>>, request: Request, next: Next) -> Response<Body> {
    let admitted = shared
        .guard
        .check(request.method(), request.uri(), request.headers());
    match admitted {
        Ok(()) => {
            if let Some(peer) = request.extensions().get::<Arc<Peer>>() {
                peer.is_known();
            }
            next.run(request).await
        }
        Err(refusal) => Failure::from(refusal).into_response(),
    }
}

async fn nothing_here() -> Failure {
    Failure::new(StatusCode::NOT_FOUND, "There is nothing at this address.")
}

async fn wrong_method() -> Failure {
    Failure::new(
        StatusCode::METHOD_NOT_ALLOWED,
        "This address takes another method.",
    )
}

/// It goes the way of every other call, so that a jam there is seen too.
async fn livez(State(shared): State<Arc<Shared>>) -> Response<Body> {
    match shared.calls.ask(|daemon| daemon.alive()).await {
        Ok(()) => content(TEXT, "ok\n"),
        Err(problem) => {
            let mut response = content(TEXT, format!("{problem}\n"));
            *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
            response
        }
    }
}

async fn readyz(State(shared): State<Arc<Shared>>) -> Response<Body> {
    let reason = match shared.overview().await {
        Ok(overview) if overview.ready => return content(TEXT, "ready\n"),
        Ok(overview) => overview.not_ready,
        Err(problem) => Some(problem.to_string()),
    };
    let reason = reason.unwrap_or_else(|| "New deliveries are not taken.".into());
    let mut response = content(TEXT, format!("{reason}\n"));
    *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
    response
}

async fn scrape(State(shared): State<Arc<Shared>>) -> Answer {
    let newest = Page {
        after: None,
        limit: 1,
    };
    let (overview, newest, schedules) = shared
        .calls
        .ask(move |daemon| {
            let newest = daemon.deliveries(&newest);
            Ok((daemon.overview(), newest, daemon.schedules()))
        })
        .await?;
    // Without the lists the other series still count.
    let newest = newest
        .ok()
        .and_then(|listing| listing.items.into_iter().next());
    let text = metrics::text(
        &overview,
        newest.map(|delivery| delivery.received),
        &schedules::shown(schedules.unwrap_or_default()),
    );
    Ok(content(metrics::CONTENT_TYPE, text))
}

async fn overview(State(shared): State<Arc<Shared>>) -> Answer {
    json(&shared.overview().await?)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Since {
    #[serde(default)]
    since: UnixMillis,
}

async fn history(State(shared): State<Arc<Shared>>, query: Params<Since>) -> Answer {
    let since = params(query)?.since;
    let history = shared.recorder().after(since);
    json(&history)
}

async fn listen(State(shared): State<Arc<Shared>>) -> Answer {
    events::listen(shared).await
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Part {
    after: Option<String>,
    limit: Option<usize>,
}

impl Part {
    fn page(self) -> Result<Page, Failure> {
        page_of(self.after, self.limit)
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Letters {
    delivery: Option<String>,
    after: Option<String>,
    limit: Option<usize>,
}

async fn deliveries(State(shared): State<Arc<Shared>>, query: Params<Part>) -> Answer {
    let page = params(query)?.page()?;
    let first = page.after.is_none();
    let (mut overview, mut listing) = shared
        .calls
        .ask(move |daemon| Ok((daemon.overview(), daemon.deliveries(&page)?)))
        .await?;
    // What is ahead of a delivery is known only from the newest on.
    if first {
        shared.complete(&mut overview);
        estimate::deliveries(&overview, &mut listing.items);
    }
    json(&listing)
}

async fn delivery(State(shared): State<Arc<Shared>>, id: Name) -> Answer {
    let id = name(id)?;
    json(&shared.calls.ask(move |daemon| daemon.delivery(&id)).await?)
}

async fn rejected(State(shared): State<Arc<Shared>>, id: Name, query: Params<Part>) -> Answer {
    let (id, page) = (name(id)?, params(query)?.page()?);
    let listing = shared.calls.ask(move |daemon| daemon.rejected(&id, &page));
    json(&listing.await?)
}

async fn rejected_export(State(shared): State<Arc<Shared>>, id: Name) -> Answer {
    export::rejected(shared, name(id)?).await
}

async fn dead_letters(State(shared): State<Arc<Shared>>, query: Params<Letters>) -> Answer {
    let query = params(query)?;
    let delivery = query.delivery.map(checked).transpose()?;
    let page = page_of(query.after, query.limit)?;
    let listing = shared
        .calls
        .ask(move |daemon| daemon.dead_letters(delivery.as_deref(), &page));
    json(&listing.await?)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct OfDelivery {
    delivery: Option<String>,
}

async fn dead_letters_export(
    State(shared): State<Arc<Shared>>,
    query: Params<OfDelivery>,
) -> Answer {
    let delivery = params(query)?.delivery.map(checked).transpose()?;
    export::dead_letters(shared, delivery).await
}

async fn dead_letter(State(shared): State<Arc<Shared>>, id: Name) -> Answer {
    let id = name(id)?;
    json(
        &shared
            .calls
            .ask(move |daemon| daemon.dead_letter(&id))
            .await?,
    )
}

/// `{"batch": {...}}`, and `"may_double": true` where that is asked for.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Edit {
    batch: Box<RawValue>,
    #[serde(default)]
    may_double: bool,
}

async fn edit(State(shared): State<Arc<Shared>>, id: Name, request: Request) -> Answer {
    let id = name(id)?;
    let edit: Edit = body(request, EDIT).await?;
    tracing::warn!(letter = ?id, may_double = edit.may_double, "an operator edits a dead letter");
    json(
        &shared
            .calls
            .ask(move |daemon| daemon.edit(&id, edit.batch.get(), edit.may_double))
            .await?,
    )
}

async fn replay(State(shared): State<Arc<Shared>>, request: Request) -> Answer {
    let which = which(request).await?;
    tracing::info!(which = %brief(&which), "an operator replays dead letters");
    json(
        &shared
            .calls
            .ask(move |daemon| daemon.replay(&which))
            .await?,
    )
}

async fn discard(State(shared): State<Arc<Shared>>, request: Request) -> Answer {
    let which = which(request).await?;
    tracing::warn!(which = %brief(&which), "an operator discards dead letters");
    json(
        &shared
            .calls
            .ask(move |daemon| daemon.discard(&which))
            .await?,
    )
}

async fn cancel(State(shared): State<Arc<Shared>>, id: Name) -> Answer {
    let id = name(id)?;
    tracing::warn!(delivery = ?id, "an operator cancels a delivery");
    json(&shared.calls.ask(move |daemon| daemon.cancel(&id)).await?)
}

async fn pause(State(shared): State<Arc<Shared>>, id: Name) -> Answer {
    let id = name(id)?;
    tracing::warn!(destination = ?id, "an operator pauses a destination");
    json(&shared.calls.ask(move |daemon| daemon.pause(&id)).await?)
}

async fn resume(State(shared): State<Arc<Shared>>, id: Name) -> Answer {
    let id = name(id)?;
    tracing::info!(destination = ?id, "an operator resumes a destination");
    json(&shared.calls.ask(move |daemon| daemon.resume(&id)).await?)
}

async fn retry(State(shared): State<Arc<Shared>>, id: Name) -> Answer {
    let id = name(id)?;
    tracing::info!(destination = ?id, "an operator ends the wait of a destination");
    json(
        &shared
            .calls
            .ask(move |daemon| daemon.retry_now(&id))
            .await?,
    )
}

/// For the log: a thousand ids are not written out.
fn brief(which: &Which) -> String {
    match which {
        Which::Ids(ids) => format!("{} by id", ids.len()),
        Which::Delivery(id) => format!("all of delivery {id:?}"),
        Which::All => "all".into(),
    }
}

/// An extractor's own rejections are plain text: they are taken as values and put into our form.
type Params<T> = Result<Query<T>, axum::extract::rejection::QueryRejection>;
type Name = Result<Path<String>, axum::extract::rejection::PathRejection>;

fn params<T: DeserializeOwned>(query: Params<T>) -> Result<T, Failure> {
    match query {
        Ok(Query(params)) => Ok(params),
        Err(error) => Err(bad(format!(
            "The address has a wrong parameter: {}.",
            error.body_text()
        ))),
    }
}

fn name(id: Name) -> Result<String, Failure> {
    match id {
        Ok(Path(id)) => checked(id),
        Err(_) => Err(bad("The name in the address cannot be read.".into())),
    }
}

fn checked(name: String) -> Result<String, Failure> {
    if name.is_empty() || name.len() > NAME || name.chars().any(char::is_control) {
        return Err(bad(format!("A name has 1 to {NAME} visible characters.")));
    }
    Ok(name)
}

fn page_of(after: Option<String>, limit: Option<usize>) -> Result<Page, Failure> {
    let limit = limit.unwrap_or(USUAL);
    if !(1..=MOST).contains(&limit) {
        return Err(bad(format!("`limit` is 1 to {MOST}.")));
    }
    let after = after.map(checked).transpose()?;
    Ok(Page { after, limit })
}

/// `{"ids": [...]}`, `{"delivery": "..."}` or `{"all": true}`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Choice {
    ids: Option<Vec<String>>,
    delivery: Option<String>,
    #[serde(default)]
    all: bool,
}

/// A request's body, as JSON of at most so many bytes.
async fn body<T: DeserializeOwned>(request: Request, most: usize) -> Result<T, Failure> {
    let body = axum::body::to_bytes(request.into_body(), most);
    let body = match tokio::time::timeout(BODY_WITHIN, body).await {
        Ok(Ok(body)) => body,
        Ok(Err(_)) => {
            return Err(Failure::new(
                StatusCode::PAYLOAD_TOO_LARGE,
                format!("The request has more than {most} bytes, or was cut short."),
            ));
        }
        Err(_) => {
            return Err(Failure::new(
                StatusCode::REQUEST_TIMEOUT,
                "The request took too long.",
            ));
        }
    };
    serde_json::from_slice(&body)
        .map_err(|error| bad(format!("The request cannot be read: {error}.")))
}

async fn which(request: Request) -> Result<Which, Failure> {
    match body(request, BODY).await? {
        Choice {
            ids: Some(ids),
            delivery: None,
            all: false,
        } if (1..=IDS).contains(&ids.len()) => {
            let ids = ids.into_iter().map(checked).collect::<Result<_, _>>();
            Ok(Which::Ids(ids?))
        }
        Choice {
            ids: None,
            delivery: Some(delivery),
            all: false,
        } => Ok(Which::Delivery(checked(delivery)?)),
        Choice {
            ids: None,
            delivery: None,
            all: true,
        } => Ok(Which::All),
        _ => Err(bad(format!(
            "The request must say which: `ids` (1 to {IDS}), `delivery`, or `all`: true."
        ))),
    }
}

fn bad(why: String) -> Failure {
    Failure::new(StatusCode::BAD_REQUEST, why)
}
