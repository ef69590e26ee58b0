//! Routes, and the way of a request through the checks that [`super`] lists.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use futures::stream;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::{Body as _, Frame, Incoming};
use hyper::header::{
    ALLOW, AUTHORIZATION, CONTENT_ENCODING, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue,
    RETRY_AFTER,
};
use hyper::{Method, Request, Response, StatusCode};
use serde::Deserialize;
use serde_json::value::RawValue;

use super::bucket::Taken;
use super::faults::{Fault, Faults, Plan};
use super::ledger::Arrival;
use super::serve::{Body, HangUp, whole};
use super::{Handle, LedgerMode, Shared, check, page};
use crate::clock::UnixMillis;

const PERCENTAGE_USED: HeaderName = HeaderName::from_static("x-mp-rate-limit-percentage-used");
const EXCEEDED: HeaderName = HeaderName::from_static("x-mp-rate-limit-exceeded");

/// A client that sends its body slower than this is given up.
const BODY_WITHIN: Duration = Duration::from_secs(60);

/// What is read and thrown away of a body that is too large, so that the client has sent it all
/// and sees the refusal instead of a broken connection.
const DISCARD: usize = 8 << 20;

/// Largest body of a `/sandbox/*` request.
const ADMIN_BYTES: usize = 1 << 20;

/// Bytes of a ledger chunk, about; and its batches at most, so that the lock is held shortly.
const CHUNK_BYTES: usize = 64 << 10;
const CHUNK_BATCHES: usize = 256;

/// The historical endpoint drops events younger than 72 hours.
const HISTORICAL_AGE_MS: u64 = 72 * 3_600_000;

/// Events before this are old, in milliseconds since 1970.
pub(super) fn old_before(now: UnixMillis) -> i64 {
    i64::try_from(now.0.saturating_sub(HISTORICAL_AGE_MS)).unwrap_or(i64::MAX)
}

/// Answers one request of any route.
pub(super) async fn answer(
    shared: Arc<Shared>,
    request: Request<Incoming>,
) -> Result<Response<Body>, HangUp> {
    let handle = Handle { shared };
    let (route, methods) = match request.uri().path() {
        "/" => (Route::Page, "GET"),
        "/v2/bulkevents" => (Route::Bulk { historical: false }, "POST"),
        "/v2/bulkevents/historical" => (Route::Bulk { historical: true }, "POST"),
        "/sandbox/counts" => (Route::Counts, "GET"),
        "/sandbox/ledger" => (Route::Ledger, "GET"),
        "/sandbox/faults" => (Route::Faults, "GET, PUT"),
        "/sandbox/rate" => (Route::Rate, "PUT"),
        "/sandbox/reset" => (Route::Reset, "POST"),
        _ => {
            let nothing = "There is nothing at this address.\n";
            return Ok(text(StatusCode::NOT_FOUND, nothing));
        }
    };
    let mut allowed = methods.split(", ");
    if !allowed.any(|method| method == request.method().as_str()) {
        let another = "Another method is needed.\n";
        let mut response = text(StatusCode::METHOD_NOT_ALLOWED, another);
        let headers = response.headers_mut();
        headers.insert(ALLOW, HeaderValue::from_static(methods));
        return Ok(response);
    }
    Ok(match route {
        Route::Bulk { historical } => return bulk(&handle.shared, request, historical).await,
        Route::Page => {
            let (rate, counts) = {
                let state = handle.shared.state();
                (state.buckets.rate(), state.ledger.counts())
            };
            let page = page::text(&handle.shared.settings, rate, &counts);
            text(StatusCode::OK, page)
        }
        Route::Counts => json(&handle.counts()),
        Route::Ledger => ledger(handle),
        Route::Faults if request.method() == Method::GET => {
            json(handle.shared.state().faults.faults())
        }
        Route::Faults => match admin_body::<Faults>(request).await {
            Ok(faults) => match handle.set_faults(faults) {
                Ok(()) => empty(StatusCode::NO_CONTENT),
                Err(error) => text(StatusCode::BAD_REQUEST, format!("{error}\n")),
            },
            Err(refusal) => refusal,
        },
        Route::Rate => match admin_body::<RateBody>(request).await {
            Ok(rate) => {
                handle.set_rate(rate.batches_per_second);
                empty(StatusCode::NO_CONTENT)
            }
            Err(refusal) => refusal,
        },
        Route::Reset => {
            handle.reset();
            empty(StatusCode::NO_CONTENT)
        }
    })
}

