//! The task of one Looker: writes journals, asks when the time has come, and looks for what was missed.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::time::{Instant, sleep, sleep_until};

use super::ask::{AskAgain, CAME};
use super::instance::Instance;
use crate::again::{Answer, Decision, Journal, State};
use crate::causes::with_causes;
use crate::clock::UnixMillis;
use crate::looker_api::ApiError;
use crate::model::DeliveryId;
use crate::shutdown::Shutdown;

/// The longest sleep: what stands in the way may have gone without a word, and other daemons say nothing.
const LOOK: Duration = Duration::from_secs(15);
/// The shortest: a storm of changes is looked at together.
const REST: Duration = Duration::from_millis(50);
/// The first look for what was missed: Looker is often restarted together with this daemon.
const FIRST_CHECK: Duration = Duration::from_secs(5);

impl AskAgain {
    /// Works for one Looker until `stop`. What has not been written down by then is.
    pub async fn run(self: Arc<Self>, instance: usize, mut stop: Shutdown) {
        let Some(looker) = self.instances.get(instance) else {
            return;
        };
        let mut check = Instant::now() + FIRST_CHECK;
        let mut look = Instant::now() + LOOK;
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            let next = tokio::select! {
                () = stop.wait() => break,
                next = self.turn(instance) => next,
            };
            if Instant::now() >= look {
                let again = Arc::clone(&self);
                let looked = tokio::task::spawn_blocking(move || again.look_elsewhere()).await;
                if looked.is_err() {
                    tracing::error!("looking at what other daemons did has failed");
                }
                look = Instant::now() + LOOK;
            }
            if Instant::now() >= check {
                tokio::select! {
                    () = stop.wait() => break,
                    () = self.look_for_missed(instance) => {}
                }
                let most = self.settings.check_every;
                check = Instant::now() + most.mul_f64(0.9 + 0.1 * fastrand::f64());
            }
            let wake = (Instant::now() + next.min(LOOK)).min(check);
            tokio::select! {
                () = stop.wait() => break,
                () = sleep_until(wake) => {}
                () = changed => sleep(REST).await,
            }
        }
        self.write_all(instance).await;
        // Good manners; the token would live on for an hour.
        let _ = tokio::time::timeout(Duration::from_secs(2), looker.api.log_out()).await;
    }

    /// Does what is due. Returns how long nothing will be.
    async fn turn(self: &Arc<Self>, instance: usize) -> Duration {
        self.write_all(instance).await;
        let ids: Vec<DeliveryId> = {
            let ledger = self.ledger();
            let here = ledger.entries.iter();
            here.filter(|(_, entry)| entry.instance == instance)
                .map(|(id, _)| *id)
                .collect()
        };
        let mut next = LOOK;
        for id in ids {
            let now = UnixMillis::now();
            match self.decide(id, instance, now) {
                Some(Decision::Wait(until)) => {
                    let left = Duration::from_millis(until.0.saturating_sub(now.0));
                    next = next.min(left.max(REST));
                }
                Some(Decision::Become(journal)) => {
                    let mut ledger = self.ledger();
                    self.put(&mut ledger, id, journal);
                }
                Some(Decision::Ask(journal)) => {
                    if self.is_needed(id).await {
                        self.begin(id, journal);
                        self.ask(id, instance).await;
                        next = REST;
                    }
                }
                Some(Decision::Held | Decision::Nothing) | None => {}
            }
        }
        self.write_all(instance).await;
        next
    }

    /// Looker is about to be asked.
    fn begin(&self, id: DeliveryId, journal: Journal) {
        let mut ledger = self.ledger();
        self.put(&mut ledger, id, journal);
    }

    /// Whether it has not come in by itself: through another daemon, or just before the last one ended.
    async fn is_needed(self: &Arc<Self>, id: DeliveryId) -> bool {
        if self.call_off_for_later(id) {
            return false;
        }
        let again = Arc::clone(self);
        let came = tokio::task::spawn_blocking(move || again.has_come(id)).await;
        match came {
            Ok(Ok(false)) => true,
            Ok(Ok(true)) => {
                let mut ledger = self.ledger();
                if let Some(entry) = ledger.entries.get(&id) {
                    let journal = entry.journal.called_off(CAME);
                    self.put(&mut ledger, id, journal);
                }
                false
            }
            Ok(Err(error)) => {
                tracing::warn!(delivery = %id, %error, "what came in lately cannot be read, so Looker is not asked yet");
                false
            }
            Err(_) => false,
        }
    }

    fn decide(&self, id: DeliveryId, instance: usize, now: UnixMillis) -> Option<Decision> {
        let due = {
            let ledger = self.ledger();
            let journal = &ledger.entries.get(&id)?.journal;
            journal.state == State::Waiting && journal.next <= now
        };
        let held = due.then(|| self.held(id, instance, now)).flatten();
        let ledger = self.ledger();
        let entry = ledger.entries.get(&id)?;
        let policy = &self.settings.policy;
        let (journal, jitter) = (&entry.journal, fastrand::f64());
        Some(journal.decide(now, held.as_deref(), policy, jitter))
    }

    /// Why nothing can be asked for now.
    fn held(&self, id: DeliveryId, instance: usize, now: UnixMillis) -> Option<String> {
        if let Err(why) = self.readiness.admit() {
            return Some(with_causes(&why));
        }
        let down = self.instances.get(instance).and_then(|one| one.down(now));
        if let Some((why, _)) = down {
            return Some(why);
        }
        let receiving = self.outbox.receiving();
        let ledger = self.ledger();
        let to_come = ledger.entries.values().filter(|one| {
            matches!(one.journal.state, State::Asking | State::Asked) && !one.journal.is_arriving()
        });
        if receiving.len() + to_come.count() >= self.settings.max_deliveries {
            return Some("As many deliveries as may be are being received.".to_owned());
        }
        let entry = ledger.entries.get(&id)?;
        let under_way = receiving.iter().any(|one| one.title == entry.title);
        let asked = ledger.entries.iter().any(|(other, one)| {
            *other != id
                && matches!(one.journal.state, State::Asking | State::Asked)
                && one.is_of_the_schedule_of(entry)
        });
        (under_way || asked).then(|| "The schedule is being received.".to_owned())
    }

    /// Asks. That it is done is written down before.
    async fn ask(self: &Arc<Self>, id: DeliveryId, instance: usize) {
        if !self.write_one(id).await {
            // Not written, not asked; it is looked at again in a while.
            let mut ledger = self.ledger();
            let undone = Answer::NotNow {
                why: "That Looker is asked could not be written down.".to_owned(),
            };
            self.answer(&mut ledger, id, &undone);
            return;
        }
        let schedule = {
            let ledger = self.ledger();
            let entry = ledger.entries.get(&id);
            entry.and_then(|entry| entry.about.schedule.clone())
        };
        let (Some(schedule), Some(looker)) = (schedule, self.instances.get(instance)) else {
            return;
        };
        self.outcomes.asked.fetch_add(1, Ordering::Relaxed);
        let answer = call(looker, &schedule).await;
        {
            let mut ledger = self.ledger();
            self.answer(&mut ledger, id, &answer);
        }
        self.write_one(id).await;
    }

    fn answer(&self, ledger: &mut super::ask::Ledger, id: DeliveryId, answer: &Answer) {
        let Some(entry) = ledger.entries.get(&id) else {
            return;
        };
        // It may have come in before its answer, or a person may have stepped in.
        if entry.journal.state != State::Asking {
            return;
        }
        let policy = &self.settings.policy;
        let (now, jitter) = (UnixMillis::now(), fastrand::f64());
        let journal = entry.journal.answered(answer, now, policy, jitter);
        self.put(ledger, id, journal);
    }

    async fn write_one(self: &Arc<Self>, id: DeliveryId) -> bool {
        let again = Arc::clone(self);
        let written = tokio::task::spawn_blocking(move || again.write(id)).await;
        written.unwrap_or(false)
    }

    async fn write_all(self: &Arc<Self>, instance: usize) {
        let dirty: Vec<DeliveryId> = {
            let ledger = self.ledger();
            let here = ledger.entries.iter();
            here.filter(|(_, entry)| entry.instance == instance && entry.dirty)
                .map(|(id, _)| *id)
                .collect()
        };
        for id in dirty {
            if !self.write_one(id).await {
                return;
            }
        }
    }
}

