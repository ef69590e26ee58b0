//! Execute requests in any chunks.

use base64::Engine as _;
use looker_feed::decode::{
    AttachmentForm, Envelope, EnvelopeError, EnvelopeLimits, EnvelopeProblem, Part,
};
use proptest::prelude::*;

use super::tape::Tape;
use super::{cases, table};

/// All that came out of an envelope.
#[derive(Debug, Default, PartialEq)]
struct Opened {
    sections: Vec<(String, String)>,
    begins: Option<(Option<String>, AttachmentForm)>,
    document: Vec<u8>,
    error: Option<EnvelopeError>,
}

fn open(request: &[u8], sizes: &[usize]) -> Opened {
    let limits = EnvelopeLimits {
        max_sections_bytes: 2_000,
        ..EnvelopeLimits::default()
    };
    let mut envelope = Envelope::new(limits);
    let mut opened = Opened::default();
    let mut rest = request;
    let mut sizes = sizes.iter().cycle();
    for _ in 0..3 * request.len() + 10 {
        match envelope.next() {
            Ok(Part::NeedBytes) if rest.is_empty() => envelope.close(),
            Ok(Part::NeedBytes) => {
                let size = sizes.next().copied().unwrap_or(1).clamp(1, rest.len());
                let (chunk, left) = rest.split_at(size);
                envelope.push(chunk);
                rest = left;
            }
            Ok(Part::Section { name, json }) => {
                let json = String::from_utf8(json.to_vec()).unwrap();
                opened.sections.push((name.to_owned(), json));
            }
            Ok(Part::AttachmentBegins { mimetype, form }) => {
                assert_eq!(opened.begins, None);
                opened.begins = Some((mimetype.map(str::to_owned), form));
            }
            Ok(Part::Attachment(bytes)) => {
                assert!(opened.begins.is_some() && !bytes.is_empty());
                opened.document.extend_from_slice(bytes);
            }
            Ok(Part::End) => return opened,
            Err(error) => {
                assert_eq!(envelope.next().map(|_| ()).unwrap_err(), error);
                opened.error = Some(error);
                return opened;
            }
        }
    }
    panic!("the envelope does not come to an end");
}

/// Base64 as Looker writes it: a line break after every 60 characters.
fn base64_lines(document: &[u8], line_break: &str) -> String {
    let text = base64::engine::general_purpose::STANDARD.encode(document);
    let lines = text.as_bytes().chunks(60);
    let lines: Vec<&str> = lines
        .map(|line| std::str::from_utf8(line).unwrap())
        .collect();
    lines.join(line_break) + line_break
}

/// Every letter outside ASCII, and some inside, as an escape.
fn escaped(text: &str) -> String {
    let mut out = String::new();
    for char in text.chars() {
        match char {
            '"' | '\\' => out.extend(['\\', char]),
            '\n' => out.push_str("\\n"),
            ' '..='~' if char != 'a' => out.push(char),
            _ => {
                for unit in char.encode_utf16(&mut [0; 2]) {
                    out.push_str(&format!("\\u{unit:04x}"));
                }
            }
        }
    }
    out
}

