//! The decoder against serde_json: whatever the document, whatever the chunks.

#[path = "decode/tape.rs"]
mod tape;

use std::collections::BTreeMap;
use std::path::Path;

use base64::Engine as _;
use looker_feed::decode::{
    AttachmentForm, DecodeError, Decoder, Envelope, EnvelopeError, EnvelopeLimits, Limits, Part,
    Problem, RowParser, Step,
};
use looker_feed::model::{Header, Row, Value};
use proptest::prelude::*;
use serde_json::value::RawValue;
use tape::Tape;

/// A failure is to become a named test, not a file.
fn cases(cases: u32) -> ProptestConfig {
    ProptestConfig {
        cases,
        failure_persistence: None,
        ..ProptestConfig::default()
    }
}

/// All that came out of a decoder.
#[derive(Debug, Default, PartialEq)]
struct Decoded {
    rows: Vec<Vec<Option<String>>>,
    header: Option<Header>,
    error: Option<DecodeError>,
}

/// A value as the JSON it was; `None` when the row has no such cell.
fn json(value: Value<'_>) -> Option<String> {
    Some(match value {
        Value::Absent => return None,
        Value::Null => "null".to_owned(),
        Value::Bool(value) => value.to_string(),
        Value::Number(raw) | Value::List(raw) | Value::Object(raw) | Value::Pivoted(raw) => {
            raw.to_owned()
        }
        Value::String(text) => {
            assert_eq!(text.escaped, text.raw.contains('\\'));
            format!("\"{}\"", text.raw)
        }
    })
}

fn values(row: Row<'_>, columns: usize) -> Vec<Option<String>> {
    assert_eq!(row.value(columns), Value::Absent);
    (0..columns).map(|slot| json(row.value(slot))).collect()
}

/// Decodes `document` cut into chunks of these sizes, over and over, and reads early rows at the end.
fn decode(document: &[u8], sizes: &[usize], columns: &[&str], limits: Limits) -> Decoded {
    let mut decoder = Decoder::new(limits);
    let mut decoded = Decoded::default();
    let mut early: Vec<Vec<u8>> = Vec::new();
    let mut rest = document;
    let mut sizes = sizes.iter().cycle();
    let mut closed = false;
    let mut headers = 0;
    // Each step is a row, a header, an end or a chunk.
    for _ in 0..2 * document.len() + 10 {
        match decoder.next() {
            Ok(Step::NeedBytes) if rest.is_empty() => {
                assert!(!closed, "a closed decoder asks for bytes");
                decoder.close();
                closed = true;
            }
            Ok(Step::NeedBytes) => {
                let size = sizes.next().copied().unwrap_or(1).clamp(1, rest.len());
                let (chunk, left) = rest.split_at(size);
                decoder.push(chunk);
                rest = left;
            }
            Ok(Step::EarlyRow(json)) => {
                assert_eq!(headers, 0);
                early.push(json.to_vec());
            }
            Ok(Step::Header(_)) => {
                headers += 1;
                decoder.select(columns);
            }
            Ok(Step::Row(row)) => {
                assert_eq!(row.number, decoded.rows.len() as u64);
                decoded.rows.push(values(row, columns.len()));
                assert_eq!(decoder.rows(), decoded.rows.len() as u64);
            }
            Ok(Step::End(header)) => {
                decoded.header = Some(header.clone());
                assert_eq!(headers, 1);
                break;
            }
            Err(error) => {
                let again = decoder.next().map(|_| ()).unwrap_err();
                assert_eq!(again, error);
                decoded.error = Some(error);
                break;
            }
        }
    }
    assert!(
        decoded.header.is_some() || decoded.error.is_some(),
        "the decoder does not come to an end"
    );
    let mut parser = RowParser::new(limits, columns);
    for (number, json) in early.iter().enumerate() {
        let row = parser.parse(json, number as u64).unwrap();
        decoded.rows.push(values(row, columns.len()));
    }
    decoded
}

type Object<'a> = BTreeMap<String, &'a RawValue>;

