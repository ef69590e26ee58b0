//! What an operator sees and says.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};

use super::entry::Entry;
use crate::app::about::About;

use super::ask::{AskAgain, Ledger};
use crate::again::{Journal, State};
use crate::clock::UnixMillis;
use crate::control::{Problem, view};
use crate::model::{DeliveryId, FailureKind};
use crate::outbox::Attempt;

impl AskAgain {
    /// Asks for a failed delivery at once, whatever has been decided before. Blocks on the disk.
    pub fn ask_now(&self, attempt: &Attempt) -> Result<String, Problem> {
        let mut ledger = self.ledger();
        let now = UnixMillis::now();
        self.open(&mut ledger, attempt, now)?;
        let id = attempt.id;
        let Some(entry) = ledger.entries.get(&id) else {
            return Err(gone());
        };
        match entry.journal.state {
            State::Asking => {
                return Err(Problem::Refused(
                    "Looker is being asked just now.".to_owned(),
                ));
            }
            State::Asked => {
                return Err(Problem::Refused(
                    "Looker has been asked already, and the delivery is on its way or will be waited for. Stop that first (`ask-again --stop`), if you know that it will not come.".to_owned(),
                ));
            }
            State::Waiting | State::Done | State::GivenUp | State::CalledOff => {}
        }
        let journal = entry.journal.asked_for(now);
        let looker = self.instances.get(entry.instance);
        let down = looker.and_then(|one| one.down(now));
        self.put(&mut ledger, id, journal);
        drop(ledger);
        self.save(id)?;
        Ok(match down {
            Some((why, _)) => format!("Looker is asked as soon as it can be. Now it cannot: {why}"),
            None => "Looker is asked for it now.".to_owned(),
        })
    }

    /// Does not ask for a failed delivery any more, or notes of one that is not asked for that nobody
    /// need look at it. Blocks on the disk.
    pub fn do_not_ask(&self, attempt: &Attempt) -> Result<String, Problem> {
        let mut ledger = self.ledger();
        let Some(entry) = ledger.entries.get(&attempt.id) else {
            drop(ledger);
            return self.dismiss(attempt);
        };
        let asked = matches!(entry.journal.state, State::Asking | State::Asked);
        let journal = entry.journal.called_off("A person said so.");
        self.put(&mut ledger, attempt.id, journal);
        drop(ledger);
        self.save(attempt.id)?;
        Ok(match asked {
            true => "It is not asked for again. What Looker was asked for already may still come."
                .to_owned(),
            false => "It is not asked for again.".to_owned(),
        })
    }

    /// Notes that nobody need look at a failed delivery, of which nothing is to come.
    fn dismiss(&self, attempt: &Attempt) -> Result<String, Problem> {
        let now = UnixMillis::now();
        let journal = Journal::read(&attempt.journal)
            .unwrap_or_else(|| Journal::begin(now, &self.settings.policy, 0.0))
            .called_off("A person said so.");
        let (id, before) = (attempt.id, &attempt.journal);
        match self.outbox.put_journal(id, before, &journal.write()) {
            Ok(true) => {
                self.changes.fetch_add(1, Ordering::Relaxed);
                Ok("It is dismissed.".to_owned())
            }
            Ok(false) => Err(gone()),
            Err(error) => Err(Problem::Failed(format!(
                "That could not be written down: {error}."
            ))),
        }
    }

    /// An entry for a delivery that may have none.
    fn open(&self, ledger: &mut Ledger, attempt: &Attempt, now: UnixMillis) -> Result<(), Problem> {
        if ledger.entries.contains_key(&attempt.id) {
            return Ok(());
        }
        let about = About::read(attempt);
        let Some(instance) = self.instance_of(&about.hosts) else {
            return Err(Problem::Refused(match self.is_on() {
                false => "looker-feed has no API key of Looker: see [looker.api] in its configuration.",
                true => "looker-feed has no API key of the Looker that this delivery came from: see [looker.api] in its configuration.",
            }.to_owned()));
        };
        if about.schedule.is_none() {
            return Err(Problem::Refused(
                "The delivery did not say which schedule it belongs to, so Looker cannot be asked for it. Send it again from Looker.".to_owned(),
            ));
        }
        if about.repeat_of.is_some() {
            return Err(Problem::Refused(
                "This delivery is itself a repeat; ask for the one that it repeats.".to_owned(),
            ));
        }
        let journal = Journal::read(&attempt.journal)
            .unwrap_or_else(|| Journal::begin(now, &self.settings.policy, 0.0));
        let entry = Entry::new(attempt, about, instance, journal);
        ledger.entries.insert(attempt.id, entry);
        Ok(())
    }

