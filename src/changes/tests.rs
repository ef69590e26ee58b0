//! Schedules that deliver night after night, against a model of who sends and who receives: what
//! matters in the end is what mParticle has.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::path::PathBuf;

use proptest::prelude::*;

use super::*;
use crate::record::push_part;

const SCHEDULE: ScheduleKey = ScheduleKey([5; 16]);
/// Users in a request.
const TOGETHER: usize = 2;

/// User and value.
type Night = BTreeMap<u64, u8>;

/// One thing that is told to mParticle.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Told {
    Is(u64, u8),
    Left(u64),
}

/// A delivery as the outbox has it.
#[derive(Clone, Debug, Default)]
struct Sent {
    requests: Vec<Vec<Told>>,
    dead: BTreeSet<usize>,
    /// Something was lost of which nobody can say what.
    doubt: bool,
    /// Turns in the queue.
    open: usize,
}

#[derive(Clone, Debug, Default)]
struct Outbox {
    deliveries: BTreeMap<DeliveryId, Sent>,
    queue: VecDeque<(DeliveryId, VecDeque<usize>)>,
    lost: Option<UnixMillis>,
}

impl Ledger for Outbox {
    fn ending(&self, delivery: DeliveryId) -> Ending {
        match self.deliveries.get(&delivery) {
            None => Ending::Unknown,
            Some(sent) if sent.open > 0 => Ending::Open,
            Some(sent) if sent.doubt => Ending::Settled(Missing::InDoubt),
            Some(sent) => Ending::Settled(Missing::Requests(
                sent.dead.iter().map(|request| *request as u32).collect(),
            )),
        }
    }

    fn lost(&self) -> Option<UnixMillis> {
        self.lost
    }
}

/// The daemon, its disk and what lies behind.
struct World {
    home: tempfile::TempDir,
    seal: Arc<Seal>,
    changes: Changes,
    outbox: Outbox,
    /// Value and audience of each user at mParticle.
    values: BTreeMap<u64, u8>,
    members: BTreeMap<u64, bool>,
    now: u64,
    audience: bool,
    refresh: u64,
    /// Users who may have left while nothing was known.
    forgiven: BTreeSet<u64>,
}

impl World {
    fn new(audience: bool) -> Self {
        let home = tempfile::tempdir().unwrap();
        let seal = Arc::new(Seal::ephemeral().unwrap());
        let changes = Changes::new(settings(home.path().join("changes")), Arc::clone(&seal));
        Self {
            home,
            seal,
            changes,
            outbox: Outbox::default(),
            values: BTreeMap::new(),
            members: BTreeMap::new(),
            now: 1,
            audience,
            refresh: u64::MAX,
            forgiven: BTreeSet::new(),
        }
    }

    fn order(&self) -> Order {
        Order {
            schedule: SCHEDULE,
            full_refresh: Duration::from_millis(self.refresh),
            audience: self.audience.then(|| Audience {
                attribute: "member".to_owned(),
                may_shrink: true,
            }),
        }
    }

    fn restart(&mut self) {
        self.changes = Changes::new(
            settings(self.home.path().join("changes")),
            Arc::clone(&self.seal),
        );
        self.changes.settle(&self.outbox);
    }

    /// What a delivery does until it could be committed.
    fn receive(&mut self, result: &Night) -> (DeliveryId, Session, Vec<Vec<Told>>) {
        self.now += 1;
        let id = DeliveryId(u128::from(self.now).to_be_bytes());
        let now = UnixMillis(self.now);
        let mut session = self
            .changes
            .begin(&self.order(), id, now, &self.outbox)
            .unwrap();
        if session
            .note()
            .is_some_and(|note| note.contains("not known"))
        {
            self.forgiven.extend(self.members.keys());
            for sent in self.outbox.deliveries.values() {
                self.forgiven
                    .extend(sent.requests.iter().flatten().map(|told| match told {
                        Told::Is(user, _) | Told::Left(user) => *user,
                    }));
            }
        }
        let mut requests: Vec<Vec<Told>> = Vec::new();
        let put = |requests: &mut Vec<Vec<Told>>, told| {
            if requests.last().is_none_or(|last| last.len() == TOGETHER) {
                requests.push(Vec::new());
            }
            requests.last_mut().unwrap().push(told);
            requests.len() as u64 - 1
        };
        for (&user, &value) in result {
            if !session
                .is_known(user, Some(u128::from(value)), &people(user))
                .unwrap()
            {
                let at = put(&mut requests, Told::Is(user, value));
                session.placed(at, at).unwrap();
            }
        }
        let mut gone = Vec::new();
        while session.next_gone(&mut gone).unwrap() {
            let set = crate::record::parts(&gone).next().unwrap();
            let user = String::from_utf8_lossy(set)
                .trim_matches(|c: char| !c.is_ascii_digit())
                .parse()
                .unwrap();
            let at = put(&mut requests, Told::Left(user));
            session.placed(at, at).unwrap();
        }
        session.check(false).unwrap();
        (id, session, requests)
    }

