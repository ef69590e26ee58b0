//! `errors` and `warnings` as sentences, and tags as strings: small kept values, read at once.

use super::scan::{Event, Kind, Scanner, Seen};
use crate::model::Text;

/// The content of a string literal that has been scanned, quotes taken off. `None`: not UTF-8.
pub(super) fn text(raw: &[u8], escaped: bool) -> Option<String> {
    let raw = std::str::from_utf8(raw).ok()?;
    Some(Text { raw, escaped }.decoded().into_owned())
}

/// The strings of a JSON list; other elements are left out. `None`: not UTF-8.
pub(super) fn strings(json: &[u8], max_depth: usize) -> Option<Vec<String>> {
    let mut found = Vec::new();
    let mut walk = Walk::new(json, max_depth, 1);
    let mut start = 0;
    let mut string = false;
    while let Some((seen, at)) = walk.next() {
        match (seen.event, seen.depth) {
            (Event::ValueBegin(kind), 1) => {
                string = kind == Kind::String;
                start = at;
            }
            (Event::ValueEnd, 1) if string => found.push(walk.text(start, at - 1)?),
            _ => {}
        }
    }
    Some(found)
}

/// What Looker says in `errors` or `warnings`: a string, an object with `message` and
/// `message_details`, or a list of these. Anything else that says something is kept as its JSON.
/// `None`: not UTF-8.
pub(super) fn sentences(json: &[u8], max_depth: usize) -> Option<Vec<String>> {
    let listed = json.first() == Some(&b'[');
    let item = usize::from(listed);
    let mut found = Vec::new();
    let mut walk = Walk::new(json, max_depth, item + 1);
    let mut kind = Kind::Null;
    let mut start = 0;
    let mut said = Said::default();
    while let Some((seen, at)) = walk.next() {
        if seen.depth == item {
            match seen.event {
                Event::ValueBegin(now) => {
                    kind = now;
                    start = at - 1;
                    said = Said::default();
                }
                Event::ValueEnd => {
                    let sentence = match kind {
                        Kind::Null | Kind::False => String::new(),
                        Kind::String => walk.text(start + 1, at - 1)?,
                        Kind::Object => match said.sentence() {
                            Some(sentence) => sentence,
                            None => walk.raw(start, at)?,
                        },
                        _ => walk.raw(start, at)?,
                    };
                    if !sentence.trim().is_empty() {
                        found.push(sentence);
                    }
                }
                _ => {}
            }
        } else if seen.depth == item + 1 && kind == Kind::Object {
            said.on(&walk, seen.event, at)?;
        }
    }
    Some(found)
}

/// The two keys of an error object.
#[derive(Default)]
struct Said {
    message: String,
    details: String,
    start: usize,
    key: String,
    string: bool,
}

impl Said {
    fn on(&mut self, walk: &Walk<'_>, event: Event, at: usize) -> Option<()> {
        match event {
            Event::KeyBegin => self.start = at,
            Event::KeyEnd => self.key = walk.text(self.start, at - 1)?,
            Event::ValueBegin(kind) => {
                self.start = at;
                self.string = kind == Kind::String;
            }
            Event::ValueEnd if self.string => match self.key.as_str() {
                "message" => self.message = walk.text(self.start, at - 1)?,
                "message_details" => self.details = walk.text(self.start, at - 1)?,
                _ => {}
            },
            Event::ValueEnd => {}
        }
        Some(())
    }

    fn sentence(&self) -> Option<String> {
        match (self.message.trim(), self.details.trim()) {
            ("", "") => None,
            (message, "") => Some(message.to_owned()),
            ("", details) => Some(details.to_owned()),
            (message, details) if message == details => Some(message.to_owned()),
            (message, details) => Some(format!("{message}: {details}")),
        }
    }
}

/// A scan over a value that lies in memory and has been scanned before.
struct Walk<'a> {
    json: &'a [u8],
    at: usize,
    scanner: Scanner,
}

impl<'a> Walk<'a> {
    fn new(json: &'a [u8], max_depth: usize, watch: usize) -> Self {
        Self {
            json,
            at: 0,
            scanner: Scanner::new(max_depth, watch),
        }
    }

    /// The next event and the place behind it.
    fn next(&mut self) -> Option<(Seen, usize)> {
        // A number at the very end is ended by what follows it; here nothing does.
        let rest = self.json.get(self.at..)?;
        let (used, seen) = self.scanner.step(rest).ok()?;
        self.at += used;
        if let Some(seen) = seen {
            return Some((seen, self.at));
        }
        let (_, seen) = self.scanner.step(b" ").ok()?;
        seen.map(|seen| (seen, self.at))
    }

    fn text(&self, start: usize, end: usize) -> Option<String> {
        text(self.json.get(start..end)?, self.scanner.escaped())
    }

    fn raw(&self, start: usize, end: usize) -> Option<String> {
        let raw = std::str::from_utf8(self.json.get(start..end)?).ok()?;
        Some(raw.chars().take(1_000).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_become_one_sentence_each() {
        for (json, want) in [
            ("null", &[][..]),
            ("false", &[]),
            ("[]", &[]),
            (r#""""#, &[]),
            (r#""a \u00e9""#, &["a é"]),
            (r#"["a", null, "b"]"#, &["a", "b"]),
            (r#"{"message": "a", "message_details": "b"}"#, &["a: b"]),
            (
                r#"[{"message": "a", "message_details": "a"}, {"message": "a", "message_details": null}]"#,
                &["a", "a"],
            ),
            (
                r#"[{"message_details": "b", "x": {"message": "no"}}]"#,
                &["b"],
            ),
            (r#"[{"x": 1}]"#, &[r#"{"x": 1}"#]),
            ("17", &["17"]),
            ("[1.5, true]", &["1.5", "true"]),
        ] {
            assert_eq!(sentences(json.as_bytes(), 64).unwrap(), want, "{json}");
        }
    }

    #[test]
    fn strings_leave_out_what_is_none() {
        let json = br#"["a", 1, null, ["x"], "\u0062", {"k": "v"}]"#;
        assert_eq!(strings(json, 64).unwrap(), ["a", "b"]);
        assert_eq!(strings(b"null", 64).unwrap(), Vec::<String>::new());
        assert_eq!(strings(b"[\"\xff\"]", 64), None);
    }
}
