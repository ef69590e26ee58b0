//! The database in trouble: what is said, to Looker, to a probe and in the log, and that it heals by itself.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use tokio::time::Instant;

use crate::fleet::{Fleet, LEASE, Terms, until};
use crate::number;
use crate::own::{self, Own};
use crate::server::{Isolation, database};
use crate::support::{PATIENCE, SECRET, run};

/// How long the database is away; other tests run meanwhile.
const AWAY: Duration = Duration::from_secs(100);

/// Waits until a daemon is ready or not; what it says then.
async fn until_ready(fleet: &Fleet, is_ready: bool, what: &str) -> String {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let (status, words) = fleet.readyz(0).await;
        if (status == 200) == is_ready {
            return words;
        }
        assert!(Instant::now() < deadline, "{what}: {status} {words}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// A database as its own user has it, whose connections can be ended.
struct Place {
    own: Own,
}

impl Place {
    fn new(options: &[&str]) -> Option<Self> {
        let own = Own::start(options)?;
        own.psql("CREATE ROLE feed LOGIN; GRANT CREATE ON DATABASE postgres TO feed");
        Some(Self { own })
    }

    fn url(&self) -> String {
        own::url(&[&self.own]).replace("postgres://postgres@", "postgres://feed@")
    }

    /// Runs it, and ends all connections of the user: they begin anew under what it has changed.
    fn change(&self, sql: &str) {
        self.own.psql(sql);
        self.own
            .psql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'feed'");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn whatever_the_database_refuses_is_said_and_heals_by_itself() {
    let Some(place) = Place::new(&["fsync = off"]) else {
        return;
    };
    let fleet = Fleet::at(&place.url(), 1, Terms::default()).await;
    let ready = until_ready(&fleet, true, "it is ready").await;
    assert!(
        ready.starts_with("ready; outbox on PostgreSQL 1"),
        "{ready}"
    );
    assert!(ready.contains("no synchronous standby"), "{ready}");
    let admin = fleet.any().admin.to_string();
    let status = move || run(&["status"], &[("ADMIN_URL", &admin)]);
    let asked = tokio::task::spawn_blocking(status).await;
    let (code, out, _) = asked.expect("no panic");
    assert_eq!(code, Some(0), "{out}");
    assert!(out.contains("in PostgreSQL 1"), "{out}");
    let troubles = [
        (
            "ALTER ROLE feed SET default_transaction_read_only = on",
            "ALTER ROLE feed RESET default_transaction_read_only",
            "name the primary in outbox.url",
        ),
        (
            "ALTER ROLE feed CONNECTION LIMIT 0",
            "ALTER ROLE feed CONNECTION LIMIT -1",
            "raise max_connections",
        ),
        (
            "ALTER ROLE feed NOLOGIN",
            "ALTER ROLE feed LOGIN",
            "look at the user and the password",
        ),
        (
            "REVOKE INSERT, UPDATE ON looker_feed.daemon FROM feed",
            "GRANT INSERT, UPDATE ON looker_feed.daemon TO feed",
            "give the user of outbox.url the right to it",
        ),
        (
            "ALTER SCHEMA looker_feed RENAME TO elsewhere",
            "ALTER SCHEMA elsewhere RENAME TO looker_feed",
            "its tables have been removed or changed",
        ),
    ];
    let mut sent = Vec::new();
    for ((make, undo, words), seed) in troubles.into_iter().zip((1..).step_by(2)) {
        place.change(make);
        let said = until_ready(&fleet, false, make).await;
        assert!(said.contains(words), "{make}: {said}");
        let refused = fleet.send(0, "account", seed).await;
        assert_eq!(refused.success, Some(false), "{make}");
        for words in [words, "send it again when the database is back"] {
            assert!(refused.words.contains(words), "{make}: {}", refused.words);
        }
        place.change(undo);
        until_ready(&fleet, true, undo).await;
        sent.push(refused);
        let taken = fleet.send(0, "account", seed + 1).await;
        assert_eq!(taken.success, Some(true), "{undo}: {}", taken.words);
        sent.push(taken);
    }
    let ends = fleet.balanced(&sent).await;
    assert_eq!((ends.told, ends.untold, ends.vanished), (5, 0, 5));
}

/// For longer than a destination rests; for an hour with `LOOKER_FEED_TEST_AWAY=3600`.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_database_that_is_away_for_long_costs_a_line_of_the_log_and_all_goes_on() {
    let Some(place) = Place::new(&[]) else {
        return;
    };
    let terms = Terms {
        rate: Some(100),
        ..Terms::default()
    };
    let fleet = Fleet::at(&place.url(), 2, terms).await;
    let mut sent = fleet.load(&["one", "two"], 600).await;
    until("both are sent to", || fleet.tap.came().len() == 2).await;
    let before = [0, 1].map(|at| fleet.log(at).lines().count());
    place.own.crash();
    let said = until_ready(&fleet, false, "it is away").await;
    assert!(said.contains("see whether the database runs"), "{said}");
    let came = |fleet: &Fleet| fleet.tap.came().values().map(Vec::len).sum::<usize>();
    tokio::time::sleep(2 * LEASE).await;
    let at_rest = came(&fleet);
    let away = number("LOOKER_FEED_TEST_AWAY").map_or(AWAY, Duration::from_secs);
    tokio::time::sleep(away).await;
    assert_eq!(came(&fleet), at_rest, "nothing is sent after the lease");
    for (seed, at) in [(1, 0), (2, 1)] {
        let refused = fleet.send(at, "three", seed).await;
        assert_eq!(refused.success, Some(false), "{}", refused.words);
        assert!(
            refused
                .words
                .contains("send it again when the database is back"),
            "{}",
            refused.words
        );
        sent.push(refused);
    }
    for (at, before) in before.into_iter().enumerate() {
        let log = fleet.log(at);
        let mut times: BTreeMap<(String, Option<&str>), u32> = BTreeMap::new();
        for line in log.lines().skip(before) {
            // After the time: how the line begins, and whom it is about.
            let words = || line.split_whitespace().skip(1);
            let is_about = |word: &&str| word.starts_with("destination=");
            let about = words().find(is_about);
            let kind: Vec<&str> = words().filter(|word| !is_about(word)).take(8).collect();
            *times.entry((kind.join(" "), about)).or_default() += 1;
        }
        let minutes = away.as_secs() as u32 / 60;
        let often = times.iter().find(|(_, times)| **times > minutes + 1);
        assert_eq!(often, None, "more than once a minute: {log}");
        let kinds: BTreeSet<&String> = times.keys().map(|(kind, _)| kind).collect();
        assert!(kinds.len() < 12, "{times:#?}");
    }
    place.own.up();
    until("both are ready", || fleet.balancer.ready() == 2).await;
    sent.push(fleet.send(0, "three", 3).await);
    let ends = fleet.balanced(&sent).await;
    assert_eq!((ends.told, ends.untold, ends.vanished), (3, 0, 2));
    assert_eq!(fleet.tap.overlaps(), []);
}

/// The tables lie on a disk of a few megabytes, if one may be made.
struct Disk {
    path: PathBuf,
    mounted: bool,
}

impl Disk {
    fn new(own: &Own) -> Self {
        let path = own.directory.join("disk");
        let made = |program: &str, arguments: &[&str]| {
            let mut command = Command::new(program);
            let done = command.args(arguments).arg(&path).output();
            done.is_ok_and(|done| done.status.success())
        };
        let mounted =
            made("mkdir", &[]) && made("mount", &["-t", "tmpfs", "-o", "size=24m", "tmpfs"]);
        if mounted {
            assert!(made("chown", &["postgres"]), "the disk is the server's");
            own.psql(&format!(
                "CREATE TABLESPACE small LOCATION '{}'",
                path.display()
            ));
            own.psql("GRANT CREATE ON TABLESPACE small TO feed");
            own.psql("ALTER DATABASE postgres SET default_tablespace = small");
        } else {
            eprintln!(
                "NOT TESTED on a full disk, since none can be mounted: the server says so by itself"
            );
        }
        Self { path, mounted }
    }

    fn fill(&self, own: &Own) {
        if self.mounted {
            let full = std::fs::write(self.path.join("ballast"), vec![1; 32 << 20]);
            assert!(full.is_err(), "the disk is full");
        } else {
            own.psql(
                "CREATE FUNCTION looker_feed.full() RETURNS trigger LANGUAGE plpgsql AS
                 $$ BEGIN RAISE 'could not extend file' USING ERRCODE = 'disk_full'; END $$;
                 CREATE TRIGGER full BEFORE INSERT ON looker_feed.block
                 FOR EACH ROW EXECUTE FUNCTION looker_feed.full()",
            );
        }
    }

    fn free(&self, own: &Own) {
        if self.mounted {
            std::fs::remove_file(self.path.join("ballast")).expect("it was there");
        } else {
            own.psql("DROP FUNCTION looker_feed.full() CASCADE");
        }
    }

    fn unmount(self) {
        if self.mounted {
            let done = Command::new("umount").arg("-l").arg(&self.path).status();
            assert!(done.is_ok_and(|status| status.success()), "it was mounted");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_disk_of_the_database_that_is_full_refuses_a_delivery_with_a_sentence() {
    let Some(place) = Place::new(&["fsync = off"]) else {
        return;
    };
    let disk = Disk::new(&place.own);
    let fleet = Fleet::at(&place.url(), 1, Terms::default()).await;
    let mut sent = fleet.load(&["account"], 100).await;
    disk.fill(&place.own);
    // Pages that are there already may still have room for some.
    let refused = loop {
        let one = fleet.send(0, "account", sent.len() as u64).await;
        sent.push(one.clone());
        if one.success != Some(true) {
            break one;
        }
        assert!(sent.len() < 50, "it takes more than the disk holds");
    };
    assert_eq!(refused.success, Some(false));
    let words = "make room on the disk of the database";
    assert!(refused.words.contains(words), "{}", refused.words);
    disk.free(&place.own);
    until_ready(&fleet, true, "there is room").await;
    let taken = fleet.send(0, "account", 900).await;
    assert_eq!(taken.success, Some(true), "{}", taken.words);
    sent.push(taken);
    let ends = fleet.balanced(&sent).await;
    assert_eq!((ends.untold, ends.vanished), (0, 1), "{ends:?}");
    drop((fleet, place));
    disk.unmount();
}

#[test]
fn what_is_wrong_with_an_address_is_said_at_the_start() {
    let home = tempfile::tempdir().expect("a directory");
    let hba = home.path().join("hba");
    std::fs::write(
        &hba,
        "local all postgres trust\nlocal all all scram-sha-256\n",
    )
    .expect("a file");
    mode(home.path(), 0o755);
    let option = format!("hba_file = '{}'", hba.display());
    let Some(place) = Place::new(&["fsync = off", &option]) else {
        return;
    };
    for sql in [
        "ALTER ROLE feed PASSWORD 'right'",
        "CREATE ROLE other LOGIN PASSWORD 'right'",
        "CREATE DATABASE empty",
        "CREATE DATABASE old",
    ] {
        place.own.psql(sql);
    }
    let at = |user: &str, database: &str| {
        let url = own::url(&[&place.own]);
        let url = url.replace("postgres://postgres@", &format!("postgres://{user}@"));
        url.replace("/postgres", &format!("/{database}"))
    };
    let key = home.path().join("key");
    std::fs::write(&key, "07".repeat(32)).expect("a key");
    mode(&key, 0o600);
    let path = home.path().join("files").display().to_string();
    let serve = |url: &str, key: &Path| {
        let key = key.display().to_string();
        let settings = [
            ("OUTBOX__BACKEND", "postgres"),
            ("OUTBOX__URL", url),
            ("OUTBOX__PATH", &path),
            ("OUTBOX__ALLOW_UNREPLICATED", "true"),
            ("SEAL__KEY_FILE", &key),
            ("INTAKE__SECRET", SECRET),
            ("INTAKE__LISTEN", "127.0.0.1:0"),
            ("ADMIN__LISTEN", "127.0.0.1:0"),
        ];
        let (code, out, err) = run(&["serve"], &settings);
        assert!(code.is_some_and(|code| code != 0), "{url}: {out}{err}");
        err
    };
    let gone = at("feed:right", "gone");
    let wrong = at("feed:wrong", "postgres");
    let nobody = at("nobody:right", "postgres");
    let may_not = at("other:right", "empty");
    let nowhere = "postgres://feed@%2Fnowhere/feed".to_owned();
    let missing = home.path().join("no-key");
    // Written by a later program.
    place.own.psql("GRANT CREATE ON DATABASE old TO feed");
    let newer = at("feed:right", "old");
    let made = "CREATE SCHEMA looker_feed; GRANT USAGE ON SCHEMA looker_feed TO PUBLIC;
         CREATE TABLE looker_feed.schema (one boolean PRIMARY KEY, version bigint NOT NULL);
         INSERT INTO looker_feed.schema VALUES (true, 99); GRANT SELECT ON looker_feed.schema TO PUBLIC";
    crate::server::psql(&place.own.directory, "old", made);
    let cases = [
        (&gone, &key, "make the database, or correct its name"),
        (&wrong, &key, "look at the user and the password"),
        (&nobody, &key, "look at the user and the password"),
        (&may_not, &key, "`looker-feed outbox schema` prints"),
        (&nowhere, &key, "see whether the database runs"),
        (&newer, &key, "use the program that made them"),
        (&gone, &missing, "need the same key"),
    ];
    std::thread::scope(|scope| {
        for (url, key, words) in cases {
            let serve = &serve;
            scope.spawn(move || {
                let said = serve(url, key);
                assert!(said.contains(words), "{url}: {said}");
                assert!(
                    !said.contains("right") || !said.contains(":right"),
                    "{said}"
                );
            });
        }
    });
}

/// The server is another user.
fn mode(path: &Path, mode: u32) {
    let mode = std::fs::Permissions::from_mode(mode);
    std::fs::set_permissions(path, mode).expect("its mode");
}

/// The tables of the version before are changed by the first daemon that starts.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn tables_of_an_older_version_are_brought_up_with_what_is_in_them() {
    let Some(database) = database(Isolation::Default) else {
        return;
    };
    let terms = Terms {
        rate: Some(50),
        ..Terms::default()
    };
    let mut fleet = Fleet::at(&database.url(), 1, terms).await;
    let mut sent = fleet.load(&["account"], 300).await;
    fleet.kill(0);
    database.psql(
        "ALTER TABLE looker_feed.destination
            DROP COLUMN handed, DROP COLUMN handed_epoch, DROP COLUMN handed_at;
         UPDATE looker_feed.schema SET version = 1",
    );
    fleet.start(0);
    sent.push(fleet.send(0, "account", 7).await);
    let ends = fleet.balanced(&sent).await;
    assert_eq!((ends.told, ends.untold, ends.vanished), (2, 0, 0));
    assert_eq!(database.psql("SELECT version FROM looker_feed.schema"), "2");
}
