//! Two looks at the daemon, and what is new between them. No clock and no network.

use std::collections::{HashMap, HashSet};

use super::event::{Event, What};
use crate::clock::UnixMillis;
use crate::control::view::{Delivery, Overview};
use crate::control::{Daemon, Page};

/// Deliveries in one part of the list.
const PART: usize = 100;
/// Parts that are read at most. What is behind them at the start is not told.
const PARTS: usize = 50;
/// Dead letters come in swarms: one message for all that come within this.
const QUIET_MILLIS: u64 = 60_000;

/// What was seen last.
#[derive(Debug, Default)]
pub struct Watcher {
    begun: bool,
    /// Deliveries that were not finished.
    open: HashSet<String>,
    /// Finished ones at the head of the list.
    finished: HashSet<String>,
    paused: HashMap<String, String>,
    refusing: bool,
    dead_letters: u64,
    /// When dead letters were told last.
    told: Option<UnixMillis>,
}

impl Watcher {
    /// Looks, and says what is new. The first look tells only what is wrong now.
    pub fn look(&mut self, daemon: &dyn Daemon) -> Vec<Event> {
        let overview = daemon.overview();
        let mut news = Vec::new();
        self.destinations(&overview, &mut news);
        self.outbox(&overview, &mut news);
        self.deliveries(daemon, &mut news);
        self.begun = true;
        let at = overview.now;
        news.into_iter().map(|what| Event { at, what }).collect()
    }

    fn destinations(&mut self, overview: &Overview, news: &mut Vec<What>) {
        let mut paused = HashMap::new();
        for one in &overview.destinations {
            if one.state != "paused" {
                continue;
            }
            if !self.paused.contains_key(&one.id) {
                news.push(What::Paused {
                    destination: one.id.clone(),
                    label: one.label.clone(),
                    why: one.why.clone(),
                });
            }
            paused.insert(one.id.clone(), one.label.clone());
        }
        for (id, label) in &self.paused {
            if !paused.contains_key(id) {
                news.push(What::Back {
                    destination: id.clone(),
                    label: label.clone(),
                });
            }
        }
        self.paused = paused;
    }

    fn outbox(&mut self, overview: &Overview, news: &mut Vec<What>) {
        let outbox = &overview.outbox;
        match (&outbox.refusing, self.refusing) {
            (Some(why), false) => news.push(What::Refusing { why: why.clone() }),
            (None, true) => news.push(What::Writing),
            _ => {}
        }
        self.refusing = outbox.refusing.is_some();
        let all = outbox.dead_letters;
        if !self.begun || all < self.dead_letters {
            self.dead_letters = all;
        }
        let quiet = |told: UnixMillis| overview.now.0.saturating_sub(told.0) < QUIET_MILLIS;
        if all > self.dead_letters && !self.told.is_some_and(quiet) {
            let new = all - self.dead_letters;
            news.push(What::DeadLetters { new, all });
            self.dead_letters = all;
            self.told = Some(overview.now);
        }
    }

    fn deliveries(&mut self, daemon: &dyn Daemon, news: &mut Vec<What>) {
        let Some(listed) = self.listed(daemon) else {
            return;
        };
        let mut finished = HashSet::new();
        let mut missing = std::mem::take(&mut self.open);
        for delivery in listed {
            let was_open = missing.remove(&delivery.id);
            if !is_finished(&delivery) {
                self.open.insert(delivery.id);
                continue;
            }
            finished.insert(delivery.id.clone());
            let known = self.finished.contains(&delivery.id);
            if self.begun && (was_open || !known) {
                news.push(What::Finished(Box::new(delivery)));
            }
        }
        self.finished = finished;
        // Older than what was listed: one that waits behind a pause, for example.
        for id in missing {
            match daemon.delivery(&id) {
                Ok(delivery) if is_finished(&delivery) => {
                    news.push(What::Finished(Box::new(delivery)));
                }
                Ok(_) => {
                    self.open.insert(id);
                }
                Err(_) => {}
            }
        }
    }

    /// From the newest on: all of them at first, afterwards up to what is known.
    fn listed(&self, daemon: &dyn Daemon) -> Option<Vec<Delivery>> {
        let mut all = Vec::new();
        let mut after = None;
        for _ in 0..PARTS {
            let page = Page { after, limit: PART };
            let part = daemon.deliveries(&page).ok()?;
            let known = |one: &Delivery| {
                self.open.contains(&one.id) || self.finished.contains(&one.id)
            };
            let met = part.items.iter().any(known);
            all.extend(part.items);
            after = part.next;
            if after.is_none() || (self.begun && met) {
                break;
            }
        }
        Some(all)
    }
}

fn is_finished(delivery: &Delivery) -> bool {
    delivery.rows.waiting + delivery.rows.in_flight == 0
        && matches!(delivery.state.as_str(), "done" | "cancelled")
}
