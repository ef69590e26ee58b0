//! The decoder against serde_json: whatever the document, whatever the chunks.

mod any_chunks;
mod envelope;
mod tables;
mod tape;

use std::collections::BTreeMap;

use looker_feed::decode::{DecodeError, Decoder, Limits, RowParser, Step};
use looker_feed::model::{Header, Row, Value};
use proptest::prelude::ProptestConfig;
use serde_json::value::RawValue;

/// A failure is to become a named test, not a file.
fn cases(cases: u32) -> ProptestConfig {
    ProptestConfig {
        cases,
        failure_persistence: None,
        ..ProptestConfig::default()
    }
}

/// Cases as text, from the second line on: what is wanted, and what of, with a bar between.
fn table(cases: &str) -> impl Iterator<Item = (&str, &str)> {
    let lines = cases.lines().skip(1);
    lines.map(|case| case.trim_start().split_once('|').unwrap())
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
        Value::Number(raw)
        | Value::List(raw)
        | Value::Object(raw)
        | Value::Pivoted(raw)
        | Value::Failed(raw) => raw.to_owned(),
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
