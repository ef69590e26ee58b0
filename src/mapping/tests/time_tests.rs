//! The times of events in all the forms in which they come, and what is not a plausible one.

use jiff::Timestamp;
use proptest::prelude::*;

use super::*;

fn timed(column: &str, lookml: Option<&str>, zone: &str) -> Plan {
    let mut head = header_of(&[
        ("e.id", &["mp_customer_id"]),
        (column, &["mp_timestamp_unixtime_ms"]),
    ]);
    head.timezone = Some(zone.to_owned());
    head.fields[1].lookml_type = lookml.map(str::to_owned);
    Plan::new(&head, &EVENTS, [7; 16]).unwrap()
}

/// The time that is sent, as RFC 3339, and what is noted.
fn read(plan: &Plan, literal: &str) -> Result<(String, Option<Note>), Guess> {
    let (record, tally) = map(plan, &["1", literal]);
    let record = record.map_err(|error| match error {
        Rejection::Timestamp { guess, .. } => guess,
        other => panic!("{literal}: {other}"),
    })?;
    let (_, members) = members(plan, &record);
    let data: serde_json::Value = serde_json::from_str(&format!("{{{members}}}")).unwrap();
    let millis = data["timestamp_unixtime_ms"].as_i64().unwrap();
    let time = Timestamp::from_millisecond(millis).unwrap().to_string();
    let noted = [
        Note::FromDate,
        Note::FromDateAsUtc,
        Note::FromDay,
        Note::FromSeconds,
        Note::FromMicros,
        Note::FromNanos,
    ];
    let mut noted = noted.into_iter().filter(|note| tally.count(*note, 1) > 0);
    let note = noted.next();
    assert_eq!(noted.next(), None, "one note for {literal}");
    Ok((time, note))
}

#[test]
fn a_number_is_read_in_the_unit_that_its_size_says() {
    let plan = timed("e.at", None, "UTC");
    for (literal, want, note) in [
        ("1763650000123", "2025-11-20T14:46:40.123Z", None),
        ("\"1763650000123\"", "2025-11-20T14:46:40.123Z", None),
        ("1763650000123.0", "2025-11-20T14:46:40.123Z", None),
        ("1.763650000123E12", "2025-11-20T14:46:40.123Z", None),
        ("1763650000123.456", "2025-11-20T14:46:40.123Z", None),
        (
            "1763650000",
            "2025-11-20T14:46:40Z",
            Some(Note::FromSeconds),
        ),
        (
            "1763650000.25",
            "2025-11-20T14:46:40.25Z",
            Some(Note::FromSeconds),
        ),
        (
            "\"1.76365000025E9\"",
            "2025-11-20T14:46:40.25Z",
            Some(Note::FromSeconds),
        ),
        ("978307200", "2001-01-01T00:00:00Z", Some(Note::FromSeconds)),
        (
            "1763650000123456",
            "2025-11-20T14:46:40.123Z",
            Some(Note::FromMicros),
        ),
        (
            "\"1763650000123456\"",
            "2025-11-20T14:46:40.123Z",
            Some(Note::FromMicros),
        ),
        (
            "1763650000123456789",
            "2025-11-20T14:46:40.123Z",
            Some(Note::FromNanos),
        ),
    ] {
        assert_eq!(
            read(&plan, literal),
            Ok((want.to_owned(), note)),
            "{literal}"
        );
    }
}