/// Has Looker run a schedule, unless it is off there.
async fn call(looker: &Instance, schedule: &str) -> Answer {
    match looker.api.plan(schedule).await {
        Ok(plan) => {
            looker.answered(UnixMillis::now());
            if !plan.enabled && !plan.run_once {
                return Answer::Needless {
                    why: "The schedule is disabled in Looker.".to_owned(),
                };
            }
        }
        Err(error) => return refused(looker, &error, true),
    }
    match looker.api.run_once(schedule).await {
        Ok(plan) => Answer::Runs { plan },
        Err(error) => {
            let undone = error.is_surely_undone();
            refused(looker, &error, undone)
        }
    }
}

/// What a failed call means; `undone`: nothing can have been run.
fn refused(looker: &Instance, error: &ApiError, undone: bool) -> Answer {
    let why = format!("{}.", with_causes(error).trim_end_matches('.'));
    if error.is_of_the_looker() {
        looker.failed(error, &why, UnixMillis::now());
    } else {
        looker.answered(UnixMillis::now());
    }
    match error {
        _ if !undone => Answer::Unknown { why },
        ApiError::NotFound { .. } => Answer::Never {
            why:
                "The schedule is gone in Looker (a person's \"send now\" is gone once it has run)."
                    .to_owned(),
        },
        _ if error.is_of_the_looker() => Answer::NotNow { why },
        _ => Answer::Never { why },
    }
}