    fn commit(&mut self, id: DeliveryId, requests: Vec<Vec<Told>>) {
        let all: VecDeque<usize> = (0..requests.len()).collect();
        let open = usize::from(!all.is_empty());
        if open > 0 {
            self.outbox.queue.push_back((id, all));
        }
        let sent = Sent {
            requests,
            open,
            ..Sent::default()
        };
        self.outbox.deliveries.insert(id, sent);
    }

    /// A night that goes well; returns how many were told something.
    fn run(&mut self, result: &Night) -> usize {
        let (id, mut session, requests) = self.receive(result);
        session.finish().unwrap();
        let told = requests.iter().map(Vec::len).sum();
        self.commit(id, requests);
        session.committed();
        self.forgiven.retain(|user| !result.contains_key(user));
        told
    }

    /// Lets the next request fly.
    fn send(&mut self, arrives: bool) {
        let Some((id, left)) = self.outbox.queue.front_mut() else {
            return;
        };
        let sent = self.outbox.deliveries.get_mut(id).unwrap();
        let request = left.pop_front().unwrap();
        if arrives {
            for told in &sent.requests[request] {
                match *told {
                    Told::Is(user, value) => {
                        self.values.insert(user, value);
                        self.members.insert(user, true);
                    }
                    Told::Left(user) => {
                        self.members.insert(user, false);
                    }
                }
            }
        } else {
            sent.dead.insert(request);
        }
        if left.is_empty() {
            sent.open -= 1;
            self.outbox.queue.pop_front();
        }
    }

    fn send_all(&mut self) {
        while !self.outbox.queue.is_empty() {
            self.send(true);
        }
    }

    /// The first dead letter there is goes to the end of the queue.
    fn replay(&mut self) {
        let dead = self
            .outbox
            .deliveries
            .iter()
            .find(|(_, sent)| !sent.dead.is_empty());
        let Some((&id, _)) = dead else {
            return;
        };
        self.changes.doubt(&[id]).unwrap();
        let sent = self.outbox.deliveries.get_mut(&id).unwrap();
        let request = sent.dead.pop_first().unwrap();
        sent.open += 1;
        self.outbox.queue.push_back((id, VecDeque::from([request])));
    }

    fn discard(&mut self) {
        for sent in self.outbox.deliveries.values_mut() {
            if sent.dead.pop_first().is_some() {
                sent.doubt = true;
                return;
            }
        }
    }

    fn cancel(&mut self, which: usize) {
        let ids: Vec<_> = self.outbox.deliveries.keys().copied().collect();
        let Some(id) = ids.get(which % ids.len().max(1)) else {
            return;
        };
        let sent = self.outbox.deliveries.get_mut(id).unwrap();
        if sent.open > 0 {
            sent.open = 0;
            sent.doubt = true;
            self.outbox.queue.retain(|(other, _)| other != id);
        }
    }

    fn files(&self) -> Vec<PathBuf> {
        let directory = self.home.path().join("changes").join(SCHEDULE.to_string());
        let entries = fs::read_dir(directory).into_iter().flatten().flatten();
        let mut files: Vec<_> = entries.map(|entry| entry.path()).collect();
        files.sort();
        files
    }

    /// Alters one byte of one file, or cuts the file there.
    fn damage(&mut self, which: usize, at: usize, cut: bool) {
        let files = self.files();
        let Some(path) = files.get(which % files.len().max(1)) else {
            return;
        };
        let mut bytes = fs::read(path).unwrap();
        let at = at % bytes.len();
        match cut {
            true => bytes.truncate(at),
            false => bytes[at] ^= 32,
        }
        fs::write(path, bytes).unwrap();
        // Who is told of leaving is read out of the file.
        self.forgiven.extend(0..50);
    }

    /// All that waits arrives; then mParticle must have what the last result said.
    fn check(&mut self, last: &Night) -> Result<(), TestCaseError> {
        self.send_all();
        self.changes.settle(&self.outbox);
        for (user, value) in last {
            prop_assert_eq!(self.values.get(user), Some(value), "user {}", user);
        }
        if self.audience {
            for (user, member) in &self.members {
                let should = last.contains_key(user);
                if !self.forgiven.contains(user) || should {
                    prop_assert_eq!(*member, should, "membership of {}", user);
                }
            }
        }
        Ok(())
    }
}

