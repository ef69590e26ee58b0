//! The real binary is killed again and again, between stand-ins that fail at random; in the end
//! everything that Looker was told is accepted has arrived exactly once, and nothing else but what
//! became durable just before the answer was lost.
//!
//! Repeat a run with `LOOKER_FEED_TEST_SEED=<seed>`: the same deliveries, faults and kinds of kill.
//! The moments depend on the machine too.

mod support;

#[path = "crash/deliveries.rs"]
mod deliveries;
#[path = "crash/verdict.rs"]
mod verdict;
#[path = "crash/victim.rs"]
mod victim;

use std::collections::{BTreeMap, HashSet};
use std::path::Path;
use std::time::Duration;

use deliveries::{Content, Execution, Heard, KEYS, Profiles};
use looker_feed::config::Secret;
use looker_feed::intake;
use looker_feed::looker::{self, Failure, Source};
use looker_feed::sandbox::{Fault, Faults, Rule};
use support::{PATIENCE, SECRET, World};
use tokio::task::JoinHandle;
use tokio::time::Instant;
use verdict::{Ends, compare};
use victim::{Books, Victim};

/// Times that the daemon is killed.
const KILLS: usize = 60;
/// Executions of which success was heard, and of which it never was, at least.
const TOLD: usize = 11;
const UNTOLD: usize = 3;

/// Small files, small requests and hardly any memory, so that a few thousand rows pass through
/// everything that a few million do.
const SETTINGS: [(&str, &str); 8] = [
    ("MEMORY__GROUP_BUDGET", "64KiB"),
    ("OUTBOX__SEGMENT_BYTES", "64KiB"),
    ("MPARTICLE__MAX_REQUEST_BYTES", "30000"),
    ("MPARTICLE__MAX_BATCH_BYTES", "30000"),
    ("MPARTICLE__BATCHES_PER_SECOND", "5000"),
    ("MPARTICLE__REQUEST_TIMEOUT", "1s"),
    ("MPARTICLE__RETRY_AFTER_MAX", "100ms"),
    ("SHUTDOWN__DEADLINE", "2s"),
];

/// When the daemon is killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Moment {
    /// While it opens the outbox.
    Open,
    /// While a download comes in slowly, and what does not fit into memory is spilled.
    Download,
    /// While rows are pushed.
    Push,
    /// Soon after the first segment of a delivery was begun.
    Commit,
    /// When the end of the last segment of a delivery has just been written: it is accepted, and
    /// nobody has been told.
    Footer,
    /// When the answer has just been heard.
    Answer,
    /// Between requests to mParticle.
    Drain,
    /// On its way down.
    Shutdown,
}

use Moment::{Answer, Commit, Download, Drain, Footer, Open, Push, Shutdown};

const MOMENTS: [Moment; 11] = [
    Open, Open, Download, Push, Commit, Commit, Footer, Answer, Drain, Drain, Shutdown,
];

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn whatever_is_killed_what_was_accepted_arrives_once_and_nothing_else() {
    let seed = match std::env::var("LOOKER_FEED_TEST_SEED") {
        Ok(seed) => seed.parse().expect("LOOKER_FEED_TEST_SEED is a number"),
        Err(_) => fastrand::u64(..),
    };
    println!("LOOKER_FEED_TEST_SEED={seed}");
    let _home_of_a_failure = Told(seed);
    let mut run = Run::new(seed).await;
    for _ in 0..5 * KILLS {
        let each = MOMENTS.iter().all(|moment| run.kills.contains_key(moment));
        let killed: usize = run.kills.values().sum();
        let told = run.executions.iter().filter(|one| one.succeeded()).count();
        let untold = run.executions.len() - told;
        if each && killed >= KILLS && told >= TOLD && untold >= UNTOLD {
            break;
        }
        run.round().await;
    }
    let ends = run.finish().await;
    println!("kills: {:?}; executions: {ends:?}", run.kills);
    println!("books read {} times", run.books_read);
    assert!(run.kills.values().sum::<usize>() >= KILLS);
    for moment in MOMENTS {
        assert!(
            run.kills.contains_key(&moment),
            "never killed at {moment:?}"
        );
    }
    let untold = ends.untold + ends.vanished;
    assert!(ends.told >= TOLD && untold >= UNTOLD, "{ends:?}");
}

