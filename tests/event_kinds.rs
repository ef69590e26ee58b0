//! Screen views and purchases, through the real binary and the strict stand-in for mParticle.

mod support;

use std::collections::BTreeMap;

use serde_json::{Value, json};
use support::World;
use support::form::{arrived, document, execute, form};

const COLUMNS: [(&str, &str); 17] = [
    ("u.id", "mp_customer_id"),
    ("u.plan", "mp_user_attribute"),
    ("e.kind", "mp_event_type"),
    ("e.at", "mp_timestamp_unixtime_ms"),
    ("e.name", "mp_event_name"),
    ("e.screen", "mp_screen_name"),
    ("o.action", "mp_product_action"),
    ("o.id", "mp_transaction_id"),
    ("o.total", "mp_total_amount"),
    ("o.tax", "mp_tax_amount"),
    ("o.currency", "mp_currency_code"),
    ("p.sku", "mp_product_id"),
    ("p.name", "mp_product_name"),
    ("p.price", "mp_product_price"),
    ("p.quantity", "mp_product_quantity"),
    ("p.size", "mp_product_custom_attribute"),
    ("o.store", "mp_custom_attribute"),
];

const TIME: i64 = 1_795_179_600_000;

/// A line of an order: user, plan, action, transaction, sku, price.
fn line(user: &str, plan: &str, action: Value, id: Value, sku: &str, price: Value) -> Vec<Value> {
    let total = json!("30.50");
    vec![
        json!(user),
        json!(plan),
        json!("commerce_event"),
        json!(TIME),
        Value::Null,
        Value::Null,
        action,
        id,
        total,
        json!(2.5),
        json!("EUR"),
        json!(sku),
        json!("Shoe"),
        price,
        json!(2),
        json!(43),
        json!("Vienna"),
    ]
}

fn other(user: &str, kind: Value, name: Value, screen: Value) -> Vec<Value> {
    let mut row = line(user, "p0", Value::Null, json!("T1"), "not sent", json!(1));
    (row[2], row[4], row[5]) = (kind, name, screen);
    row
}

fn rows() -> Vec<Vec<Value>> {
    let purchase = Value::Null;
    vec![
        line(
            "ann",
            "p1",
            purchase.clone(),
            json!("T1"),
            "a",
            json!("10.25"),
        ),
        other("ann", json!("screen_view"), Value::Null, json!("Home")),
        line("bob", "p1", purchase.clone(), json!("T1"), "b", json!(1)),
        line("ann", "p2", json!("Purchase"), json!("T2"), "c", json!(3)),
        other("ann", json!("custom_event"), json!("Viewed"), Value::Null),
        line(
            "ann",
            "p3",
            json!("refund"),
            json!("T1"),
            "a",
            json!("10.25"),
        ),
        line(
            "ann",
            "p4",
            json!("purchase"),
            json!("T1"),
            "d",
            json!("many"),
        ),
        other("bob", Value::Null, Value::Null, Value::Null),
        // Not one of a transaction: an event of its own, twice.
        line(
            "bob",
            "p2",
            json!("add_to_cart"),
            Value::Null,
            "e",
            json!(4),
        ),
        line(
            "bob",
            "p3",
            json!("add_to_cart"),
            Value::Null,
            "e",
            json!(4),
        ),
        // What nobody understands is not guessed.
        other("ann", json!("crash"), Value::Null, Value::Null),
        other("ann", json!("screen_view"), json!("Home"), Value::Null),
        line("ann", "p5", json!("steal"), json!("T1"), "f", json!(1)),
    ]
}

/// The events that arrived of each user, without their ids, in some order that does not change.
fn events(batches: &[Value]) -> BTreeMap<String, Vec<Value>> {
    let mut events: BTreeMap<String, Vec<Value>> = BTreeMap::new();
    for batch in batches {
        let user = batch["user_identities"]["customer_id"].as_str().unwrap();
        let of_user = events.entry(user.to_owned()).or_default();
        for event in batch["events"].as_array().into_iter().flatten() {
            let mut event = event.clone();
            let data = event["data"].as_object_mut().unwrap();
            data.remove("source_message_id")
                .expect("an event has an id");
            of_user.push(event);
        }
        of_user.sort_by_key(Value::to_string);
    }
    events
}

fn product(sku: &str, price: Option<Value>) -> Value {
    let mut product = json!({
        "id": sku, "name": "Shoe", "quantity": 2, "custom_attributes": {"looker_p.size": "43"},
    });
    if let Some(price) = price {
        product["price"] = price;
    }
    product
}

fn commerce(action: &str, id: Option<&str>, products: &[Value]) -> Value {
    let mut event = json!({"event_type": "commerce_event", "data": {
        "timestamp_unixtime_ms": TIME, "currency_code": "EUR",
        "custom_attributes": {"looker_o.store": "Vienna"},
        "product_action": {
            "action": action, "total_amount": 30.5, "tax_amount": 2.5, "products": products,
        },
    }});
    if let Some(id) = id {
        event["data"]["product_action"]["transaction_id"] = json!(id);
    }
    event
}