enum Route {
    Page,
    Bulk { historical: bool },
    Counts,
    Ledger,
    Faults,
    Rate,
    Reset,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RateBody {
    /// Must be there, so that a misspelt key does not lift the limit.
    #[serde(deserialize_with = "Option::deserialize")]
    batches_per_second: Option<u32>,
}

/// A request to one of the two bulk endpoints, with the faults that meet it.
async fn bulk(
    shared: &Shared,
    request: Request<Incoming>,
    historical: bool,
) -> Result<Response<Body>, HangUp> {
    let Plan { delay, fault } = {
        let mut state = shared.state();
        state.ledger.request();
        state.faults.plan(Instant::now())
    };
    if fault == Some(Fault::DropBefore) {
        shared.state().ledger.connection_dropped();
        return Err(HangUp);
    }
    if !delay.is_zero() {
        tokio::time::sleep(delay).await;
    }
    let (head, body) = request.into_parts();
    let body = read(body, shared.settings.limits.request_bytes).await;
    if let Some(Fault::Status { .. }) = fault {
        return Ok(count(shared, forced(fault)));
    }
    let reply = match body {
        Ok(body) => accept(shared, &head.headers, body, historical),
        // A body that is too large is refused as such only after the credentials.
        Err(refusal) => authenticate(shared, &head.headers).err().unwrap_or(refusal),
    };
    match fault {
        Some(Fault::DropAfter) => {
            shared.state().ledger.connection_dropped();
            Err(HangUp)
        }
        Some(Fault::SlowBody { bytes, pause_ms }) => {
            let (parts, _) = count(shared, reply.into()).into_parts();
            Ok(Response::from_parts(parts, trickle(bytes, pause_ms)))
        }
        _ => Ok(count(shared, reply.into())),
    }
}

/// Why a body did not come whole: the reply to that.
async fn read(mut body: Incoming, most: usize) -> Result<Bytes, Reply> {
    let announced = usize::try_from(body.size_hint().lower()).unwrap_or(usize::MAX);
    let mut held = Vec::with_capacity(announced.min(most));
    let mut length = 0_usize;
    let collected = async {
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|_| Reply::bad("the body did not come whole"))?;
            let Ok(data) = frame.into_data() else {
                continue;
            };
            length += data.len();
            if length <= most {
                held.extend_from_slice(&data);
            } else if length > DISCARD.max(most) {
                break;
            }
        }
        Ok(())
    };
    match tokio::time::timeout(BODY_WITHIN, collected).await {
        Ok(Ok(())) if length <= most => Ok(Bytes::from(held)),
        Ok(Ok(())) => Err(Reply::too_large("the request has", most)),
        Ok(Err(refusal)) => Err(refusal),
        Err(_) => {
            let slow = "the body came too slowly";
            Err(Reply::refused(StatusCode::REQUEST_TIMEOUT, slow))
        }
    }
}

/// All checks on a request that is there whole, and its record.
fn accept(shared: &Shared, headers: &HeaderMap, body: Bytes, historical: bool) -> Reply {
    try_accept(shared, headers, &body, historical).unwrap_or_else(|refusal| refusal)
}

fn try_accept(
    shared: &Shared,
    headers: &HeaderMap,
    body: &Bytes,
    historical: bool,
) -> Result<Reply, Reply> {
    let limits = shared.settings.limits;
    let key = authenticate(shared, headers)?;
    content_type(headers)?;
    let batches = split(body)?;
    if batches.len() > limits.batches_per_request {
        let most = limits.batches_per_request;
        return Err(Reply::bad(format!("more than {most} batches in a request")));
    }
    let too_large = |batch: &&RawValue| batch.get().len() > limits.batch_bytes;
    if let Some(nth) = batches.iter().position(too_large) {
        let which = format!("batch {nth}: has");
        return Err(Reply::too_large(&which, limits.batch_bytes));
    }
    let now = Instant::now();
    let (key, percentage_used) = match shared.state().buckets.take(&key, batches.len(), now) {
        Taken::Passed {
            key,
            percentage_used,
        } => (key, percentage_used),
        Taken::Refused { retry_after } => return Err(Reply::throttled(retry_after)),
        Taken::TooManyKeys => {
            let many = "this stand-in has seen too many different API keys: reset it";
            return Err(Reply::refused(StatusCode::FORBIDDEN, many));
        }
    };
    let youngest = old_before(UnixMillis::now());
    let mut events = 0;
    let mut checked = Vec::with_capacity(batches.len());
    for (nth, batch) in batches.into_iter().enumerate() {
        let facts = check::check(batch.get(), youngest)
            .map_err(|refusal| Reply::bad(format!("batch {nth}: {refusal}")))?;
        events += facts.events;
        checked.push((body.slice_ref(batch.get().as_bytes()), facts));
    }
    if events > limits.events_per_request {
        let most = limits.events_per_request;
        return Err(Reply::bad(format!("more than {most} events in a request")));
    }
    let mut state = shared.state();
    if let Some((status, marker)) = state.faults.rejection(body, now) {
        let status = StatusCode::from_u16(status).unwrap_or(StatusCode::BAD_REQUEST);
        let message = format!("the request holds the marker {marker}");
        return Err(Reply::refused(status, &message));
    }
    state.ledger.record(Arrival {
        key: &key,
        batches: checked,
        historical,
        second: now.duration_since(shared.started).as_secs(),
    });
    Ok(Reply::accepted(percentage_used))
}

