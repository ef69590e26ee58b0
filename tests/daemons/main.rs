//! Several real daemons on one database: they are restarted, killed, frozen and cut off, and the database
//! fails over; what Looker was told has arrived, once, in its order.
//!
//! `LOOKER_FEED_TEST_DAEMONS=<n>`: how many times a daemon is killed or frozen (a few in CI), and ten times
//! as many as the database fails over.
//! `LOOKER_FEED_TEST_SEED=<seed>`: the same choices again; the moments depend on the machine too.
//! `LOOKER_FEED_TEST_FREEZE=<s>`: how long a daemon is frozen (a lease and a bit), and
//! `LOOKER_FEED_TEST_AWAY=<s>` how long the database is away (100 s).

mod balancer;
mod books;
mod fleet;
mod idle;
mod kills;
#[path = "../postgres/own.rs"]
#[allow(dead_code)] // Each test program uses its own part of this.
mod own;
#[path = "../postgres/server.rs"]
#[allow(dead_code)] // Each test program uses its own part of this.
mod server;
mod shifted;
#[path = "../support/mod.rs"]
mod support;
mod takeover;
mod tap;
mod trouble;
mod wire;

use std::collections::BTreeSet;
use std::time::Duration;

use fleet::{ACCOUNTS, Fleet, Terms, until};
use server::{Isolation, database};

/// What a long run is told by the environment.
fn number(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    let number = text.parse();
    Some(number.unwrap_or_else(|_| panic!("{name} is a number")))
}

async fn three(terms: Terms) -> Option<Fleet> {
    let database = database(Isolation::Default)?;
    let socket = database.directory.join(".s.PGSQL.5432");
    Some(Fleet::on(socket, &database.name, 3, terms).await)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_rolling_restart_refuses_no_delivery() {
    let Some(mut fleet) = three(Terms::default()).await else {
        return;
    };
    let streams = fleet.streams();
    for at in 0..3 {
        streams.more(6).await;
        fleet.terminate(at).await;
        fleet.start(at);
        until("it is ready again", || fleet.balancer.is_ready(at)).await;
    }
    streams.more(6).await;
    let ends = fleet.finish(streams).await;
    assert_eq!((ends.untold, ends.vanished), (0, 0), "{ends:?}");
    assert!(ends.told >= 24, "{ends:?}");
    assert_eq!(fleet.tap.overlaps(), []);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_daemon_that_is_cut_off_sends_nothing_beside_the_one_that_goes_on() {
    let Some(fleet) = three(Terms::default()).await else {
        return;
    };
    let streams = fleet.streams();
    // Every daemon sends to something, as there are as many of them as accounts.
    let senders = || -> BTreeSet<u32> {
        let began = fleet.tap.began();
        began
            .values()
            .filter_map(|pids| pids.last().copied())
            .collect()
    };
    until("each sends to one account", || senders().len() == 3).await;
    for at in 0..3 {
        let pid = fleet.pid(at).as_raw_nonzero().get() as u32;
        let wire = fleet.members[at].wire.as_ref().expect("a wire");
        wire.cut();
        until("others go on for it", || !senders().contains(&pid)).await;
        until("it is not ready", || !fleet.balancer.is_ready(at)).await;
        let before = fleet.tap.began();
        streams.more(6).await;
        let after = fleet.tap.began();
        for (account, pids) in &after {
            let known = before.get(account).map_or(0, Vec::len);
            assert!(!pids[known..].contains(&pid), "{account}: it sends");
        }
        wire.mend();
        until("it is ready again", || fleet.balancer.is_ready(at)).await;
        until("it sends again", || senders().contains(&pid)).await;
    }
    let ends = fleet.finish(streams).await;
    assert!(ends.told > 12, "{ends:?}");
    assert_eq!(fleet.tap.overlaps(), []);
    assert_eq!(fleet.tap.began().len(), ACCOUNTS.len());
}

/// The demonstration's own end is the comparison: it fails unless every row arrived once.
#[test]
fn the_demonstration_starts_a_server_of_its_own_where_one_is_installed() {
    if server::bin().is_none() {
        let required = std::env::var("CI").is_ok_and(|value| value == "true");
        assert!(
            !required,
            "PostgreSQL is not installed, and CI must test with it"
        );
        eprintln!("NOT TESTED: PostgreSQL is not installed (Debian: postgresql)");
        return;
    }
    let arguments = ["demo", "--rows", "3000", "--outbox", "postgres"];
    let (code, out, err) = support::run(&arguments, &[]);
    assert_eq!(code, Some(0), "{out}{err}");
    assert!(out.contains("A PostgreSQL is made and started"), "{out}");
    assert!(out.contains("Every row arrived exactly once"), "{out}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_daemon_that_is_told_to_stop_is_unready_first_and_takes_what_still_comes() {
    let world = support::World::new(None).await;
    let home = tempfile::tempdir().expect("a directory");
    let notice = [("SHUTDOWN__NOTICE", "5s")];
    let daemon = support::Daemon::start(home.path(), &world.endpoint, &notice);
    let ready = || async { daemon.try_call("GET", "/readyz", "").await };
    assert_eq!(ready().await.map(|(status, _)| status), Some(200));
    let pid = rustix::process::Pid::from_raw(daemon.pid() as i32).expect("a pid");
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).expect("a signal");
    let (status, words) = loop {
        match ready().await {
            Some((200, _)) => tokio::time::sleep(Duration::from_millis(10)).await,
            answer => break answer.expect("it answers"),
        }
    };
    let words = String::from_utf8_lossy(&words).into_owned();
    assert!(
        status == 503 && words.contains("about to be stopped"),
        "{status} {words}"
    );
    let shape = looker_feed::looker::Shape {
        rows: 50,
        users: 10,
        seed: 3,
        ..Default::default()
    };
    let url = world.looker.publish(shape.clone());
    let answer = daemon
        .execute(support::from_url(url, shape.data_type))
        .await;
    assert!(answer.is_success(), "{answer:?}");
    let ended = tokio::task::spawn_blocking(move || daemon.terminate()).await;
    assert!(ended.expect("no panic").success());
}
