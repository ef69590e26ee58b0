//! Deliveries that failed while nobody was there to receive them: found in Looker's System Activity.

use std::collections::BTreeMap;
use std::sync::Arc;

use sha2::{Digest, Sha256};

use super::ask::AskAgain;
use super::entry::listed;
use crate::again::Journal;
use crate::app::about::About;
use crate::causes::with_causes;
use crate::clock::UnixMillis;
use crate::looker_api::{ApiError, Job, JobStatus};
use crate::model::{DeliveryId, FailureKind};
use crate::outbox::{AttemptEnd, NewAttempt};

/// Clocks differ a little. Far less than any schedule's interval.
const LEEWAY: u64 = 30_000;

impl AskAgain {
    /// Reads what failed of late, writes down what never came here, and has it asked for.
    pub(super) async fn look_for_missed(self: &Arc<Self>, instance: usize) {
        let Some(looker) = self.instances.get(instance) else {
            return;
        };
        let now = UnixMillis::now();
        if self.settings.back.is_zero() || looker.down(now).is_some() {
            return;
        }
        let hub = match self.hub_of(instance).await {
            Ok(Some(hub)) => hub,
            Ok(None) => {
                return self.blind(
                    instance,
                    &format!(
                        "none of Looker's action hubs has the address {} (`intake.base_url`); `hub_id` in [looker.api] can name it",
                        self.settings.base_url
                    ),
                );
            }
            Err(error) => return self.cannot_see(instance, &error),
        };
        match looker.api.jobs(self.settings.back).await {
            Ok(jobs) => {
                looker.answered(UnixMillis::now());
                looker.change(|known| {
                    known.blind = None;
                    known.looked = Some(now);
                });
                let again = Arc::clone(self);
                let taken = tokio::task::spawn_blocking(move || {
                    again.take_missed(instance, &hub, &jobs, now);
                });
                if taken.await.is_err() {
                    tracing::error!("looking for missed deliveries has failed");
                }
            }
            Err(error) => self.cannot_see(instance, &error),
        }
    }

    /// This hub's id there.
    async fn hub_of(&self, instance: usize) -> Result<Option<String>, ApiError> {
        let Some(looker) = self.instances.get(instance) else {
            return Ok(None);
        };
        if let Some(hub) = &looker.hub {
            return Ok(Some(hub.clone()));
        }
        if let Some(hub) = looker.known().found_hub {
            return Ok(Some(hub));
        }
        let hub = looker.api.hub_at(&self.settings.base_url).await?;
        looker.answered(UnixMillis::now());
        looker.change(|known| known.found_hub.clone_from(&hub));
        Ok(hub)
    }

    fn cannot_see(&self, instance: usize, error: &ApiError) {
        let Some(looker) = self.instances.get(instance) else {
            return;
        };
        let why = with_causes(error);
        if error.is_of_the_looker() {
            looker.failed(error, &why, UnixMillis::now());
        } else {
            self.blind(instance, &why);
        }
    }

    /// Says once why missed deliveries are not looked for.
    fn blind(&self, instance: usize, why: &str) {
        let Some(looker) = self.instances.get(instance) else {
            return;
        };
        looker.change(|known| {
            if known.blind.as_deref() != Some(why) {
                tracing::warn!(
                    looker = looker.api.host(),
                    why,
                    "deliveries that failed while looker-feed was away are not looked for"
                );
                known.blind = Some(why.to_owned());
            }
        });
    }

    fn take_missed(&self, instance: usize, hub: &str, jobs: &[Job], now: UnixMillis) {
        // The newest run of each schedule counts: what has succeeded since need not be repeated.
        let mut newest: BTreeMap<&str, &Job> = BTreeMap::new();
        for job in jobs {
            let known = newest.entry(&job.plan).or_insert(job);
            if job.created > known.created {
                *known = job;
            }
        }
        let address = format!("{hub}::mparticle");
        let oldest = now.minus(self.settings.back);
        for job in newest.into_values() {
            let ours = job.destinations.contains(&address);
            let fails = job.status == JobStatus::Failure && job.created >= oldest;
            if ours && fails && !self.is_seen(instance, job, now) {
                self.take_one(instance, job, now);
            }
        }
    }

