//! How fast requests go out.

use super::*;
use std::collections::VecDeque;

const LIMIT: PaceSettings = PaceSettings {
    batches_per_second: 270,
    burst: 100,
};

/// Sends requests of `cost` for as long as `until`, as fast as the pace lets them, with a
/// clean reply for each; returns when each was sent.
fn send(pace: &mut Pace, from: Duration, until: Duration, cost: usize) -> Vec<Duration> {
    let mut now = from;
    let mut sent = Vec::new();
    while now < until {
        match pace.admit(now, cost) {
            Ok(()) => {
                sent.push(now);
                pace.clean(now, None);
            }
            // A timer of whole milliseconds, rounded up, as tokio's is.
            Err(next) => {
                now = Duration::from_millis(next.as_nanos().div_ceil(1_000_000) as u64);
            }
        }
    }
    sent
}

fn most_in_a_second(sent: &[Duration], cost: usize) -> usize {
    let mut window = VecDeque::new();
    let mut most = 0;
    for &at in sent {
        window.push_back(at);
        while window
            .front()
            .is_some_and(|&first| first + Duration::from_secs(1) <= at)
        {
            window.pop_front();
        }
        most = most.max(window.len() * cost);
    }
    most
}

#[test]
fn the_rate_ramps_up_and_then_uses_the_whole_limit_and_no_more() {
    for cost in [1, 7, 20, 50, 99, 100] {
        let mut pace = Pace::new(LIMIT, Duration::ZERO);
        let end = Duration::from_secs(100);
        let sent = send(&mut pace, Duration::ZERO, end, cost);
        assert!(most_in_a_second(&sent, cost) <= 270 + 100, "cost {cost}");

        let first_second = sent.iter().filter(|at| at.as_secs() < 1).count() * cost;
        assert!(first_second <= cost.max(60), "a low start: {first_second}");
        let minute = Duration::from_secs(30)..Duration::from_secs(90);
        let used = sent.iter().filter(|at| minute.contains(*at)).count() * cost;
        assert!(used as f64 >= 0.98 * 270.0 * 60.0, "cost {cost}: {used}");
        assert!(used as f64 <= 270.0 * 60.0 + 100.0, "cost {cost}: {used}");
    }
}

#[test]
fn a_round_of_complaints_lowers_the_rate_and_it_comes_back() {
    let mut pace = Pace::new(LIMIT, Duration::ZERO);
    send(&mut pace, Duration::ZERO, Duration::from_secs(30), 20);
    assert_eq!(pace.rate(), Some(270.0));
    let now = Duration::from_secs(30);
    pace.throttled(now, Some(&Exceeded::Speed("account".into())));
    assert_eq!(pace.rate(), Some(270.0 * CUT));
    send(&mut pace, now, now + Duration::from_secs(60), 20);
    assert_eq!(pace.rate(), Some(270.0));
    for _ in 0..100 {
        pace.throttled(now * 3, None);
    }
    assert!(pace.rate() > Some(1.0), "it never stops altogether");
}

#[test]
fn acceleration_slows_the_ramp_more_than_the_rate() {
    let reached = |complaints: usize| {
        let mut pace = Pace::new(LIMIT, Duration::ZERO);
        for _ in 0..complaints {
            pace.throttled(Duration::ZERO, Some(&Exceeded::Acceleration));
        }
        send(&mut pace, Duration::ZERO, Duration::from_secs(5), 5);
        pace.rate().unwrap()
    };
    assert!(reached(1) < reached(0) * 0.7);
    assert!(reached(1) > reached(2));
    let mut pace = Pace::new(LIMIT, Duration::ZERO);
    pace.throttled(Duration::ZERO, Some(&Exceeded::Acceleration));
    assert!(pace.rate().unwrap() >= 27.0 * ACCELERATION_CUT);
}

#[test]
fn a_long_silence_begins_low_again() {
    let mut pace = Pace::new(LIMIT, Duration::ZERO);
    send(&mut pace, Duration::ZERO, Duration::from_secs(30), 20);
    let later = Duration::from_secs(60);
    assert!(pace.admit(later, 20).is_err(), "drained");
    assert_eq!(pace.rate(), Some(27.0));
}

#[test]
fn the_first_request_goes_at_once_and_the_second_waits_for_its_permits() {
    let mut pace = Pace::new(LIMIT, Duration::ZERO);
    let start = Duration::from_secs(60);
    let sent = send(&mut pace, start, start + Duration::from_secs(5), 100);
    assert_eq!(sent[0], start);
    assert!(sent[1] >= start + Duration::from_secs(2), "{sent:?}");
    assert!(most_in_a_second(&sent, 100) <= 270 + 100);
}

#[test]
fn a_request_that_takes_long_to_afford_is_not_taken_for_silence() {
    let settings = PaceSettings {
        batches_per_second: 5,
        burst: 100,
    };
    let mut pace = Pace::new(settings, Duration::ZERO);
    let sent = send(&mut pace, Duration::ZERO, Duration::from_secs(1_000), 100);
    let late = sent.iter().filter(|at| at.as_secs() >= 500).count();
    assert!(late >= 24, "{late} requests in 500 s");
}

