//! What a circuit makes of replies and of operators.

use super::*;

const SECOND: Duration = Duration::from_secs(1);

fn circuit() -> Circuit {
    let settings = CircuitSettings {
        backoff: Backoff {
            base: SECOND,
            cap: 60 * SECOND,
        },
        retry_after_max: 120 * SECOND,
        down_after: 3,
        probe: Backoff {
            base: SECOND,
            cap: 60 * SECOND,
        },
        paused_probe: 300 * SECOND,
        pause_after_rejected: 100,
    };
    Circuit::new(settings, Rng::with_seed(1))
}

fn at(tick: Duration) -> Moment {
    Moment {
        tick,
        wall: UnixMillis(1_000_000 + tick.as_millis() as u64),
    }
}

fn fails() -> Signal {
    asks(None)
}

fn asks(seconds: Option<u32>) -> Signal {
    Signal::Fails {
        why: "503".into(),
        retry_after: seconds.map(|seconds| SECOND * seconds),
    }
}

fn works() -> Signal {
    Signal::Works { percent_used: None }
}

fn refuses() -> Signal {
    Signal::Refuses {
        status: 401,
        why: "401".into(),
    }
}

fn rejects(alone: bool) -> Signal {
    Signal::Rejects {
        alone,
        why: "400".into(),
    }
}

fn throttles(seconds: u32) -> Signal {
    Signal::Throttles {
        retry_after: Some(seconds * SECOND),
        exceeded: None,
    }
}

/// Waits as long as the circuit says, then sends one request that gets this reply.
fn one(circuit: &mut Circuit, now: &mut Duration, signal: Signal) -> Change {
    if let Permit::At(tick) = circuit.permit(*now) {
        *now = tick;
    }
    assert!(matches!(circuit.permit(*now), Permit::Go | Permit::Probe));
    let pass = circuit.sent();
    circuit.heard(at(*now), pass, signal)
}

/// When it may be asked again.
fn at_which(circuit: &mut Circuit, now: Duration) -> Duration {
    match circuit.permit(now) {
        Permit::At(tick) => tick,
        other => panic!("{other:?}"),
    }
}

#[test]
fn one_cause_counts_once_however_many_requests_it_hits() {
    let mut circuit = circuit();
    let passes: Vec<_> = (0..8).map(|_| circuit.sent()).collect();
    for pass in passes {
        circuit.heard(at(SECOND), pass, fails());
    }
    assert!(matches!(circuit.state(), State::Waiting { .. }));
    assert_eq!(circuit.failures, 1);
}

#[test]
fn failures_in_a_row_open_the_circuit_and_one_good_probe_closes_it() {
    let mut circuit = circuit();
    let mut now = Duration::ZERO;
    assert_eq!(one(&mut circuit, &mut now, fails()), Change::None);
    assert_eq!(one(&mut circuit, &mut now, fails()), Change::None);
    assert_eq!(one(&mut circuit, &mut now, fails()), Change::WentDown);
    let down_since = now;
    let mut before = now;
    let mut intervals = Vec::new();
    for _ in 0..10 {
        assert_eq!(one(&mut circuit, &mut now, fails()), Change::StillDown);
        intervals.push(now - before);
        before = now;
    }
    assert!(intervals[0] <= SECOND);
    for (probe, &interval) in intervals.iter().enumerate() {
        let most = (SECOND * (1 << probe)).min(60 * SECOND);
        assert!(interval >= most / 2 && interval <= most, "{intervals:?}");
    }

    let tick = at_which(&mut circuit, now);
    assert_eq!(circuit.permit(tick), Permit::Probe);
    let probe = circuit.sent();
    // One probe at a time.
    assert_eq!(circuit.permit(tick + 900 * SECOND), Permit::Shut);
    let change = circuit.heard(at(tick), probe, works());
    assert_eq!(change, Change::Recovered(tick - down_since));
    assert_eq!(circuit.permit(tick), Permit::Go);
}

#[test]
fn a_good_reply_between_failures_keeps_the_circuit_closed() {
    let mut circuit = circuit();
    let mut now = Duration::ZERO;
    for _ in 0..20 {
        one(&mut circuit, &mut now, fails());
        one(&mut circuit, &mut now, fails());
        assert_eq!(one(&mut circuit, &mut now, works()), Change::None);
    }
    assert_eq!(circuit.permit(now), Permit::Go);
}