/// Says the seed again when the test fails.
struct Told(u64);

impl Drop for Told {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("to repeat it: LOOKER_FEED_TEST_SEED={}", self.0);
        }
    }
}

/// The outbox's directory, kept when the test fails.
struct Home(Option<tempfile::TempDir>);

impl Home {
    fn path(&self) -> &Path {
        self.0.as_ref().expect("it is there until the end").path()
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        if let Some(home) = self.0.take()
            && std::thread::panicking()
        {
            eprintln!(
                "the outbox and the log are kept in {}",
                home.keep().display()
            );
        }
    }
}

struct Run {
    rng: fastrand::Rng,
    world: World,
    home: Home,
    books: Books,
    executions: Vec<Execution>,
    marks: HashSet<String>,
    versions: u64,
    moments: Vec<Moment>,
    kills: BTreeMap<Moment, usize>,
    books_read: u64,
    /// How long the last start took.
    opening: Duration,
}

impl Run {
    async fn new(seed: u64) -> Self {
        Self {
            rng: fastrand::Rng::with_seed(seed),
            world: World::new(None).await,
            home: Home(Some(tempfile::tempdir().expect("a directory"))),
            books: Books::default(),
            executions: Vec::new(),
            marks: HashSet::new(),
            versions: 0,
            moments: Vec::new(),
            kills: BTreeMap::new(),
            books_read: 0,
            opening: Duration::from_millis(100),
        }
    }

    async fn round(&mut self) {
        if self.moments.is_empty() {
            self.moments = MOMENTS.to_vec();
            self.rng.shuffle(&mut self.moments);
        }
        let Some(moment) = self.moments.pop() else {
            return;
        };
        let faults = faults(&mut self.rng);
        self.world
            .mparticle
            .set_faults(faults)
            .expect("good faults");
        if moment == Open {
            let mut child = support::spawn(self.home.path(), &self.world.endpoint, &SETTINGS);
            let after = self.opening.mul_f64(self.rng.f64());
            tokio::time::sleep(after).await;
            assert!(victim::kill(&mut child), "it ended by itself");
            *self.kills.entry(moment).or_default() += 1;
            return;
        }
        let victim = self.start();
        let sent = self.send(&victim, moment);
        self.wait_for(moment, &victim, &sent).await;
        let (killed, read) = victim.kill().await;
        self.books_read += read;
        if killed {
            *self.kills.entry(moment).or_default() += 1;
        }
        self.hear(sent).await;
    }

    fn start(&mut self) -> Victim {
        let began = Instant::now();
        let (home, endpoint) = (self.home.path(), &self.world.endpoint);
        let victim = Victim::start(home, endpoint, &SETTINGS, &self.books);
        self.opening = began.elapsed();
        victim
    }

    /// Sends in one delivery of events and mostly one of profiles, anew or again.
    fn send(&mut self, victim: &Victim, moment: Moment) -> Vec<Sent> {
        let mut numbers = vec![self.next(false)];
        if self.rng.f64() < 0.7 {
            numbers.push(self.next(true));
        }
        let mut sent = Vec::new();
        for number in numbers {
            let Some(execution) = self.executions.get(number) else {
                continue;
            };
            let content = &execution.content;
            let source = match moment {
                Push => content.pushed(&mut self.rng),
                Download => {
                    let slow = Failure::Slow {
                        bytes: 32 << 10,
                        pause: Duration::from_millis(self.rng.u64(1..10)),
                    };
                    Source::Url(self.world.looker.publish_failing(content.document(), slow))
                }
                _ if self.rng.f64() < 0.3 => content.pushed(&mut self.rng),
                _ => Source::Url(self.world.looker.publish_bytes(content.document())),
            };
            let request = execution.request(source);
            let hub = victim.hub.clone();
            let task = tokio::spawn(async move {
                let secret = Secret::new(SECRET.to_owned());
                let token = intake::new_key(&secret).expect("random bytes");
                match looker::execute(&hub, &token, request).await {
                    Ok(answer) if answer.is_success() => Heard::Success,
                    Ok(answer) => Heard::Failure(answer.message().unwrap_or_default()),
                    Err(_) => Heard::Nothing,
                }
            });
            sent.push(Sent { number, task });
        }
        sent
    }

