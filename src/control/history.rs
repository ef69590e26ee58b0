//! The last hours in memory: a bounded ring of samples, made of the counters of the overview.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use super::view::{History, Overview, Sample};
use crate::clock::UnixMillis;

/// How far samples lie apart.
pub(super) const EVERY: Duration = Duration::from_secs(10);

/// Six hours of samples, some 120 kB.
const KEPT: usize = 6 * 360;

/// Samples that the present rate of a destination is measured over: half a minute.
const RATE_OVER: usize = 3;

/// What was, and the counters that the next sample is compared with.
#[derive(Debug, Default)]
pub(super) struct Recorder {
    samples: VecDeque<Sample>,
    last: Option<Counters>,
    speeds: BTreeMap<String, VecDeque<(u64, u64)>>,
}

/// Counters since the start of the daemon, at one moment.
#[derive(Debug)]
struct Counters {
    at: UnixMillis,
    rows_in: u64,
    /// By destination: batches accepted, replies "too fast".
    destinations: BTreeMap<String, (u64, u64)>,
}

impl Recorder {
    /// Takes one sample. The first one only sets the counters.
    pub fn take(&mut self, overview: &Overview) {
        let now = Counters::of(overview);
        if let Some(last) = &self.last {
            let millis = now.at.0.saturating_sub(last.at.0);
            // A clock that was set back, or two samples at once: nothing can be said.
            if millis > 0 {
                self.record(overview, last_delta(last, &now), millis);
            }
        }
        self.last = Some(now);
    }

    fn record(&mut self, overview: &Overview, delta: Delta, millis: u64) {
        let seconds = millis as f64 / 1000.0;
        let slowest = |of: fn(&super::view::Destination) -> f64| {
            overview.destinations.iter().map(of).fold(0.0, f64::max)
        };
        if self.samples.len() == KEPT {
            self.samples.pop_front();
        }
        self.samples.push_back(Sample {
            at: overview.now,
            accepted_rate: delta.accepted.values().sum::<u64>() as f64 / seconds,
            rows_in_rate: delta.rows_in as f64 / seconds,
            backlog_batches: overview.destinations.iter().map(|d| d.batches).sum(),
            throttled: delta.throttled,
            latency_mean_ms: slowest(|d| d.latency_mean_ms),
            latency_p99_ms: slowest(|d| d.latency_p99_ms),
        });
        self.speeds.retain(|id, _| delta.accepted.contains_key(id));
        for (id, accepted) in delta.accepted {
            let speeds = self.speeds.entry(id).or_default();
            if speeds.len() == RATE_OVER {
                speeds.pop_front();
            }
            speeds.push_back((accepted, millis));
        }
    }

    /// Fills `accepted_rate` of the destinations: over the last samples and what came since.
    pub fn fill(&self, overview: &mut Overview) {
        let Some(last) = &self.last else { return };
        let since = overview.now.0.saturating_sub(last.at.0);
        for destination in &mut overview.destinations {
            let before = last.destinations.get(&destination.id);
            let before = before.map_or(0, |counters| counters.0);
            let fresh = (grown(before, destination.batches_accepted), since);
            let (batches, millis) = self
                .speeds
                .get(&destination.id)
                .into_iter()
                .flatten()
                .fold(fresh, |sum, one| (sum.0 + one.0, sum.1 + one.1));
            if millis > 0 {
                destination.accepted_rate = batches as f64 * 1000.0 / millis as f64;
            }
        }
    }

    /// The samples after `since`.
    pub fn after(&self, since: UnixMillis) -> History {
        History {
            every_seconds: EVERY.as_secs(),
            samples: self
                .samples
                .iter()
                .filter(|sample| sample.at > since)
                .copied()
                .collect(),
        }
    }
}

impl Counters {
    fn of(overview: &Overview) -> Self {
        let destinations = overview.destinations.iter().map(|destination| {
            let throttled = destination.replies.get("throttled").copied();
            (
                destination.id.clone(),
                (destination.batches_accepted, throttled.unwrap_or_default()),
            )
        });
        Self {
            at: overview.now,
            rows_in: overview.totals.rows_in,
            destinations: destinations.collect(),
        }
    }
}

struct Delta {
    rows_in: u64,
    throttled: u64,
    accepted: BTreeMap<String, u64>,
}

fn last_delta(last: &Counters, now: &Counters) -> Delta {
    let mut delta = Delta {
        rows_in: grown(last.rows_in, now.rows_in),
        throttled: 0,
        accepted: BTreeMap::new(),
    };
    for (id, (accepted, throttled)) in &now.destinations {
        // A destination that is new has counted from zero.
        let before = last.destinations.get(id).copied().unwrap_or_default();
        delta.throttled += grown(before.1, *throttled);
        delta
            .accepted
            .insert(id.clone(), grown(before.0, *accepted));
    }
    delta
}

/// A counter that went back has begun anew.
fn grown(before: u64, now: u64) -> u64 {
    now.checked_sub(before).unwrap_or(now)
}
