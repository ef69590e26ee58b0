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
    (0..3u8, 0..2u8, 0..4u8, 0..2u8, "[a-z]{0,80}", any::<bool>()).prop_map(
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
    let mut record = Record::default();
    record.begin(row);
    // Two transactions share an order key, as two may by accident.
    record.user = (u64::from(line.user) << 24) | u64::from(line.transaction.div_ceil(2));
    push_display(
        record.section(Section::Identities),
        format_args!(
            "\"customer_id\":\"{}\",\"email\":\"{}\"",
            line.user, line.mail
        ),
    );
    let device = record.section(Section::Device);
    let start = begin_setting(device, 0);
    push_display(device, format_args!("\"{}\"", line.device));
    end_setting(device, start);
    if line.attribute {
        let attributes = record.section(Section::Attributes);
        let start = begin_setting(attributes, 0);
        push_display(attributes, format_args!("{row}"));
        end_setting(attributes, start);
    }
    let event = record.section(Section::Event);
    let mark = Mark {
        old: false,
        kind: EventKind::Commerce,
    };
    event.push(mark.byte());
    let mut writer = PurchaseWriter::begin(event);
    if line.transaction > 0 {
        push_display(event, format_args!("T{}", line.transaction));
    }
    writer.end_key(event);
    push_display(
        event,
        format_args!(
            ",\"product_action\":{{\"action\":\"purchase\",\"transaction_id\":\"{}\"",
            line.transaction
        ),
    );
    writer.end_head(event);
    push_display(
        event,
        format_args!("{{\"id\":\"{row}\",\"name\":\"{}\"}}", line.product),
    );
    record.end();
    record
}

fn encode(lines: &[Line], settings: Settings, skip: bool) -> (Kept, Made) {
    let delivery = Delivery {
        id: DeliveryId([9; 16]),
        data_type: DataType::Event,
        environment: Environment::Development,
        names: Names {
            attributes: vec!["\"a0\":".into()],
            device: vec!["\"brand\":".into()],
            purchases: true,
            ..Names::default()
        },
    };
    let mut records: Vec<_> = (0u64..)
        .zip(lines)
        .map(|(row, line)| record(row, line))
        .collect();
    records.sort_by_key(|record| (record.user, record.row));
    let mut encoder = Encoder::new(settings, delivery);
    if skip {
        encoder = encoder.skipping_sent([1; 16]);
    }
    let mut kept = Kept::default();
    for record in &records {
        encoder.push(record.view(), &mut kept).unwrap();
    }
    let made = encoder.finish(&mut kept).unwrap();
    (kept, made)
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
        let mut lines = lines.to_vec();
        let records: Vec<_> = lines.drain(..).map(|line| record(7, &line)).collect();
        let delivery = Delivery {
            id: DeliveryId(fastrand::u128(..).to_be_bytes()),
            data_type: DataType::Event,
            environment: Environment::Development,
            names: Names {
                device: vec!["\"brand\":".into()],
                purchases: true,
                ..Names::default()
            },
        };
        let mut encoder = Encoder::new(Settings::default(), delivery).skipping_sent([1; 16]);
        let mut kept = Kept::default();
        for record in &records {
            encoder.push(record.view(), &mut kept).unwrap();
        }
        encoder.finish(&mut kept).unwrap();
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
