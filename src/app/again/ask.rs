//! What is asked for again, and what each event makes of it.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, timeout_at};

use super::entry::Entry;
use super::instance::Instance;
use crate::again::{self, Journal, State};
use crate::app::about::About;
use crate::app::arrivals::FailureCounts;
use crate::app::readiness::Readiness;
use crate::clock::UnixMillis;
use crate::intake::Caller;
use crate::model::{DeliveryId, FailureKind};
use crate::outbox::{self, Attempt, DeliveryState, Outbox};
use crate::seal::Keyring;

/// A delivery may come in before Looker has answered the call that made it: so long it waits to be told
/// which one it is. Looker is told nothing meanwhile but newlines.
const ANSWER_WITHIN: Duration = Duration::from_secs(20);

/// Deliveries that are read at once.
const PAGE: usize = 200;

/// Why a delivery is not asked for any more.
const LATER: &str = "A later delivery of the schedule failed too, and is asked for.";
/// Likewise.
pub(super) const CAME: &str = "The schedule came in by itself.";

/// How Looker is asked again.
pub(in crate::app) struct Settings {
    /// How often, and for how long.
    pub policy: again::Settings,
    /// Failures that were missed are looked for so far back; zero: they are not looked for.
    pub back: Duration,
    /// And this often.
    pub check_every: Duration,
    /// Where Looker finds this hub.
    pub base_url: String,
    /// Deliveries that are received at once.
    pub max_deliveries: usize,
}

/// See the room's page.
pub(in crate::app) struct AskAgain {
    pub(super) outbox: Outbox,
    /// Open what the outbox says of deliveries.
    pub(super) keys: Arc<Keyring>,
    pub(super) readiness: Arc<Readiness>,
    pub(super) counts: Arc<FailureCounts>,
    pub(super) settings: Settings,
    pub(super) instances: Vec<Instance>,
    ledger: Mutex<Ledger>,
    /// Held while a journal is written.
    writing: Mutex<()>,
    /// Something of the ledger has changed.
    pub(super) changed: Notify,
    /// Rises with each change of a journal.
    pub(super) changes: AtomicU64,
    pub(super) outcomes: Outcomes,
}

/// What is open, and what came of what.
#[derive(Default)]
pub(super) struct Ledger {
    /// Failed deliveries that are asked for again, or were lately.
    pub entries: BTreeMap<DeliveryId, Entry>,
    /// Deliveries that came in because they were asked for: of which failed one, and as which try.
    repeats: HashMap<DeliveryId, (DeliveryId, u32)>,
}

/// Since the start.
#[derive(Debug, Default)]
pub(in crate::app) struct Outcomes {
    pub asked: AtomicU64,
    pub done: AtomicU64,
    pub given_up: AtomicU64,
    pub called_off: AtomicU64,
}

/// A delivery that comes in because it was asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::app) struct Repeat {
    /// The failed one.
    pub of: DeliveryId,
    /// The schedule that both belong to.
    pub schedule: Option<String>,
}

impl AskAgain {
    /// Takes up what the last process has left.
    pub fn new(
        outbox: Outbox,
        keys: Arc<Keyring>,
        readiness: Arc<Readiness>,
        counts: Arc<FailureCounts>,
        settings: Settings,
        instances: Vec<Instance>,
        now: UnixMillis,
    ) -> Result<Self, outbox::Error> {
        let again = Self {
            outbox,
            keys,
            readiness,
            counts,
            settings,
            instances,
            ledger: Mutex::default(),
            writing: Mutex::default(),
            changed: Notify::new(),
            changes: AtomicU64::new(0),
            outcomes: Outcomes::default(),
        };
        for attempt in again.outbox.failed(None, usize::MAX)? {
            again.take_up(&attempt, now);
        }
        again.reconcile(now);
        Ok(again)
    }

    /// Whether there is an API key of any Looker.
    pub fn is_on(&self) -> bool {
        !self.instances.is_empty()
    }

    pub fn instances(&self) -> &[Instance] {
        &self.instances
    }

