//! The wire to mParticle: one POST for one request, over connections that are kept open.
//!
//! It opens the sealed account (once, until the destination has another), puts the batches between
//! brackets, sends, and reads the answer with [`reply::read`](super::reply::read). It never retries
//! and never follows a redirect: the
//! drain decides on both. (hyper-util sends a request again when a kept connection turns out to be
//! closed before any of it was written; the server has seen nothing then.)

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_TYPE, HeaderValue, USER_AGENT};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::{Method, Response, Uri, http};
use hyper_util::client::legacy;
use tokio::time::{Instant, timeout_at};
use url::{Host, Url};
use zeroize::Zeroizing;

use super::reply::{self, MAX_WORDS, printable};
use super::route::Route;
use crate::causes::innermost;
use crate::clock::Clock;
use crate::drain::{Reply, Request, Transport};
use crate::model::DestinationId;
use crate::net::client::{self, HttpsClient, Kept};
use crate::tls;

const AGENT: &str = concat!("looker-feed/", env!("CARGO_PKG_VERSION"));
/// Most bytes of an answer's body that are read: enough for its words.
const MAX_ANSWER: usize = 16 << 10;
/// How long the body of an answer may take once its status is there, or as long as a request if
/// that is less.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);
/// Accounts that are kept open; with more destinations than this all are reopened now and then.
const MOST_OPENED: usize = 64;
/// First byte of an encoded account.
const ACCOUNT_VERSION: u8 = 1;
/// Most bytes of each part of an account.
const MAX_PART: usize = 1024;

/// How requests are made.
#[derive(Clone, Debug)]
pub struct ClientSettings {
    /// From the first byte of a request to the status of its answer, connecting included.
    pub request_timeout: Duration,
    /// For the TCP connection alone.
    pub connect_timeout: Duration,
    /// How long an unused connection is kept; less than what servers and balancers allow.
    pub idle_timeout: Duration,
    /// Unused connections kept for each host: as many as requests fly at a time.
    pub max_idle: usize,
    /// Tells the time, for answers that say until when to wait.
    pub clock: Clock,
}

impl Default for ClientSettings {
    fn default() -> Self {
        Self {
            request_timeout: Duration::from_secs(30),
            connect_timeout: Duration::from_secs(10),
            idle_timeout: Duration::from_secs(45),
            max_idle: 32,
            clock: Clock::default(),
        }
    }
}

/// Where a destination is and how to get in: what is sealed into the outbox.
#[derive(Clone, PartialEq, Eq)]
pub struct Account {
    endpoint: Url,
    api_key: String,
    api_secret: Zeroizing<String>,
}

/// An account, or its encoded form, is not usable.
#[derive(Debug, thiserror::Error)]
pub enum AccountError {
    /// The address is neither https nor a loopback one.
    #[error("the endpoint {0} must be an https address; plain http is only for this machine")]
    Insecure(Url),
    /// The address can't be the base of a path, or holds credentials, a query or a fragment.
    #[error("the endpoint must be a plain address up to and with /v2")]
    NotABase,
    /// A part of it is longer than 1024 bytes, or the API key holds a colon or a control
    /// character, which Basic authentication can't carry.
    #[error("the API key, the API secret or the endpoint can't be used in a request")]
    Part,
    /// The encoded form has a version that this program does not know.
    #[error("the account was stored by another version of this program (format {0})")]
    Version(u8),
    /// A stored request is for an address that this program does not know.
    #[error("a request was stored by another version of this program (route {0}); use that one")]
    Route(u8),
    /// The encoded form is cut short or is not one at all.
    #[error("the stored account is damaged")]
    Damaged,
}

/// Sends requests to mParticle.
pub struct Client {
    http: HttpsClient<Full<Bytes>>,
    request_timeout: Duration,
    clock: Clock,
    open_account: OpenAccount,
    accounts: Mutex<HashMap<DestinationId, Arc<Opened>>>,
}

/// What all requests of an account have in common.
struct Opened {
    /// The account that it was opened from.
    sealed: Arc<[u8]>,
    current: Uri,
    historical: Uri,
    authorization: HeaderValue,
}

type OpenAccount = Box<dyn Fn(&[u8]) -> Result<Account, String> + Send + Sync>;

impl Client {
    /// A client without connections yet. `open_account` undoes the seal of a request's account; when
    /// it fails the destination is treated like one with refused credentials, since a person has to
    /// bring the key back. Its error must not hold secrets.
    pub fn new<E: fmt::Display>(
        settings: ClientSettings,
        open_account: impl Fn(&[u8]) -> Result<Account, E> + Send + Sync + 'static,
    ) -> Result<Self, rustls::Error> {
        Ok(Self::with_trust(settings, tls::public()?, open_account))
    }

