//! Schedules that deliver night after night, against a model of who sends and who receives: what
//! matters in the end is what mParticle has.

mod world;

/// What the model takes from here; it is run against a database too.
mod names {
    pub use super::super::*;
    pub use crate::record;
}

use std::path::PathBuf;

use proptest::prelude::*;

use super::*;
use crate::record::push_part;
use world::{Night, SCHEDULE, World, people, result, settings, step};

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, ..ProptestConfig::default() })]

    #[test]
    fn whatever_happens_in_between_mparticle_has_the_last_result_in_the_end(
        steps in prop::collection::vec(step(), 1..40),
        last in prop::collection::btree_map(0..8u64, 0..3u8, 0..8),
        audience in any::<bool>(),
    ) {
        let mut world = World::new(audience);
        for step in &steps {
            world.step(step);
        }
        // What waits to be sent again arrives behind the last result, and says so to the next one.
        world.send_all();
        world.run(&last);
        world.check(&last)?;
        // And then there is nothing to say any more.
        world.run(&last);
        world.send_all();
        prop_assert_eq!(world.run(&last), 0);
        world.check(&last)?;
    }
}

#[test]
fn the_second_night_tells_of_what_changed_only() {
    for audience in [false, true] {
        let mut world = World::new(audience);
        let first = result(0..1_000, 1);
        assert_eq!(world.run(&first), 1_000);
        world.send_all();
        let mut second = first.clone();
        second.insert(7, 2);
        second.insert(5_000, 1);
        second.remove(&500);
        assert_eq!(world.run(&second), 2 + usize::from(audience));
        world.check(&second).unwrap();
        assert_eq!(world.run(&second), 0, "nothing is left to say");
        world.check(&second).unwrap();
        // Who comes back is told so where leaving was told, and is as before where it was not.
        assert_eq!(world.run(&first), 1 + usize::from(audience) * 2);
        world.check(&first).unwrap();
    }
}

#[test]
fn an_empty_result_costs_no_full_delivery_afterwards() {
    let mut world = World::new(false);
    let all = result(0..100, 1);
    world.run(&all);
    world.send_all();
    assert_eq!(world.run(&Night::new()), 0);
    assert_eq!(world.run(&all), 0);
}

#[test]
fn what_did_not_arrive_is_told_again_and_what_did_is_not() {
    let mut world = World::new(true);
    let all = result(0..10, 1);
    world.run(&all);
    // Users 4 and 5 are together in the third request.
    for arrives in [true, true, false, true, true] {
        world.send(arrives);
    }
    assert_eq!(world.run(&all), 2);
    world.check(&all).unwrap();
    // Leaving is told again too.
    let fewer = result(0..6, 1);
    assert_eq!(world.run(&fewer), 4);
    world.send(false);
    world.send(true);
    assert_eq!(world.run(&fewer), 2);
    world.check(&fewer).unwrap();
    assert_eq!(world.run(&fewer), 0);
}

#[test]
fn a_value_that_comes_back_while_the_other_one_waits_is_told() {
    let mut world = World::new(false);
    world.run(&result(0..2, 1));
    world.send_all();
    assert_eq!(world.run(&result(0..2, 2)), 2);
    assert_eq!(world.run(&result(0..2, 1)), 2, "the other value may arrive");
    assert_eq!(world.run(&result(0..2, 1)), 2, "and this one may not");
    world.check(&result(0..2, 1)).unwrap();
    assert_eq!(world.run(&result(0..2, 1)), 0);
}

#[test]
fn with_too_much_waiting_all_are_told() {
    let mut world = World::new(false);
    world.run(&result(0..3, 1));
    world.send_all();
    for night in 0..MOST_PENDING {
        let mut other = result(0..3, 1);
        other.insert(0, 2 + night as u8);
        assert_eq!(world.run(&other), 1, "night {night}");
    }
    // The base is one of them.
    assert_eq!(world.run(&result(0..3, 9)), 3);
    let (_, session, requests) = world.receive(&result(0..3, 1));
    assert_eq!(requests.iter().map(Vec::len).sum::<usize>(), 3);
    assert!(session.note().unwrap().contains("still wait"));
}

#[test]
fn after_the_days_of_a_full_refresh_all_are_told_once() {
    let mut world = World::new(false);
    world.refresh = 10;
    let all = result(0..3, 1);
    let mut told = Vec::new();
    for _ in 0..22 {
        told.push(world.run(&all));
        world.send_all();
    }
    let full: Vec<_> = (0..22).filter(|night| told[*night] == 3).collect();
    assert_eq!(full, [0, 10, 20]);
    assert_eq!(told.iter().sum::<usize>(), 9);
    // A clock that was wrong once must not put the refresh off for years.
    world.now = 5;
    assert_eq!(world.run(&all), 3);
}

