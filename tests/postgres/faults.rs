//! What goes wrong with a server: each is an error with a sentence, and a state that heals by itself.

use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use looker_feed::outbox::postgres::{
    OpenError, Replication, SchemaError, Server, Settings, probe, schema,
};
use looker_feed::outbox::{Error, Health, Outbox};
use looker_feed::seal::{Key, Keyring};
use std::sync::Arc;

use crate::generated::{
    append, check_sums, deliver, delivered, delivery_id, destination_id, keys, new_delivery, totals,
};
use crate::kit::{drain, lease, on_both, open, settings};
use crate::own::{Own, url};
use crate::server::{Isolation, database, empty_database, psql};

fn at(url: &str) -> Settings {
    Settings {
        within: Duration::from_secs(5),
        allow_unreplicated: true,
        ..Settings::new(Server::parse(url, None).unwrap(), "daemon", keys())
    }
}

/// Waits until something is so: by asking, since nobody tells.
fn until(what: &str, so: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !so() {
        assert!(Instant::now() < deadline, "{what}");
        std::thread::yield_now();
    }
}

/// The driver takes a transaction that was rolled back for a committed one (rust-postgres 1334). Here
/// the server says no at the very end of the statement.
#[test]
fn a_commit_that_the_server_refuses_at_its_end_is_refused() {
    on_both(|database| {
        let outbox = open(database);
        database.psql(
            "CREATE FUNCTION looker_feed.no() RETURNS trigger LANGUAGE plpgsql AS
             $$ BEGIN IF NEW.state = 1 THEN RAISE 'not this one'; END IF; RETURN NEW; END $$;
             CREATE CONSTRAINT TRIGGER no AFTER UPDATE ON looker_feed.delivery
             DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION looker_feed.no()",
        );
        let refused = deliver(&outbox, 1, 1, 3);
        let Err(Error::Database { why, .. }) = refused else {
            panic!("{refused:?}");
        };
        assert!(why.contains("not this one"), "{why}");
        assert!(outbox.deliveries(None, 9).unwrap().deliveries.is_empty());
        database.psql("DROP TRIGGER no ON looker_feed.delivery");
        deliver(&outbox, 2, 1, 3).unwrap();
        assert_eq!(drain(&lease(&outbox, 1)).len(), 3);
    });
}

#[test]
fn a_delivery_of_which_a_block_is_gone_is_refused() {
    let Some(database) = database(Isolation::Default) else {
        return;
    };
    let outbox = open(&database);
    // As a failover to a standby that is behind may leave it.
    database.psql(
        "CREATE FUNCTION looker_feed.lose() RETURNS trigger LANGUAGE plpgsql AS
         $$ BEGIN DELETE FROM looker_feed.block WHERE delivery = NEW.delivery; RETURN NULL; END $$;
         CREATE TRIGGER lose AFTER INSERT ON looker_feed.block
         FOR EACH ROW EXECUTE FUNCTION looker_feed.lose()",
    );
    let refused = deliver(&outbox, 1, 1, 3);
    assert!(
        matches!(refused, Err(Error::Database { .. })),
        "{refused:?}"
    );
    assert!(outbox.deliveries(None, 9).unwrap().deliveries.is_empty());
}

