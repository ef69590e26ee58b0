//! What real warehouses send, kind by kind: each value here was seen in the wild or is next to one.

use proptest::prelude::*;

use super::*;

fn typed(fields: &[(&str, &[&str], &str)]) -> Header {
    let mut header = Header::default();
    for (name, tags, lookml) in fields {
        header.fields.push(Field {
            lookml_type: Some((*lookml).to_owned()),
            ..field(name, tags)
        });
    }
    header
}

#[test]
fn a_number_becomes_the_same_text_wherever_it_becomes_a_text() {
    for (literal, want) in [
        ("4653", "4653"),
        ("4653.0", "4653"),
        ("3.241201784E9", "3241201784"),
        ("12345678901234567890", "12345678901234567890"),
        ("1.234567890123456789e19", "12345678901234567890"),
        ("-0.0", "0"),
        ("1.10", "1.10"),
        ("0.30000000000000004", "0.30000000000000004"),
    ] {
        for (tag, name) in [
            ("mp_customer_id", "customer_id"),
            ("mp_mobile_number", "mobile_number"),
            ("mp_alias", "alias"),
        ] {
            let plan = plan(&format!("a.x: {tag}"), USERS);
            let want = format!("\"{name}\":\"{want}\"");
            assert_eq!(identities(&plan, &[literal]), want, "{literal}");
        }
        let fields: &[(&str, &[&str])] = &[
            ("a.id", &["mp_customer_id"]),
            ("a.partner", &["mp_partner_identity"]),
            ("a.brand", &["mp_device_info"]),
            ("a.kind", &["mp_event_type"]),
            ("a.order", &["mp_transaction_id"]),
            ("a.sku", &["mp_product_id"]),
            ("a.total", &["mp_total_amount"]),
            ("a.size", &["mp_product_custom_attribute"]),
            ("a.ltv", &["mp_user_attribute"]),
        ];
        let plan = plan_of(fields, EVENTS);
        let mut literals = vec![literal; fields.len()];
        literals[3] = "\"commerce_event\"";
        let record = map(&plan, &literals).0.unwrap();
        let view = record.view();
        let device: Vec<_> = settings(view.device).map(|(_, literal)| literal).collect();
        let text = format!("\"{want}\"");
        assert_eq!(device, [text.as_bytes(); 2], "{literal}");
        let event = String::from_utf8_lossy(view.event).into_owned();
        for member in [
            format!("\"transaction_id\":{text}"),
            // Numbers that stay numbers keep their digits.
            format!("\"total_amount\":{literal}"),
            format!("\"id\":{text}"),
            format!("\"looker_a.size\":{text}"),
        ] {
            assert!(event.contains(&member), "{member} in {event}");
        }
        let attribute: Vec<_> = settings(view.attributes).map(|(_, value)| value).collect();
        assert_eq!(attribute, [literal.as_bytes()]);
    }
}

#[test]
fn integers_are_read_in_every_spelling_of_a_number() {
    let fields = "a.id: mp_mpid, a.event: mp_event_id, a.session: mp_session_id, \
         a.screen_width: mp_device_info";
    let plan = plan(fields, EVENTS);
    let (record, _) = map(&plan, &["7.0", "3.241201784E9", "1e3", "640.0"]);
    let record = record.unwrap();
    assert_eq!(record.view().identities, b"\"mpid\":7");
    let device: Vec<_> = settings(record.view().device).collect();
    assert_eq!(device, [(0, &b"640"[..])]);
    let (_, members) = members(&plan, &record);
    assert!(members.contains("\"event_id\":3241201784"), "{members}");
    assert!(members.contains("\"session_id\":1000"), "{members}");
}

#[test]
fn a_row_whose_identity_is_no_number_is_rejected() {
    let plan = plan("a.id: mp_customer_id, a.mail: mp_email", USERS);
    for literals in [["1e400", "\"a@b.c\""], ["7", "-1e999"]] {
        let error = map(&plan, &literals).0.unwrap_err();
        assert!(matches!(error, Rejection::IdentityTooLarge(_)), "{error}");
    }
}