/// What serde_json says of the same document.
fn reference(document: &[u8], columns: &[&str]) -> Vec<Vec<Option<String>>> {
    let root: Object<'_> = serde_json::from_slice(document).unwrap();
    let rows: Vec<Object<'_>> = serde_json::from_str(root["data"].get()).unwrap();
    let cell = |row: &Object<'_>, column: &str| {
        let cell = row.get(column)?;
        let members: Object<'_> = serde_json::from_str(cell.get()).unwrap();
        Some(members.get("value").unwrap_or(cell).get().to_owned())
    };
    rows.iter()
        .map(|row| columns.iter().map(|column| cell(row, column)).collect())
        .collect()
}

fn error(document: &[u8]) -> DecodeError {
    let whole = decode(document, &[usize::MAX], &["a"], Limits::default());
    let cut = decode(document, &[1], &["a"], Limits::default());
    assert_eq!(whole, cut);
    whole.error.unwrap()
}

#[test]
fn captured_streams_decode_to_what_serde_json_says() {
    let folder = Path::new(concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../shared/data/looker"
    ));
    if !folder.is_dir() {
        eprintln!("no captured streams at {}", folder.display());
        return;
    }
    for (file, rows, fields) in [
        ("lite_stream_183_rows.json", 183, 2),
        ("lite_stream_2995_rows_formatted.json", 2995, 6),
        ("json_detail_2017.json", 13, 2),
    ] {
        let document = std::fs::read(folder.join(file)).unwrap();
        let root: serde_json::Value = serde_json::from_slice(&document).unwrap();
        let names: Vec<String> = ["dimensions", "measures", "table_calculations"]
            .iter()
            .flat_map(|list| root["fields"][list].as_array().unwrap())
            .map(|field| field["name"].as_str().unwrap().to_owned())
            .collect();
        let columns: Vec<&str> = names.iter().map(String::as_str).collect();
        let want = reference(&document, &columns);
        assert_eq!((want.len(), columns.len()), (rows, fields), "{file}");
        for sizes in [&[usize::MAX][..], &[65_536], &[1_460], &[7, 1, 300]] {
            let got = decode(&document, sizes, &columns, Limits::default());
            assert_eq!(got.error, None, "{file}");
            assert!(got.rows == want, "{file} in chunks of {sizes:?}");
            let header = got.header.unwrap();
            let got: Vec<&str> = header.fields.iter().map(|field| &*field.name).collect();
            assert_eq!(got, columns, "{file}");
            assert_eq!(header.timezone.as_deref(), root["timezone"].as_str());
        }
    }
}

#[test]
fn the_header_is_kept_in_any_order_of_keys() {
    let fields = r#""fields": {"measures": null, "x": {"y": [{"name": 1}]}, "dimensions": [
        {"label": "é", "tags": ["mp_email", "\u0078"], "name": "u.\"a"}, {"name": "u.b", "tags": null, "enumerations": [{"name": "no"}]}],
        "table_calculations": [{"name": "calc"}], "pivots": [{"name": "u.p", "data": {"x": [1]}}]}"#;
    let rest = r#""timezone": "Europe\/Paris", "errors": ["Note: dev", {"message": "bad", "message_details": "worse"}],
        "warnings": [{"message": "slow"}], "truncated": true, "applied_filters": {"data": [1], "fields": {"dimensions": 5}}"#;
    let data = r#""data": [{"u.\"a": {"value": 1}, "u.b": {"p": {"value": 2}}, "calc": {}}]"#;
    let columns = ["u.\"a", "u.b", "calc", "none", "u.b"];
    for order in [
        [fields, rest, data],
        [data, fields, rest],
        [fields, data, rest],
        [rest, data, fields],
    ] {
        let document = format!("\u{feff} {{{}}} \n", order.join(",\n"));
        for size in [1, 2, 3, 50, 10_000] {
            let got = decode(document.as_bytes(), &[size], &columns, Limits::default());
            assert_eq!(got.error, None, "{document}");
            let pivoted = Some(r#"{"p": {"value": 2}}"#.to_owned());
            let want = vec![
                Some("1".to_owned()),
                pivoted.clone(),
                Some("{}".to_owned()),
                None,
                pivoted,
            ];
            assert_eq!(got.rows, [want]);
            let header = got.header.unwrap();
            let fields: Vec<(&str, &[String])> = header
                .fields
                .iter()
                .map(|field| (&*field.name, &*field.tags))
                .collect();
            let tags = ["mp_email".to_owned(), "x".to_owned()];
            assert_eq!(fields, [("u.\"a", &tags[..]), ("u.b", &[]), ("calc", &[])]);
            assert_eq!(header.pivots, ["u.p"]);
            assert_eq!(header.timezone.as_deref(), Some("Europe/Paris"));
            assert_eq!(header.errors, ["bad: worse"]);
            assert_eq!(header.notes, ["Note: dev", "slow"]);
            assert!(header.truncated);
        }
    }
}