    /// The same, but `trust` says whose certificates are good.
    pub fn with_trust<E: fmt::Display>(
        settings: ClientSettings,
        trust: rustls::ClientConfig,
        open_account: impl Fn(&[u8]) -> Result<Account, E> + Send + Sync + 'static,
    ) -> Self {
        let kept = Kept {
            most: settings.max_idle,
            idle: settings.idle_timeout,
        };
        Self {
            http: client::https(trust, settings.connect_timeout, kept),
            request_timeout: settings.request_timeout,
            clock: settings.clock,
            open_account: Box::new(move |sealed| {
                open_account(sealed).map_err(|error| printable(&error.to_string(), MAX_WORDS))
            }),
            accounts: Mutex::default(),
        }
    }

    /// The request's account, opened.
    fn account(&self, request: &Request) -> Result<Arc<Opened>, String> {
        let mut accounts = self.accounts.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(opened) = accounts.get(&request.destination)
            && opened.sealed == request.account
        {
            return Ok(Arc::clone(opened));
        }
        let account = (self.open_account)(&request.account)?;
        let opened = account.opened(&request.account);
        let opened = Arc::new(opened.map_err(|error| error.to_string())?);
        if accounts.len() >= MOST_OPENED {
            accounts.clear();
        }
        accounts.insert(request.destination, Arc::clone(&opened));
        Ok(opened)
    }

    async fn post(&self, request: Request) -> Reply {
        let request = match self.account(&request).and_then(|opened| {
            opened
                .request_of(&request)
                .map_err(|error| error.to_string())
        }) {
            Ok(request) => request,
            Err(words) => return Reply::Unauthorized { status: 0, words },
        };
        let until = Instant::now() + self.request_timeout;
        match timeout_at(until, self.http.request(request)).await {
            Ok(Ok(response)) => self.read(response).await,
            Ok(Err(error)) => Reply::unavailable(describe(&error)),
            Err(_) => Reply::unavailable(format!("no answer within {:?}", self.request_timeout)),
        }
    }

    /// Reads an answer whose status is there. The status counts, whatever happens to the body.
    async fn read(&self, response: Response<Incoming>) -> Reply {
        let (head, mut body) = response.into_parts();
        let until = Instant::now() + self.request_timeout.min(ANSWER_WITHIN);
        let mut text = Vec::new();
        while let Ok(Some(Ok(frame))) = timeout_at(until, body.frame()).await {
            let Ok(data) = frame.into_data() else {
                continue;
            };
            let room = MAX_ANSWER - text.len();
            text.extend_from_slice(data.get(..room).unwrap_or(&data));
            if data.len() > room {
                break;
            }
        }
        let status = head.status.as_u16();
        reply::read(status, &head.headers, &text, self.clock.now())
    }
}

impl Transport for Client {
    fn send(&self, request: Request) -> impl Future<Output = Reply> + Send {
        self.post(request)
    }
}

impl Account {
    /// An account at `endpoint`, the base address up to and with `/v2`.
    ///
    /// # Errors
    /// The address is not https (or http on this machine) or not a plain base, or a part can't be
    /// used in a request.
    pub fn new(endpoint: Url, api_key: String, api_secret: String) -> Result<Self, AccountError> {
        let api_secret = Zeroizing::new(api_secret);
        let plain = endpoint.scheme() == "http" && is_loopback(&endpoint);
        if endpoint.scheme() != "https" && !plain {
            return Err(AccountError::Insecure(without_secrets(endpoint)));
        }
        let bare = endpoint.username().is_empty()
            && endpoint.password().is_none()
            && endpoint.query().is_none()
            && endpoint.fragment().is_none();
        if endpoint.cannot_be_a_base() || !bare {
            return Err(AccountError::NotABase);
        }
        let parts = [endpoint.as_str(), &api_key, &api_secret];
        let too_long = parts.iter().any(|part| part.len() > MAX_PART);
        let control = parts.iter().any(|part| part.chars().any(char::is_control));
        // Basic authentication ends the user name at the first colon.
        if too_long || control || api_key.is_empty() || api_key.contains(':') {
            return Err(AccountError::Part);
        }
        Ok(Self {
            endpoint,
            api_key,
            api_secret,
        })
    }

