//! Tags and choices that Looker's own action does not have.

use super::*;

fn one(tag: &str, settings: Settings) -> Plan {
    plan(&format!("a.id: mp_other, a.x: {tag}"), settings)
}

#[test]
fn mparticles_own_id_is_a_whole_number_and_comes_first() {
    let plan = plan("a.mail: mp_email, a.mpid: mp_mpid", USERS);
    let both = &["\"a@b.c\"", "\"-5\""];
    assert_eq!(identities(&plan, both), r#""mpid":-5,"email":"a@b.c""#);
    assert_eq!(identities(&plan, &["null", "7"]), r#""mpid":7"#);
    let (record, tally) = map(&plan, &["\"a@b.c\"", "\"x\""]);
    assert_eq!(record.unwrap().view().identities, br#""email":"a@b.c""#);
    assert_eq!(tally.count(Note::NotAnInteger, 1), 1);
    assert!(map(&plan, &["null", "1.5"]).0.is_err());
    assert_eq!(plan.fates()[1].goes_to.as_deref(), Some("mpid"));
}

#[test]
fn identities_are_cleaned_only_when_asked_for() {
    let fields = "a.id: mp_customer_id, a.mail: mp_email";
    let literals = &[r#"" Ab\t""#, r#"" ÄNN@x.Y ""#];
    for (trim_identities, lowercase_email, want) in [
        (false, false, r#""customer_id":" Ab\t","email":" ÄNN@x.Y ""#),
        (true, false, r#""customer_id":"Ab","email":"ÄNN@x.Y""#),
        (false, true, r#""customer_id":" Ab\t","email":" änn@x.y ""#),
        (true, true, r#""customer_id":"Ab","email":"änn@x.y""#),
    ] {
        let settings = Settings {
            trim_identities,
            lowercase_email,
            ..USERS
        };
        assert_eq!(identities(&plan(fields, settings), literals), want);
    }

    let stripping = Settings {
        strip_html: true,
        ..USERS
    };
    let html = plan(fields, stripping);
    let (record, tally) = map(&html, &["\"<a href='x'>7</a>\"", "\"<i></i>\""]);
    assert_eq!(record.unwrap().view().identities, br#""customer_id":"7""#);
    assert_eq!(tally.count(Note::HtmlTakenOut, 0), 1);
}

#[test]
fn dates_and_seconds_become_milliseconds_and_are_counted() {
    let head = |timezone: Option<&str>| Header {
        timezone: timezone.map(str::to_owned),
        ..header("e.id: mp_email, e.at: mp_timestamp_unixtime_ms")
    };
    let vienna = Plan::new(&head(Some("Europe/Vienna")), &EVENTS, [7; 16]).unwrap();
    let nowhere = Plan::new(&head(Some("Middle/Earth")), &EVENTS, [7; 16]).unwrap();
    let seconds = Some(Note::FromSeconds);
    let date = Some(Note::FromDate);
    let utc = Some(Note::FromDateAsUtc);
    let local = "\"2026-11-20 13:05:00\"";
    let offset = "\"2026-11-20T13:05:00+02:00\"";
    for (plan, literal, want, note) in [
        (&vienna, "1760000000000", 1_760_000_000_000i64, None),
        (&vienna, "\"1760000000000\"", 1_760_000_000_000, None),
        (&vienna, "1760000000", 1_760_000_000_000, seconds),
        (&vienna, "1760000000.25", 1_760_000_000_250, seconds),
        (&vienna, local, 1_795_176_300_000, date),
        (&nowhere, local, 1_795_179_900_000, utc),
        (&nowhere, offset, 1_795_172_700_000, date),
    ] {
        let (event, tally) = event(plan, &["\"a\"", literal]);
        assert_eq!(event["timestamp_unixtime_ms"], want, "{literal}");
        for counted in [Note::FromSeconds, Note::FromDate, Note::FromDateAsUtc] {
            let times = u64::from(note == Some(counted));
            assert_eq!(tally.count(counted, 1), times, "{literal} {counted:?}");
        }
    }
}

#[test]
fn html_is_taken_out_of_values_only_when_asked_for() {
    let fields = "e.id: mp_email, e.name: mp_event_name, e.a: mp_custom_attribute, \
         e.b: mp_custom_attribute";
    let link = r#""<a href=\"x\">R&amp;D</a>""#;
    let literals = &["\"a\"", "\"<i></i>\"", link, "\"1 < 2\""];
    let (as_it_is, tally) = event(&plan(fields, EVENTS), literals);
    assert_eq!(as_it_is["event_name"], "<i></i>");
    assert_eq!(tally.count(Note::HtmlTakenOut, 2), 0);
    let stripping = Settings {
        strip_html: true,
        ..EVENTS
    };
    let (stripped, tally) = event(&plan(fields, stripping.clone()), literals);
    assert_eq!(stripped["event_name"], "looker_custom_event");
    let want = serde_json::json!({"looker_e.a": "R&D", "looker_e.b": "1 < 2"});
    assert_eq!(stripped["custom_attributes"], want);
    let counts = [1, 2, 3].map(|slot| tally.count(Note::HtmlTakenOut, slot));
    assert_eq!(counts, [1, 1, 0]);
    let long = format!("\"<b>{}</b>\"", "é".repeat(5000));
    let (cut, tally) = event(&plan(fields, stripping), &["\"a\"", "null", &long, "null"]);
    let sent = cut["custom_attributes"]["looker_e.a"].as_str().unwrap();
    assert_eq!(sent.chars().count(), 4096);
    assert_eq!(tally.count(Note::Cut, 2), 1);
}

#[test]
fn a_null_attribute_is_left_out_sent_or_deleted_as_chosen() {
    for (nulls, user, custom) in [
        (Nulls::Omit, None, None),
        (Nulls::Null, Some("null"), Some(serde_json::Value::Null)),
        (Nulls::Delete, Some("-"), None),
    ] {
        let settings = Settings { nulls, ..EVENTS };
        let sent = attributes(&one("mp_user_attribute", settings.clone()), &["1", "null"]);
        let sent: Vec<_> = sent.iter().map(|(_, literal)| literal.as_str()).collect();
        assert_eq!(sent, Vec::from_iter(user), "{nulls:?}");
        let plan = one("mp_custom_attribute", settings.clone());
        let (event, _) = event(&plan, &["1", "null"]);
        let sent = event.get("custom_attributes");
        let sent = sent.map(|all| all["looker_a.x"].clone());
        assert_eq!(sent, custom, "{nulls:?}");
        // A cell that is not there is no null.
        let (record, tally) = map(&one("mp_user_attribute", settings.clone()), &["1", ""]);
        assert_eq!(record.unwrap().view().attributes, b"", "{nulls:?}");
        assert_eq!(tally.count(Note::Absent, 1), 1);
    }
    assert_eq!(DELETED, b"-");
}

#[test]
fn ip_and_place_are_checked_and_stand_behind_the_device() {
    let plan = plan(
        "a.id: mp_customer_id, a.lat: mp_latitude, a.ip: mp_ip, \
         a.brand: mp_device_info, a.long: mp_longitude",
        EVENTS,
    );
    assert_eq!(plan.names().device_info(), 1);
    let (good, _) = device(&plan, &["1", "48.20", "\"::1\"", "\"x\"", "\" 16.37 \""]);
    let want = r#""brand":"x","ip":"::1","location":{"latitude":48.20,"longitude":16.37}"#;
    assert_eq!(good, want);
    let none = device(&plan, &["1", "null", "null", "null", "null"]).0;
    assert_eq!(none, "");
    for (literals, note, slot) in [
        (["1", "null", "\"1.2.3\"", "null", "null"], Note::NotAnIp, 2),
        (["1", "null", "true", "null", "null"], Note::NotAnIp, 2),
        (["1", "90.1", "null", "null", "0"], Note::NotAPlace, 1),
        (["1", "1", "null", "null", "-180.5"], Note::NotAPlace, 1),
        (["1", "1", "null", "null", "null"], Note::NotAPlace, 1),
        (["1", "\"NaN\"", "null", "null", "1"], Note::NotAPlace, 1),
        (["1", "\"01\"", "null", "null", "1"], Note::NotAPlace, 1),
    ] {
        let (sent, tally) = device(&plan, &literals);
        assert_eq!(sent, "", "{literals:?}");
        assert_eq!(tally.count(note, slot), 1, "{literals:?}");
    }
}

#[test]
fn half_a_place_is_not_sent_and_the_person_is_told() {
    let plan = one("mp_latitude", EVENTS);
    assert_eq!(plan.names().location, None);
    assert_eq!(plan.fates()[1].goes_to, None);
    assert!(plan.remarks().any(|told| told.contains("mp_longitude")));
}

const SKIPPING: Settings = settings_of(DataType::Event, true);

#[test]
fn skipping_what_was_sent_needs_a_column_that_tells_events_apart() {
    let fields = |tag: &str| header(&format!("a.id: mp_customer_id, a.x: {tag}"));
    let refused = Plan::new(&fields("mp_custom_attribute"), &SKIPPING, [0; 16]).unwrap_err();
    assert_eq!(refused, PlanError::NothingTellsApart);
    assert!(refused.to_string().contains("mp_timestamp_unixtime_ms"));
    for tag in ["mp_timestamp_unixtime_ms", "mp_event_id"] {
        let plan = Plan::new(&fields(tag), &SKIPPING, [0; 16]).unwrap();
        assert!(map(&plan, &["1", "1760000000000"]).0.is_ok());
        let error = map(&plan, &["1", "null"]).0.unwrap_err();
        assert_eq!(error, Rejection::NotDistinct);
    }
    let profiles = Settings {
        skip_sent: true,
        ..USERS
    };
    let plan = Plan::new(&fields("mp_user_attribute"), &profiles, [0; 16]).unwrap();
    assert!(map(&plan, &["1", "null"]).0.is_ok());
}

#[test]
fn when_sent_events_are_skipped_equal_rows_give_equal_records() {
    let there: &[(&str, &[&str])] = &[
        ("a.id", &["mp_customer_id"]),
        ("a.at", &["mp_timestamp_unixtime_ms"]),
        ("a.x", &["mp_custom_attribute"]),
        ("a.y", &["mp_custom_attribute"]),
        ("a.os_version", &["mp_device_info"]),
        ("a.brand", &["mp_device_info"]),
        ("a.age", &["mp_user_attribute"]),
    ];
    let mut back = there.to_vec();
    back.reverse();
    let time = "1760000000000";
    let literals = ["1", time, r#""a\/b""#, "4", "\"5\"", "\"6\"", "30"];
    let escaped = r#""a\u002fb""#;
    let again = ["31", "\"6\"", "\"5\"", "4", escaped, "1.76e12", "\"1\""];
    let first = map(&plan_of(there, SKIPPING), &literals).0.unwrap();
    let second = map(&plan_of(&back, SKIPPING), &again).0.unwrap();
    let content = |record: &Record| {
        let view = record.view();
        [view.identities, view.device, view.event].map(<[u8]>::to_vec)
    };
    assert_eq!(content(&first), content(&second));
    assert_eq!(first.user, second.user);
    let mut other = literals;
    other[3] = "5";
    let third = map(&plan_of(there, SKIPPING), &other).0.unwrap();
    assert_eq!(first.user & !EVENT_BITS, third.user & !EVENT_BITS);
    assert_ne!(first.user, third.user);
}

#[test]
fn an_event_that_is_old_when_the_delivery_comes_in_is_marked() {
    let fields: &[(&str, &[&str])] = &[
        ("e.id", &["mp_customer_id"]),
        ("e.at", &["mp_timestamp_unixtime_ms"]),
    ];
    let now = 1_800_000_000_000;
    let settings = |historical| Settings {
        historical,
        now: UnixMillis(now),
        ..EVENTS
    };
    let auto = plan_of(fields, settings(Historical::Auto));
    let always = plan_of(fields, settings(Historical::Always));
    let days = |days: u64| now - days * 86_400_000;
    for (literal, old) in [
        (days(40).to_string(), true),
        // Seconds, and a date.
        ((days(40) / 1000).to_string(), true),
        ("\"2020-02-29\"".to_owned(), true),
        (days(10).to_string(), false),
        (days(0).to_string(), false),
        ((now + 1_000_000).to_string(), false),
        ("null".to_owned(), false),
    ] {
        let (record, _) = map(&auto, &["7", &literal]);
        let record = record.unwrap();
        let (mark, members) = members(&auto, &record);
        assert_eq!(mark.old, old, "{literal}");
        assert!(members.starts_with("\"event_name\""), "{literal}");
    }
    let rejected = |literal: String| map(&always, &["7", &literal]).0.unwrap_err();
    assert_eq!(rejected(days(3).to_string()), Rejection::TooYoung);
    let untimed = rejected("null".to_owned());
    assert_eq!(untimed, Rejection::HistoricalWithoutTime);
    let head = header_of(&fields[..1]);
    let untimed = Plan::new(&head, &settings(Historical::Always), [7; 16]);
    assert_eq!(untimed.unwrap_err(), PlanError::HistoricalWithoutTime);
    // Where nothing is sent as historical, records are as they always were.
    let plan = plan_of(fields, EVENTS);
    let record = map(&plan, &["7", "\"2020-02-29\""]).0.unwrap();
    assert_eq!(members(&plan, &record).0, Mark::default());
}

#[test]
fn a_consent_needs_a_boolean_and_a_time() {
    let fields: &[(&str, &[&str])] = &[
        ("u.id", &["mp_customer_id"]),
        ("c.marketing", &["mp_consent_gdpr"]),
        ("c.at", &["mp_consent_timestamp"]),
        ("u.adobe", &["mp_partner_identity"]),
    ];
    let with_time = plan_of(fields, USERS);
    let yes = |time: i64| Some((true, time));
    let no = |time: i64| Some((false, time));
    let untimed = Some(Note::ConsentWithoutTime);
    let date = "\"2026-11-20T13:05:00Z\"";
    for (consent, time, want, note) in [
        ("true", "1760000000123", yes(1_760_000_000_123), None),
        ("\"Y\"", "1760000000123456", yes(1_760_000_000_123), None),
        ("\"off\"", "1760000000123", no(1_760_000_000_123), None),
        ("1.0", "1.76e9", yes(1_760_000_000_000), None),
        ("true", "5", None, untimed),
        ("\"No\"", "1760000000", no(1_760_000_000_000), None),
        ("\"yes\"", date, yes(1_795_179_900_000), None),
        ("null", "1760000000", None, None),
        ("\"perhaps\"", "1760000000", None, Some(Note::NotABoolean)),
        ("true", "null", None, untimed),
        ("true", "\"soon\"", None, untimed),
    ] {
        let (record, tally) = map(&with_time, &["7", consent, time, "null"]);
        let record = record.unwrap();
        let found: Vec<_> = settings(record.view().device).collect();
        let literal = want.map(|(consented, time)| {
            format!("{{\"consented\":{consented},\"timestamp_unixtime_ms\":{time}}}")
        });
        let gdpr = with_time.names().gdpr.start;
        let want = literal.iter().map(|literal| (gdpr, literal.as_bytes()));
        assert_eq!(found, Vec::from_iter(want), "{consent} {time}");
        if let Some(note) = note {
            assert_eq!(tally.count(note, 1), 1, "{consent} {time}");
        }
    }
    let without = plan_of(&[fields[0], fields[1], fields[3]], USERS);
    let why = without.fates()[1].remark.as_ref().unwrap();
    assert!(why.contains("mp_consent_timestamp"), "{why}");
    let (record, _) = map(&without, &["7", "true", "\"x\""]);
    let record = record.unwrap();
    let found: Vec<_> = settings(record.view().device).collect();
    assert_eq!(found, [(without.names().partners.start, &b"\"x\""[..])]);
}

#[test]
fn a_number_that_no_double_holds_is_left_out_and_counted() {
    let plan = one("mp_user_attribute", USERS);
    let long = "9".repeat(300);
    for (literal, sent) in [
        ("1e999", false),
        ("-1E400", false),
        ("1e308", true),
        ("1.5E-3", true),
        (long.as_str(), true),
        ("123456789012345678901234567890", true),
    ] {
        let (record, tally) = map(&plan, &["7", literal]);
        let record = record.unwrap();
        let found: Vec<_> = settings(record.view().attributes).collect();
        assert_eq!(found == [(0, literal.as_bytes())], sent, "{literal}");
        let left_out = tally.count(Note::NotANumber, 1);
        assert_eq!(left_out, u64::from(!sent), "{literal}");
    }
    let digits = "9".repeat(400);
    let (record, tally) = map(&plan, &["7", &digits]);
    assert!(record.unwrap().view().attributes.is_empty());
    assert_eq!(tally.count(Note::NotANumber, 1), 1);
}
