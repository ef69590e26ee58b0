//! What a key can take. Each function makes a parser: a raw value in, the typed one out, or a half
//! sentence that says what would have been right.

use std::fmt::Display;
use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HOST, HeaderName, ORIGIN};
use url::{Host, Url};

use super::hosts::{AllowedHost, is_loopback};
use super::raw::Raw;
use super::secret::{NamedSecret, Secret};
use crate::mapping::Placeholders;

/// A whole number within bounds.
pub(super) fn whole<T>(range: RangeInclusive<T>) -> impl Fn(&Raw) -> Result<T, String>
where
    T: TryFrom<i64> + PartialOrd + Display,
{
    move |raw| {
        let number = match raw {
            Raw::Whole(number) => Some(*number),
            Raw::Text(text) => text.trim().parse().ok(),
            _ => None,
        };
        number
            .and_then(|number| T::try_from(number).ok())
            .filter(|number| range.contains(number))
            .ok_or_else(|| format!("a whole number from {} to {}", range.start(), range.end()))
    }
}

/// A share: a number from 0 to 1.
pub(super) fn share(raw: &Raw) -> Result<f64, String> {
    let number = match raw {
        Raw::Whole(number @ 0..=1) => Some(*number as f64),
        Raw::Fraction(number) => Some(*number),
        Raw::Text(text) => text.trim().parse().ok(),
        _ => None,
    };
    number
        .filter(|number| (0.0..=1.0).contains(number))
        .ok_or_else(|| "a number from 0 to 1, such as 0.1".to_owned())
}

/// A size in bytes within bounds: `64MiB`, `256kB`, plain bytes.
pub(super) fn size(range: RangeInclusive<u64>) -> impl Fn(&Raw) -> Result<u64, String> {
    move |raw| {
        let bytes = match raw {
            Raw::Whole(number) => u64::try_from(*number).ok(),
            Raw::Text(text) => parse_size(text),
            _ => None,
        };
        bytes.filter(|bytes| range.contains(bytes)).ok_or_else(|| {
            format!(
                "a size from {} to {} bytes, such as 64MiB, 256kB or plain bytes",
                range.start(),
                range.end()
            )
        })
    }
}

fn parse_size(text: &str) -> Option<u64> {
    let text = text.trim();
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at_checked(digits)?;
    let factor: u64 = match unit.trim_start().to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "kb" => 1_000,
        "mb" => 1_000_000,
        "gb" => 1_000_000_000,
        "tb" => 1_000_000_000_000,
        "kib" => 1 << 10,
        "mib" => 1 << 20,
        "gib" => 1 << 30,
        "tib" => 1 << 40,
        _ => return None,
    };
    number.parse::<u64>().ok()?.checked_mul(factor)
}

/// A duration within bounds, as `humantime` reads it.
pub(super) fn duration(
    range: RangeInclusive<Duration>,
) -> impl Fn(&Raw) -> Result<Duration, String> {
    move |raw| {
        let duration = match raw {
            Raw::Text(text) => humantime::parse_duration(text.trim()).ok(),
            _ => None,
        };
        duration
            .filter(|duration| range.contains(duration))
            .ok_or_else(|| {
                format!(
                    "a duration from {} to {}, such as 500ms, 30s or 13m",
                    humantime::format_duration(*range.start()),
                    humantime::format_duration(*range.end())
                )
            })
    }
}

/// One of a few words.
pub(super) fn word<T: Clone>(
    words: &'static [(&'static str, T)],
) -> impl Fn(&Raw) -> Result<T, String> {
    move |raw| {
        let found = match raw {
            Raw::Text(text) => words.iter().find(|(word, _)| word == text),
            _ => None,
        };
        found.map(|(_, meaning)| meaning.clone()).ok_or_else(|| {
            let words: Vec<_> = words
                .iter()
                .map(|(word, _)| format!("\"{word}\""))
                .collect();
            words.join(" or ")
        })
    }
}

/// Yes or no.
pub(super) fn truth(raw: &Raw) -> Result<bool, String> {
    match raw {
        Raw::Truth(truth) => Some(*truth),
        Raw::Text(text) => text.trim().parse().ok(),
        _ => None,
    }
    .ok_or_else(|| "true or false".to_owned())
}

