//! Long silences: few probes, no memory, few log lines, and a quick, gentle return.

use std::time::Duration;

use crate::world::{
    Batch, SECOND, Station, accepted, at, finish, run, settings, unavailable, wait,
};
use looker_feed::drain::notice::Notice;
use looker_feed::drain::{Reply, SendState};

const HOUR: Duration = Duration::from_secs(3_600);
const BEGIN: Duration = Duration::from_secs(60);

#[test]
fn two_hours_of_outage_cost_few_probes_little_memory_and_few_log_lines() {
    for seed in 0..10 {
        let end = BEGIN + 2 * HOUR;
        let mut stations = [Station::new(settings(8, 270), seed)];
        stations[0].deliver(Duration::ZERO, [20; 2_000]);
        let mut server = |now: Duration, _, _: &[Batch]| {
            let away = (BEGIN..end).contains(&now);
            (SECOND / 10, if away { unavailable() } else { accepted() })
        };
        let now = wait(&mut stations, &mut server, Duration::ZERO, BEGIN * 2);
        let station = &mut stations[0];
        assert!(matches!(
            station.lane.snapshot(at(now)).state,
            SendState::Down { .. }
        ));
        station.most_open = 0;
        // Intake goes on: more deliveries wait behind.
        for _ in 0..50 {
            station.deliver(now, [20; 10]);
        }
        wait(&mut stations, &mut server, now, end);

        let station = &stations[0];
        assert!(station.most_open <= 1, "{} entries held", station.most_open);
        let during = |at: Duration| (BEGIN..end).contains(&at);
        let probes = station.sent.iter().filter(|sent| during(sent.at)).count();
        // At most one a half of the capped interval, and at least one an interval.
        assert!((120..=260).contains(&probes), "{probes} probes");
        let lines = station.notices.iter().filter(|(at, _)| during(*at)).count();
        assert!((1..=3).contains(&lines), "{lines} log lines");

        // At return.
        let back = run(
            &mut stations,
            &mut server,
            end,
            end + HOUR,
            |stations, _| {
                let sent = stations[0].sent.last();
                sent.is_some_and(|sent| sent.at >= end && sent.standing == SendState::Flowing)
            },
        );
        assert!(back <= end + 61 * SECOND, "{back:?}");
        let full = run(
            &mut stations,
            &mut server,
            back,
            back + HOUR,
            |stations, now| stations[0].lane.snapshot(at(now)).rate == Some(270.0),
        );
        assert!(full <= back + 15 * SECOND, "{:?}", full - back);
        let recovered =
            |(_, notice): &(Duration, Notice)| matches!(notice, Notice::Recovered { .. });
        assert_eq!(
            stations[0].notices.iter().filter(|n| recovered(n)).count(),
            1
        );
        let first: usize = (stations[0].sent.iter())
            .filter(|sent| sent.at >= back && sent.at < back + SECOND)
            .map(|sent| sent.batches.len())
            .sum();
        assert!(
            first <= 60,
            "a ramp, not a jump: {first} batches in the first second"
        );

        let done = finish(&mut stations, &mut server, full, full + HOUR);
        assert!(done < full + HOUR);
        stations[0].check_all_settled();
    }
}

#[test]
fn refused_credentials_are_probed_slowly_and_new_ones_are_tried_at_once() {
    let mut stations = [Station::new(settings(8, 270), 5)];
    stations[0].deliver(Duration::ZERO, [20; 500]);
    let mut server = |_, account: u8, _: &[Batch]| {
        let refused = Reply::Unauthorized {
            status: 401,
            words: "bad key".into(),
        };
        (SECOND / 10, if account == 0 { refused } else { accepted() })
    };
    let now = wait(&mut stations, &mut server, Duration::ZERO, 6 * HOUR);
    let station = &mut stations[0];
    assert!(
        (60..=90).contains(&station.sent.len()),
        "{} requests",
        station.sent.len()
    );
    assert_eq!(station.notices.len(), 1, "said once");
    assert_eq!(station.notices[0].1, Notice::Paused { status: 401 });
    assert!(station.lane.open_entries() <= 1);

    // Something else happens in the outbox: it is looked at, and the same account is not tried.
    let requests = station.sent.len();
    station.changed();
    let SendState::Paused {
        probe_at: Some(probe_at),
        ..
    } = station.lane.snapshot(at(now)).state
    else {
        panic!("paused")
    };
    let probe_at = now + Duration::from_millis(probe_at.0 - at(now).wall.0);
    let now = wait(&mut stations, &mut server, now, probe_at - SECOND / 1000);
    assert_eq!(stations[0].sent.len(), requests);
    let now = wait(&mut stations, &mut server, now, probe_at + SECOND);
    assert_eq!(stations[0].sent.len(), requests + 1);

    // A new account: well before the next probe.
    stations[0].account = 1;
    stations[0].changed();
    let done = finish(&mut stations, &mut server, now, now + HOUR);
    assert!(done < now + 90 * SECOND, "{:?}", done - now);
    let first = stations[0].sent[requests + 1].at;
    assert!(first <= now + 6 * SECOND);
    stations[0].check_all_settled();
}

#[test]
fn an_operators_pause_stops_everything_and_resume_goes_on() {
    let mut stations = [Station::new(settings(8, 270), 6)];
    stations[0].deliver(Duration::ZERO, [20; 300]);
    let mut server = |_, _, _: &[Batch]| (SECOND / 10, accepted());
    let now = wait(&mut stations, &mut server, Duration::ZERO, 5 * SECOND);
    stations[0].lane.pause(at(now));
    let sent = stations[0].sent.len();
    wait(&mut stations, &mut server, now, now + HOUR);
    assert_eq!(stations[0].sent.len(), sent);
    let snapshot = stations[0].lane.snapshot(at(now));
    assert!(matches!(
        snapshot.state,
        SendState::Paused { probe_at: None, .. }
    ));
    assert_eq!(snapshot.in_flight, 0, "what was in flight has landed");
    let now = now + HOUR;
    stations[0].lane.resume(at(now));
    let done = finish(&mut stations, &mut server, now, now + HOUR);
    assert!(done < now + 60 * SECOND);
    stations[0].check_all_settled();
}