#[test]
fn a_date_may_have_an_offset_or_a_zone_behind_a_space() {
    let plan = timed("e.at", None, "America/New_York");
    for (literal, want) in [
        ("2026-11-03", "2026-11-03T05:00:00Z"),
        ("2026-11-03 17:15:00", "2026-11-03T22:15:00Z"),
        ("2026/11/03 17:15:00", "2026-11-03T22:15:00Z"),
        ("2026-11-20 24:00:00", "2026-11-21T05:00:00Z"),
        ("2026-06-30 23:59:60", "2026-07-01T03:59:59Z"),
        // Looker's raw format.
        ("2026-11-03 17:15:00 +0000", "2026-11-03T17:15:00Z"),
        ("2026-11-03 17:15:00 -0700", "2026-11-04T00:15:00Z"),
        ("2026-11-03 17:15:00 +05:30", "2026-11-03T11:45:00Z"),
        ("2026-11-03T17:15:00 +00:00", "2026-11-03T17:15:00Z"),
        ("2026-11-03 17:15:00+00", "2026-11-03T17:15:00Z"),
        ("2026-11-03T17:15:00+0000", "2026-11-03T17:15:00Z"),
        ("2026-11-03 17:15:00.000 -0800", "2026-11-04T01:15:00Z"),
        ("2026-11-03 17:15:00 utc", "2026-11-03T17:15:00Z"),
        ("2026-11-03 17:15:00.000 UTC", "2026-11-03T17:15:00Z"),
        ("2026-11-03 17:15:00 GMT", "2026-11-03T17:15:00Z"),
        ("2026-11-03 17:15:00 Z", "2026-11-03T17:15:00Z"),
        ("2026-11-03 17:15:00 EST", "2026-11-03T22:15:00Z"),
        (
            "2026-11-03 17:15:00.000 America/Los_Angeles",
            "2026-11-04T01:15:00Z",
        ),
        ("2026-07-03 17:15:00 europe/vienna", "2026-07-03T15:15:00Z"),
        ("2026-11-03T17:15:00.1234567Z", "2026-11-03T17:15:00.123Z"),
        ("2026-11-03 17:15:00 +0", "!"),
        ("2026-11-03 17:15:00 PST", "!"),
        ("2026-11-03 17:15:00 +2500", "!"),
        ("2026-11-03 and more", "!"),
    ] {
        let want = match want {
            "!" => None,
            want => Some((want.to_owned(), Some(Note::FromDate))),
        };
        let got = read(&plan, &format!("\"{literal}\"")).ok();
        assert_eq!(got, want, "{literal}");
    }
}

#[test]
fn what_is_no_plausible_time_is_refused_with_a_guess() {
    let plan = timed("e.at", None, "UTC");
    for (literal, want) in [
        ("2026", Guess::Year),
        ("\"2026\"", Guess::Year),
        ("17", Guess::Part),
        ("0", Guess::Placeholder),
        ("-1", Guess::Placeholder),
        ("20261120", Guess::Day),
        ("202611", Guess::Month),
        ("2026112013", Guess::Compact),
        ("20261120130500", Guess::Compact),
        ("46346.545", Guess::SpreadsheetDay),
        ("46346", Guess::SpreadsheetDay),
        ("176365000012", Guess::TooEarly),
        ("99999999999999999", Guess::TooLate),
        ("1.5", Guess::Unreadable),
        ("\"0001-01-01 00:00:00\"", Guess::Placeholder),
        ("\"9999-12-31\"", Guess::Placeholder),
        ("\"1970-01-01 00:00:00\"", Guess::Placeholder),
        ("\"1900-01-01\"", Guess::Placeholder),
        ("\"1999-12-31 23:59:59\"", Guess::TooEarly),
        ("\"2027-11-30\"", Guess::TooLate),
        ("\"2026-11\"", Guess::Month),
        ("\"2026-Q4\"", Guess::Quarter),
        ("\"FY2026-Q4\"", Guess::Fiscal),
        ("\"2026-W47\"", Guess::Week),
        ("\"03.11.2026 17:15\"", Guess::DayFirst),
        ("\"11/3/2026\"", Guess::DayFirst),
        ("\"2026-11-03 17:15:00 PST\"", Guess::UnknownZone),
        ("\"2026-11-31\"", Guess::Unreadable),
        ("\"soon\"", Guess::Unreadable),
        ("true", Guess::Unreadable),
        ("99999999999999999999", Guess::Unreadable),
        ("[1]", Guess::Unreadable),
    ] {
        assert_eq!(read(&plan, literal), Err(want), "{literal}");
    }
    let error = map(&plan, &["1", "2026"]).0.unwrap_err();
    assert_eq!(
        error.to_string(),
        "the timestamp in column e.at looks like a year: choose the timeframe time or raw of its dimension group: 2026"
    );
    let long = format!("\"{}\"", "x".repeat(100));
    let error = map(&plan, &["1", &long]).0.unwrap_err();
    assert_eq!(error.value().unwrap().chars().count(), 41);
    assert!(!error.kind().contains('x'));
}

