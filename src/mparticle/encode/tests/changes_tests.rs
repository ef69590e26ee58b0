//! Deliveries that send only changes: what is asked, what is passed over, what is told.

use super::*;
use crate::record::{parts, push_part};

/// Knows users by their fingerprints, and has somebody who left.
#[derive(Default)]
struct Remembers {
    kept: Kept,
    known: BTreeMap<u64, u128>,
    asked: Vec<(u64, Option<u128>, Vec<Vec<u8>>)>,
    placed: Vec<(u64, u64)>,
    gone: Vec<Vec<u8>>,
}

impl Sink for Remembers {
    type Error = Infallible;

    fn request(&mut self, route: Route, batches: &mut Batches) -> Result<(), Infallible> {
        self.kept.request(route, batches)
    }

    fn unsendable(&mut self, row: RecordView<'_>, why: Unsendable) -> Result<(), Infallible> {
        self.kept.unsendable(row, why)
    }

    fn is_known(
        &mut self,
        user: u64,
        fingerprint: Option<u128>,
        people: &[u8],
    ) -> Result<bool, Infallible> {
        let sets = parts(people).map(<[u8]>::to_vec).collect();
        self.asked.push((user, fingerprint, sets));
        Ok(fingerprint.is_some() && self.known.get(&user) == fingerprint.as_ref())
    }

    fn placed(&mut self, first: u64, last: u64) -> Result<(), Infallible> {
        self.placed.push((first, last));
        Ok(())
    }

    fn next_gone(&mut self, people: &mut Vec<u8>) -> Result<bool, Infallible> {
        let next = self.gone.pop();
        people.clear();
        people.extend(next.iter().flatten());
        Ok(next.is_some())
    }
}

fn run(
    id: u8,
    rows: &[Given],
    known: &BTreeMap<u64, u128>,
    attribute: Option<&str>,
    settings: Settings,
) -> (Remembers, Made) {
    let delivery = delivery(id, DataType::User);
    let mut encoder = Encoder::new(settings, delivery).sending_changes([4; 16], attribute);
    let records = (0..)
        .zip(rows)
        .map(|(row, given)| record(row, given, DataType::User));
    let mut sink = Remembers {
        known: known.clone(),
        ..Remembers::default()
    };
    for record in &grouped(records) {
        encoder.push(record.view(), &mut sink).unwrap();
    }
    let made = encoder.finish(&mut sink).unwrap();
    (sink, made)
}

fn fingerprints(sink: &Remembers) -> BTreeMap<u64, u128> {
    let asked = sink.asked.iter();
    let known = asked.filter_map(|(user, fingerprint, _)| Some((*user, (*fingerprint)?)));
    known.collect()
}

fn small() -> Settings {
    Settings {
        max_batches_per_request: 2,
        ..Settings::default()
    }
}

proptest! {
    #[test]
    fn what_is_sent_of_a_user_and_the_fingerprint_change_together(
        rows in prop::collection::vec(given(), 1..20),
        others in prop::collection::vec(given(), 1..20),
        again in any::<bool>(),
    ) {
        // The rows again in a delivery of its own, or others.
        let others = if again { rows.clone() } else { others };
        let nothing = BTreeMap::new();
        let (one, _) = run(1, &rows, &nothing, None, small());
        let (two, _) = run(2, &others, &nothing, None, small());
        let said = |sink: &Remembers| {
            let mut said: BTreeMap<u64, Vec<String>> = BTreeMap::new();
            for (batch, ..) in all(&sink.kept) {
                let mut batch = batch.clone();
                let user = batch["user_identities"]["customer_id"].as_str().unwrap().parse().unwrap();
                batch.as_object_mut().unwrap().remove("source_request_id");
                said.entry(user).or_default().push(batch.to_string());
            }
            said
        };
        let (before, now) = (said(&one), said(&two));
        let (old, new) = (fingerprints(&one), fingerprints(&two));
        for (user, fingerprint) in &new {
            prop_assert_eq!(old.get(user) == Some(fingerprint), before.get(user) == now.get(user));
        }
        // Those alone are sent that are not known, and all rows are accounted for.
        let (three, made) = run(3, &others, &old, None, small());
        let sent: BTreeSet<u64> = said(&three).into_keys().collect();
        let changed = new.iter().filter(|(user, is)| old.get(user) != Some(is));
        prop_assert_eq!(sent, changed.map(|(user, _)| *user).collect());
        let rows_sent: u32 = all(&three.kept).map(|(.., rows)| *rows).sum();
        prop_assert_eq!(u64::from(rows_sent) + made.unchanged_rows, others.len() as u64);
        prop_assert_eq!(made.batches as usize, all(&three.kept).count());
    }

    #[test]
    fn a_user_is_in_the_requests_that_are_named(
        rows in prop::collection::vec(given(), 1..30),
    ) {
        let (sink, _) = run(1, &rows, &BTreeMap::new(), Some("in"), small());
        prop_assert_eq!(sink.asked.len(), sink.placed.len());
        for ((user, ..), (first, last)) in sink.asked.iter().zip(&sink.placed) {
            for (at, request) in sink.kept.requests.iter().enumerate() {
                let holds = request.iter().any(|(batch, ..)| {
                    batch["user_identities"]["customer_id"].as_str() == Some(&user.to_string())
                });
                if holds {
                    prop_assert!((*first..=*last).contains(&(at as u64)));
                }
            }
        }
    }
}