#[test]
fn an_audience_that_loses_too_many_at_once_is_refused_unless_that_is_allowed() {
    let mut world = World::new(true);
    world.run(&result(0..10, 1));
    world.send_all();
    let mut strict = world.comparison();
    if let Some(audience) = &mut strict.audience {
        audience.may_shrink = false;
    }
    for (left, refused) in [(10, true), (6, true), (5, false), (0, false)] {
        let id = DeliveryId([left; 16]);
        let begun = world
            .changes
            .begin(&strict, id, UnixMillis(99), &world.outbox);
        let mut session = begun.unwrap();
        for user in u64::from(left)..10 {
            session.is_known(user, Some(1), &people(user)).unwrap();
        }
        let mut gone = Vec::new();
        while session.next_gone(&mut gone).unwrap() {
            session.placed(0, 0).unwrap();
        }
        let checked = session.check(false);
        assert_eq!(checked.is_err(), refused, "{left} left");
        if let Err(error) = checked {
            assert!(
                error.to_string().contains(&format!("{left} of 10 users")),
                "{error}"
            );
        }
        assert!(matches!(session.check(true), Err(Error::Truncated)));
    }
    // Nothing of those is remembered.
    assert_eq!(world.run(&result(0..10, 1)), 0);
}

#[test]
fn who_is_there_under_another_identity_has_not_left() {
    let mut world = World::new(true);
    let set = |text: &str| {
        let mut people = Vec::new();
        push_part(&mut people, text.as_bytes());
        people
    };
    let mut nights = [
        vec![
            (10, set(r#""email":"a@b.c""#)),
            (20, set(r#""email":"x@y.z""#)),
        ],
        // The first of them has become a customer, and so another user to the order of rows.
        vec![
            (5, set(r#""customer_id":"7","email":"a@b.c""#)),
            (20, set(r#""email":"x@y.z""#)),
        ],
        vec![(20, set(r#""email":"x@y.z""#))],
    ]
    .into_iter();
    let mut night = |world: &mut World| {
        world.now += 1;
        let id = DeliveryId(u128::from(world.now).to_be_bytes());
        let begun = world.changes.begin(
            &world.comparison(),
            id,
            UnixMillis(world.now),
            &world.outbox,
        );
        let mut session = begun.unwrap();
        for (user, people) in nights.next().unwrap() {
            if !session.is_known(user, Some(1), &people).unwrap() {
                session.placed(0, 0).unwrap();
            }
        }
        let (mut gone, mut all) = (Vec::new(), Vec::new());
        while session.next_gone(&mut gone).unwrap() {
            all.push(gone.clone());
            session.placed(1, 1).unwrap();
        }
        session.finish().unwrap();
        world.commit(id, vec![Vec::new(), Vec::new()]);
        session.committed();
        world.send_all();
        all
    };
    assert!(night(&mut world).is_empty());
    assert!(night(&mut world).is_empty(), "the same person");
    let both = [
        set(r#""customer_id":"7","email":"a@b.c""#),
        set(r#""email":"a@b.c""#),
    ];
    assert_eq!(night(&mut world), both, "under each name that was used");
}

#[test]
fn one_schedule_takes_one_delivery_at_a_time_and_another_one_its_own() {
    let world = World::new(false);
    let comparison = world.comparison();
    let id = DeliveryId([1; 16]);
    let now = UnixMillis(1);
    let first = world
        .changes
        .begin(&comparison, id, now, &world.outbox)
        .unwrap();
    let second = world.changes.begin(&comparison, id, now, &world.outbox);
    assert!(matches!(second, Err(Error::Busy)));
    let other = Comparison {
        schedule: ScheduleKey([6; 16]),
        ..comparison.clone()
    };
    world.changes.begin(&other, id, now, &world.outbox).unwrap();
    drop(first);
    world
        .changes
        .begin(&comparison, id, now, &world.outbox)
        .unwrap();
    assert_eq!(
        world.files(),
        Vec::<PathBuf>::new(),
        "nothing is left of those given up"
    );
}

#[test]
fn schedules_go_when_there_is_no_room_and_when_they_are_old() {
    for (max_bytes, forget_after, left) in [
        (1 << 30, Duration::from_secs(3600), true),
        (10, Duration::from_secs(3600), false),
        (1 << 30, Duration::ZERO, false),
    ] {
        let mut world = World::new(false);
        world.run(&result(0..3, 1));
        world.send_all();
        let tight = Settings {
            max_bytes,
            forget_after,
            ..settings(world.home.path().join("changes"))
        };
        world.changes = Changes::new(tight, Arc::clone(&world.keys));
        world.changes.settle(&world.outbox);
        assert_eq!(!world.files().is_empty(), left);
        assert_eq!(world.run(&result(0..3, 1)), if left { 0 } else { 3 });
    }
}

#[test]
fn a_schedule_that_was_forgotten_or_is_under_another_key_or_audience_sends_all() {
    let mut world = World::new(true);
    let all = result(0..3, 1);
    world.run(&all);
    world.send_all();
    assert_eq!(world.run(&all), 0);
    world.changes.forget(SCHEDULE).unwrap();
    assert_eq!(world.run(&all), 3);
    world.send_all();
    world.keys = Arc::new(Keyring::ephemeral().unwrap());
    world.restart();
    assert_eq!(world.run(&all), 3);
    world.send_all();
    assert_eq!(world.run(&all), 0);
    world.audience = false;
    assert_eq!(world.run(&all), 3);
}

#[test]
fn after_a_replay_all_are_told_also_when_it_comes_while_a_delivery_comes_in() {
    for meanwhile in [false, true] {
        let mut world = World::new(false);
        world.run(&result(0..2, 1));
        world.send_all();
        world.run(&result(0..2, 2));
        world.send(false);
        let all = result(0..4, 3);
        world.run(&all);
        world.send_all();
        if meanwhile {
            let (id, mut session, requests) = world.receive(&all);
            assert!(requests.is_empty());
            world.replay();
            session.finish().unwrap();
            world.commit(id, requests);
            session.committed();
        } else {
            world.replay();
        }
        world.send_all();
        assert_eq!(world.values[&0], 2, "the old value came last");
        assert_eq!(world.run(&all), 4);
        world.check(&all).unwrap();
    }
}

#[test]
fn a_replay_of_what_a_forgotten_schedule_sent_drops_what_is_known_since() {
    let mut world = World::new(false);
    world.run(&result(0..2, 1));
    world.send(false);
    // Whatever it is that drops the schedule: its dead letters stay.
    world.changes.forget(SCHEDULE).unwrap();
    let all = result(0..4, 2);
    for meanwhile in [true, false] {
        world.run(&all);
        world.send_all();
        if meanwhile {
            let (id, mut session, requests) = world.receive(&all);
            session.finish().unwrap();
            world.commit(id, requests);
            session.committed();
        }
        assert_eq!(world.run(&all), 0);
        world.restart();
    }
    assert_eq!(
        world.files().len(),
        3,
        "a base and what was unfinished before"
    );
    world.replay();
    world.send_all();
    assert_eq!(world.values[&0], 1, "the old value came last");
    assert_eq!(world.run(&all), 4);
    world.check(&all).unwrap();
    // Nothing is unfinished any more.
    assert_eq!(world.run(&all), 0);
    let noted = |path: &PathBuf| path.extension().is_some_and(|end| end == "before");
    assert!(!world.files().iter().any(noted), "{:?}", world.files());
}

#[test]
fn a_delivery_that_ended_before_one_ahead_of_it_proves_nothing_yet() {
    let mut world = World::new(false);
    world.run(&result(0..2, 1));
    world.send_all();
    world.run(&result(0..2, 2));
    // Cancelled, it has ended, and the one ahead of it still waits.
    world.run(&result(0..3, 1));
    world.cancel(2);
    world.changes.settle(&world.outbox);
    assert_eq!(world.run(&result(0..2, 1)), 2, "the other value may arrive");
    world.check(&result(0..2, 1)).unwrap();
}

#[test]
fn who_was_away_is_told_again_unless_what_was_told_arrived() {
    let mut world = World::new(false);
    world.run(&result(0..2, 1));
    world.send_all();
    world.run(&result(0..2, 2));
    world.send(false);
    assert_eq!(world.run(&Night::new()), 0);
    assert_eq!(world.run(&result(0..2, 2)), 2);
    // The same while the other value waits.
    world.send_all();
    world.run(&result(0..2, 3));
    assert_eq!(world.run(&Night::new()), 0);
    world.send(false);
    assert_eq!(world.run(&result(0..2, 3)), 2);
    world.check(&result(0..2, 3)).unwrap();
}

#[test]
fn a_lost_state_and_a_delivery_that_nobody_knows_of_drop_what_was_kept() {
    let all = result(0..3, 1);
    let mut world = World::new(false);
    world.run(&all);
    world.send_all();
    world.outbox.lost = Some(UnixMillis(1));
    assert_eq!(world.run(&all), 3);
    world.send_all();
    assert_eq!(world.run(&all), 0, "it is heard of once");
    // The process dies between the snapshot and the commit.
    let (_, mut session, _) = world.receive(&result(0..3, 2));
    session.finish().unwrap();
    std::mem::forget(session);
    world.restart();
    assert_eq!(world.files(), Vec::<PathBuf>::new());
    assert_eq!(world.run(&all), 3);
}

/// What a delivery reads before it could be committed, and then it is given up.
fn attempt(world: &mut World, result: &Night) -> Result<(), Error> {
    world.now += 1;
    let id = DeliveryId(u128::from(world.now).to_be_bytes());
    let now = UnixMillis(world.now);
    let mut session = world
        .changes
        .begin(&world.comparison(), id, now, &world.outbox)?;
    for (&user, &value) in result {
        let fingerprint = Some(u128::from(value));
        if !session.is_known(user, fingerprint, &world::people(user))? {
            session.placed(0, 0)?;
        }
    }
    while session.next_gone(&mut Vec::new())? {
        session.placed(0, 0)?;
    }
    Ok(())
}

#[test]
fn a_read_that_fails_fails_the_delivery_and_nothing_is_forgotten() {
    use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
    let last = result(2..8, 1);
    let mut failures = 0;
    for nth in 0.. {
        let mut world = World::new(true);
        // One has left and was told so, one has left and it is dead, one delivery is pending.
        world.run(&result(0..6, 1));
        world.send_all();
        world.changes.settle(&world.outbox);
        world.run(&result(1..7, 1));
        world.send(false);
        world.send_all();
        world.changes.settle(&world.outbox);
        world.run(&result(1..8, 1));
        let calls = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&calls);
        let reads = Reads::with_hook(move |_| match counter.fetch_add(1, Relaxed) == nth {
            true => Err(io::Error::from_raw_os_error(5)),
            false => Ok(()),
        });
        let settings = world::settings(world.home.path().join("changes"));
        world.changes = Changes::reading(settings, Arc::clone(&world.keys), reads);
        world.changes.settle(&world.outbox);
        match attempt(&mut world, &last) {
            Ok(()) => {}
            Err(Error::Unreadable { .. } | Error::Io { .. }) => failures += 1,
            Err(error) => panic!("read {nth}: {error:?}"),
        }
        // The fault is over.
        let tried = calls.swap(usize::MAX / 2, Relaxed);
        let files = world.files();
        assert!(files.len() > 3, "read {nth}: {files:?}");
        // The next one knows all that was known: of six users one is new to mParticle's knowledge
        // only if its request was lost, and the two who left are told.
        let (id, mut session, requests) = world.receive(&last);
        assert_eq!(session.note(), None, "read {nth}");
        session.finish().unwrap();
        world.commit(id, requests);
        session.committed();
        world.check(&last).unwrap();
        assert!(world.forgiven.is_empty());
        if tried <= nth {
            assert!(failures > 10, "only {failures} reads failed a delivery");
            return;
        }
    }
}

/// A user by what a snapshot calls them, and by their identities.
struct User(u64);

impl Who for User {
    fn users(&self, _: &[u8; 16]) -> Vec<u64> {
        vec![self.0]
    }

    fn is_among(&self, people: &[u8]) -> bool {
        let own = format!("\"customer_id\":\"{}\"", self.0);
        crate::record::parts(people).any(|members| members == own.as_bytes())
    }
}

#[test]
fn a_user_is_found_and_erased_and_taken_for_new_by_the_next_delivery() {
    for audience in [false, true] {
        let mut world = World::new(audience);
        let first = result(0..1_000, 1);
        world.run(&first);
        world.send_all();
        let found = world.changes.find(&User(7)).unwrap();
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(found[0].sent && !found[0].left);
        assert_eq!(world.changes.find(&User(5_000)).unwrap(), []);
        assert_eq!(world.changes.erase(&User(7), &|| false).unwrap(), 1);
        assert_eq!(world.changes.find(&User(7)).unwrap(), []);
        assert_eq!(world.changes.erase(&User(7), &|| false).unwrap(), 0);
        // All others are known as before.
        assert_eq!(world.run(&first), 1);
        world.send_all();
        world.check(&first).unwrap();
        // One who has left and is erased is not told any more.
        let mut second = first.clone();
        second.remove(&8);
        if audience {
            assert_eq!(world.changes.erase(&User(8), &|| false).unwrap(), 1);
        }
        assert_eq!(world.run(&second), 0);
    }
}

#[test]
fn a_schedule_with_a_file_that_cannot_be_searched_is_dropped_when_somebody_is_erased() {
    let mut world = World::new(false);
    let night = result(0..100, 1);
    world.run(&night);
    world.send_all();
    let files = world.files();
    let users = files
        .iter()
        .position(|file| file.extension().is_some_and(|end| end == "users"));
    world.damage(users.unwrap(), 40, false);
    assert_eq!(world.changes.find(&User(7)).unwrap(), []);
    assert_eq!(world.changes.erase(&User(7), &|| false).unwrap(), 0);
    assert_eq!(world.files(), Vec::<PathBuf>::new());
    assert_eq!(world.run(&night), 100);
}