    /// The base address.
    pub fn endpoint(&self) -> &Url {
        &self.endpoint
    }

    /// The API key: not a secret, but not for logs either.
    pub fn api_key(&self) -> &str {
        &self.api_key
    }

    /// The form to be sealed: the version 1, then endpoint, key and secret, each as its length in
    /// two bytes, big-endian, and its UTF-8 text.
    pub fn encode(&self) -> Zeroizing<Vec<u8>> {
        let parts = [self.endpoint.as_str(), &self.api_key, &self.api_secret];
        // Exact, so that no half-filled buffer is left behind in memory.
        let size = 1 + parts.iter().map(|part| 2 + part.len()).sum::<usize>();
        let mut out = Zeroizing::new(Vec::with_capacity(size));
        out.push(ACCOUNT_VERSION);
        for part in parts {
            // `new` has bounded the length.
            let length = u16::try_from(part.len()).unwrap_or(u16::MAX);
            out.extend_from_slice(&length.to_be_bytes());
            out.extend_from_slice(part.as_bytes());
        }
        out
    }

    /// Reads what [`Account::encode`] made.
    ///
    /// # Errors
    /// It is not that, or is of another version, or is not a usable account.
    pub fn decode(bytes: &[u8]) -> Result<Self, AccountError> {
        let (&version, mut rest) = bytes.split_first().ok_or(AccountError::Damaged)?;
        if version != ACCOUNT_VERSION {
            return Err(AccountError::Version(version));
        }
        let endpoint = take_part(&mut rest)?;
        let api_key = take_part(&mut rest)?.to_owned();
        let api_secret = take_part(&mut rest)?.to_owned();
        if !rest.is_empty() {
            return Err(AccountError::Damaged);
        }
        let endpoint = Url::parse(endpoint).map_err(|_| AccountError::Damaged)?;
        Self::new(endpoint, api_key, api_secret)
    }

    /// `sealed` is what this account was opened from.
    fn opened(&self, sealed: &Arc<[u8]>) -> Result<Opened, AccountError> {
        let base = self.endpoint.as_str().trim_end_matches('/');
        let uri = |route: Route| {
            let uri = format!("{base}/{}", route.path());
            uri.parse().map_err(|_| AccountError::NotABase)
        };
        Ok(Opened {
            sealed: Arc::clone(sealed),
            current: uri(Route::Current)?,
            historical: uri(Route::Historical)?,
            authorization: self.authorization()?,
        })
    }

    fn authorization(&self) -> Result<HeaderValue, AccountError> {
        let pair = Zeroizing::new(format!("{}:{}", self.api_key, *self.api_secret));
        let text = Zeroizing::new(format!("Basic {}", STANDARD.encode(pair.as_bytes())));
        let mut value = HeaderValue::from_str(&text).map_err(|_| AccountError::Part)?;
        value.set_sensitive(true);
        Ok(value)
    }
}

impl Opened {
    fn request_of(&self, request: &Request) -> Result<hyper::Request<Full<Bytes>>, AccountError> {
        let route = Route::of_number(request.route).ok_or(AccountError::Route(request.route))?;
        Ok(self.request(route, &request.batches))
    }

    fn request(&self, route: Route, batches: &[Bytes]) -> hyper::Request<Full<Bytes>> {
        let mut request = hyper::Request::new(Full::new(body(batches)));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = match route {
            Route::Current => self.current.clone(),
            Route::Historical => self.historical.clone(),
        };
        let headers = request.headers_mut();
        headers.insert(AUTHORIZATION, self.authorization.clone());
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.insert(USER_AGENT, HeaderValue::from_static(AGENT));
        request
    }
}

impl fmt::Debug for Account {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Account")
            .field("endpoint", &self.endpoint.as_str())
            .finish_non_exhaustive()
    }
}

/// `[b1,b2,...]`: the one copy of the batches that is made.
fn body(batches: &[Bytes]) -> Bytes {
    let size = batches.iter().map(|batch| batch.len() + 1).sum::<usize>() + 1;
    let mut body = Vec::with_capacity(size.max(2));
    body.push(b'[');
    for (at, batch) in batches.iter().enumerate() {
        if at > 0 {
            body.push(b',');
        }
        body.extend_from_slice(batch);
    }
    body.push(b']');
    body.into()
}

/// The innermost cause is the telling one: "Connection refused", "certificate expired".
fn describe(error: &legacy::Error) -> String {
    let cause = innermost(error);
    let stage = if error.is_connect() {
        "connecting failed"
    } else {
        "the connection broke"
    };
    printable(&format!("{stage}: {cause}"), MAX_WORDS)
}