fn one(customer: u8, email: u8) -> Given {
    Given {
        attributes: vec![(0, "x".to_owned())],
        ..plain(customer, email)
    }
}

#[test]
fn of_an_audience_all_are_in_and_those_who_left_are_told_so() {
    let (nobody, name) = (BTreeMap::new(), Some("big \"spender\""));
    let (mut sink, _) = run(1, &[one(1, 1)], &nobody, name, small());
    let (batch, ..) = all(&sink.kept).next().unwrap();
    assert_eq!(batch["user_attributes"]["big \"spender\""], true);
    assert_eq!(batch["user_attributes"]["a0"], "x");

    let mut people = Vec::new();
    push_part(&mut people, b"\"customer_id\":\"8\"");
    push_part(&mut people, b"\"mpid\":9,\"email\":\"a@b.c\"");
    sink = Remembers {
        gone: vec![people],
        ..Remembers::default()
    };
    let delivery = Delivery {
        environment: Environment::Production,
        ..delivery(9, DataType::User)
    };
    let plan = DataPlan {
        id: "p".to_owned(),
        version: None,
    };
    let encoder = Encoder::new(Settings::default(), delivery).with_data_plan(&plan);
    let encoder = encoder.sending_changes([4; 16], Some("in"));
    let made = encoder.finish(&mut sink).unwrap();
    let batches = all(&sink.kept).map(|(batch, _, rows)| (batch.clone(), *rows));
    let batches: Vec<_> = batches.collect();
    let id = "09".repeat(16);
    let want = |n: usize, identities: Value| {
        serde_json::json!({
            "source_request_id": format!("{id}-gone-{n}"),
            "environment": "production",
            "user_identities": identities,
            "user_attributes": {"in": false},
            "context": {"data_plan": {"plan_id": "p"}},
        })
    };
    let mut second = want(1, serde_json::json!({"email": "a@b.c"}));
    second["mpid"] = serde_json::json!(9);
    let first = want(0, serde_json::json!({"customer_id": "8"}));
    assert_eq!(batches, [(first, 0), (second, 0)]);
    assert_eq!((made.gone, made.batches, made.requests), (1, 2, 1));
    assert_eq!(sink.placed, [(0, 0)]);
}

#[test]
fn people_who_are_too_many_to_be_held_at_once_are_sent_and_never_compared() {
    let crowd = (0..=255).map(|email| one(1, email));
    let rows: Vec<Given> = crowd.chain([one(2, 0)]).collect();
    let (sink, made) = run(1, &rows, &BTreeMap::new(), None, small());
    let crowd: Vec<_> = sink.asked.iter().filter(|(user, ..)| *user == 1).collect();
    assert!(crowd.len() > 1);
    assert!(
        crowd
            .iter()
            .all(|(_, fingerprint, _)| fingerprint.is_none())
    );
    let sets: usize = crowd.iter().map(|(.., sets)| sets.len()).sum();
    assert_eq!(sets, 256);
    assert!(sink.asked.last().unwrap().1.is_some());
    assert_eq!(sink.placed.len(), 1);
    assert_eq!(made.batches, 257);
}

#[test]
fn who_cannot_be_sent_is_in_the_result_all_the_same() {
    let tight = Settings {
        max_batch_bytes: 10,
        ..Settings::default()
    };
    let (sink, made) = run(1, &[one(1, 1)], &BTreeMap::new(), Some("in"), tight);
    assert_eq!(sink.asked, [(1, None, vec![])]);
    assert_eq!((sink.kept.unsendable.len(), made.batches), (1, 0));
}

#[test]
fn a_change_of_the_fingerprint_is_a_decision() {
    // With another one, each schedule sends all its users once more.
    let (sink, _) = run(1, &[one(1, 1)], &BTreeMap::new(), None, small());
    let fingerprint = 240_607_494_824_302_988_237_785_749_955_481_889_528;
    assert_eq!(sink.asked[0].1, Some(fingerprint));
}