    /// Whether the daemon knows of this run: it received it, well or badly, or asked for it itself.
    fn is_seen(&self, instance: usize, job: &Job, now: UnixMillis) -> bool {
        let from = job.created.0.saturating_sub(LEEWAY);
        let until = job.finalized.unwrap_or(now).0.saturating_add(LEEWAY);
        let within = |at: UnixMillis| (from..=until).contains(&at.0);
        let titled = |title: &str| !job.name.is_empty() && title == job.name;
        // A run that was asked for, or that may be one: of a call whose answer was lost the plan is not
        // known.
        let asked = |title: &str, journal: &Journal| {
            let near = |at: UnixMillis| job.created.0.abs_diff(at.0) <= 2 * LEEWAY;
            journal.has_plan(&job.plan)
                || (titled(title)
                    && journal
                        .tries
                        .iter()
                        .any(|one| one.plan.is_none() && near(one.at)))
        };
        {
            let ledger = self.ledger();
            let mut here = ledger
                .entries
                .values()
                .filter(|one| one.instance == instance);
            if here.any(|entry| asked(&entry.title, &entry.journal)) {
                return true;
            }
        }
        // What cannot be read now is looked at the next time.
        let Ok(failed) = self.outbox.failed(None, usize::MAX) else {
            return true;
        };
        let known = failed.iter().any(|attempt| {
            let about = About::read(attempt);
            about.job.as_deref() == Some(&job.id)
                || (about.schedule.as_deref() == Some(&job.plan) && within(attempt.received))
                || Journal::read(&attempt.journal)
                    .is_some_and(|journal| asked(&attempt.title, &journal))
        });
        // One that was accepted here, and of which Looker did not hear; or one that came since.
        let Ok(committed) = self.committed_since(UnixMillis(from)) else {
            return true;
        };
        let accepted = committed.iter().any(|delivery| {
            let about = listed(delivery, &self.keys);
            titled(&delivery.title) || about.schedule.as_deref() == Some(&job.plan)
        });
        let receiving = self.outbox.receiving();
        known || accepted || receiving.iter().any(|one| titled(&one.title))
    }

    fn take_one(&self, instance: usize, job: &Job, now: UnixMillis) {
        let Some(looker) = self.instances.get(instance) else {
            return;
        };
        let about = About {
            hosts: vec![looker.api.host().to_owned()],
            schedule: Some(job.plan.clone()),
            job: Some(job.id.clone()),
            ..About::default()
        };
        let end = AttemptEnd {
            at: now,
            kind: FailureKind::Missed.number(),
            rows: 0,
            bytes: 0,
            message: "Looker says that this delivery failed, and it never came here: looker-feed was down, or could not be reached.".to_owned(),
        };
        let id = id_of(looker.api.host(), job);
        let new = NewAttempt {
            id,
            webhook: None,
            title: job.name.clone(),
            about: about.write(),
            received: job.created,
        };
        match self.outbox.record_failure(&new, end) {
            Ok(attempt) => {
                tracing::warn!(delivery = %id, schedule = job.plan, "a delivery failed while looker-feed was away");
                self.counts.add(FailureKind::Missed);
                self.failed(&attempt);
            }
            Err(error) => tracing::warn!(
                error = with_causes(&error),
                "a missed delivery could not be written down"
            ),
        }
    }
}

/// The id of a missed delivery: its time in front, as in any id, and then what tells Looker's run from others,
/// so that daemons on one outbox that find it at the same time write down one.
fn id_of(host: &str, job: &Job) -> DeliveryId {
    let mut hash = Sha256::new();
    for part in [host, &job.id] {
        hash.update((part.len() as u64).to_le_bytes());
        hash.update(part);
    }
    let mut id = [0; 16];
    id[..6].copy_from_slice(&job.created.0.to_be_bytes()[2..]);
    id[6..].copy_from_slice(&hash.finalize()[..10]);
    DeliveryId(id)
}