/// Text of one line that is not empty.
pub(super) fn line(raw: &Raw) -> Result<String, String> {
    match raw {
        Raw::Text(text) if !text.trim().is_empty() && !text.contains(char::is_control) => {
            Ok(text.clone())
        }
        _ => Err("a line of text".to_owned()),
    }
}

/// The name of a user attribute in Looker.
pub(super) fn user_attribute(raw: &Raw) -> Result<String, String> {
    let fits = |c: char| c.is_ascii_alphanumeric() || c == '_';
    match raw {
        Raw::Text(text) if !text.is_empty() && text.chars().all(fits) => Ok(text.clone()),
        _ => Err(
            "the name of a user attribute in Looker (not its label): letters, digits and _, \
                  such as mparticle_api_key"
                .to_owned(),
        ),
    }
}

/// A path that is not empty.
pub(super) fn path(raw: &Raw) -> Result<PathBuf, String> {
    match raw {
        Raw::Text(text) if !text.is_empty() && !text.contains('\0') => Ok(PathBuf::from(text)),
        _ => Err("a path".to_owned()),
    }
}

/// Paths; a variable has them comma-separated.
pub(super) fn paths(raw: &Raw) -> Result<Vec<PathBuf>, String> {
    let path = |text: &str| (!text.contains('\0')).then(|| PathBuf::from(text.trim()));
    texts(raw, path).ok_or_else(|| "a list of paths, none of them empty".to_owned())
}

/// An address to listen on.
pub(super) fn address(raw: &Raw) -> Result<SocketAddr, String> {
    match raw {
        Raw::Text(text) => text.trim().parse().ok(),
        _ => None,
    }
    .ok_or_else(|| "an IP address and a port, such as 127.0.0.1:8080 or [::]:8080".to_owned())
}

/// The hub's own address: http or https, no path beyond a prefix, kept without a slash at its end.
pub(super) fn base_url(raw: &Raw) -> Result<Url, String> {
    plain_url(raw)
        .filter(|url| url.scheme() == "https" || url.host().as_ref().is_some_and(is_inside))
        .ok_or_else(|| {
            "an absolute http or https url, such as https://feed.example.com; plain http only for a \
             host that the internet does not reach (a private address, a name without a dot, or one \
             that ends with .internal, .local, .lan, .test or .localhost), since the hub's key and the \
             account's secret go there"
                .to_owned()
        })
}

/// Whether a host can only be one of an inner network.
fn is_inside<S: AsRef<str>>(host: &Host<S>) -> bool {
    const ENDS: [&str; 5] = [".internal", ".local", ".lan", ".test", ".localhost"];
    match host {
        Host::Domain(name) => {
            let name = name.as_ref().trim_end_matches('.');
            !name.contains('.') || ENDS.iter().any(|end| name.ends_with(end))
        }
        Host::Ipv4(address) => {
            address.is_loopback() || address.is_private() || address.is_link_local()
        }
        Host::Ipv6(address) => match address.to_ipv4_mapped() {
            Some(v4) => is_inside(&Host::<&str>::Ipv4(v4)),
            None => {
                address.is_loopback()
                    || address.is_unique_local()
                    || address.is_unicast_link_local()
            }
        },
    }
}

/// mParticle's base address: https, or http to a loopback host; ends with `/v2`.
pub(super) fn endpoint(raw: &Raw) -> Result<Url, String> {
    plain_url(raw)
        .filter(|url| url.path().ends_with("/v2"))
        .filter(|url| url.scheme() == "https" || url.host().as_ref().is_some_and(is_loopback))
        .ok_or_else(|| {
            "a base address up to and with /v2, such as https://s2s.us1.mparticle.com/v2; plain \
             http only for a loopback host"
                .to_owned()
        })
}

/// A Looker's address: https, or http to a loopback host, without a path.
pub(super) fn looker_url(raw: &Raw) -> Result<Url, String> {
    plain_url(raw)
        .filter(|url| matches!(url.path(), "" | "/"))
        .filter(|url| url.scheme() == "https" || url.host().as_ref().is_some_and(is_loopback))
        .ok_or_else(|| {
            "the address of a Looker without a path, such as https://looker.example.com or \
             https://looker.example.com:19999; plain http only for a loopback host"
                .to_owned()
        })
}