proptest! {
    #![proptest_config(cases(150))]

    #[test]
    fn arbitrary_bytes_neither_panic_nor_loop(
        bytes in proptest::collection::vec(
            prop_oneof![any::<u8>(), proptest::sample::select(b"{}[]\",:\\0-e.tn \ndata".to_vec())],
            0..200,
        ),
        prefix in proptest::sample::select(vec!["", "{", "{\"attachment\":{", "{\"attachment\":{\"data\":\""]),
    ) {
        let mut text = prefix.as_bytes().to_vec();
        text.extend_from_slice(&bytes);
        let whole = open(&text, &[usize::MAX]);
        let cut = open(&text, &[1]);
        prop_assert_eq!(whole.sections, cut.sections);
        prop_assert_eq!(whole.begins, cut.begins);
        let complete = whole.error.is_none();
        let problem = |error: Option<EnvelopeError>| error.map(|error| error.problem);
        prop_assert_eq!(problem(whole.error), problem(cut.error));
        if complete {
            prop_assert_eq!(whole.document, cut.document);
        }
    }

    #[test]
    fn a_pushed_document_comes_out_of_the_envelope_as_it_went_in(
        bytes in proptest::collection::vec(any::<u8>(), 0..300),
        sizes in proptest::collection::vec(1_usize..100, 1..6),
        mimetype_first in any::<bool>(),
    ) {
        let document = Tape::new(&bytes).document().text;
        let document = document.trim();
        let quoted = serde_json::to_string(document).unwrap();
        let styles = [
            ("application/json", quoted, AttachmentForm::Text),
            ("application/json", format!("\"{}\"", escaped(document)), AttachmentForm::Text),
            ("application/json", document.to_owned(), AttachmentForm::Inline),
            ("application/json;base64", format!("\"{}\"", base64_lines(document.as_bytes(), "\\n")), AttachmentForm::Base64),
            ("application/json;base64", format!("\"{}\"", base64_lines(document.as_bytes(), "\n")), AttachmentForm::Base64),
        ];
        for (mimetype, data, form) in styles {
            let mimetype_json = format!("\"mimetype\": \"{mimetype}\"");
            let data_json = format!("\"data\": {data}");
            let (first, second) = if mimetype_first {
                (&mimetype_json, &data_json)
            } else {
                (&data_json, &mimetype_json)
            };
            let request = format!(
                r#"{{"type":"query","scheduled_plan":{{"query_id":5,"x":{{"data":"1"}}}},"attachment":{{{first},"extension":"json" , {second}}}, "data":{{"apiKey":"k"}},"form_params":null}}"#
            );
            let opened = open(request.as_bytes(), &sizes);
            prop_assert_eq!(&opened.error, &None);
            prop_assert_eq!(std::str::from_utf8(&opened.document).unwrap(), document);
            let known = mimetype_first.then(|| mimetype.to_owned());
            prop_assert_eq!(&opened.begins, &Some((known, form)));
            let (first, second) = (format!(r#""mimetype":"{mimetype}""#), r#""extension":"json""#.to_owned());
            let attachment = if mimetype_first {
                format!("{{{first},{second}}}")
            } else {
                format!("{{{second},{first}}}")
            };
            let want = [
                ("type", "\"query\""),
                ("scheduled_plan", r#"{"query_id":5,"x":{"data":"1"}}"#),
                ("attachment", &attachment),
                ("data", r#"{"apiKey":"k"}"#),
                ("form_params", "null"),
            ].map(|(name, json)| (name.to_owned(), json.to_owned()));
            prop_assert_eq!(&opened.sections, &want);
        }
    }
}

#[test]
fn a_request_without_a_pushed_document_has_sections_only() {
    let extension = r#"{ "extension" : {"data": [1]} }"#;
    for (attachment, want) in [
        ("null", "null"),
        ("{}", "{}"),
        (r#"{"data": null, "mimetype": "x"}"#, r#"{"mimetype":"x"}"#),
        (extension, r#"{"extension":{"data": [1]}}"#),
    ] {
        let request = format!(r#" {{"attachment": {attachment}, "a\u0062": 1.50}} "#);
        for size in [1, 3, 1_000] {
            let opened = open(request.as_bytes(), &[size]);
            assert_eq!(opened.error, None, "{request}");
            assert_eq!(opened.begins, None);
            assert_eq!(opened.document, b"");
            let want = [("attachment", want), ("ab", "1.50")];
            let want = want.map(|(name, json)| (name.to_owned(), json.to_owned()));
            assert_eq!(opened.sections, want);
        }
    }
}

#[test]
fn the_first_character_tells_text_from_base64() {
    use AttachmentForm::{Base64, Text};
    for (mimetype, data, form, document) in [
        (None, r#"" \n{}""#, Text, "{}"),
        (None, r#""\u007b}""#, Text, "{}"),
        (None, r#""\ufeff{}""#, Text, "{}"),
        (None, "\"\u{feff}[]\"", Text, "[]"),
        (None, r#""<html>""#, Text, "<html>"),
        (None, r#""\n e30=""#, Base64, "{}"),
        (None, r#""""#, Text, ""),
        (Some("text/csv"), r#""id,name""#, Text, "id,name"),
        (Some("application/json;base64"), r#""e30""#, Base64, "{}"),
        (Some("application/json;base64"), r#""{}""#, Text, "{}"),
    ] {
        let mimetype_json =
            mimetype.map_or(String::new(), |text| format!(r#""mimetype": "{text}","#));
        let request = format!(r#"{{"attachment": {{{mimetype_json} "data": {data}}}}}"#);
        for size in [1, 2, 1_000] {
            let opened = open(request.as_bytes(), &[size]);
            assert_eq!(opened.error, None, "{request}");
            let begins = Some((mimetype.map(str::to_owned), form));
            assert_eq!(opened.begins, begins, "{request}");
            assert_eq!(opened.document, document.as_bytes(), "{request}");
        }
    }
}

#[test]
fn every_fault_of_a_request_is_named_with_its_place() {
    use EnvelopeProblem as Problem;
    let large = format!(r#"{{"x": "{}"}}"#, "y".repeat(3_000));
    // Where it is (`~`: somewhere in the request), what it is, and the request.
    let cases = r#"
        1 NotAnObject|[]
        0 NotAnObject|<html>
        7 Truncated|{"a": 1
        30 Truncated|{"attachment": {"data": {"a": \s
        29 Truncated|{"attachment": {"data": "{\"a
        26 Truncated|{"attachment": {"data": " \s
        3 Trailing|{} x
        5 Malformed(NoColon)|{"a" 1}
        27 Malformed(Escape)|{"attachment": {"data": "{\x"}}
        33 Malformed(Literal)|{"attachment": {"data": {"a": nul}}}
        ~ NotBase64|{"attachment": {"data": "e30=e30="}}
        25 Attachment|{"attachment": {"data": 5}}
        16 Attachment|{"attachment": []}
        34 TwoAttachments|{"attachment": {}, "attachment": {}}
        37 TwoAttachments|{"attachment": {"data": "", "data": {}}}"#;
    for (want, request) in table(cases).chain([
        ("0 Empty", ""),
        ("3 Empty", " \n "),
        (
            "26 Malformed(Control)",
            "{\"attachment\": {\"data\": \"{\n\"}}",
        ),
        ("~ SectionsTooLarge { limit: 2000 }", &large),
    ]) {
        let request = request.trim_end_matches("\\s");
        for size in [1, 10_000] {
            let EnvelopeError {
                offset, problem, ..
            } = open(request.as_bytes(), &[size]).error.unwrap();
            assert!(offset <= request.len() as u64, "{request}");
            let (place, want) = want.split_once(' ').unwrap();
            assert_eq!(format!("{problem:?}"), want, "{request}");
            assert!(
                place == "~" || place == offset.to_string(),
                "{request}: {offset}"
            );
        }
    }
    let error = open(b"{\"a\": \"\xff\"}", &[1]).error.unwrap();
    assert_eq!(error.problem, Problem::NotUtf8);
}
