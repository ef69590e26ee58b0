//! An outbox on a disk, moved into a shared one.

use std::fs::Permissions;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use looker_feed::clock::UnixMillis;
use looker_feed::model::DeliveryId;
use looker_feed::outbox::postgres;
use looker_feed::outbox::{
    self, Claim, DeadFilter, DeadLetter, DeliveryState, MoveError, MoveStep, NewAttempt, OpenError,
    Outbox, RejectedRow, Scan, WebhookState, give_up_move, move_back, move_outbox,
};
use looker_feed::seal::Key;

use crate::generated::{
    self, Meant, append, check_sums, copy_all, deliver, delivered, delivery_id, destination_id,
    given_up, home, lease, new_delivery, settlement, totals,
};
use crate::kit;
use crate::server::{Database, Isolation, bin, database};

/// Deliveries of the outbox that is moved, and of none before.
const DELIVERIES: u8 = 8;

/// Makes an outbox with something of everything.
fn fill(path: &Path) {
    let outbox = generated::open(path);
    // 1: settled, with dead letters of several kinds.
    deliver(&outbox, 1, 1, 12).unwrap();
    let claims = lease(&outbox, 1).claim(12).unwrap();
    let mut settled = delivered(&claims);
    for (at, slice) in [(2, 2), (5, 0), (5, 2), (8, 1), (11, 0)] {
        settled[at].dead.push(given_up(slice));
    }
    lease(&outbox, 1).settle(settled).unwrap();
    let dead = outbox
        .dead_letters(DeadFilter::default(), None, 99)
        .unwrap();
    assert_eq!(dead.letters.len(), 5);
    outbox.discard(&[dead.letters[0].id]).unwrap();
    outbox.edit(dead.letters[4].id, b"mended".to_vec()).unwrap();
    // 2: in the middle, so that some segments are gone and one has holes.
    deliver(&outbox, 2, 1, 40).unwrap();
    let claims = lease(&outbox, 1).claim(30).unwrap();
    let mut kept: Vec<&Claim> = claims.iter().collect();
    kept.retain(|claim| ![7, 9, 22].contains(&claim.ordinal));
    lease(&outbox, 1)
        .settle(kept.iter().map(|claim| settlement(claim, &[])).collect())
        .unwrap();
    // Sent again, behind 2 and before 3.
    outbox
        .replay(&[dead.letters[1].id, dead.letters[3].id])
        .unwrap();
    deliver(&outbox, 3, 1, 5).unwrap();
    // 4: with rejected rows, and nothing else in it settled.
    let mut staging = outbox.begin(new_delivery(4, 2)).unwrap();
    for ordinal in 0..6 {
        append(&mut staging, 4, ordinal).unwrap();
    }
    for row in 0..25 {
        let reason = format!("no identity in row {row}");
        let text = format!("{{\"row\":{row}}}").repeat(40);
        staging
            .reject(RejectedRow {
                row,
                reason: &reason,
                text: text.as_bytes(),
            })
            .unwrap();
    }
    staging.commit(totals(6, 25)).unwrap();
    // 5: cancelled half-way. 6: all of it rejected. 7: settled and past. 8: waits alone.
    deliver(&outbox, 5, 3, 10).unwrap();
    let claims = lease(&outbox, 3).claim(4).unwrap();
    lease(&outbox, 1).settle(delivered(&claims)).unwrap();
    outbox.cancel(delivery_id(5)).unwrap();
    let staging = outbox.begin(new_delivery(6, 3)).unwrap();
    staging.commit(totals(0, 0)).unwrap();
    deliver(&outbox, 7, 3, 3).unwrap();
    let claims = lease(&outbox, 3).claim(4).unwrap();
    lease(&outbox, 1).settle(delivered(&claims)).unwrap();
    // It is held.
    let mut staging = outbox.begin(new_delivery(8, 4)).unwrap();
    append(&mut staging, 8, 0).unwrap();
    staging.hold();
    staging.commit(totals(1, 0)).unwrap();
    // Somebody is erased: of 3, what waits; of 4, rows.
    let meant = |text: &[u8]| {
        let text = String::from_utf8_lossy(text);
        text.contains("delivery 3, entry 1, slice 0;") || text.starts_with("{\"row\":7}")
    };
    let erased = outbox.erase(&Meant(&meant), &Scan::default(), &|_, _| ());
    let erased = erased.unwrap();
    assert_eq!((erased.waiting.batches, erased.rejected), (1, 1));
    outbox
        .note((destination_id(1), 3), Some(b"paused"))
        .unwrap();
    outbox.note((destination_id(9), 1), Some(b"pace")).unwrap();
    // One that failed, and one that was never accepted.
    let reserved = outbox.reserve(NewAttempt {
        id: delivery_id(10),
        webhook: Some("webhook 10".to_owned()),
        title: "it fails".to_owned(),
        about: b"about".to_vec(),
        received: UnixMillis(7),
    });
    reserved.unwrap().fail(4, "it did");
    let mut staging = outbox.begin(new_delivery(9, 1)).unwrap();
    append(&mut staging, 9, 0).unwrap();
    drop(staging);
    outbox.close();
}

