//! Calls an action hub's `execute` the way Looker does.

use std::collections::BTreeMap;
use std::io;
use std::iter;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::{Buf, Bytes};
use futures::stream;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use hyper::client::conn::http1;
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HOST, USER_AGENT};
use hyper::{Method, Request};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::TcpStream;
use url::Url;

use crate::model::{DataType, Environment};

/// Bytes of an answer; a hub's are short.
const ANSWER_BYTES: usize = 1 << 20;

/// Bytes that make one line of base64: 60 characters.
const BASE64_LINE: usize = 45;

/// What Looker hands over, and how.
pub struct Execute {
    /// Where the rows are.
    pub source: Source,
    /// The action's parameter `apiKey`.
    pub api_key: String,
    /// The action's parameter `apiSecret`.
    pub api_secret: String,
    /// The form's `data_type`.
    pub data_type: DataType,
    /// The form's `environment`.
    pub environment: Environment,
    /// What a form that was filled in was saved with; then neither of the two above counts.
    pub form: Option<BTreeMap<String, String>>,
    /// `X-Looker-Webhook-Id`: 32 hex digits that name this attempt.
    pub webhook_id: String,
    /// `X-Looker-Instance`
    pub instance: String,
    /// Which schedule it is of.
    pub plan: Plan,
    /// How long the whole call may take.
    pub timeout: Duration,
}

/// The schedule that an execution is of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// Its id.
    pub id: u64,
    /// Its title.
    pub title: String,
    /// Where its content stands in Looker.
    pub link: String,
    /// The id of its query.
    pub query: u64,
}

impl Default for Plan {
    fn default() -> Self {
        Self {
            id: 7,
            title: "Large delivery".to_owned(),
            link: "https://looker.example.com/looks/7".to_owned(),
            query: 42,
        }
    }
}

/// Where the rows are.
pub enum Source {
    /// At a download url.
    Url(Url),
    /// In the request itself, as `attachment.data`.
    Push(PushStyle, Box<dyn Iterator<Item = Bytes> + Send>),
    /// Nowhere: "send if no results".
    Nothing,
}

/// How the document stands in `attachment.data`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PushStyle {
    /// A JSON string that holds the document's text.
    EscapedString,
    /// The document itself.
    InlineJson,
    /// A JSON string of base64 in lines of 60 characters; the mimetype ends with `;base64`.
    Base64,
}

impl Execute {
    /// Events for the development environment, with a fresh webhook id and a limit of 15 minutes.
    pub fn new(source: Source, api_key: &str, api_secret: &str) -> Self {
        Self {
            source,
            api_key: api_key.to_owned(),
            api_secret: api_secret.to_owned(),
            data_type: DataType::Event,
            environment: Environment::Development,
            form: None,
            webhook_id: format!("{:032x}", fastrand::u128(..)),
            instance: "https://looker.example.com".to_owned(),
            plan: Plan::default(),
            timeout: Duration::from_secs(15 * 60),
        }
    }
}

/// What the hub answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// HTTP status.
    pub status: u16,
    /// Keep-alive newlines before the answer.
    pub newlines: usize,
    /// The body without them.
    pub body: Bytes,
}

impl Answer {
    /// The body as JSON; null when it is something else.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }

    /// Whether Looker would take the delivery for delivered: status 200 and `looker.success`.
    pub fn is_success(&self) -> bool {
        self.status == 200 && self.json()["looker"]["success"] == true
    }

    /// `looker.message`, which Looker shows when the delivery has failed.
    pub fn message(&self) -> Option<String> {
        let message = &self.json()["looker"]["message"];
        message.as_str().map(str::to_owned)
    }
}

