//! A throwaway PostgreSQL for the demonstration: its data lie in a temporary directory, it listens on a
//! socket in there, and it ends with the demonstration.

use std::fs::File;
use std::os::unix::fs::chown;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::cli::Failure;
use crate::seal::Key;

/// Where Debian and Ubuntu put the programs of each version.
const DEBIAN: &str = "/usr/lib/postgresql";
/// How long the server may take to start, and to end.
const PATIENCE: Duration = Duration::from_secs(30);
const LOOK: Duration = Duration::from_millis(50);

/// A running server.
pub struct Server {
    child: Child,
    directory: tempfile::TempDir,
    key_file: PathBuf,
}

/// Somebody other than root, as whom the server is run.
#[derive(Clone, Copy)]
struct User {
    id: u32,
    group: u32,
}

impl Server {
    /// Makes and starts one. Blocks for as long as that takes.
    ///
    /// # Errors
    /// PostgreSQL is not installed, or does not start; or this is root, and there is no user `postgres`.
    pub fn start() -> Result<Self, Failure> {
        let path = std::env::var_os("PATH").unwrap_or_default();
        let bin = programs(Path::new(DEBIAN), std::env::split_paths(&path))?;
        let user = match rustix::process::geteuid().is_root() {
            true => Some(postgres_user(&read_users()?)?),
            false => None,
        };
        let failed = |what: &'static str| {
            move |error: std::io::Error| Failure::Other(format!("{what}: {error}"))
        };
        let directory = tempfile::TempDir::with_prefix("looker-feed-demo-");
        let directory = directory.map_err(failed("A directory for the database"))?;
        let home = directory.path().join("server");
        std::fs::create_dir(&home).map_err(failed("A directory for the database"))?;
        if let Some(user) = user {
            // The server's user must come to its own directory.
            for path in [directory.path(), &home] {
                chown(path, Some(user.id), Some(user.group))
                    .map_err(failed("The directory for the database"))?;
            }
        }
        let data = home.join("data");
        let made = command(&bin.join("initdb"), user)
            .args(["--auth=trust", "--username=postgres"])
            .args(["--encoding=UTF8", "-D"])
            .arg(&data)
            .output()
            .map_err(failed("initdb"))?;
        if !made.status.success() {
            let words = String::from_utf8_lossy(&made.stderr).into_owned();
            return Err(Failure::Other(format!("initdb has failed: {words}")));
        }
        let log = File::create(home.join("log")).map_err(failed("The database's log"))?;
        let child = command(&bin.join("postgres"), user)
            .arg("-D")
            .arg(&data)
            .arg("-k")
            .arg(&home)
            .args(["-c", "listen_addresses="])
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .map_err(failed("The database cannot be started"))?;
        let key_file = directory.path().join("key");
        let mut server = Self {
            child,
            directory,
            key_file,
        };
        Key::load_or_create(&server.key_file).map_err(|error| Failure::of(&error))?;
        server.wait_until_it_answers(&bin)?;
        Ok(server)
    }

    /// Its address.
    pub fn url(&self) -> String {
        let home = self.directory.path().join("server");
        let host = home.display().to_string().replace('/', "%2F");
        format!("postgres://postgres@{host}/postgres")
    }

    /// What a daemon on it has to be told.
    pub fn settings(&self) -> Vec<(&'static str, String)> {
        vec![
            ("OUTBOX__BACKEND", "postgres".to_owned()),
            ("OUTBOX__URL", self.url()),
            ("OUTBOX__ALLOW_UNREPLICATED", "true".to_owned()),
            ("SEAL__KEY_FILE", self.key_file.display().to_string()),
        ]
    }

    fn wait_until_it_answers(&mut self, bin: &Path) -> Result<(), Failure> {
        let home = self.directory.path().join("server");
        let deadline = Instant::now() + PATIENCE;
        loop {
            let asked = Command::new(bin.join("pg_isready"))
                .args(["-q", "-h"])
                .arg(&home)
                .status();
            if asked.is_ok_and(|status| status.success()) {
                return Ok(());
            }
            let ended = !matches!(self.child.try_wait(), Ok(None));
            if ended || Instant::now() >= deadline {
                let log = std::fs::read_to_string(home.join("log")).unwrap_or_default();
                let said = format!("The database does not start. {log}");
                return Err(Failure::Other(said));
            }
            std::thread::sleep(LOOK);
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(pid) = rustix::process::Pid::from_raw(self.child.id() as i32) {
            // SIGINT: sessions are ended, and the server at once. It may have ended already.
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::INT);
        }
        let deadline = Instant::now() + PATIENCE;
        while matches!(self.child.try_wait(), Ok(None)) && Instant::now() < deadline {
            std::thread::sleep(LOOK);
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn command(program: &Path, user: Option<User>) -> Command {
    let mut command = Command::new(program);
    command.stdin(Stdio::null()).current_dir("/");
    if let Some(user) = user {
        command.uid(user.id).gid(user.group);
    }
    command
}

/// The directory with the newest server's programs: of `debian`'s versions, or one that commands are found
/// in.
fn programs(debian: &Path, path: impl Iterator<Item = PathBuf>) -> Result<PathBuf, Failure> {
    let versions = std::fs::read_dir(debian).into_iter().flatten();
    let mut found: Vec<(u32, PathBuf)> = versions
        .filter_map(|entry| {
            let entry = entry.ok()?;
            let version = entry.file_name().to_str()?.parse().ok()?;
            Some((version, entry.path().join("bin")))
        })
        .collect();
    found.sort();
    let newest = found.into_iter().rev().map(|(_, bin)| bin);
    let has_all = |bin: &PathBuf| {
        let mut names = ["initdb", "postgres", "pg_isready"].iter();
        names.all(|name| bin.join(name).is_file())
    };
    newest.chain(path).find(has_all).ok_or_else(|| {
        Failure::Other(
            "PostgreSQL is not installed here: its programs initdb and postgres are not found (Debian and Ubuntu: apt-get install postgresql). The demonstration with the embedded outbox needs nothing: leave out --outbox."
                .to_owned(),
        )
    })
}

fn read_users() -> Result<String, Failure> {
    std::fs::read_to_string("/etc/passwd")
        .map_err(|error| Failure::Other(format!("/etc/passwd: {error}")))
}

/// PostgreSQL does not run as root.
fn postgres_user(users: &str) -> Result<User, Failure> {
    let line = users.lines().find(|line| line.starts_with("postgres:"));
    let mut fields = line.into_iter().flat_map(|line| line.split(':').skip(2));
    let mut number = || fields.next()?.parse().ok();
    match (number(), number()) {
        (Some(id), Some(group)) if id != 0 => Ok(User { id, group }),
        _ => Err(Failure::Other(
            "PostgreSQL does not run as root, and there is no user called postgres to run it as. Run the demonstration as another user."
                .to_owned(),
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_server_is_taken_and_a_machine_without_one_is_told_so() {
        let home = tempfile::tempdir().unwrap();
        let none = programs(home.path(), std::iter::empty()).unwrap_err();
        assert!(none.to_string().contains("apt-get install postgresql"));
        let fill = |version: &str| {
            let bin = home.path().join(version).join("bin");
            std::fs::create_dir_all(&bin).unwrap();
            for name in ["initdb", "postgres", "pg_isready"] {
                File::create(bin.join(name)).unwrap();
            }
            bin
        };
        fill("9");
        let newest = fill("16");
        std::fs::create_dir_all(home.path().join("17/bin")).unwrap();
        assert_eq!(programs(home.path(), std::iter::empty()).unwrap(), newest);
        let elsewhere = [newest.clone()].into_iter();
        assert_eq!(programs(Path::new("/nowhere"), elsewhere).unwrap(), newest);
    }

    #[test]
    fn root_runs_the_server_as_its_own_user() {
        let user = postgres_user("root:x:0:0::/root:/bin/sh\npostgres:x:104:107::/:/bin/sh\n");
        let user = user.unwrap();
        assert_eq!((user.id, user.group), (104, 107));
        let root = "root:x:0:0::/:/bin/sh";
        for without in ["", root, "postgres:x:0:0::/:/bin/sh", "postgres"] {
            let refused = postgres_user(without).err().unwrap();
            assert!(refused.to_string().contains("as root"), "{without}");
        }
    }
}
