//! What was, for the charts: three bounded rings of samples, each coarser and longer than the one
//! before, made of the counters of the overview.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::view::{History, Overview, Sample};
use crate::clock::UnixMillis;

/// How far the finest samples lie apart.
pub(super) const EVERY: Duration = Duration::from_secs(10);

/// Which part of the history.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
pub(super) enum Range {
    /// Six hours, of which a chart shows one.
    #[default]
    #[serde(rename = "1h")]
    Hour,
    /// A day.
    #[serde(rename = "24h")]
    Day,
    /// A week.
    #[serde(rename = "7d")]
    Week,
}

/// Milliseconds between samples, and how many are kept: some 3,500 in all, 300 kB.
const RINGS: [(u64, usize); 3] = [(10_000, 2_160), (120_000, 720), (900_000, 672)];

/// What was, and the counters that the next sample is compared with.
#[derive(Debug, Default)]
pub(super) struct Recorder {
    rings: [Ring; 3],
    last: Option<Counters>,
}

/// The rings as they are kept over a restart.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Kept {
    version: u32,
    rings: [Ring; 3],
}

const VERSION: u32 = 1;

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Ring {
    samples: VecDeque<Sample>,
    /// The sample that is being made, of so many finer ones.
    making: Option<(Sample, u32)>,
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
                let sample = sample(overview, last, &now, millis);
                for (ring, (every, kept)) in self.rings.iter_mut().zip(RINGS) {
                    ring.take(sample, every, kept);
                }
            }
        }
        self.last = Some(now);
    }

    /// The samples after `since`.
    pub fn after(&self, range: Range, since: UnixMillis) -> History {
        let at = match range {
            Range::Hour => 0,
            Range::Day => 1,
            Range::Week => 2,
        };
        let ring = &self.rings[at];
        // The one that is being made is shown too: the newest is what a person looks for.
        let making = ring.making.map(|(sample, _)| sample);
        let samples = ring.samples.iter().copied().chain(making);
        History {
            every_seconds: RINGS[at].0 / 1000,
            samples: samples.filter(|sample| sample.at > since).collect(),
        }
    }

    /// What is to be kept over a restart.
    pub fn kept(&self) -> Kept {
        Kept {
            version: VERSION,
            rings: self.rings.clone(),
        }
    }

    /// Goes on with what was kept, if it is of this version and was before `now`.
    pub fn go_on(&mut self, kept: Kept, now: UnixMillis) {
        if kept.version != VERSION {
            return;
        }
        self.rings = kept.rings;
        for (ring, (every, most)) in self.rings.iter_mut().zip(RINGS) {
            let oldest = now.0.saturating_sub(every * most as u64);
            let within = |at: UnixMillis| at.0 >= oldest && at <= now;
            ring.samples.retain(|sample| within(sample.at));
            ring.making = ring.making.filter(|(sample, _)| within(sample.at));
            while ring.samples.len() > most {
                ring.samples.pop_front();
            }
        }
    }
}

impl Ring {
    fn take(&mut self, sample: Sample, every: u64, kept: usize) {
        let bucket = |sample: &Sample| sample.at.0 / every;
        let made = match &mut self.making {
            Some((making, of)) if bucket(making) == bucket(&sample) && every > RINGS[0].0 => {
                merge(making, &sample, *of);
                *of += 1;
                return;
            }
            making => making.replace((sample, 1)),
        };
        if let Some((made, _)) = made {
            if self.samples.len() + 1 >= kept {
                self.samples.pop_front();
            }
            self.samples.push_back(made);
        }
    }
}

/// Adds a finer sample to one that is made of `of` others.
fn merge(into: &mut Sample, more: &Sample, of: u32) {
    let mean = |before: f64, now: f64| (before * f64::from(of) + now) / f64::from(of + 1);
    into.at = more.at;
    into.accepted_rate = mean(into.accepted_rate, more.accepted_rate);
    into.rows_in_rate = mean(into.rows_in_rate, more.rows_in_rate);
    into.backlog_batches = into.backlog_batches.max(more.backlog_batches);
    into.throttled += more.throttled;
    into.latency_mean_ms = mean(into.latency_mean_ms, more.latency_mean_ms);
    into.latency_p99_ms = into.latency_p99_ms.max(more.latency_p99_ms);
    into.limit = into.limit.max(more.limit);
}

fn sample(overview: &Overview, last: &Counters, now: &Counters, millis: u64) -> Sample {
    let seconds = millis as f64 / 1000.0;
    let slowest = |of: fn(&super::view::Destination) -> f64| {
        overview.destinations.iter().map(of).fold(0.0, f64::max)
    };
    let (mut accepted, mut throttled, mut limit, mut unlimited) = (0, 0, 0.0, false);
    for destination in &overview.destinations {
        // A destination that is new has counted from zero.
        let before = last.destinations.get(&destination.id);
        let before = before.copied().unwrap_or_default();
        let counters = now.destinations.get(&destination.id);
        let counters = counters.copied().unwrap_or_default();
        let new = grown(before.0, counters.0);
        accepted += new;
        throttled += grown(before.1, counters.1);
        if new > 0 || destination.batches > 0 {
            limit += destination.limit;
            unlimited |= destination.limit <= 0.0;
        }
    }
    Sample {
        at: overview.now,
        accepted_rate: accepted as f64 / seconds,
        rows_in_rate: grown(last.rows_in, now.rows_in) as f64 / seconds,
        backlog_batches: overview.destinations.iter().map(|d| d.batches).sum(),
        throttled,
        latency_mean_ms: slowest(|d| d.latency_mean_ms),
        latency_p99_ms: slowest(|d| d.latency_p99_ms),
        limit: if unlimited { 0.0 } else { limit },
    }
}

impl Counters {
    fn of(overview: &Overview) -> Self {
        let destinations = overview.destinations.iter().map(|destination| {
            let throttled = destination.replies.get("throttled").copied();
            let counts = (destination.batches_accepted, throttled.unwrap_or_default());
            (destination.id.clone(), counts)
        });
        Self {
            at: overview.now,
            rows_in: overview.totals.rows_in,
            destinations: destinations.collect(),
        }
    }
}

/// A counter that went back has started over.
fn grown(before: u64, now: u64) -> u64 {
    now.checked_sub(before).unwrap_or(now)
}