/// A wait for the standby that is cancelled answers success, with a warning; and no timeout of the
/// server's ends it.
#[test]
fn success_that_has_not_reached_the_standby_is_none() {
    let Some(own) = Own::start(&["fsync = off", "statement_timeout = '1s'"]) else {
        return;
    };
    let outbox = Outbox::open_shared(at(&url(&[&own]))).unwrap();
    assert_eq!(
        outbox.server().unwrap().unwrap().replication,
        Replication::None
    );
    let mut staging = outbox.begin(new_delivery(1, 1)).unwrap();
    append(&mut staging, 1, 0).unwrap();
    own.set(&["synchronous_standby_names = 'nobody'"]);
    own.reload();
    // The server takes its configuration over in its own time.
    until("the server says that it waits for a standby", || {
        let facts = outbox.server().unwrap().unwrap();
        facts.replication == Replication::Synchronous("nobody".to_owned())
    });
    let (done, committed) = channel();
    std::thread::scope(|scope| {
        scope.spawn(move || {
            let committed = staging.commit(totals(1, 0));
            done.send(committed).unwrap();
        });
        let waiting = |what: &str| {
            own.psql(&format!(
                "SELECT count(*) FROM pg_stat_activity
                 WHERE wait_event = 'SyncRep' AND query LIKE '%{what}%'"
            ))
        };
        until("the commit waits for the standby", || {
            waiting("WITH there AS") == "1"
        });
        own.psql(
            "SELECT pg_cancel_backend(pid) FROM pg_stat_activity
             WHERE wait_event = 'SyncRep' AND query LIKE '%WITH there AS%'",
        );
        // It can be seen, and that is not enough: it is confirmed by a write, which waits too.
        until("the commit is confirmed by a write", || {
            waiting("SET confirmed") == "1"
        });
        assert!(committed.try_recv().is_err());
        assert_eq!(own.psql("SELECT state FROM looker_feed.delivery"), "1");
        own.set(&["synchronous_standby_names = ''"]);
        own.reload();
        let receipt = committed.recv_timeout(Duration::from_secs(60)).unwrap();
        receipt.unwrap();
    });

    // Waits have an end of their own, and what happened is found out afterwards.
    own.set(&["synchronous_standby_names = 'nobody'"]);
    own.reload();
    let mut settings = at(&url(&[&own]));
    settings.within = Duration::from_secs(1);
    until("a write ends without an answer", || {
        let note = outbox.note((destination_id(1), 1), Some(b"note"));
        matches!(note, Err(Error::Database { .. }))
    });
    own.set(&["synchronous_standby_names = ''"]);
    own.reload();
    until("it heals", || outbox.health() == Health::Ok);
    outbox.note((destination_id(1), 1), Some(b"note")).unwrap();
    let held = lease(&outbox, 1);
    assert_eq!(drain(&held).len(), 1);
    check_sums(&outbox);
}

#[test]
fn a_server_that_goes_and_comes_back_costs_nothing_that_was_acknowledged() {
    let Some(own) = Own::start(&[]) else {
        return;
    };
    let outbox = Outbox::open_shared(at(&url(&[&own]))).unwrap();
    let mut acknowledged = Vec::new();
    let mut refused = 0;
    for round in 0..3u8 {
        std::thread::scope(|scope| {
            let delivering = scope.spawn(|| {
                (0..40u8)
                    .map(|n| (round * 40 + n, deliver(&outbox, round * 40 + n, n % 3, 2)))
                    .collect::<Vec<_>>()
            });
            until("deliveries come", || {
                own.psql("SELECT count(*) > 3 FROM looker_feed.delivery WHERE state = 1") == "t"
            });
            own.crash();
            own.up();
            for (id, result) in delivering.join().unwrap() {
                match result {
                    Ok(_) => acknowledged.push(id),
                    Err(_) => refused += 1,
                }
            }
        });
    }
    let states = outbox.deliveries(None, 1_000).unwrap().deliveries;
    for id in &acknowledged {
        assert!(
            states.iter().any(|state| state.id == delivery_id(*id)),
            "delivery {id} was acknowledged and is lost"
        );
    }
    // A delivery that was refused is gone: Looker sends it again.
    assert_eq!(states.len(), acknowledged.len(), "{refused} refused");
    check_sums(&outbox);
    for destination in 0..3 {
        let came = drain(&lease(&outbox, destination));
        let mut keys: Vec<_> = came
            .iter()
            .map(|claim| (claim.delivery, claim.ordinal))
            .collect();
        let all = keys.len();
        keys.sort();
        keys.dedup();
        assert_eq!(keys.len(), all, "none is handed out twice");
    }
    assert_eq!(outbox.usage().unwrap().entries, 0);
}

