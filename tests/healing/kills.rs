//! Killed at every moment: what was being received, waited for or asked for arrives once.

use std::time::Duration;

use looker_feed::looker::{ApiFault, Failure, Schedule};
use tokio::time::{sleep, timeout};

use crate::scene::{
    all_arrive, arrived, calls, failed, half, looks_again, paused, receives, shape, stands, start,
    state_of,
};
use crate::support::{Daemon, PATIENCE, World};

/// When the daemon is killed.
#[derive(Clone, Copy, Debug)]
enum Moment {
    /// The delivery has begun, and no row has come.
    Begun,
    /// Some rows have come.
    HalfReceived,
    /// It broke off, and the pause before Looker is asked has not passed.
    Waiting,
    /// Looker was called and runs it, and has not answered.
    Asking,
    /// What was asked for comes in.
    ComingInAgain,
}

const MOMENTS: [Moment; 5] = [
    Moment::Begun,
    Moment::HalfReceived,
    Moment::Waiting,
    Moment::Asking,
    Moment::ComingInAgain,
];

async fn asked(world: &World) {
    while calls(world, "run_once") == 0 {
        sleep(Duration::from_millis(10)).await;
    }
}

/// Waits until it is the moment.
async fn reached(moment: Moment, daemon: &Daemon, world: &World, title: &str) {
    let tries = async || {
        let failed = failed(daemon).await;
        failed.iter().filter(|one| one.title == title).count()
    };
    let comes = async |rows: u64, tried: usize| {
        while !receives(daemon, title, rows).await || tries().await != tried {
            sleep(Duration::from_millis(10)).await;
        }
    };
    let wait = async {
        match moment {
            Moment::Begun => comes(0, 0).await,
            Moment::HalfReceived => comes(100, 0).await,
            Moment::Waiting => {
                stands(daemon, title, "waiting").await;
            }
            Moment::Asking => asked(world).await,
            Moment::ComingInAgain => {
                // What comes in now is not the first one any more.
                asked(world).await;
                comes(100, 1).await;
            }
        }
    };
    if timeout(PATIENCE, wait).await.is_err() {
        panic!("it never came to {moment:?}\n{}", daemon.log());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn killed_at_each_step_what_was_scheduled_arrives_once() {
    for (n, moment) in MOMENTS.into_iter().enumerate() {
        let world = World::new(None).await;
        let home = tempfile::tempdir().unwrap();
        let schedules = world.api.schedules();
        let shape = shape(100 + n as u64, 2_000);
        let broken = Some(Failure::CutAfter(half(&shape)));
        let slow = Some(Failure::Slow {
            bytes: 8 << 10,
            pause: Duration::from_millis(30),
        });
        let silent = Some(Failure::Slow {
            bytes: 64 << 20,
            pause: Duration::from_secs(20),
        });
        let mut schedule = Schedule::new("Nightly", shape.clone(), 100);
        schedule.failures = match moment {
            Moment::Begun => [silent].into(),
            Moment::HalfReceived => [slow].into(),
            Moment::Waiting | Moment::Asking => [broken].into(),
            Moment::ComingInAgain => [broken, slow].into(),
        };
        if matches!(moment, Moment::Asking) {
            let late = ApiFault::Slow(Duration::from_secs(20));
            world.api.fail_next("run_once", late);
        }
        let patient = paused("2s");
        let settings: &[_] = match moment {
            Moment::Waiting => &patient,
            _ => &[],
        };
        let daemon = start(&world, home.path(), settings);
        let id = schedules.add(schedule);
        let run = tokio::spawn({
            let schedules = schedules.clone();
            async move { schedules.run(id).await }
        });
        reached(moment, &daemon, &world, "Nightly").await;
        daemon.kill();
        assert!(!run.await.expect("no panic"), "{moment:?}");
        let daemon = start(&world, home.path(), &[]);
        let one = stands(&daemon, "Nightly", "done").await;
        all_arrive(&world, &daemon, std::slice::from_ref(&shape)).await;
        let reasons: &[&str] = match moment {
            Moment::Begun | Moment::HalfReceived => &["interrupted"],
            // How it ended may not have reached the disk.
            Moment::Waiting => &["cut", "interrupted"],
            Moment::Asking | Moment::ComingInAgain => &["cut"],
        };
        assert!(reasons.contains(&&*one.reason), "{moment:?}: {one:?}");
        let copies = match moment {
            Moment::Asking | Moment::ComingInAgain => 2,
            _ => 1,
        };
        assert_eq!(schedules.copies(id), copies, "{moment:?}");
        assert_eq!(daemon.settled().await.len(), 1, "{moment:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_accepted_is_not_asked_for_though_looker_never_heard_of_it() {
    let world = World::new(None).await;
    let home = tempfile::tempdir().unwrap();
    let schedules = world.api.schedules();
    let shape = shape(110, 500);
    let mut schedule = Schedule::new("Nightly", shape.clone(), 110);
    schedule.answers_lost = 1;
    let id = schedules.add(schedule);
    let daemon = start(&world, home.path(), &[]);
    assert!(!schedules.run(id).await, "as Looker sees it");
    all_arrive(&world, &daemon, std::slice::from_ref(&shape)).await;
    // Neither the daemon that accepted it nor the next one takes Looker's word for it.
    for daemon in [Some(daemon), None] {
        let daemon = daemon.unwrap_or_else(|| start(&world, home.path(), &[]));
        looks_again(&world, &daemon).await;
        assert!(failed(&daemon).await.is_empty());
        daemon.kill();
    }
    assert_eq!(schedules.copies(id), 0);
    assert_eq!(calls(&world, "run_once"), 0);
    assert_eq!(arrived(&world, &shape), Ok(shape.rows));
}

/// Whatever is killed and whenever: every schedule's rows arrive once, without a hand.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn after_any_kill_every_schedules_rows_arrive_once_without_a_hand() {
    let seed = std::env::var("LOOKER_FEED_TEST_SEED").ok();
    let seed = seed.map_or_else(|| fastrand::u64(..), |seed| seed.parse().expect("a number"));
    println!("LOOKER_FEED_TEST_SEED={seed}");
    let mut rng = fastrand::Rng::with_seed(seed);
    let world = World::new(None).await;
    let home = tempfile::tempdir().unwrap();
    let schedules = world.api.schedules();
    let mut shapes = Vec::new();
    let mut runs = Vec::new();
    for round in 0..12 {
        let daemon = start(&world, home.path(), &[]);
        for n in 0..2 {
            let shape = shape(1_000 + 2 * round + n, 200 + rng.u64(..2_000));
            let title = format!("Round {round}, {n}");
            let mut schedule = Schedule::new(&title, shape.clone(), 1_000 + 2 * round + n);
            let slow = Failure::Slow {
                bytes: 16 << 10,
                pause: Duration::from_millis(rng.u64(1..15)),
            };
            schedule.failures = match rng.u32(..3) {
                0 => [Some(Failure::CutAfter(half(&shape)))].into(),
                1 => [Some(slow)].into(),
                _ => Default::default(),
            };
            shapes.push(shape);
            let id = schedules.add(schedule);
            let (schedules, wait) = (schedules.clone(), Duration::from_millis(rng.u64(..200)));
            runs.push(tokio::spawn(async move {
                sleep(wait).await;
                schedules.run(id).await
            }));
        }
        // From the first byte of a delivery to well behind the call of Looker.
        sleep(Duration::from_millis(rng.u64(20..1_800))).await;
        daemon.kill();
    }
    let daemon = start(&world, home.path(), &[]);
    for run in runs {
        let ran = timeout(PATIENCE, run).await.expect("a run ends");
        ran.expect("no panic");
    }
    all_arrive(&world, &daemon, &shapes).await;
    // And stay so, when all that was asked for has had its time.
    let closed = async || {
        let open = daemon.overview().await.ask_again.open;
        (open.values().sum::<u64>() == 0).then_some(())
    };
    daemon.until("nothing is asked for", closed).await;
    daemon.settled().await;
    for shape in &shapes {
        let rows = arrived(&world, shape);
        assert_eq!(rows, Ok(shape.rows), "seed {}", shape.seed);
    }
    let mut given_up = failed(&daemon).await;
    given_up.retain(|one| state_of(one) == Some("given_up"));
    assert!(given_up.is_empty(), "{given_up:?}");
}
