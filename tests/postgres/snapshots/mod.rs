//! What schedules that send only changes delivered last, shared by daemons: whichever receives the next delivery
//! compares it with what mParticle has.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use looker_feed::changes::{
    Audience, Changes, Comparison, Error, ScheduleKey, Session, Settings, Who,
};
use looker_feed::clock::UnixMillis;
use looker_feed::outbox::{Entry, NewDelivery, Outbox, Slice, Totals};
use looker_feed::record::push_part;
use proptest::prelude::*;
use proptest::test_runner::TestRunner;

use crate::generated::{delivered, given_up, keys, new_delivery, settlement};
use crate::kit::{lease, on_both, open};
use crate::server::{Database, Isolation, database};

/// What the model takes from its crate.
mod names {
    pub use looker_feed::changes::{
        Audience, Changes, Comparison, Ending, Ledger, Missing, ScheduleKey, Session, Settings,
    };
    pub use looker_feed::clock::UnixMillis;
    pub use looker_feed::model::DeliveryId;
    pub use looker_feed::record;
    pub use looker_feed::seal::Keyring;
}

/// The model of the files' own tests.
#[path = "../../../src/changes/tests/world.rs"]
#[allow(dead_code)] // It breaks files too.
mod world;

use world::{Step, World, step};

const SCHEDULE: ScheduleKey = ScheduleKey([5; 16]);

fn settings(home: &Path) -> Settings {
    Settings {
        directory: home.join("unnamed"),
        max_bytes: 1 << 30,
        forget_after: Duration::from_secs(3600),
        max_drop_percent: 100,
    }
}

fn changes(outbox: &Outbox, home: &Path) -> Changes {
    Changes::shared(settings(home), keys(), outbox.snapshots().unwrap())
}

/// A daemon.
struct Daemon {
    outbox: Outbox,
    changes: Changes,
    _home: tempfile::TempDir,
}

impl Daemon {
    fn new(database: &Database) -> Self {
        let (outbox, home) = (open(database), tempfile::tempdir().unwrap());
        Self {
            changes: changes(&outbox, home.path()),
            outbox,
            _home: home,
        }
    }

    fn begin(&self, n: u8) -> Result<Session, Error> {
        let comparison = Comparison {
            schedule: SCHEDULE,
            full_refresh: Duration::from_secs(1 << 40),
            audience: Some(Audience {
                attribute: "member".to_owned(),
                may_shrink: true,
            }),
        };
        let id = new(n).id;
        self.changes
            .begin(&comparison, id, UnixMillis(u64::from(n)), &self.outbox)
    }

    /// Receives users with their values, up to the commit: staged, with a request for each who is told
    /// something.
    fn receive(&self, n: u8, users: &BTreeMap<u64, u128>) -> Result<Receiving, Error> {
        let mut staging = self.outbox.begin(new(n)).unwrap();
        let mut session = self.begin(n)?;
        let mut told = Vec::new();
        let mut put = |text: String| {
            let slices = [Slice {
                bytes: text.as_bytes(),
                rows: 1,
            }];
            let entry = Entry {
                slices: &slices,
                route: 0,
            };
            staging.append(entry).unwrap();
            told.push(text);
            told.len() as u64 - 1
        };
        for (&user, &value) in users {
            if !session.is_known(user, Some(value), &people(user)).unwrap() {
                let at = put(format!("{user} is {value}"));
                session.placed(at, at).unwrap();
            }
        }
        let mut gone = Vec::new();
        while session.next_gone(&mut gone).unwrap() {
            let at = put(format!("left {}", String::from_utf8_lossy(&gone[4..])));
            session.placed(at, at).unwrap();
        }
        let totals = Totals {
            rows_in: told.len() as u64,
            batches: told.len() as u64,
            requests: told.len() as u64,
            ..Totals::default()
        };
        Ok(Receiving {
            staging,
            session,
            told,
            totals,
        })
    }

    /// A delivery that goes well up to its commit; returns what is told.
    fn deliver(&self, n: u8, users: &BTreeMap<u64, u128>) -> Vec<String> {
        let mut one = self.receive(n, users).unwrap();
        one.session.finish().unwrap();
        one.staging.commit(one.totals).unwrap();
        one.session.committed();
        one.told
    }

    /// Sends all that waits.
    fn send(&self) {
        let lease = lease(&self.outbox, 1);
        loop {
            let claims = lease.claim(64).unwrap();
            if claims.is_empty() {
                return;
            }
            lease.settle(delivered(&claims)).unwrap();
        }
    }
}

struct Receiving {
    staging: looker_feed::outbox::Staging,
    session: Session,
    told: Vec<String>,
    totals: Totals,
}

fn new(n: u8) -> NewDelivery {
    new_delivery(n, 1)
}

fn people(user: u64) -> Vec<u8> {
    let mut people = Vec::new();
    push_part(
        &mut people,
        format!("\"email\":\"{user}@example.com\"").as_bytes(),
    );
    people
}

fn users(all: std::ops::Range<u64>, value: u128) -> BTreeMap<u64, u128> {
    all.map(|user| (user, value)).collect()
}