    /// The next execution: the last of its kind again under its webhook id, as a proxy may, or the
    /// schedule once more, as people do who did not hear success or whose time has come.
    fn next(&mut self, profiles: bool) -> usize {
        let is_of_kind =
            |execution: &Execution| matches!(execution.content, Content::Profiles(_)) == profiles;
        let last = self.executions.iter().rposition(is_of_kind);
        if let Some(last) = last
            && !self.executions[last].succeeded()
            && self.rng.bool()
        {
            return last;
        }
        let content = if profiles {
            self.versions += 1;
            let users = 700;
            Content::Profiles(Profiles {
                version: self.versions,
                users,
                rows: users * 3 + self.rng.u64(..users),
            })
        } else {
            Content::events(&mut self.rng, &mut self.marks)
        };
        let key = if profiles { 0 } else { self.rng.usize(..2) };
        self.executions.push(Execution {
            content,
            key: KEYS[key],
            webhook: format!("{:032x}", self.rng.u128(..)),
            heard: Vec::new(),
        });
        self.executions.len() - 1
    }

    /// Comes back at the moment of the kill.
    async fn wait_for(&mut self, moment: Moment, victim: &Victim, sent: &[Sent]) {
        let pause =
            |rng: &mut fastrand::Rng, most: u64| Duration::from_micros(rng.u64(..most * 1_000));
        let answered = || sent.iter().all(|sent| sent.task.is_finished());
        match moment {
            Open => {}
            Download | Push => tokio::time::sleep(pause(&mut self.rng, 400)).await,
            Commit => {
                let segments = self.home.path().join("outbox/segments");
                let known = names(&segments);
                let begun = || names(&segments).difference(&known).next().is_some();
                until(|| begun() || answered()).await;
                tokio::time::sleep(pause(&mut self.rng, 60)).await;
            }
            Footer => {
                let segments = self.home.path().join("outbox/segments");
                let known = names(&segments);
                let new = || {
                    names(&segments)
                        .difference(&known)
                        .cloned()
                        .collect::<Vec<_>>()
                };
                let ended = || new().iter().any(|name| is_last(&segments.join(name)));
                let deadline = Instant::now() + PATIENCE;
                // Without a pause: the answer comes milliseconds later.
                while !ended() && !answered() {
                    assert!(Instant::now() < deadline, "no delivery came to its end");
                    tokio::task::yield_now().await;
                }
            }
            Answer => until(|| sent.iter().any(|sent| sent.task.is_finished())).await,
            Drain => {
                until(answered).await;
                let mparticle = &self.world.mparticle;
                let goal = mparticle.counts().requests + self.rng.u64(1..40);
                let enough = Instant::now() + Duration::from_secs(1);
                until(|| mparticle.counts().requests >= goal || Instant::now() > enough).await;
            }
            Shutdown => {
                tokio::time::sleep(pause(&mut self.rng, 500)).await;
                victim.tell_to_stop();
                tokio::time::sleep(pause(&mut self.rng, 25)).await;
            }
        }
    }

