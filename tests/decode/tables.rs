//! Named documents, captured and made, and every way for one to be bad.

use std::path::Path;

use looker_feed::decode::{DecodeError, Fault, Limits, Problem, RowParser};
use looker_feed::model::{Header, Value};

use super::{decode, reference, table};

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
            let (one, empty) = (Some("1".to_owned()), Some("{}".to_owned()));
            let want = [one, pivoted.clone(), empty, None, pivoted];
            assert_eq!(got.rows, [want]);
            let header = got.header.unwrap();
            let fields = header.fields.iter();
            let fields = fields.map(|field| (&*field.name, &*field.tags));
            let fields: Vec<(&str, &[String])> = fields.collect();
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
fn a_cell_that_looker_could_not_compute_is_told_from_null_and_from_a_pivot() {
    let head = r#"{"fields": {"dimensions": [{"name": "a", "type": "yesno"}, {"name": "b", "type": null}]}, "data": ["#;
    // A cell, and what it is; `b` beside it has 1. The first two and the last are of one layout, so that it
    // is both learned and used; in the ninth, two values of a dimension that the query pivots on.
    let cells = r#"
        {"value": null}|null
        {"value": null}|null
        {"value": null, "error": "no field"}|{"value": null, "error": "no field"}
        {"error": "x", "value": null}|{"error": "x", "value": null}
        {"error": "x"}|{"error": "x"}
        {"value": null, "error": null}|null
        {"value": null, "error": "y"}|{"value": null, "error": "y"}
        {"value": 7, "error": "x"}|7
        {"error": {"value": 3}, "ok": {"value": 4}}|{"error": {"value": 3}, "ok": {"value": 4}}
        {"value": null}|null"#;
    let row = |cell| format!(r#"{{"a": {cell}, "b": {{"value": 1}}}}"#);
    let rows: Vec<_> = table(cells).map(|(cell, want)| (row(cell), want)).collect();
    let texts: Vec<_> = rows.iter().map(|(row, _)| row.as_str()).collect();
    let document = format!("{head}{}]}}", texts.join(","));
    for size in [1, 10, 10_000] {
        let got = decode(document.as_bytes(), &[size], &["a", "b"], Limits::default());
        assert_eq!(got.error, None);
        for ((row, want), got) in rows.iter().zip(&got.rows) {
            assert_eq!(got[0].as_deref(), Some(*want), "{row}");
            assert_eq!(got[1].as_deref(), Some("1"), "{row}");
        }
        let header = got.header.unwrap();
        let types = header.fields.iter();
        let types: Vec<_> = types.map(|field| field.lookml_type.as_deref()).collect();
        assert_eq!(types, [Some("yesno"), None]);
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
    // Where it is, the rows before it, what it is, and the document.
    let cases = r#"
        29 1 Truncated|{"data": [{"a": {"value": 1}}
        34 1 Truncated|{"data": [{"a": {"value": 1}}, {"a
        11 0 Truncated|{"data": []
        1 0 Truncated|{
        15 1 Trailing|{"data": [{}]} x
        14 1 Trailing|{"data": [{}]}{}
        0 0 PlainJson|[{"a": 1}]
        0 0 NotAnObject|"x"
        0 0 NotAnObject|Bad Gateway
        2 0 DataMissing { reported: [] }|{}
        46 0 DataMissing { reported: ["no."] }|{"data": null, "errors": [{"message": "no."}]}
        21 0 DuplicateData|{"data": [], "data": []}
        14 1 NotARow { row: 1 }|{"data": [{}, 1]}
        10 0 NotARow { row: 0 }|{"data": [[]]}
        17 0 NotACell { row: 0, column: "é" }|{"data": [{"é": "x"}]}
        20 1 NotACell { row: 1, column: "b" }|{"data": [{}, {"b": null}]}
        13 1 Malformed(NoValue)|{"data": [{},]}
        13 1 Malformed(NoComma)|{"data": [{} {}]}
        29 0 Malformed(NoKey)|{"data": [{"a": {"value": 1},}]}
        26 0 Malformed(Literal)|{"data": [{"a": {"value": NaN}}]}
        27 0 Malformed(NoComma)|{"data": [{"a": {"value": 01}}]}
        28 0 Malformed(Number)|{"data": [{"a": {"value": 1.}}]}
        27 0 Malformed(Number)|{"data": [{"a": {"value": -Infinity}}]}
        28 0 Malformed(Escape)|{"data": [{"a": {"value": "\x"}}]}
        11 0 Header("`fields` is not an object")|{"fields": 1}
        26 0 Header("a list in `fields` is not a list")|{"fields": {"dimensions": {}}}
        27 0 Header("an entry of `fields` is not an object")|{"fields": {"dimensions": [1]}}
        28 0 Header("an entry of `fields` has no `name`")|{"fields": {"dimensions": [{}]}}"#;
    for (want, document) in table(cases).chain([
        ("0 0 Empty", ""),
        ("2 0 Empty", " \n"),
        ("3 0 Empty", "\u{feff}"),
        ("1 0 Html", "\n<!DOCTYPE html>"),
        (
            "27 0 Malformed(Control)",
            "{\"data\": [{\"a\": {\"value\": \"\n\"}}]}",
        ),
    ]) {
        let DecodeError {
            offset,
            rows,
            problem,
            ..
        } = error(document.as_bytes());
        assert_eq!(format!("{offset} {rows} {problem:?}"), want, "{document}");
    }
}

#[test]
fn the_same_faults_are_found_in_rows_that_look_like_the_row_before() {
    let good = r#"{"a": {"value": "x"}, "b": {"value": 1}}"#;
    let start = r#"{"fields": null, "data": ["#.len() + good.len() + 1;
    let cases = r#"
        21 Escape|{"a": {"value": "\u00x0"}, "b": {"value": 1}}
        39 Number|{"a": {"value": "x"}, "b": {"value": 1.e5}}
        37 NoValue|{"a": {"value": "x"}, "b": {"value": +1}}
        40 Literal|{"a": {"value": "x"}, "b": {"value": tru}}
        19 NoValue|{"a": {"value": [1,]}, "b": {"value": 1}}
        21 NoColon|{"a": {"value": {"x" 1}}, "b": {"value": 1}}
        39 NoComma|{"a": {"value": "x"}, "b": {"value": 1}]"#;
    let control = "{\"a\": {\"value\": \"\t\"}, \"b\": {\"value\": 1}}";
    for (want, row) in table(cases).chain([("17 Control", control)]) {
        let document = format!(r#"{{"fields": null, "data": [{good},{row}]}}"#);
        let got = error(document.as_bytes());
        let Problem::Malformed(fault) = got.problem else {
            panic!("{row}: {got:?}");
        };
        let at = got.offset - start as u64;
        assert_eq!(
            (format!("{at} {fault:?}").as_str(), got.rows),
            (want, 1),
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
    let too_deep = Some(Problem::Malformed(Fault::TooDeep));
    check(&document(4), None);
    check(&document(5), too_deep.clone());
    check(&format!(r#"{{"x": {}, "data": []}}"#, value(7)), None);
    check(&format!(r#"{{"x": {}, "data": []}}"#, value(8)), too_deep);

    let entry = |name: &str| format!(r#"{{"label": "{}", "name": "{name}"}}"#, "x".repeat(500));
    let fields = |names: &[&str]| {
        let entries: Vec<String> = names.iter().map(|name| entry(name)).collect();
        let entries = entries.join(",");
        format!(r#"{{"fields": {{"dimensions": [{entries}]}}, "data": []}}"#)
    };
    check(&fields(&["a", "b"]), None);
    let too_many = Some(Problem::TooManyColumns { limit: 2 });
    check(&fields(&["a", "b", "c"]), too_many);
    let header_too_large = Some(Problem::HeaderTooLarge { limit: 300 });
    check(&fields(&[&"x".repeat(299)]), header_too_large.clone());
    let errors = format!(r#"{{"errors": ["{}"], "data": []}}"#, "x".repeat(300));
    check(&errors, header_too_large);
    let long = "x".repeat(3_000);
    let filters = format!(r#"{{"applied_filters": ["{long}"], "data": []}}"#);
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
    let words = "the document has no `data` list; Looker reported: Query failed (byte";
    assert!(text.starts_with(words), "{text}");
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
        let got = (error.problem, error.offset, error.rows);
        assert_eq!(got, (problem, offset, 3), "{json}");
    }
    let row = parser.parse(b" {\"a\": {\"value\": 1}} ", 4).unwrap();
    assert_eq!((row.value(0), row.number), (Value::Number("1"), 4));
    assert_eq!(row.text(), r#"{"a": {"value": 1}}"#);
}