/// The API key of a request whose credentials are let in.
fn authenticate(shared: &Shared, headers: &HeaderMap) -> Result<String, Reply> {
    let missing = || Reply::refused(StatusCode::UNAUTHORIZED, "Basic authentication is missing");
    let value = headers.get(AUTHORIZATION).ok_or_else(missing)?;
    let value = value.to_str().map_err(|_| missing())?;
    let (scheme, encoded) = value.split_once(' ').ok_or_else(missing)?;
    if !scheme.eq_ignore_ascii_case("basic") {
        return Err(missing());
    }
    let pair = BASE64.decode(encoded.trim()).map_err(|_| missing())?;
    let pair = String::from_utf8(pair).map_err(|_| missing())?;
    let (key, secret) = pair.split_once(':').ok_or_else(missing)?;
    if key.is_empty() || secret.is_empty() {
        return Err(missing());
    }
    let let_in = match &shared.settings.credentials {
        None => true,
        Some(pairs) => pairs.iter().any(|pair| pair.0 == key && pair.1 == secret),
    };
    if !let_in {
        let wrong = "the API key or secret is wrong";
        return Err(Reply::refused(StatusCode::FORBIDDEN, wrong));
    }
    Ok(key.to_owned())
}

fn content_type(headers: &HeaderMap) -> Result<(), Reply> {
    let value = headers.get(CONTENT_TYPE).and_then(|v| v.to_str().ok());
    let kind = value.and_then(|value| value.split(';').next());
    if !kind.is_some_and(|kind| kind.trim().eq_ignore_ascii_case("application/json")) {
        return Err(Reply::bad("the content type must be application/json"));
    }
    match headers.get(CONTENT_ENCODING) {
        Some(encoding) if encoding != "identity" => {
            Err(Reply::bad("the body must not be compressed"))
        }
        _ => Ok(()),
    }
}

/// The batches of a body, as text.
fn split(body: &Bytes) -> Result<Vec<&RawValue>, Reply> {
    let text =
        std::str::from_utf8(body).map_err(|error| Reply::bad(format!("the body: {error}")))?;
    if !text.trim_ascii_start().starts_with('[') {
        return Err(Reply::bad("the body must be a JSON array of batches"));
    }
    serde_json::from_str(text)
        .map_err(|error| Reply::bad(format!("the body is not valid JSON: {error}")))
}

/// What is told to a sender.
struct Reply {
    status: StatusCode,
    /// Seconds; with a 429 only.
    retry_after: Option<u64>,
    /// With a 202 only.
    percentage_used: Option<u8>,
    /// JSON, when it is not empty.
    body: Bytes,
}

impl Reply {
    fn accepted(percentage_used: u8) -> Self {
        Self {
            status: StatusCode::ACCEPTED,
            retry_after: None,
            percentage_used: Some(percentage_used),
            body: Bytes::new(),
        }
    }

    fn throttled(retry_after: u64) -> Self {
        Self {
            retry_after: Some(retry_after),
            ..Self::refused(StatusCode::TOO_MANY_REQUESTS, "rate limit exceeded")
        }
    }

    fn bad(message: impl AsRef<str>) -> Self {
        Self::refused(StatusCode::BAD_REQUEST, message.as_ref())
    }

    fn too_large(which: &str, most: usize) -> Self {
        let message = format!("{which} more than {most} bytes");
        Self::refused(StatusCode::PAYLOAD_TOO_LARGE, &message)
    }

    fn refused(status: StatusCode, message: &str) -> Self {
        let code = match status {
            StatusCode::BAD_REQUEST => "BAD_REQUEST",
            StatusCode::UNAUTHORIZED => "UNAUTHORIZED",
            StatusCode::FORBIDDEN => "FORBIDDEN",
            StatusCode::PAYLOAD_TOO_LARGE => "PAYLOAD_TOO_LARGE",
            StatusCode::TOO_MANY_REQUESTS => "TOO_MANY_REQUESTS",
            _ => "REFUSED",
        };
        let body = serde_json::json!({"errors": [{"code": code, "message": message}]});
        Self {
            status,
            retry_after: None,
            percentage_used: None,
            body: Bytes::from(body.to_string()),
        }
    }
}

