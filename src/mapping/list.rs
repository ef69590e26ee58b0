//! Lists as values of user attributes: sent entry by entry within mParticle's limits.

use super::number;
use super::values::{self, Written};
use crate::model::Text;

/// Entries of a list that is a user attribute, and characters of each, that mParticle takes.
/// ("Default Service Limits")
const MOST_ENTRIES: usize = 1000;
const MOST_ENTRY_CHARACTERS: usize = 512;

/// What was done to a list.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Done {
    /// Entries were left out: there were too many, or one is a number that no double holds.
    pub(super) left_out: bool,
    /// An entry was cut, or a lone surrogate was replaced.
    pub(super) written: Written,
}

/// Writes a list of single values; `None` and nothing when a list or an object is in it. `raw` is a list
/// that is well formed.
pub(super) fn write(out: &mut Vec<u8>, raw: &str) -> Option<Done> {
    let start = out.len();
    let mut done = Done::default();
    let mut count = 0;
    out.push(b'[');
    let mut rest = raw.strip_prefix('[').unwrap_or(raw).trim_start();
    while !rest.is_empty() && !rest.starts_with(']') {
        let (entry, behind) = split_entry(rest);
        if entry.starts_with(['[', '{']) {
            out.truncate(start);
            return None;
        }
        if count == MOST_ENTRIES || !is_sendable(entry) {
            done.left_out = true;
        } else {
            if count > 0 {
                out.push(b',');
            }
            write_entry(out, entry, &mut done);
            count += 1;
        }
        let behind = behind.trim_start();
        rest = behind.strip_prefix(',').unwrap_or(behind).trim_start();
    }
    out.push(b']');
    Some(done)
}

/// The value that a list's text begins with, and what follows it.
fn split_entry(rest: &str) -> (&str, &str) {
    let end = match rest.as_bytes().first() {
        Some(b'"') => string_end(rest.as_bytes()),
        _ => rest
            .find(|letter: char| matches!(letter, ',' | ']') || letter.is_ascii_whitespace())
            .unwrap_or(rest.len()),
    };
    rest.split_at_checked(end).unwrap_or((rest, ""))
}

/// Where the string ends that `bytes` begin with, its quotes included.
fn string_end(bytes: &[u8]) -> usize {
    let mut at = 1;
    while let Some(next) = bytes
        .get(at..)
        .and_then(|rest| memchr::memchr2(b'"', b'\\', rest))
    {
        at += next;
        if bytes.get(at) == Some(&b'"') {
            return at + 1;
        }
        at += 2;
    }
    bytes.len()
}

fn is_sendable(entry: &str) -> bool {
    let is_number = entry.starts_with(|letter: char| letter == '-' || letter.is_ascii_digit());
    !is_number || number::is_finite(entry)
}

fn write_entry(out: &mut Vec<u8>, entry: &str, done: &mut Done) {
    let text = entry
        .strip_prefix('"')
        .and_then(|text| text.strip_suffix('"'));
    let Some(raw) = text else {
        return out.extend_from_slice(entry.as_bytes());
    };
    let escaped = raw.contains('\\');
    let written = values::string_within(out, Text { raw, escaped }, MOST_ENTRY_CHARACTERS);
    done.written.cut |= written.cut;
    done.written.replaced |= written.replaced;
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    fn sent(raw: &str) -> Option<(String, Done)> {
        let mut out = b"before".to_vec();
        let done = write(&mut out, raw);
        let text = String::from_utf8(out).unwrap();
        let text = text.strip_prefix("before").unwrap().to_owned();
        match done {
            Some(done) => Some((text, done)),
            None => {
                assert_eq!(text, "", "nothing is left of {raw}");
                None
            }
        }
    }

    #[test]
    fn a_list_is_sent_as_it_is_and_cut_entry_by_entry() {
        let whole = Done::default();
        let left_out = Done {
            left_out: true,
            ..whole
        };
        let cut = Done {
            written: Written {
                cut: true,
                replaced: false,
            },
            ..whole
        };
        let replaced = Done {
            written: Written {
                cut: false,
                replaced: true,
            },
            ..whole
        };
        let long = format!("[\"{}\",2]", "é".repeat(513));
        let short = format!("[\"{}\",2]", "é".repeat(512));
        let many = format!("[{}]", vec!["\"x\""; 1001].join(","));
        let most = format!("[{}]", vec!["\"x\""; 1000].join(","));
        for (raw, want) in [
            ("[]", Some(("[]", whole))),
            ("[ ]", Some(("[]", whole))),
            (
                r#"["a",null,1.50,true]"#,
                Some((r#"["a",null,1.50,true]"#, whole)),
            ),
            ("[ \"a, ]\" ,\n1 ]", Some((r#"["a, ]",1]"#, whole))),
            (r#"["\"],[", "\\"]"#, Some((r#"["\"],[","\\"]"#, whole))),
            (r#"["\ud83d", 1]"#, Some(("[\"\u{fffd}\",1]", replaced))),
            ("[1e400,1e4]", Some(("[1e4]", left_out))),
            (short.as_str(), Some((short.as_str(), whole))),
            (long.as_str(), Some((short.as_str(), cut))),
            (most.as_str(), Some((most.as_str(), whole))),
            (many.as_str(), Some((most.as_str(), left_out))),
            (r#"["a",["b"]]"#, None),
            (r#"[{"a":1}]"#, None),
        ] {
            let want = want.map(|(text, done)| (text.to_owned(), done));
            assert_eq!(sent(raw), want, "{raw}");
        }
    }

    fn entry() -> impl Strategy<Value = Value> {
        prop_oneof![
            ".{0,8}".prop_map(Value::from),
            "[a-zé]{500,530}".prop_map(Value::from),
            any::<i32>().prop_map(|number| Value::from(f64::from(number) / 4.0)),
            any::<i64>().prop_map(Value::from),
            any::<bool>().prop_map(Value::from),
            Just(Value::Null),
        ]
    }

    proptest! {
        #[test]
        fn every_flat_list_arrives_within_the_limits(
            entries in prop::collection::vec(entry(), 0..40),
            copies in prop::sample::select(vec![1usize, 1, 30]),
            pretty in any::<bool>(),
        ) {
            let entries: Vec<Value> = std::iter::repeat_n(entries, copies).flatten().collect();
            let list = json!(entries);
            let raw = match pretty {
                true => serde_json::to_string_pretty(&list).unwrap(),
                false => list.to_string(),
            };
            let (text, done) = sent(&raw).unwrap();
            let cut = |value: &Value| match value.as_str() {
                Some(text) => Value::from(text.chars().take(512).collect::<String>()),
                None => value.clone(),
            };
            let want: Vec<Value> = entries.iter().take(1000).map(cut).collect();
            prop_assert_eq!(serde_json::from_str::<Value>(&text).unwrap(), json!(want));
            prop_assert_eq!(done.left_out, entries.len() > 1000);
            prop_assert_eq!(done.written.cut, want[..] != entries[..want.len()]);
        }
    }
}
