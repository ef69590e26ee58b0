//! The full comparison: what arrived against what was sent in and heard.

use std::collections::{BTreeMap, HashMap};

use looker_feed::looker::audit;
use looker_feed::sandbox::Accepted;
use serde_json::Value;

use super::deliveries::{Content, Execution, Heard, KEYS, Profiles, mark};

/// How the executions ended.
#[derive(Debug, Default)]
pub struct Ends {
    /// Told success, arrived.
    pub told: usize,
    /// Not told, arrived: the answer was lost.
    pub untold: usize,
    /// Not told, nothing arrived.
    pub vanished: usize,
}

/// Panics at the first row that should not be, or should be and is not.
pub fn compare(executions: &[Execution], ledger: &[Accepted]) -> Ends {
    let mut deliveries: BTreeMap<&str, Vec<&Accepted>> = BTreeMap::new();
    for accepted in ledger {
        let id = accepted.id.as_deref().expect("every batch has an id");
        let (delivery, rest) = id.split_at_checked(32).expect("a delivery's id and more");
        assert!(rest.starts_with('-'), "{id}");
        deliveries.entry(delivery).or_default().push(accepted);
    }
    let mut arrived: HashMap<usize, &str> = HashMap::new();
    for (delivery, batches) in &deliveries {
        let whose = owner(executions, batches);
        let execution = &executions[whose];
        if let Some(other) = arrived.insert(whose, delivery) {
            let heard = &execution.heard;
            panic!("execution {whose} arrived as {other} and as {delivery}: {heard:?}");
        }
        assert!(
            batches.iter().all(|batch| *batch.key == *execution.key),
            "a batch of {delivery} came with another key"
        );
        let result = match &execution.content {
            Content::Events(shape) => audit(shape, batches.iter().map(|batch| &batch.batch[..]))
                .map(|rows| assert_eq!(rows, shape.rows))
                .map_err(|mismatch| mismatch.what),
            Content::Profiles(profiles) => {
                let batches: Vec<_> = batches.iter().map(|batch| parsed(batch)).collect();
                profiles.audit(&batches)
            }
        };
        if let Err(what) = result {
            let heard = &execution.heard;
            panic!("delivery {delivery} of execution {whose} ({heard:?}): {what}");
        }
    }
    keep_order(ledger);
    let mut ends = Ends::default();
    for (number, execution) in executions.iter().enumerate() {
        let heard = &execution.heard;
        match (execution.succeeded(), arrived.contains_key(&number)) {
            (true, true) => ends.told += 1,
            (true, false) => panic!("execution {number} did not arrive: {heard:?}"),
            (false, true) if execution.in_doubt() => ends.untold += 1,
            (false, true) => panic!("execution {number} was refused and arrived: {heard:?}"),
            (false, false) => ends.vanished += 1,
        }
    }
    ends
}

/// No user's newer values are followed by older ones.
fn keep_order(ledger: &[Accepted]) {
    let mut latest: HashMap<u64, u64> = HashMap::new();
    for accepted in ledger {
        if let Some((version, user, _)) = Profiles::read(&parsed(accepted)) {
            let before = latest.insert(user, version).unwrap_or(0);
            assert!(
                before < version,
                "user {user} got version {version} after {before}"
            );
        }
    }
    assert!(!latest.is_empty(), "no profile arrived at all");
}

/// Which execution a delivery is, by what the first of its batches says.
fn owner(executions: &[Execution], batches: &[&Accepted]) -> usize {
    let batch = parsed(batches[0]);
    let customer = batch["user_identities"]["customer_id"].as_str();
    let customer = customer.unwrap_or_else(|| panic!("nobody's batch: {batch}"));
    let version = Profiles::read(&batch).map(|(version, ..)| version);
    executions
        .iter()
        .position(|execution| match &execution.content {
            Content::Events(shape) => mark(&shape.row(0).customer_id) == mark(customer),
            Content::Profiles(profiles) => Some(profiles.version) == version,
        })
        .unwrap_or_else(|| panic!("nobody sent {batch}"))
}

fn parsed(accepted: &Accepted) -> Value {
    serde_json::from_slice(&accepted.batch).expect("a batch is JSON")
}

/// A ledger of two profile deliveries, as it should be.
fn good() -> (Vec<Execution>, Vec<Accepted>) {
    let mut executions = Vec::new();
    let mut ledger = Vec::new();
    for version in 1..=2u64 {
        let profiles = Profiles {
            version,
            users: 3,
            rows: 7,
        };
        for (user, row) in [(0, 6), (1, 4), (2, 5)] {
            let batch = serde_json::json!({
                "user_identities": {"customer_id": format!("profile-{user}")},
                "user_attributes": {"looker_p.version": version, "looker_p.row": row},
            });
            ledger.push(Accepted {
                key: KEYS[0].into(),
                id: Some(format!("{version:032x}-{row}")),
                batch: batch.to_string().into(),
                received: 1,
                historical: false,
                dropped_events: 0,
            });
        }
        executions.push(Execution {
            content: Content::Profiles(profiles),
            key: KEYS[0],
            webhook: String::new(),
            heard: vec![Heard::Nothing, Heard::Success],
        });
    }
    (executions, ledger)
}

#[test]
fn the_comparison_sees_what_it_is_there_for() {
    type Spoil = fn(&mut Vec<Execution>, &mut Vec<Accepted>);
    let cases: [(&str, Spoil); 8] = [
        ("a batch is missing", |_, ledger| drop(ledger.remove(1))),
        ("a batch came twice", |_, ledger| {
            let mut again = ledger[4].clone();
            again.id = again.id.map(|id| id + "-again");
            ledger.push(again);
        }),
        ("a delivery is missing", |_, ledger| ledger.truncate(3)),
        ("an old value came last", |_, ledger| ledger.rotate_left(3)),
        ("a refused one arrived", |executions, _| {
            executions[1].heard = vec![Heard::Failure(String::new())];
        }),
        ("one arrived as two", |_, ledger| {
            for accepted in &mut ledger[3..] {
                let text = String::from_utf8(accepted.batch.to_vec()).unwrap();
                accepted.batch = text.replace("version\":2", "version\":1").into();
            }
        }),
        ("nobody sent it", |executions, _| drop(executions.remove(0))),
        ("it came with another key", |_, ledger| {
            ledger[2].key = KEYS[1].into()
        }),
    ];
    let (executions, ledger) = good();
    let ends = compare(&executions, &ledger);
    assert_eq!((ends.told, ends.untold, ends.vanished), (2, 0, 0));
    for (what, spoil) in cases {
        let (mut executions, mut ledger) = good();
        spoil(&mut executions, &mut ledger);
        let seen = std::panic::catch_unwind(|| compare(&executions, &ledger));
        assert!(seen.is_err(), "not seen: {what}");
    }
}
