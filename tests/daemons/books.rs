//! What was sent in and what was heard, against what arrived.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use looker_feed::looker::{Shape, audit};
use looker_feed::sandbox::Accepted;
use serde_json::Value;

/// A delivery that was sent in.
#[derive(Clone, Debug)]
pub struct Sent {
    /// The account's key.
    pub key: &'static str,
    pub shape: Shape,
    /// `None`: nothing was heard.
    pub success: Option<bool>,
    /// What was said.
    pub words: String,
}

/// How the deliveries ended.
#[derive(Clone, Copy, Debug, Default)]
pub struct Ends {
    /// Told success, and arrived.
    pub told: usize,
    /// Not told success, and arrived: the answer was lost, or the daemon was gone before it.
    pub untold: usize,
    /// Not told success, and nothing arrived.
    pub vanished: usize,
}

/// Which delivery brings a user, by id and e-mail address; `None`: several do. The users of some 500
/// deliveries share ids with those of others.
fn senders(sent: &[Sent]) -> HashMap<(String, String), Option<usize>> {
    let mut whose = HashMap::new();
    for (number, one) in sent.iter().enumerate() {
        let users: BTreeSet<(String, String)> = (0..one.shape.rows)
            .map(|row| one.shape.row(row))
            .map(|row| (row.customer_id, row.email))
            .collect();
        for user in users {
            let of = whose.entry(user).or_insert(Some(number));
            if *of != Some(number) {
                *of = None;
            }
        }
    }
    whose
}

/// Panics at the first row that should not be there, or should be and is not, and where a delivery does
/// not come after those of its account before it. `sent` is in the order in which it was sent, account by
/// account.
pub fn compare(sent: &[Sent], ledger: &[Accepted]) -> Ends {
    let whose = senders(sent);
    let delivery = |accepted: &Accepted| {
        let id = accepted.id.as_deref().expect("an id");
        id.split_at(32).0.to_owned()
    };
    let mut numbers: HashMap<String, usize> = HashMap::new();
    for accepted in ledger {
        let batch: Value = serde_json::from_slice(&accepted.batch).expect("a batch is JSON");
        let identity = |name: &str| batch["user_identities"][name].as_str().map(str::to_owned);
        let user = identity("customer_id").zip(identity("email"));
        let number = user.and_then(|user| whose.get(&user));
        if let Some(number) = *number.unwrap_or_else(|| panic!("nobody sent {batch}")) {
            let before = numbers.insert(delivery(accepted), number);
            assert!(
                before.is_none_or(|before| before == number),
                "one delivery brings what {before:?} and {number} have sent"
            );
        }
    }
    let mut arrived: BTreeMap<usize, (String, Vec<&Accepted>)> = BTreeMap::new();
    let mut orders: BTreeMap<&str, Order> = BTreeMap::new();
    for accepted in ledger {
        let delivery = delivery(accepted);
        let number = numbers.get(&delivery);
        let number = *number.unwrap_or_else(|| panic!("nobody sent {delivery}"));
        let (known, batches) = arrived
            .entry(number)
            .or_insert_with(|| (delivery.clone(), Vec::new()));
        assert_eq!(*known, delivery, "delivery {number} came twice");
        assert_eq!(&*accepted.key, sent[number].key);
        batches.push(accepted);
        let told = sent[number].success == Some(true);
        let order = orders.entry(sent[number].key).or_default();
        order.next(number, told);
    }
    let mut ends = Ends::default();
    for (number, one) in sent.iter().enumerate() {
        let batches = arrived.get(&number).map(|(_, batches)| batches);
        if let Some(batches) = batches {
            let bytes = batches.iter().map(|batch| &batch.batch[..]);
            audit(&one.shape, bytes).unwrap_or_else(|error| panic!("delivery {number}: {error}"));
        }
        match (one.success == Some(true), batches.is_some()) {
            (true, true) => ends.told += 1,
            (true, false) => panic!("delivery {number} did not arrive: {one:?}"),
            (false, true) => ends.untold += 1,
            (false, false) => ends.vanished += 1,
        }
    }
    ends
}

/// In which order the deliveries of an account have arrived.
#[derive(Default)]
struct Order {
    ended: BTreeSet<usize>,
    current: Option<usize>,
    /// The last one that was told success.
    told: Option<usize>,
}

impl Order {
    /// The next one only when the last has arrived whole, and after those that were taken before it was
    /// sent. One of which nothing was heard may have been taken later: by a daemon that was frozen.
    fn next(&mut self, number: usize, told: bool) {
        if self.current == Some(number) {
            return;
        }
        self.ended.extend(self.current);
        let (ended, before) = (self.ended.contains(&number), self.told);
        assert!(
            !ended && (!told || before.is_none_or(|before| before < number)),
            "delivery {number} has a batch after one of {:?}, the last that was told {before:?}",
            self.current
        );
        self.current = Some(number);
        if told {
            self.told = Some(number);
        }
    }
}

/// A small delivery that was told success.
fn small(seed: u64) -> Sent {
    Sent {
        key: "k",
        shape: Shape {
            rows: 4,
            users: 2,
            seed,
            ..Shape::default()
        },
        success: Some(true),
        words: String::new(),
    }
}

#[test]
fn the_comparison_sees_what_it_is_there_for() {
    let sent = vec![small(1), small(2)];
    let refused = |ledger: Vec<Accepted>| {
        let sent = sent.clone();
        std::panic::catch_unwind(move || compare(&sent, &ledger)).is_err()
    };
    assert!(refused(Vec::new()), "nothing arrived");
    let batch = |seed: u64, id: &str| {
        let row = small(seed).shape.row(0);
        let who = serde_json::json!({"customer_id": row.customer_id, "email": row.email});
        Accepted {
            key: "k".into(),
            id: Some(format!("{id:0>32}-1")),
            batch: serde_json::json!({"user_identities": who})
                .to_string()
                .into(),
            received: 1,
            historical: false,
            dropped_events: 0,
        }
    };
    let text = |ledger: Vec<Accepted>| {
        let sent = sent.clone();
        let panic = std::panic::catch_unwind(move || compare(&sent, &ledger)).unwrap_err();
        let text = panic.downcast_ref::<String>();
        text.cloned().unwrap_or_default()
    };
    let cases = [
        (vec![batch(1, "a"), batch(1, "b")], "came twice"),
        (vec![batch(2, "b"), batch(1, "a")], "has a batch after"),
        (
            vec![batch(1, "a"), batch(2, "b"), batch(1, "a")],
            "has a batch after",
        ),
        (vec![batch(9, "a")], "nobody sent"),
        (vec![batch(1, "a")], "did not arrive"),
        (vec![batch(1, "a"), batch(2, "a")], "one delivery brings"),
    ];
    for (ledger, words) in cases {
        let said = text(ledger);
        assert!(said.contains(words), "{said}");
    }
}

#[test]
fn deliveries_whose_users_have_the_same_ids_are_told_apart() {
    // The first two of which it is so.
    let sent = [small(245), small(473)];
    let [first, other] = [0, 1].map(|at| sent[at].shape.row(0));
    assert_eq!(first.customer_id, other.customer_id);
    assert_ne!(first.email, other.email);
    let whose = senders(&sent);
    assert_eq!(whose.len(), 4);
    for (number, one) in sent.iter().enumerate() {
        let row = one.shape.row(0);
        assert_eq!(whose[&(row.customer_id, row.email)], Some(number));
    }
}
