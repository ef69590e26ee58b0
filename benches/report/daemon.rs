//! The real daemon as a child process: what it is asked, and what the system says of it.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use http_body_util::{BodyExt, Empty};
use hyper::body::Bytes;
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use looker_feed::config::Secret;
use looker_feed::control::view;
use looker_feed::intake;
use looker_feed::looker::{self, Answer, Execute, ExecuteError, Source};
use url::Url;

const SECRET: &str = "a secret for benches";
/// No run takes longer than this.
const PATIENCE: Duration = Duration::from_secs(15 * 60);
const LOOK: Duration = Duration::from_millis(50);

/// A running daemon with all of its defaults but ports, paths and rate; killed when dropped.
pub struct Daemon {
    child: Child,
    _stdout: BufReader<std::process::ChildStdout>,
    outbox: PathBuf,
    log: PathBuf,
    hub: Url,
    admin: Url,
}

impl Daemon {
    /// Starts it with its outbox below `home`. Returns when its ports are open.
    pub fn start(home: &Path, endpoint: &str, batches_per_second: u32) -> Self {
        Self::start_with(home, endpoint, batches_per_second, &[])
    }

    /// The same with more settings: `SECTION__KEY` and value.
    pub fn start_with(
        home: &Path,
        endpoint: &str,
        batches_per_second: u32,
        more: &[(&str, String)],
    ) -> Self {
        Self::start_of(&binary(), home, endpoint, batches_per_second, more)
    }

    /// The same of any binary.
    pub fn start_of(
        binary: &OsStr,
        home: &Path,
        endpoint: &str,
        batches_per_second: u32,
        more: &[(&str, String)],
    ) -> Self {
        let outbox = home.join("outbox");
        let log = home.join("log");
        let settings = [
            ("INTAKE__LISTEN", "127.0.0.1:0".to_owned()),
            ("INTAKE__SECRET", SECRET.to_owned()),
            ("LOOKER__ALLOWED_HOSTS", "127.0.0.1".to_owned()),
            ("OUTBOX__PATH", outbox.display().to_string()),
            ("MPARTICLE__ENDPOINT", endpoint.to_owned()),
            (
                "MPARTICLE__BATCHES_PER_SECOND",
                batches_per_second.to_string(),
            ),
            ("ADMIN__LISTEN", "127.0.0.1:0".to_owned()),
        ];
        let inherited = std::env::vars_os()
            .filter(|(name, _)| !name.to_string_lossy().starts_with("LOOKER_FEED_"));
        let mut child = Command::new(binary)
            .arg("serve")
            .env_clear()
            .envs(inherited)
            .envs(
                settings
                    .iter()
                    .chain(more)
                    .map(|(name, value)| (format!("LOOKER_FEED_{name}"), value)),
            )
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(File::create(&log).expect("a log file"))
            .spawn()
            .expect("the binary starts");
        let mut stdout = BufReader::new(child.stdout.take().expect("its output"));
        let mut url = || -> Url {
            let mut line = String::new();
            stdout.read_line(&mut line).expect("a line");
            let url = line.trim().rsplit(' ').next();
            let url = url.and_then(|url| url.parse().ok());
            url.unwrap_or_else(|| {
                let log = std::fs::read_to_string(&log).unwrap_or_default();
                panic!("the daemon did not start: {line:?}\n{log}")
            })
        };
        let (hub, admin) = (url(), url());
        Self {
            child,
            _stdout: stdout,
            outbox,
            log,
            hub,
            admin,
        }
    }

    /// Has Looker execute a delivery whose rows are at `url`; the answer is a success.
    pub async fn execute(&self, url: Url) -> Answer {
        let answer = self.try_execute(url).await;
        let answer = answer.unwrap_or_else(|error| panic!("{error}\n{}", self.log()));
        assert!(
            answer.is_success(),
            "{:?}\n{}",
            answer.message(),
            self.log()
        );
        answer
    }

    /// The same for one whose rows may not come.
    pub async fn try_execute(&self, url: Url) -> Result<Answer, ExecuteError> {
        self.execute_for("key", url).await
    }

    /// The same for the account of this key.
    pub async fn execute_for(&self, key: &str, url: Url) -> Result<Answer, ExecuteError> {
        let mut execute = Execute::new(Source::Url(url), key, "secret");
        execute.timeout = PATIENCE;
        let secret = Secret::new(SECRET.to_owned());
        let token = intake::new_key(&secret).expect("random bytes");
        looker::execute(&self.hub, &token, execute).await
    }

    /// What the admin side answers, which is a success.
    pub async fn get(&self, path: &str) -> Bytes {
        let client: Client<_, Empty<Bytes>> = Client::builder(TokioExecutor::new()).build_http();
        let url = self.admin.join(path).expect("a path");
        let reply = client.get(url.as_str().parse().expect("a uri")).await;
        let reply = reply.expect("the admin side answers");
        assert!(reply.status().is_success(), "{path}: {}", reply.status());
        let body = reply.into_body().collect().await;
        body.expect("a whole answer").to_bytes()
    }

