//! Screen views and purchases.

use super::*;
use crate::record::{EventKind, Purchase};

const FIELDS: &str = "e.id: mp_customer_id, e.kind: mp_event_type, e.screen: mp_screen_name, \
                      o.action: mp_product_action, o.id: mp_transaction_id, \
                      p.price: mp_product_price, p.size: mp_product_custom_attribute";

fn purchase(record: &Record) -> (Mark, Purchase<'_>) {
    let (mark, parts) = Mark::split(record.view().event);
    (mark, Purchase::read(parts))
}

#[test]
fn rows_of_a_transaction_have_one_key_however_it_is_spelled_and_come_together() {
    let plan = plan(FIELDS, EVENTS);
    assert!(plan.names().purchases);
    let of = |user: &str, action: &str, id: &str| {
        let cells = [user, "\"commerce_event\"", "null", action, id, "1.50", "43"];
        map(&plan, &cells).0.unwrap()
    };
    let record = of("7", "null", "\"T-1\"");
    let (mark, parts) = purchase(&record);
    assert_eq!(mark.kind, EventKind::Commerce);
    assert_eq!(parts.key, br#"purchase,"transaction_id":"T-1""#);
    let head = br#","product_action":{"action":"purchase","transaction_id":"T-1""#;
    assert_eq!(parts.head, head);
    let product = br#"{"price":1.50,"custom_attributes":{"looker_p.size":"43"}}"#;
    assert_eq!(parts.product, product);
    let again = of("7", "\"PURCHASE\"", "\"\\u0054-1\"");
    assert_eq!(purchase(&again).1.key, parts.key);
    assert_eq!(again.user, record.user);
    for other in [
        of("8", "null", "\"T-1\""),
        of("7", "\"refund\"", "\"T-1\""),
        of("7", "null", "\"T-2\""),
        of("7", "null", "null"),
    ] {
        assert_ne!(other.user, record.user);
    }
    let alone = of("7", "null", "\"\"");
    assert_eq!(purchase(&alone).1.key, b"");
    assert_eq!(alone.user & EVENT_BITS, 0);
}

#[test]
fn what_an_event_is_must_be_understood() {
    let plan = plan(FIELDS, EVENTS);
    let rejected = |kind: &str, action: &str| {
        let cells = ["7", kind, "null", action, "1", "1", "1"];
        map(&plan, &cells).0.map(drop)
    };
    let no_type = Err(Rejection::EventType("e.kind".to_owned()));
    let no_action = Err(Rejection::ProductAction("o.action".to_owned()));
    for (kind, action, want) in [
        ("null", "null", Ok(())),
        ("\"\"", "null", Ok(())),
        ("\"custom_event\"", "\"steal\"", Ok(())),
        ("\"commerce_event\"", "\"remove_from_wishlist\"", Ok(())),
        ("\"commerce\"", "null", no_type.clone()),
        ("1", "null", no_type),
        ("\"screen_view\"", "null", Err(Rejection::NoScreenName)),
        ("\"commerce_event\"", "\"steal\"", no_action),
    ] {
        assert_eq!(rejected(kind, action), want, "{kind} {action}");
    }
    let cells = ["7", "\"screen_view\"", "\"Home\"", "null", "1", "1", "1"];
    let record = map(&plan, &cells).0.unwrap();
    let (mark, members) = Mark::split(record.view().event);
    assert_eq!(mark.kind, EventKind::ScreenView);
    assert_eq!(members, br#""screen_name":"Home""#);
}

#[test]
fn without_a_column_for_the_kind_the_other_columns_go_nowhere_and_say_why() {
    let plan = plan(&FIELDS.replace("e.kind: mp_event_type, ", ""), EVENTS);
    assert!(!plan.names().purchases);
    for fate in &plan.fates()[1..] {
        assert_eq!(fate.goes_to, None, "{}", fate.column);
        assert!(fate.remark.as_ref().unwrap().contains("mp_event_type"));
    }
    let of = |id: &str| {
        map(&plan, &["7", "\"Home\"", "null", id, "1", "1"])
            .0
            .unwrap()
    };
    let record = of("1");
    assert!(members(&plan, &record).1.starts_with("\"event_name\""));
    assert_eq!(of("2").user, record.user);
}