fn states(outbox: &Outbox) -> Vec<DeliveryState> {
    outbox.deliveries(None, 99).unwrap().deliveries
}

/// What is known of deliveries, but for their place in a list.
fn plain(mut states: Vec<DeliveryState>) -> Vec<DeliveryState> {
    states.sort_by_key(|state| state.id);
    let one = "0".parse().unwrap();
    states.iter_mut().for_each(|state| state.cursor = one);
    states
}

fn letters(page: outbox::DeadPage) -> Vec<DeadLetter> {
    assert_eq!((page.damaged, page.next), (0, None));
    page.letters
}

/// A request as it is sent: whose, which route, by which account, what.
type Request = (String, u8, Vec<u8>, Vec<Vec<u8>>);

fn sent(claims: &[Claim]) -> Vec<Request> {
    let one = |claim: &Claim| {
        (
            claim.delivery.to_string(),
            claim.route,
            claim.account.to_vec(),
            claim.slices.iter().map(|slice| slice.to_vec()).collect(),
        )
    };
    claims.iter().map(one).collect()
}

fn check_failed(one: &Outbox, other: &Outbox) {
    let failed = one.failed(None, 9).unwrap();
    assert_eq!(other.failed(None, 9).unwrap(), failed);
    let words = failed[0].end.as_ref().map(|end| end.message.as_str());
    assert_eq!((failed.len(), words), (1, Some("it did")));
}

/// The shared outbox holds what an outbox on the disk, a copy of the one that was moved, holds, and sends
/// the same in the same order.
fn check_same(copy: &Path, shared: &Outbox) {
    let local = generated::open(copy);
    check_sums(shared);
    let before = plain(states(&local));
    assert_eq!(before.len(), usize::from(DELIVERIES));
    assert_eq!(plain(states(shared)), before);
    check_failed(&local, shared);
    let dead = letters(local.dead_letters(DeadFilter::default(), None, 99).unwrap());
    let moved = shared
        .dead_letters(DeadFilter::default(), None, 99)
        .unwrap();
    assert_eq!(letters(moved), dead);
    assert_eq!(dead.len(), 2);
    for letter in &dead {
        let (_, body) = local.dead_letter(letter.id).unwrap().unwrap();
        assert_eq!(shared.dead_letter(letter.id).unwrap().unwrap().1, body);
    }
    assert_eq!(shared.notes().unwrap(), local.notes().unwrap());
    for n in 1..=9 {
        let id = delivery_id(n);
        assert_eq!(shared.ending(id).unwrap(), local.ending(id).unwrap(), "{n}");
        // Where a page goes on is the backend's own.
        let rejected = |outbox: &Outbox| {
            let page = outbox.rejected(id, None, 99).unwrap();
            page.map(|page| (page.rows, page.kept))
        };
        assert_eq!(rejected(shared), rejected(&local));
        let webhook = local.webhook(&format!("webhook {n}")).unwrap();
        assert_eq!(shared.webhook(&format!("webhook {n}")).unwrap(), webhook);
        assert_eq!(webhook == WebhookState::Unknown, n == 9);
    }
    assert!(before.iter().any(|state| state.erased.batches == 1));
    assert!(before.iter().any(|state| state.erased.rows == 1));
    for outbox in [&local, shared] {
        let released = outbox.release_delivery(delivery_id(8));
        assert_eq!(released.unwrap(), Some(true));
    }
    let mut count = 0;
    for destination in 1..=4 {
        let before = generated::drain(&local, destination);
        let held = kit::lease(shared, destination);
        let after = kit::drain(&held);
        assert_eq!(sent(&after), sent(&before), "{destination}");
        count += after.len();
    }
    assert_eq!(count, 13 + 2 + 5 + 6 + 1);
    assert_eq!(plain(states(shared)).len(), usize::from(DELIVERIES));
    for state in states(shared) {
        assert!(state.settled, "{state:?}");
    }
    // New letters get numbers that no old one has.
    local.close();
}

