//! A real PostgreSQL for the tests: one server a test process, with a socket of its own, a database a
//! test. It ends with the process, however that ends.

use std::os::unix::fs::{MetadataExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use looker_feed::outbox::postgres::schema;

/// How transactions are kept apart, when a statement does not say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Isolation {
    /// As the server comes.
    Default,
    /// As CockroachDB has it.
    Serializable,
}

pub const BOTH: [Isolation; 2] = [Isolation::Default, Isolation::Serializable];

/// A server that was started here.
#[derive(Debug)]
pub struct Server {
    pub directory: PathBuf,
}

/// A database of one test.
#[derive(Clone, Debug)]
pub struct Database {
    pub directory: PathBuf,
    pub name: String,
    pub isolation: Isolation,
}

static SHARED: OnceLock<Option<Server>> = OnceLock::new();
static COUNT: AtomicU32 = AtomicU32::new(0);

/// What all others are copies of: with tables, and nothing in them.
const TEMPLATE: &str = "feed";

/// A fresh database with tables; `None`, and a line that says so, where PostgreSQL is not installed. With
/// `CI=true` it must be.
pub fn database(isolation: Isolation) -> Option<Database> {
    fresh(isolation, TEMPLATE)
}

/// One without tables.
pub fn empty_database(isolation: Isolation) -> Option<Database> {
    fresh(isolation, "template0")
}

fn fresh(isolation: Isolation, template: &str) -> Option<Database> {
    let server = SHARED.get_or_init(|| {
        let server = bin().map(|bin| Server::start(&bin, &["-c", "fsync=off"]))?;
        psql(
            &server.directory,
            "postgres",
            &format!("CREATE DATABASE {TEMPLATE}"),
        );
        psql(&server.directory, TEMPLATE, &schema());
        Some(server)
    });
    let Some(server) = server else {
        let required = std::env::var("CI").is_ok_and(|value| value == "true");
        assert!(
            !required,
            "PostgreSQL is not installed, and CI must test with it"
        );
        eprintln!("NOT TESTED: PostgreSQL is not installed (Debian: postgresql)");
        return None;
    };
    Some(server.database(isolation, template))
}

/// Where the programs of the server are.
pub fn bin() -> Option<PathBuf> {
    let versions = std::fs::read_dir("/usr/lib/postgresql").ok()?;
    let mut found: Vec<PathBuf> = versions
        .filter_map(|entry| Some(entry.ok()?.path().join("bin")))
        .filter(|bin| bin.join("initdb").exists())
        .collect();
    found.sort();
    found.pop()
}

/// A command as a user that may run a server: initdb refuses root.
pub fn command(program: &Path) -> Command {
    if !is_root() {
        return Command::new(program);
    }
    let mut command = Command::new("setpriv");
    command
        .args([
            "--reuid=postgres",
            "--regid=postgres",
            "--clear-groups",
            "--",
        ])
        .arg(program);
    command
}

fn is_root() -> bool {
    std::fs::metadata("/proc/self").is_ok_and(|meta| meta.uid() == 0)
}

fn owner() -> Option<(u32, u32)> {
    let users = std::fs::read_to_string("/etc/passwd").ok()?;
    let line = users.lines().find(|line| line.starts_with("postgres:"))?;
    let mut parts = line.split(':').skip(2);
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

/// A directory that whoever runs the server may use; the caller removes it.
pub fn private_directory() -> PathBuf {
    let directory = tempfile::Builder::new().prefix("looker-feed-pg-").tempdir();
    let directory = directory.unwrap().keep();
    if is_root() {
        let (user, group) = owner().expect("a user called postgres");
        chown(&directory, Some(user), Some(group)).unwrap();
    }
    directory
}

impl Server {
    pub fn start(bin: &Path, options: &[&str]) -> Self {
        let directory = private_directory();
        let data = directory.join("data");
        let made = command(&bin.join("initdb"))
            .args([
                "--no-sync",
                "--auth=trust",
                "--username=postgres",
                "--encoding=UTF8",
            ])
            .arg("-D")
            .arg(&data)
            .stdout(Stdio::null())
            .status()
            .unwrap();
        assert!(made.success(), "initdb");
        let server = Self { directory };
        server.run(bin, options);
        server
    }

    /// Runs it until this process ends. The signal at the end of a parent is for the thread that
    /// started it, so that has a thread of its own.
    fn run(&self, bin: &Path, options: &[&str]) {
        let directory = self.directory.clone();
        let script = format!(
            "trap 'kill -INT $server; wait $server; rm -rf \"$1\"; exit' TERM
             \"$2\" -D \"$1/data\" -k \"$1\" -c listen_addresses= -c max_connections=300 \
             -c shared_buffers=32MB -c max_wal_size=256MB {} >\"$1/log\" 2>&1 &
             server=$!; wait $server",
            options.join(" ")
        );
        let mut shell = Command::new("setpriv");
        shell.arg("--pdeathsig=TERM");
        if is_root() {
            shell.args(["--reuid=postgres", "--regid=postgres", "--clear-groups"]);
        }
        shell
            .args(["--", "sh", "-c", &script, "sh"])
            .arg(&directory)
            .arg(bin.join("postgres"));
        std::thread::spawn(move || {
            let _ = shell.status();
        });
        let deadline = Instant::now() + Duration::from_secs(60);
        while !self.answers(bin) {
            let log = || std::fs::read_to_string(self.directory.join("log")).unwrap_or_default();
            assert!(
                Instant::now() < deadline,
                "the server does not start: {}",
                log()
            );
            std::thread::yield_now();
        }
    }

    fn answers(&self, bin: &Path) -> bool {
        Command::new(bin.join("pg_isready"))
            .arg("-q")
            .arg("-h")
            .arg(&self.directory)
            .status()
            .is_ok_and(|status| status.success())
    }

    pub fn database(&self, isolation: Isolation, template: &str) -> Database {
        let name = format!("test_{}", COUNT.fetch_add(1, Ordering::Relaxed));
        let database = Database {
            directory: self.directory.clone(),
            name,
            isolation,
        };
        psql(
            &self.directory,
            "postgres",
            &format!("CREATE DATABASE {} TEMPLATE {template}", database.name),
        );
        database
    }
}

impl Database {
    /// Its address.
    pub fn url(&self) -> String {
        let host = self.directory.display().to_string().replace('/', "%2F");
        let options = match self.isolation {
            Isolation::Default => "",
            Isolation::Serializable => "?options=-c%20default_transaction_isolation%3Dserializable",
        };
        format!("postgres://postgres@{host}/{}{options}", self.name)
    }

    /// What a statement says, as psql prints it: a line a row, columns between bars.
    pub fn psql(&self, sql: &str) -> String {
        psql(&self.directory, &self.name, sql)
    }
}

pub fn psql(directory: &Path, database: &str, sql: &str) -> String {
    let output = Command::new(bin().unwrap().join("psql"))
        .args([
            "-X",
            "-q",
            "-A",
            "-t",
            "-v",
            "ON_ERROR_STOP=1",
            "-U",
            "postgres",
            "-d",
            database,
        ])
        .arg("-h")
        .arg(directory)
        .args(["-c", sql])
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{sql}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout)
        .unwrap()
        .trim_end()
        .to_owned()
}