    /// Where its pages are.
    pub fn admin(&self) -> &Url {
        &self.admin
    }

    /// Has the admin side do something, if there is anything to do.
    pub async fn post(&self, path: &str) {
        let client: Client<_, Empty<Bytes>> = Client::builder(TokioExecutor::new()).build_http();
        let request = hyper::Request::post(self.admin.join(path).expect("a path").as_str())
            .header("content-type", "application/json")
            .header("x-looker-feed", "1")
            .body(Empty::new());
        let reply = client.request(request.expect("a request")).await;
        let reply = reply.expect("the admin side answers");
        let status = reply.status();
        assert!(
            status.is_success() || status == hyper::StatusCode::NOT_FOUND,
            "{path}: {status}"
        );
    }

    /// The one delivery that it has.
    pub async fn delivery(&self) -> view::Delivery {
        let body = self.get("/api/v1/deliveries").await;
        let listing: view::Listing<view::Delivery> =
            serde_json::from_slice(&body).expect("a listing");
        listing.items.into_iter().next().expect("a delivery")
    }

    /// Waits until everything of the delivery has been sent.
    pub async fn sent(&self) -> view::Delivery {
        let wait = async {
            loop {
                let delivery = self.delivery().await;
                if delivery.rows.waiting + delivery.rows.in_flight == 0 {
                    return delivery;
                }
                tokio::time::sleep(LOOK).await;
            }
        };
        let sent = tokio::time::timeout(PATIENCE, wait).await;
        sent.unwrap_or_else(|_| panic!("not sent in time\n{}", self.log()))
    }

    /// The most memory that it has had resident at once, in bytes.
    pub fn peak_memory(&self) -> u64 {
        memory(self.child.id(), "VmHWM:")
    }

    /// Processor time of all its threads so far.
    pub fn processor(&self) -> Duration {
        /// Clock ticks a second of `/proc`, on every Linux that Rust supports.
        const TICKS: f64 = 100.0;
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id()));
        let stat = stat.expect("it runs");
        // The name, in parentheses, may hold spaces; user and system time are the 12th and 13th
        // value behind it.
        let values = stat.rsplit(')').next().unwrap_or_default();
        let values = values.split_whitespace().skip(11).take(2);
        let ticks: f64 = values
            .map(|value| value.parse::<f64>().expect("ticks"))
            .sum();
        Duration::from_secs_f64(ticks / TICKS)
    }

    /// Bytes of its files, those without a name included.
    pub fn disk(&self) -> u64 {
        disk(self.child.id(), &self.outbox)
    }

    /// A watcher of its disk that a thread of its own can have.
    pub fn disk_watcher(&self) -> impl Fn() -> u64 + Send + 'static {
        let (pid, outbox) = (self.child.id(), self.outbox.clone());
        move || disk(pid, &outbox)
    }

    /// SIGKILL.
    pub fn kill(mut self) {
        self.child.kill().expect("it can be killed");
        self.child.wait().expect("it has ended");
    }

    fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The one that was built with this bench; another one can be named to compare two of them.
pub fn binary() -> OsString {
    let named = std::env::var_os("BENCH_BINARY");
    named.unwrap_or_else(|| env!("CARGO_BIN_EXE_looker-feed").into())
}

fn memory(pid: u32, what: &str) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("it runs");
    let line = status.lines().find_map(|line| line.strip_prefix(what));
    let line = line.expect("Linux says so").trim();
    let kibibytes = line.strip_suffix(" kB").expect("a size").trim();
    kibibytes.parse::<u64>().expect("a number") * 1024
}

fn disk(pid: u32, outbox: &Path) -> u64 {
    let nameless = std::fs::read_dir(format!("/proc/{pid}/fd"))
        .into_iter()
        .flatten()
        .filter_map(|entry| {
            let path = entry.ok()?.path();
            let target = std::fs::read_link(&path).ok()?;
            let target = target.to_string_lossy().into_owned();
            // Files that were removed or never had a name.
            // They may have holes.
            let held = |file: std::fs::Metadata| file.blocks() * 512;
            (target.contains("(deleted)")).then(|| std::fs::metadata(&path).map_or(0, held))
        });
    nameless.sum::<u64>() + directory(outbox)
}

fn directory(path: &Path) -> u64 {
    let entries = std::fs::read_dir(path).into_iter().flatten().flatten();
    entries
        .map(|entry| match entry.metadata() {
            Ok(meta) if meta.is_dir() => directory(&entry.path()),
            Ok(meta) => meta.len(),
            // Removed in the meantime.
            Err(_) => 0,
        })
        .sum()
}