#[test]
fn a_standby_that_is_promoted_has_all_that_was_acknowledged() {
    let Some(primary) = Own::start(&[]) else {
        return;
    };
    let standby = primary.standby(&["synchronous_standby_names = ''"]);
    primary.set(&["synchronous_standby_names = 'standby'"]);
    primary.reload();
    let outbox = Outbox::open_shared(at(&url(&[&primary, &standby]))).unwrap();
    let held = {
        deliver(&outbox, 0, 0, 30).unwrap();
        lease(&outbox, 0)
    };
    let claims = held.claim(10).unwrap();
    held.settle(delivered(&claims[..7])).unwrap();
    let mut acknowledged = vec![0];
    std::thread::scope(|scope| {
        let delivering = scope.spawn(|| {
            (1..120u8)
                .map(|n| (n, deliver(&outbox, n, n % 3, 2)))
                .collect::<Vec<_>>()
        });
        until("deliveries come", || {
            primary.psql("SELECT count(*) > 20 FROM looker_feed.delivery WHERE state = 1") == "t"
        });
        primary.crash();
        standby.promote();
        for (id, result) in delivering.join().unwrap() {
            if result.is_ok() {
                acknowledged.push(id);
            }
        }
    });
    let states = outbox.deliveries(None, 1_000).unwrap().deliveries;
    for id in &acknowledged {
        let known = states.iter().any(|state| state.id == delivery_id(*id));
        assert!(known, "delivery {id} was acknowledged and is lost");
    }
    assert_eq!(states.len(), acknowledged.len());
    // What had settled has settled.
    let state = outbox.delivery(delivery_id(0)).unwrap().unwrap();
    let batches: u64 = claims[..7]
        .iter()
        .map(|claim| claim.slices.len() as u64)
        .sum();
    assert_eq!(state.delivered.batches, batches);
    check_sums(&outbox);
}

#[test]
fn what_is_wrong_at_the_start_is_said() {
    let Some(database) = empty_database(Isolation::Default) else {
        return;
    };
    let said = |settings: Settings| Outbox::open_shared(settings).unwrap_err();
    let url = database.url();
    let mut gone = at(&url.replace("test_", "gone_"));
    let error = said(gone.clone());
    assert!(error.to_string().contains("make the database"), "{error}");
    gone.pool = 1;
    assert!(matches!(said(gone), OpenError::Setting(_)));
    let nowhere = said(at("postgres://postgres@%2Fnowhere/feed"));
    assert!(nowhere.to_string().contains("no connection"), "{nowhere}");

    // One who may not make tables is told what to run, and can go on when it has been run.
    database.psql(&format!(
        "DROP ROLE IF EXISTS feed; CREATE ROLE feed LOGIN; GRANT CONNECT ON DATABASE {} TO feed",
        database.name
    ));
    let feed = url.replace("postgres@", "feed@");
    let error = said(at(&feed));
    assert!(
        matches!(
            &error,
            OpenError::Schema {
                source: SchemaError::Rights { .. },
                ..
            }
        ),
        "{error}"
    );
    database.psql(&schema());
    database.psql(
        "GRANT USAGE ON SCHEMA looker_feed TO feed;
         GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA looker_feed TO feed",
    );
    let outbox = Outbox::open_shared(at(&feed)).unwrap();
    deliver(&outbox, 1, 1, 2).unwrap();
    assert_eq!(drain(&lease(&outbox, 1)).len(), 2);
    let probed = probe(&at(&url)).unwrap();
    assert!(!probed.facts.version.is_empty());

    // Another key than the others have, and one that something is sealed under.
    deliver(&outbox, 2, 1, 2).unwrap();
    let other = || Arc::new(Keyring::new(Key::new([2; 32]), Vec::new()));
    let mut stranger = at(&url);
    stranger.keys = other();
    assert!(matches!(said(stranger), OpenError::MissingKey { .. }));
    drain(&lease(&outbox, 1));
    outbox.sweep().unwrap();
    let mut stranger = at(&url);
    stranger.keys = other();
    assert!(matches!(said(stranger), OpenError::OtherKeys { .. }));
    // Rotation: a new key, and the old one too.
    let mut rotated = at(&url);
    rotated.keys = Arc::new(Keyring::new(Key::new([2; 32]), vec![Key::new([1; 32])]));
    let rotated = Outbox::open_shared(rotated).unwrap();
    deliver(&rotated, 3, 2, 1).unwrap();
    assert_eq!(rotated.shared_keys().unwrap().unwrap().len(), 1);
    // One that has not got the new key yet does not take it for damage.
    let held = lease(&outbox, 2);
    assert!(matches!(held.claim(1), Err(Error::MissingKey { .. })));
    held.give_back().unwrap();
    assert_eq!(drain(&lease(&rotated, 2)).len(), 1);
    assert!(outbox.damage().is_empty());

    database.psql("UPDATE looker_feed.schema SET version = 99");
    let error = said(at(&url));
    assert!(
        matches!(
            &error,
            OpenError::Schema {
                source: SchemaError::Newer { found: 99, .. },
                ..
            }
        ),
        "{error}"
    );
}