    pub fn outcomes(&self) -> &Outcomes {
        &self.outcomes
    }

    pub fn changes(&self) -> u64 {
        self.changes.load(Ordering::Relaxed)
    }

    /// A failed delivery, as the outbox has it.
    pub(super) fn take_up(&self, attempt: &Attempt, now: UnixMillis) {
        let Some(end) = &attempt.end else { return };
        let about = About::read(attempt);
        let Some(instance) = self.instance_of(&about.hosts) else {
            return;
        };
        let journal = match Journal::read(&attempt.journal) {
            Some(journal) => journal.restarted(now, &self.settings.policy),
            None => {
                let kind = FailureKind::of_number(end.kind);
                let old = end.at.plus(self.settings.policy.within) < now;
                let heals = kind.is_passing() && about.schedule.is_some();
                if !heals || old || about.repeat_of.is_some() {
                    return;
                }
                Journal::begin(end.at, &self.settings.policy, fastrand::f64())
            }
        };
        let mut ledger = self.ledger();
        ledger.note_repeats(attempt.id, &journal);
        // Those that are closed are shown as they stand in the outbox.
        if journal.state.is_open() {
            let entry = Entry::new(attempt, about, instance, journal);
            ledger.entries.insert(attempt.id, entry);
        }
    }

    /// What happened between the last words that were written and the end of the last process.
    fn reconcile(&self, now: UnixMillis) {
        let mut ledger = self.ledger();
        let oldest = ledger.entries.values().map(|entry| entry.received).min();
        // What cannot be read now is looked up before Looker is asked.
        let came = oldest.map(|oldest| self.committed_since(oldest));
        let came = came.and_then(Result::ok).unwrap_or_default();
        let ids: Vec<DeliveryId> = ledger.entries.keys().copied().collect();
        for id in ids {
            let Some(entry) = ledger.entries.get(&id) else {
                continue;
            };
            let next = match entry.journal.arriving() {
                Some(_) => self.after_arrival(&entry.journal, now),
                None => came
                    .iter()
                    .any(|delivery| entry.is_superseded_by(delivery, &self.keys))
                    .then(|| entry.journal.called_off(CAME)),
            };
            if let Some(journal) = next {
                self.put(&mut ledger, id, journal);
            }
        }
        // Of several failed deliveries of one schedule the newest is asked for.
        let mut newest: Vec<DeliveryId> = ledger.entries.keys().rev().copied().collect();
        while let Some(id) = newest.first().copied() {
            newest.remove(0);
            self.supersede(&mut ledger, id);
        }
    }

    /// What becomes of a journal whose try has come in, as far as the outbox knows.
    pub(super) fn after_arrival(&self, journal: &Journal, now: UnixMillis) -> Option<Journal> {
        let came = journal.arriving()?.parse().ok()?;
        match self.outbox.attempt(came) {
            Ok(Some(attempt)) => self.after_failure(journal, &attempt, now),
            // What is neither failed nor being received is committed, perhaps long ago.
            Ok(None) => Some(journal.done()),
            // It is looked at again.
            Err(_) => None,
        }
    }

    /// Whether a delivery of the schedule of a failed one has come in since. Blocks on the outbox.
    pub(super) fn has_come(&self, id: DeliveryId) -> Result<bool, outbox::Error> {
        let from = self.ledger().entries.get(&id).map(Entry::from);
        let Some(from) = from else {
            return Ok(false);
        };
        let committed = self.committed_since(from)?;
        let ledger = self.ledger();
        let entry = ledger.entries.get(&id);
        let came = |delivery: &DeliveryState| {
            entry.is_some_and(|entry| entry.is_superseded_by(delivery, &self.keys))
        };
        Ok(committed.iter().any(came))
    }

