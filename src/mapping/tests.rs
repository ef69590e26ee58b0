mod choice_tests;
mod commerce_tests;
mod field_tests;
mod pivot_tests;
mod time_tests;

use super::*;
use crate::model::{Cell, CellKind, Field, FieldKind, Header, Row};
use crate::record::{Mark, Members, Record, settings};

fn field(name: &str, tags: &[&str]) -> Field {
    Field {
        name: name.to_owned(),
        kind: FieldKind::Dimension,
        tags: tags.iter().map(|&tag| tag.to_owned()).collect(),
        lookml_type: None,
    }
}

fn header_of(fields: &[(&str, &[&str])]) -> Header {
    Header {
        fields: fields
            .iter()
            .map(|(name, tags)| field(name, tags))
            .collect(),
        ..Header::default()
    }
}

const fn settings_of(data_type: DataType, skip_sent: bool) -> Settings {
    Settings {
        data_type,
        identity_names: IdentityNames::Current,
        untagged: Untagged::Ignore,
        pivoted_measures: PivotedMeasures::Refuse,
        trim_identities: false,
        lowercase_email: false,
        strip_html: false,
        nulls: Nulls::Omit,
        skip_sent,
        attribute_types: AttributeTypes::AsIs,
        placeholders: Placeholders::NONE,
        plausible: Plausible {
            earliest: 946_684_800_000,
            ahead: 31_536_000_000,
        },
        max_event_names: MAX_EVENT_NAMES,
        historical: Historical::Never,
        now: UnixMillis(1_795_000_000_000),
    }
}

const EVENTS: Settings = settings_of(DataType::Event, false);
const USERS: Settings = settings_of(DataType::User, false);

fn plan_of(fields: &[(&str, &[&str])], settings: Settings) -> Plan {
    Plan::new(&header_of(fields), &settings, [7; 16]).unwrap()
}

/// A header of columns in a text: `name: tag tag, name: tag`.
fn header(columns: &str) -> Header {
    let columns = columns.split(',').map(|column| {
        let (name, tags) = column.split_once(':').unwrap();
        let tags: Vec<_> = tags.split_whitespace().collect();
        field(name.trim(), &tags)
    });
    Header {
        fields: columns.collect(),
        ..Header::default()
    }
}

fn plan(columns: &str, settings: Settings) -> Plan {
    Plan::new(&header(columns), &settings, [7; 16]).unwrap()
}

/// A row from JSON literals; `""` is an absent cell.
fn map(plan: &Plan, literals: &[&str]) -> (Result<Record, Rejection>, Tally) {
    map_mut(&mut plan.clone(), literals)
}

fn map_mut(plan: &mut Plan, literals: &[&str]) -> (Result<Record, Rejection>, Tally) {
    let mut tally = Tally::new(plan.columns().len());
    (map_row(plan, literals, &mut tally), tally)
}

fn map_into(plan: &Plan, literals: &[&str], tally: &mut Tally) -> Result<Record, Rejection> {
    map_row(&mut plan.clone(), literals, tally)
}

fn map_row(plan: &mut Plan, literals: &[&str], tally: &mut Tally) -> Result<Record, Rejection> {
    let mut text = String::new();
    let mut cells = Vec::new();
    for literal in literals {
        let kind = match literal.as_bytes().first() {
            None => CellKind::Absent,
            Some(b'n') => CellKind::Null,
            Some(b't') => CellKind::True,
            Some(b'f') => CellKind::False,
            Some(b'"') if literal.contains('\\') => CellKind::Escaped,
            Some(b'"') => CellKind::Plain,
            Some(b'[') => CellKind::List,
            Some(b'{') => CellKind::Object,
            Some(b'<') => CellKind::Pivoted,
            Some(b'!') => CellKind::Failed,
            Some(_) => CellKind::Number,
        };
        let (value, quote) = match kind {
            CellKind::Plain | CellKind::Escaped => (*literal, 1),
            CellKind::Pivoted => (&literal[1..], 0),
            _ => (*literal, 0),
        };
        let start = text.len() as u32 + quote;
        text.push_str(value);
        cells.push(Cell {
            kind,
            start,
            end: text.len() as u32 - quote,
        });
    }
    let mut record = Record::default();
    plan.map(&Row::new(&text, &cells, 3 + tally.rows), &mut record, tally)?;
    Ok(record)
}

fn identities(plan: &Plan, literals: &[&str]) -> String {
    let record = map(plan, literals).0.unwrap();
    String::from_utf8(record.view().identities.to_vec()).unwrap()
}