struct Filled {
    _home: tempfile::TempDir,
    from: PathBuf,
    copy: PathBuf,
}

fn filled() -> Filled {
    let home = home();
    let (from, copy) = (home.path().join("outbox"), home.path().join("copy"));
    fill(&from);
    copy_all(&from, &copy);
    let path = home.path().join("key");
    std::fs::write(&path, "01".repeat(32) + "\n").unwrap();
    std::fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
    let key = Key::load(&home.path().join("key")).unwrap();
    assert_eq!(key.id(), generated::keys().current());
    Filled {
        _home: home,
        from,
        copy,
    }
}

#[test]
fn an_outbox_is_moved_with_all_that_is_in_it() {
    for isolation in crate::server::BOTH {
        let Some(database) = database(isolation) else {
            return;
        };
        let there = filled();
        let mut steps = Vec::new();
        let settings = kit::settings(&database, "");
        let moved = move_outbox(&there.from, settings.clone(), &mut |step| steps.push(step));
        let moved = moved.unwrap();
        assert_eq!(moved.before, moved.after);
        assert_eq!(moved.before.deliveries, u64::from(DELIVERIES));
        assert!(!moved.earlier && !moved.in_use);
        assert_eq!(moved.letters_from, 0);
        assert_eq!(steps.last(), Some(&MoveStep::Visible));
        let again = move_outbox(&there.from, settings.clone(), &mut |_| ());
        assert!(matches!(again, Err(MoveError::Done { .. })), "{again:?}");
        let gone = give_up_move(&there.from, settings);
        assert!(matches!(gone, Err(MoveError::Done { .. })), "{gone:?}");
        // No daemon starts on the directory, and it can still be looked at.
        let started = outbox::Outbox::open(generated::settings(&there.from));
        assert!(matches!(started, Err(OpenError::Moved { done: true, .. })));
        assert!(
            outbox::inspect(&there.from, None)
                .unwrap()
                .report
                .faults
                .is_empty()
        );
        check_same(&there.copy, &kit::open(&database));
    }
}

/// Delivers so many requests of a destination, whatever becomes of leases meanwhile; returns whose they
/// were.
fn drain_through(shared: &Outbox, requests: usize) -> Vec<DeliveryId> {
    let deadline = Instant::now() + Duration::from_secs(60);
    let mut order = Vec::new();
    while order.len() < requests {
        assert!(Instant::now() < deadline, "{} of {requests}", order.len());
        let held = kit::lease(shared, 1);
        loop {
            let claims = match held.claim(7) {
                Ok(claims) if claims.is_empty() => break,
                Err(outbox::Error::LeaseLost) => break,
                claims => claims.unwrap(),
            };
            match held.settle(delivered(&claims)) {
                Err(outbox::Error::LeaseLost) => break,
                settled => settled.unwrap(),
            };
            order.extend(claims.iter().map(|claim| claim.delivery));
        }
    }
    order
}

#[test]
fn two_outboxes_are_moved_into_one_that_is_in_use() {
    let Some(database) = database(Isolation::Default) else {
        return;
    };
    let shared = kit::open(&database);
    // The destinations have work, an owner, and letters of their own.
    let mut staging = shared.begin(new_delivery(100, 1)).unwrap();
    for ordinal in 0..3 {
        append(&mut staging, 100, ordinal).unwrap();
    }
    staging.commit(totals(3, 0)).unwrap();
    let held = kit::lease(&shared, 1);
    let claims = held.claim(3).unwrap();
    held.settle(vec![settlement(&claims[1], &[0, 1])]).unwrap();
    let there = filled();
    let moved = move_outbox(&there.from, kit::settings(&database, ""), &mut |_| ()).unwrap();
    assert!(moved.in_use);
    assert!(moved.letters_from > 0);
    // The same deliveries do not come twice.
    let twice = move_outbox(&there.copy, kit::settings(&database, ""), &mut |_| ());
    assert!(
        matches!(twice, Err(MoveError::Broken(outbox::Error::Duplicate(_)))),
        "{twice:?}"
    );
    give_up_move(&there.copy, kit::settings(&database, "")).unwrap();
    let numbers = |page: outbox::DeadPage| -> Vec<u64> {
        let letters = page.letters.iter();
        letters.map(|letter| letter.id.letter).collect()
    };
    let all = shared
        .dead_letters(DeadFilter::default(), None, 99)
        .unwrap();
    let local = generated::open(&there.copy);
    let old = local.dead_letters(DeadFilter::default(), None, 99).unwrap();
    local.close();
    let shifted = numbers(old).into_iter().map(|id| id + moved.letters_from);
    let ours = all
        .letters
        .iter()
        .filter(|one| one.delivery == delivery_id(1));
    let ours: Vec<u64> = ours.map(|letter| letter.id.letter).collect();
    assert_eq!(ours, shifted.collect::<Vec<_>>());
    // Letters that wait make the owner begin anew; then all comes, in its order.
    drop(held);
    let order = drain_through(&shared, 2 + 13 + 2 + 5);
    let mut runs = order.clone();
    runs.dedup();
    let expected = [100, 2, 1, 3].map(delivery_id);
    assert_eq!(runs, expected);
    check_sums(&shared);
}

