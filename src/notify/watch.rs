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
            let known =
                |one: &Delivery| self.open.contains(&one.id) || self.finished.contains(&one.id);
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::tests::scripted::{DELIVERY, DESTINATION, Scripted};
    use std::sync::Arc;

    fn names(watcher: &mut Watcher, daemon: &Arc<Scripted>) -> Vec<&'static str> {
        let events = watcher.look(&**daemon);
        events.iter().map(Event::name).collect()
    }

    fn finish(daemon: &Scripted, at: usize) {
        let mut script = daemon.script();
        let one = &mut script.deliveries[at];
        one.state = "done".to_owned();
        one.rows.delivered += std::mem::take(&mut one.rows.waiting);
    }

    #[test]
    fn a_delivery_is_told_once_when_it_is_finished() {
        let daemon = Scripted::new();
        let mut watcher = Watcher::default();
        assert!(names(&mut watcher, &daemon).is_empty());
        finish(&daemon, 0);
        assert_eq!(names(&mut watcher, &daemon), ["delivery_finished"]);
        assert!(names(&mut watcher, &daemon).is_empty());
        // One that came and went between two looks.
        let mut quick = daemon.script().deliveries[0].clone();
        quick.id = "0198f0c0000000000000000000000002".to_owned();
        daemon.script().deliveries.insert(0, quick);
        assert_eq!(names(&mut watcher, &daemon), ["delivery_finished"]);
        // What was finished before the start is old news.
        assert!(names(&mut Watcher::default(), &daemon).is_empty());
    }

    #[test]
    fn an_old_delivery_is_told_however_many_came_after_it() {
        let daemon = Scripted::new();
        daemon.script().part = 500;
        let mut watcher = Watcher::default();
        names(&mut watcher, &daemon);
        let mut many = vec![daemon.script().deliveries[0].clone(); 300];
        for (number, one) in many.iter_mut().enumerate() {
            one.id = format!("{number:032x}");
            one.state = "done".to_owned();
            one.rows.waiting = 0;
        }
        daemon.script().deliveries.splice(0..0, many);
        assert_eq!(names(&mut watcher, &daemon).len(), 300);
        let last = daemon.script().deliveries.len() - 1;
        assert_eq!(daemon.script().deliveries[last].id, DELIVERY);
        finish(&daemon, last);
        assert_eq!(names(&mut watcher, &daemon), ["delivery_finished"]);
    }

    #[test]
    fn pauses_refused_writes_and_swarms_of_dead_letters_are_told() {
        let daemon = Scripted::new();
        let mut watcher = Watcher::default();
        names(&mut watcher, &daemon);
        daemon.script().overview.destinations[0].state = "paused".to_owned();
        let events = watcher.look(&*daemon);
        assert!(
            matches!(&events[..], [Event { what: What::Paused { destination, .. }, .. }] if destination == DESTINATION)
        );
        assert!(names(&mut watcher, &daemon).is_empty());
        daemon.script().overview.destinations[0].state = "idle".to_owned();
        assert_eq!(names(&mut watcher, &daemon), ["destination_back"]);

        daemon.script().overview.outbox.refusing = Some("the disk".to_owned());
        assert_eq!(names(&mut watcher, &daemon), ["outbox_refusing_writes"]);
        daemon.script().overview.outbox.refusing = None;
        assert_eq!(names(&mut watcher, &daemon), ["outbox_writes_again"]);

        daemon.script().overview.outbox.dead_letters = 5;
        assert_eq!(names(&mut watcher, &daemon), ["dead_letters"]);
        daemon.script().overview.outbox.dead_letters = 9;
        assert!(names(&mut watcher, &daemon).is_empty(), "within a minute");
        daemon.script().overview.now.0 += QUIET_MILLIS;
        let events = watcher.look(&*daemon);
        assert_eq!(events[0].what, What::DeadLetters { new: 4, all: 9 });
    }
}
