//! What the end-to-end tests share: the real binary as a child process between the stand-ins.

#![allow(dead_code)] // Each test file uses its own part of this.

pub mod form;
pub mod terminal;

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};
use std::time::Duration;

use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use looker_feed::config::Secret;
use looker_feed::control::view;
use looker_feed::intake;
use looker_feed::looker::{self, Answer, Api, Execute, Looker, Publisher, Source};
use looker_feed::model::DataType;
use looker_feed::sandbox::{self, Fault, Faults, Rule, Sandbox};
use looker_feed::shutdown::{self, Trigger};
use url::Url;

pub const SECRET: &str = "a secret for tests";
/// Everything here is local and small; what takes longer has gone wrong.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// mParticle answers every request with a 503.
pub fn down() -> Fault {
    Fault::Status {
        status: 503,
        retry_after: None,
        exceeded: None,
        body: None,
    }
}

/// mParticle answers batches that hold this text with a 400.
pub fn refuses(marker: impl Into<String>) -> Fault {
    Fault::RejectMarker {
        marker: marker.into(),
        status: 400,
    }
}

/// Stand-ins for Looker and mParticle, in this process.
pub struct World {
    pub looker: Publisher,
    /// Looker's API, and the schedules behind it.
    pub api: Api,
    pub mparticle: sandbox::Handle,
    pub endpoint: String,
    _trigger: Trigger,
}

impl World {
    /// mParticle takes `batches_per_second`; `None`: as fast as it can.
    pub async fn new(batches_per_second: Option<u32>) -> Self {
        let local = ([127, 0, 0, 1], 0).into();
        let looker = Looker::bind(local).await.expect("a port for Looker");
        let mparticle = Sandbox::bind(sandbox::Settings {
            listen: local,
            batches_per_second,
            ..sandbox::Settings::default()
        })
        .await
        .expect("a port for mParticle");
        let (trigger, stop) = shutdown::channel();
        let world = Self {
            looker: looker.publisher(),
            api: looker.api(),
            mparticle: mparticle.handle(),
            endpoint: format!("http://{}/v2", mparticle.addr()),
            _trigger: trigger,
        };
        tokio::spawn(looker.run(stop.clone()));
        tokio::spawn(mparticle.run(stop));
        world
    }

    /// What mParticle does to every request from now on; none of them: it is well.
    pub fn faults(&self, faults: impl IntoIterator<Item = Fault>) {
        let rules = faults.into_iter().map(Rule::always).collect();
        let set = self.mparticle.set_faults(Faults { seed: 1, rules });
        set.expect("good faults");
    }

    /// A daemon between the stand-ins, with a directory that goes when it does.
    pub fn daemon(&self, settings: &[(&str, &str)]) -> Daemon {
        let home = tempfile::tempdir().expect("a directory");
        let mut daemon = Daemon::start(home.path(), &self.endpoint, settings);
        daemon.home = Some(home);
        daemon
    }

    /// Everything that mParticle accepted, once each.
    pub fn batches(&self) -> Vec<Bytes> {
        let ledger = self.mparticle.ledger();
        ledger.into_iter().map(|accepted| accepted.batch).collect()
    }
}

/// The real daemon as a child process; killed when dropped.
pub struct Daemon {
    child: Child,
    _stdout: Option<BufReader<ChildStdout>>,
    /// Its directory, if it is its own.
    home: Option<tempfile::TempDir>,
    log: PathBuf,
    pub hub: Url,
    pub admin: Url,
}

/// `looker-feed`, with none of the settings that this environment may have.
pub fn command() -> Command {
    command_by(&[])
}

/// The same, run by another program whose arguments end with it.
fn command_by(wrapper: &[&str]) -> Command {
    let binary = env!("CARGO_BIN_EXE_looker-feed");
    let mut words = wrapper.iter().copied().chain([binary]);
    let mut command = Command::new(words.next().unwrap_or(binary));
    command.args(words);
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("LOOKER_FEED_") {
            command.env_remove(name);
        }
    }
    command
}

/// `looker-feed serve` as a child that nobody has waited for yet, its outbox in `directory`, its log
/// in `directory/log`; `settings` are `SECTION__KEY` and value.
pub fn spawn(directory: &Path, endpoint: &str, settings: &[(&str, &str)]) -> Child {
    spawn_by(&[], directory, endpoint, settings)
}

