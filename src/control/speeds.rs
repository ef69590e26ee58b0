//! The present speed of each destination, from counters that are looked at each second. Pure.

use std::collections::{BTreeMap, VecDeque};

use super::outlook::Outlook;
use super::view::{Destination, Overview};
use crate::clock::UnixMillis;

/// Looks that are kept: a speed is measured over five seconds.
const KEPT: usize = 5;

/// What was seen of the destinations in the last seconds, oldest first.
#[derive(Debug, Default)]
pub struct Speeds {
    looks: VecDeque<Look>,
}

#[derive(Debug)]
struct Look {
    at: UnixMillis,
    destinations: BTreeMap<String, Seen>,
}

#[derive(Clone, Copy, Debug)]
struct Seen {
    accepted: u64,
    sent: u64,
    rate: f64,
    /// Something waited.
    busy: bool,
}

impl Speeds {
    /// Remembers a look. After a clock that was set back, it starts over.
    pub fn take(&mut self, at: UnixMillis, destinations: &[Destination]) {
        if self.looks.back().is_some_and(|last| last.at >= at) {
            self.looks.clear();
        }
        if self.looks.len() == KEPT {
            self.looks.pop_front();
        }
        self.looks.push_back(Look {
            at,
            destinations: destinations
                .iter()
                .map(|one| (one.id.clone(), Seen::of(one)))
                .collect(),
        });
    }

    /// Fills `accepted_rate` of the destinations.
    pub fn fill(&self, overview: &mut Overview) {
        for destination in &mut overview.destinations {
            destination.accepted_rate = self.speed(destination, overview.now);
        }
    }

    fn speed(&self, destination: &Destination, now: UnixMillis) -> f64 {
        let Some(first) = self.looks.front().filter(|first| first.at < now) else {
            return 0.0;
        };
        // A destination that is new has counted from zero, and a counter that went back starts over.
        let before = first.destinations.get(&destination.id);
        let before = before.map_or(0, |seen| seen.accepted);
        let counter = destination.batches_accepted;
        let accepted = counter.checked_sub(before).unwrap_or(counter);
        let speed = accepted as f64 * 1000.0 / (now.0 - first.at.0) as f64;
        // Replies land in lumps; over a few seconds that can look like more than the limit.
        match destination.limit {
            limit if limit > 0.0 => speed.min(limit),
            _ => speed,
        }
    }

    /// What is known of the speed that `destination`, whose `accepted_rate` is filled, will have.
    pub fn outlook(&self, destination: &Destination, now: UnixMillis) -> Outlook {
        let seen: Option<Vec<Seen>> = self
            .looks
            .iter()
            .map(|look| look.destinations.get(&destination.id).copied())
            .collect();
        // Only a window in which something waited all the time tells whether the pace was used.
        let busy = seen.filter(|seen| seen.len() == KEPT && seen.iter().all(|one| one.busy));
        let used = busy.zip(self.looks.front()).and_then(|(seen, first)| {
            let seconds =
                now.0.checked_sub(first.at.0).filter(|millis| *millis > 0)? as f64 / 1000.0;
            let sum: f64 = seen.iter().map(|one| one.rate).sum();
            let paced = sum / seen.len() as f64;
            let sent = destination.batches_sent.saturating_sub(seen.first()?.sent);
            (paced > 0.0).then(|| sent as f64 / seconds / paced)
        });
        let moves = !matches!(destination.state.as_str(), "down" | "paused");
        let wait = destination
            .next_try
            .filter(|_| destination.state == "waiting");
        Outlook {
            moves,
            wait: wait.map_or(0.0, |until| until.0.saturating_sub(now.0) as f64 / 1000.0),
            rate: destination.rate,
            heading: destination.heading,
            accepted: destination.accepted_rate,
            request: destination.batches_sent as f64 / destination.requests_sent.max(1) as f64,
            grows: self.grows(destination),
            used,
        }
    }
}

impl Speeds {
    /// Whether the pace of `destination` has grown in the last seconds; `None`: it was where it is
    /// heading all the time.
    fn grows(&self, destination: &Destination) -> Option<bool> {
        let before = self.looks.front()?.destinations.get(&destination.id)?.rate;
        (before < 0.98 * destination.heading).then_some(destination.rate > 1.02 * before)
    }
}

impl Seen {
    fn of(destination: &Destination) -> Self {
        Self {
            accepted: destination.batches_accepted,
            sent: destination.batches_sent,
            rate: destination.rate,
            busy: destination.batches > 0,
        }
    }
}