/// The daemon that was heard of first is taken for dead.
fn silence(database: &Database) {
    database.psql(
        "UPDATE looker_feed.daemon SET beat = beat - interval '1 hour'
         WHERE since = (SELECT min(since) FROM looker_feed.daemon)",
    );
}

#[test]
fn the_next_delivery_may_come_to_another_daemon_and_sends_what_differs() {
    on_both(|database| {
        let (one, two) = (Daemon::new(database), Daemon::new(database));
        let first = users(0..2_000, 1);
        assert_eq!(one.deliver(1, &first).len(), 2_000);
        one.send();
        let mut second = first.clone();
        second.insert(17, 2);
        second.remove(&500);
        let told = two.deliver(2, &second);
        assert_eq!(told.len(), 2, "{told:?}");
        assert!(told[0] == "17 is 2" && told[1].contains("500@example.com"));
        // Nothing of it has arrived: it is told again, by whoever.
        assert_eq!(one.deliver(3, &second).len(), 2);
        two.send();
        assert_eq!(two.deliver(4, &second), Vec::<String>::new());
        // Who may come while another is received hears so.
        let receiving = one.receive(5, &second).unwrap();
        assert!(matches!(two.begin(6), Err(Error::Busy)));
        assert!(matches!(one.begin(6), Err(Error::Busy)));
        drop(receiving);
        assert_eq!(two.deliver(7, &first).len(), 2);
        // Nothing but the last is kept, and no plain text of anybody.
        one.send();
        for daemon in [&one, &two] {
            daemon.changes.settle(&daemon.outbox);
        }
        one.outbox.sweep().unwrap();
        let kept = "SELECT count(DISTINCT number), count(*) FROM looker_feed.snapshot";
        assert_eq!(database.psql(kept), "1|3");
        let blocks = "SELECT count(*) FROM looker_feed.snapshot_block b
             WHERE NOT EXISTS (SELECT 1 FROM looker_feed.snapshot s WHERE s.blob = b.blob)";
        assert_eq!(database.psql(blocks), "0");
        let clear: String = "@example.com".bytes().map(|b| format!("{b:02x}")).collect();
        let found = format!(
            "SELECT count(*) FROM looker_feed.snapshot_block
             WHERE position(decode('{clear}', 'hex') in body) > 0"
        );
        assert_eq!(database.psql(&found), "0");
    });
}

#[test]
fn what_a_daemon_that_dies_between_snapshot_and_commit_was_receiving_counts_for_nothing() {
    on_both(|database| {
        let (one, two) = (Daemon::new(database), Daemon::new(database));
        let first = users(0..10, 1);
        one.deliver(1, &first);
        one.send();
        let changed = users(0..10, 2);
        let mut lost = one.receive(2, &changed).unwrap();
        lost.session.finish().unwrap();
        silence(database);
        // It is not known what became of it: all are sent.
        let mut next = two.receive(3, &changed).unwrap();
        assert!(next.session.note().unwrap().contains("nothing is known"));
        assert_eq!(next.told.len(), 10);
        // The one that was thought dead goes on: nothing of its delivery becomes visible.
        let refused = lost.staging.commit(lost.totals);
        assert!(refused.is_err(), "{refused:?}");
        drop(lost.session);
        next.session.finish().unwrap();
        next.staging.commit(next.totals).unwrap();
        next.session.committed();
        two.send();
        assert_eq!(two.deliver(4, &changed), Vec::<String>::new());
    });
}

#[test]
fn one_that_died_after_its_commit_is_known_to_the_next() {
    on_both(|database| {
        let (one, two) = (Daemon::new(database), Daemon::new(database));
        let first = users(0..10, 1);
        let mut dead = one.receive(1, &first).unwrap();
        dead.session.finish().unwrap();
        dead.staging.commit(dead.totals).unwrap();
        silence(database);
        std::mem::forget(dead.session);
        two.send();
        assert_eq!(two.deliver(2, &first), Vec::<String>::new());
    });
}

#[test]
fn a_schedule_that_is_lost_in_the_middle_fails_the_delivery_that_lost_it() {
    on_both(|database| {
        let (one, two) = (Daemon::new(database), Daemon::new(database));
        let first = users(0..10, 1);
        one.deliver(1, &first);
        one.send();
        let mut stopped = one.receive(2, &users(0..10, 2)).unwrap();
        silence(database);
        let third = users(0..10, 3);
        assert_eq!(two.deliver(3, &third).len(), 10);
        let refused = stopped.session.finish();
        assert!(matches!(refused, Err(Error::Io { .. })), "{refused:?}");
        drop(stopped);
        two.send();
        // What it leaves does no harm to the one that took over.
        assert_eq!(two.deliver(4, &third), Vec::<String>::new());
        assert_eq!(one.deliver(5, &third), Vec::<String>::new());
    });
}

