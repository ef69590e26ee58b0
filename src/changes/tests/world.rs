//! A model of the daemon and of what lies behind it: an outbox that sends request by request and may
//! lose them, and an mParticle that remembers what it was told.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;

use super::names::record::{parts, push_part};
use super::names::*;

pub const SCHEDULE: ScheduleKey = ScheduleKey([5; 16]);
/// Users in a request.
pub const TOGETHER: usize = 2;

/// User and value.
pub type Night = BTreeMap<u64, u8>;

/// One thing that is told to mParticle.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Told {
    Is(u64, u8),
    Left(u64),
}

/// A delivery as the outbox has it.
#[derive(Clone, Debug, Default)]
pub struct Sent {
    requests: Vec<Vec<Told>>,
    dead: BTreeSet<usize>,
    /// Something was lost of which nobody can say what.
    doubt: bool,
    /// Turns in the queue.
    open: usize,
}

#[derive(Clone, Debug, Default)]
pub struct Outbox {
    pub deliveries: BTreeMap<DeliveryId, Sent>,
    pub queue: VecDeque<(DeliveryId, VecDeque<usize>)>,
    pub lost: Option<UnixMillis>,
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

    fn unfinished(&self) -> std::io::Result<Vec<DeliveryId>> {
        let unfinished = |(_, sent): &(&DeliveryId, &Sent)| sent.open > 0 || !sent.dead.is_empty();
        let unfinished = self.deliveries.iter().filter(unfinished);
        Ok(unfinished.map(|(id, _)| *id).collect())
    }

    fn lost(&self) -> Option<UnixMillis> {
        self.lost
    }
}

/// Starts the next daemon, with these keys.
pub type Open = Box<dyn FnMut(&Arc<Keyring>) -> Changes>;

/// The daemon, its disk and what lies behind.
pub struct World {
    pub home: tempfile::TempDir,
    pub keys: Arc<Keyring>,
    pub changes: Changes,
    /// The next daemon's.
    open: Open,
    pub outbox: Outbox,
    /// Value and audience of each user at mParticle.
    pub values: BTreeMap<u64, u8>,
    pub members: BTreeMap<u64, bool>,
    pub now: u64,
    pub audience: bool,
    pub refresh: u64,
    /// Users who may have left while nothing was known.
    pub forgiven: BTreeSet<u64>,
}

impl World {
    pub fn new(audience: bool) -> Self {
        let home = tempfile::tempdir().unwrap();
        let keys = Arc::new(Keyring::ephemeral().unwrap());
        let directory = home.path().join("changes");
        let open =
            move |keys: &Arc<Keyring>| Changes::new(settings(directory.clone()), Arc::clone(keys));
        Self::on(audience, home, keys, Box::new(open))
    }

    /// One whose daemons keep what they know elsewhere.
    pub fn on(audience: bool, home: tempfile::TempDir, keys: Arc<Keyring>, mut open: Open) -> Self {
        Self {
            home,
            changes: open(&keys),
            keys,
            open,
            outbox: Outbox::default(),
            values: BTreeMap::new(),
            members: BTreeMap::new(),
            now: 1,
            audience,
            refresh: u64::MAX,
            forgiven: BTreeSet::new(),
        }
    }

    pub fn comparison(&self) -> Comparison {
        Comparison {
            schedule: SCHEDULE,
            full_refresh: Duration::from_millis(self.refresh),
            audience: self.audience.then(|| Audience {
                attribute: "member".to_owned(),
                may_shrink: true,
            }),
        }
    }

    pub fn restart(&mut self) {
        self.changes = (self.open)(&self.keys);
        self.changes.settle(&self.outbox);
    }

    /// What a delivery does until it could be committed.
    pub fn receive(&mut self, result: &Night) -> (DeliveryId, Session, Vec<Vec<Told>>) {
        self.now += 1;
        let id = DeliveryId(u128::from(self.now).to_be_bytes());
        let now = UnixMillis(self.now);
        let mut session = self
            .changes
            .begin(&self.comparison(), id, now, &self.outbox)
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
            let set = parts(&gone).next().unwrap();
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

    pub fn commit(&mut self, id: DeliveryId, requests: Vec<Vec<Told>>) {
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
    pub fn run(&mut self, result: &Night) -> usize {
        let (id, mut session, requests) = self.receive(result);
        session.finish().unwrap();
        let told = requests.iter().map(Vec::len).sum();
        self.commit(id, requests);
        session.committed();
        self.forgiven.retain(|user| !result.contains_key(user));
        told
    }

    /// Lets the next request fly.
    pub fn send(&mut self, arrives: bool) {
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

    pub fn send_all(&mut self) {
        while !self.outbox.queue.is_empty() {
            self.send(true);
        }
    }

    /// The first dead letter there is goes to the end of the queue.
    pub fn replay(&mut self) {
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

    pub fn discard(&mut self) {
        for sent in self.outbox.deliveries.values_mut() {
            if sent.dead.pop_first().is_some() {
                sent.doubt = true;
                return;
            }
        }
    }

    pub fn cancel(&mut self, which: usize) {
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

    pub fn files(&self) -> Vec<PathBuf> {
        let directory = self.home.path().join("changes").join(SCHEDULE.to_string());
        let entries = fs::read_dir(directory).into_iter().flatten().flatten();
        let mut files: Vec<_> = entries.map(|entry| entry.path()).collect();
        files.sort();
        files
    }

    /// Alters one byte of one file, or cuts the file there.
    pub fn damage(&mut self, which: usize, at: usize, cut: bool) {
        let files = self.files();
        let Some(path) = files.get(which % files.len().max(1)) else {
            return;
        };
        let mut bytes = fs::read(path).unwrap();
        // One that has been cut at its beginning has nothing left to alter.
        if bytes.is_empty() {
            return;
        }
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
    pub fn check(&mut self, last: &Night) -> Result<(), TestCaseError> {
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

pub fn settings(directory: PathBuf) -> Settings {
    Settings {
        directory,
        max_bytes: 1 << 30,
        forget_after: Duration::from_secs(3600),
        max_drop_percent: 50,
    }
}

pub fn people(user: u64) -> Vec<u8> {
    let mut people = Vec::new();
    push_part(
        &mut people,
        format!("\"customer_id\":\"{user}\"").as_bytes(),
    );
    people
}

pub fn result(users: std::ops::Range<u64>, value: u8) -> Night {
    users.map(|user| (user, value)).collect()
}

#[derive(Clone, Debug)]
pub enum Step {
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

pub fn step() -> impl Strategy<Value = Step> {
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
    pub fn step(&mut self, step: &Step) {
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
