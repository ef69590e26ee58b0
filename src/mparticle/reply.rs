//! mParticle's answer, read: status, headers and the first bytes of the body become a
//! [`Reply`]. A pure function. Statuses and headers are those of mParticle's HTTP API page.
//!
//! Whatever a server, or a proxy before it, puts into an answer, what comes out is bounded and
//! printable.

use std::time::Duration;

use http::header::{HeaderMap, RETRY_AFTER};
use hyper::http;
use serde::Deserialize;

use crate::clock::UnixMillis;
use crate::drain::{Exceeded, Reply};
use crate::harmless::is_harmful;

/// Most characters of the server's words that are kept.
pub const MAX_WORDS: usize = 500;
/// Which limit a 429 is about.
const EXCEEDED: &str = "x-mp-rate-limit-exceeded";
/// Share of the limit in use, on 2xx.
const PERCENTAGE_USED: &str = "x-mp-rate-limit-percentage-used";
/// The name of a limit is short.
const MAX_LIMIT_NAME: usize = 40;

/// Reads an answer. `now` is for a `Retry-After` that is a date.
pub fn read(status: u16, headers: &HeaderMap, body: &[u8], now: UnixMillis) -> Reply {
    match status {
        202 => Reply::Accepted {
            percent_used: percent_used(headers),
        },
        429 => Reply::Throttled {
            retry_after: retry_after(headers, now),
            exceeded: exceeded(headers),
        },
        401 | 403 => Reply::Unauthorized {
            status,
            words: words(body),
        },
        400 | 422 => Reply::Rejected {
            status,
            words: words(body),
        },
        413 => Reply::TooLarge { words: words(body) },
        408 | 425 | 500..=599 => Reply::Unavailable {
            what: format!("status {status}"),
            retry_after: retry_after(headers, now),
        },
        _ => Reply::Unexpected {
            status,
            words: words(body),
        },
    }
}

/// The text on one line, without control and invisible formatting characters, at most `most`
/// characters long.
pub fn printable(text: &str, most: usize) -> String {
    let mut out = String::new();
    let mut length = 0;
    let mut gap = false;
    for character in text.chars() {
        if character.is_whitespace() || is_harmful(character) {
            gap = true;
            continue;
        }
        let gap = std::mem::take(&mut gap) && !out.is_empty();
        let needed = 1 + usize::from(gap);
        // One more for the mark of what is left out.
        if length + needed >= most {
            out.push('…');
            break;
        }
        if gap {
            out.push(' ');
        }
        length += needed;
        out.push(character);
    }
    out
}

fn header(headers: &HeaderMap, name: impl http::header::AsHeaderName) -> Option<&str> {
    let value = headers.get(name)?.to_str().ok()?.trim();
    (!value.is_empty()).then_some(value)
}

fn percent_used(headers: &HeaderMap) -> Option<u8> {
    let used: f64 = header(headers, PERCENTAGE_USED)?
        .trim_end_matches('%')
        .parse()
        .ok()?;
    // The cast of a float saturates; NaN is not a share.
    (!used.is_nan()).then_some(used.clamp(0.0, 100.0) as u8)
}

/// Whole seconds, or an HTTP date. A date that has passed is not a wait; anything else is not a hint.
fn retry_after(headers: &HeaderMap, now: UnixMillis) -> Option<Duration> {
    let value = header(headers, RETRY_AFTER)?;
    if value.bytes().all(|byte| byte.is_ascii_digit()) {
        let seconds = value.parse().unwrap_or(u64::from(u32::MAX));
        return Some(Duration::from_secs(seconds.min(u32::MAX.into())));
    }
    let date = jiff::fmt::rfc2822::parse(value).ok()?;
    let until = u64::try_from(date.timestamp().as_millisecond()).ok()?;
    Some(Duration::from_millis(until.saturating_sub(now.0)))
}

fn exceeded(headers: &HeaderMap) -> Option<Exceeded> {
    let value = header(headers, EXCEEDED)?;
    // A list that names a limit on the rate besides the acceleration is about the rate.
    let limit = value
        .split(',')
        .map(str::trim)
        .find(|limit| !limit.is_empty() && !limit.eq_ignore_ascii_case("acceleration"));
    Some(match limit {
        None => Exceeded::Acceleration,
        Some(limit) => Exceeded::Speed(printable(limit, MAX_LIMIT_NAME).to_ascii_lowercase()),
    })
}