    /// Writes down how what was sent in ended.
    async fn hear(&mut self, sent: Vec<Sent>) {
        for Sent { number, task } in sent {
            let heard = tokio::time::timeout(PATIENCE, task)
                .await
                .expect("an end within the timeout")
                .expect("no panic");
            self.executions[number].heard.push(heard);
        }
    }

    /// Lets the last daemon deliver what is left, and compares everything.
    async fn finish(&mut self) -> Ends {
        let calm = Faults::default();
        self.world.mparticle.set_faults(calm).expect("no faults");
        let victim = self.start();
        let deadline = Instant::now() + PATIENCE;
        let listed = loop {
            let listed = victim::deliveries(&victim.admin).await;
            let listed = listed.expect("the admin side answers");
            let done = |delivery: &looker_feed::control::view::Delivery| delivery.state == "done";
            if listed.iter().all(done) {
                break listed;
            }
            assert!(Instant::now() < deadline, "not settled in time: {listed:?}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        };
        victim.tell_to_stop();
        let outbox = self.home.path().join("outbox");
        let (_, read) = victim.kill().await;
        self.books_read += read;

        let counts = self.world.mparticle.counts();
        assert_eq!((counts.conflicts, counts.without_id), (0, 0));
        let ends = compare(&self.executions, &self.world.mparticle.ledger());
        assert_eq!(listed.len(), ends.told + ends.untold, "listed and arrived");
        for directory in ["segments", "dead", "damaged", "rejected"] {
            let left = names(&outbox.join(directory));
            assert!(left.is_empty(), "left in {directory}: {left:?}");
        }
        let log = std::fs::read_to_string(self.home.path().join("log")).expect("a log");
        let bad = log.lines().find(|line| {
            line.contains("ERROR") || line.contains("panicked") || line.contains(KEYS[0])
        });
        assert_eq!(bad, None, "in the log");
        ends
    }
}

/// A delivery that is being sent in.
struct Sent {
    number: usize,
    task: JoinHandle<Heard>,
}

/// mParticle on a bad day, never the same one twice.
fn faults(rng: &mut fastrand::Rng) -> Faults {
    let status = |status, retry_after: Option<&str>, exceeded: Option<&str>| Fault::Status {
        status,
        retry_after: retry_after.map(str::to_owned),
        exceeded: exceeded.map(str::to_owned),
        body: None,
    };
    let slow = Fault::SlowBody {
        bytes: 20,
        pause_ms: 3,
    };
    let kinds = [
        status(429, None, Some("account")),
        status(429, Some("1"), Some("acceleration")),
        status(503, None, None),
        status(500, None, None),
        Fault::DropBefore,
        Fault::DropAfter,
        Fault::DropAfter,
        Fault::Delay { ms: 40 },
        slow,
    ];
    let mut rules = Vec::new();
    for fault in kinds {
        if rng.bool() {
            rules.push(Rule::share(rng.f64() * 0.12, fault));
        }
    }
    // Longer than the daemon waits for a reply: recorded, and never heard of.
    rules.push(Rule::share(0.01, Fault::Delay { ms: 1_300 }));
    if rng.f64() < 0.15 {
        rules.insert(0, Rule::next(rng.u64(5..30), status(503, None, None)));
    }
    Faults {
        seed: rng.u64(..),
        rules,
    }
}

/// Waits until `done`, not for ever.
async fn until(mut done: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !done() {
        assert!(Instant::now() < deadline, "it did not come to that in time");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

/// Whether this is the last segment of a delivery, written to its end: it has a footer, and did not
/// get one for being full.
fn is_last(segment: &Path) -> bool {
    let bytes = std::fs::read(segment).unwrap_or_default();
    bytes.len() < 64 << 10 && bytes.ends_with(b"LFe1")
}

/// The names in a directory; none when it is not there yet.
fn names(directory: &Path) -> HashSet<std::ffi::OsString> {
    let entries = std::fs::read_dir(directory).into_iter().flatten();
    entries
        .filter_map(|entry| Some(entry.ok()?.file_name()))
        .collect()
}