fn settings(directory: PathBuf) -> Settings {
    Settings {
        directory,
        max_bytes: 1 << 30,
        forget_after: Duration::from_secs(3600),
        max_drop_percent: 50,
    }
}

fn people(user: u64) -> Vec<u8> {
    let mut people = Vec::new();
    push_part(
        &mut people,
        format!("\"customer_id\":\"{user}\"").as_bytes(),
    );
    people
}

fn result(users: std::ops::Range<u64>, value: u8) -> Night {
    users.map(|user| (user, value)).collect()
}

#[derive(Clone, Debug)]
enum Step {
    Run(Night),
    Due(Night),
    GivenUp(Night),
    /// The process dies between the snapshot and the commit.
    CutOff(Night),
    /// And between the commit and the answer.
    CommittedAndCutOff(Night),
    ReplayMeanwhile(Night),
    Send(u8),
    Refuse,
    Settle,
    Replay,
    Discard,
    Cancel(usize),
    Restart,
    Damage(usize, usize, bool),
    LoseState,
}

fn step() -> impl Strategy<Value = Step> {
    let result = prop::collection::btree_map(0..8u64, 0..3u8, 0..8).boxed();
    prop_oneof![
        8 => result.clone().prop_map(Step::Run),
        1 => result.clone().prop_map(Step::Due),
        1 => result.clone().prop_map(Step::GivenUp),
        1 => result.clone().prop_map(Step::CutOff),
        1 => result.clone().prop_map(Step::CommittedAndCutOff),
        1 => result.prop_map(Step::ReplayMeanwhile),
        8 => (1..6u8).prop_map(Step::Send),
        4 => Just(Step::Refuse),
        3 => Just(Step::Settle),
        1 => Just(Step::Replay),
        1 => Just(Step::Discard),
        1 => any::<usize>().prop_map(Step::Cancel),
        1 => Just(Step::Restart),
        1 => (any::<usize>(), any::<usize>(), any::<bool>()).prop_map(|(a, b, c)| Step::Damage(a, b, c)),
        1 => Just(Step::LoseState),
    ]
}

impl World {
    fn step(&mut self, step: &Step) {
        match step {
            Step::Run(result) => {
                self.run(result);
            }
            Step::Due(result) => {
                self.refresh = 0;
                self.run(result);
                self.refresh = u64::MAX;
            }
            Step::GivenUp(result) => drop(self.receive(result)),
            Step::CutOff(result) => {
                let (_, mut session, _) = self.receive(result);
                session.finish().unwrap();
                std::mem::forget(session);
                self.restart();
            }
            Step::CommittedAndCutOff(result) => {
                let (id, mut session, requests) = self.receive(result);
                session.finish().unwrap();
                self.commit(id, requests);
                std::mem::forget(session);
                self.forgiven.retain(|user| !result.contains_key(user));
                self.restart();
            }
            Step::ReplayMeanwhile(result) => {
                let (id, mut session, requests) = self.receive(result);
                self.replay();
                session.finish().unwrap();
                self.commit(id, requests);
                session.committed();
                self.forgiven.retain(|user| !result.contains_key(user));
            }
            Step::Send(count) => (0..*count).for_each(|_| self.send(true)),
            Step::Refuse => self.send(false),
            Step::Settle => self.changes.settle(&self.outbox),
            Step::Replay => self.replay(),
            Step::Discard => self.discard(),
            Step::Cancel(which) => self.cancel(*which),
            Step::Restart => self.restart(),
            Step::Damage(which, at, cut) => self.damage(*which, *at, *cut),
            Step::LoseState => {
                self.now += 1;
                self.outbox.lost = Some(UnixMillis(self.now));
                // What had settled is listed no more.
                self.outbox.deliveries.retain(|_, sent| sent.open > 0);
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, ..ProptestConfig::default() })]

    #[test]
    fn whatever_happens_in_between_mparticle_has_the_last_result_in_the_end(
        steps in prop::collection::vec(step(), 1..40),
        last in prop::collection::btree_map(0..8u64, 0..3u8, 0..8),
        audience in any::<bool>(),
    ) {
        let mut world = World::new(audience);
        for step in &steps {
            world.step(step);
        }
        // What waits to be sent again arrives behind the last result, and says so to the next one.
        world.send_all();
        world.run(&last);
        world.check(&last)?;
        // And then there is nothing to say any more.
        world.run(&last);
        world.send_all();
        prop_assert_eq!(world.run(&last), 0);
        world.check(&last)?;
    }
}

