//! A daemon as a child process, with an outbox that goes with it: for `demo` and `try`.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use http_body_util::{BodyExt, Empty, Limited};
use hyper::body::Bytes;
use serde::de::DeserializeOwned;
use url::Url;

use crate::cli::Failure;
use crate::cli::web::{Web, web};
use crate::config::Secret;
use crate::intake;
use crate::looker::User;
use crate::tls;

/// How long the daemon may take to open its ports, and to stop.
const PATIENCE: Duration = Duration::from_secs(30);
/// No answer of the admin side is longer.
const ANSWER_BYTES: usize = 16 << 20;
/// Lines of the daemon's log that are shown when something went wrong.
const LOG_LINES: usize = 20;

/// A running daemon; killed when dropped.
pub struct Daemon {
    child: Child,
    client: Web<Empty<Bytes>>,
    directory: tempfile::TempDir,
    /// Where the action hub is.
    pub hub: Url,
    /// Where the status page is.
    pub admin: Url,
    /// A key for the hub.
    pub token: String,
}

impl Daemon {
    /// Starts `looker-feed serve` with an outbox in a temporary directory, and, if there is a stand-in
    /// for Looker, a key for its API; and with `more` settings.
    pub async fn start(
        endpoint: &str,
        batches_per_second: u32,
        looker: Option<&Url>,
        more: Vec<(&'static str, String)>,
    ) -> Result<Self, Failure> {
        let start = Self::start_now(endpoint, batches_per_second, looker, more);
        tokio::time::timeout(PATIENCE, start)
            .await
            .unwrap_or_else(|_| Err(Failure::Other("The daemon does not start.".to_owned())))
    }

    async fn start_now(
        endpoint: &str,
        batches_per_second: u32,
        looker: Option<&Url>,
        more: Vec<(&'static str, String)>,
    ) -> Result<Self, Failure> {
        let failed = |error: std::io::Error| {
            Failure::Other(format!("The daemon cannot be started: {error}"))
        };
        let directory = tempfile::tempdir().map_err(failed)?;
        let log = std::fs::File::create(directory.path().join("log")).map_err(failed)?;
        let secret = format!("{:032x}{:032x}", fastrand::u128(..), fastrand::u128(..));
        let (outbox, limit) = (directory.path().join("outbox"), batches_per_second);
        let mut settings = vec![
            ("INTAKE__LISTEN", "127.0.0.1:0".to_owned()),
            ("INTAKE__SECRET", secret.clone()),
            ("LOOKER__ALLOWED_HOSTS", "127.0.0.1".to_owned()),
            ("OUTBOX__PATH", outbox.display().to_string()),
            ("OUTBOX__RESERVE_BYTES", "16MiB".to_owned()),
            ("MPARTICLE__ENDPOINT", endpoint.to_owned()),
            ("MPARTICLE__BATCHES_PER_SECOND", limit.to_string()),
            ("ADMIN__LISTEN", "127.0.0.1:0".to_owned()),
        ];
        if let Some(looker) = looker {
            let admin = User::admin();
            settings.extend([
                ("LOOKER__API__URL", looker.to_string()),
                ("LOOKER__API__CLIENT_ID", admin.client_id),
                ("LOOKER__API__CLIENT_SECRET", admin.client_secret),
                ("LOOKER__API__PAUSE", "2s".to_owned()),
                ("LOOKER__API__MISSED_BACK", "0s".to_owned()),
            ]);
        }
        settings.extend(more);
        // Variables of ours that the person may have set are for their own daemon.
        let inherited = std::env::vars_os()
            .filter(|(name, _)| !name.to_string_lossy().starts_with("LOOKER_FEED_"));
        let settings = settings.into_iter();
        let mut child = Command::new(std::env::current_exe().map_err(failed)?)
            .arg("serve")
            .env_clear()
            .envs(inherited)
            .envs(settings.map(|(name, value)| (format!("LOOKER_FEED_{name}"), value)))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
            .map_err(failed)?;
        let output = child.stdout.take();
        let lines = tokio::task::spawn_blocking(move || {
            let lines = output
                .into_iter()
                .flat_map(|out| BufReader::new(out).lines());
            lines.take(2).map_while(Result::ok).collect::<Vec<_>>()
        });
        let lines = lines.await.unwrap_or_default();
        let secret = Secret::new(secret);
        let token = intake::new_key(&secret).map_err(|error| Failure::of(&error))?;
        let url = |at: usize| lines.get(at)?.rsplit(' ').next()?.parse::<Url>().ok();
        let (Some(hub), Some(admin)) = (url(0), url(1)) else {
            // It says why in its log, and it is on its way out.
            let _ = child.wait();
            let failure = Failure::Other("The daemon did not start.".to_owned());
            return Err(explain(failure, directory.path()));
        };
        let trust = tls::public().map_err(|error| Failure::of(&error))?;
        Ok(Self {
            child,
            client: web(PATIENCE, trust),
            directory,
            hub,
            admin,
            token,
        })
    }

    /// Asks the admin side.
    pub async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, Failure> {
        let failed = |what: String| Failure::Other(format!("The daemon's status: {what}"));
        let url = self.admin.join(path);
        let url = url.map_err(|error| failed(error.to_string()))?;
        let uri = url.as_str().parse();
        let uri = uri.map_err(|_| failed("no address".to_owned()))?;
        let answer = tokio::time::timeout(PATIENCE, async {
            let reply = self.client.get(uri).await;
            let reply = reply.map_err(|error| error.to_string())?;
            let status = reply.status();
            let body = Limited::new(reply.into_body(), ANSWER_BYTES).collect();
            let body = body.await.map_err(|error| error.to_string())?.to_bytes();
            if !status.is_success() {
                return Err(format!("{status}: {}", String::from_utf8_lossy(&body)));
            }
            serde_json::from_slice(&body).map_err(|error| error.to_string())
        });
        let silent = |_| Err("no answer".to_owned());
        answer.await.unwrap_or_else(silent).map_err(failed)
    }

    /// The most memory that the daemon has held at once, in bytes; Linux only.
    pub fn peak_memory(&self) -> Option<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).ok()?;
        let mut lines = status.lines();
        let line = lines.find_map(|line| line.strip_prefix("VmHWM:"))?;
        let kibibytes: u64 = line.trim().strip_suffix(" kB")?.trim().parse().ok()?;
        Some(kibibytes * 1024)
    }