/// mParticle's error document.
#[derive(Deserialize)]
struct Errors {
    errors: Vec<OneError>,
}

#[derive(Deserialize)]
struct OneError {
    #[serde(default)]
    code: serde_json::Value,
    #[serde(default)]
    message: Option<String>,
}

fn words(body: &[u8]) -> String {
    if let Ok(document) = serde_json::from_slice::<Errors>(body) {
        let errors: Vec<_> = document.errors.iter().map(OneError::sentence).collect();
        return printable(&errors.join("; "), MAX_WORDS);
    }
    let text = String::from_utf8_lossy(body);
    let text = text.trim();
    if text.starts_with('<') {
        return match title(text) {
            Some(title) => printable(&format!("an HTML page: {title}"), MAX_WORDS),
            None => "an HTML page".to_owned(),
        };
    }
    printable(text, MAX_WORDS)
}

impl OneError {
    fn sentence(&self) -> String {
        let code = match &self.code {
            serde_json::Value::String(code) => code.clone(),
            serde_json::Value::Number(code) => code.to_string(),
            _ => String::new(),
        };
        match self.message.as_deref() {
            Some(message) if code.is_empty() => message.to_owned(),
            Some(message) => format!("{code}: {message}"),
            None => code,
        }
    }
}

/// What stands in the title of an HTML page, as far as it was read.
fn title(page: &str) -> Option<String> {
    // Lower-casing ASCII keeps every byte's place.
    let lower = page.to_ascii_lowercase();
    let tag = lower.find("<title")?;
    let start = tag + lower.get(tag..)?.find('>')? + 1;
    let end = start + lower.get(start..)?.find("</title")?;
    let title = page.get(start..end)?.trim();
    (!title.is_empty()).then(|| title.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// 2026-11-20 13:05:00 UTC.
    const NOW: UnixMillis = UnixMillis(1_795_179_900_000);

    fn headers(list: &[(&'static str, &str)]) -> HeaderMap {
        list.iter()
            .map(|(name, value)| {
                let name = http::HeaderName::from_static(name);
                (name, value.parse().unwrap())
            })
            .collect()
    }

    #[test]
    fn each_status_has_its_reply() {
        let reply = |status| read(status, &HeaderMap::new(), b"no", NOW);
        let words = || "no".to_owned();
        for status in [200, 204, 301, 404] {
            let words = words();
            assert_eq!(reply(status), Reply::Unexpected { status, words });
        }
        for status in [400, 422] {
            let words = words();
            assert_eq!(reply(status), Reply::Rejected { status, words });
        }
        for status in [401, 403] {
            let words = words();
            assert_eq!(reply(status), Reply::Unauthorized { status, words });
        }
        for status in [408, 500, 503, 599] {
            let unavailable = Reply::unavailable(format!("status {status}"));
            assert_eq!(reply(status), unavailable);
        }
        assert_eq!(reply(202), Reply::Accepted { percent_used: None });
        assert_eq!(reply(413), Reply::TooLarge { words: words() });
        let throttled = Reply::Throttled {
            retry_after: None,
            exceeded: None,
        };
        assert_eq!(reply(429), throttled);
    }

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        for (value, want) in [
            ("0", Some(0)),
            ("7", Some(7)),
            (" 120 ", Some(120)),
            ("99999999999999999999999", Some(u32::MAX.into())),
            ("Fri, 20 Nov 2026 13:05:30 GMT", Some(30)),
            ("Fri, 20 Nov 2026 13:04:30 GMT", Some(0)),
            ("Fri, 20 Nov 1950 13:04:30 GMT", None),
            ("-1", None),
            ("1.5", None),
            ("soon", None),
            ("", None),
        ] {
            let headers = headers(&[("retry-after", value)]);
            let retry_after = want.map(Duration::from_secs);
            let throttled = Reply::Throttled {
                retry_after,
                exceeded: None,
            };
            assert_eq!(read(429, &headers, b"", NOW), throttled, "{value:?}");
            for status in [500, 503] {
                let unavailable = Reply::Unavailable {
                    what: format!("status {status}"),
                    retry_after,
                };
                assert_eq!(read(status, &headers, b"", NOW), unavailable, "{value:?}");
            }
        }
    }

    #[test]
    fn the_exceeded_limit_is_named() {
        let speed = |name: &str| Some(Exceeded::Speed(name.to_owned()));
        for (value, want) in [
            ("acceleration", Some(Exceeded::Acceleration)),
            ("Acceleration", Some(Exceeded::Acceleration)),
            ("org", speed("org")),
            ("Account", speed("account")),
            ("acceleration, feed", speed("feed")),
            ("", None),
        ] {
            let reply = read(429, &headers(&[(EXCEEDED, value)]), b"", NOW);
            let want = Reply::Throttled {
                retry_after: None,
                exceeded: want,
            };
            assert_eq!(reply, want, "{value:?}");
        }
    }

    #[test]
    fn the_share_in_use_is_a_percentage() {
        for (value, want) in [
            ("0", Some(0)),
            ("45", Some(45)),
            ("99.9", Some(99)),
            ("80%", Some(80)),
            ("250", Some(100)),
            ("-3", Some(0)),
            ("NaN", None),
            ("much", None),
            ("", None),
        ] {
            let reply = read(202, &headers(&[(PERCENTAGE_USED, value)]), b"", NOW);
            assert_eq!(reply, Reply::Accepted { percent_used: want }, "{value:?}");
        }
    }

    #[test]
    fn the_words_are_what_the_server_said() {
        let long = "é".repeat(2_000);
        for (body, want) in [
            (
                r#"{"errors":[{"code":"BAD_REQUEST","message":"missing field"}]}"#,
                "BAD_REQUEST: missing field",
            ),
            (
                r#"{"errors":[{"code":17,"message":"a\n\tb"},{"message":"c"},{"code":"d"},{}]}"#,
                "17: a b; c; d;",
            ),
            (r#"{"errors":[]}"#, ""),
            (r#"{"message":"x"}"#, r#"{"message":"x"}"#),
            (r#"{"errors":[{"code""#, r#"{"errors":[{"code""#),
            ("", ""),
            ("  plain\r\ntext\u{0}\u{1b}[31m ", "plain text [31m"),
            ("a\u{202e}b\u{200b}c", "a b c"),
            (
                "<!DOCTYPE html><HTML><Title class=x>\n 502 Bad\nGateway</TITLE>é",
                "an HTML page: 502 Bad Gateway",
            ),
            ("<html><title>cut off", "an HTML page"),
            ("<title></title>", "an HTML page"),
            (&long, &format!("{}…", "é".repeat(MAX_WORDS - 1))),
        ] {
            let reply = read(400, &HeaderMap::new(), body.as_bytes(), NOW);
            let want = Reply::Rejected {
                status: 400,
                words: want.to_owned(),
            };
            assert_eq!(reply, want, "{body:?}");
        }
    }

    #[test]
    fn a_gap_at_the_bound_does_not_pass_it() {
        for length in 1..8 {
            let text = format!("{} b c d e f g", "a".repeat(length));
            assert!(printable(&text, 5).chars().count() <= 5, "{text}");
        }
        assert_eq!(printable("ab cd", 9), "ab cd");
        assert_eq!(printable("ab cdefgh", 5), "ab c…");
        assert_eq!(printable("abcd efgh", 5), "abcd…");
    }

    proptest! {
        #[test]
        fn any_answer_is_read_and_its_words_are_bounded_and_printable(
            status in 0u16..1000,
            body in prop_oneof![
                proptest::collection::vec(any::<u8>(), 0..2000),
                ".{0,900}".prop_map(String::into_bytes),
                "<title>.{0,600}</title>".prop_map(String::into_bytes),
            ],
            hint in "[ -~]{0,40}",
        ) {
            let list = [
                ("retry-after", hint.as_str()),
                (EXCEEDED, &hint),
                (PERCENTAGE_USED, &hint),
            ];
            let text = match read(status, &headers(&list), &body, NOW) {
                Reply::Unauthorized { words, .. }
                | Reply::Unexpected { words, .. }
                | Reply::Rejected { words, .. }
                | Reply::TooLarge { words } => words,
                Reply::Unavailable { what, .. } => what,
                Reply::Throttled { exceeded: Some(Exceeded::Speed(name)), .. } => name,
                Reply::Accepted { .. } | Reply::Throttled { .. } => String::new(),
            };
            prop_assert!(text.chars().count() <= MAX_WORDS);
            prop_assert!(!text.chars().any(is_harmful));
        }
    }
}
