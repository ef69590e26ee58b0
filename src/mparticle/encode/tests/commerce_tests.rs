//! Purchases that are made of several rows.

use super::*;
use crate::record::{EventKind, PurchaseWriter};

/// A row of a small world: a user, perhaps a transaction, and a product of some length.
#[derive(Clone, Debug)]
struct Line {
    user: u8,
    mail: u8,
    /// 0: none.
    transaction: u8,
    device: u8,
    product: String,
    attribute: bool,
}

fn line() -> impl Strategy<Value = Line> {
    let all = (0..3u8, 0..2u8, 0..4u8, 0..2u8, "[a-z]{0,80}", any::<bool>());
    all.prop_map(
        |(user, mail, transaction, device, product, attribute)| Line {
            user,
            mail,
            transaction,
            device,
            product,
            attribute,
        },
    )
}

fn record(row: u64, line: &Line) -> Record {
    let mut record = row_of(row, line.user, line.mail, line.device);
    // Two transactions share an order key, as two may by accident.
    record.user = (u64::from(line.user) << 24) | u64::from(line.transaction.div_ceil(2));
    if line.attribute {
        put(&mut record, Section::Attributes, 0, &row.to_string());
    }
    let event = record.section(Section::Event);
    let mark = Mark {
        old: false,
        kind: EventKind::Commerce,
    };
    event.push(mark.byte());
    let mut writer = PurchaseWriter::begin(event);
    let (transaction, product) = (line.transaction, &line.product);
    if transaction > 0 {
        event.extend(format!("T{transaction}").bytes());
    }
    writer.end_key(event);
    let head = ",\"product_action\":{\"action\":\"purchase\",\"transaction_id\":";
    event.extend(format!("{head}\"{transaction}\"").bytes());
    writer.end_head(event);
    event.extend(format!("{{\"id\":\"{row}\",\"name\":\"{product}\"}}").bytes());
    record.end();
    record
}

fn purchases(id: u8) -> Delivery {
    let mut delivery = delivery(id, DataType::Event);
    delivery.names.purchases = true;
    delivery
}

fn encode(lines: &[Line], settings: Settings, skip: bool) -> (Kept, Made) {
    let records = (0u64..).zip(lines).map(|(row, line)| record(row, line));
    let mut encoder = Encoder::new(settings, purchases(9));
    if skip {
        encoder = encoder.skipping_sent([1; 16]);
    }
    encoded(encoder, &grouped(records))
}

/// The rows of each event, by what their products are called.
fn rows_of_events(kept: &Kept) -> BTreeSet<Vec<u64>> {
    let rows = |event: &Value| {
        let products = event["data"]["product_action"]["products"].as_array();
        let id = |product: &Value| product["id"].as_str().unwrap().parse().unwrap();
        let mut rows: Vec<u64> = products.unwrap().iter().map(id).collect();
        rows.sort_unstable();
        rows
    };
    all(kept)
        .flat_map(|(batch, ..)| batch["events"].as_array().cloned().unwrap_or_default())
        .map(|event| rows(&event))
        .collect()
}

/// What belongs together: rows of one set of identities with one transaction.
fn together(lines: &[Line]) -> BTreeSet<Vec<u64>> {
    let mut groups: BTreeMap<_, Vec<u64>> = BTreeMap::new();
    for (row, line) in (0u64..).zip(lines) {
        let alone = if line.transaction == 0 { row + 1 } else { 0 };
        let group = (line.user, line.mail, line.transaction, alone);
        groups.entry(group).or_default().push(row);
    }
    groups.into_values().collect()
}

proptest! {
    #[test]
    fn every_transaction_is_one_event_or_refused_whole(
        lines in prop::collection::vec(line(), 0..40),
        settings in settings_strategy(),
        skip in any::<bool>(),
    ) {
        let (kept, made) = encode(&lines, settings, skip);
        check_limits(&kept, &made, &settings);
        let sent = rows_of_events(&kept);
        let mut refused = kept.unsendable.clone();
        for group in together(&lines) {
            if !sent.contains(&group) {
                for row in &group {
                    prop_assert!(refused.remove(row), "row {} of {:?}", row, group);
                }
            }
        }
        prop_assert!(refused.is_empty(), "refused and sent: {:?}", refused);
        let rows: u64 = all(&kept).map(|(.., rows)| u64::from(*rows)).sum();
        prop_assert_eq!(rows + kept.unsendable.len() as u64, lines.len() as u64);
        prop_assert_eq!(made.events as usize, sent.len());
    }

    #[test]
    fn attributes_of_the_latest_row_win_although_rows_come_by_transaction(
        lines in prop::collection::vec(line(), 0..40),
        skip in any::<bool>(),
    ) {
        let (kept, _) = encode(&lines, Settings::default(), skip);
        let mut want = BTreeMap::new();
        for (row, line) in (0u64..).zip(&lines).filter(|(_, line)| line.attribute) {
            let user = serde_json::json!({
                "customer_id": line.user.to_string(), "email": line.mail.to_string()
            });
            want.insert((user.to_string(), "a0".to_owned()), row.to_string());
        }
        prop_assert_eq!(final_attributes(&kept), want);
    }
}

#[test]
fn a_purchase_is_the_same_in_whatever_order_its_rows_come() {
    let of = |product: &str, device| Line {
        user: 1,
        mail: 1,
        transaction: 1,
        device,
        product: product.to_owned(),
        attribute: false,
    };
    // Products are told apart by their rows here, so only their names are compared.
    let ids = |lines: &[Line]| {
        let records: Vec<_> = lines.iter().map(|line| record(7, line)).collect();
        let delivery = purchases(fastrand::u8(..));
        let encoder = Encoder::new(Settings::default(), delivery).skipping_sent([1; 16]);
        let (kept, _) = encoded(encoder, &records);
        let batches: Vec<_> = all(&kept).map(|(batch, ..)| batch.clone()).collect();
        assert_eq!(batches.len(), 1);
        batches[0].clone()
    };
    let (a, b, c) = (of("a", 0), of("b", 1), of("c", 0));
    let one = ids(&[a.clone(), b.clone(), c.clone()]);
    assert_eq!(one, ids(&[c.clone(), a.clone(), b.clone()]));
    assert_eq!(one, ids(&[b.clone(), c.clone(), a.clone()]));
    let more = ids(&[a.clone(), a, b, c]);
    assert_ne!(one["source_request_id"], more["source_request_id"]);
}
