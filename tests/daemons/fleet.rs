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
use looker_feed::sandbox::Fault;
use rustix::process::{Pid, Signal, kill_process};
use tokio::task::JoinHandle;
use tokio::time::Instant;
use url::Url;

use crate::balancer::{Backend, Balancer};
use crate::books::{Ends, Sent, compare};
use crate::shifted::Shifted;
use crate::support::{Daemon, PATIENCE, SECRET, World, spawn_by};
use crate::tap::Tap;
use crate::wire::Wire;

/// The accounts that are sent to, each with a stream of deliveries of its own.
pub const ACCOUNTS: [&str; 3] = ["account-one", "account-two", "account-three"];
/// What a daemon that is gone keeps from the others.
pub const LEASE: Duration = Duration::from_secs(3);
const ROWS: u64 = 240;

/// How a fleet differs from the usual one.
#[derive(Clone, Debug, Default)]
pub struct Terms {
    /// The database must replicate what it commits.
    pub replicated: bool,
    /// Batches a second that the stand-in takes of an account, and the daemons send.
    pub rate: Option<u32>,
    /// How far the clocks of the daemons are off, in hours.
    pub hours: [i32; 3],
    /// More settings of every daemon.
    pub more: Vec<(&'static str, &'static str)>,
}

/// See the module.
pub struct Fleet {
    pub world: World,
    pub tap: Tap,
    pub balancer: Balancer,
    pub members: Vec<Member>,
    terms: Terms,
    home: Home,
}

/// A place for a daemon.
pub struct Member {
    pub daemon: Option<Daemon>,
    pub wire: Option<Wire>,
    directory: PathBuf,
    url: String,
    clock: Shifted,
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

impl Drop for Member {
    fn drop(&mut self) {
        self.clear();
    }
}

impl Member {
    /// Ends its daemon, if it runs.
    fn clear(&mut self) {
        if let Some(daemon) = self.daemon.take() {
            let pid = daemon.pid();
            daemon.kill();
            self.clock.tidy(pid);
        }
    }
}

impl Fleet {
    /// So many daemons; `socket` is the server's, each daemon gets a wire of its own to it.
    pub async fn on(socket: PathBuf, database: &str, count: usize, terms: Terms) -> Self {
        let mut wires = Vec::new();
        for _ in 0..count {
            let wire = Wire::to(socket.clone()).await;
            let url = format!("postgres://postgres@127.0.0.1:{}/{database}", wire.port);
            wires.push((url, Some(wire)));
        }
        Self::with(wires, terms).await
    }

    /// So many daemons on this address.
    pub async fn at(url: &str, count: usize, terms: Terms) -> Self {
        let urls = (0..count).map(|_| (url.to_owned(), None)).collect();
        Self::with(urls, terms).await
    }

    async fn with(urls: Vec<(String, Option<Wire>)>, terms: Terms) -> Self {
        let world = World::new(terms.rate).await;
        world.faults([Fault::Delay { ms: 4 }]);
        let home = tempfile::tempdir().expect("a directory");
        let key = home.path().join("key");
        std::fs::write(&key, "07".repeat(32)).expect("a key");
        std::fs::set_permissions(&key, PermissionsExt::from_mode(0o600)).expect("its mode");
        let mut fleet = Self {
            tap: Tap::before(&world.endpoint).await,
            balancer: Balancer::new(urls.len()).await,
            world,
            members: Vec::new(),
            terms,
            home: Home(None),
        };
        for (at, (url, wire)) in urls.into_iter().enumerate() {
            let directory = home.path().join(format!("daemon-{at}"));
            std::fs::create_dir(&directory).expect("a directory");
            let hours = fleet.terms.hours.get(at).copied();
            let member = Member {
                daemon: None,
                wire,
                directory,
                url,
                clock: Shifted::by(hours.unwrap_or(0)),
                stopped: false,
            };
            fleet.members.push(member);
        }
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
        let allowed = (!self.terms.replicated).to_string();
        let lease = format!("{}s", LEASE.as_secs());
        let rate = self.terms.rate.unwrap_or(100_000).to_string();
        let member = &self.members[at];
        let mut settings = vec![
            ("OUTBOX__BACKEND", "postgres"),
            ("OUTBOX__URL", &member.url),
            ("OUTBOX__LEASE", &lease),
            ("OUTBOX__ALLOW_UNREPLICATED", &allowed),
            // Whatever is delivered stays listed, however long it goes on.
            ("OUTBOX__HISTORY", "100000"),
            ("SEAL__KEY_FILE", &key),
            ("MPARTICLE__BATCHES_PER_SECOND", &rate),
            ("MPARTICLE__MAX_REQUEST_BYTES", "6000"),
            ("MPARTICLE__MAX_BATCH_BYTES", "6000"),
            ("MPARTICLE__REQUEST_TIMEOUT", "2s"),
            ("SHUTDOWN__DEADLINE", "20s"),
            ("SHUTDOWN__NOTICE", "4s"),
        ];
        settings.extend(self.terms.more.iter().copied());
        let wrapper = member.clock.wrapper();
        let wrapper: Vec<&str> = wrapper.iter().map(String::as_str).collect();
        let child = spawn_by(&wrapper, &member.directory, &self.tap.endpoint, &settings);
        // Its way to the database may be one of this program's tasks, which must not wait behind this.
        let daemon = tokio::task::block_in_place(|| Daemon::of(child, &member.directory));
        let backend = Backend {
            hub: daemon.hub.clone(),
            admin: daemon.admin.clone(),
        };
        self.members[at].daemon = Some(daemon);
        self.balancer.put(at, Some(backend));
    }

