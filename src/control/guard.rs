//! Who may ask for what. One pure function over the head of a request, so that the rules can be
//! read, and tested, as a table:
//!
//! | rule | holds for | keeps out |
//! |---|---|---|
//! | `Host` is a loopback name, when there is no token | everything | a foreign page whose name was rebound to 127.0.0.1 |
//! | the browser does not say "cross-site" | the API, metrics | a foreign page that reads or floods |
//! | `Authorization: Bearer`, when there is a token | all but the page's files and the probes | who does not know it |
//! | the token's role is to act | changing calls | who may only look |
//! | `Origin` is `Host` | changing calls | a foreign page that steers |
//! | a header of a proxy names the user, `Host` is one of ours, and the proxy's address is configured | instead of a token | who is not known to the proxy |
//! | `X-Looker-Feed: 1`, or a JSON body | changing calls | forms of a foreign page, which can send neither |

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use axum::http::header::{AUTHORIZATION, CONTENT_TYPE, HOST, HeaderMap, HeaderName, ORIGIN};
use axum::http::uri::Authority;
use axum::http::{Method, StatusCode, Uri};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use super::people::FIND;

const FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");
const OURS: HeaderName = HeaderName::from_static("x-looker-feed");

/// Paths that show no data, beside the pages: the probes, and the description of the API.
const OPEN: [&str; 3] = ["/livez", "/readyz", "/api/v1/openapi.json"];

/// Whether a path is a page or a part of one: those show no data.
pub(super) fn is_page(path: &str) -> bool {
    const PAGES: &str = "/ /deliveries /schedules /destinations /dead-letters /rejected-rows /configuration \
        /audit /failed-deliveries /people";
    PAGES.split(' ').any(|page| page == path)
        || path.starts_with("/deliveries/")
        || path.starts_with("/assets/")
}

/// Shorter ones can be guessed.
const TOKEN_LENGTH: usize = 16;

/// The admin token. Only its hash is kept.
#[derive(Clone)]
pub struct Token([u8; 32]);

/// A token, whose it is, and what its owner may do.
#[derive(Clone, Debug)]
pub struct NamedToken {
    /// Whose it is, as the audit log names them.
    pub name: String,
    /// Whether they may change something; if not, they may look.
    pub may_act: bool,
    /// What they present.
    pub token: Token,
}

/// A proxy in front that has made sure who somebody is.
#[derive(Clone, Debug)]
pub struct Proxy {
    /// The header in which it says so. It must take out one that comes from outside.
    pub header: HeaderName,
    /// Its addresses. From any other one the header means nothing.
    pub addresses: Vec<IpAddr>,
    /// Whether users that it names may change something; if not, they may look.
    pub may_act: bool,
}

/// Most characters of a user's name.
const USER: usize = 64;

impl Proxy {
    /// The user that it names.
    fn user(&self, from: Option<IpAddr>, headers: &HeaderMap) -> Option<String> {
        let from = from?.to_canonical();
        if !self.addresses.iter().any(|own| own.to_canonical() == from) {
            return None;
        }
        let mut all = headers.get_all(&self.header).iter();
        let (user, None) = (all.next()?.to_str().ok()?.trim(), all.next()) else {
            return None;
        };
        let fits = (1..=USER).contains(&user.len()) && !user.chars().any(char::is_control);
        fits.then(|| user.to_owned())
    }
}

/// Who has made a request, as far as that is known.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Caller {
    /// The name of their token, or the one that the proxy gives them; `None`: no token is needed.
    pub name: Option<String>,
}

/// The text cannot be an admin token.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    /// Too few characters.
    #[error("the admin token is shorter than {TOKEN_LENGTH} characters: it could be guessed")]
    Short,
    /// It would not survive an HTTP header.
    #[error("the admin token may hold only visible ASCII characters, and no space")]
    Characters,
}

impl Token {
    /// Makes a token of its text.
    pub fn new(text: &str) -> Result<Self, TokenError> {
        if text.len() < TOKEN_LENGTH {
            return Err(TokenError::Short);
        }
        if !text.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(TokenError::Characters);
        }
        Ok(Self(Sha256::digest(text).into()))
    }

    /// Takes the same time whatever was presented: hashes are compared, not texts.
    fn admits(&self, presented: &[u8]) -> bool {
        let presented: [u8; 32] = Sha256::digest(presented).into();
        self.0.ct_eq(&presented).into()
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(token)")
    }
}

/// A request that is not answered, and why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Refusal {
    pub status: StatusCode,
    pub why: &'static str,
}

const MISDIRECTED: Refusal = Refusal {
    status: StatusCode::MISDIRECTED_REQUEST,
    why: "The admin side answers only to loopback names such as 127.0.0.1 and localhost, unless a \
          token is configured or this name is listed.",
};
const FOREIGN: Refusal = Refusal {
    status: StatusCode::FORBIDDEN,
    why: "Another web page sent this request; only looker-feed's own page and programs may.",
};
const UNMARKED: Refusal = Refusal {
    status: StatusCode::FORBIDDEN,
    why: "A call that changes something needs the header `X-Looker-Feed: 1` or the content type \
          application/json.",
};
const ONLY_LOOKS: Refusal = Refusal {
    status: StatusCode::FORBIDDEN,
    why: "You may look but not change anything (the role in `admin.tokens`, or in \
          `admin.user_header_role`, is `look`).",
};
const UNKNOWN: Refusal = Refusal {
    status: StatusCode::UNAUTHORIZED,
    why: "This needs the admin token, as `Authorization: Bearer <token>`.",
};