    /// Deliveries that were received at `since` or later, the newest first.
    pub(super) fn committed_since(
        &self,
        since: UnixMillis,
    ) -> Result<Vec<DeliveryState>, outbox::Error> {
        let mut found = Vec::new();
        let mut after = None;
        loop {
            let page = self.outbox.deliveries(after, PAGE)?;
            let all = page.deliveries.iter().all(|one| one.committed >= since);
            let listed = page.deliveries.into_iter();
            found.extend(listed.filter(|one| one.received >= since));
            after = match page.next {
                Some(next) if all => Some(next),
                _ => return Ok(found),
            };
        }
    }

    /// A delivery has failed and is written down. Does not block.
    pub fn failed(&self, attempt: &Attempt) {
        let now = UnixMillis::now();
        let about = About::read(attempt);
        let root: Option<DeliveryId> = about.repeat_of.as_deref().and_then(|id| id.parse().ok());
        if let Some(root) = root {
            let mut ledger = self.ledger();
            let Some(entry) = ledger.entries.get(&root) else {
                return;
            };
            // One that was refused has never been said to arrive.
            let journal = match entry.journal.is_arriving() {
                true => entry.journal.clone(),
                false => entry.journal.arrived(&attempt.id.to_string()),
            };
            if let Some(journal) = self.after_failure(&journal, attempt, now) {
                ledger.note_repeats(root, &journal);
                self.put(&mut ledger, root, journal);
            }
            return;
        }
        self.take_up(attempt, now);
        let mut ledger = self.ledger();
        self.supersede(&mut ledger, attempt.id);
        drop(ledger);
        self.changed.notify_waiters();
    }

    /// Whether Looker will be asked for a delivery that failed, or for what that one repeats.
    pub fn is_open(&self, id: DeliveryId, about: &About) -> bool {
        let root = about.repeat_of.as_deref().and_then(|id| id.parse().ok());
        let ledger = self.ledger();
        let entry = ledger.entries.get(&root.unwrap_or(id));
        entry.is_some_and(|entry| entry.journal.state.is_open())
    }

    /// What becomes of a journal whose try has failed.
    fn after_failure(
        &self,
        journal: &Journal,
        attempt: &Attempt,
        now: UnixMillis,
    ) -> Option<Journal> {
        let end = attempt.end.as_ref()?;
        let kind = FailureKind::of_number(end.kind);
        Some(match kind.is_passing() {
            true => {
                let why = format!("The delivery failed too ({}).", kind.name());
                journal.failed(&why, now, &self.settings.policy, fastrand::f64())
            }
            false => journal.failed_for_good(&format!(
                "The delivery came in, and failed for a reason that will not pass ({}).",
                kind.name()
            )),
        })
    }

    /// Of two failed deliveries of one schedule that both wait, the older one is not asked for.
    pub(super) fn supersede(&self, ledger: &mut Ledger, newer: DeliveryId) {
        let Some(entry) = ledger.entries.get(&newer) else {
            return;
        };
        let waits = |other: &Entry| {
            other.journal.state == State::Waiting && other.is_of_the_schedule_of(entry)
        };
        let older = ledger.entries.range(..newer);
        let older = older.filter(|(_, other)| waits(other));
        let older = older.map(|(id, other)| (*id, other.journal.called_off(LATER)));
        for (id, journal) in older.collect::<Vec<_>>() {
            self.put(ledger, id, journal);
        }
    }

    /// Calls a failed delivery off if a later one of its schedule is asked for. Whether it has.
    pub(super) fn call_off_for_later(&self, id: DeliveryId) -> bool {
        let mut ledger = self.ledger();
        let Some(entry) = ledger.entries.get(&id) else {
            return false;
        };
        let mut later = ledger.entries.range(id..).skip(1);
        let open = |(_, other): (_, &Entry)| {
            other.journal.state.is_open() && other.is_of_the_schedule_of(entry)
        };
        if entry.is_by_hand() || !later.any(open) {
            return false;
        }
        let journal = entry.journal.called_off(LATER);
        self.put(&mut ledger, id, journal);
        true
    }

