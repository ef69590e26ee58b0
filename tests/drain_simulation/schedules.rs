//! Thousands of seeded schedules of replies. The world checks the rules at every step; here it is
//! checked that everything arrives in the end.

use std::time::Duration;

use fastrand::Rng;

use crate::world::{
    Batch, SECOND, Server, Station, accepted, at, finish, rejected, settings, unavailable, wait,
};
use looker_feed::drain::{Exceeded, Reply, SendState};

/// A server that changes its mood.
struct Moody {
    rng: Rng,
    mood: Mood,
    until: Duration,
    /// From here on it takes whatever is good.
    calm_from: Duration,
    bad_per_256: u8,
}

#[derive(Clone, Copy, Debug)]
enum Mood {
    Good,
    Flaky,
    Throttling,
    Away,
    Refusing,
    Lost,
    Mixed,
}

const MOODS: [Mood; 7] = [
    Mood::Good,
    Mood::Flaky,
    Mood::Throttling,
    Mood::Away,
    Mood::Refusing,
    Mood::Lost,
    Mood::Mixed,
];

impl Moody {
    /// The same batch is bad each time.
    fn is_bad(&self, batch: &Batch) -> bool {
        let mut rng = Rng::with_seed(batch.delivery << 32 | batch.entry << 16 | batch.slice as u64);
        rng.u8(..) < self.bad_per_256
    }

    fn throttled(&mut self) -> Reply {
        let retry_after = self.rng.bool().then(|| SECOND * self.rng.u32(0..5));
        let exceeded = match self.rng.u8(0..3) {
            0 => None,
            1 => Some(Exceeded::Acceleration),
            _ => Some(Exceeded::Speed("account".into())),
        };
        Reply::Throttled {
            retry_after,
            exceeded,
        }
    }
}

impl Server for Moody {
    fn receive(&mut self, now: Duration, _: u8, batches: &[Batch]) -> (Duration, Reply) {
        if now >= self.until {
            self.mood = MOODS[self.rng.usize(0..MOODS.len())];
            self.until = now + Duration::from_millis(self.rng.u64(0..60_000));
        }
        let mood = if now >= self.calm_from {
            Mood::Good
        } else {
            self.mood
        };
        let latency = Duration::from_millis(self.rng.u64(1..500));
        let good = if batches.iter().any(|batch| self.is_bad(batch)) {
            rejected()
        } else {
            Reply::Accepted {
                percent_used: self.rng.bool().then(|| self.rng.u8(0..=100)),
            }
        };
        let words = String::new;
        let refused = |status| Reply::Unauthorized {
            status,
            words: words(),
        };
        let lost = |status| Reply::Unexpected {
            status,
            words: words(),
        };
        let reply = match (mood, self.rng.u8(0..8)) {
            (Mood::Good, _) => good,
            (Mood::Flaky, 0..3) => unavailable(),
            (Mood::Flaky, _) => good,
            (Mood::Throttling, 0..6) => self.throttled(),
            (Mood::Throttling, _) => good,
            (Mood::Away, _) => unavailable(),
            (Mood::Refusing, _) => refused(401),
            (Mood::Lost, _) => lost(404),
            (Mood::Mixed, 0) => refused(403),
            (Mood::Mixed, 1) => lost(301),
            (Mood::Mixed, 2) => self.throttled(),
            (Mood::Mixed, 3) => unavailable(),
            (Mood::Mixed, 4) => Reply::TooLarge { words: words() },
            (Mood::Mixed, _) => good,
        };
        (latency, reply)
    }
}

fn check(seed: u64) {
    let mut rng = Rng::with_seed(seed);
    let mut settings = settings(rng.usize(1..10), [0, 50, 270, 1000][rng.usize(0..4)]);
    if rng.u8(..) < 50 {
        settings.max_age = Some(SECOND * rng.u32(1..2_000));
    }
    settings.circuit.pause_after_rejected = [0, 5, 100][rng.usize(0..3)];
    let mut server = Moody {
        rng: rng.fork(),
        mood: Mood::Good,
        until: Duration::ZERO,
        calm_from: SECOND * rng.u32(0..3_600),
        bad_per_256: [0, 0, 3, 40, 255][rng.usize(0..5)],
    };
    let mut stations = [Station::new(settings, seed)];
    let mut arrivals: Vec<_> = (0..rng.usize(1..5))
        .map(|_| SECOND * rng.u32(0..600))
        .collect();
    arrivals.sort_unstable();
    let mut now = Duration::ZERO;
    for arrival in arrivals {
        now = wait(&mut stations, &mut server, now, arrival).max(arrival);
        let entries = rng.usize(1..12);
        let slices: Vec<_> = (0..entries).map(|_| rng.usize(1..30)).collect();
        stations[0].deliver(now, slices);
        if rng.u8(..) < 60 {
            stations[0].account += 1;
        }
    }
    let end = now + 24 * 3_600 * SECOND;
    while now < end && !stations[0].is_done() {
        now = finish(&mut stations, &mut server, now, now + 300 * SECOND);
        // An operator looks at it now and then, and finds that what was rejected is to go on.
        let standing = stations[0].lane.snapshot(at(now)).state;
        if matches!(standing, SendState::Paused { why, .. } if why.contains("in a row")) {
            stations[0].lane.resume(at(now));
        }
    }
    assert!(now < end, "it never ends");
    stations[0].check_all_settled();
}

#[test]
fn whatever_the_server_replies_every_batch_ends_where_it_belongs() {
    for seed in 0..2_000 {
        let outcome = std::panic::catch_unwind(|| check(seed));
        assert!(outcome.is_ok(), "seed {seed}");
    }
}

#[test]
fn what_is_too_old_goes_to_the_dead_letters_and_the_rest_goes_on() {
    let mut settings = settings(4, 270);
    settings.max_age = Some(3_600 * SECOND);
    let mut stations = [Station::new(settings, 3)];
    stations[0].deliver(Duration::ZERO, [10; 200]);
    let mut server = |now: Duration, _, _: &[Batch]| {
        let reply = if now < 2 * 3_600 * SECOND {
            unavailable()
        } else {
            accepted()
        };
        (SECOND / 10, reply)
    };
    let half = wait(&mut stations, &mut server, Duration::ZERO, 3_500 * SECOND);
    assert!(stations[0].dead.is_empty());
    stations[0].deliver(half, [10; 20]);
    let end = 3 * 3_600 * SECOND;
    finish(&mut stations, &mut server, half, end);
    stations[0].check_all_settled();
    // Both deliveries: the second became too old at 7,100 s, still within the outage.
    assert_eq!(stations[0].dead.len(), 2_200);
    let reason = stations[0].dead.values().next().unwrap();
    assert!(
        reason.contains("longest age") && reason.contains("503"),
        "{reason}"
    );
    stations[0].deliver(end, [10; 20]);
    finish(&mut stations, &mut server, end, end * 2);
    assert_eq!(stations[0].dead.len(), 2_200);
}
