//! The pace against a server that enforces a rate with a token bucket.

use std::time::Duration;

use fastrand::Rng;

use crate::world::{Batch, SECOND, Server, Station, accepted, finish, settings, wait};
use looker_feed::drain::{Exceeded, Reply};

const MINUTE: Duration = Duration::from_secs(60);

/// Takes `rate` batches a second, and as many at once after a silence.
struct Bucket {
    rate: f64,
    tokens: f64,
    at: Duration,
    tells_share: bool,
    /// Batches accepted, by second.
    accepted: Vec<usize>,
    requests: usize,
    throttled: usize,
    throttled_from: Duration,
    rng: Rng,
}

impl Bucket {
    fn new(rate: u32, seed: u64) -> Self {
        Self {
            rate: rate.into(),
            tokens: rate.into(),
            at: Duration::ZERO,
            tells_share: true,
            accepted: Vec::new(),
            requests: 0,
            throttled: 0,
            throttled_from: Duration::ZERO,
            rng: Rng::with_seed(seed),
        }
    }

    fn least_in_a_minute(&self, from: usize) -> usize {
        let windows = self.accepted[from..].windows(60);
        windows.map(|window| window.iter().sum()).min().unwrap()
    }
}

impl Server for Bucket {
    fn receive(&mut self, now: Duration, _: u8, batches: &[Batch]) -> (Duration, Reply) {
        let since = now.saturating_sub(self.at).as_secs_f64();
        self.at = now;
        self.tokens = (self.tokens + since * self.rate).min(self.rate);
        let latency = Duration::from_millis(self.rng.u64(30..120));
        let second = now.as_secs() as usize;
        if self.accepted.len() <= second {
            self.accepted.resize(second + 1, 0);
        }
        let counts = now >= self.throttled_from;
        self.requests += usize::from(counts);
        let cost = batches.len() as f64;
        if self.tokens < cost {
            self.throttled += usize::from(counts);
            let reply = Reply::Throttled {
                retry_after: Some(SECOND),
                exceeded: Some(Exceeded::Speed("account".into())),
            };
            return (latency, reply);
        }
        self.tokens -= cost;
        self.accepted[second] += batches.len();
        let last: usize = self.accepted.iter().rev().take(2).sum();
        let share = (last as f64 * 50.0 / self.rate).min(100.0) as u8;
        let percent_used = self.tells_share.then_some(share);
        (latency, Reply::Accepted { percent_used })
    }
}

#[test]
fn alone_at_the_same_limit_98_percent_of_it_is_used_without_complaints() {
    for (seed, cost) in [(1, 20), (2, 100), (3, 7), (4, 73), (5, 0)] {
        let mut rng = Rng::with_seed(seed);
        let mut stations = [Station::new(settings(16, 270), seed)];
        let costs: Vec<_> = (0..200_000)
            .map(|_| if cost == 0 { rng.usize(1..=100) } else { cost })
            .scan(0, |sum, cost| {
                *sum += cost;
                (*sum < 270 * 400).then_some(cost)
            })
            .collect();
        stations[0].deliver(Duration::ZERO, costs);
        let mut server = Bucket::new(270, seed);
        wait(&mut stations, &mut server, Duration::ZERO, 5 * MINUTE);
        let least = server.least_in_a_minute(15);
        assert!(
            least as f64 >= 0.98 * 270.0 * 60.0,
            "cost {cost}: {least} in a minute"
        );
        let share = server.throttled as f64 / server.requests as f64;
        assert!(share < 0.001, "cost {cost}: {share}");
    }
}

#[test]
fn a_lower_limit_is_found_and_kept_without_being_told() {
    for (seed, tells_share) in [(1, true), (2, false)] {
        let mut stations = [Station::new(settings(8, 270), seed)];
        stations[0].deliver(Duration::ZERO, [20; 270 * 60]);
        let mut server = Bucket::new(120, seed);
        server.tells_share = tells_share;
        server.throttled_from = MINUTE;
        wait(&mut stations, &mut server, Duration::ZERO, 20 * MINUTE);
        let used: usize = server.accepted[60..].iter().sum();
        let share = used as f64 / (120.0 * 19.0 * 60.0);
        let throttled = server.throttled as f64 / server.requests as f64;
        println!("tells {tells_share}: used {share:.3}, throttled {throttled:.4}");
        assert!(share > 0.85, "{share}");
        assert!(throttled < 0.02, "{throttled}");
    }
}

#[test]
fn two_senders_share_a_limit_without_a_storm() {
    for (seed, cost, tells_share) in [
        (1, 20, true),
        (2, 20, false),
        (3, 100, true),
        (4, 100, false),
    ] {
        let mut stations = [
            Station::new(settings(8, 270), seed),
            Station::new(settings(8, 270), seed + 100),
        ];
        let entries = 270 * 3_600 / cost;
        stations[0].deliver(Duration::ZERO, vec![cost; entries]);
        let mut server = Bucket::new(270, seed);
        server.tells_share = tells_share;
        // The second comes when the first is at full speed.
        let now = wait(&mut stations, &mut server, Duration::ZERO, MINUTE);
        stations[1].deliver(now, vec![cost; entries]);
        server.throttled_from = now;
        wait(&mut stations, &mut server, now, 31 * MINUTE);

        let used: usize = server.accepted[60..].iter().sum();
        let share = used as f64 / (270.0 * 30.0 * 60.0);
        let throttled = server.throttled as f64 / server.requests as f64;
        let second = stations[1]
            .sent
            .iter()
            .filter(|sent| sent.reply_is_accepted());
        let second: usize = second.map(|sent| sent.batches.len()).sum();
        let part = second as f64 / used as f64;
        println!(
            "cost {cost}, tells {tells_share}: used {share:.3}, throttled {throttled:.4}, second {part:.3}"
        );
        assert!(share > 0.8, "used {share}");
        assert!(throttled < 0.05, "throttled {throttled}");
        assert!((0.25..0.75).contains(&part), "the second got {part}");
    }
}

#[test]
fn a_short_delivery_at_a_low_rate_still_arrives() {
    let mut stations = [Station::new(settings(1, 1), 1)];
    stations[0].deliver(Duration::ZERO, [100, 3, 100]);
    let mut server = |_, _, _: &[Batch]| (SECOND, accepted());
    let end = 1_000 * SECOND;
    let done = finish(&mut stations, &mut server, Duration::ZERO, end);
    // The first request does not wait for its permits; the other two need 103.
    assert!(done > 103 * SECOND && done < 112 * SECOND, "{done:?}");
    stations[0].check_all_settled();
}
