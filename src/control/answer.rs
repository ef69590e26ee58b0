//! Answers: JSON, errors as `{"error": "sentence"}`, and the headers that every answer carries.

use axum::body::Body;
use axum::http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue,
    REFERRER_POLICY, WWW_AUTHENTICATE, X_CONTENT_TYPE_OPTIONS, X_FRAME_OPTIONS,
};
use axum::http::{Response, StatusCode};
use axum::response::IntoResponse;
use serde::Serialize;

use super::daemon::Problem;
use super::guard::Refusal;

pub(super) const JSON: &str = "application/json";

/// Nothing but our own files may run, style, load or be framed; titles come from outside.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; \
                      connect-src 'self'; base-uri 'none'; form-action 'none'; \
                      frame-ancestors 'none'; require-trusted-types-for 'script'";

/// A request that could not be answered, as the client sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Failure {
    pub status: StatusCode,
    pub why: String,
}

impl Failure {
    pub fn new(status: StatusCode, why: impl Into<String>) -> Self {
        Self {
            status,
            why: why.into(),
        }
    }
}

impl From<Problem> for Failure {
    fn from(problem: Problem) -> Self {
        let status = match problem {
            Problem::Unknown(_) => StatusCode::NOT_FOUND,
            Problem::Refused(_) => StatusCode::CONFLICT,
            Problem::Failed(_) => StatusCode::INTERNAL_SERVER_ERROR,
        };
        Self::new(status, problem.to_string())
    }
}

impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Self {
        Self::new(refusal.status, refusal.why)
    }
}

/// What a call did, or why it did nothing: for the audit log.
#[derive(Clone, Debug)]
pub(super) struct Said(pub String);

/// `value` as JSON, of a call that has changed something and says so in `message`.
pub(super) fn told(value: &impl Serialize, message: &str) -> Result<Response<Body>, Failure> {
    let mut response = json(value)?;
    response.extensions_mut().insert(Said(message.to_owned()));
    Ok(response)
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response<Body> {
        let body = serde_json::json!({ "error": &self.why });
        let mut response = content(JSON, body.to_string());
        *response.status_mut() = self.status;
        response.extensions_mut().insert(Said(self.why));
        if self.status == StatusCode::UNAUTHORIZED {
            let value = HeaderValue::from_static("Bearer realm=\"looker-feed\"");
            response.headers_mut().insert(WWW_AUTHENTICATE, value);
        }
        response
    }
}

/// `value` as JSON.
pub(super) fn json(value: &impl Serialize) -> Result<Response<Body>, Failure> {
    match serde_json::to_vec(value) {
        Ok(text) => Ok(content(JSON, text)),
        Err(error) => Err(Failure::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            format!("The answer cannot be written as JSON: {error}"),
        )),
    }
}

/// A body of a type.
pub(super) fn content(kind: &'static str, body: impl Into<Body>) -> Response<Body> {
    let mut response = Response::new(body.into());
    let kind = HeaderValue::from_static(kind);
    response.headers_mut().insert(CONTENT_TYPE, kind);
    response
}

/// Puts the headers of every answer in.
pub(super) fn protect(headers: &mut HeaderMap) {
    const COOP: HeaderName = HeaderName::from_static("cross-origin-opener-policy");
    const CORP: HeaderName = HeaderName::from_static("cross-origin-resource-policy");
    for (name, value) in [
        (CONTENT_SECURITY_POLICY, POLICY),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (X_FRAME_OPTIONS, "DENY"),
        (REFERRER_POLICY, "no-referrer"),
        (CACHE_CONTROL, "no-store"),
        (COOP, "same-origin"),
        (CORP, "same-origin"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
}
