//! A destination that rejects everything is paused before its backlog becomes dead letters; a bad
//! batch, or a small bad delivery, is isolated all the same.

use std::time::Duration;

use crate::world::{
    Batch, SECOND, Server, Station, accepted, at, finish, rejected, run, settings, wait,
};
use looker_feed::drain::notice::Notice;
use looker_feed::drain::{Reply, SendState};

const HOUR: Duration = Duration::from_secs(3_600);

fn reply(good: bool) -> (Duration, Reply) {
    (SECOND / 10, if good { accepted() } else { rejected() })
}

fn paused(station: &Station, now: Duration) -> bool {
    matches!(
        station.lane.snapshot(at(now)).state,
        SendState::Paused { .. }
    )
}

fn doubts(station: &Station) -> Vec<&Notice> {
    let notices = station.notices.iter().map(|(_, notice)| notice);
    notices
        .filter(|notice| matches!(notice, Notice::Doubted { .. }))
        .collect()
}

/// Runs one station until it is paused; fails if it never is.
fn until_paused(stations: &mut [Station], server: &mut impl Server, now: Duration) -> Duration {
    let end = now + HOUR;
    let now = run(stations, server, now, end, |stations, now| {
        paused(&stations[0], now)
    });
    assert!(now < end, "it was not paused");
    now
}

#[test]
fn a_server_that_rejects_everything_costs_a_hundred_dead_letters_and_its_return_brings_the_rest() {
    for (seed, max_in_flight, size) in [(1, 8, 100), (2, 1, 100), (3, 8, 1), (4, 30, 7)] {
        let begin = Duration::from_secs(60);
        let end = begin + 2 * HOUR;
        let mut stations = [Station::new(settings(max_in_flight, 270), seed)];
        stations[0].deliver(Duration::ZERO, vec![size; 60_000 / size]);
        let mut server = |now: Duration, _, _: &[Batch]| reply(!(begin..end).contains(&now));
        let now = until_paused(&mut stations, &mut server, Duration::ZERO);
        assert!(now < begin + 10 * 60 * SECOND, "{now:?}");
        // What was in flight lands.
        let now = wait(&mut stations, &mut server, now, now + SECOND);
        assert_eq!(stations[0].lane.snapshot(at(now)).record.dead_letters, 100);
        stations[0].most_open = 0;
        let before = stations[0].sent.len();
        wait(&mut stations, &mut server, now, end);
        let station = &stations[0];
        assert_eq!(station.lane.snapshot(at(end)).record.dead_letters, 100);
        assert!(paused(station, end));
        assert!(station.most_open <= 1, "{} entries held", station.most_open);
        let probes = station.sent.len() - before;
        assert!((20..=70).contains(&probes), "{probes} probes");
        assert_eq!(doubts(station), [&Notice::Doubted { batches: 100 }]);

        let done = finish(&mut stations, &mut server, end, end + HOUR);
        assert!(done < end + HOUR, "it goes on by itself");
        stations[0].check_all_settled();
        assert_eq!(stations[0].dead.len(), 100);
    }
}

#[test]
fn a_delivery_that_is_bad_as_a_whole_waits_for_a_person_and_each_resume_lets_as_many_through() {
    let mut stations = [Station::new(settings(8, 0), 1)];
    stations[0].deliver(Duration::ZERO, [100; 3]);
    let bad = stations[0].deliver(Duration::ZERO, [100; 3]);
    stations[0].deliver(Duration::ZERO, [100; 3]);
    let mut server =
        move |_, _, batches: &[Batch]| reply(batches.iter().all(|batch| batch.delivery != bad));
    let mut now = Duration::ZERO;
    for round in 1..=3 {
        now = until_paused(&mut stations, &mut server, now);
        now = wait(&mut stations, &mut server, now, now + HOUR);
        let dead = stations[0].lane.snapshot(at(now)).record.dead_letters;
        assert_eq!(dead, 100 * round);
        if round < 3 {
            assert!(paused(&stations[0], now), "no probe of it succeeds");
            stations[0].lane.resume(at(now));
            assert!(!paused(&stations[0], now));
        }
    }
    // The last of them is the end of the bad delivery: the probes are of the next, and good.
    assert!(stations[0].is_done());
    assert_eq!(stations[0].lane.snapshot(at(now)).state, SendState::Flowing);
    stations[0].check_all_settled();
    assert_eq!(stations[0].dead.len(), 300);
    assert_eq!(doubts(&stations[0]).len(), 3);
}

#[test]
fn bad_batches_among_good_ones_never_pause_the_destination() {
    // Whole small deliveries, half of all batches, a run in each request, nearly all.
    type IsBad = fn(&Batch) -> bool;
    let mixtures: [(usize, IsBad); 4] = [
        (90, |batch| batch.delivery % 2 == 1),
        (1_000, |batch| batch.slice % 2 == 1),
        (1_000, |batch| batch.slice < 40),
        (1_000, |batch| batch.slice % 50 != 49),
    ];
    for (batches, is_bad) in mixtures {
        let mut stations = [Station::new(settings(8, 0), 1)];
        for _ in 0..4 {
            let requests = std::iter::repeat_n(100, batches / 100)
                .chain(Some(batches % 100).filter(|&rest| rest > 0));
            stations[0].deliver(Duration::ZERO, requests);
        }
        let mut server = |_, _, sent: &[Batch]| reply(!sent.iter().any(is_bad));
        finish(&mut stations, &mut server, Duration::ZERO, HOUR);
        stations[0].check_all_settled();
        assert!(!stations[0].dead.is_empty());
        assert!(stations[0].dead.keys().all(is_bad), "only the bad ones");
        assert!(doubts(&stations[0]).is_empty());
    }
}

#[test]
fn probes_take_turns_so_that_a_bad_batch_at_the_front_does_not_keep_it_paused() {
    let end = HOUR;
    let mut stations = [Station::new(settings(8, 270), 1)];
    stations[0].deliver(Duration::ZERO, [100; 20]);
    // The server is mended, and half of the batches are bad by themselves.
    let mut server = |now: Duration, _, batches: &[Batch]| {
        reply(now >= end && !batches.iter().any(|batch| batch.slice % 2 == 0))
    };
    let now = until_paused(&mut stations, &mut server, Duration::ZERO);
    let done = finish(&mut stations, &mut server, now, end + 4 * HOUR);
    assert!(done < end + 2 * HOUR, "{done:?}");
    stations[0].check_all_settled();
    let spoiled = stations[0].dead.keys().filter(|batch| batch.slice % 2 == 1);
    assert!(spoiled.count() <= 100, "of the incident");
    assert_eq!(doubts(&stations[0]).len(), 1);
}

#[test]
fn without_a_bound_everything_that_is_rejected_goes_to_the_dead_letters() {
    let mut settings = settings(8, 0);
    settings.circuit.pause_after_rejected = 0;
    let mut stations = [Station::new(settings, 1)];
    stations[0].deliver(Duration::ZERO, [100; 5]);
    let mut server = |_, _, _: &[Batch]| reply(false);
    finish(&mut stations, &mut server, Duration::ZERO, HOUR);
    stations[0].check_all_settled();
    assert_eq!(stations[0].dead.len(), 500);
}