#[test]
fn the_second_night_tells_of_what_changed_only() {
    for audience in [false, true] {
        let mut world = World::new(audience);
        let first = result(0..1_000, 1);
        assert_eq!(world.run(&first), 1_000);
        world.send_all();
        let mut second = first.clone();
        second.insert(7, 2);
        second.insert(5_000, 1);
        second.remove(&500);
        assert_eq!(world.run(&second), 2 + usize::from(audience));
        world.check(&second).unwrap();
        assert_eq!(world.run(&second), 0, "nothing is left to say");
        world.check(&second).unwrap();
        // Who comes back is told so where leaving was told, and is as before where it was not.
        assert_eq!(world.run(&first), 1 + usize::from(audience) * 2);
        world.check(&first).unwrap();
    }
}

#[test]
fn an_empty_result_costs_no_full_delivery_afterwards() {
    let mut world = World::new(false);
    let all = result(0..100, 1);
    world.run(&all);
    world.send_all();
    assert_eq!(world.run(&Night::new()), 0);
    assert_eq!(world.run(&all), 0);
}

#[test]
fn what_did_not_arrive_is_told_again_and_what_did_is_not() {
    let mut world = World::new(true);
    let all = result(0..10, 1);
    world.run(&all);
    // Users 4 and 5 are together in the third request.
    for arrives in [true, true, false, true, true] {
        world.send(arrives);
    }
    assert_eq!(world.run(&all), 2);
    world.check(&all).unwrap();
    // Leaving is told again too.
    let fewer = result(0..6, 1);
    assert_eq!(world.run(&fewer), 4);
    world.send(false);
    world.send(true);
    assert_eq!(world.run(&fewer), 2);
    world.check(&fewer).unwrap();
    assert_eq!(world.run(&fewer), 0);
}

#[test]
fn a_value_that_comes_back_while_the_other_one_waits_is_told() {
    let mut world = World::new(false);
    world.run(&result(0..2, 1));
    world.send_all();
    assert_eq!(world.run(&result(0..2, 2)), 2);
    assert_eq!(world.run(&result(0..2, 1)), 2, "the other value may arrive");
    assert_eq!(world.run(&result(0..2, 1)), 2, "and this one may not");
    world.check(&result(0..2, 1)).unwrap();
    assert_eq!(world.run(&result(0..2, 1)), 0);
}

#[test]
fn with_too_much_waiting_all_are_told() {
    let mut world = World::new(false);
    world.run(&result(0..3, 1));
    world.send_all();
    for night in 0..MOST_PENDING {
        let mut other = result(0..3, 1);
        other.insert(0, 2 + night as u8);
        assert_eq!(world.run(&other), 1, "night {night}");
    }
    // The base is one of them.
    assert_eq!(world.run(&result(0..3, 9)), 3);
    let (_, session, requests) = world.receive(&result(0..3, 1));
    assert_eq!(requests.iter().map(Vec::len).sum::<usize>(), 3);
    assert!(session.note().unwrap().contains("still wait"));
}

#[test]
fn after_the_days_of_a_full_refresh_all_are_told_once() {
    let mut world = World::new(false);
    world.refresh = 10;
    let all = result(0..3, 1);
    let mut told = Vec::new();
    for _ in 0..22 {
        told.push(world.run(&all));
        world.send_all();
    }
    let full: Vec<_> = (0..22).filter(|night| told[*night] == 3).collect();
    assert_eq!(full, [0, 10, 20]);
    assert_eq!(told.iter().sum::<usize>(), 9);
    // A clock that was wrong once must not put the refresh off for years.
    world.now = 5;
    assert_eq!(world.run(&all), 3);
}

#[test]
fn an_audience_that_loses_too_many_at_once_is_refused_unless_that_is_allowed() {
    let mut world = World::new(true);
    world.run(&result(0..10, 1));
    world.send_all();
    let mut strict = world.order();
    if let Some(audience) = &mut strict.audience {
        audience.may_shrink = false;
    }
    for (left, refused) in [(10, true), (6, true), (5, false), (0, false)] {
        let id = DeliveryId([left; 16]);
        let begun = world
            .changes
            .begin(&strict, id, UnixMillis(99), &world.outbox);
        let mut session = begun.unwrap();
        for user in u64::from(left)..10 {
            session.is_known(user, Some(1), &people(user)).unwrap();
        }
        let mut gone = Vec::new();
        while session.next_gone(&mut gone).unwrap() {
            session.placed(0, 0).unwrap();
        }
        let checked = session.check(false);
        assert_eq!(checked.is_err(), refused, "{left} left");
        if let Err(error) = checked {
            assert!(
                error.to_string().contains(&format!("{left} of 10 users")),
                "{error}"
            );
        }
        assert!(matches!(session.check(true), Err(Error::Truncated)));
    }
    // Nothing of those is remembered.
    assert_eq!(world.run(&result(0..10, 1)), 0);
}