/// The same, run by another program (`wrapper` is its name and first arguments).
pub fn spawn_by(
    wrapper: &[&str],
    directory: &Path,
    endpoint: &str,
    settings: &[(&str, &str)],
) -> Child {
    let file = std::fs::OpenOptions::new()
        .create(true)
        .append(true)
        .open(directory.join("log"))
        .expect("a log file");
    let outbox = directory.join("outbox").display().to_string();
    let base = [
        ("INTAKE__LISTEN", "127.0.0.1:0"),
        ("INTAKE__SECRET", SECRET),
        ("LOOKER__ALLOWED_HOSTS", "127.0.0.1"),
        ("OUTBOX__PATH", &outbox),
        ("OUTBOX__RESERVE_BYTES", "1MiB"),
        ("MPARTICLE__ENDPOINT", endpoint),
        ("MPARTICLE__BATCHES_PER_SECOND", "100000"),
        ("MPARTICLE__BACKOFF_INITIAL", "20ms"),
        ("MPARTICLE__BACKOFF_MAX", "200ms"),
        ("ADMIN__LISTEN", "127.0.0.1:0"),
    ];
    let all = base.iter().chain(settings);
    command_by(wrapper)
        .arg("serve")
        .envs(all.map(|(name, value)| (format!("LOOKER_FEED_{name}"), value)))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(file)
        .spawn()
        .expect("the binary starts")
}

impl Daemon {
    /// [`spawn`], and waits until it is ready.
    pub fn start(directory: &Path, endpoint: &str, settings: &[(&str, &str)]) -> Self {
        Self::of(spawn(directory, endpoint, settings), directory)
    }

