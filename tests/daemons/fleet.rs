//! Several real daemons on one database, behind a balancer, between the stand-ins.

use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use looker_feed::config::Secret;
use looker_feed::control::view;
use looker_feed::intake;
use looker_feed::looker::{self, Execute, Publisher, Shape, Source};
use looker_feed::sandbox::{Fault, Faults, Rule};
use rustix::process::{Pid, Signal, kill_process};
use tokio::task::JoinHandle;
use tokio::time::Instant;
use url::Url;

use crate::balancer::{Backend, Balancer};
use crate::books::{Ends, Sent, compare};
use crate::support::{Daemon, PATIENCE, SECRET, World};
use crate::tap::Tap;
use crate::wire::Wire;

/// The accounts that are sent to, each with a stream of deliveries of its own.
pub const ACCOUNTS: [&str; 3] = ["account-one", "account-two", "account-three"];
/// What a daemon that is gone keeps from the others.
pub const LEASE: Duration = Duration::from_secs(3);
const ROWS: u64 = 240;

/// See the module.
pub struct Fleet {
    pub world: World,
    pub tap: Tap,
    pub balancer: Balancer,
    pub members: Vec<Member>,
    home: Home,
}

/// A place for a daemon.
pub struct Member {
    pub daemon: Option<Daemon>,
    pub wire: Option<Wire>,
    directory: PathBuf,
    url: String,
    stopped: bool,
}

/// Kept when the test fails.
struct Home(Option<tempfile::TempDir>);

impl Drop for Home {
    fn drop(&mut self) {
        if let Some(home) = self.0.take()
            && std::thread::panicking()
        {
            eprintln!("the daemons' logs are kept in {}", home.keep().display());
        }
    }
}

impl Fleet {
    /// So many daemons; `socket` is the server's, each daemon gets a wire of its own to it.
    pub async fn on(socket: PathBuf, database: &str, count: usize) -> Self {
        let mut wires = Vec::new();
        for _ in 0..count {
            let wire = Wire::to(socket.clone()).await;
            let url = format!("postgres://postgres@127.0.0.1:{}/{database}", wire.port);
            wires.push((url, Some(wire)));
        }
        Self::with(wires, "true").await
    }

    /// So many daemons on this address.
    pub async fn at(url: &str, count: usize, unreplicated: &str) -> Self {
        let urls = (0..count).map(|_| (url.to_owned(), None)).collect();
        Self::with(urls, unreplicated).await
    }

    async fn with(urls: Vec<(String, Option<Wire>)>, unreplicated: &str) -> Self {
        let world = World::new(None).await;
        let slow = Rule::always(Fault::Delay { ms: 4 });
        let faults = Faults {
            seed: 1,
            rules: vec![slow],
        };
        world.mparticle.set_faults(faults).expect("good faults");
        let home = tempfile::tempdir().expect("a directory");
        let key = home.path().join("key");
        std::fs::write(&key, "07".repeat(32)).expect("a key");
        std::fs::set_permissions(&key, PermissionsExt::from_mode(0o600)).expect("its mode");
        let mut fleet = Self {
            tap: Tap::before(&world.endpoint).await,
            balancer: Balancer::new(urls.len()).await,
            world,
            members: Vec::new(),
            home: Home(None),
        };
        for (at, (url, wire)) in urls.into_iter().enumerate() {
            let directory = home.path().join(format!("daemon-{at}"));
            std::fs::create_dir(&directory).expect("a directory");
            let member = Member {
                daemon: None,
                wire,
                directory,
                url,
                stopped: false,
            };
            fleet.members.push(member);
        }
        std::fs::write(home.path().join("unreplicated"), unreplicated).expect("a file");
        fleet.home = Home(Some(home));
        for at in 0..fleet.members.len() {
            fleet.start(at);
        }
        let all = fleet.members.len();
        until("all daemons are ready", || fleet.balancer.ready() == all).await;
        fleet
    }

    fn path(&self) -> &std::path::Path {
        self.home.0.as_ref().expect("it is there").path()
    }