/// The base address of a collector of traces. Plain http to anywhere: no secret goes there.
pub(super) fn collector(raw: &Raw) -> Result<Url, String> {
    plain_url(raw)
        .ok_or_else(|| "an absolute http or https url, such as http://127.0.0.1:4318".to_owned())
}

/// Whether a text is a url that messages may be sent to.
pub(super) fn is_callback(text: &str) -> bool {
    Url::parse(text.trim()).is_ok_and(|url| {
        let local = url.host().as_ref().is_some_and(is_loopback);
        let bare =
            url.username().is_empty() && url.password().is_none() && url.fragment().is_none();
        bare && (url.scheme() == "https" || (url.scheme() == "http" && local))
    })
}

fn plain_url(raw: &Raw) -> Option<Url> {
    let Raw::Text(text) = raw else { return None };
    let url = Url::parse(text.trim().trim_end_matches('/')).ok()?;
    let plain = matches!(url.scheme(), "http" | "https")
        && url.host().is_some()
        && url.username().is_empty()
        && url.password().is_none()
        && url.query().is_none()
        && url.fragment().is_none();
    plain.then_some(url)
}

/// Hosts, each with a port or without; a variable has them comma-separated.
pub(super) fn hosts(raw: &Raw) -> Result<Vec<AllowedHost>, String> {
    let parse = |text: &str| parse_host(text.trim());
    let hosts = match raw {
        Raw::Text(text) if text.trim().is_empty() => Some(Vec::new()),
        Raw::Text(text) => text.split(',').map(parse).collect(),
        Raw::List(items) => items.iter().map(|item| parse(item)).collect(),
        _ => None,
    };
    hosts.ok_or_else(|| {
        "a list of host names or IP addresses, each with a port or without, such as \
         looker.example.com or 127.0.0.1:9999 (no scheme, no path, no *)"
            .to_owned()
    })
}

/// Secrets; a variable has them comma-separated.
pub(super) fn secrets(raw: &Raw) -> Result<Vec<Secret>, String> {
    let secrets = texts(raw, |text| Some(Secret::new(text.to_owned())));
    secrets.ok_or_else(|| "a list of texts, none of them empty".to_owned())
}

/// What stands before the slash of a hub key, or whole keys; a variable has them comma-separated.
pub(super) fn nonces(raw: &Raw) -> Result<Vec<String>, String> {
    let nonce = |text: &str| {
        let nonce = text.split('/').next()?.trim();
        (!nonce.is_empty() && nonce.is_ascii()).then(|| nonce.to_owned())
    };
    texts(raw, nonce).ok_or_else(|| {
        "a list of hub keys, or of the parts before their slash, none of them empty".to_owned()
    })
}

/// Texts that stand for no identity; a variable has them comma-separated.
pub(super) fn placeholders(raw: &Raw) -> Result<Vec<String>, String> {
    let short = |text: &str| {
        let text = text.trim();
        (text.len() <= Placeholders::LONGEST).then(|| text.to_owned())
    };
    texts(raw, short).ok_or_else(|| {
        format!(
            "a list of texts, none of them empty or longer than {} bytes",
            Placeholders::LONGEST
        )
    })
}

/// A day from 1970 to 2100: its beginning in UTC, in milliseconds since 1970.
pub(super) fn day(raw: &Raw) -> Result<i64, String> {
    let day = match raw {
        Raw::Text(text) => text.trim().parse::<jiff::civil::Date>().ok(),
        _ => None,
    };
    day.filter(|day| (1970..=2100).contains(&day.year()))
        .and_then(|day| day.to_zoned(jiff::tz::TimeZone::UTC).ok())
        .map(|day| day.timestamp().as_millisecond())
        .ok_or_else(|| "a day from 1970 to 2100, such as 2000-01-01".to_owned())
}

fn texts<T>(raw: &Raw, parse: impl Fn(&str) -> Option<T>) -> Option<Vec<T>> {
    let some = |text: &str| (!text.trim().is_empty()).then(|| parse(text)).flatten();
    match raw {
        Raw::Text(text) if text.trim().is_empty() => Some(Vec::new()),
        Raw::Text(text) => text.split(',').map(some).collect(),
        Raw::List(items) => items.iter().map(|item| some(item)).collect(),
        _ => None,
    }
}

