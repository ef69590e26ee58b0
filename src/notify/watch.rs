//! Two looks at the daemon, and what is new between them. No clock and no network.

use std::collections::{HashMap, HashSet};

use super::event::{Digest, Event, Trouble, What, is_good};
use crate::clock::UnixMillis;
use crate::control::view::{Delivery, FailedDelivery, Failures, Overview};
use crate::control::{Daemon, Filter, Page};

/// Deliveries in one part of the list.
const PART: usize = 100;
/// Parts that are read at most. What is behind them at the start is not told.
const PARTS: usize = 50;
/// Dead letters come in swarms: one message for all that come within this.
const QUIET_MILLIS: u64 = 60_000;

/// When something is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Patience {
    /// A destination that does not answer is told of after so many milliseconds.
    pub down_millis: u64,
    /// Good deliveries are told of together, after so many milliseconds.
    pub digest_millis: u64,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            down_millis: 300_000,
            digest_millis: 3_600_000,
        }
    }
}

/// What was seen last.
#[derive(Debug, Default)]
pub struct Watcher {
    patience: Patience,
    begun: bool,
    /// Deliveries that were not finished.
    open: HashSet<String>,
    /// Those of them that are held and were told of.
    held: HashSet<String>,
    /// Finished ones at the head of the list.
    finished: HashSet<String>,
    /// By id: destinations that were told of, and whether they were paused.
    troubled: HashMap<String, (Trouble, bool)>,
    /// Good deliveries that were not told of together yet.
    digest: Option<Digest>,
    refusing: bool,
    dead_letters: u64,
    /// What was said of failed deliveries, and their ids.
    failures: Option<Failures>,
    failed: HashMap<String, Again>,
    /// When dead letters were told last.
    told: Option<UnixMillis>,
}

/// What was done about a failed delivery.
#[derive(Clone, Copy, Debug, Default)]
struct Again {
    asked: u32,
    given_up: bool,
}

impl Again {
    fn of(delivery: &FailedDelivery) -> Self {
        delivery
            .again
            .as_ref()
            .map_or(Self::default(), |again| Self {
                asked: match again.state.as_str() {
                    "asking" => again.count.saturating_sub(1),
                    _ => again.count,
                },
                given_up: again.state == "given_up",
            })
    }
}

impl Watcher {
    /// One that has seen nothing.
    pub fn new(patience: Patience) -> Self {
        Self {
            patience,
            ..Self::default()
        }
    }

    /// Looks, and says what is new. The first look tells only what is wrong now.
    pub fn look(&mut self, daemon: &dyn Daemon) -> Vec<Event> {
        let overview = daemon.overview();
        let mut news = Vec::new();
        self.destinations(&overview, &mut news);
        self.outbox(&overview, &mut news);
        self.deliveries(daemon, &mut news);
        self.failed(daemon, &overview, &mut news);
        self.begun = true;
        let at = overview.now;
        self.gather(at, &mut news);
        news.into_iter().map(|what| Event { at, what }).collect()
    }

    /// Adds the good deliveries to those that are told of together, and tells of them in time.
    fn gather(&mut self, now: UnixMillis, news: &mut Vec<What>) {
        for what in news.iter() {
            if let What::Finished(delivery) = what
                && is_good(delivery)
            {
                let digest = self.digest.get_or_insert(Digest {
                    since: now,
                    ..Digest::default()
                });
                digest.deliveries += 1;
                digest.rows += delivery.rows_in;
            }
        }
        let due =
            |digest: &Digest| now.0.saturating_sub(digest.since.0) >= self.patience.digest_millis;
        if self.digest.as_ref().is_some_and(due) {
            news.extend(self.digest.take().map(What::Digest));
        }
    }

    /// What was gathered, before the end.
    pub fn rest(&mut self, now: UnixMillis) -> Option<Event> {
        let what = What::Digest(self.digest.take()?);
        Some(Event { at: now, what })
    }