fn event(plan: &Plan, literals: &[&str]) -> (serde_json::Value, Tally) {
    let (record, tally) = map(plan, literals);
    let record = record.unwrap();
    let members = members(plan, &record).1;
    (
        serde_json::from_str(&format!("{{{members}}}")).unwrap(),
        tally,
    )
}

/// An event's mark, and its members written out.
fn members(plan: &Plan, record: &Record) -> (Mark, String) {
    let (mark, section) = Mark::split(record.view().event);
    let mut out = Vec::new();
    Members::new(section, plan.names().event.as_deref()).write(&mut out);
    (mark, String::from_utf8(out).unwrap())
}

/// Settings of a section as text: names and their literals.
fn named<'a>(names: &'a [Box<str>], section: &'a [u8]) -> impl Iterator<Item = (&'a str, &'a str)> {
    settings(section).map(|(slot, literal)| {
        let literal = std::str::from_utf8(literal).unwrap();
        (&*names[slot as usize], literal)
    })
}

fn attributes(plan: &Plan, literals: &[&str]) -> Vec<(String, String)> {
    let record = map(plan, literals).0.unwrap();
    let named = named(&plan.names().attributes, record.view().attributes);
    named
        .map(|(name, literal)| (name.to_owned(), literal.to_owned()))
        .collect()
}

/// The device's settings, written one after the other.
fn device(plan: &Plan, literals: &[&str]) -> (String, Tally) {
    let (record, tally) = map(plan, literals);
    let record = record.unwrap();
    let named = named(&plan.names().device, record.view().device);
    let pairs: Vec<_> = named
        .map(|(name, literal)| format!("{name}{literal}"))
        .collect();
    (pairs.join(","), tally)
}

#[test]
fn every_identity_tag_goes_to_its_wire_name() {
    let names = [
        ("mp_customer_id", "customer_id", "customerid"),
        ("mp_email", "email", "email"),
        ("mp_facebook", "facebook", "facebook"),
        ("mp_google", "google", "google"),
        ("mp_microsoft", "microsoft", "microsoft"),
        ("mp_twitter", "twitter", "twitter"),
        ("mp_yahoo", "yahoo", "yahoo"),
        ("mp_other", "other", "other"),
        ("mp_other2", "other_id_2", "other2"),
        ("mp_other3", "other_id_3", "other3"),
        ("mp_other4", "other_id_4", "other4"),
        ("mp_other5", "other_id_5", "other_id_5"),
        ("mp_other6", "other_id_6", "other_id_6"),
        ("mp_other7", "other_id_7", "other_id_7"),
        ("mp_other8", "other_id_8", "other_id_8"),
        ("mp_other9", "other_id_9", "other_id_9"),
        ("mp_other10", "other_id_10", "other_id_10"),
        ("mp_mobile_number", "mobile_number", "mobile_number"),
        ("mp_phone_number_2", "phone_number_2", "phone_number_2"),
        ("mp_phone_number_3", "phone_number_3", "phone_number_3"),
        ("mp_alias", "alias", "alias"),
    ];
    for (tag, current, legacy) in names {
        for (identity_names, name) in [
            (IdentityNames::Current, current),
            (IdentityNames::Legacy, legacy),
        ] {
            let settings = Settings {
                identity_names,
                ..USERS
            };
            let plan = plan(&format!("a.x: {tag}"), settings);
            let want = format!("\"{name}\":\"v\"");
            assert_eq!(identities(&plan, &["\"v\""]), want);
        }
    }
}

