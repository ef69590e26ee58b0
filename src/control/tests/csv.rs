//! Lists as CSV, read back by a reader that takes nothing but what RFC 4180 allows.

use http_body_util::BodyExt;

use super::scripted::{DELIVERY, DESTINATION, HOSTILE, Running};
use crate::clock::UnixMillis;
use crate::control::csv::{Column, Record, head, record};
use crate::control::view::{DeadLetter, Delivery, FailedDelivery, RejectedRow};

/// Reads CSV as strictly as RFC 4180 says it: CR LF after each record, the last one too, quotes around
/// whole fields and doubled in them, nothing but text without quotes and breaks elsewhere, and as
/// many fields in each record.
pub(crate) fn strict(text: &str) -> Vec<Vec<String>> {
    let mut records = Vec::new();
    let mut fields = Vec::new();
    let mut rest = text;
    while !rest.is_empty() {
        let field = if let Some(mut inner) = rest.strip_prefix('"') {
            let mut field = String::new();
            loop {
                let end = inner.find('"').expect("a quoted field ends");
                field.push_str(&inner[..end]);
                inner = &inner[end + 1..];
                match inner.strip_prefix('"') {
                    Some(more) => {
                        field.push('"');
                        inner = more;
                    }
                    None => break,
                }
            }
            rest = inner;
            field
        } else {
            let end = rest.find([',', '\r', '\n']).expect("a record ends");
            let field = &rest[..end];
            assert!(!field.contains('"'), "a quote in {field}");
            rest = &rest[end..];
            field.to_owned()
        };
        fields.push(field);
        if let Some(more) = rest.strip_prefix(',') {
            rest = more;
            continue;
        }
        rest = rest.strip_prefix("\r\n").expect("a record ends in CR LF");
        records.push(std::mem::take(&mut fields));
    }
    assert!(fields.is_empty(), "the last record ends");
    let columns = records.first().map_or(0, Vec::len);
    for record in &records {
        assert_eq!(record.len(), columns, "{record:?}");
    }
    records
}

/// The column of this name, without the head.
pub(crate) fn column(records: &[Vec<String>], name: &str) -> Vec<String> {
    let at = records[0].iter().position(|column| column == name);
    let at = at.unwrap_or_else(|| panic!("no column {name}"));
    let cells = records[1..].iter().map(|record| record[at].clone());
    cells.collect()
}

/// A text in a column of its own, between others.
struct One(&'static str);

impl Record for One {
    const COLUMNS: &'static [Column<Self>] = &[
        ("before", |_| 7_u64.into()),
        ("text", |one| one.0.into()),
        ("after", |_| UnixMillis(1_700_000_000_123).into()),
    ];
}

#[test]
fn a_cell_reads_back_as_it_was_and_no_spreadsheet_runs_it() {
    for (text, wanted) in [
        ("", ""),
        ("plain", "plain"),
        ("a,b \"c\"\r\nd\ne", "a,b \"c\"\r\nd\ne"),
        ("\"", "\""),
        ("ünïcode 漢", "ünïcode 漢"),
        ("=HYPERLINK(\"http://a\")", "'=HYPERLINK(\"http://a\")"),
        ("+1", "'+1"),
        ("-1", "'-1"),
        ("@SUM(A1)", "'@SUM(A1)"),
        ("\tx", "'\tx"),
        ("\rx", "'\rx"),
        ("1=1", "1=1"),
        ("'=1", "'=1"),
    ] {
        let read = strict(&format!("{}{}", head::<One>(), record(&One(text))));
        let expected = ["7", wanted, "2023-11-14T22:13:20.123Z"];
        assert_eq!(read[0], ["before", "text", "after"]);
        assert_eq!(read[1], expected, "{text:?}");
    }
}

#[test]
fn what_is_not_known_is_empty_and_columns_have_names_of_their_own() {
    fn checked<T: Record + Default>() -> Vec<Vec<String>> {
        let read = strict(&format!("{}{}", head::<T>(), record(&T::default())));
        let mut names = read[0].clone();
        names.sort();
        names.dedup();
        assert_eq!(names.len(), T::COLUMNS.len());
        read
    }
    let delivery = checked::<Delivery>();
    for name in ["received", "committed", "finished", "blocked", "notes"] {
        assert_eq!(column(&delivery, name), [""], "{name}");
    }
    for name in ["rows_in", "rows_erased", "batches"] {
        assert_eq!(column(&delivery, name), ["0"], "{name}");
    }
    let failed = checked::<FailedDelivery>();
    assert_eq!(column(&failed, "again_next"), [""]);
    checked::<DeadLetter>();
    checked::<RejectedRow>();
}