/// There is no answer.
#[derive(Debug, thiserror::Error)]
pub enum ExecuteError {
    /// The hub's url has no host, or the token or webhook id cannot stand in a header.
    #[error("the hub's url, the token or the webhook id cannot be used: {0}")]
    Request(String),
    /// Nobody listens there.
    #[error("the hub cannot be reached")]
    Connect(#[source] io::Error),
    /// The connection broke before the answer was whole.
    #[error("the hub did not answer in full")]
    Http(#[from] hyper::Error),
    /// The answer is longer than any hub's.
    #[error("the hub's answer is longer than 1 MiB")]
    TooLong,
    /// [`Execute::timeout`] has passed.
    #[error("the hub did not answer in time")]
    Timeout,
}

/// Calls `<hub>/actions/mparticle/execute` as Looker does, with a chunked body, and waits for the
/// whole answer. Only `http` urls: the hub is local.
///
/// # Errors
/// See [`ExecuteError`]; a hub that reports a failure is not one.
pub async fn execute(hub: &Url, token: &str, execute: Execute) -> Result<Answer, ExecuteError> {
    let timeout = execute.timeout;
    tokio::time::timeout(timeout, call(hub, token, execute))
        .await
        .unwrap_or(Err(ExecuteError::Timeout))
}

async fn call(hub: &Url, token: &str, execute: Execute) -> Result<Answer, ExecuteError> {
    let path = hub.path().trim_end_matches('/');
    let mut url = hub.clone();
    url.set_path(&format!("{path}/actions/mparticle/execute"));
    let (id, instance) = (execute.webhook_id.clone(), execute.instance.clone());
    let headers = [
        ("X-Looker-Instance", &*instance),
        ("X-Looker-Webhook-Id", &*id),
    ];
    post(&url, token, &headers, body(execute)).await
}

/// Posts to a hub as Looker does, with a chunked body.
pub(super) async fn post(
    url: &Url,
    token: &str,
    headers: &[(&str, &str)],
    body: impl Iterator<Item = Bytes> + Send + 'static,
) -> Result<Answer, ExecuteError> {
    let no_host = || ExecuteError::Request(format!("{url} has no host"));
    let host = url.host_str().ok_or_else(no_host)?;
    let port = url.port_or_known_default().ok_or_else(no_host)?;
    let mut request = Request::builder()
        .method(Method::POST)
        .uri(url.path())
        .header(HOST, format!("{host}:{port}"))
        .header(AUTHORIZATION, format!("Token token=\"{token}\""))
        .header(CONTENT_TYPE, "application/json")
        .header(USER_AGENT, "LookerOutgoingWebhook/7.3.0");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let frames = body.map(|chunk| Ok::<_, io::Error>(Frame::data(chunk)));
    let request = request
        .body(StreamBody::new(stream::iter(frames)))
        .map_err(|error| ExecuteError::Request(error.to_string()))?;

    // A url writes IPv6 addresses in brackets, a socket does not.
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let stream = TcpStream::connect((host, port))
        .await
        .map_err(ExecuteError::Connect)?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let answer = async {
        let response = sender.send_request(request).await?;
        let status = response.status().as_u16();
        let mut received = Vec::new();
        let mut incoming = response.into_body();
        while let Some(frame) = incoming.frame().await {
            if let Ok(data) = frame?.into_data() {
                received.extend_from_slice(&data);
            }
            if received.len() > ANSWER_BYTES {
                return Err(ExecuteError::TooLong);
            }
        }
        let mut body = Bytes::from(received);
        let newlines = body.iter().take_while(|byte| **byte == b'\n').count();
        body.advance(newlines);
        Ok(Answer {
            status,
            newlines,
            body,
        })
    };
    // The connection is driven here, so that no task outlives the call. It may end, in error too,
    // while the answer's last bytes are still to be read, so only the answer decides.
    tokio::pin!(answer);
    tokio::select! {
        answer = &mut answer => answer,
        _ = connection => answer.await,
    }
}

/// The request's body, its keys in Looker's order: rows that are pushed come before the
/// credentials and the form.
fn body(execute: Execute) -> Box<dyn Iterator<Item = Bytes> + Send> {
    let url = match &execute.source {
        Source::Url(url) => Some(url.as_str()),
        Source::Push(..) | Source::Nothing => None,
    };
    let plan = json!({
        "scheduled_plan_id": execute.plan.id, "title": execute.plan.title, "type": "Look",
        "url": execute.plan.link, "query_id": execute.plan.query, "query": null,
        "filters_differ_from_look": false, "download_url": url, "async_callback_url": null,
    });
    let data = json!({"apiKey": execute.api_key, "apiSecret": execute.api_secret});
    let form = match &execute.form {
        Some(form) => json!(form),
        None => json!({"data_type": execute.data_type, "environment": execute.environment}),
    };
    let before = format!(r#"{{"type":"query","scheduled_plan":{plan},"attachment":"#);
    let after = format!(r#","data":{data},"form_params":{form}}}"#);
    let (before, rows, after) = match execute.source {
        Source::Url(_) | Source::Nothing => {
            return Box::new(iter::once(Bytes::from(format!("{before}null{after}"))));
        }
        Source::Push(style, chunks) => {
            let (kind, quote) = match style {
                PushStyle::EscapedString => ("application/json", "\""),
                PushStyle::InlineJson => ("application/json", ""),
                PushStyle::Base64 => ("application/json;base64", "\""),
            };
            let opened = format!(r#"{{"mimetype":"{kind}","extension":"json","data":{quote}"#);
            let rows: Box<dyn Iterator<Item = Bytes> + Send> = match style {
                PushStyle::EscapedString => Box::new(chunks.map(|chunk| escaped(&chunk))),
                PushStyle::InlineJson => chunks,
                PushStyle::Base64 => Box::new(base64_lines(chunks)),
            };
            (
                format!("{before}{opened}"),
                rows,
                format!("{quote}}}{after}"),
            )
        }
    };
    let before = iter::once(Bytes::from(before));
    Box::new(before.chain(rows).chain(iter::once(Bytes::from(after))))
}

/// The text as the content of a JSON string. Works byte by byte, so characters may be split.
fn escaped(chunk: &[u8]) -> Bytes {
    let mut out = Vec::with_capacity(chunk.len() + chunk.len() / 4);
    for &byte in chunk {
        match byte {
            b'"' | b'\\' => out.extend_from_slice(&[b'\\', byte]),
            b'\n' => out.extend_from_slice(b"\\n"),
            0..=0x1F => out.extend_from_slice(format!("\\u{byte:04x}").as_bytes()),
            _ => out.push(byte),
        }
    }
    Bytes::from(out)
}

/// Lines of 60 characters, each ended by a newline, which in a JSON string is `\n`.
fn base64_lines(
    mut chunks: impl Iterator<Item = Bytes> + Send,
) -> impl Iterator<Item = Bytes> + Send {
    let mut held = Vec::new();
    let mut ended = false;
    iter::from_fn(move || {
        if ended {
            return None;
        }
        match chunks.next() {
            Some(chunk) => held.extend_from_slice(&chunk),
            None => ended = true,
        }
        let whole = match ended {
            true => held.len(),
            false => held.len() / BASE64_LINE * BASE64_LINE,
        };
        let mut out = String::with_capacity(whole * 3 / 2);
        for line in held[..whole].chunks(BASE64_LINE) {
            BASE64.encode_string(line, &mut out);
            out.push_str("\\n");
        }
        held.drain(..whole);
        Some(Bytes::from(out))
    })
    .filter(|chunk| !chunk.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    const DOCUMENT: &str = "{\"data\": [\n{\"a\": {\"value\": \"é \\\"x\\\" \u{1}\"}}]}";

    fn pushed(style: PushStyle, chunk: usize) -> Value {
        let chunks: Vec<_> = DOCUMENT
            .as_bytes()
            .chunks(chunk)
            .map(Bytes::copy_from_slice)
            .collect();
        let source = Source::Push(style, Box::new(chunks.into_iter()));
        let text: Vec<u8> = body(Execute::new(source, "key", "secret"))
            .flatten()
            .collect();
        if style == PushStyle::InlineJson {
            // The control character makes the document itself invalid, so it is only looked for.
            let text = String::from_utf8(text).unwrap();
            assert!(text.contains(DOCUMENT));
            return serde_json::from_str(&text.replace('\u{1}', "")).unwrap();
        }
        serde_json::from_slice(&text).unwrap()
    }

    #[test]
    fn a_pushed_document_comes_out_as_it_went_in() {
        for chunk in [1, 7, 44, 45, 46, 1_000] {
            let text = &pushed(PushStyle::EscapedString, chunk)["attachment"]["data"];
            assert_eq!(text, DOCUMENT, "{chunk}");

            let request = pushed(PushStyle::Base64, chunk);
            let lines = request["attachment"]["data"].as_str().unwrap();
            let joined: String = lines.lines().collect();
            assert_eq!(BASE64.decode(joined).unwrap(), DOCUMENT.as_bytes());
            assert!(lines.lines().rev().skip(1).all(|line| line.len() == 60));
            assert_eq!(request["attachment"]["mimetype"], "application/json;base64");

            let request = pushed(PushStyle::InlineJson, chunk);
            assert!(request["attachment"]["data"]["data"].is_array());
            assert_eq!(request["data"]["apiKey"], "key");
            assert_eq!(request["form_params"]["data_type"], "event_data");
        }
    }

    #[test]
    fn without_a_push_there_is_no_attachment() {
        let url = Url::parse("http://127.0.0.1:1/downloads/x").unwrap();
        for (source, want) in [
            (Source::Url(url.clone()), json!(url.as_str())),
            (Source::Nothing, Value::Null),
        ] {
            let text: Vec<u8> = body(Execute::new(source, "k", "s")).flatten().collect();
            let request: Value = serde_json::from_slice(&text).unwrap();
            assert_eq!(request["scheduled_plan"]["download_url"], want);
            assert_eq!(request["attachment"], Value::Null);
            assert_eq!(request["form_params"]["environment"], "development");
        }
    }
}
