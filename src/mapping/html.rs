//! The text of a value that Looker sent as HTML.
//!
//! Looker writes what a dimension's `html` parameter makes into the value: links, badges, images.
//! What is wanted is the text that a person would see. Only what looks like markup is taken for
//! it, so that `a < b` stays as it is; a value without a tag keeps its `&amp;` too, since nothing
//! says that it is HTML.

use std::borrow::Cow;

use crate::model::Text;

/// The longest entity that is known, `&#x10ffff;`, without its `&`.
const LONGEST_ENTITY: usize = 9;

/// The value's text if it holds at least one tag; `None`: it is not HTML.
pub(super) fn text_of(text: Text<'_>) -> Option<String> {
    // Every tag has a `<`, which JSON may also write as an escape.
    let could_be = text.raw.contains('<') || (text.escaped && text.raw.contains("\\u003"));
    if !could_be {
        return None;
    }
    let decoded = text.decoded();
    let mut tags = 0;
    let mut out = String::with_capacity(decoded.len());
    let mut rest: &str = &decoded;
    while let Some(at) = rest.find('<') {
        let (before, from) = rest.split_at(at);
        out.push_str(before);
        match tag(from) {
            Markup::Tag { length, breaks } => {
                tags += 1;
                if breaks && !out.is_empty() && !out.ends_with(' ') {
                    out.push(' ');
                }
                rest = from.get(length..).unwrap_or_default();
            }
            Markup::None => {
                out.push('<');
                rest = from.get(1..).unwrap_or_default();
            }
            Markup::Unclosed => {
                rest = from;
                break;
            }
        }
    }
    if tags == 0 {
        return None;
    }
    out.push_str(rest);
    Some(entities(&out).trim().to_owned())
}

/// What stands at a `<`.
enum Markup {
    /// A tag or a comment, so many bytes long; some tags separate words.
    Tag { length: usize, breaks: bool },
    /// Just that sign.
    None,
    /// A tag or comment that does not end. Nothing behind it is looked at, as in a browser; else
    /// a value full of them would be read over and over.
    Unclosed,
}

fn tag(text: &str) -> Markup {
    if let Some(comment) = text.strip_prefix("<!--") {
        return match comment.find("-->") {
            Some(end) => Markup::Tag {
                length: "<!--".len() + end + "-->".len(),
                breaks: false,
            },
            None => Markup::Unclosed,
        };
    }
    let inside = text.get(1..).unwrap_or_default();
    let name = inside.strip_prefix(['/', '!']).unwrap_or(inside);
    if !name.starts_with(|c: char| c.is_ascii_alphabetic()) {
        return Markup::None;
    }
    // A `>` in a quoted attribute does not end the tag.
    let mut quote = None;
    for (at, byte) in text.bytes().enumerate() {
        match (byte, quote) {
            (b'>', None) => {
                let end = name.bytes().position(|byte| !byte.is_ascii_alphanumeric());
                let name = name.get(..end.unwrap_or(name.len())).unwrap_or_default();
                let breaks = ["br", "p", "div", "li", "tr", "td", "th"]
                    .iter()
                    .any(|known| name.eq_ignore_ascii_case(known));
                return Markup::Tag {
                    length: at + 1,
                    breaks,
                };
            }
            (b'"' | b'\'', None) => quote = Some(byte),
            (byte, Some(open)) if byte == open => quote = None,
            _ => {}
        }
    }
    Markup::Unclosed
}

/// Resolves the entities that Looker and people write; others stay as they are.
fn entities(text: &str) -> Cow<'_, str> {
    if !text.contains('&') {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('&') {
        let (before, from) = rest.split_at(at);
        out.push_str(before);
        let body = from.get(1..).unwrap_or_default();
        let end = body.bytes().take(LONGEST_ENTITY).position(|b| b == b';');
        let known = end.and_then(|end| Some((entity(body.get(..end)?)?, end + 2)));
        let (letter, length) = known.unwrap_or(('&', 1));
        out.push(letter);
        rest = from.get(length..).unwrap_or_default();
    }
    out.push_str(rest);
    Cow::Owned(out)
}

fn entity(name: &str) -> Option<char> {
    let code = |digits: &str, radix| u32::from_str_radix(digits, radix).ok();
    match name {
        "amp" => Some('&'),
        "lt" => Some('<'),
        "gt" => Some('>'),
        "quot" => Some('"'),
        "apos" => Some('\''),
        "nbsp" => Some(' '),
        _ => {
            let number = name.strip_prefix('#')?;
            let code = match number.strip_prefix(['x', 'X']) {
                Some(digits) => code(digits, 16)?,
                None => code(number, 10)?,
            };
            char::from_u32(code)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_of_html_is_what_a_person_would_see() {
        for (raw, want) in [
            (
                r#"<a href=\"https://l/x?a>b\" target='_blank'>Ann</a>"#,
                Some("Ann"),
            ),
            (r"<b>R&amp;D</b> &lt;3 &#233;&#x2713;", Some("R&D <3 é✓")),
            (r"\u003cb\u003ebold\u003c/b\u003e", Some("bold")),
            (r"one<br/>two<p>three</p>", Some("one two three")),
            (r"<!-- a > b -->x<img src='y'/>", Some("x")),
            (r"<i></i>", Some("")),
            (r"a < b > c", None),
            (r"1 <2 3", None),
            (r"<3", None),
            (r"<a href='unclosed", None),
            (r"<a<a<a<a", None),
            (r"<b>x</b> <!-- <i>y</i>", Some("x <!-- <i>y</i>")),
            (r"R&amp;D", None),
            (r"plain \\u003 text", None),
            (r"", None),
            (
                r"<b>&unknown; & &#xd800; &</b>",
                Some("&unknown; & &#xd800; &"),
            ),
            (r"é<b>é</b>&é;é", Some("éé&é;é")),
        ] {
            let text = Text {
                raw,
                escaped: raw.contains('\\'),
            };
            assert_eq!(text_of(text).as_deref(), want, "{raw}");
        }
    }
}
