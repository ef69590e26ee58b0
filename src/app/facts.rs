//! What the admin side is told, gathered from the other rooms' snapshots.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;
use std::sync::Arc;

use super::again::AskAgain;
use super::arrivals::Arrivals;
use super::failed::{Failures, failed_view, repeat_view};
use super::keys;
use super::lookups::Lookups;
use super::readiness::Readiness;
use super::standing::destination;
use crate::causes::with_causes;
use crate::changes::Changes;
use crate::clock::UnixMillis;
use crate::control::people::{Lookup, Person};
use crate::control::{Daemon, Filter, Page, Problem, Which, groups, view};
use crate::drain::{self, policy};
use crate::model::{DeliveryId, DestinationId};
use crate::outbox::{
    self, DeadFilter, DeadLetter, DeliveryState, DestinationState, LetterId, Outbox,
};
use crate::seal::Keyring;
use crate::telemetry::Telemetry;

/// Deliveries that are looked through with one hold of the outbox's index.
const LISTED_AT_ONCE: usize = 200;

/// Dead letters that are moved with one sync of the disk.
const MOVED_AT_ONCE: usize = 500;

/// What stands behind the admin side; see the module's page.
pub(super) struct Facts {
    pub outbox: Outbox,
    pub drain: drain::Handle,
    pub changes: Changes,
    pub telemetry: Telemetry,
    pub keys: Arc<Keyring>,
    pub readiness: Arc<Readiness>,
    pub arrivals: Arc<Arrivals>,
    pub failures: Arc<Failures>,
    pub again: Arc<AskAgain>,
    pub lookups: Lookups,
    pub started: UnixMillis,
    /// Bound of the outbox, in bytes.
    pub max_bytes: u64,
    /// Bound of a batch, in bytes.
    pub max_batch_bytes: usize,
}

impl Daemon for Facts {
    fn alive(&self) -> Result<(), Problem> {
        if !self.outbox.is_alive() {
            return Err(Problem::Failed(
                "The outbox's thread has ended by a mistake in looker-feed; restart it.".to_owned(),
            ));
        }
        // Each takes the lock that the work there is done under.
        self.outbox.health();
        // A server that is away is no reason to restart this daemon.
        if !self.outbox.is_shared() {
            self.outbox.delivery(DeliveryId([0; 16])).map_err(failed)?;
        }
        self.drain.snapshots();
        Ok(())
    }

    fn now(&self) -> UnixMillis {
        UnixMillis::now()
    }

    fn overview(&self) -> view::Overview {
        self.look()
    }

    fn destinations(&self) -> (UnixMillis, Vec<view::Destination>) {
        let waiting = match self.outbox.is_at_rest() {
            true => Vec::new(),
            false => self.outbox.destinations().unwrap_or_default(),
        };
        (UnixMillis::now(), self.destination_views(waiting))
    }

    fn deliveries(
        &self,
        filter: &Filter,
        page: &Page,
    ) -> Result<view::Listing<view::Delivery>, Problem> {
        let mut after = cursor(page)?;
        let mut items = Vec::new();
        loop {
            let found = self.outbox.deliveries(after, LISTED_AT_ONCE);
            let found = found.map_err(failed)?;
            for state in found.deliveries {
                let at = state.cursor;
                if !filter.admits(&delivery(state.clone(), None)) {
                    continue;
                }
                // Only what is shown has its link opened.
                items.push(self.view(state));
                if items.len() == page.limit {
                    let next = Some(at.to_string());
                    return Ok(view::Listing { items, next });
                }
            }
            if found.next.is_none() {
                return Ok(view::Listing { items, next: None });
            }
            after = found.next;
        }
    }

    fn on_record(
        &self,
        visit: &mut dyn FnMut(view::Delivery) -> Result<ControlFlow<()>, Problem>,
    ) -> Result<(), Problem> {
        let mut after = None;
        loop {
            let found = self.outbox.deliveries(after, LISTED_AT_ONCE);
            let found = found.map_err(failed)?;
            for state in found.deliveries {
                if visit(delivery(state, None))?.is_break() {
                    return Ok(());
                }
            }
            if found.next.is_none() {
                return Ok(());
            }
            after = found.next;
        }
    }

    fn failed_deliveries(
        &self,
        filter: &Filter,
        page: &Page,
    ) -> Result<view::Listing<view::FailedDelivery>, Problem> {
        let listed = self.failures.listed(filter, cursor(page)?, page.limit);
        listed.map_err(failed)
    }

    fn failed_delivery(&self, id: &str) -> Result<view::FailedDelivery, Problem> {
        let found = self.outbox.attempt(delivery_id(id)?).map_err(failed)?;
        let view = found.as_ref().and_then(|one| failed_view(&self.again, one));
        view.ok_or_else(|| no_delivery(id))
    }