#[test]
fn a_damaged_outbox_is_not_moved_and_not_changed() {
    let Some(database) = database(Isolation::Default) else {
        return;
    };
    let there = filled();
    let segments = std::fs::read_dir(there.from.join("segments")).unwrap();
    let mut paths: Vec<PathBuf> = segments.map(|entry| entry.unwrap().path()).collect();
    paths.retain(|path| path.extension().is_some_and(|end| end == "seg"));
    paths.sort();
    let path = paths.last().unwrap();
    let mut bytes = std::fs::read(path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(path, bytes).unwrap();
    let moved = move_outbox(&there.from, kit::settings(&database, ""), &mut |_| ());
    let text = moved.unwrap_err().to_string();
    assert!(text.contains("salvage") && text.contains(".seg"), "{text}");
    assert!(!there.from.join("MOVED").exists());
    assert!(outbox::inspect(&there.from, None).is_ok());
}

/// A session that holds a lock on a table, so that whoever writes to it stands still.
struct Holder {
    child: Child,
}

impl Holder {
    fn new(database: &Database, table: &str) -> Self {
        let mut child = Command::new(bin().unwrap().join("psql"))
            .args([
                "-X",
                "-q",
                "-A",
                "-t",
                "-U",
                "postgres",
                "-d",
                &database.name,
                "-h",
            ])
            .arg(&database.directory)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lock = format!("BEGIN; LOCK TABLE looker_feed.{table} IN ACCESS EXCLUSIVE MODE;\n");
        child
            .stdin
            .as_mut()
            .unwrap()
            .write_all(lock.as_bytes())
            .unwrap();
        Self { child }
    }
}

/// Its session ends, and the lock with it.
impl Drop for Holder {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        let _ = self.child.wait();
    }
}

/// Waits until so many sessions stand still behind a lock.
fn stand_still(database: &Database, sessions: &str) {
    let sql = "SELECT count(*) FROM pg_stat_activity
         WHERE datname = current_database() AND wait_event_type = 'Lock'";
    let deadline = Instant::now() + Duration::from_secs(60);
    while database.psql(sql) != sessions {
        assert!(Instant::now() < deadline, "nobody stands still");
        std::thread::yield_now();
    }
}

/// Waits until a lock is held.
fn held(database: &Database, table: &str) {
    let sql = format!(
        "SELECT count(*) FROM pg_locks WHERE relation = 'looker_feed.{table}'::regclass
         AND mode = 'AccessExclusiveLock' AND granted"
    );
    let deadline = Instant::now() + Duration::from_secs(60);
    while database.psql(&sql) != "1" {
        assert!(Instant::now() < deadline, "the lock is not taken");
        std::thread::yield_now();
    }
}

fn command(there: &Filled, database: &Database, more: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_looker-feed"));
    command
        .args(["outbox", "move", "--from"])
        .arg(&there.from)
        .args(["--to", &database.url(), "--key-file"])
        .arg(there.from.with_file_name("key"))
        .args(more);
    command
}

fn output(mut command: Command) -> (Option<i32>, String) {
    let Output {
        status,
        stdout,
        stderr,
    } = command.output().unwrap();
    let text = String::from_utf8_lossy(&stdout) + String::from_utf8_lossy(&stderr);
    (status.code(), text.into_owned())
}

