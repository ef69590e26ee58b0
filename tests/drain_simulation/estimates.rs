//! The time to finish, as the status page tells it, against the time that it took.

use std::time::Duration;

use looker_feed::clock::UnixMillis;
use looker_feed::control::speeds::Speeds;
use looker_feed::control::view::{Destination, Overview};
use looker_feed::drain::Reply;

use crate::world::{Batch, SECOND, Server, Station, accepted, at, run, settings};

/// What the page sees of the station: the overview with its one destination.
fn seen(station: &Station, now: Duration, all: u64) -> Overview {
    let snapshot = station.lane.snapshot(at(now));
    Overview {
        now: UnixMillis(now.as_millis() as u64 + 1),
        destinations: vec![Destination {
            id: "one".into(),
            state: "flowing".into(),
            rate: snapshot.rate.unwrap_or_default(),
            heading: snapshot.heading.unwrap_or_default(),
            limit: snapshot.limit.map_or(0.0, f64::from),
            requests_sent: snapshot.record.requests,
            batches_sent: snapshot.record.batches,
            batches: all - snapshot.record.accepted_batches,
            batches_accepted: snapshot.record.accepted_batches,
            ..Destination::default()
        }],
        ..Overview::default()
    }
}

/// Sends a backlog, and returns for each second from a second on what was told and what it took.
fn told(
    from: Duration,
    in_flight: usize,
    requests: usize,
    cost: usize,
    mut server: impl Server,
) -> Vec<(Duration, f64, f64)> {
    let mut stations = [Station::new(settings(in_flight, 270), 1)];
    stations[0].deliver(Duration::ZERO, vec![cost; requests]);
    let all = (requests * cost) as u64;
    let mut speeds = Speeds::default();
    let mut told = Vec::new();
    let mut looked = None;
    let end = run(
        &mut stations,
        &mut server,
        Duration::ZERO,
        3_600 * SECOND,
        |stations, now| {
            if looked != Some(now.as_secs()) {
                looked = Some(now.as_secs());
                let mut overview = seen(&stations[0], now, all);
                speeds.take(overview.now, &overview.destinations);
                speeds.fill(&mut overview);
                let destination = &overview.destinations[0];
                let outlook = speeds.outlook(destination, overview.now);
                if let Some(seconds) = outlook.seconds(destination.batches) {
                    told.push((now, seconds));
                }
            }
            stations[0].is_done()
        },
    );
    told.into_iter()
        .filter(|(at, _)| *at >= from)
        .map(|(at, told)| (at, told, (end - at).as_secs_f64()))
        .collect()
}

/// Within a quarter; in the last seconds, within two of them.
fn check(told: &[(Duration, f64, f64)], least: usize) {
    assert!(told.len() >= least, "{}", told.len());
    for (at, told, took) in told {
        let off = (told - took).abs();
        assert!(
            off <= (took * 0.25).max(2.0),
            "at {at:?}: told {told:.1} s, took {took:.1} s"
        );
    }
}

fn after(latency: Duration) -> impl FnMut(Duration, u8, &[Batch]) -> (Duration, Reply) {
    move |_, _, _| (latency, accepted())
}

#[test]
fn it_holds_from_the_fifth_second_on_while_the_rate_still_grows() {
    for (requests, cost, least) in [
        (130, 100, 40),
        (1_300, 10, 40),
        (3_000, 100, 1_000),
        (40, 100, 10),
    ] {
        check(
            &told(
                5 * SECOND,
                16,
                requests,
                cost,
                after(Duration::from_millis(60)),
            ),
            least,
        );
    }
}

#[test]
fn it_holds_where_slow_answers_are_the_limit() {
    // Four requests of 20 each two seconds: 40 batches a second, where 270 are allowed.
    check(&told(15 * SECOND, 4, 400, 20, after(2 * SECOND)), 150);
}