    /// Starts the daemon of a place.
    pub fn start(&mut self, at: usize) {
        let key = self.path().join("key").display().to_string();
        let unreplicated = std::fs::read_to_string(self.path().join("unreplicated"));
        let lease = format!("{}s", LEASE.as_secs());
        let member = &self.members[at];
        let settings = [
            ("OUTBOX__BACKEND", "postgres"),
            ("OUTBOX__URL", &member.url),
            ("OUTBOX__LEASE", &lease),
            ("OUTBOX__ALLOW_UNREPLICATED", &unreplicated.expect("a file")),
            ("SEAL__KEY_FILE", &key),
            ("MPARTICLE__MAX_REQUEST_BYTES", "6000"),
            ("MPARTICLE__MAX_BATCH_BYTES", "6000"),
            ("MPARTICLE__REQUEST_TIMEOUT", "2s"),
            ("SHUTDOWN__DEADLINE", "20s"),
            ("SHUTDOWN__NOTICE", "4s"),
        ];
        let daemon = Daemon::start(&member.directory, &self.tap.endpoint, &settings);
        let backend = Backend {
            hub: daemon.hub.clone(),
            admin: daemon.admin.clone(),
        };
        self.members[at].daemon = Some(daemon);
        self.balancer.put(at, Some(backend));
    }

    /// SIGKILL, and the balancer finds out by itself.
    pub fn kill(&mut self, at: usize) {
        let daemon = self.members[at].daemon.take().expect("it runs");
        daemon.kill();
        self.balancer.put(at, None);
    }

    /// SIGTERM; returns when it has ended.
    pub async fn terminate(&mut self, at: usize) {
        let daemon = self.members[at].daemon.take().expect("it runs");
        let ended = tokio::task::spawn_blocking(move || daemon.terminate()).await;
        assert!(ended.expect("no panic").success(), "{}", self.log(at));
        self.balancer.put(at, None);
    }

    /// SIGSTOP, and SIGCONT.
    pub fn freeze(&mut self, at: usize, is_frozen: bool) {
        let signal = if is_frozen {
            Signal::STOP
        } else {
            Signal::CONT
        };
        kill_process(self.pid(at), signal).expect("a signal");
        self.members[at].stopped = is_frozen;
    }

    pub fn pid(&self, at: usize) -> Pid {
        let daemon = self.members[at].daemon.as_ref().expect("it runs");
        Pid::from_raw(daemon.pid() as i32).expect("a pid")
    }

    pub fn log(&self, at: usize) -> String {
        let log = self.members[at].directory.join("log");
        std::fs::read_to_string(log).unwrap_or_default()
    }

    /// A daemon that answers.
    pub fn any(&self) -> &Daemon {
        let runs = |member: &&Member| member.daemon.is_some() && !member.stopped;
        let member = self.members.iter().find(runs).expect("one runs");
        member.daemon.as_ref().expect("it runs")
    }

    /// Waits until nothing is left to send, and compares everything: what was heard, what arrived, what
    /// the daemons say of it.
    pub async fn finish(&self, streams: Streams) -> Ends {
        let sent = streams.stop().await;
        for one in sent.iter().filter(|one| one.success != Some(true)) {
            println!("not taken: {}", one.words);
        }
        let deliveries = self.settled().await;
        let counts = self.world.mparticle.counts();
        assert_eq!((counts.conflicts, counts.without_id), (0, 0), "{counts:?}");
        let ends = compare(&sent, &self.world.mparticle.ledger());
        assert_eq!(deliveries, ends.told + ends.untold, "listed and arrived");
        for at in 0..self.members.len() {
            let log = self.log(at);
            let bad = log.lines().find(|line| line.contains("panicked"));
            assert_eq!(bad, None, "in the log of {at}");
        }
        ends
    }

