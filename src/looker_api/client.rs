//! One call: paced, logged in, bounded in time and size, and its answer told apart.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, RETRY_AFTER, USER_AGENT};
use hyper::{HeaderMap, Method, Request, StatusCode};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::sync::Mutex;
use tokio::time::{Instant, sleep_until, timeout_at};
use url::Url;
use zeroize::Zeroizing;

use super::Settings;
use super::error::ApiError;
use crate::harmless::harmless;
use crate::net::client::{self, HttpsClient, Kept};

/// Below every path.
const PREFIX: &str = "api/4.0";
/// Between the beginnings of two calls: at most some three a second.
const GAP: Duration = Duration::from_millis(300);
/// A token is not used so shortly before it expires.
const MARGIN: Duration = Duration::from_secs(60);
/// Tokens live an hour by default; none is believed to live longer than this.
const LONGEST_TOKEN: Duration = Duration::from_secs(24 * 3600);
/// Bytes of an answer, unless the call says otherwise.
pub(super) const ANSWER_BYTES: usize = 8 << 20;
/// Characters of Looker's own words in a message.
const MOST: usize = 200;

/// One Looker; see the room's page.
pub struct LookerApi {
    settings: Settings,
    host: String,
    http: HttpsClient<Full<Bytes>>,
    /// When the next call may begin.
    pace: Mutex<Instant>,
    /// Held while it is fetched, so that many who need one log in once.
    token: Mutex<Option<Token>>,
}

struct Token {
    text: Zeroizing<String>,
    until: Instant,
}

/// What is asked for.
pub(super) struct Call<'a> {
    pub method: Method,
    /// Parts of the path; each is escaped.
    pub path: &'a [&'a str],
    pub query: &'a [(&'a str, &'a str)],
    pub body: Option<Value>,
    /// For messages: "may not …".
    pub may_not: &'a str,
    /// For messages: "does not know …".
    pub names: &'a str,
    /// Bytes of the answer.
    pub most: usize,
}

impl<'a> Call<'a> {
    pub fn get(path: &'a [&'a str], may_not: &'a str, names: &'a str) -> Self {
        Self {
            method: Method::GET,
            path,
            query: &[],
            body: None,
            may_not,
            names,
            most: ANSWER_BYTES,
        }
    }

    pub fn post(path: &'a [&'a str], body: Value, may_not: &'a str, names: &'a str) -> Self {
        Self {
            method: Method::POST,
            body: Some(body),
            ..Self::get(path, may_not, names)
        }
    }
}

/// What came.
struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    body: Bytes,
}

#[derive(Deserialize)]
struct Login {
    access_token: String,
    #[serde(default)]
    expires_in: u64,
}

#[derive(Deserialize)]
struct Said {
    message: Option<String>,
}

impl LookerApi {
    /// A client that has not called yet.
    pub fn new(settings: Settings) -> Self {
        let host = settings.url.host_str().unwrap_or_default();
        let host = match settings.url.port() {
            Some(port) => format!("{host}:{port}"),
            None => host.to_owned(),
        };
        Self {
            http: client::https(
                settings.trust.clone(),
                settings.connect_timeout,
                // Calls are rare, and what was kept would be dead.
                Kept::NONE,
            ),
            host,
            settings,
            pace: Mutex::new(Instant::now()),
            token: Mutex::new(None),
        }
    }

    /// Host and port, for messages.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// Whether a delivery whose addresses name these hosts comes from this Looker. The API may have
    /// another port than the Looker itself.
    pub fn is_at(&self, host: &str) -> bool {
        let ours = self.settings.url.host_str().unwrap_or_default();
        let bare = |text: &str| {
            let end = text.rfind(':').filter(|at| !text[*at..].contains(']'));
            text[..end.unwrap_or(text.len())].to_ascii_lowercase()
        };
        bare(host) == ours.to_ascii_lowercase()
    }