    fn destinations(&mut self, overview: &Overview, news: &mut Vec<What>) {
        let mut before = std::mem::take(&mut self.troubled);
        for one in &overview.destinations {
            let known = before.remove(&one.id);
            let paused = one.state == "paused";
            let since = one.since.unwrap_or(overview.now);
            let trouble = Trouble {
                destination: one.id.clone(),
                label: one.label.clone(),
                why: one.why.clone(),
                since,
            };
            let long = overview.now.0.saturating_sub(since.0) >= self.patience.down_millis;
            match known {
                None if paused => news.push(What::Paused(trouble.clone())),
                None if one.state == "down" && long => news.push(What::Down(trouble.clone())),
                None => continue,
                // A probe that fails, or a pause that follows an outage.
                Some((_, false)) if paused => news.push(What::Paused(trouble.clone())),
                Some(_) if paused || one.state == "down" => {}
                Some((Trouble { since, .. }, _)) => {
                    news.push(What::Back(Trouble { since, ..trouble }));
                    continue;
                }
            }
            self.troubled.insert(one.id.clone(), (trouble, paused));
        }
        // Gone with its last delivery.
        news.extend(before.into_values().map(|(known, _)| What::Back(known)));
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
                self.open.insert(delivery.id.clone());
                if !delivery.held {
                    self.held.remove(&delivery.id);
                } else if self.held.insert(delivery.id.clone()) {
                    news.push(What::Held(Box::new(delivery)));
                }
                continue;
            }
            finished.insert(delivery.id.clone());
            self.held.remove(&delivery.id);
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

    /// Read whole when there is a new one: one that began long ago may fail after those behind it.
    fn failed(&mut self, daemon: &dyn Daemon, overview: &Overview, news: &mut Vec<What>) {
        if self.failures == Some(overview.failures) {
            return;
        }
        let mut listed: Vec<FailedDelivery> = Vec::new();
        let mut after = None;
        for _ in 0..PARTS {
            let page = Page { after, limit: PART };
            let Ok(part) = daemon.failed_deliveries(&Filter::default(), &page) else {
                return;
            };
            listed.extend(part.items);
            after = part.next;
            if after.is_none() {
                break;
            }
        }
        let known = std::mem::take(&mut self.failed);
        let again = |one: &FailedDelivery| (one.id.clone(), Again::of(one));
        self.failed = listed.iter().map(again).collect();
        self.failures = Some(overview.failures);
        if !self.begun {
            return;
        }
        for one in listed.into_iter().rev() {
            let now = Again::of(&one);
            let before = known.get(&one.id);
            if before.is_none() {
                news.push(What::Failed(Box::new(one.clone())));
            }
            let before = before.copied().unwrap_or_default();
            if now.asked > before.asked {
                news.push(What::AskedAgain(Box::new(one.clone())));
            }
            if now.given_up && !before.given_up {
                news.push(What::GivenUp(Box::new(one)));
            }
        }
    }