    /// Waits until nothing is left to send; the books of each delivery balance all the time. Returns how
    /// many there are.
    async fn settled(&self) -> usize {
        let deadline = Instant::now() + 2 * PATIENCE;
        loop {
            assert!(Instant::now() < deadline, "not settled in time");
            tokio::time::sleep(Duration::from_millis(100)).await;
            let listed = self
                .any()
                .try_call("GET", "/api/v1/deliveries?limit=500", "")
                .await;
            let Some((200, body)) = listed else {
                continue;
            };
            let listing: view::Listing<view::Delivery> =
                serde_json::from_slice(&body).expect("a list");
            assert_eq!(listing.next, None, "all are on one page");
            for delivery in &listing.items {
                assert_eq!(delivery.rows.total(), delivery.rows_in, "{delivery:?}");
            }
            if listing
                .items
                .iter()
                .all(|delivery| delivery.state == "done")
            {
                return listing.items.len();
            }
        }
    }

    /// Sends deliveries to every account, one after the other each, until it is told to stop.
    pub fn streams(&self) -> Streams {
        let stop = Arc::new(AtomicBool::new(false));
        let seeds = Arc::new(AtomicU64::new(1));
        let answered = Arc::new(AtomicU64::new(0));
        let tasks = ACCOUNTS.map(|key| {
            let stream = Stream {
                key,
                hub: self.balancer.url.clone(),
                looker: self.world.looker.clone(),
                stop: Arc::clone(&stop),
                seeds: Arc::clone(&seeds),
                answered: Arc::clone(&answered),
            };
            tokio::spawn(stream.run())
        });
        Streams {
            stop,
            answered,
            tasks: tasks.into(),
        }
    }
}

/// Deliveries on their way in.
pub struct Streams {
    stop: Arc<AtomicBool>,
    answered: Arc<AtomicU64>,
    tasks: Vec<JoinHandle<Vec<Sent>>>,
}

impl Streams {
    /// Waits for so many more answers.
    pub async fn more(&self, answers: u64) {
        let goal = self.answered.load(Ordering::Acquire) + answers;
        until("deliveries are answered", || {
            self.answered.load(Ordering::Acquire) >= goal
        })
        .await;
    }

    /// Lets the last ones end; what was sent, account by account.
    pub async fn stop(self) -> Vec<Sent> {
        self.stop.store(true, Ordering::Release);
        let mut sent = Vec::new();
        for task in self.tasks {
            sent.extend(task.await.expect("no panic"));
        }
        sent
    }
}

struct Stream {
    key: &'static str,
    hub: Url,
    looker: Publisher,
    stop: Arc<AtomicBool>,
    seeds: Arc<AtomicU64>,
    answered: Arc<AtomicU64>,
}

impl Stream {
    async fn run(self) -> Vec<Sent> {
        let mut all = Vec::new();
        while !self.stop.load(Ordering::Acquire) {
            let shape = Shape {
                rows: ROWS,
                users: ROWS / 4,
                seed: self.seeds.fetch_add(1, Ordering::Relaxed),
                ..Shape::default()
            };
            let url = self.looker.publish(shape.clone());
            let mut execute = Execute::new(Source::Url(url), self.key, "secret");
            execute.data_type = shape.data_type;
            execute.timeout = PATIENCE;
            let secret = Secret::new(SECRET.to_owned());
            let token = intake::new_key(&secret).expect("random bytes");
            let answer = looker::execute(&self.hub, &token, execute).await;
            let (success, words) = match &answer {
                Ok(answer) if answer.status == 200 || answer.status == 202 => (
                    Some(answer.is_success()),
                    answer.message().unwrap_or_default(),
                ),
                Ok(answer) => (Some(false), format!("status {}", answer.status)),
                Err(error) => (None, format!("{error:?}")),
            };
            self.answered.fetch_add(1, Ordering::AcqRel);
            all.push(Sent {
                key: self.key,
                shape,
                success,
                words,
            });
            // Looker is not in a hurry, and the list of deliveries is to fit on a page.
            tokio::time::sleep(Duration::from_millis(150)).await;
        }
        all
    }
}

/// Waits for something that must come.
pub async fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(
            Instant::now() < deadline,
            "it does not come to it that {what}"
        );
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