#[test]
fn identities_are_strings_in_one_order_and_one_spelling() {
    let plan = plan("a.mail: mp_email, a.id: mp_customer_id", USERS);
    let want = r#""customer_id":"12345678901234567890","email":"a/b@c.d""#;
    for literals in [
        [r#""a\/b@c.d""#, "12345678901234567890"],
        [r#""\u0061/b@c.d""#, "\"12345678901234567890\""],
    ] {
        assert_eq!(identities(&plan, &literals), want);
    }
    let want = r#""customer_id":"true""#;
    assert_eq!(identities(&plan, &["null", "true"]), want);
}

#[test]
fn users_with_the_same_first_identity_stay_together() {
    let plan = plan("a.mail: mp_email, a.id: mp_customer_id", USERS);
    let user = |literals: &[&str]| map(&plan, literals).0.unwrap().user;
    assert_eq!(user(&["\"a\"", "1"]), user(&["\"b\"", "\"1\""]));
    assert_ne!(user(&["\"a\"", "1"]), user(&["\"a\"", "2"]));
    assert_ne!(user(&["\"a\"", "null"]), user(&["\"b\"", "null"]));
}

#[test]
fn a_row_without_an_identity_is_rejected_and_the_columns_are_named() {
    let plan = plan("a.mail: mp_email, a.id: mp_customer_id", USERS);
    for literals in [
        ["null", "null"],
        ["\"\"", "null"],
        ["\"  \"", ""],
        ["[1]", "null"],
    ] {
        let error = map(&plan, &literals).0.unwrap_err();
        assert_eq!(
            error.to_string(),
            "no identity: a.id, a.mail are all null, empty or absent"
        );
    }
}

#[test]
fn the_first_of_two_columns_with_one_identity_that_is_not_null_wins() {
    let plan = plan("a.x: mp_email, a.y: mp_email", USERS);
    assert_eq!(identities(&plan, &["\"x\"", "\"y\""]), r#""email":"x""#);
    assert_eq!(identities(&plan, &["null", "\"y\""]), r#""email":"y""#);
    assert!(
        plan.remarks()
            .any(|told| told.contains("another column has the same tag"))
    );
}

#[test]
fn a_delivery_without_an_identity_column_fails_in_the_words_of_the_old_action() {
    let error = Plan::new(&header("a.x: mp_user_attribute"), &USERS, [0; 16]).unwrap_err();
    assert!(
        error
            .to_string()
            .starts_with("Each row must specify at least 1 identity tag.")
    );
}

#[test]
fn a_tagged_pivoted_measure_fails_the_delivery_and_an_untagged_one_does_not() {
    let mut head = header("a.id: mp_customer_id, a.count: mp_user_attribute");
    head.fields[1].kind = FieldKind::Measure;
    head.pivots = vec!["a.month".to_owned()];
    let error = Plan::new(&head, &USERS, [0; 16]).unwrap_err();
    assert!(error.to_string().contains("a.count") && error.to_string().contains("a.month"));
    head.fields[1].tags.clear();
    assert!(Plan::new(&head, &USERS, [0; 16]).is_ok());
}

#[test]
fn user_attributes_keep_their_type_their_digits_and_their_lists() {
    let plan = plan(
        "u.id: mp_customer_id, u.a: mp_user_attribute, u.b: mp_user_attribute, \
         calc: mp_user_attribute",
        USERS,
    );
    assert_eq!(
        attributes(&plan, &["1", "0.10000000000000001", "\"x\\ny\"", "null"]),
        [
            (
                "\"looker_u.a\":".to_owned(),
                "0.10000000000000001".to_owned()
            ),
            ("\"looker_u.b\":".to_owned(), "\"x\\ny\"".to_owned()),
        ]
    );
    assert_eq!(
        attributes(&plan, &["1", "[\"a\",null,2]", "false", "{\"a\":1}"])
            .into_iter()
            .map(|(_, literal)| literal)
            .collect::<Vec<_>>(),
        ["[\"a\",null,2]", "false", r#""{\"a\":1}""#]
    );
}

#[test]
fn event_fields_have_their_defaults_types_and_places() {
    let fields = "e.id: mp_customer_id, e.name: mp_event_name, \
         e.type: mp_custom_event_type, e.eid: mp_event_id, \
         e.at: mp_timestamp_unixtime_ms, e.sid: mp_session_id, \
         e.uuid: mp_session_uuid, e.shoe: mp_custom_attribute";
    let plan = plan(fields, EVENTS);
    let uuid = "\"84E1B361-A282-4ADF-8A6D-1D31E6DD5A9E\"";
    let (full, _) = event(
        &plan,
        &[
            "1",
            "\"Viewed\"",
            "\"Navigation\"",
            "12",
            "1760000000000",
            "\"77\"",
            uuid,
            "4.50",
        ],
    );
    assert_eq!(
        full,
        serde_json::json!({
            "event_name": "Viewed", "custom_event_type": "navigation", "event_id": 12,
            "timestamp_unixtime_ms": 1_760_000_000_000u64, "session_id": 77,
            "session_uuid": "84E1B361-A282-4ADF-8A6D-1D31E6DD5A9E",
            "custom_attributes": {"looker_e.shoe": 4.50},
        })
    );
    let (bare, tally) = event(
        &plan,
        &["1", "null", "", "null", "null", "\"\"", "null", "null"],
    );
    assert_eq!(
        bare,
        serde_json::json!({"event_name": "looker_custom_event", "custom_event_type": "other"})
    );
    assert_eq!(tally.count(Note::Absent, 2), 1);
    let (odd, tally) = event(
        &plan,
        &[
            "1",
            "5",
            "\"purchase\"",
            "1.5",
            "null",
            "\"x\"",
            "\"u\"",
            "[1]",
        ],
    );
    assert_eq!(
        odd,
        serde_json::json!({"event_name": "5", "custom_event_type": "other",
            "custom_attributes": {"looker_e.shoe": "[1]"}})
    );
    for (note, slot) in [
        (Note::UnknownEventType, 2),
        (Note::NotAnInteger, 3),
        (Note::NotAnInteger, 5),
        (Note::NotAUuid, 6),
        (Note::SentAsText, 7),
    ] {
        assert_eq!(tally.count(note, slot), 1, "{note:?}");
    }
}

#[test]
fn an_event_whose_time_cannot_be_read_is_rejected() {
    let plan = plan("e.id: mp_email, e.at: mp_timestamp_unixtime_ms", EVENTS);
    for time in [
        "\"2026-11-31\"",
        "\"2026-11\"",
        "1.5",
        "true",
        "99999999999999999999",
    ] {
        let error = map(&plan, &["\"a\"", time]).0.unwrap_err();
        assert!(error.to_string().contains("e.at"), "{error}");
    }
}

#[test]
fn device_fields_are_known_typed_and_checked() {
    let plan = plan(
        "d.id: mp_customer_id, d.brand: mp_device_info, \
         d.screen_width: mp_device_info, d.is_tablet: mp_device_info, \
         d.platform: mp_device_info, d.ios_idfv: mp_device_info, \
         d.colour: mp_device_info",
        EVENTS,
    );
    assert!(
        plan.remarks()
            .any(|told| told.contains("no field named colour"))
    );
    let device = |literals: &[&str]| device(&plan, literals);
    let uuid = "\"84E1B361-A282-4ADF-8A6D-1D31E6DD5A9E\"";
    let (good, _) = device(&["1", "12", "\"640\"", "\"Yes\"", "\"IOS\"", uuid]);
    assert_eq!(
        good,
        format!(
            r#""brand":"12","screen_width":640,"is_tablet":true,"platform":"iOS","ios_idfv":{uuid}"#
        )
    );
    let (bad, tally) = device(&["1", "null", "6.5", "3", "\"BeOS\"", "\"x\""]);
    assert_eq!(bad, "");
    for (note, slot) in [
        (Note::NotAnInteger, 2),
        (Note::NotABoolean, 3),
        (Note::NotAKnownWord, 4),
        (Note::NotAUuid, 5),
    ] {
        assert_eq!(tally.count(note, slot), 1, "{note:?}");
    }
}

#[test]
fn the_101st_custom_attribute_of_an_event_is_left_out_and_counted() {
    let names: Vec<_> = (0..102).map(|at| format!("e.a{at}")).collect();
    let columns: String = names
        .iter()
        .map(|name| format!(", {name}: mp_custom_attribute"))
        .collect();
    let plan = plan(&format!("e.id: mp_customer_id{columns}"), EVENTS);
    let mut literals = vec!["1"; 103];
    literals[5] = "null";
    let (event, tally) = event(&plan, &literals);
    assert_eq!(event["custom_attributes"].as_object().unwrap().len(), 100);
    assert_eq!(tally.count(Note::TooMany, 102), 1);
    assert_eq!(tally.count(Note::TooMany, 101), 0);
}

#[test]
fn only_the_first_mp_tag_counts_and_the_person_is_told() {
    let plan = plan_of(
        &[
            ("a.id", &["primary", " mp_customer_id ", "mp_email"]),
            ("a.typo", &["mp_emial"]),
            ("a.event", &["mp_event_name"]),
            ("a.none", &[]),
        ],
        USERS,
    );
    let fates = plan.fates().iter().map(|fate| fate.goes_to.as_deref());
    let fates: Vec<_> = fates.collect();
    let id = Some("user_identities.customer_id");
    assert_eq!(fates, [id, None, None, None]);
    let remarks: Vec<_> = plan.remarks().collect();
    assert_eq!(remarks.len(), 3);
    assert!(remarks[0].contains("only the first, mp_customer_id, counts"));
    assert!(remarks[1].contains("mp_emial is not a tag"));
    assert!(remarks[2].contains("is for event data"));
}

#[test]
fn untagged_columns_are_sent_only_when_asked_for_and_only_in_user_mode() {
    let fields = "a.id: mp_customer_id, a.free:";
    let old = |data_type| Settings {
        data_type,
        untagged: Untagged::UserAttribute,
        ..USERS
    };
    assert_eq!(plan(fields, USERS).columns().len(), 1);
    assert_eq!(plan(fields, old(DataType::User)).columns().len(), 2);
    assert_eq!(plan(fields, old(DataType::Event)).columns().len(), 1);
}