#[test]
fn of_duplicate_keys_the_last_wins() {
    let document = br#"{"timezone": "a", "timezone": "b", "errors": ["x"], "errors": null,
        "fields": {"dimensions": [{"name": "x"}]},
        "fields": {"dimensions": [{"name": "y"}], "dimensions": [{"name": "z", "name": "a"}]},
        "data": [{"a": {"value": 1, "value": "2"}}, {"a": {"value": 1}, "a": {"value": 2}},
                 {"a": {"value": 3}, "a": {"x": 1}}, {"\u0061": {"v\u0061lue": 4}}]}"#;
    for size in [1, 10_000] {
        let got = decode(document, &[size], &["a"], Limits::default());
        assert_eq!(got.error, None);
        let got_rows: Vec<_> = got.rows.concat().into_iter().flatten().collect();
        assert_eq!(got_rows, ["\"2\"", "2", "{\"x\": 1}", "4"]);
        let header = got.header.unwrap();
        assert_eq!(header.timezone.as_deref(), Some("b"));
        assert_eq!(header.errors, Vec::<String>::new());
        assert_eq!(header.fields.len(), 1);
        assert_eq!(header.fields[0].name, "a");
    }
}

#[test]
fn a_document_without_rows_or_fields_is_complete() {
    for document in [
        r#"{"data": []}"#,
        r#"{"data": [ ], "fields": null}"#,
        r#"{"fields": {}, "data":[]}"#,
    ] {
        let got = decode(document.as_bytes(), &[1], &["a"], Limits::default());
        assert_eq!(got.header, Some(Header::default()), "{document}");
    }
}