    /// SIGKILL, and the balancer finds out by itself.
    pub fn kill(&mut self, at: usize) {
        assert!(self.members[at].daemon.is_some(), "it runs");
        self.members[at].clear();
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
        self.balanced(&sent).await
    }

    /// The same for what was sent in.
    pub async fn balanced(&self, sent: &[Sent]) -> Ends {
        let deliveries = self.settled().await;
        let counts = self.world.mparticle.counts();
        assert_eq!((counts.conflicts, counts.without_id), (0, 0), "{counts:?}");
        let ends = compare(sent, &self.world.mparticle.ledger());
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
            let Some(all) = self.listed().await else {
                continue;
            };
            for delivery in &all {
                assert_eq!(delivery.rows.total(), delivery.rows_in, "{delivery:?}");
            }
            if all.iter().all(|delivery| delivery.state == "done") {
                return all.len();
            }
        }
    }

    /// Every delivery that is listed; `None` where a daemon does not answer.
    async fn listed(&self) -> Option<Vec<view::Delivery>> {
        let (mut all, mut after) = (Vec::new(), String::new());
        loop {
            let path = format!("/api/v1/deliveries?limit=500{after}");
            let (status, body) = self.any().try_call("GET", &path, "").await?;
            if status != 200 {
                return None;
            }
            let page: view::Listing<view::Delivery> =
                serde_json::from_slice(&body).expect("a list");
            all.extend(page.items);
            match page.next {
                Some(next) => after = format!("&after={next}"),
                None => return Some(all),
            }
        }
    }

    /// Sends one in at this daemon, whatever comes of it.
    pub async fn send(&self, at: usize, key: &'static str, seed: u64) -> Sent {
        let shape = Shape {
            rows: ROWS,
            users: ROWS / 4,
            seed,
            ..Shape::default()
        };
        let daemon = self.members[at].daemon.as_ref().expect("it runs");
        send_in(&daemon.hub, &self.world.looker, key, shape).await
    }

    /// What a daemon answers to a probe.
    pub async fn readyz(&self, at: usize) -> (u16, String) {
        let daemon = self.members[at].daemon.as_ref().expect("it runs");
        let (status, words) = daemon.call("GET", "/readyz", "").await;
        (status, String::from_utf8_lossy(&words).into_owned())
    }

    /// Sends in a delivery for each of these accounts, with a batch for each row, which must be taken.
    pub async fn load(&self, accounts: &[&'static str], rows: u64) -> Vec<Sent> {
        let mut sent = Vec::new();
        for (seed, key) in (1_000_000..).zip(accounts) {
            let shape = Shape {
                rows,
                users: rows,
                seed,
                ..Shape::default()
            };
            let one = send_in(&self.balancer.url, &self.world.looker, key, shape).await;
            assert_eq!(one.success, Some(true), "{}", one.words);
            sent.push(one);
        }
        sent
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
            let sent = send_in(&self.hub, &self.looker, self.key, shape).await;
            self.answered.fetch_add(1, Ordering::AcqRel);
            all.push(sent);
            // Looker is not in a hurry.
            tokio::time::sleep(Duration::from_millis(150)).await;
        }
        all
    }
}

/// Has Looker send a delivery in.
async fn send_in(hub: &Url, looker: &Publisher, key: &'static str, shape: Shape) -> Sent {
    let url = looker.publish(shape.clone());
    let mut execute = Execute::new(Source::Url(url), key, "secret");
    execute.data_type = shape.data_type;
    execute.timeout = PATIENCE;
    let secret = Secret::new(SECRET.to_owned());
    let token = intake::new_key(&secret).expect("random bytes");
    let answer = looker::execute(hub, &token, execute).await;
    let (success, words) = match &answer {
        Ok(answer) if answer.status == 200 || answer.status == 202 => (
            Some(answer.is_success()),
            answer.message().unwrap_or_default(),
        ),
        Ok(answer) => (Some(false), format!("status {}", answer.status)),
        Err(error) => (None, format!("{error:?}")),
    };
    Sent {
        key,
        shape,
        success,
        words,
    }
}

/// Waits for something that must come.
pub async fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + 2 * PATIENCE;
    while !is_so() {
        assert!(
            Instant::now() < deadline,
            "it does not come to it that {what}"
        );
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