fn expected() -> BTreeMap<String, Vec<Value>> {
    let common =
        json!({"timestamp_unixtime_ms": TIME, "custom_attributes": {"looker_o.store": "Vienna"}});
    let custom = |name: &str| {
        let mut data = common.clone();
        data["event_name"] = json!(name);
        data["custom_event_type"] = json!("other");
        json!({"event_type": "custom_event", "data": data})
    };
    let mut screen = common.clone();
    screen["screen_name"] = json!("Home");
    let ten = || Some(json!(10.25));
    let cart = || commerce("add_to_cart", None, &[product("e", Some(json!(4)))]);
    let mut expected = BTreeMap::from([
        (
            "ann".to_owned(),
            vec![
                commerce(
                    "purchase",
                    Some("T1"),
                    &[product("a", ten()), product("d", None)],
                ),
                commerce("purchase", Some("T2"), &[product("c", Some(json!(3)))]),
                commerce("refund", Some("T1"), &[product("a", ten())]),
                json!({"event_type": "screen_view", "data": screen}),
                custom("Viewed"),
            ],
        ),
        (
            "bob".to_owned(),
            vec![
                commerce("purchase", Some("T1"), &[product("b", Some(json!(1)))]),
                cart(),
                cart(),
                custom("looker_custom_event"),
            ],
        ),
    ]);
    for events in expected.values_mut() {
        events.sort_by_key(Value::to_string);
    }
    expected
}

#[tokio::test(flavor = "multi_thread")]
async fn the_rows_of_a_transaction_become_one_purchase_and_other_rows_what_they_say() {
    let world = World::new(None).await;
    let daemon = world.daemon(&[]);
    let text = document("UTC", &COLUMNS, &rows()).to_string();
    let (success, message) = execute(&world, &daemon, text, form("event_data", json!({}))).await;
    assert!(success, "{message}\n{}", daemon.log());
    let deliveries = daemon.settled().await;
    let counted = &deliveries[0].rows;
    assert_eq!((counted.delivered, counted.rejected), (10, 3));
    let notes = deliveries[0].notes.join("\n");
    assert!(
        notes.contains("o.price") || notes.contains("p.price"),
        "{notes}"
    );
    let batches = arrived(&world);
    assert_eq!(events(&batches), expected());
    // One batch a user, and the attributes of the latest row.
    assert_eq!(batches.len(), 2);
    let mut plans: Vec<_> = batches
        .iter()
        .map(|batch| batch["user_attributes"]["looker_u.plan"].to_string())
        .collect();
    plans.sort();
    assert_eq!(plans, ["\"p3\"", "\"p4\""]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_purchase_that_is_sent_again_in_another_order_arrives_once() {
    let world = World::new(None).await;
    let daemon = world.daemon(&[]);
    let skip = || form("event_data", json!({"skip_sent": "yes"}));
    for round in 0..3 {
        let mut rows = rows();
        rows.rotate_left(round * 3);
        let text = document("UTC", &COLUMNS, &rows).to_string();
        let (success, message) = execute(&world, &daemon, text, skip()).await;
        assert!(success, "{message}");
        let deliveries = daemon.settled().await;
        assert_eq!(deliveries[0].rows.delivered, 10);
    }
    let mut arrived = events(&arrived(&world));
    let mut expected = expected();
    for events in arrived.values_mut().chain(expected.values_mut()) {
        for event in events.iter_mut() {
            let products = &mut event["data"]["product_action"]["products"];
            if let Some(products) = products.as_array_mut() {
                products.sort_by_key(Value::to_string);
            } else if let Some(data) = event["data"].as_object_mut() {
                data.remove("product_action");
            }
        }
        events.sort_by_key(Value::to_string);
    }
    assert_eq!(arrived, expected);
    assert_eq!(world.mparticle.counts().conflicts, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_purchase_that_no_event_can_hold_is_refused_whole() {
    let world = World::new(None).await;
    let daemon = world.daemon(&[]);
    let sku = "s".repeat(3_000);
    let mut rows: Vec<_> = (0..60)
        .map(|_| line("ann", "p", Value::Null, json!("large"), &sku, json!(1)))
        .collect();
    rows.push(line("ann", "p", Value::Null, json!("small"), "a", json!(1)));
    let text = document("UTC", &COLUMNS, &rows).to_string();
    let (success, message) = execute(&world, &daemon, text, form("event_data", json!({}))).await;
    assert!(success, "{message}");
    let deliveries = daemon.settled().await;
    let counted = &deliveries[0].rows;
    assert_eq!((counted.delivered, counted.rejected), (1, 60));
    let path = format!("/api/v1/deliveries/{}/rejected", deliveries[0].id);
    let rejected: Value = daemon.get(&path).await;
    assert!(
        rejected.to_string().contains("too large for one event"),
        "{rejected}"
    );
    let sent = events(&arrived(&world));
    assert_eq!(sent["ann"].len(), 1);
    let action = &sent["ann"][0]["data"]["product_action"];
    assert_eq!(action["transaction_id"], "small");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_column_that_says_so_no_row_is_a_purchase() {
    let world = World::new(None).await;
    let daemon = world.daemon(&[]);
    let columns: Vec<_> = COLUMNS
        .into_iter()
        .filter(|(name, _)| *name != "e.kind")
        .collect();
    let mut row = line("ann", "p", Value::Null, json!("T1"), "a", json!(1));
    row.remove(2);
    let text = document("UTC", &columns, &[row]).to_string();
    let (success, message) = execute(&world, &daemon, text, form("event_data", json!({}))).await;
    assert!(success, "{message}");
    let deliveries = daemon.settled().await;
    let notes = deliveries[0].notes.join("\n");
    assert!(notes.contains("no column with mp_event_type"), "{notes}");
    let batches = arrived(&world);
    assert_eq!(batches[0]["events"][0]["event_type"], "custom_event");
    assert!(
        batches[0]["events"][0]["data"]
            .get("product_action")
            .is_none()
    );
}