#[test]
fn every_way_to_be_no_result_has_its_own_error() {
    use looker_feed::decode::Fault;
    let row = |row| Problem::NotARow { row };
    let cell = |row, column: &str| Problem::NotACell {
        row,
        column: column.to_owned(),
    };
    let missing = |reported: &[&str]| Problem::DataMissing {
        reported: reported.iter().map(|&text| text.to_owned()).collect(),
    };
    for (document, problem, offset, rows) in [
        ("", Problem::Empty, 0, 0),
        (" \n", Problem::Empty, 2, 0),
        ("\u{feff}", Problem::Empty, 3, 0),
        ("\n<!DOCTYPE html>", Problem::Html, 1, 0),
        (r#"[{"a": 1}]"#, Problem::PlainJson, 0, 0),
        ("\"x\"", Problem::NotAnObject, 0, 0),
        ("Bad Gateway", Problem::NotAnObject, 0, 0),
        ("{", Problem::Truncated, 1, 0),
        (
            r#"{"data": [{"a": {"value": 1}}"#,
            Problem::Truncated,
            29,
            1,
        ),
        (
            r#"{"data": [{"a": {"value": 1}}, {"a"#,
            Problem::Truncated,
            34,
            1,
        ),
        (r#"{"data": []"#, Problem::Truncated, 11, 0),
        (r#"{"data": [{}]} x"#, Problem::Trailing, 15, 1),
        (r#"{"data": [{}]}{}"#, Problem::Trailing, 14, 1),
        ("{}", missing(&[]), 2, 0),
        (
            r#"{"data": null, "errors": [{"message": "no."}]}"#,
            missing(&["no."]),
            46,
            0,
        ),
        (r#"{"data": [], "data": []}"#, Problem::DuplicateData, 21, 0),
        (r#"{"data": [{}, 1]}"#, row(1), 14, 1),
        (r#"{"data": [[]]}"#, row(0), 10, 0),
        (r#"{"data": [{"é": "x"}]}"#, cell(0, "é"), 17, 0),
        (r#"{"data": [{}, {"b": null}]}"#, cell(1, "b"), 20, 1),
        (
            r#"{"data": [{},]}"#,
            Problem::Malformed(Fault::NoValue),
            13,
            1,
        ),
        (
            r#"{"data": [{} {}]}"#,
            Problem::Malformed(Fault::NoComma),
            13,
            1,
        ),
        (
            r#"{"data": [{"a": {"value": 1},}]}"#,
            Problem::Malformed(Fault::NoKey),
            29,
            0,
        ),
        (
            r#"{"data": [{"a": {"value": NaN}}]}"#,
            Problem::Malformed(Fault::Literal),
            26,
            0,
        ),
        (
            r#"{"data": [{"a": {"value": 01}}]}"#,
            Problem::Malformed(Fault::NoComma),
            27,
            0,
        ),
        (
            r#"{"data": [{"a": {"value": 1.}}]}"#,
            Problem::Malformed(Fault::Number),
            28,
            0,
        ),
        (
            r#"{"data": [{"a": {"value": -Infinity}}]}"#,
            Problem::Malformed(Fault::Number),
            27,
            0,
        ),
        (
            r#"{"data": [{"a": {"value": "\x"}}]}"#,
            Problem::Malformed(Fault::Escape),
            28,
            0,
        ),
        (
            "{\"data\": [{\"a\": {\"value\": \"\n\"}}]}",
            Problem::Malformed(Fault::Control),
            27,
            0,
        ),
        (
            r#"{"fields": 1}"#,
            Problem::Header("`fields` is not an object"),
            11,
            0,
        ),
        (
            r#"{"fields": {"dimensions": {}}}"#,
            Problem::Header("a list in `fields` is not a list"),
            26,
            0,
        ),
        (
            r#"{"fields": {"dimensions": [1]}}"#,
            Problem::Header("an entry of `fields` is not an object"),
            27,
            0,
        ),
        (
            r#"{"fields": {"dimensions": [{}]}}"#,
            Problem::Header("an entry of `fields` has no `name`"),
            28,
            0,
        ),
    ] {
        let got = error(document.as_bytes());
        assert_eq!(
            (got.problem, got.offset, got.rows),
            (problem, offset, rows),
            "{document}"
        );
    }
}

#[test]
fn the_same_faults_are_found_in_rows_that_look_like_the_row_before() {
    use looker_feed::decode::Fault;
    let good = r#"{"a": {"value": "x"}, "b": {"value": 1}}"#;
    let start = r#"{"fields": null, "data": ["#.len() + good.len() + 1;
    for (row, fault, at) in [
        (
            r#"{"a": {"value": "\u00x0"}, "b": {"value": 1}}"#,
            Fault::Escape,
            21,
        ),
        (
            "{\"a\": {\"value\": \"\t\"}, \"b\": {\"value\": 1}}",
            Fault::Control,
            17,
        ),
        (
            r#"{"a": {"value": "x"}, "b": {"value": 1.e5}}"#,
            Fault::Number,
            39,
        ),
        (
            r#"{"a": {"value": "x"}, "b": {"value": +1}}"#,
            Fault::NoValue,
            37,
        ),
        (
            r#"{"a": {"value": "x"}, "b": {"value": tru}}"#,
            Fault::Literal,
            40,
        ),
        (
            r#"{"a": {"value": [1,]}, "b": {"value": 1}}"#,
            Fault::NoValue,
            19,
        ),
        (
            r#"{"a": {"value": {"x" 1}}, "b": {"value": 1}}"#,
            Fault::NoColon,
            21,
        ),
        (
            r#"{"a": {"value": "x"}, "b": {"value": 1}]"#,
            Fault::NoComma,
            39,
        ),
    ] {
        let document = format!(r#"{{"fields": null, "data": [{good},{row}]}}"#);
        let got = error(document.as_bytes());
        assert_eq!(
            (got.problem, got.offset, got.rows),
            (Problem::Malformed(fault), (start + at) as u64, 1),
            "{row}"
        );
    }
}

#[test]
fn bytes_that_are_not_utf_8_are_found_in_rows_and_kept_names() {
    let header = b"{\"fields\": {\"dimensions\": [{\"name\": \"\xff\"}]}}";
    assert_eq!(error(header).problem, Problem::NotUtf8);
    for row in [
        &b"{\"a\": {\"value\": \"\xc3\"}}"[..],
        b"{\"a\": {\"x\": \"\xed\xa0\x80\", \"value\": 1}}",
        b"{\"\xff\": {\"value\": 1}}",
    ] {
        let mut document = b"{\"data\": [{\"a\": {\"value\": \"x\"}},".to_vec();
        document.extend_from_slice(row);
        document.extend_from_slice(b"]}");
        let got = error(&document);
        assert_eq!((got.problem, got.rows), (Problem::NotUtf8, 1));
    }
}

#[test]
fn limits_are_kept_however_the_document_is_cut() {
    let limits = Limits {
        max_depth: 8,
        max_row_bytes: 40,
        max_header_bytes: 300,
        max_columns: 2,
    };
    let check = |document: &str, want: Option<Problem>| {
        for size in [1, 7, 10_000] {
            let got = decode(document.as_bytes(), &[size], &["a"], limits);
            let problem = got.error.map(|error| error.problem);
            assert_eq!(problem, want, "{document} by {size}");
        }
    };
    let row = |length: usize| format!(r#"{{"a":{{"value":"{}"}}}}"#, "x".repeat(length - 18));
    check(&format!(r#"{{"data": [{}]}}"#, row(40)), None);
    let too_large = |row| Some(Problem::RowTooLarge { row, limit: 40 });
    check(&format!(r#"{{"data": [{}]}}"#, row(41)), too_large(0));
    let rows = [row(20), row(41)].join(",");
    check(&format!(r#"{{"data": [{rows}]}}"#), too_large(1));

    let value = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
    let document = |depth: usize| {
        let rows = [1, depth].map(|depth| format!(r#"{{"a":{{"value":{}}}}}"#, value(depth)));
        format!(r#"{{"data":[{}]}}"#, rows.join(","))
    };
    use looker_feed::decode::Fault;
    let too_deep = Some(Problem::Malformed(Fault::TooDeep));
    check(&document(4), None);
    check(&document(5), too_deep.clone());
    check(&format!(r#"{{"x": {}, "data": []}}"#, value(7)), None);
    check(&format!(r#"{{"x": {}, "data": []}}"#, value(8)), too_deep);

    let entry = |name: &str| format!(r#"{{"label": "{}", "name": "{name}"}}"#, "x".repeat(500));
    let fields = |names: &[&str]| {
        let entries: Vec<String> = names.iter().map(|name| entry(name)).collect();
        format!(
            r#"{{"fields": {{"dimensions": [{}]}}, "data": []}}"#,
            entries.join(",")
        )
    };
    check(&fields(&["a", "b"]), None);
    check(
        &fields(&["a", "b", "c"]),
        Some(Problem::TooManyColumns { limit: 2 }),
    );
    let header_too_large = Some(Problem::HeaderTooLarge { limit: 300 });
    check(&fields(&[&"x".repeat(299)]), header_too_large.clone());
    let errors = format!(r#"{{"errors": ["{}"], "data": []}}"#, "x".repeat(300));
    check(&errors, header_too_large);
    let filters = format!(
        r#"{{"applied_filters": ["{}"], "data": []}}"#,
        "x".repeat(3_000)
    );
    check(&filters, None);
}

#[test]
fn an_error_is_a_sentence_with_place_and_way_out() {
    let text = error(br#"{"data": [{"a": {"value": 1}}, {"a": 5}]}"#).to_string();
    assert_eq!(
        text,
        "the cell of column `a` in row 1 is a bare value, not an object (byte 37 of the document, \
         after 1 complete rows). The format must be `json_detail` or `json_detail_lite_stream`: \
         pick one of these where the schedule or the action asks for a format."
    );
    let text = error(br#"{"errors": [{"message": "Query failed."}]}"#).to_string();
    assert!(
        text.starts_with("the document has no `data` list; Looker reported: Query failed (byte"),
        "{text}"
    );
}

#[test]
fn a_row_parser_names_what_is_wrong_with_a_row() {
    let mut parser = RowParser::new(Limits::default(), &["a"]);
    for (json, problem, offset) in [
        (" {\"a\": 1}", None, 7),
        (" {\"a\": {}", Some(Problem::Truncated), 9),
        ("{} {}", Some(Problem::Trailing), 3),
        (" 5", Some(Problem::NotARow { row: 3 }), 1),
    ] {
        let error = parser.parse(json.as_bytes(), 3).map(|_| ()).unwrap_err();
        let problem = problem.unwrap_or(Problem::NotACell {
            row: 3,
            column: "a".to_owned(),
        });
        assert_eq!(
            (error.problem, error.offset, error.rows),
            (problem, offset, 3),
            "{json}"
        );
    }
    let row = parser.parse(b" {\"a\": {\"value\": 1}} ", 4).unwrap();
    assert_eq!((row.value(0), row.number), (Value::Number("1"), 4));
    assert_eq!(row.text(), r#"{"a": {"value": 1}}"#);
}

proptest! {
    #![proptest_config(cases(400))]

    #[test]
    fn any_document_in_any_chunks_equals_what_serde_json_says(
        bytes in proptest::collection::vec(any::<u8>(), 0..600),
        sizes in proptest::collection::vec(1_usize..80, 1..8),
    ) {
        let document = Tape::new(&bytes).document();
        let text = document.text.as_bytes();
        let columns: Vec<&str> = document.columns.iter().map(String::as_str).collect();
        let want = reference(text, &columns);
        for sizes in [&sizes[..], &[1], &[usize::MAX]] {
            let got = decode(text, sizes, &columns, Limits::default());
            prop_assert_eq!(&got.error, &None);
            prop_assert_eq!(&got.rows, &want);
            let header = got.header.unwrap();
            let names: Vec<&str> = header.fields.iter().map(|field| &*field.name).collect();
            prop_assert_eq!(&names, &columns);
        }
        // Without a selection, rows are still found.
        let got = decode(text, &sizes, &[], Limits::default());
        prop_assert_eq!(got.rows.len(), want.len());
    }

    #[test]
    fn every_prefix_is_an_error_with_the_right_number_of_rows(
        bytes in proptest::collection::vec(any::<u8>(), 0..200),
        size in 1_usize..50,
    ) {
        let document = Tape::new(&bytes).document();
        let text = document.text.trim_end().as_bytes();
        for end in 0..text.len() {
            let got = decode(&text[..end], &[size], &["a"], Limits::default());
            let rows = document.row_ends.iter().filter(|&&row_end| row_end <= end).count();
            let error = got.error.unwrap();
            let expected = if text[..end].trim_ascii().is_empty() { Problem::Empty } else { Problem::Truncated };
            prop_assert_eq!(error.problem, expected);
            prop_assert_eq!((error.rows, error.offset), (rows as u64, end as u64));
            prop_assert_eq!(got.rows.len(), rows);
        }
    }

    #[test]
    fn damaged_documents_end_the_same_way_however_they_are_cut(
        bytes in proptest::collection::vec(any::<u8>(), 0..300),
        damage in proptest::collection::vec((any::<u16>(), 0_u8..4, any::<u8>()), 1..4),
        sizes in proptest::collection::vec(1_usize..60, 1..5),
    ) {
        let mut text = Tape::new(&bytes).document().text.into_bytes();
        for (at, what, byte) in damage {
            let at = at as usize % text.len();
            match what {
                0 => text[at] = byte,
                1 => text.insert(at, byte),
                2 if text.len() > 1 => drop(text.remove(at)),
                _ => text[at] = b"{}[]\",:\\0-e.tn \n"[byte as usize % 16],
            }
        }
        let whole = decode(&text, &[usize::MAX], &["a", "b"], Limits::default());
        let cut = decode(&text, &sizes, &["a", "b"], Limits::default());
        prop_assert_eq!(&whole, &cut);
        if whole.error.is_none() {
            let text = text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&text);
            let valid = serde_json::from_slice::<serde::de::IgnoredAny>(text);
            prop_assert!(valid.is_ok(), "{:?}", valid);
        }
    }

    #[test]
    fn arbitrary_bytes_neither_panic_nor_loop(
        bytes in proptest::collection::vec(
            prop_oneof![any::<u8>(), proptest::sample::select(b"{}[]\",:\\0-e.tn \ndata".to_vec())],
            0..200,
        ),
        prefix in proptest::sample::select(vec!["", "{", "{\"data\":[", "{\"data\":[{\"a\":{\"value\":"]),
    ) {
        let mut text = prefix.as_bytes().to_vec();
        text.extend_from_slice(&bytes);
        let whole = decode(&text, &[usize::MAX], &["a"], Limits::default());
        let cut = decode(&text, &[1], &["a"], Limits::default());
        prop_assert_eq!(whole, cut);
        let whole = open(&text, &[usize::MAX]);
        let cut = open(&text, &[1]);
        prop_assert_eq!(whole, cut);
    }
}

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
    let lines: Vec<&str> = text
        .as_bytes()
        .chunks(60)
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
    for (attachment, want) in [
        ("null", "null"),
        ("{}", "{}"),
        (r#"{"data": null, "mimetype": "x"}"#, r#"{"mimetype":"x"}"#),
        (
            r#"{ "extension" : {"data": [1]} }"#,
            r#"{"extension":{"data": [1]}}"#,
        ),
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
            assert_eq!(
                opened.begins,
                Some((mimetype.map(str::to_owned), form)),
                "{request}"
            );
            assert_eq!(opened.document, document.as_bytes(), "{request}");
        }
    }
}

#[test]
fn every_fault_of_a_request_is_named_with_its_place() {
    use looker_feed::decode::{EnvelopeProblem as Problem, Fault};
    let large = format!(r#"{{"x": "{}"}}"#, "y".repeat(3_000));
    for (request, problem, offset) in [
        ("", Problem::Empty, 0),
        (" \n ", Problem::Empty, 3),
        ("[]", Problem::NotAnObject, 1),
        ("<html>", Problem::NotAnObject, 0),
        ("{\"a\": 1", Problem::Truncated, 7),
        (r#"{"attachment": {"data": {"a": "#, Problem::Truncated, 30),
        (r#"{"attachment": {"data": "{\"a"#, Problem::Truncated, 29),
        (r#"{"attachment": {"data": " "#, Problem::Truncated, 26),
        ("{} x", Problem::Trailing, 3),
        (r#"{"a" 1}"#, Problem::Malformed(Fault::NoColon), 5),
        (
            r#"{"attachment": {"data": "{\x"}}"#,
            Problem::Malformed(Fault::Escape),
            27,
        ),
        (
            "{\"attachment\": {\"data\": \"{\n\"}}",
            Problem::Malformed(Fault::Control),
            26,
        ),
        (
            r#"{"attachment": {"data": {"a": nul}}}"#,
            Problem::Malformed(Fault::Literal),
            33,
        ),
        (
            r#"{"attachment": {"data": "e30=e30="}}"#,
            Problem::NotBase64,
            34,
        ),
        (r#"{"attachment": {"data": 5}}"#, Problem::Attachment, 25),
        (r#"{"attachment": []}"#, Problem::Attachment, 16),
        (
            r#"{"attachment": {}, "attachment": {}}"#,
            Problem::TwoAttachments,
            34,
        ),
        (
            r#"{"attachment": {"data": "", "data": {}}}"#,
            Problem::TwoAttachments,
            37,
        ),
        (&large, Problem::SectionsTooLarge { limit: 2_000 }, 0),
    ] {
        for size in [1, 10_000] {
            let error = open(request.as_bytes(), &[size]).error.unwrap();
            assert_eq!(error.problem, problem, "{request}");
            let exact = !matches!(
                problem,
                Problem::SectionsTooLarge { .. } | Problem::NotBase64
            );
            if exact {
                assert_eq!(error.offset, offset, "{request}");
            } else {
                assert!(error.offset <= request.len() as u64, "{request}");
            }
        }
    }
    let error = open(b"{\"a\": \"\xff\"}", &[1]).error.unwrap();
    assert_eq!(error.problem, Problem::NotUtf8);
}