    /// Sends SIGTERM and waits for a good end.
    pub async fn stop(&mut self) -> Result<(), Failure> {
        if let Some(pid) = rustix::process::Pid::from_raw(self.child.id() as i32) {
            // It may have ended by itself, which the wait tells.
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        }
        let deadline = tokio::time::Instant::now() + PATIENCE;
        let ended: Option<ExitStatus> = loop {
            match self.child.try_wait() {
                Ok(Some(status)) => break Some(status),
                Ok(None) if tokio::time::Instant::now() < deadline => {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
                _ => break None,
            }
        };
        let said = match ended {
            Some(status) if status.success() => return Ok(()),
            Some(status) => format!("The daemon ended with {status}."),
            None => "The daemon does not stop.".to_owned(),
        };
        Err(self.explain(Failure::Other(said)))
    }

    /// Adds the end of the daemon's log to a failure.
    pub fn explain(&self, failure: Failure) -> Failure {
        explain(failure, self.directory.path())
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // Already dead is as good.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn explain(failure: Failure, directory: &Path) -> Failure {
    let log = std::fs::read_to_string(directory.join("log")).unwrap_or_default();
    let lines: Vec<_> = log.lines().collect();
    let end = &lines[lines.len().saturating_sub(LOG_LINES)..];
    if end.is_empty() {
        return failure;
    }
    let end = end.join("\n");
    Failure::Other(format!("{failure}\nThe end of its log:\n{end}"))
}
