//! The full comparison: what arrived against what was sent in and heard.

use std::collections::{BTreeMap, HashMap};

use looker_feed::looker::audit;
use looker_feed::sandbox::Accepted;
use serde_json::Value;

use super::deliveries::{Content, Execution, Profiles, mark};

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