#[test]
fn a_good_reply_from_before_the_outage_does_not_close_the_circuit() {
    let mut circuit = circuit();
    let early = circuit.sent();
    let mut now = Duration::ZERO;
    for _ in 0..3 {
        one(&mut circuit, &mut now, fails());
    }
    assert_eq!(circuit.heard(at(now), early, works()), Change::None);
    assert!(circuit.shut());
}

#[test]
fn a_good_reply_from_before_a_wait_ends_the_streak() {
    let mut circuit = circuit();
    let mut now = Duration::ZERO;
    for _ in 0..20 {
        let early = circuit.sent();
        one(&mut circuit, &mut now, fails());
        assert!(!circuit.troubled());
        assert_eq!(circuit.heard(at(now), early, works()), Change::None);
        assert!(matches!(circuit.state(), State::Waiting { .. }));
        circuit.retry_now(now);
    }
}

#[test]
fn retry_after_is_waited_for_and_a_later_one_lengthens_the_wait() {
    let mut circuit = circuit();
    let (first, second) = (circuit.sent(), circuit.sent());
    let change = circuit.heard(at(SECOND), first, throttles(5));
    assert_eq!(change, Change::Throttled);
    assert!(matches!(circuit.permit(5 * SECOND), Permit::At(tick) if tick >= 6 * SECOND));
    let change = circuit.heard(at(SECOND), second, throttles(9));
    assert_eq!(change, Change::None);
    assert!(matches!(circuit.permit(9 * SECOND), Permit::At(tick) if tick >= 10 * SECOND));
    assert_eq!(circuit.permit(11 * SECOND), Permit::Go);
    assert_eq!(circuit.throttles, 1);
}

#[test]
fn refused_credentials_pause_it_once_and_a_good_probe_resumes() {
    let mut circuit = circuit();
    let (first, second) = (circuit.sent(), circuit.sent());
    let change = circuit.heard(at(SECOND), first, refuses());
    assert_eq!(change, Change::WentPaused);
    assert_eq!(circuit.heard(at(SECOND), second, refuses()), Change::None);
    let mut now = SECOND;
    for signal in [refuses(), fails(), fails(), fails(), fails(), refuses()] {
        let before = now;
        assert_eq!(one(&mut circuit, &mut now, signal), Change::None);
        assert!(now - before >= 270 * SECOND, "a slow rate");
        assert!(matches!(circuit.state(), State::Paused { .. }));
    }
    let change = one(&mut circuit, &mut now, works());
    assert_eq!(change, Change::Recovered(now - SECOND));
    assert_eq!(circuit.state(), &State::Flowing);
}

#[test]
fn a_throttled_probe_shows_that_the_server_is_back() {
    let mut circuit = circuit();
    let mut now = Duration::ZERO;
    for _ in 0..3 {
        one(&mut circuit, &mut now, fails());
    }
    assert_eq!(one(&mut circuit, &mut now, throttles(2)), Change::Throttled);
    assert!(matches!(circuit.state(), State::Waiting { .. }));
    one(&mut circuit, &mut now, works());
    assert_eq!(circuit.permit(now), Permit::Go);
}

#[test]
fn an_operator_pauses_resumes_and_retries() {
    let mut circuit = circuit();
    circuit.pause(at(SECOND));
    assert_eq!(circuit.permit(100 * SECOND), Permit::Shut);
    circuit.retry_now(100 * SECOND);
    assert_eq!(circuit.permit(100 * SECOND), Permit::Shut);
    circuit.resume(100 * SECOND);
    assert_eq!(circuit.permit(100 * SECOND), Permit::Go);

    let pass = circuit.sent();
    circuit.heard(at(SECOND), pass, refuses());
    assert!(matches!(circuit.permit(2 * SECOND), Permit::At(_)));
    circuit.retry_now(2 * SECOND);
    assert_eq!(circuit.permit(2 * SECOND), Permit::Probe);
    let probe = circuit.sent();
    circuit.abandoned(probe);
    assert_eq!(circuit.permit(2 * SECOND), Permit::Probe);
}