#[tokio::test]
async fn each_list_is_a_download_of_all_its_parts_with_the_filters_of_json() {
    let admin = Running::start().await;
    {
        let mut script = admin.daemon.script();
        let one = script.deliveries[0].clone();
        for n in 2..=5_u64 {
            script.deliveries.push(Delivery {
                id: format!("{n:032x}"),
                title: "=1+1".into(),
                state: "done".into(),
                received: UnixMillis(1_000 * n),
                notes: vec!["one, with a comma".into(), "two".into()],
                ..one.clone()
            });
        }
    }
    let csv = async |target: &str, file: &str| -> Vec<Vec<String>> {
        let response = admin.open("GET", target, &[], "").await;
        assert_eq!(response.status(), 200, "{target}");
        let headers = response.headers();
        assert_eq!(
            headers["content-type"],
            "text/csv; charset=utf-8; header=present"
        );
        assert_eq!(
            headers["content-disposition"],
            format!("attachment; filename=\"looker-feed-{file}.csv\"")
        );
        let body = response.into_body().collect().await.unwrap().to_bytes();
        strict(std::str::from_utf8(&body).unwrap())
    };
    // The scripted lists come in parts of two.
    let all = csv("/api/v1/deliveries?format=csv", "deliveries").await;
    assert_eq!(all.len(), 6);
    assert_eq!(column(&all, "id")[0], DELIVERY);
    assert_eq!(column(&all, "title")[..2], [HOSTILE, "'=1+1"]);
    assert_eq!(column(&all, "destination")[0], DESTINATION);
    assert_eq!(column(&all, "received")[0], "1970-01-01T00:00:31.000Z");
    assert_eq!(column(&all, "rows_in")[0], "1200");
    assert_eq!(column(&all, "standing")[..2], ["sending", "incomplete"]);
    assert_eq!(column(&all, "notes")[1], "one, with a comma\ntwo");
    for (query, wanted) in [
        ("&from=3000&until=5000", 2),
        ("&schedule=%3D1%2B1", 4),
        ("&state=open", 1),
        ("&schedule=none", 0),
        ("&limit=2", 2),
        // In two parts.
        ("&limit=3", 3),
        ("&after=2&limit=1", 1),
        ("&after=2", 3),
    ] {
        let target = format!("/api/v1/deliveries?format=csv{query}");
        let part = csv(&target, "deliveries").await;
        assert_eq!(part.len(), 1 + wanted, "{query}");
        assert_eq!(part[0], all[0], "{query}");
    }

    let failed = csv("/api/v1/failed-deliveries?format=csv", "failed-deliveries").await;
    assert_eq!(column(&failed, "rows"), ["3", "3", "3"]);
    assert_eq!(
        column(&failed, "message")[0],
        format!("The delivery broke off: {HOSTILE}")
    );
    let letters = csv("/api/v1/dead-letters?format=csv", "dead-letters").await;
    assert_eq!(column(&letters, "id"), ["17-0", "17-1", "17-2"]);
    let target = "/api/v1/dead-letters?format=csv&delivery=none";
    assert_eq!(csv(target, "dead-letters").await.len(), 1);
    let target = format!("/api/v1/deliveries/{DELIVERY}/rejected?format=csv");
    let rejected = csv(&target, "rejected-rows").await;
    assert_eq!(column(&rejected, "row"), ["1", "2", "3"]);
    assert_eq!(column(&rejected, "text")[0], "{\"a\":{\"value\":null}}");

    for wrong in [
        "/api/v1/deliveries?format=xml",
        "/api/v1/deliveries?format=csv&limit=501",
        "/api/v1/dead-letters?format=csv&limit=0",
        "/api/v1/failed-deliveries?format=CSV",
    ] {
        assert_eq!(admin.get(wrong).await.0, 400, "{wrong}");
    }
    // What fails at once has its status.
    let gone = "/api/v1/deliveries/nowhere/rejected?format=csv";
    assert_eq!(admin.get(gone).await.0, 404);
    admin.stop().await;
}

#[tokio::test]
async fn a_download_that_fails_on_the_way_does_not_look_whole() {
    let admin = Running::start().await;
    {
        let mut script = admin.daemon.script();
        let one = script.deliveries[0].clone();
        script.deliveries = vec![one; 5];
    }
    let rejected = format!("/api/v1/deliveries/{DELIVERY}/rejected");
    for list in [
        "/api/v1/deliveries?format=csv",
        "/api/v1/failed-deliveries?format=csv",
        "/api/v1/dead-letters?format=csv",
        &format!("{rejected}?format=csv"),
        "/api/v1/dead-letters/export",
        &format!("{rejected}/export"),
    ] {
        admin.daemon.script().breaks_at = None;
        let (status, whole) = admin.get(list).await;
        assert_eq!(status, 200, "{list}");
        // The second part of each list: the answer has begun by then, though its head may not be out.
        admin.daemon.script().breaks_at = Some("2".to_owned());
        let (mut text, mut broken) = (Vec::new(), true);
        if let Ok(response) = admin.try_open("GET", list, &[], "").await {
            let mut body = response.into_body();
            broken = loop {
                match body.frame().await {
                    Some(Ok(frame)) => text.extend(frame.into_data().unwrap_or_default()),
                    Some(Err(_)) => break true,
                    None => break false,
                }
            };
        }
        assert!(broken, "{list}: it ended as if it were whole");
        assert!(text.len() < whole.len(), "{list}");
        assert!(whole.as_bytes().starts_with(&text), "{list}");
    }
    admin.stop().await;
}