    fn ask_again(&self, id: &str) -> Result<view::Done, Problem> {
        let attempt = self.failed_attempt(id)?;
        Ok(done(1, self.again.ask_now(&attempt)?))
    }

    fn do_not_ask(&self, id: &str) -> Result<view::Done, Problem> {
        let attempt = self.failed_attempt(id)?;
        Ok(done(1, self.again.do_not_ask(&attempt)?))
    }

    fn schedules(&self) -> Result<Vec<view::Schedule>, Problem> {
        let titles = self.outbox.titles().map_err(failed)?.into_iter();
        let schedules = titles.map(|title| view::Schedule {
            title: title.title,
            deliveries: title.deliveries,
            newest: title.newest,
        });
        Ok(schedules.collect())
    }

    fn delivery(&self, id: &str) -> Result<view::Delivery, Problem> {
        let state = self.outbox.delivery(delivery_id(id)?).map_err(failed)?;
        let view = state.map(|state| self.view(state));
        view.ok_or_else(|| no_delivery(id))
    }

    fn rejected(
        &self,
        delivery: &str,
        page: &Page,
    ) -> Result<view::Listing<view::RejectedRow>, Problem> {
        let after = cursor(page)?;
        let found = self
            .outbox
            .rejected(delivery_id(delivery)?, after, page.limit)
            .map_err(failed)?
            .ok_or_else(|| no_delivery(delivery))?;
        let next = found.next.map(|next| next.to_string());
        let items = found.rows.into_iter().map(|row| view::RejectedRow {
            row: row.row + 1,
            reason: row.reason,
            text: String::from_utf8_lossy(&row.text).into_owned(),
        });
        Ok(view::Listing {
            items: items.collect(),
            next,
        })
    }

    fn dead_letters(
        &self,
        delivery: Option<&str>,
        page: &Page,
    ) -> Result<view::Listing<view::DeadLetter>, Problem> {
        let filter = DeadFilter {
            delivery: delivery.map(delivery_id).transpose()?,
            destination: None,
        };
        let after = page.after.as_deref().map(letter_id).transpose()?;
        let found = self.outbox.dead_letters(filter, after, page.limit);
        let found = found.map_err(failed)?;
        let letters = found.letters.into_iter();
        Ok(view::Listing {
            items: letters
                .map(|letter| self.dead_letter_view(letter))
                .collect(),
            next: found.next.map(|next| next.to_string()),
        })
    }

    fn dead_letter(&self, id: &str) -> Result<view::DeadLetter, Problem> {
        let found = self.outbox.dead_letter(letter_id(id)?).map_err(failed)?;
        let (letter, batch) = found.ok_or_else(|| no_letter(id))?;
        let mut letter = self.dead_letter_view(letter);
        letter.batch = String::from_utf8(batch.to_vec())
            .ok()
            .and_then(|text| view::Batch::from_text(text).ok());
        Ok(letter)
    }

    fn edit(&self, id: &str, batch: &str, take_chance: bool) -> Result<view::Edited, Problem> {
        self.edit_letter(id, batch, take_chance)
    }

    fn replay(&self, which: &Which) -> Result<view::Done, Problem> {
        let moved = self.move_letters(which, |ids| {
            // What arrives again arrives behind newer values.
            let deliveries = self.outbox.deliveries_of(ids).map_err(failed)?;
            if let Err(error) = self.changes.doubt(&deliveries) {
                return Err(Problem::Failed(format!(
                    "What was delivered could not be forgotten, so nothing is sent again: {error}"
                )));
            }
            let moved = self.outbox.replay(ids).map_err(failed)?;
            // A delivery that has begun since noted the same ones, but cannot tell which go before it.
            if let Err(error) = self.changes.doubt(&deliveries) {
                return Err(Problem::Failed(format!(
                    "They are sent again, but what was delivered meanwhile could not be forgotten; try once more: {error}"
                )));
            }
            Ok(moved)
        })?;
        let outbox::Moved { letters, rows } = moved;
        let text =
            format!("{letters} batches ({rows} rows) are sent again, behind what waits now.");
        Ok(done(letters, text))
    }

    fn discard(&self, which: &Which) -> Result<view::Done, Problem> {
        let moved = self.move_letters(which, |ids| self.outbox.discard(ids).map_err(failed))?;
        let outbox::Moved { letters, rows } = moved;
        let text = format!("{letters} batches ({rows} rows) were discarded.");
        Ok(done(letters, text))
    }