#[test]
fn a_server_that_takes_no_writes_is_said_and_heals() {
    let Some(database) = database(Isolation::Default) else {
        return;
    };
    let mut settings = settings(&database, "daemon");
    settings.lease = Duration::from_secs(1);
    settings.within = Duration::from_secs(1);
    let outbox = Outbox::open_shared(settings).unwrap();
    deliver(&outbox, 1, 1, 2).unwrap();
    let held = lease(&outbox, 1);
    let end = |sql: &str| {
        psql(&database.directory, "postgres", sql);
        database.psql(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
             WHERE datname = current_database() AND pid <> pg_backend_pid()",
        );
    };
    end(&format!(
        "ALTER DATABASE {} SET default_transaction_read_only = on",
        database.name
    ));
    until("it is seen", || outbox.health() != Health::Ok);
    assert!(matches!(outbox.admit(), Err(Error::Away { .. })));
    // Nothing is sent under a lease whose time is over.
    until("the lease is over", || {
        matches!(held.claim(1), Err(Error::LeaseLost))
    });
    assert!(matches!(
        outbox.deliveries(None, 9),
        Err(Error::Database { .. })
    ));
    end(&format!(
        "ALTER DATABASE {} RESET default_transaction_read_only",
        database.name
    ));
    until("it heals", || outbox.health() == Health::Ok);
    drop(held);
    deliver(&outbox, 2, 1, 2).unwrap();
    assert_eq!(drain(&lease(&outbox, 1)).len(), 4);
}

#[test]
fn a_record_that_is_damaged_is_counted_and_the_others_go_on() {
    on_both(|database| {
        let outbox = open(database);
        deliver(&outbox, 1, 1, 10).unwrap();
        deliver(&outbox, 2, 1, 3).unwrap();
        deliver(&outbox, 3, 2, 3).unwrap();
        // One byte in the middle, and a whole block.
        database.psql(
            "UPDATE looker_feed.block SET body =
                set_byte(body, length(body) / 2, get_byte(body, length(body) / 2) # 1)
             WHERE delivery = decode(repeat('01', 16), 'hex')",
        );
        database
            .psql("DELETE FROM looker_feed.block WHERE delivery = decode(repeat('03', 16), 'hex')");
        let came = drain(&lease(&outbox, 1));
        assert_eq!(came.len(), 12);
        assert!(drain(&lease(&outbox, 2)).is_empty());
        check_sums(&outbox);
        let states = outbox.deliveries(None, 9).unwrap().deliveries;
        assert!(states.iter().all(|state| state.settled));
        let damaged: Vec<u64> = states.iter().map(|state| state.damaged.batches).collect();
        assert_eq!((damaged[0], damaged[1]), (states[0].batches, 0));
        assert!(damaged[2] > 0);
        assert_eq!(outbox.damage().len(), 2);
    });
}