#[test]
fn who_is_there_under_another_identity_has_not_left() {
    let mut world = World::new(true);
    let set = |text: &str| {
        let mut people = Vec::new();
        push_part(&mut people, text.as_bytes());
        people
    };
    let mut nights = [
        vec![
            (10, set(r#""email":"a@b.c""#)),
            (20, set(r#""email":"x@y.z""#)),
        ],
        // The first of them has become a customer, and so another user to the order of rows.
        vec![
            (5, set(r#""customer_id":"7","email":"a@b.c""#)),
            (20, set(r#""email":"x@y.z""#)),
        ],
        vec![(20, set(r#""email":"x@y.z""#))],
    ]
    .into_iter();
    let mut night = |world: &mut World| {
        world.now += 1;
        let id = DeliveryId(u128::from(world.now).to_be_bytes());
        let begun = world
            .changes
            .begin(&world.order(), id, UnixMillis(world.now), &world.outbox);
        let mut session = begun.unwrap();
        for (user, people) in nights.next().unwrap() {
            if !session.is_known(user, Some(1), &people).unwrap() {
                session.placed(0, 0).unwrap();
            }
        }
        let (mut gone, mut all) = (Vec::new(), Vec::new());
        while session.next_gone(&mut gone).unwrap() {
            all.push(gone.clone());
            session.placed(1, 1).unwrap();
        }
        session.finish().unwrap();
        world.commit(id, vec![Vec::new(), Vec::new()]);
        session.committed();
        world.send_all();
        all
    };
    assert!(night(&mut world).is_empty());
    assert!(night(&mut world).is_empty(), "the same person");
    let both = [
        set(r#""customer_id":"7","email":"a@b.c""#),
        set(r#""email":"a@b.c""#),
    ];
    assert_eq!(night(&mut world), both, "under each name that was used");
}

#[test]
fn one_schedule_takes_one_delivery_at_a_time_and_another_one_its_own() {
    let world = World::new(false);
    let order = world.order();
    let id = DeliveryId([1; 16]);
    let now = UnixMillis(1);
    let first = world.changes.begin(&order, id, now, &world.outbox).unwrap();
    let second = world.changes.begin(&order, id, now, &world.outbox);
    assert!(matches!(second, Err(Error::Busy)));
    let other = Order {
        schedule: ScheduleKey([6; 16]),
        ..order.clone()
    };
    world.changes.begin(&other, id, now, &world.outbox).unwrap();
    drop(first);
    world.changes.begin(&order, id, now, &world.outbox).unwrap();
    assert_eq!(
        world.files(),
        Vec::<PathBuf>::new(),
        "nothing is left of those given up"
    );
}

#[test]
fn schedules_go_when_there_is_no_room_and_when_they_are_old() {
    for (max_bytes, forget_after, left) in [
        (1 << 30, Duration::from_secs(3600), true),
        (10, Duration::from_secs(3600), false),
        (1 << 30, Duration::ZERO, false),
    ] {
        let mut world = World::new(false);
        world.run(&result(0..3, 1));
        world.send_all();
        let tight = Settings {
            max_bytes,
            forget_after,
            ..settings(world.home.path().join("changes"))
        };
        world.changes = Changes::new(tight, Arc::clone(&world.seal));
        world.changes.settle(&world.outbox);
        assert_eq!(!world.files().is_empty(), left);
        assert_eq!(world.run(&result(0..3, 1)), if left { 0 } else { 3 });
    }
}

#[test]
fn a_schedule_that_was_forgotten_or_is_under_another_key_or_audience_sends_all() {
    let mut world = World::new(true);
    let all = result(0..3, 1);
    world.run(&all);
    world.send_all();
    assert_eq!(world.run(&all), 0);
    world.changes.forget(SCHEDULE).unwrap();
    assert_eq!(world.run(&all), 3);
    world.send_all();
    world.seal = Arc::new(Seal::ephemeral().unwrap());
    world.restart();
    assert_eq!(world.run(&all), 3);
    world.send_all();
    assert_eq!(world.run(&all), 0);
    world.audience = false;
    assert_eq!(world.run(&all), 3);
}
