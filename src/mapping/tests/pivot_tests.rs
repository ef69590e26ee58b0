//! Queries with pivots, and columns without a tag.

use super::*;

/// A profile's id, a pivoted measure and a calculation over pivots, with these tags.
fn pivoted(count: &str, calculation: &str) -> Header {
    let mut head = header_of(&[
        ("u.id", &["mp_customer_id"]),
        ("o.count", &[count]),
        ("share", &[calculation]),
    ]);
    head.fields[1].kind = FieldKind::Measure;
    head.fields[2].kind = FieldKind::TableCalculation;
    head.pivots = vec!["o.month".to_owned()];
    for field in &mut head.fields {
        field.tags.retain(|tag| !tag.is_empty());
    }
    head
}

fn with(pivoted_measures: PivotedMeasures, settings: Settings) -> Settings {
    Settings {
        pivoted_measures,
        ..settings
    }
}

/// What the rows of one delivery set, as JSON by name, and what was noted.
fn rows(head: &Header, settings: &Settings, rows: &[[&str; 3]]) -> (Vec<String>, Vec<String>) {
    let mut plan = Plan::new(head, settings, [7; 16]).unwrap();
    let mut noted = Tally::new(plan.columns().len());
    let mut said = Vec::new();
    for row in rows {
        let selected = plan.columns().iter().map(|column| {
            let at = head.fields.iter().position(|field| field.name == *column);
            row[at.unwrap()]
        });
        let selected: Vec<_> = selected.collect();
        let (record, tally) = map_mut(&mut plan, &selected);
        let record = record.unwrap();
        let set = named(&plan.names().attributes, record.view().attributes);
        let set: Vec<_> = set
            .map(|(name, literal)| format!("{name}{literal}"))
            .collect();
        let text = match settings.data_type {
            DataType::User => format!("{{{}}}", set.join(",")),
            DataType::Event => {
                let data = format!("{{{}}}", members(&plan, &record).1);
                let data: serde_json::Value = serde_json::from_str(&data).unwrap();
                data["custom_attributes"].to_string()
            }
        };
        said.push(text);
        noted = tally;
    }
    (said, noted.sentences(plan.columns()).collect())
}

const MONTHS: &str = r#"<{"2026-01":{"value":3,"rendered":"3","links":[]},"2026-02":{"value":null},"$$$_row_total_$$$":{"value":3}}"#;

#[test]
fn each_pivot_value_makes_an_attribute_of_its_own() {
    let head = pivoted("mp_user_attribute", "mp_user_attribute");
    let choice = with(PivotedMeasures::Attributes, USERS);
    let later =
        r#"<{"2026-02":{"value":"a \"b\""},"2026-01":{"value":4.50},"a|FIELD|b":{"value":true}}"#;
    let three = [["1", MONTHS, "0.5"], ["2", later, "null"], ["3", "<{}", ""]];
    let (said, noted) = rows(&head, &choice, &three);
    assert_eq!(
        said,
        [
            r#"{"looker_o.count.2026-01":3,"looker_o.count.row_total":3,"looker_share":0.5}"#,
            r#"{"looker_o.count.2026-02":"a \"b\"","looker_o.count.2026-01":4.50,"looker_o.count.a.b":true}"#,
            "{}",
        ]
    );
    assert_eq!(noted.len(), 1, "{noted:?}");
    assert!(noted[0].contains("no such cell"), "{noted:?}");

    let nulls = Settings {
        nulls: Nulls::Delete,
        ..choice.clone()
    };
    let (said, _) = rows(&head, &nulls, &[["1", MONTHS, "null"]]);
    let want = r#"{"looker_o.count.2026-01":3,"looker_o.count.2026-02":-,"looker_o.count.row_total":3,"looker_share":-}"#;
    assert_eq!(said, [want]);
}