#[test]
fn a_batch_that_is_accepted_ends_the_doubt_and_nothing_else_does() {
    let mut circuit = circuit();
    let mut now = Duration::ZERO;
    for round in 0..3 {
        for _ in 0..99 {
            assert_eq!(one(&mut circuit, &mut now, rejects(true)), Change::None);
            assert_eq!(one(&mut circuit, &mut now, rejects(false)), Change::None);
        }
        assert_eq!(circuit.permit(now), Permit::Go, "round {round}");
        one(&mut circuit, &mut now, works());
    }
    let early = circuit.sent();
    for _ in 0..99 {
        one(&mut circuit, &mut now, rejects(true));
    }
    assert!(!circuit.doubted());
    let change = one(&mut circuit, &mut now, rejects(true));
    assert_eq!(change, Change::WentDoubted(100));
    let since = circuit.shut_since();
    let rejected = [rejects(true), rejects(false)];
    let others = [fails(), fails(), fails(), throttles(2), throttles(400)];
    for signal in rejected.into_iter().chain(others) {
        assert_eq!(one(&mut circuit, &mut now, signal), Change::None);
        assert!(circuit.doubted() && circuit.shut_since() == since);
    }
    // Asked for 400 seconds, and 120 are obeyed; the slow interval is longer.
    let tick = at_which(&mut circuit, now);
    assert!(tick - now >= 270 * SECOND && tick - now <= 330 * SECOND);
    let change = circuit.heard(at(now), early, works());
    assert!(matches!(change, Change::Recovered(_)));
    assert!(!circuit.doubted());
    assert_eq!(circuit.permit(now), Permit::Go);
}

#[test]
fn what_is_doubted_goes_on_when_an_operator_resumes_and_is_probed_when_one_retries_or_cancels() {
    let mut circuit = circuit();
    let mut now = Duration::ZERO;
    let mut doubt = |circuit: &mut Circuit| {
        for _ in 0..100 {
            one(circuit, &mut now, rejects(true));
        }
        assert!(circuit.doubted() && circuit.shut());
        now
    };
    let now = doubt(&mut circuit);
    circuit.cancelled(now);
    assert_eq!(circuit.permit(now), Permit::Probe);
    let pass = circuit.sent();
    assert_eq!(circuit.heard(at(now), pass, rejects(true)), Change::None);
    assert!(matches!(circuit.permit(now), Permit::At(_)));
    circuit.retry_now(now);
    assert_eq!(circuit.permit(now), Permit::Probe);
    assert!(circuit.resume(now));
    assert_eq!(circuit.permit(now), Permit::Go);
    doubt(&mut circuit);
}

#[test]
fn refused_credentials_and_doubt_take_turns_and_a_person_is_told_of_each() {
    let mut circuit = circuit();
    let mut now = Duration::ZERO;
    for _ in 0..99 {
        one(&mut circuit, &mut now, rejects(true));
    }
    let change = one(&mut circuit, &mut now, rejects(true));
    assert_eq!(change, Change::WentDoubted(100));
    assert_eq!(one(&mut circuit, &mut now, refuses()), Change::WentPaused);
    assert!(circuit.refused());
    let change = one(&mut circuit, &mut now, rejects(false));
    assert_eq!(change, Change::WentDoubted(100));
    assert!(!circuit.refused());
    let change = one(&mut circuit, &mut now, works());
    assert!(matches!(change, Change::Recovered(_)));
}

#[test]
fn a_failure_that_says_how_long_to_wait_is_obeyed_within_the_bound() {
    // At most 120 seconds and, so that senders do not come back together, up to a tenth more.
    for (asked, least, most) in [
        (7, 7_000, 7_700),
        (119, 119_000, 120_000),
        (900, 120_000, 120_000),
    ] {
        let mut circuit = circuit();
        let mut now = Duration::ZERO;
        for failure in 1..=5 {
            // The wait of the backoff, or before the next probe, alone.
            let own = 1_000
                * if failure < 3 {
                    failure
                } else {
                    1 << (failure - 3)
                };
            one(&mut circuit, &mut now, asks(Some(asked)));
            let tick = at_which(&mut circuit, now);
            let wait = (tick - now).as_millis();
            assert!(wait >= least && wait <= most.max(own), "{asked}: {wait} ms");
        }
        assert!(circuit.shut());
    }
    // One that comes late lengthens the wait.
    let mut circuit = circuit();
    let (first, second) = (circuit.sent(), circuit.sent());
    circuit.heard(at(SECOND), first, fails());
    circuit.heard(at(SECOND), second, asks(Some(50)));
    assert!(matches!(circuit.permit(2 * SECOND), Permit::At(tick) if tick >= 51 * SECOND));
    // A paused one is not probed before either.
    let mut circuit = self::circuit();
    let pass = circuit.sent();
    circuit.heard(at(SECOND), pass, refuses());
    circuit.retry_now(SECOND);
    let pass = circuit.sent();
    circuit.heard(at(SECOND), pass, asks(Some(10)));
    assert!(matches!(circuit.permit(SECOND), Permit::At(tick) if tick >= 271 * SECOND));
}