/// The rules, with what they depend on.
#[derive(Debug)]
pub(super) struct Guard {
    tokens: Vec<NamedToken>,
    hosts: Vec<String>,
    listen: IpAddr,
    proxy: Option<Proxy>,
}

impl Guard {
    pub fn new(
        tokens: Vec<NamedToken>,
        hosts: Vec<String>,
        listen: IpAddr,
        proxy: Option<Proxy>,
    ) -> Self {
        Self {
            tokens,
            hosts,
            listen,
            proxy,
        }
    }

    /// Whether a request from this address may go on to its route, and whose it is.
    pub fn check(
        &self,
        method: &Method,
        uri: &Uri,
        headers: &HeaderMap,
        from: Option<IpAddr>,
    ) -> Result<Caller, Refusal> {
        let host = host(uri, headers);
        if self.tokens.is_empty() && !host.as_ref().is_some_and(|host| self.is_ours(host)) {
            return Err(MISDIRECTED);
        }
        let site = headers.get(FETCH_SITE).map(|site| site.as_bytes());
        let changing = !matches!(*method, Method::GET | Method::HEAD);
        if (is_page(uri.path()) || OPEN.contains(&uri.path())) && !changing {
            return Ok(Caller::default());
        }
        // `none` is a person who typed the address.
        if !matches!(site, None | Some(b"same-origin" | b"none")) {
            return Err(FOREIGN);
        }
        // It only looks, and whom it looks for must not stand in an address.
        let acts = changing && uri.path() != FIND;
        let mut caller = Caller::default();
        // A page whose name was rebound could set the header as well.
        let ours = host.as_ref().is_some_and(|host| self.is_ours(host));
        let proxy = self.proxy.as_ref().filter(|_| ours);
        let named = proxy.and_then(|proxy| Some((proxy.user(from, headers)?, proxy.may_act)));
        if let Some((user, may_act)) = named {
            if acts && !may_act {
                return Err(ONLY_LOOKS);
            }
            caller.name = Some(user);
        } else if !self.tokens.is_empty() {
            let presented = bearer(headers).ok_or(UNKNOWN)?;
            // Each is compared, so that the time does not tell which one it was.
            let fits = |known: &&NamedToken| known.token.admits(presented);
            let known: Vec<_> = self.tokens.iter().filter(fits).collect();
            let known = known.first().ok_or(UNKNOWN)?;
            if acts && !known.may_act {
                return Err(ONLY_LOOKS);
            }
            caller.name = Some(known.name.clone());
        }
        if changing {
            check_changing(host.as_ref(), site, headers)?;
        }
        Ok(caller)
    }

    /// Whose token a request presents.
    pub fn owner(&self, headers: &HeaderMap) -> Option<String> {
        let presented = bearer(headers)?;
        let mut known = self.tokens.iter();
        let known = known.find(|known| known.token.admits(presented))?;
        Some(known.name.clone())
    }

    fn is_ours(&self, host: &Authority) -> bool {
        let name = host.host();
        let name = name.strip_suffix('.').unwrap_or(name);
        if name.eq_ignore_ascii_case("localhost")
            || self.hosts.iter().any(|own| own.eq_ignore_ascii_case(name))
        {
            return true;
        }
        address(name).is_some_and(|address| address.is_loopback() || address == self.listen)
    }
}

fn check_changing(
    host: Option<&Authority>,
    site: Option<&[u8]>,
    headers: &HeaderMap,
) -> Result<(), Refusal> {
    if !matches!(site, None | Some(b"same-origin")) {
        return Err(FOREIGN);
    }
    if let Some(origin) = headers.get(ORIGIN) {
        // `null` and anything else that is not http(s)://host is foreign.
        let origin = origin.to_str().ok().and_then(|origin| {
            let rest = origin.strip_prefix("http://");
            rest.or_else(|| origin.strip_prefix("https://"))
        });
        if !origin
            .zip(host)
            .is_some_and(|(origin, host)| origin.eq_ignore_ascii_case(host.as_str()))
        {
            return Err(FOREIGN);
        }
    }
    let marked = headers.get(OURS).is_some_and(|value| value == "1");
    let json = headers
        .get(CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.split(';').next())
        .is_some_and(|value| value.trim().eq_ignore_ascii_case("application/json"));
    if marked || json {
        Ok(())
    } else {
        Err(UNMARKED)
    }
}

/// What the client calls us. A request that says it twice, or not at all, says nothing.
fn host(uri: &Uri, headers: &HeaderMap) -> Option<Authority> {
    let mut all = headers.get_all(HOST).iter();
    let host: Authority = all.next()?.to_str().ok()?.parse().ok()?;
    if all.next().is_some() || host.as_str().contains('@') {
        return None;
    }
    // A target such as `GET http://name/` must agree.
    match uri.authority() {
        Some(target) if *target != host => None,
        _ => Some(host),
    }
}

fn address(name: &str) -> Option<IpAddr> {
    match name.strip_prefix('[') {
        Some(rest) => {
            let v6: Ipv6Addr = rest.strip_suffix(']')?.parse().ok()?;
            Some(IpAddr::V6(v6).to_canonical())
        }
        None => name.parse::<Ipv4Addr>().ok().map(IpAddr::V4),
    }
}

fn bearer(headers: &HeaderMap) -> Option<&[u8]> {
    let value = headers.get(AUTHORIZATION)?.as_bytes();
    let (scheme, token) = value.split_at_checked(7)?;
    scheme.eq_ignore_ascii_case(b"Bearer ").then_some(token)
}