    /// Logs in, if need be.
    pub async fn log_in(&self) -> Result<(), ApiError> {
        self.token(None).await.map(|_| ())
    }

    /// Ends the session; what goes wrong with that does not matter.
    pub async fn log_out(&self) {
        let Some(token) = self.token.lock().await.take() else {
            return;
        };
        let request = self
            .request(Method::DELETE, &["logout"], &[])
            .header(AUTHORIZATION, format!("token {}", *token.text))
            .body(Full::default());
        if let Ok(request) = request {
            let _ = self.send(request, ANSWER_BYTES).await;
        }
    }

    /// Makes a call and reads its answer.
    pub(super) async fn ask<T: DeserializeOwned>(&self, call: Call<'_>) -> Result<T, ApiError> {
        let body = self.raw(call).await?;
        serde_json::from_slice(&body).map_err(|_| self.foreign())
    }

    /// The same, with the answer as it came.
    pub(super) async fn raw(&self, call: Call<'_>) -> Result<Bytes, ApiError> {
        let mut refused: Option<Zeroizing<String>> = None;
        loop {
            let token = self.token(refused.as_deref().map(String::as_str)).await?;
            let answer = self
                .send(self.with_token(&call, &token)?, call.most)
                .await?;
            if answer.status == StatusCode::UNAUTHORIZED && refused.is_none() {
                // It has expired, or Looker was restarted. The call was not carried out.
                refused = Some(token);
                continue;
            }
            return self.read(answer, &call);
        }
    }

    fn with_token(&self, call: &Call<'_>, token: &str) -> Result<Request<Full<Bytes>>, ApiError> {
        let request = self
            .request(call.method.clone(), call.path, call.query)
            .header(AUTHORIZATION, format!("token {token}"));
        let request = match &call.body {
            Some(body) => request
                .header(CONTENT_TYPE, "application/json")
                .body(Full::from(body.to_string())),
            None => request.body(Full::default()),
        };
        request.map_err(|_| self.foreign())
    }

    fn request(
        &self,
        method: Method,
        path: &[&str],
        query: &[(&str, &str)],
    ) -> hyper::http::request::Builder {
        let mut url: Url = self.settings.url.clone();
        if let Ok(mut parts) = url.path_segments_mut() {
            parts
                .pop_if_empty()
                .extend(PREFIX.split('/'))
                .extend(path.iter());
        }
        if !query.is_empty() {
            url.query_pairs_mut().extend_pairs(query);
        }
        Request::builder()
            .method(method)
            .uri(url.as_str())
            .header(ACCEPT, "application/json")
            .header(
                USER_AGENT,
                concat!("looker-feed/", env!("CARGO_PKG_VERSION")),
            )
    }

    /// A token that is good; `refused` is one that is not.
    async fn token(&self, refused: Option<&str>) -> Result<Zeroizing<String>, ApiError> {
        let mut held = self.token.lock().await;
        let good =
            |token: &&Token| token.until > Instant::now() && Some(token.text.as_str()) != refused;
        if let Some(token) = held.as_ref().filter(good) {
            return Ok(token.text.clone());
        }
        *held = None;
        let token = self.fetch_token().await?;
        let text = token.text.clone();
        *held = Some(token);
        Ok(text)
    }