/// Names of callbacks' events; a variable has them comma-separated.
pub(super) fn events(raw: &Raw) -> Result<Vec<String>, String> {
    let event = |text: &str| {
        let event = text.trim();
        let plain = event.bytes().all(|b| b.is_ascii_lowercase() || b == b'_');
        plain.then(|| event.to_owned())
    };
    texts(raw, event)
        .ok_or_else(|| "a list of events, such as delivery_finished or dead_letters".to_owned())
}

/// Titles of schedules; a variable has them comma-separated.
pub(super) fn titles(raw: &Raw) -> Result<Vec<String>, String> {
    texts(raw, |text| Some(text.trim().to_owned()))
        .ok_or_else(|| "a list of titles, none of them empty".to_owned())
}

/// Admin tokens as `name:role:token`; a variable has them comma-separated.
pub(super) fn named_secrets(raw: &Raw) -> Result<Vec<NamedSecret>, String> {
    let named = |text: &str| {
        let mut parts = text.trim().splitn(3, ':');
        let (name, role, token) = (parts.next()?, parts.next()?, parts.next()?);
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | '@');
        let may_act = match role {
            "look" => false,
            "act" => true,
            _ => return None,
        };
        let good = (1..=40).contains(&name.len())
            && name.chars().all(plain)
            && token.len() >= super::TOKEN_LENGTH
            && token.bytes().all(|byte| byte.is_ascii_graphic());
        good.then(|| NamedSecret {
            name: name.to_owned(),
            may_act,
            token: Secret::new(token.to_owned()),
        })
    };
    texts(raw, named)
        .filter(|all| {
            let names: std::collections::BTreeSet<_> = all.iter().map(|one| &one.name).collect();
            names.len() == all.len()
        })
        .ok_or_else(|| {
            "a list of name:role:token, each name once, the role look or act, the token of at least \
             16 visible ASCII characters without comma"
                .to_owned()
        })
}

/// Names that a `Host` header may have: hosts without a port.
pub(super) fn names(raw: &Raw) -> Result<Vec<String>, String> {
    let listed = hosts(raw)
        .ok()
        .filter(|hosts| hosts.iter().all(|host| host.port.is_none()));
    let listed = listed.ok_or_else(|| {
        "a list of host names without a port, such as feed-admin.example.com".to_owned()
    })?;
    Ok(listed
        .into_iter()
        .map(|host| host.host.to_string())
        .collect())
}

/// What somebody may do on the admin side: whether they may change something.
pub(super) fn role(raw: &Raw) -> Result<bool, String> {
    word(&[("look", false), ("act", true)])(raw)
}

/// The name of a header that says who somebody is.
pub(super) fn header(raw: &Raw) -> Result<HeaderName, String> {
    const TAKEN: [HeaderName; 4] = [AUTHORIZATION, CONTENT_TYPE, HOST, ORIGIN];
    let name = match raw {
        Raw::Text(text) => HeaderName::from_bytes(text.trim().as_bytes()).ok(),
        _ => None,
    };
    name.filter(|name| !TAKEN.contains(name))
        .ok_or_else(|| "the name of a header, such as X-Forwarded-User".to_owned())
}

/// Addresses of machines.
pub(super) fn addresses(raw: &Raw) -> Result<Vec<IpAddr>, String> {
    texts(raw, |text| text.trim().parse().ok())
        .ok_or_else(|| "a list of IP addresses, such as 10.0.0.5".to_owned())
}

fn parse_host(text: &str) -> Option<AllowedHost> {
    if text.is_empty() || text.contains(['*', '/', '@', '?', '#', '\\']) {
        return None;
    }
    // An IPv6 address without brackets has no room for a port.
    if let Ok(address) = text.parse() {
        return Some(AllowedHost {
            host: Host::Ipv6(address),
            port: None,
        });
    }
    let port = match text.rsplit_once(':') {
        Some((_, port)) if !port.ends_with(']') => Some(port.parse().ok()?),
        _ => None,
    };
    let name = match port {
        Some(_) => text.rsplit_once(':')?.0,
        None => text,
    };
    // A url's own rules for hosts, so that both sides of a comparison are alike.
    let host = Host::parse(name).ok()?;
    Some(AllowedHost { host, port })
}