impl From<Reply> for Response<Body> {
    fn from(reply: Reply) -> Self {
        let is_json = !reply.body.is_empty();
        let mut response = Response::new(whole(reply.body));
        *response.status_mut() = reply.status;
        let headers = response.headers_mut();
        if is_json {
            let json = HeaderValue::from_static("application/json");
            headers.insert(CONTENT_TYPE, json);
        }
        if let Some(percentage) = reply.percentage_used {
            headers.insert(PERCENTAGE_USED, u16::from(percentage).into());
        }
        if let Some(seconds) = reply.retry_after {
            headers.insert(RETRY_AFTER, seconds.into());
            headers.insert(EXCEEDED, HeaderValue::from_static("account"));
        }
        response
    }
}

/// The reply that [`Fault::Status`] asks for.
fn forced(fault: Option<Fault>) -> Response<Body> {
    let Some(Fault::Status {
        status,
        retry_after,
        exceeded,
        body,
    }) = fault
    else {
        return empty(StatusCode::INTERNAL_SERVER_ERROR);
    };
    let mut response = Response::new(whole(body.unwrap_or_default()));
    *response.status_mut() =
        StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    for (name, value) in [(RETRY_AFTER, retry_after), (EXCEEDED, exceeded)] {
        if let Some(value) = value.and_then(|value| HeaderValue::try_from(value).ok()) {
            response.headers_mut().insert(name, value);
        }
    }
    response
}

fn count(shared: &Shared, response: Response<Body>) -> Response<Body> {
    let second = shared.started.elapsed().as_secs();
    let status = response.status().as_u16();
    shared.state().ledger.reply(status, second);
    response
}

/// Spaces, one at a time.
fn trickle(bytes: u64, pause_ms: u64) -> Body {
    let pause = Duration::from_millis(pause_ms);
    let spaces = stream::unfold(bytes, move |left| async move {
        let left = left.checked_sub(1)?;
        tokio::time::sleep(pause).await;
        let space = Frame::data(Bytes::from_static(b" "));
        Some((Ok::<_, io::Error>(space), left))
    });
    StreamBody::new(spaces).boxed_unsync()
}

/// The ledger as it is now, as JSON lines. Cut short, so that a reader cannot take it for whole,
/// when a reset comes in between.
fn ledger(handle: Handle) -> Response<Body> {
    let (length, generation) = {
        let state = handle.shared.state();
        if state.ledger.mode() == LedgerMode::Counts {
            return text(
                StatusCode::CONFLICT,
                "Only counts are kept here: see /sandbox/counts.\n",
            );
        }
        (state.ledger.accepted().len(), state.generation)
    };
    let chunks = stream::unfold(Some(0), move |from| {
        let handle = handle.clone();
        async move {
            let from = from.filter(|from| *from < length)?;
            let until = length.min(from + CHUNK_BATCHES);
            let batches = {
                let state = handle.shared.state();
                let batches = state.ledger.accepted().get(from..until);
                batches
                    .filter(|_| state.generation == generation)
                    .map(<[_]>::to_vec)
            };
            let Some(batches) = batches else {
                return Some((Err(io::Error::other("the ledger was reset")), None));
            };
            let mut out = Vec::with_capacity(CHUNK_BYTES);
            let mut next = from;
            for batch in batches {
                batch.write_line(&mut out);
                next += 1;
                if out.len() >= CHUNK_BYTES {
                    break;
                }
            }
            Some((Ok(Frame::data(Bytes::from(out))), Some(next)))
        }
    });
    let body = StreamBody::new(chunks).boxed_unsync();
    of_kind("application/x-ndjson", StatusCode::OK, body)
}

async fn admin_body<T: for<'de> Deserialize<'de>>(
    request: Request<Incoming>,
) -> Result<T, Response<Body>> {
    let body = read(request.into_body(), ADMIN_BYTES).await?;
    serde_json::from_slice(&body)
        .map_err(|error| text(StatusCode::BAD_REQUEST, format!("the body: {error}\n")))
}

fn empty(status: StatusCode) -> Response<Body> {
    let mut response = Response::new(whole(Bytes::new()));
    *response.status_mut() = status;
    response
}

fn text(status: StatusCode, text: impl Into<Bytes>) -> Response<Body> {
    of_kind("text/plain; charset=utf-8", status, whole(text))
}

fn of_kind(kind: &'static str, status: StatusCode, body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    let kind = HeaderValue::from_static(kind);
    response.headers_mut().insert(CONTENT_TYPE, kind);
    response
}

fn json(value: &impl serde::Serialize) -> Response<Body> {
    let Ok(body) = serde_json::to_vec(value) else {
        return empty(StatusCode::INTERNAL_SERVER_ERROR);
    };
    of_kind("application/json", StatusCode::OK, whole(body))
}