    fn cancel(&self, delivery: &str) -> Result<view::Done, Problem> {
        let id = delivery_id(delivery)?;
        let cancelled = self.outbox.cancel(id).map_err(failed)?;
        let cancelled = cancelled.ok_or_else(|| no_delivery(delivery))?;
        // Whatever the drain holds of it and has not begun goes back, and is cancelled there.
        let mut message = format!(
            "{} batches ({} rows) are cancelled.",
            cancelled.batches, cancelled.rows
        );
        if let Some(state) = self.outbox.delivery(id).map_err(failed)? {
            if state.in_flight.rows > 0 {
                message.push_str(&format!(
                    " Of {} rows that were being sent, those that have not gone out are cancelled too; \
                     the rest end as they do.",
                    state.in_flight.rows
                ));
            }
            self.drain.cancel(state.destination, id);
        }
        Ok(done(cancelled.batches, message))
    }

    fn release(&self, delivery: &str) -> Result<view::Done, Problem> {
        let released = self.outbox.release_delivery(delivery_id(delivery)?);
        let released = released
            .map_err(failed)?
            .ok_or_else(|| no_delivery(delivery))?;
        let text = match released {
            true => "Released: it is sent now, in its turn.",
            false => "It was not held.",
        };
        Ok(done(u64::from(released), text.to_owned()))
    }

    fn pause(&self, destination: &str) -> Result<view::Done, Problem> {
        let id = self.known_destination(destination)?;
        let text = match self.drain.pause(id) {
            Ok(()) => "Paused until it is resumed. Requests under way still land.".to_owned(),
            Err(error) => format!(
                "Paused until it is resumed or the daemon restarts; that it stays so over a \
                 restart could not be written down: {}.",
                with_causes(&error)
            ),
        };
        Ok(done(1, text))
    }

    fn resume(&self, destination: &str) -> Result<view::Done, Problem> {
        let id = self.known_destination(destination)?;
        Ok(match self.drain.resume(id) {
            Ok(known) => done(u64::from(known), "Resumed.".to_owned()),
            Err(error) => {
                let why = with_causes(&error);
                let text = format!(
                    "Resumed. That could not be written down, so if it was paused by a person, it \
                     is again after a restart: {why}."
                );
                done(1, text)
            }
        })
    }

    fn find(&self, person: &Person) -> Result<Lookup, Problem> {
        self.lookups.find(person)
    }

    fn erase(&self, person: &Person) -> Result<Lookup, Problem> {
        self.lookups.erase(person)
    }

    fn lookups(&self) -> Result<Vec<Lookup>, Problem> {
        Ok(self.lookups.all())
    }

    fn lookup(&self, id: &str) -> Result<Lookup, Problem> {
        self.lookups.one(id)
    }

    fn retry_now(&self, destination: &str) -> Result<view::Done, Problem> {
        let id = self.known_destination(destination)?;
        let changed = self.drain.retry_now(id).map_err(failed)?;
        Ok(done(u64::from(changed), "It is tried now.".to_owned()))
    }
}

impl Facts {
    fn failed_attempt(&self, id: &str) -> Result<outbox::Attempt, Problem> {
        let attempt = self.outbox.attempt(delivery_id(id)?).map_err(failed)?;
        let failed = attempt.filter(|attempt| attempt.end.is_some());
        failed.ok_or_else(|| no_delivery(id))
    }

    /// Destinations that have work, or have had some since the start.
    pub(super) fn destination_views(
        &self,
        waiting: Vec<DestinationState>,
    ) -> Vec<view::Destination> {
        let mut waiting: BTreeMap<DestinationId, DestinationState> =
            waiting.into_iter().map(|state| (state.id, state)).collect();
        let mut views = Vec::new();
        for snapshot in self.drain.snapshots() {
            let state = waiting.remove(&snapshot.destination);
            views.push(destination(state.as_ref(), Some(&snapshot)));
        }
        views.extend(waiting.values().map(|state| destination(Some(state), None)));
        views
    }

    /// Its link is left out when its key was taken away since.
    fn view(&self, state: DeliveryState) -> view::Delivery {
        let link = state.link.as_deref();
        let link = link.and_then(|sealed| keys::open_origin(&self.keys, sealed).link);
        let repeat = self.again.repeat_of(state.id);
        view::Delivery {
            repeat_of: repeat.map(repeat_view),
            ..delivery(state, link)
        }
    }

    fn known_destination(&self, text: &str) -> Result<DestinationId, Problem> {
        let unknown = || Problem::Unknown(format!("There is no destination {text}."));
        let id: DestinationId = text.parse().map_err(|_| unknown())?;
        if self.drain.snapshot(id).is_some() {
            return Ok(id);
        }
        let waiting = self.outbox.destinations().map_err(failed)?;
        let known = waiting.iter().any(|state| state.id == id);
        known.then_some(id).ok_or_else(unknown)
    }