#[test]
fn a_move_that_is_killed_at_any_step_is_made_again_to_its_end() {
    let Some(database) = database(Isolation::Default) else {
        return;
    };
    kit::open(&database).close();
    let there = filled();
    let start = || {
        let mut command = command(&there, &database, &[]);
        command.stdout(Stdio::null()).stderr(Stdio::null());
        command.spawn().unwrap()
    };
    let kill = |mut child: Child| {
        child.kill().unwrap();
        child.wait().unwrap();
        let started = outbox::Outbox::open(generated::settings(&there.from));
        assert!(matches!(started, Err(OpenError::Moved { done: false, .. })));
    };
    // While it copies.
    let holder = Holder::new(&database, "block");
    held(&database, "block");
    let child = start();
    stand_still(&database, "1");
    kill(child);
    drop(holder);
    // Again, further on; and what is staged is swept by others in between.
    let holder = Holder::new(&database, "reject");
    held(&database, "reject");
    let child = start();
    stand_still(&database, "1");
    kill(child);
    drop(holder);
    let one = kit::open(&database);
    assert!(states(&one).is_empty());
    database.psql(
        "UPDATE looker_feed.daemon SET beat = beat - interval '1 hour' WHERE name = 'outbox move'",
    );
    one.sweep().unwrap();
    assert_eq!(database.psql("SELECT count(*) FROM looker_feed.block"), "0");
    one.close();
    // When all is staged, and the statement that makes it visible has been sent: it goes through
    // after its sender's end.
    let holder = Holder::new(&database, "webhook");
    held(&database, "webhook");
    let child = start();
    stand_still(&database, "1");
    assert_eq!(
        database.psql("SELECT count(*) FROM looker_feed.progress"),
        "0"
    );
    // Whoever counts what has been moved is to wait behind it.
    let second = Holder::new(&database, "webhook");
    stand_still(&database, "2");
    drop(holder);
    held(&database, "webhook");
    stand_still(&database, "1");
    kill(child);
    drop(second);
    let (code, text) = output(command(&there, &database, &[]));
    assert_eq!(code, Some(0), "{text}");
    assert!(text.contains("an earlier run ended"), "{text}");
    check_same(&there.copy, &kit::open(&database));
}