    fn save(&self, id: DeliveryId) -> Result<(), Problem> {
        match self.write(id) {
            true => Ok(()),
            false => Err(Problem::Failed(
                "That could not be written down, so it may not be so after a restart.".to_owned(),
            )),
        }
    }

    /// Where a failed delivery stands; `None`: nothing has been done about it.
    pub fn state_of(&self, attempt: &Attempt) -> Option<State> {
        let ledger = self.ledger();
        match ledger.entries.get(&attempt.id) {
            Some(entry) => Some(entry.journal.state),
            None => Some(Journal::read(&attempt.journal)?.state),
        }
    }

    /// What is done about a failed delivery, for the admin side.
    pub fn view(&self, attempt: &Attempt) -> Option<view::AskedAgain> {
        let ledger = self.ledger();
        let journal = match ledger.entries.get(&attempt.id) {
            Some(entry) => entry.journal.clone(),
            None => Journal::read(&attempt.journal)?,
        };
        let entry = ledger.entries.get(&attempt.id);
        let waits = entry.filter(|entry| entry.journal.state == State::Waiting);
        let trouble = waits.and_then(|entry| self.instances.get(entry.instance)?.trouble());
        drop(ledger);
        let why = match (&trouble, journal.why.is_empty()) {
            (Some(trouble), _) => Some(trouble.clone()),
            (None, false) => Some(journal.why.clone()),
            (None, true) => None,
        };
        let tries = journal.tries.iter().map(|one| view::AskedOnce {
            at: one.at,
            plan: one.plan.clone(),
            delivery: one.delivery.clone(),
            committed: one.committed,
        });
        Some(view::AskedAgain {
            state: journal.state.name().to_owned(),
            next: (journal.state == State::Waiting).then_some(journal.next),
            count: journal.count,
            most: self.settings.policy.tries.saturating_add(journal.before),
            why,
            tries: tries.collect(),
        })
    }

    /// The Lookers that can be asked, for the admin side.
    fn lookers(&self) -> Vec<view::LookerApi> {
        let now = UnixMillis::now();
        let views = self.instances.iter().map(|one| {
            let known = one.known();
            let down = one.down(now);
            view::LookerApi {
                host: one.api.host().to_owned(),
                name: one.name.clone(),
                trouble: one.trouble(),
                refused: known.refused,
                next_try: down.map(|(_, until)| until),
                answered: known.answered,
                looked: known.looked,
                blind: known.blind,
            }
        });
        views.collect()
    }

    /// What came of it, and what is open.
    pub fn overview(&self) -> view::AskAgain {
        let outcomes = self.outcomes();
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        view::AskAgain {
            asked: read(&outcomes.asked),
            done: read(&outcomes.done),
            given_up: read(&outcomes.given_up),
            called_off: read(&outcomes.called_off),
            open: self.open_states(),
            lookers: self.lookers(),
        }
    }

    /// How many failed deliveries are in each open state now.
    fn open_states(&self) -> BTreeMap<String, u64> {
        let mut states = BTreeMap::new();
        for state in [State::Waiting, State::Asking, State::Asked] {
            states.insert(state.name().to_owned(), 0);
        }
        for entry in self.ledger().entries.values() {
            let state = entry.journal.state;
            if state.is_open() {
                *states.entry(state.name().to_owned()).or_default() += 1;
            }
        }
        states
    }

    /// Why a failed delivery is not asked for, if it is not.
    pub fn why_not(&self, attempt: &Attempt, kind: FailureKind) -> Option<String> {
        let about = About::read(attempt);
        if about.repeat_of.is_some() {
            return None;
        }
        if !kind.is_passing() {
            return Some(
                "Asking again would not help: the reason does not pass by itself.".to_owned(),
            );
        }
        if !self.is_on() {
            return Some("With an API key of Looker ([looker.api] in the configuration) it would be asked for by itself.".to_owned());
        }
        if self.instance_of(&about.hosts).is_none() {
            return Some(
                "With an API key of the Looker that it came from it would be asked for by itself."
                    .to_owned(),
            );
        }
        if about.schedule.is_none() {
            return Some("The delivery did not say which schedule it belongs to.".to_owned());
        }
        None
    }
}

fn gone() -> Problem {
    Problem::Unknown("The failed delivery is not on record any more.".to_owned())
}
