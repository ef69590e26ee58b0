//! What a request says: parameters, names, parts of lists, bodies. What cannot be read is refused in
//! our own form.

use std::time::Duration;

use axum::body::Body;
use axum::extract::{Path, Query, Request};
use axum::http::{Response, StatusCode};
use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::answer::Failure;
use super::daemon::Page;

/// Entries of a list in one answer: at most, and when nothing is said.
const MOST: usize = 500;
const USUAL: usize = 50;

/// Bytes of an id or a cursor. Ours are far shorter.
const NAME: usize = 128;

/// A client that sends its body slower than this is given up.
const BODY_WITHIN: Duration = Duration::from_secs(10);

pub(super) type Answer = Result<Response<Body>, Failure>;

/// An extractor's own rejections are plain text: they are taken as values and put into our form.
pub(super) type Params<T> = Result<Query<T>, axum::extract::rejection::QueryRejection>;
pub(super) type Name = Result<Path<String>, axum::extract::rejection::PathRejection>;

pub(super) fn params<T: DeserializeOwned>(query: Params<T>) -> Result<T, Failure> {
    match query {
        Ok(Query(params)) => Ok(params),
        Err(error) => Err(bad(format!(
            "The address has a wrong parameter: {}.",
            error.body_text()
        ))),
    }
}

pub(super) fn name(id: Name) -> Result<String, Failure> {
    match id {
        Ok(Path(id)) => checked(id),
        Err(_) => Err(bad("The name in the address cannot be read.".into())),
    }
}

pub(super) fn checked(name: String) -> Result<String, Failure> {
    if name.is_empty() || name.len() > NAME || name.chars().any(char::is_control) {
        return Err(bad(format!("A name has 1 to {NAME} visible characters.")));
    }
    Ok(name)
}

pub(super) fn page_of(after: Option<String>, limit: Option<usize>) -> Result<Page, Failure> {
    let limit = limit.unwrap_or(USUAL);
    if !(1..=MOST).contains(&limit) {
        return Err(bad(format!("`limit` is 1 to {MOST}.")));
    }
    let after = after.map(checked).transpose()?;
    Ok(Page { after, limit })
}

/// In what form a list is answered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Format {
    /// A part of it.
    #[default]
    Json,
    /// All of it, or as much as `limit` says.
    Csv,
}

/// A request's body, as JSON of at most so many bytes.
pub(super) async fn body<T: DeserializeOwned>(request: Request, most: usize) -> Result<T, Failure> {
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

pub(super) fn bad(why: String) -> Failure {
    Failure::new(StatusCode::BAD_REQUEST, why)
}