    /// Whether a delivery that is about to be received was asked for; waits a while for an answer of
    /// Looker's that would tell.
    /// `data` is what tells its data, as far as that is known.
    pub async fn correlate(&self, caller: &Caller, data: Option<&str>) -> Option<Repeat> {
        let deadline = Instant::now() + ANSWER_WITHIN;
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            match self.match_now(caller, data, Instant::now() >= deadline) {
                Matched::Repeat(repeat) => return Some(repeat),
                Matched::None => return None,
                Matched::Wait => {
                    let _ = timeout_at(deadline, changed).await;
                }
            }
        }
    }

    /// The same without waiting.
    pub fn correlate_now(&self, caller: &Caller) -> Option<Repeat> {
        match self.match_now(caller, None, true) {
            Matched::Repeat(repeat) => Some(repeat),
            Matched::None | Matched::Wait => None,
        }
    }

    fn match_now(&self, caller: &Caller, data: Option<&str>, at_last: bool) -> Matched {
        let Some(instance) = self.instance_of(&caller.hosts) else {
            return Matched::None;
        };
        let ledger = self.ledger();
        let here = || {
            let entries = ledger.entries.iter();
            entries.filter(|(_, entry)| entry.instance == instance)
        };
        let repeat = |(id, entry): (&DeliveryId, &Entry)| Repeat {
            of: *id,
            schedule: entry.about.schedule.clone(),
        };
        let plan = caller.schedule_id.as_deref();
        let by_plan = plan.and_then(|plan| here().find(|(_, entry)| entry.journal.has_plan(plan)));
        if let Some(found) = by_plan {
            return Matched::Repeat(repeat(found));
        }
        // A run of the schedule itself is none that was asked for.
        let mut doubtful = here().filter(|(_, entry)| {
            entry.journal.is_unknown() && entry.about.schedule.as_deref() != plan
        });
        let Some(found) = doubtful.find(|(_, entry)| entry.is_alike(caller, data)) else {
            return Matched::None;
        };
        match found.1.journal.state == State::Asking && !at_last {
            true => Matched::Wait,
            false => Matched::Repeat(repeat(found)),
        }
    }

    /// A delivery that was asked for begins to come in: durable on return. Blocks on the disk.
    pub fn arrived(&self, of: DeliveryId, delivery: DeliveryId) {
        let mut ledger = self.ledger();
        let Some(entry) = ledger.entries.get(&of) else {
            return;
        };
        let journal = entry.journal.arrived(&delivery.to_string());
        ledger.note_repeats(of, &journal);
        self.put(&mut ledger, of, journal);
        drop(ledger);
        self.write(of);
    }

    /// A delivery is committed.
    pub fn committed(&self, delivery: DeliveryId, title: &str, about: &About, began: UnixMillis) {
        let root: Option<DeliveryId> = about.repeat_of.as_deref().and_then(|id| id.parse().ok());
        let Some(instance) = self.instance_of(&about.hosts) else {
            return;
        };
        let mut ledger = self.ledger();
        let ids: Vec<DeliveryId> = ledger.entries.keys().copied().collect();
        for id in ids {
            let Some(entry) = ledger.entries.get(&id) else {
                continue;
            };
            let journal = if root == Some(id) {
                entry.journal.arrived(&delivery.to_string()).done()
            } else if entry.instance == instance
                && entry.from() <= began
                && entry.journal.state == State::Waiting
                && entry.is_of(title, about)
            {
                entry.journal.called_off(CAME)
            } else {
                continue;
            };
            self.put(&mut ledger, id, journal);
        }
    }

    /// How a delivery came to be: the failed one that it repeats, and the number of the try.
    pub fn repeat_of(&self, delivery: DeliveryId) -> Option<(DeliveryId, u32)> {
        self.ledger().repeats.get(&delivery).copied()
    }

    /// Puts another journal into an entry; it is written soon.
    pub(super) fn put(&self, ledger: &mut Ledger, id: DeliveryId, journal: Journal) {
        let Some(entry) = ledger.entries.get_mut(&id) else {
            return;
        };
        if entry.journal == journal {
            return;
        }
        let (before, after) = (entry.journal.state, journal.state);
        let came = journal.last().and_then(|last| last.delivery.as_deref());
        let (tries, why) = (journal.count, journal.why.as_str());
        let why = (!why.is_empty()).then_some(why);
        match after {
            State::GivenUp => {
                tracing::error!(delivery = %id, tries, why, "a failed delivery is given up: send it from Looker");
            }
            _ => {
                tracing::info!(delivery = %id, tries, came, why, "a failed delivery {}", after.told());
            }
        }
        entry.journal = journal;
        entry.dirty = true;
        if before != after {
            let counter = match after {
                State::Done => Some(&self.outcomes.done),
                State::GivenUp => Some(&self.outcomes.given_up),
                State::CalledOff => Some(&self.outcomes.called_off),
                State::Waiting | State::Asking | State::Asked => None,
            };
            if let Some(counter) = counter {
                counter.fetch_add(1, Ordering::Relaxed);
            }
        }
        self.changes.fetch_add(1, Ordering::Relaxed);
        self.changed.notify_waiters();
    }

    /// Writes an entry's journal, if it is not written. Blocks on the disk. `false`: it could not be.
    pub(super) fn write(&self, id: DeliveryId) -> bool {
        // Each write says what it replaces, so one goes after the other.
        let _turn = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            let (before, journal) = {
                let ledger = self.ledger();
                let Some(entry) = ledger.entries.get(&id).filter(|entry| entry.dirty) else {
                    return true;
                };
                (entry.written.clone(), entry.journal.write())
            };
            let written = self.outbox.put_journal(id, &before, &journal);
            let mut ledger = self.ledger();
            let Some(entry) = ledger.entries.get_mut(&id) else {
                return true;
            };
            match written {
                Ok(true) => {
                    entry.dirty = entry.journal.write() != journal;
                    entry.written = journal;
                    entry.doubtful = None;
                    if !entry.dirty && !entry.journal.state.is_open() {
                        ledger.entries.remove(&id);
                    }
                    return true;
                }
                // It has left the record; or somebody else writes it; or a write that failed did not.
                Ok(false) => {
                    let doubtful = entry.doubtful.take();
                    drop(ledger);
                    let stored = match self.outbox.attempt(id) {
                        Ok(attempt) => attempt.map(|attempt| attempt.journal),
                        Err(error) => {
                            tracing::warn!(delivery = %id, %error, "what was asked of Looker could not be written down yet");
                            if let Some(entry) = self.ledger().entries.get_mut(&id) {
                                entry.doubtful = doubtful;
                            }
                            return false;
                        }
                    };
                    let mut ledger = self.ledger();
                    match (stored, doubtful, ledger.entries.get_mut(&id)) {
                        (Some(stored), Some(doubtful), Some(entry)) if *stored == *doubtful => {
                            entry.written = doubtful;
                        }
                        _ => {
                            tracing::warn!(delivery = %id, "a failed delivery is not listed any more, or another daemon asks for it");
                            ledger.entries.remove(&id);
                            return false;
                        }
                    }
                }
                Err(error) => {
                    entry.doubtful = Some(journal);
                    tracing::warn!(delivery = %id, %error, "what was asked of Looker could not be written down yet");
                    return false;
                }
            }
        }
    }

    pub(super) fn instance_of(&self, hosts: &[String]) -> Option<usize> {
        let at = |host: &String| self.instances.iter().position(|one| one.is_at(host));
        hosts.iter().find_map(at)
    }

    /// Whole after any panic: its changes are single calls.
    pub(super) fn ledger(&self) -> MutexGuard<'_, Ledger> {
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

enum Matched {
    Repeat(Repeat),
    /// Looker has not answered yet which one it is.
    Wait,
    None,
}

impl Ledger {
    fn note_repeats(&mut self, root: DeliveryId, journal: &Journal) {
        let first = journal.count.saturating_sub(journal.tries.len() as u32);
        for (at, one) in journal.tries.iter().enumerate() {
            let came = one.delivery.as_ref().and_then(|id| id.parse().ok());
            if let Some(came) = came {
                self.repeats.insert(came, (root, first + at as u32 + 1));
            }
        }
    }
}