    async fn fetch_token(&self) -> Result<Token, ApiError> {
        let form = url::form_urlencoded::Serializer::new(String::new())
            .append_pair("client_id", &self.settings.client_id)
            .append_pair("client_secret", self.settings.client_secret.expose())
            .finish();
        let form = Zeroizing::new(form);
        let request = self
            .request(Method::POST, &["login"], &[])
            .header(CONTENT_TYPE, "application/x-www-form-urlencoded")
            .body(Full::from(form.as_bytes().to_vec()))
            .map_err(|_| self.foreign())?;
        let answer = self.send(request, ANSWER_BYTES).await?;
        let refused = matches!(
            answer.status,
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN | StatusCode::NOT_FOUND
        );
        // A page of another server would be 404 too.
        if refused && serde_json::from_slice::<Said>(&answer.body).is_ok() {
            return Err(ApiError::Credentials {
                host: self.host.clone(),
            });
        }
        if refused {
            return Err(self.foreign());
        }
        let call = Call::get(&["login"], "log in", "the login");
        let body = Zeroizing::new(self.read(answer, &call)?.to_vec());
        let login: Login = serde_json::from_slice(&body).map_err(|_| self.foreign())?;
        let lives = Duration::from_secs(login.expires_in).min(LONGEST_TOKEN);
        Ok(Token {
            text: Zeroizing::new(login.access_token),
            until: Instant::now() + lives.saturating_sub(MARGIN).max(lives / 2),
        })
    }

    async fn send(&self, request: Request<Full<Bytes>>, most: usize) -> Result<Answer, ApiError> {
        {
            let mut next = self.pace.lock().await;
            sleep_until(*next).await;
            *next = Instant::now() + GAP;
        }
        let limit = self.settings.timeout;
        let deadline = Instant::now() + limit;
        let timeout = |_| ApiError::Timeout {
            host: self.host.clone(),
            limit,
        };
        let sent = timeout_at(deadline, self.http.request(request)).await;
        let response = match sent.map_err(timeout)? {
            Ok(response) => response,
            Err(source) if source.is_connect() => {
                return Err(ApiError::Unreachable {
                    host: self.host.clone(),
                    source,
                });
            }
            Err(source) => return Err(self.lost(Box::new(source))),
        };
        let (head, body) = response.into_parts();
        let body = timeout_at(deadline, Limited::new(body, most).collect()).await;
        let body = match body.map_err(timeout)? {
            Ok(body) => body.to_bytes(),
            Err(error) if error.is::<LengthLimitError>() => {
                return Err(ApiError::TooLong {
                    host: self.host.clone(),
                    limit: most,
                });
            }
            Err(error) => return Err(self.lost(error)),
        };
        Ok(Answer {
            status: head.status,
            headers: head.headers,
            body,
        })
    }

    fn read(&self, answer: Answer, call: &Call<'_>) -> Result<Bytes, ApiError> {
        let host = self.host.clone();
        match answer.status.as_u16() {
            200..=299 => Ok(answer.body),
            401 => Err(ApiError::Credentials { host }),
            403 => Err(ApiError::Forbidden {
                what: call.may_not.to_owned(),
            }),
            404 if serde_json::from_slice::<Said>(&answer.body).is_ok() => {
                Err(ApiError::NotFound {
                    what: call.names.to_owned(),
                })
            }
            404 | 300..=399 => Err(ApiError::Foreign { host }),
            429 => Err(ApiError::TooMany {
                host,
                after: retry_after(&answer.headers),
            }),
            status @ 500.. => Err(ApiError::Server { host, status }),
            status => {
                let said: Result<Said, _> = serde_json::from_slice(&answer.body);
                let said = said.ok().and_then(|said| said.message);
                let said = said.unwrap_or_else(|| "no reason was given".to_owned());
                let plain = harmless(&said);
                Err(ApiError::Refused {
                    host,
                    status,
                    message: plain.chars().take(MOST).collect(),
                })
            }
        }
    }

    fn lost(&self, source: Box<dyn std::error::Error + Send + Sync>) -> ApiError {
        ApiError::Lost {
            host: self.host.clone(),
            source,
        }
    }

    fn foreign(&self) -> ApiError {
        ApiError::Foreign {
            host: self.host.clone(),
        }
    }
}

fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let seconds = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    seconds.parse().ok().map(Duration::from_secs)
}

/// An id or a text that old Looker gives as a number and new Looker as text.
pub(super) fn text(value: &Value) -> Option<String> {
    match value {
        Value::String(text) if !text.is_empty() => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        _ => None,
    }
}