#[test]
fn a_day_as_digits_is_read_where_the_column_says_so() {
    for (column, lookml, is_day) in [
        ("e.at", None, false),
        ("e.event_date", None, true),
        ("e.at", Some("date_date"), true),
    ] {
        let plan = timed(column, lookml, "Europe/Vienna");
        for literal in ["20261120", "\"20261120\"", "20261120.0"] {
            let want = ("2026-11-19T23:00:00Z".to_owned(), Some(Note::FromDay));
            let want = if is_day { Ok(want) } else { Err(Guess::Day) };
            assert_eq!(read(&plan, literal), want, "{column} {literal}");
        }
        assert_eq!(read(&plan, "20261320"), Err(Guess::Unreadable), "{column}");
    }
}

#[test]
fn the_window_of_plausible_times_can_be_moved() {
    let head = header("e.id: mp_customer_id, e.at: mp_timestamp_unixtime_ms");
    let settings = Settings {
        plausible: Plausible {
            earliest: 0,
            ahead: 0,
        },
        ..EVENTS
    };
    let plan = Plan::new(&head, &settings, [7; 16]).unwrap();
    let now = EVENTS.now.0;
    assert_eq!(
        read(&plan, "0"),
        Ok(("1970-01-01T00:00:00Z".to_owned(), None))
    );
    assert!(read(&plan, &now.to_string()).is_ok());
    assert_eq!(read(&plan, &(now + 1).to_string()), Err(Guess::TooLate));
    assert_eq!(read(&plan, "-1"), Err(Guess::Placeholder));
}

#[test]
fn a_timeframe_that_is_too_coarse_is_told_of() {
    for (column, lookml, told) in [
        ("e.created_week", None, Some("week")),
        ("e.created_at", Some("date_quarter"), Some("quarter")),
        ("e.created_at", Some("date_time"), None),
    ] {
        let plan = timed(column, lookml, "UTC");
        let remark = plan.fates()[1].remark.clone().unwrap_or_default();
        let want = told.map(|told| format!("its timeframe seems to be {told}"));
        assert_eq!(remark.is_empty(), want.is_none(), "{remark}");
        assert!(remark.starts_with(&want.unwrap_or_default()), "{remark}");
    }
}

proptest! {
    #[test]
    fn a_plausible_time_is_the_same_in_every_unit_and_spelling(
        seconds in 946_684_800i64..1_820_000_000,
        millis in 0i64..1000,
    ) {
        let plan = timed("e.at", None, "UTC");
        let time = Timestamp::from_millisecond(seconds * 1000 + millis).unwrap();
        let want = time.to_string();
        let civil = time.to_zoned(jiff::tz::TimeZone::UTC).datetime();
        let spaced = civil.to_string().replace('T', " ");
        for literal in [
            format!("{seconds}{millis:03}"),
            format!("{seconds}.{millis:03}"),
            format!("{seconds}{millis:03}000"),
            format!("{seconds}{millis:03}999999"),
            format!("{seconds}{millis:03}e0"),
            format!("\"{time}\""),
            format!("\"{civil}\""),
            format!("\"{spaced}\""),
            format!("\"{spaced} +0000\""),
            format!("\"{spaced} gmt\""),
            format!("\"{}\"", spaced.replacen('-', "/", 2)),
        ] {
            prop_assert_eq!(&read(&plan, &literal).unwrap().0, &want, "{}", literal);
        }
    }

    #[test]
    fn whatever_is_sent_is_plausible(
        text in "[0-9./: TZ+-]{0,24}",
        number in any::<f64>(),
        whole in any::<i64>(),
        shift in 0u32..63,
    ) {
        let plan = timed("e.event_date", None, "Asia/Kolkata");
        for literal in [
            format!("\"{text}\""),
            serde_json::Value::from(number).to_string(),
            (whole >> shift).to_string(),
        ] {
            let Ok(record) = map(&plan, &["1", &literal]).0 else {
                continue;
            };
            let (_, members) = members(&plan, &record);
            let data: serde_json::Value = serde_json::from_str(&format!("{{{members}}}")).unwrap();
            if let Some(millis) = data.get("timestamp_unixtime_ms") {
                let millis = millis.as_i64().unwrap();
                let latest = EVENTS.now.0 as i64 + EVENTS.plausible.ahead;
                prop_assert!((EVENTS.plausible.earliest..=latest).contains(&millis), "{}", literal);
            }
        }
    }
}