#[test]
fn a_high_share_in_use_never_lowers_the_rate() {
    let mut pace = Pace::new(LIMIT, Duration::ZERO);
    send(&mut pace, Duration::ZERO, Duration::from_secs(30), 20);
    for second in 31..60 {
        let now = Duration::from_secs(second);
        assert!(pace.admit(now, 100).is_ok());
        pace.clean(now, Some(100));
        assert_eq!(pace.rate(), Some(270.0));
    }
}

#[test]
fn no_limit_costs_nothing_and_a_request_above_the_burst_still_passes() {
    for batches_per_second in [0, UNPACED, u32::MAX] {
        let settings = PaceSettings {
            batches_per_second,
            burst: 100,
        };
        let mut pace = Pace::new(settings, Duration::ZERO);
        assert_eq!(pace.rate(), None);
        for _ in 0..10_000 {
            assert_eq!(pace.admit(Duration::ZERO, 100), Ok(()));
        }
        pace.throttled(Duration::ZERO, None);
        assert_eq!(pace.admit(Duration::ZERO, 100), Ok(()));
    }
    let mut pace = Pace::new(LIMIT, Duration::ZERO);
    let sent = send(&mut pace, Duration::ZERO, Duration::from_secs(60), 250);
    assert!(sent.len() > 20, "{}", sent.len());
}

#[test]
fn a_changed_rate_keeps_the_permits_that_had_gathered() {
    let mut pace = Pace::new(LIMIT, Duration::ZERO);
    send(&mut pace, Duration::ZERO, Duration::from_secs(30), 100);
    // 0.2 s at 270 a second: 54 permits.
    let now = Duration::from_secs(31);
    assert!(pace.admit(now, 46).is_ok());
    pace.rebuild(now, 54);
    assert!(pace.admit(now, 54).is_ok());
    let next = pace.admit(now, 27).unwrap_err();
    let wait = next - now;
    assert!(
        wait > Duration::from_millis(99) && wait < Duration::from_millis(104),
        "{wait:?}"
    );
}

/// Sends by turns, a new pace each: as daemons that take over from each other. `each`: for so long;
/// the next begins `gap` later; `graceful`: each leaves its pace to the next.
fn takeovers(cost: usize, each: Duration, gap: Duration, graceful: bool) -> Vec<Duration> {
    let (mut sent, mut now, mut handed) = (Vec::new(), Duration::ZERO, None);
    for turn in 0..40 {
        let mut pace = Pace::new(LIMIT, now);
        if turn > 0 {
            pace.take_over(now, handed);
        }
        sent.extend(send(&mut pace, now, now + each, cost));
        now += each;
        handed = pace.hand_over(now).map(|handed| (handed, gap));
        handed = handed.filter(|_| graceful);
        now += gap;
    }
    sent
}

#[test]
fn daemons_that_take_over_from_each_other_keep_to_the_limit_together() {
    for cost in [1, 7, 50, 100] {
        for each in [300, 1_000, 9_000].map(Duration::from_millis) {
            for gap in [0, 20, 600, 1_500].map(Duration::from_millis) {
                for graceful in [true, false] {
                    let sent = takeovers(cost, each, gap, graceful);
                    let most = most_in_a_second(&sent, cost);
                    let what = format!("cost {cost}, {each:?} each, {gap:?} apart, {graceful}");
                    assert!(most <= 270 + 100, "{what}: {most}");
                    assert!(!sent.is_empty(), "{what}");
                }
            }
        }
    }
}

#[test]
fn a_daemon_that_takes_over_goes_on_at_the_rate_that_it_was_left() {
    let mut first = Pace::new(LIMIT, Duration::ZERO);
    let end = Duration::from_secs(30);
    send(&mut first, Duration::ZERO, end, 20);
    assert_eq!(first.rate(), Some(270.0));
    let handed = first.hand_over(end);
    let gap = Duration::from_millis(500);
    let mut next = Pace::new(LIMIT, end + gap);
    next.take_over(end + gap, handed.map(|handed| (handed, gap)));
    assert_eq!(next.rate(), Some(270.0));
    let used = send(
        &mut next,
        end + gap,
        end + gap + Duration::from_secs(10),
        20,
    )
    .len()
        * 20;
    assert!(used as f64 >= 0.98 * 2_700.0, "{used}");
    // After a silence, as after one of its own: low, and the first request at once.
    let late = end + Duration::from_secs(60);
    let mut later = Pace::new(LIMIT, late);
    let ago = Duration::from_secs(60);
    later.take_over(late, handed.map(|handed| (handed, ago)));
    assert_eq!(later.rate(), Some(27.0));
    assert_eq!(later.admit(late, 100), Ok(()));
    // Nothing was left: not before the last second of the other is over.
    let mut unknown = Pace::new(LIMIT, late);
    unknown.take_over(late, None);
    let next = unknown.admit(late, 100).unwrap_err();
    assert_eq!(next, late + WINDOW);
    assert_eq!(unknown.admit(next, 100), Ok(()));
}