fn take_part<'a>(rest: &mut &'a [u8]) -> Result<&'a str, AccountError> {
    let (length, after) = rest.split_first_chunk().ok_or(AccountError::Damaged)?;
    let (part, after) = after
        .split_at_checked(usize::from(u16::from_be_bytes(*length)))
        .ok_or(AccountError::Damaged)?;
    *rest = after;
    std::str::from_utf8(part).map_err(|_| AccountError::Damaged)
}

fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(Host::Ipv4(ip)) => ip.is_loopback(),
        Some(Host::Ipv6(ip)) => ip.is_loopback(),
        Some(Host::Domain(name)) => name.eq_ignore_ascii_case("localhost"),
        None => false,
    }
}

fn without_secrets(mut url: Url) -> Url {
    // These fail only where there is nothing to remove.
    let _ = url.set_username("");
    let _ = url.set_password(None);
    url.set_query(None);
    url
}

#[cfg(test)]
mod tests {
    use super::*;

    fn account(endpoint: &str) -> Result<Account, AccountError> {
        Account::new(
            Url::parse(endpoint).unwrap(),
            "key".into(),
            "se:cret".into(),
        )
    }

    #[test]
    fn an_account_survives_its_encoding() {
        let account = account("https://s2s.us1.mparticle.com/v2").unwrap();
        let encoded = account.encode();
        assert_eq!(Account::decode(&encoded).unwrap(), account);
        for cut in 0..encoded.len() {
            assert!(Account::decode(&encoded[..cut]).is_err(), "cut at {cut}");
        }
        let mut longer = encoded.to_vec();
        longer.push(0);
        assert!(matches!(
            Account::decode(&longer),
            Err(AccountError::Damaged)
        ));
        longer[0] = 2;
        assert!(matches!(
            Account::decode(&longer),
            Err(AccountError::Version(2))
        ));
    }

    #[test]
    fn the_encoding_of_version_1_stays() {
        let account = account("https://a.b/v2").unwrap();
        assert_eq!(
            account.encode().as_slice(),
            b"\x01\x00\x0ehttps://a.b/v2\x00\x03key\x00\x07se:cret"
        );
    }

    #[test]
    fn credentials_never_go_over_plain_http_to_another_machine() {
        for good in [
            "https://s2s.mparticle.com/v2",
            "http://127.0.0.1:8080/v2",
            "http://[::1]:8080/v2",
            "http://localhost/v2/",
        ] {
            assert!(account(good).is_ok(), "{good}");
        }
        for bad in [
            "http://s2s.mparticle.com/v2",
            "http://localhost.evil.example/v2",
            "http://10.0.0.1/v2",
            "ftp://127.0.0.1/v2",
            "mailto:a@b.c",
            "https://u:p@s2s.mparticle.com/v2",
            "https://s2s.mparticle.com/v2?x=1",
        ] {
            assert!(account(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn keys_that_basic_authentication_cannot_carry_are_refused() {
        for key in ["", "a:b", "a\nb", &"a".repeat(2_000)] {
            let endpoint = Url::parse("https://a.b/v2").unwrap();
            let result = Account::new(endpoint, key.into(), "s".into());
            assert!(matches!(result, Err(AccountError::Part)), "{key:?}");
        }
    }

    #[test]
    fn a_request_has_the_path_the_body_and_a_hidden_authorization() {
        let batches = [Bytes::from_static(b"{\"a\":1}"), Bytes::from_static(b"{}")];
        for endpoint in ["https://a.b/v2", "https://a.b/v2/"] {
            let account = account(endpoint).unwrap();
            let opened = account.opened(&[].into()).unwrap();
            let old = opened.request(Route::Historical, &batches);
            assert_eq!(old.uri(), "https://a.b/v2/bulkevents/historical");
            let request = opened.request(Route::Current, &batches);
            assert_eq!(request.uri(), "https://a.b/v2/bulkevents");
            let value = &request.headers()[AUTHORIZATION];
            // "key:se:cret"
            assert_eq!(value, "Basic a2V5OnNlOmNyZXQ=");
            assert_eq!(format!("{value:?}"), "Sensitive");
        }
        assert_eq!(body(&batches), "[{\"a\":1},{}]");
        assert_eq!(body(&[]), "[]");
        let shown = format!("{:?}", account("https://a.b/v2").unwrap());
        assert!(!shown.contains("key") && !shown.contains("cret"), "{shown}");
    }
}