    fn dead_letter_view(&self, letter: DeadLetter) -> view::DeadLetter {
        let delivery = self.outbox.delivery(letter.delivery).ok().flatten();
        let title = delivery.map_or_else(String::new, |delivery| delivery.title);
        view::DeadLetter {
            id: letter.id.to_string(),
            delivery: letter.delivery.to_string(),
            title,
            may_have_arrived: policy::may_have_arrived(&letter.reason, letter.attempts),
            reason: letter.reason,
            attempts: letter.attempts,
            first_try: letter.first_try,
            last_try: letter.last_try,
            rows: u64::from(letter.rows),
            bytes: letter.bytes,
            batch: None,
        }
    }

    /// Replays or discards, a part at a time so that no call is without bound.
    fn move_letters(
        &self,
        which: &Which,
        act: impl Fn(&[LetterId]) -> Result<outbox::Moved, Problem>,
    ) -> Result<outbox::Moved, Problem> {
        let filter = match which {
            Which::Ids(ids) => {
                let ids = ids.iter().map(|id| letter_id(id));
                let ids: BTreeSet<_> = ids.collect::<Result<_, _>>()?;
                return act(&Vec::from_iter(ids));
            }
            Which::Delivery(id) => DeadFilter {
                delivery: Some(delivery_id(id)?),
                destination: None,
            },
            Which::All | Which::Reason(_) => DeadFilter::default(),
        };
        let wanted = |letter: &DeadLetter| match which {
            Which::Reason(reason) => groups::key(&letter.reason) == *reason,
            Which::Ids(_) | Which::Delivery(_) | Which::All => true,
        };
        // The ids are gathered first: a replayed letter that dies again is a new one and stays.
        let mut ids = Vec::new();
        let mut after = None;
        loop {
            let page = self.outbox.dead_letters(filter, after, MOVED_AT_ONCE);
            let page = page.map_err(failed)?;
            let letters = page.letters.iter().filter(|letter| wanted(letter));
            ids.extend(letters.map(|letter| letter.id));
            after = page.next;
            if after.is_none() {
                break;
            }
        }
        let mut moved = outbox::Moved::default();
        for part in ids.chunks(MOVED_AT_ONCE) {
            let more = act(part)?;
            moved.letters += more.letters;
            moved.rows += more.rows;
        }
        Ok(moved)
    }
}

/// `link` is the one of the state, opened.
fn delivery(state: DeliveryState, link: Option<String>) -> view::Delivery {
    let sending = state.in_flight.rows > 0 || state.in_flight.batches > 0;
    let name = if state.settled && state.cancelled_at.is_some() {
        "cancelled"
    } else if state.settled {
        "done"
    } else if sending || state.delivered.batches > 0 {
        "sending"
    } else {
        "waiting"
    };
    view::Delivery {
        id: state.id.to_string(),
        destination: state.destination.to_string(),
        destination_label: state.destination_label,
        title: state.title,
        link,
        received: state.received,
        committed: state.committed,
        state: name.to_owned(),
        finished: state.finished,
        rows_in: state.rows_in,
        rows: view::Rows {
            delivered: state.delivered.rows,
            waiting: state.waiting.rows,
            in_flight: state.in_flight.rows,
            dead: state.dead.rows + state.discarded.rows,
            rejected: state.rejected,
            damaged: state.damaged.rows,
            cancelled: state.cancelled.rows,
            unchanged: state.unchanged,
            erased: state.erased.rows,
        },
        users: state.users,
        batches: state.batches,
        batches_delivered: state.delivered.batches,
        requests: state.requests,
        notes: state.notes,
        dead_waiting: state.dead.rows,
        held: state.held,
        ..view::Delivery::default()
    }
}

fn delivery_id(text: &str) -> Result<DeliveryId, Problem> {
    text.parse().map_err(|_| no_delivery(text))
}

fn no_delivery(text: &str) -> Problem {
    Problem::Unknown(format!(
        "There is no delivery {text}; finished ones are forgotten after a while."
    ))
}

pub(super) fn no_letter(text: &str) -> Problem {
    Problem::Unknown(format!(
        "There is no dead letter {text}; it may have been replayed, or edited."
    ))
}

pub(super) fn letter_id(text: &str) -> Result<LetterId, Problem> {
    text.parse()
        .map_err(|error: outbox::LetterIdError| Problem::Unknown(error.to_string()))
}

/// Where the page before has ended.
fn cursor<T: std::str::FromStr>(page: &Page) -> Result<Option<T>, Problem> {
    let after = page.after.as_deref().map(str::parse).transpose();
    after.map_err(|_| Problem::Refused("`after` is not what a list gave.".to_owned()))
}

pub(super) fn failed(error: outbox::Error) -> Problem {
    Problem::Failed(with_causes(&error))
}

fn done(changed: u64, message: String) -> view::Done {
    view::Done { changed, message }
}
