//! Routes of the admin side. `openapi.json` describes each of them; a test compares the two.

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::header::AUTHORIZATION;
use axum::http::{Method, Response, StatusCode};
use axum::middleware::{self, Next};
use axum::response::IntoResponse;
use axum::routing::{MethodRouter, get, post};
use serde::Deserialize;
use serde_json::value::RawValue;

use super::answer::{Failure, JSON, content, json, protect, told};
use super::daemon::{Daemon, Page, Problem, Which};
use super::filter::Filter;
use super::history::Range;
use super::issue::Health;
use super::request::{Answer, Format, Name, Params, bad, body, checked, name, page_of, params};
use super::shared::Shared;
use super::{events, export, lists, lookups, metrics, page, people, schedules, view};
use crate::clock::UnixMillis;
use crate::net::Peer;

/// The API's description.
pub(super) const OPENAPI: &str = include_str!("openapi.json");

/// Ids of one changing call.
const IDS: usize = 1000;

/// Bytes of a group's reason. Ours are shorter.
const REASON: usize = 4096;

/// Bytes of a request's body: [`IDS`] ids fit.
const BODY: usize = 256 << 10;

/// Bytes of an edited batch with what stands around it: a batch may have 128,000, and indents.
const EDIT: usize = 1 << 20;

/// Every route there is.
pub(super) fn routes() -> Vec<(&'static str, MethodRouter<Arc<Shared>>)> {
    vec![
        ("/", get(page::html)),
        ("/deliveries", get(page::html)),
        ("/deliveries/{id}", get(page::html_below)),
        ("/schedules", get(page::html)),
        ("/destinations", get(page::html)),
        ("/dead-letters", get(page::html)),
        ("/rejected-rows", get(page::html)),
        ("/configuration", get(page::html)),
        ("/audit", get(page::html)),
        ("/failed-deliveries", get(page::html)),
        ("/people", get(page::html)),
        ("/assets/{file}", get(page::asset)),
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
        ("/api/v1/configuration", get(configuration)),
        ("/api/v1/audit", get(lists::audit)),
        ("/api/v1/schedules", get(lists::schedules)),
        ("/api/v1/deliveries", get(lists::deliveries)),
        ("/api/v1/deliveries/{id}", get(lists::delivery)),
        ("/api/v1/deliveries/{id}/rejected", get(rejected)),
        (
            "/api/v1/deliveries/{id}/rejected/export",
            get(rejected_export),
        ),
        ("/api/v1/deliveries/{id}/cancel", post(cancel)),
        ("/api/v1/deliveries/{id}/release", post(release)),
        ("/api/v1/failed-deliveries", get(lists::failed)),
        ("/api/v1/failed-deliveries/{id}", get(failed_delivery)),
        ("/api/v1/failed-deliveries/{id}/ask-again", post(ask_again)),
        (
            "/api/v1/failed-deliveries/{id}/do-not-ask",
            post(do_not_ask),
        ),
        (people::FIND, post(lookups::find)),
        ("/api/v1/people/erase", post(lookups::erase)),
        ("/api/v1/people/lookups", get(lookups::lookups)),
        ("/api/v1/people/lookups/{id}", get(lookups::lookup)),
        ("/api/v1/dead-letters", get(dead_letters)),
        ("/api/v1/dead-letters/groups", get(lists::letter_groups)),
        ("/api/v1/rejected-rows/groups", get(lists::rejected_groups)),
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
    let peer = request.extensions().get::<Arc<Peer>>();
    let from = peer.map(|peer| peer.address);
    let (method, headers) = (request.method(), request.headers());
    let admitted = shared.guard.check(method, request.uri(), headers, from);
    let looks = matches!(*request.method(), Method::GET | Method::HEAD);
    match admitted {
        Ok(caller) => {
            if let Some(peer) = request.extensions().get::<Arc<Peer>>() {
                peer.is_known();
            }
            if looks {
                return next.run(request).await;
            }
            let call = format!("{} {}", request.method(), request.uri().path());
            let response = next.run(request).await;
            let action = shared.action(caller.name, &call, &response);
            shared.record(action).await;
            response
        }
        Err(refusal) => {
            // A page that asks for the token has none yet.
            let owner = shared.guard.owner(request.headers());
            let attempt = !looks || request.headers().contains_key(AUTHORIZATION);
            let call = format!("{} {}", request.method(), request.uri().path());
            let response = Failure::from(refusal).into_response();
            if attempt {
                let who = owner.unwrap_or_else(|| "somebody who was refused".to_owned());
                let attempt = shared.action(Some(who), &call, &response);
                shared.record_refused(attempt).await;
            }
            response
        }
    }
}

async fn nothing_here() -> Failure {
    Failure::new(StatusCode::NOT_FOUND, "There is nothing at this address.")
}

async fn wrong_method() -> Failure {
    Failure::new(
        StatusCode::METHOD_NOT_ALLOWED,
        "This address does not take this method.",
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
        Ok(overview) if overview.ready => {
            let on = overview.outbox.database.as_ref();
            let on = on.map_or_else(String::new, |database| format!("; outbox on {database}"));
            return content(TEXT, format!("ready{on}\n{}", issues(&overview.health)));
        }
        Ok(overview) => {
            let why = overview.not_ready.as_deref();
            let why = why.unwrap_or("New deliveries are not taken.");
            format!("{why}\n{}", issues(&overview.health))
        }
        Err(problem) => format!("{problem}\n"),
    };
    let mut response = content(TEXT, reason);
    *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
    response
}

/// The roll-up behind the first line, for a person who looks at a probe: one issue a line. Probes
/// answer without a token, so no account is named.
fn issues(health: &Health) -> String {
    let lines = health.issues.iter();
    lines
        .map(|issue| format!("{}: {}\n", issue.level.name(), issue.kind.name()))
        .collect()
}

async fn scrape(State(shared): State<Arc<Shared>>) -> Answer {
    let asked = shared.calls.ask(move |daemon| {
        let newest = daemon.deliveries(&Filter::default(), &Page::first(1));
        Ok((daemon.overview(), newest, daemon.schedules()))
    });
    let (mut overview, newest, schedules) = asked.await?;
    shared.complete(&mut overview);
    // Without the lists the other series still count.
    let newest = newest.unwrap_or_default().items.into_iter().next();
    let newest = newest.map(|delivery| delivery.received);
    let schedules = schedules::shown(schedules.unwrap_or_default());
    let text = metrics::text(&overview, newest, &schedules);
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
    #[serde(default)]
    range: Range,
}

async fn history(State(shared): State<Arc<Shared>>, query: Params<Since>) -> Answer {
    let query = params(query)?;
    let history = shared.recorder().after(query.range, query.since);
    json(&history)
}

async fn configuration(State(shared): State<Arc<Shared>>) -> Answer {
    json(&shared.configuration)
}

async fn listen(State(shared): State<Arc<Shared>>) -> Answer {
    events::listen(shared).await
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Part {
    after: Option<String>,
    limit: Option<usize>,
    #[serde(default)]
    format: Format,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Letters {
    delivery: Option<String>,
    after: Option<String>,
    limit: Option<usize>,
    #[serde(default)]
    format: Format,
}

async fn failed_delivery(State(shared): State<Arc<Shared>>, id: Name) -> Answer {
    let id = name(id)?;
    let found = shared.calls.ask(move |daemon| daemon.failed_delivery(&id));
    json(&found.await?)
}

async fn ask_again(State(shared): State<Arc<Shared>>, id: Name) -> Answer {
    let id = name(id)?;
    tracing::info!(delivery = ?id, "an operator has Looker asked for a failed delivery");
    done(&shared, move |daemon| daemon.ask_again(&id)).await
}

async fn do_not_ask(State(shared): State<Arc<Shared>>, id: Name) -> Answer {
    let id = name(id)?;
    tracing::info!(delivery = ?id, "an operator says that Looker is not to be asked again");
    done(&shared, move |daemon| daemon.do_not_ask(&id)).await
}

async fn rejected(State(shared): State<Arc<Shared>>, id: Name, query: Params<Part>) -> Answer {
    let (id, query) = (name(id)?, params(query)?);
    let page = page_of(query.after, query.limit)?;
    let part = (page, query.limit, query.format);
    let file = "looker-feed-rejected-rows.csv";
    let read = move |daemon: &dyn Daemon, page: &Page| daemon.rejected(&id, page);
    export::list(shared, part, export::ROWS, file, read).await
}

async fn rejected_export(State(shared): State<Arc<Shared>>, id: Name) -> Answer {
    export::rejected(shared, name(id)?).await
}

async fn dead_letters(State(shared): State<Arc<Shared>>, query: Params<Letters>) -> Answer {
    let query = params(query)?;
    let delivery = query.delivery.map(checked).transpose()?;
    let page = page_of(query.after, query.limit)?;
    let part = (page, query.limit, query.format);
    let file = "looker-feed-dead-letters.csv";
    let read =
        move |daemon: &dyn Daemon, page: &Page| daemon.dead_letters(delivery.as_deref(), page);
    export::list(shared, part, export::ENTRIES, file, read).await
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
    let asked = move |daemon: &dyn Daemon| daemon.edit(&id, edit.batch.get(), edit.may_double);
    let done = shared.calls.ask(asked).await?;
    told(&done, &done.message)
}

async fn replay(State(shared): State<Arc<Shared>>, request: Request) -> Answer {
    let which = which(request).await?;
    tracing::info!(which = %brief(&which), "an operator replays dead letters");
    done(&shared, move |daemon| daemon.replay(&which)).await
}

async fn discard(State(shared): State<Arc<Shared>>, request: Request) -> Answer {
    let which = which(request).await?;
    tracing::warn!(which = %brief(&which), "an operator discards dead letters");
    done(&shared, move |daemon| daemon.discard(&which)).await
}

async fn cancel(State(shared): State<Arc<Shared>>, id: Name) -> Answer {
    let id = name(id)?;
    tracing::warn!(delivery = ?id, "an operator cancels a delivery");
    done(&shared, move |daemon| daemon.cancel(&id)).await
}

async fn release(State(shared): State<Arc<Shared>>, id: Name) -> Answer {
    let id = name(id)?;
    tracing::info!(delivery = ?id, "an operator releases a delivery");
    done(&shared, move |daemon| daemon.release(&id)).await
}

async fn pause(State(shared): State<Arc<Shared>>, id: Name) -> Answer {
    let id = name(id)?;
    tracing::warn!(destination = ?id, "an operator pauses a destination");
    done(&shared, move |daemon| daemon.pause(&id)).await
}

async fn resume(State(shared): State<Arc<Shared>>, id: Name) -> Answer {
    let id = name(id)?;
    tracing::info!(destination = ?id, "an operator resumes a destination");
    done(&shared, move |daemon| daemon.resume(&id)).await
}

async fn retry(State(shared): State<Arc<Shared>>, id: Name) -> Answer {
    let id = name(id)?;
    tracing::info!(destination = ?id, "an operator ends the wait of a destination");
    done(&shared, move |daemon| daemon.retry_now(&id)).await
}

/// Has the daemon do something, and says what it did.
async fn done(
    shared: &Shared,
    act: impl FnOnce(&dyn Daemon) -> Result<view::Done, Problem> + Send + 'static,
) -> Answer {
    let done = shared.calls.ask(act).await?;
    told(&done, &done.message)
}

/// For the log: a thousand ids are not written out.
fn brief(which: &Which) -> String {
    match which {
        Which::Ids(ids) => format!("{} by id", ids.len()),
        Which::Delivery(id) => format!("all of delivery {id:?}"),
        Which::Reason(reason) => format!("all with one reason of {} bytes", reason.len()),
        Which::All => "all".into(),
    }
}

/// `{"ids": [...]}`, `{"delivery": "..."}`, `{"reason": "..."}` or `{"all": true}`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Choice {
    ids: Option<Vec<String>>,
    delivery: Option<String>,
    reason: Option<String>,
    #[serde(default)]
    all: bool,
}

async fn which(request: Request) -> Result<Which, Failure> {
    let choice: Choice = body(request, BODY).await?;
    let one = match (choice.ids, choice.delivery, choice.reason, choice.all) {
        (Some(ids), None, None, false) if (1..=IDS).contains(&ids.len()) => {
            let ids = ids.into_iter().map(checked).collect::<Result<_, _>>();
            Some(Which::Ids(ids?))
        }
        (None, Some(delivery), None, false) => Some(Which::Delivery(checked(delivery)?)),
        (None, None, Some(reason), false) if reason.len() <= REASON => Some(Which::Reason(reason)),
        (None, None, None, true) => Some(Which::All),
        _ => None,
    };
    one.ok_or_else(|| {
        bad(format!(
            "The request must say which: `ids` (1 to {IDS}), `delivery`, `reason`, or `all`: true."
        ))
    })
}