#[test]
fn all_pivot_values_make_the_text_of_one_object() {
    let head = pivoted("mp_user_attribute", "");
    let choice = with(PivotedMeasures::Json, USERS);
    let two = [["1", MONTHS, ""], ["2", r#"<{"a":{"value":null}}"#, ""]];
    let (said, _) = rows(&head, &choice, &two);
    let first = r#"{"looker_o.count":"{\"2026-01\":3,\"row_total\":3}"}"#;
    assert_eq!(said, [first, "{}"]);
    let nulls = Settings {
        nulls: Nulls::Null,
        ..choice.clone()
    };
    let (said, _) = rows(&head, &nulls, &[["1", r#"<{"a":{"value":null}}"#, ""]]);
    assert_eq!(said, [r#"{"looker_o.count":"{\"a\":null}"}"#]);
    // A text that is cut would be no JSON.
    let long = format!(r#"<{{"{}":{{"value":1}}}}"#, "x".repeat(5000));
    let (said, noted) = rows(&head, &choice, &[["1", &long, ""]]);
    assert_eq!(said, ["{}"]);
    assert!(noted[0].contains("could not be sent"), "{noted:?}");
}

#[test]
fn attributes_of_events_take_pivots_too() {
    let head = pivoted("mp_custom_attribute", "mp_custom_attribute");
    let at = |how| rows(&head, &with(how, EVENTS), &[["1", MONTHS, "7"]]).0;
    let want = r#"{"looker_o.count.2026-01":3,"looker_o.count.row_total":3,"looker_share":7}"#;
    assert_eq!(at(PivotedMeasures::Attributes), [want]);
    let want = r#"{"looker_o.count":"{\"2026-01\":3,\"row_total\":3}","looker_share":7}"#;
    assert_eq!(at(PivotedMeasures::Json), [want]);
    let choice = with(PivotedMeasures::Attributes, EVENTS);
    let (said, noted) = rows(&head, &choice, &[["1", &values(150), "7"]]);
    assert_eq!(said[0].matches("looker_").count(), 100);
    let noted = noted.join("\n");
    assert!(noted.contains("100 attributes already"), "{noted}");
}

/// A pivoted cell of so many values.
fn values(count: usize) -> String {
    let values = (0..count).map(|at| format!(r#""p{at}":{{"value":{at}}}"#));
    format!("<{{{}}}", values.collect::<Vec<_>>().join(","))
}

#[test]
fn what_cannot_be_an_attribute_is_noted() {
    let head = pivoted("mp_user_attribute", "");
    let choice = with(PivotedMeasures::Attributes, USERS);
    let long = "x".repeat(300);
    let cell = format!(
        r#"<{{"{long}":{{"value":1}},"failed":{{"error":"x"}},"a.b":{{"value":2}},"a|FIELD|b":{{"value":3}}}}"#
    );
    let (said, noted) = rows(&head, &choice, &[["1", &cell, ""]]);
    assert_eq!(said, [r#"{"looker_o.count.a.b":2}"#]);
    assert!(noted[0].ends_with("(3 rows, first in row 4)."), "{noted:?}");
    for odd in [r#"<{"error":"too large"}"#, r#"<{"a":1}"#] {
        let (said, noted) = rows(&head, &choice, &[["1", odd, ""]]);
        assert_eq!((&*said[0], noted.len()), ("{}", 1), "{odd}");
    }
    let (said, noted) = rows(&head, &choice, &[["1", &values(1500), ""]]);
    assert_eq!(said[0].matches("looker_").count(), 1000);
    assert!(noted[0].contains("(500 rows"), "{noted:?}");
}

#[test]
fn only_attributes_take_pivots() {
    for how in [
        PivotedMeasures::Refuse,
        PivotedMeasures::Attributes,
        PivotedMeasures::Json,
    ] {
        for (tag, settings, refused) in [
            ("mp_user_attribute", USERS, false),
            ("mp_user_attribute", EVENTS, false),
            ("mp_custom_attribute", EVENTS, false),
            ("mp_custom_attribute", USERS, false),
            ("mp_customer_id", USERS, true),
            ("mp_event_name", EVENTS, true),
            ("mp_product_custom_attribute", EVENTS, true),
            ("mp_device_info", EVENTS, true),
            ("mp_nothing", EVENTS, false),
        ] {
            let made = Plan::new(&pivoted(tag, ""), &with(how, settings), [0; 16]);
            let refused = refused || (how == PivotedMeasures::Refuse && tag != "mp_nothing");
            assert_eq!(made.is_err(), refused, "{tag} {how:?}");
            if let Err(error) = made {
                let error = error.to_string();
                assert!(error.contains("\"Pivoted Measures\""), "{error}");
            }
        }
    }
    let head = pivoted("mp_user_attribute", "mp_custom_attribute");
    let fates = Plan::preview(&head, &with(PivotedMeasures::Attributes, USERS)).unwrap();
    let place = "user_attributes.\"looker_o.count.<pivot value>\"";
    assert_eq!(fates[1].goes_to.as_deref(), Some(place));
    let remark = fates[1].remark.as_deref().unwrap();
    assert!(remark.contains("pivots on o.month"));
    assert_eq!(fates[2].goes_to, None);
}

#[test]
fn columns_without_a_tag_go_where_it_was_chosen() {
    let head = header("a.id: mp_other, a.x:, a.y: primary_key");
    let user = Some("user_attributes.\"looker_a.x\"");
    let event = Some("events[].data.custom_attributes.\"looker_a.x\"");
    for (untagged, settings, want) in [
        (Untagged::Ignore, USERS, None),
        (Untagged::Ignore, EVENTS, None),
        (Untagged::UserAttribute, USERS, user),
        (Untagged::UserAttribute, EVENTS, None),
        (Untagged::EventAttribute, USERS, None),
        (Untagged::EventAttribute, EVENTS, event),
    ] {
        let settings = Settings {
            untagged,
            ..settings
        };
        let fates = Plan::preview(&head, &settings).unwrap();
        assert_eq!(fates[1].goes_to.as_deref(), want);
        assert_eq!(fates[2].goes_to.is_some(), want.is_some());
    }
    // Pivoted ones only if it was chosen how.
    let head = pivoted("", "");
    for (how, sent) in [
        (PivotedMeasures::Refuse, false),
        (PivotedMeasures::Attributes, true),
    ] {
        let settings = Settings {
            untagged: Untagged::UserAttribute,
            ..with(how, USERS)
        };
        let fates = Plan::preview(&head, &settings).unwrap();
        assert_eq!(fates[1].goes_to.is_some(), sent);
    }
}