    /// From the newest on: all of them at first, afterwards up to what is known.
    fn listed(&self, daemon: &dyn Daemon) -> Option<Vec<Delivery>> {
        let mut all = Vec::new();
        let mut after = None;
        for _ in 0..PARTS {
            let page = Page { after, limit: PART };
            let part = daemon.deliveries(&Filter::default(), &page).ok()?;
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
    fn many_good_deliveries_are_one_digest() {
        let daemon = Scripted::new();
        daemon.script().part = 500;
        let mut watcher = Watcher::default();
        names(&mut watcher, &daemon);
        let one = daemon.script().deliveries[0].clone();
        for n in 0..520_u64 {
            let mut good = one.clone();
            good.id = format!("{n:032x}");
            good.state = "done".to_owned();
            good.rows_in = 10;
            good.rows = crate::control::view::Rows {
                delivered: 10,
                ..Default::default()
            };
            daemon.script().deliveries.insert(0, good);
        }
        let digests = |events: Vec<Event>| -> Vec<Digest> {
            let digest = |event: Event| match event.what {
                What::Digest(digest) => Some(digest),
                _ => None,
            };
            events.into_iter().filter_map(digest).collect()
        };
        assert!(digests(watcher.look(&*daemon)).is_empty(), "not yet");
        daemon.script().overview.now.0 += 3_600_000;
        let told = digests(watcher.look(&*daemon));
        assert_eq!(
            (told.len(), told[0].deliveries, told[0].rows),
            (1, 520, 5_200)
        );
        daemon.script().overview.now.0 += 7_200_000;
        assert!(digests(watcher.look(&*daemon)).is_empty(), "nothing new");
        // What was gathered is told at the end too; one that is not whole is no good delivery.
        finish(&daemon, 520);
        assert_eq!(names(&mut watcher, &daemon), ["delivery_finished"]);
        assert!(watcher.rest(UnixMillis(1)).is_none());
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
    fn a_delivery_that_failed_is_told_once() {
        let daemon = Scripted::new();
        daemon.script().overview.failures.on_record = 3;
        let mut watcher = Watcher::default();
        assert!(names(&mut watcher, &daemon).is_empty(), "old news");
        let mut fresh: Vec<_> = vec![daemon.script().failed[0].clone(); 5];
        for (at, one) in fresh.iter_mut().enumerate() {
            one.id = format!("0198f0c10000000000000000000000f{}", 5 - at);
            one.again = None;
        }
        {
            let mut script = daemon.script();
            script.failed.splice(0..0, fresh.drain(..4));
            // One that began before those that are known.
            fresh[0].id = "0198f0bf0000000000000000000000f0".to_owned();
            script.failed.append(&mut fresh);
            script.overview.failures.on_record = 8;
        }
        let events = watcher.look(&*daemon);
        let ids: Vec<_> = events
            .iter()
            .map(|event| match &event.what {
                What::Failed(one) => one.id.chars().last(),
                other => panic!("{other:?}"),
            })
            .collect();
        assert_eq!(ids, ['0', '2', '3', '4', '5'].map(Some));
        assert!(names(&mut watcher, &daemon).is_empty());
    }

    #[test]
    fn what_is_done_about_a_failed_delivery_is_told() {
        let daemon = Scripted::new();
        let mut watcher = Watcher::default();
        assert!(names(&mut watcher, &daemon).is_empty());
        let change = |count: u32, state: &str| {
            let mut script = daemon.script();
            script.overview.failures.changes += 1;
            let again = script.failed[0].again.as_mut().unwrap();
            again.count = count;
            again.state = state.to_owned();
            again.why = Some("The schedule is gone.".to_owned());
        };
        change(2, "asking");
        assert!(names(&mut watcher, &daemon).is_empty(), "not asked yet");
        change(2, "asked");
        assert_eq!(names(&mut watcher, &daemon), ["delivery_asked_again"]);
        change(2, "waiting");
        assert!(names(&mut watcher, &daemon).is_empty());
        change(2, "given_up");
        let events = watcher.look(&*daemon);
        let body = events[0].body(crate::notify::Form::Json, None);
        assert!(body.contains("delivery_given_up"), "{body}");
        assert!(body.contains("The schedule is gone."), "{body}");
        assert!(names(&mut watcher, &daemon).is_empty());
    }

    #[test]
    fn pauses_refused_writes_and_swarms_of_dead_letters_are_told() {
        let daemon = Scripted::new();
        let mut watcher = Watcher::default();
        names(&mut watcher, &daemon);
        daemon.script().overview.destinations[0].state = "paused".to_owned();
        let events = watcher.look(&*daemon);
        assert!(
            matches!(&events[..], [Event { what: What::Paused(Trouble { destination, .. }), .. }] if destination == DESTINATION)
        );
        assert!(names(&mut watcher, &daemon).is_empty());
        daemon.script().overview.destinations[0].state = "idle".to_owned();
        assert_eq!(names(&mut watcher, &daemon), ["destination_back"]);

        // Down for a moment is nothing; for five minutes it is, once, and so is its end.
        {
            let overview = &mut daemon.script().overview;
            overview.now.0 += 1_000_000;
            let now = overview.now;
            let one = &mut overview.destinations[0];
            one.state = "down".to_owned();
            one.since = Some(now);
        }
        assert!(names(&mut watcher, &daemon).is_empty());
        daemon.script().overview.now.0 += 300_000;
        assert_eq!(names(&mut watcher, &daemon), ["destination_down"]);
        assert!(names(&mut watcher, &daemon).is_empty());
        daemon.script().overview.now.0 += 420_000;
        daemon.script().overview.destinations[0].state = "flowing".to_owned();
        let events = watcher.look(&*daemon);
        match &events[..] {
            [
                Event {
                    at,
                    what: What::Back(one),
                },
            ] => assert_eq!(at.0 - one.since.0, 720_000),
            other => panic!("{other:?}"),
        }

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