#[test]
fn what_is_sent_again_from_one_daemon_is_not_relied_on_by_the_others() {
    on_both(|database| {
        let (one, two) = (Daemon::new(database), Daemon::new(database));
        let first = users(0..4, 1);
        one.deliver(1, &first);
        let lease = lease(&one.outbox, 1);
        let claims = lease.claim(9).unwrap();
        let mut settled: Vec<_> = claims.iter().map(|claim| settlement(claim, &[])).collect();
        settled[0].dead = vec![given_up(0)];
        lease.settle(settled).unwrap();
        assert_eq!(two.deliver(2, &first).len(), 1, "what did not arrive");
        // In the middle of a delivery, and of one that is the first after that.
        let doubtful = [new(1).id];
        for (n, told) in [(3, 1), (4, 4)] {
            let mut one = one.receive(n, &first).unwrap();
            assert_eq!(one.told.len(), told);
            two.changes.doubt(&doubtful).unwrap();
            one.session.finish().unwrap();
            one.staging.commit(one.totals).unwrap();
            one.session.committed();
        }
        assert_eq!(two.deliver(5, &first).len(), 4);
        // A delivery past the snapshots.
        one.changes.forget(SCHEDULE).unwrap();
        assert_eq!(two.deliver(6, &first).len(), 4);
    });
}

/// One user.
struct User(u64);

impl Who for User {
    fn users(&self, _: &[u8; 16]) -> Vec<u64> {
        vec![self.0]
    }

    fn is_among(&self, people_of: &[u8]) -> bool {
        people_of == people(self.0)
    }
}

#[test]
fn whoever_is_erased_is_gone_from_what_all_daemons_know() {
    on_both(|database| {
        let (one, two) = (Daemon::new(database), Daemon::new(database));
        let first = users(0..20, 1);
        one.deliver(1, &first);
        one.send();
        assert_eq!(two.changes.find(&User(7)).unwrap().len(), 1);
        // One that is received carries them over: it is waited for.
        let mut without = first.clone();
        without.remove(&7);
        let mut receiving = one.receive(2, &without).unwrap();
        std::thread::scope(|scope| {
            let erasing = scope.spawn(|| two.changes.erase(&User(7), &|| false).unwrap());
            let stopped = two.changes.erase(&User(7), &|| true);
            assert!(stopped.is_err());
            assert!(!erasing.is_finished());
            receiving.session.finish().unwrap();
            receiving.staging.commit(receiving.totals).unwrap();
            receiving.session.committed();
            assert!(erasing.join().unwrap() > 0);
        });
        for daemon in [&one, &two] {
            assert_eq!(daemon.changes.find(&User(7)).unwrap(), []);
        }
        one.send();
        // They are new, and nobody else is.
        assert_eq!(two.deliver(3, &first), ["7 is 1"]);
    });
}

#[test]
fn a_block_that_is_missing_or_damaged_sends_more_and_never_less() {
    let Some(database) = database(Isolation::Default) else {
        return;
    };
    let one = Daemon::new(&database);
    let many = users(0..12_000, 1);
    one.deliver(1, &many);
    one.send();
    let blocks = "SELECT count(*) FROM looker_feed.snapshot_block";
    let count: u64 = database.psql(blocks).parse().unwrap();
    assert!(count > 3, "{count}");
    let longest = "SELECT max(octet_length(body)) <= 262144 FROM looker_feed.snapshot_block";
    assert_eq!(database.psql(longest), "t");
    database.psql("DELETE FROM looker_feed.snapshot_block WHERE number = 2");
    let told = one.deliver(2, &many);
    assert!(told.len() > 1_000 && told.len() < 12_000, "{}", told.len());
    one.send();
    database.psql("UPDATE looker_feed.snapshot_block SET body = overlay(body placing 'x' from 99)");
    assert_eq!(one.deliver(3, &many).len(), 12_000);
}

#[test]
fn whatever_happens_in_between_mparticle_has_the_last_result_in_the_end() {
    let Some(database) = database(Isolation::Default) else {
        return;
    };
    let steps = prop::collection::vec(step(), 1..25);
    let last = prop::collection::btree_map(0..8u64, 0..3u8, 0..8);
    let mut runner = TestRunner::new(ProptestConfig {
        cases: 12,
        failure_persistence: None,
        ..ProptestConfig::default()
    });
    let run = runner.run(&(steps, last, any::<bool>()), |(steps, last, audience)| {
        database.psql(
            "TRUNCATE looker_feed.schedule, looker_feed.snapshot, looker_feed.snapshot_block",
        );
        // Each restart is another daemon, and the one before is not heard of any more.
        let (mut before, home) = (None::<Outbox>, tempfile::tempdir().unwrap());
        let path = home.path().to_owned();
        let place = database.clone();
        let next = move |_: &_| {
            if let Some(before) = before.take() {
                before.close();
            }
            let outbox = open(&place);
            let opened = changes(&outbox, &path);
            before = Some(outbox);
            opened
        };
        let mut world = World::on(audience, home, keys(), Box::new(next));
        for step in &steps {
            // A database has no files to damage, and says of no loss.
            if !matches!(step, Step::Damage(..) | Step::LoseState) {
                world.step(step);
            }
        }
        world.send_all();
        world.run(&last);
        world.check(&last)?;
        world.run(&last);
        world.send_all();
        prop_assert_eq!(world.run(&last), 0);
        world.check(&last)
    });
    run.unwrap_or_else(|error| panic!("{error}"));
}