#[test]
fn the_command_moves_gives_up_and_says_what_it_does() {
    let Some(database) = database(Isolation::Default) else {
        return;
    };
    kit::open(&database).close();
    let there = filled();
    let (code, text) = output(command(&there, &database, &["--give-up"]));
    assert_eq!(code, Some(1), "{text}");
    assert!(text.contains("no move"), "{text}");
    let holder = Holder::new(&database, "reject");
    held(&database, "reject");
    let mut child = command(&there, &database, &[]).spawn().unwrap();
    stand_still(&database, "1");
    child.kill().unwrap();
    child.wait().unwrap();
    drop(holder);
    let other = Database {
        name: "elsewhere".to_owned(),
        ..database.clone()
    };
    let (code, text) = output(command(&there, &other, &[]));
    assert_eq!(code, Some(1), "{text}");
    assert!(text.contains("has begun; end that one"), "{text}");
    let (code, text) = output(command(&there, &database, &["--give-up"]));
    assert_eq!(code, Some(0), "{text}");
    let left = "SELECT (SELECT count(*) FROM looker_feed.delivery)
         + (SELECT count(*) FROM looker_feed.block) + (SELECT count(*) FROM looker_feed.letter)";
    assert_eq!(database.psql(left), "0");
    generated::open(&there.from).close();
    let (code, text) = output(command(&there, &database, &[]));
    assert_eq!(code, Some(0), "{text}");
    let line = |what: &str| {
        let line = text.lines().find(|line| line.starts_with(what));
        let words = line.unwrap_or_default().split_whitespace();
        words.rev().take(2).map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(line("deliveries"), ["8", "8"], "{text}");
    assert_eq!(line("rejected rows kept"), ["24", "24"], "{text}");
    assert!(text.contains("waits for no standby"), "{text}");
    let (code, text) = output(command(&there, &database, &[]));
    assert_eq!(code, Some(1), "{text}");
    assert!(text.contains("was moved to"), "{text}");
    check_same(&there.copy, &kit::open(&database));
}

/// Two outboxes on the disk hold the same, and send the same in the same order.
fn check_equal(one: &Path, other: &Path) {
    let (one, other) = (generated::open(one), generated::open(other));
    let all = |outbox: &Outbox| plain(outbox.deliveries(None, 99).unwrap().deliveries);
    assert_eq!(all(&other), all(&one));
    assert!(other.damage().is_empty());
    check_failed(&one, &other);
    let dead = letters(one.dead_letters(DeadFilter::default(), None, 99).unwrap());
    let there = other.dead_letters(DeadFilter::default(), None, 99).unwrap();
    assert_eq!(letters(there), dead);
    for letter in &dead {
        let body = |outbox: &Outbox| outbox.dead_letter(letter.id).unwrap().unwrap().1;
        assert_eq!(body(&other), body(&one));
    }
    assert_eq!(other.notes().unwrap(), one.notes().unwrap());
    for n in 1..=9 {
        let id = delivery_id(n);
        assert_eq!(other.ending(id).unwrap(), one.ending(id).unwrap(), "{n}");
        assert_eq!(
            other.rejected(id, None, 99).unwrap(),
            one.rejected(id, None, 99).unwrap()
        );
        let webhook = format!("webhook {n}");
        assert_eq!(
            other.webhook(&webhook).unwrap(),
            one.webhook(&webhook).unwrap()
        );
    }
    for outbox in [&one, &other] {
        let released = outbox.release_delivery(delivery_id(8));
        assert_eq!(released.unwrap(), Some(true));
    }
    for destination in 1..=4 {
        let sent_by = |outbox| sent(&generated::drain(outbox, destination));
        assert_eq!(sent_by(&other), sent_by(&one), "{destination}");
    }
    generated::check_sums(&other);
    one.close();
    other.close();
}

#[test]
fn an_outbox_comes_back_to_a_disk_as_it_went() {
    let Some(database) = database(Isolation::Default) else {
        return;
    };
    let there = filled();
    let settings = kit::settings(&database, "");
    move_outbox(&there.from, settings.clone(), &mut |_| ()).unwrap();
    let back = there.from.with_file_name("back");
    // Not while a daemon is there.
    let daemon = kit::open(&database);
    let refused = move_back(settings.clone(), &back, &mut |_| ());
    assert!(
        matches!(refused, Err(MoveError::InUse { .. })),
        "{refused:?}"
    );
    assert!(!back.exists());
    daemon.close();
    // What an outbox that was there once remembered of schedules.
    let stale = back.with_file_name("back.changes");
    std::fs::create_dir_all(stale.join("schedule")).unwrap();
    // Killed in the middle, and run again.
    let run = || {
        let mut command = Command::new(env!("CARGO_BIN_EXE_looker-feed"));
        command
            .args(["outbox", "move", "--from", &database.url(), "--to"])
            .arg(&back)
            .arg("--key-file")
            .arg(there.from.with_file_name("key"));
        command
    };
    let holder = Holder::new(&database, "reject");
    held(&database, "reject");
    let mut child = run().stderr(Stdio::null()).spawn().unwrap();
    stand_still(&database, "1");
    child.kill().unwrap();
    child.wait().unwrap();
    drop(holder);
    assert!(!back.exists());
    let (code, text) = output(run());
    assert_eq!(code, Some(0), "{text}");
    assert!(text.contains("DROP SCHEMA"), "{text}");
    assert!(!stale.exists());
    // Nobody starts on what was left behind, and nothing is brought to what is there.
    let started = Outbox::open_shared(settings.clone());
    assert!(
        matches!(started, Err(postgres::OpenError::MovedAway { .. })),
        "{started:?}"
    );
    let (code, text) = output(run());
    assert_eq!(code, Some(1), "{text}");
    assert!(text.contains("is not empty"), "{text}");
    assert!(!back.with_file_name("back.moving").exists());
    let keys = generated::keys();
    let found = outbox::inspect(&back, Some(&keys)).unwrap();
    assert_eq!(found.report.faults, []);
    // What is in the files is enough where the state is lost, but for what only the state knows.
    let stateless = there.from.with_file_name("stateless");
    copy_all(&back, &stateless);
    std::fs::remove_dir_all(stateless.join("state")).unwrap();
    let rebuilt = generated::open(&stateless);
    assert_eq!(
        rebuilt.release_delivery(delivery_id(8)).unwrap(),
        Some(true)
    );
    let entries: usize = (1..=4).map(|n| generated::drain(&rebuilt, n).len()).sum();
    assert_eq!(entries, 13 + 5 + 6 + 1);
    rebuilt.close();
    check_equal(&there.copy, &back);
}