    /// Waits until a child made like one of [`spawn`] is ready.
    pub fn of(mut child: Child, directory: &Path) -> Self {
        let log = directory.join("log");
        let mut stdout = BufReader::new(child.stdout.take().expect("its output"));
        let mut url = || {
            let mut line = String::new();
            stdout.read_line(&mut line).expect("a line of output");
            let url = line
                .trim()
                .rsplit(' ')
                .next()
                .and_then(|url| url.parse().ok());
            url.unwrap_or_else(|| {
                let log = std::fs::read_to_string(&log).unwrap_or_default();
                panic!("the daemon did not start: {line:?}\n{log}")
            })
        };
        let (hub, admin) = (url(), url());
        Self {
            child,
            _stdout: Some(stdout),
            home: None,
            log,
            hub,
            admin,
        }
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Has Looker execute a delivery.
    pub async fn execute(&self, execute: Execute) -> Answer {
        self.try_execute(execute)
            .await
            .unwrap_or_else(|error| panic!("no answer to the delivery: {error:?}\n{}", self.log()))
    }

    /// Has Looker execute a delivery of the document at `url`, which is taken.
    pub async fn accepts(&self, url: Url, data_type: DataType) {
        let answer = self.execute(from_url(url, data_type)).await;
        assert!(answer.is_success(), "{answer:?}\n{}", self.log());
    }

    pub async fn try_execute(&self, execute: Execute) -> Result<Answer, looker::ExecuteError> {
        looker::execute(&self.hub, &token(), execute).await
    }

    /// The admin side's answer to `GET path`.
    pub async fn get<T: serde::de::DeserializeOwned>(&self, path: &str) -> T {
        let (status, body) = self.call("GET", path, "").await;
        assert!(
            (200..300).contains(&status),
            "{path}: {status} {}",
            String::from_utf8_lossy(&body)
        );
        serde_json::from_slice(&body).expect("the answer is JSON of the documented form")
    }

    /// Any call to the admin side.
    pub async fn call(&self, method: &str, path: &str, body: &str) -> (u16, Bytes) {
        let called = self.try_call(method, path, body).await;
        called.expect("the admin side answers")
    }

    /// The same where it may not answer.
    pub async fn try_call(&self, method: &str, path: &str, body: &str) -> Option<(u16, Bytes)> {
        let client = Client::builder(TokioExecutor::new()).build_http();
        let request = hyper::Request::builder()
            .method(method)
            .uri(self.admin.join(path).expect("a path").as_str())
            .header("content-type", "application/json")
            .header("x-looker-feed", "1")
            .body(Full::new(Bytes::from(body.to_owned())))
            .expect("a request");
        let reply = client.request(request).await.ok()?;
        let status = reply.status().as_u16();
        let body = reply.into_body().collect().await.ok()?;
        Some((status, body.to_bytes()))
    }

    pub async fn overview(&self) -> view::Overview {
        self.get("/api/v1/overview").await
    }

    pub async fn deliveries(&self) -> Vec<view::Delivery> {
        let listing: view::Listing<view::Delivery> = self.get("/api/v1/deliveries").await;
        listing.items
    }

    /// Waits until nothing is left to send, and checks the books of every delivery on the way.
    pub async fn settled(&self) -> Vec<view::Delivery> {
        self.until("all is settled", async || {
            let deliveries = self.deliveries().await;
            for delivery in &deliveries {
                let total = delivery.rows.total();
                assert_eq!(total, delivery.rows_in, "the books balance: {delivery:?}");
            }
            let open = |delivery: &view::Delivery| {
                delivery.rows.waiting + delivery.rows.in_flight > 0
                    || delivery.state == "sending"
                    || delivery.state == "waiting"
            };
            (!deliveries.iter().any(open)).then_some(deliveries)
        })
        .await
    }

    /// Looks again and again until there is something.
    pub async fn until<T>(&self, what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
        let wait = async {
            loop {
                if let Some(found) = look().await {
                    return found;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(PATIENCE, wait)
            .await
            .unwrap_or_else(|_| panic!("not in time: {what}\n{}", self.log()))
    }

    /// SIGHUP.
    pub fn hang_up(&self) {
        let pid = rustix::process::Pid::from_raw(self.child.id() as i32).expect("a pid");
        rustix::process::kill_process(pid, rustix::process::Signal::HUP).expect("a signal");
    }

    /// Waits until the log says `words`.
    pub async fn says(&self, words: &str) {
        let said = async || self.log().contains(words).then_some(());
        self.until(&format!("the log says {words:?}"), said).await;
    }

    /// SIGKILL.
    pub fn kill(mut self) {
        self.child.kill().expect("it can be killed");
        self.child.wait().expect("it can be waited for");
    }

    /// SIGTERM, and its exit status.
    pub fn terminate(mut self) -> ExitStatus {
        let pid = rustix::process::Pid::from_raw(self.child.id() as i32).expect("a pid");
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).expect("a signal");
        self.child.wait().expect("it can be waited for")
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A key for the hub.
pub fn token() -> String {
    let secret = Secret::new(SECRET.to_owned());
    intake::new_key(&secret).expect("random bytes")
}

/// An execute request for a document at `url`.
pub fn from_url(url: Url, data_type: DataType) -> Execute {
    let mut execute = Execute::new(Source::Url(url), "key-of-the-account", "secret-of-it");
    execute.data_type = data_type;
    execute.timeout = PATIENCE;
    execute
}

/// Exit code, standard output, standard error.
pub type Ran = (Option<i32>, String, String);

/// Runs the binary to its end.
pub fn run(arguments: &[&str], settings: &[(&str, &str)]) -> Ran {
    run_with(b"", arguments, settings)
}

/// The same with arguments that stand in one line, without spaces in them.
pub fn run_line(line: &str, settings: &[(&str, &str)]) -> Ran {
    run(&line.split_whitespace().collect::<Vec<_>>(), settings)
}

/// The same with something on standard input.
pub fn run_with(input: &[u8], arguments: &[&str], settings: &[(&str, &str)]) -> Ran {
    let settings = settings.iter();
    let mut child = command()
        .args(arguments)
        .envs(settings.map(|(name, value)| (format!("LOOKER_FEED_{name}"), value)))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the binary starts");
    let mut stdin = child.stdin.take().expect("its input");
    let input = input.to_vec();
    // A command that fails early does not read all of it.
    let writer = std::thread::spawn(move || stdin.write_all(&input));
    let output = child.wait_with_output().expect("it ends");
    let _ = writer.join().expect("the writer ends");
    let text = |bytes| String::from_utf8(bytes).expect("text");
    (
        output.status.code(),
        text(output.stdout),
        text(output.stderr),
    )
}