#[test]
fn a_list_stays_a_list_however_long_and_an_attribute_keeps_its_type() {
    let fields = "u.id: mp_customer_id, u.skus: mp_user_attribute";
    let plan = plan(fields, USERS);
    let long: Vec<_> = (0..300).map(|at| format!("SKU-{at:016}")).collect();
    let long = serde_json::json!(long).to_string();
    assert!(long.len() > 4096);
    let deep = format!("[[{}]]", vec!["\"x\""; 2000].join(","));
    let object = format!("{{\"a\":{}}}", &deep);
    let (flat, nested) = (r#"["a"]"#, r#"[["a"]]"#);
    let (flat_text, nested_text) = (r#""[\"a\"]""#, r#""[[\"a\"]]""#);
    for (rows, note) in [
        (vec![(&*long, Some(&*long))], None),
        (
            vec![(flat, Some(flat)), (nested, None)],
            Some(Note::MixedLists),
        ),
        (
            vec![(nested, Some(nested_text)), (flat, Some(flat_text))],
            Some(Note::SentAsText),
        ),
        (vec![(&deep, None)], Some(Note::TooLong)),
        (vec![(&object, None)], Some(Note::TooLong)),
    ] {
        let mut tally = Tally::new(2);
        for (literal, want) in rows {
            let record = map_into(&plan, &["1", literal], &mut tally).unwrap();
            let sent = settings(record.view().attributes).next();
            let sent = sent.map(|(_, literal)| std::str::from_utf8(literal).unwrap());
            assert_eq!(sent, want, "{literal:.40}");
        }
        if let Some(note) = note {
            assert!(tally.count(note, 1) > 0, "{note:?}");
        } else {
            assert_eq!(tally.sentences(plan.columns()).count(), 0);
        }
    }
}

#[test]
fn of_an_event_a_long_list_is_left_out_and_not_cut() {
    let plan = plan("e.id: mp_customer_id, e.list: mp_custom_attribute", EVENTS);
    let long = format!("[{}]", vec!["\"entry\""; 1000].join(","));
    let (sent, tally) = event(&plan, &["1", &long]);
    assert_eq!(sent.get("custom_attributes"), None);
    assert_eq!(tally.count(Note::TooLong, 1), 1);
    let (sent, _) = event(&plan, &["1", "[1,[2]]"]);
    assert_eq!(sent["custom_attributes"]["looker_e.list"], "[1,[2]]");
}

#[test]
fn a_placeholder_is_no_identity_unless_it_is_wanted() {
    let fields = "a.id: mp_customer_id, a.mail: mp_email, a.partner: mp_partner_identity";
    let common = plan(fields, Settings::new(DataType::User));
    for text in [
        "null",
        "NULL",
        "None",
        "undefined",
        "NaN",
        "N/A",
        "(null)",
        "00000000-0000-0000-0000-000000000000",
    ] {
        let literal = format!("\"{text}\"");
        let literals = [literal.as_str(), "\"a@b.c\"", literal.as_str()];
        let (record, tally) = map(&common, &literals);
        let record = record.unwrap();
        assert_eq!(record.view().identities, b"\"email\":\"a@b.c\"", "{text}");
        assert_eq!(record.view().device, b"", "{text}");
        let counts = [0, 1, 2].map(|slot| tally.count(Note::Placeholder, slot));
        assert_eq!(counts, [1, 0, 1], "{text}");
        let error = map(&common, &[&literal, "null", "null"]).0.unwrap_err();
        assert!(matches!(error, Rejection::NoIdentity(_)), "{text}");
        // An empty list: as it is.
        let before = plan(fields, USERS);
        let (record, tally) = map(&before, &literals);
        let customer = format!("\"customer_id\":{literal},\"email\":\"a@b.c\"");
        assert_eq!(record.unwrap().view().identities, customer.as_bytes());
        assert_eq!(tally.count(Note::Placeholder, 0), 0);
    }
    let zero = Settings {
        placeholders: Placeholders::new(["0"]),
        ..USERS
    };
    let (record, _) = map(&plan(fields, zero), &["0.0", "null", "null"]);
    assert!(record.is_err());
}

#[test]
fn an_identity_that_very_many_rows_share_is_told_of() {
    let fields = "a.id: mp_customer_id, a.mail: mp_email";
    let plan = plan(fields, USERS);
    let told = |shared: u64, rows: u64| {
        let mut tally = Tally::new(2);
        for row in 0..rows {
            let mail = match row < shared {
                true => "\"office@b.c\"".to_owned(),
                false => format!("\"{row}@b.c\""),
            };
            map_into(&plan, &[&row.to_string(), &mail], &mut tally).unwrap();
        }
        tally.sentences(plan.columns()).collect::<Vec<_>>()
    };
    assert!(told(100, 1_000).is_empty());
    assert!(told(101, 20_000).is_empty());
    let want = "Column a.mail: one identity is that of 500 of 1000 rows, first in row 4: is it a placeholder (mparticle.placeholder_identities)?";
    assert_eq!(told(500, 1_000), [want]);
}

#[test]
fn white_space_around_an_identity_gets_a_hint() {
    let fields = "a.id: mp_customer_id";
    for (literal, is_untrimmed) in [
        ("\"7\"", false),
        ("\" 7\"", true),
        ("\"7 \"", true),
        (r#""7\t""#, true),
        (r#""\n7""#, true),
        (r#""7\\t""#, false),
        ("\"7\u{a0}\"", true),
        ("\"(7)\"", false),
        ("\"é\"", false),
    ] {
        let (record, tally) = map(&plan(fields, USERS), &[literal]);
        assert!(record.is_ok(), "{literal}");
        let count = tally.count(Note::Untrimmed, 0);
        assert_eq!(count, u64::from(is_untrimmed), "{literal}");
        let trimming = Settings {
            trim_identities: true,
            ..USERS
        };
        let (_, tally) = map(&plan(fields, trimming), &[literal]);
        assert_eq!(tally.count(Note::Untrimmed, 0), 0, "{literal}");
    }
}

#[test]
fn what_nobody_can_be_and_what_nobody_can_see_is_refused() {
    let mpid = plan("a.id: mp_mpid, a.mail: mp_email", USERS);
    let (record, tally) = map(&mpid, &["0", "\"a@b.c\""]);
    assert_eq!(record.unwrap().view().identities, b"\"email\":\"a@b.c\"");
    assert_eq!(tally.count(Note::ZeroMpid, 0), 1);
    assert!(map(&mpid, &["0.0", "null"]).0.is_err());
    let name = plan("e.id: mp_customer_id, e.name: mp_event_name", EVENTS);
    for blank in ["\"  \"", r#""\t""#, "\"\u{a0}\""] {
        let error = map(&name, &["1", blank]).0.unwrap_err();
        assert_eq!(error, Rejection::BlankEventName("e.name".to_owned()));
    }
    let (empty, _) = event(&name, &["1", "\"\""]);
    assert_eq!(empty["event_name"], "looker_custom_event");
    let (record, tally) = map(&mpid, &["null", r#""a\ud83d@b.c""#]);
    assert!(record.is_ok());
    assert_eq!(tally.count(Note::Replaced, 1), 1);
}

#[test]
fn values_get_the_type_of_their_column_only_when_asked_for() {
    let head = Header {
        timezone: Some("Europe/Vienna".to_owned()),
        ..typed(&[
            ("u.id", &["mp_customer_id"], "number"),
            ("u.vip", &["mp_user_attribute"], "yesno"),
            ("u.at", &["mp_user_attribute"], "date_time"),
            ("u.ltv", &["mp_user_attribute"], "sum"),
            ("u.text", &["mp_user_attribute"], "string"),
        ])
    };
    // What Looker sends of vip, at, ltv and text, and the same by the types of their columns.
    for (given, typed, notes) in [
        (
            r#""Yes" | "2026-11-20 13:05:00" | "12.50" | "12.50""#,
            r#"true | "2026-11-20T13:05:00+01:00" | 12.50 | "12.50""#,
            0,
        ),
        (
            r#""No" | "2026-07-20 13:05:00.25" | "-1e3" | "Yes""#,
            r#"false | "2026-07-20T13:05:00.25+02:00" | -1e3 | "Yes""#,
            0,
        ),
        // A day has no offset; what has one keeps it.
        (
            r#"true | "2026-11-20" | 12.50 | "x""#,
            r#"true | "2026-11-20" | 12.50 | "x""#,
            0,
        ),
        (
            r#""y" | "2026-11-20 13:05:00 -0700" | "7" | "x""#,
            r#"true | "2026-11-20T13:05:00-07:00" | 7 | "x""#,
            0,
        ),
        (
            r#""perhaps" | "2026-11" | "1,000" | "x""#,
            r#""perhaps" | "2026-11" | "1,000" | "x""#,
            2,
        ),
    ] {
        let literals: Vec<_> = ["7"].into_iter().chain(given.split(" | ")).collect();
        for attribute_types in [AttributeTypes::Typed, AttributeTypes::AsIs] {
            let settings = Settings {
                attribute_types,
                ..USERS
            };
            let plan = Plan::new(&head, &settings, [7; 16]).unwrap();
            let sent = attributes(&plan, &literals);
            let sent: Vec<_> = sent.iter().map(|(_, literal)| literal.as_str()).collect();
            let is_typed = attribute_types == AttributeTypes::Typed;
            let want = if is_typed { typed } else { given };
            assert_eq!(sent.join(" | "), want);
            let tally = map(&plan, &literals).1;
            let counts = (0..5).map(|slot| tally.count(Note::NotOfItsType, slot));
            let want = if is_typed { notes } else { 0 };
            assert_eq!(counts.sum::<u64>(), want, "{literals:?}");
        }
    }
}

#[test]
fn a_tag_that_is_nearly_one_is_named_with_the_one_that_is_meant() {
    let fields: &[(&str, &[&str])] = &[
        ("u.id", &["MP_Customer_ID"]),
        ("u.mail", &[" mp_email "]),
        ("u.city", &["mp_user_attributes"]),
        ("u.zip", &["mp-user-attribute"]),
        ("u.other", &["email", "primary_key"]),
    ];
    let remarks: Vec<_> = plan_of(fields, USERS).remarks().collect();
    let want = [
        ("u.id", "MP_Customer_ID", "mp_customer_id"),
        ("u.city", "mp_user_attributes", "mp_user_attribute"),
        ("u.zip", "mp-user-attribute", "mp_user_attribute"),
    ];
    let want = want.map(|(column, tag, meant)| {
        format!(
            "Column {column}: not sent: {tag} is not a tag that looker-feed understands; did you mean {meant}?."
        )
    });
    assert_eq!(remarks.len(), 3);
    for (remark, want) in remarks.iter().zip(want) {
        assert_eq!(remark.trim_end_matches('.'), want.trim_end_matches('.'));
    }
    let error = Plan::new(&header_of(&fields[..1]), &USERS, [0; 16]).unwrap_err();
    let error = error.to_string();
    assert!(error.starts_with("Each row must specify at least 1 identity tag."));
    assert!(error.contains("u.id") && error.contains("did you mean mp_customer_id?"));
}

#[test]
fn more_names_of_events_than_may_be_refuse_the_delivery() {
    let settings = Settings {
        max_event_names: 3,
        ..EVENTS
    };
    let plan = plan(
        "e.id: mp_customer_id, e.name: mp_event_name, \
         e.at: mp_timestamp_unixtime_ms",
        settings,
    );
    let mut tally = Tally::new(3);
    for name in ["\"a\"", "\"b\"", "null", "\"a\""] {
        map_into(&plan, &["1", name, "null"], &mut tally).unwrap();
        assert_eq!(plan.check(&tally), Ok(()));
    }
    assert_eq!(tally.event_names().distinct(), 3);
    // Not of a row that is refused.
    assert!(map_into(&plan, &["1", "\"c\"", "\"soon\""], &mut tally).is_err());
    assert_eq!(plan.check(&tally), Ok(()));
    map_into(&plan, &["1", "\"c\"", "null"], &mut tally).unwrap();
    let error = plan.check(&tally).unwrap_err().to_string();
    assert!(error.contains("more than 3 different names (column e.name)"));
}

proptest! {
    #[test]
    fn whatever_an_identity_is_it_is_one_json_string_or_none(
        text in ".{0,12}",
        number in any::<f64>(),
        trim in any::<bool>(),
    ) {
        let settings = Settings { trim_identities: trim, ..Settings::new(DataType::User) };
        let plan = plan("a.id: mp_customer_id, a.n: mp_other", settings);
        let number = serde_json::Value::from(number).to_string();
        let literal = serde_json::Value::from(text.as_str()).to_string();
        if let Ok(record) = map(&plan, &[&literal, &number]).0 {
            let sent = format!("{{{}}}", std::str::from_utf8(record.view().identities).unwrap());
            let sent: serde_json::Map<String, serde_json::Value> = serde_json::from_str(&sent).unwrap();
            if let Some(id) = sent.get("customer_id") {
                let want = if trim { text.trim() } else { text.as_str() };
                prop_assert_eq!(id, want);
            }
        }
    }
}
