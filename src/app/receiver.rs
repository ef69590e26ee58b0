//! Takes deliveries from intake to the outbox.

use std::sync::Arc;

use sha2::{Digest, Sha256};
use url::Url;

use super::about::About;
use super::again::AskAgain;
use super::arrivals::Arrivals;
use super::choices::Settings;
use super::failed::{Failures, Reserved};
use super::keys::{self, ACCOUNT_CONTEXT};
use super::readiness::{NotReady, Readiness};
use super::refusal::{kind, not_ready, refusal};
use super::traces::Receiving;
use crate::causes::with_causes;
use crate::changes::Changes;
use crate::clock::{self, UnixMillis};
use crate::ingest::{self, IngestError, Progress};
use crate::intake::{
    self, Caller, Choices, DeliveryRequest, NotReserved, Receiver, Refusal, Source,
};
use crate::model::{DeliveryId, DestinationId, FailureKind};
use crate::mparticle::client::Account;
use crate::outbox::{self, NewAttempt, NewDelivery, Outbox};
use crate::seal::{KeyError, Keyring};
use crate::telemetry::Telemetry;

/// Characters of an API key that are shown to tell accounts apart.
const KEY_CHARACTERS_SHOWN: usize = 4;

/// What Looker's owner is told of a failed delivery that need not be sent by hand.
const ASKED_FOR: &str = "You need do nothing: looker-feed will have Looker run it again.";

/// What stands behind the hub; see the module's page.
pub(super) struct DeliveryReceiver {
    pub settings: Settings,
    pub outbox: Outbox,
    pub keys: Arc<Keyring>,
    pub changes: Changes,
    pub telemetry: Telemetry,
    pub readiness: Arc<Readiness>,
    pub arrivals: Arc<Arrivals>,
    pub failures: Arc<Failures>,
    pub again: Arc<AskAgain>,
}

impl DeliveryReceiver {
    /// Where a delivery goes, if that can be told.
    fn destination_of(&self, request: &DeliveryRequest) -> Option<String> {
        let endpoint = self.settings.endpoint_of(&request.choices).ok()?;
        Some(destination(&endpoint, &request.api_key).to_string())
    }

    /// What the outbox must know of a delivery before it begins.
    fn new_delivery(
        &self,
        id: DeliveryId,
        request: &DeliveryRequest,
    ) -> Result<NewDelivery, Refusal> {
        let endpoint = self.settings.endpoint_of(&request.choices)?;
        let failed = |error: KeyError| {
            tracing::error!(%error, "credentials cannot be sealed");
            refusal(
                FailureKind::Program,
                "looker-feed cannot keep the mParticle credentials safely, so it took nothing. Its log says why.",
            )
        };
        let origin = About {
            link: request.link.clone(),
            schedule: request.schedule_id.clone(),
            data: Some(data_of(request)),
            ..About::default()
        };
        let secret = request.api_secret.expose().to_owned();
        let account = Account::new(endpoint.clone(), request.api_key.clone(), secret)
            .map_err(|error| refusal(FailureKind::Request, &error.to_string()))?;
        let sealed = self.keys.seal_text(&account.encode(), ACCOUNT_CONTEXT);
        let sealed = sealed.map_err(failed)?;
        Ok(NewDelivery {
            id,
            destination: destination(&endpoint, &request.api_key),
            destination_label: label(&endpoint, &request.api_key),
            account: sealed,
            webhook: request.webhook_id.clone(),
            title: request.title.clone(),
            link: keys::seal_origin(&self.keys, &origin),
            received: UnixMillis::now(),
        })
    }
}

impl Receiver for DeliveryReceiver {
    type Reservation = Reserved;

    fn admit(&self) -> Result<(), Refusal> {
        self.readiness.admit().map_err(not_ready)
    }

    fn allows(&self, choices: &Choices) -> Result<(), Refusal> {
        self.settings.endpoint_of(choices).map(|_| ())
    }

    async fn reserve(
        &self,
        caller: &Caller,
        request: Option<&DeliveryRequest>,
    ) -> Result<Reserved, NotReserved> {
        if self.readiness.is_stopping() {
            return Err(NotReserved::Refused(not_ready(NotReady::Stopping)));
        }
        let broken = |error: &dyn std::fmt::Display| {
            NotReserved::Refused(refusal(FailureKind::Program, &error.to_string()))
        };
        let now = UnixMillis::now();
        let id = clock::new_delivery_id(now).map_err(|error| broken(&error))?;
        let data = request.map(data_of);
        let repeat = self.again.correlate(caller, data.as_deref()).await;
        let mut about = About::of(caller);
        about.repeat_of = repeat.as_ref().map(|repeat| repeat.of.to_string());
        if let Some(repeat) = &repeat {
            // What belongs to the schedule sees it as the schedule's.
            about.schedule.clone_from(&repeat.schedule);
        }
        if let Some(request) = request {
            about.destination = self.destination_of(request);
            about.data = data;
        }
        let new = NewAttempt {
            id,
            webhook: caller.webhook_id.clone(),
            title: caller.title.clone(),
            about: about.write(),
            received: now,
        };
        let (outbox, again) = (self.outbox.clone(), Arc::clone(&self.again));
        let reserved = tokio::task::spawn_blocking(move || {
            let reservation = outbox.reserve(new)?;
            if let Some(repeat) = repeat {
                again.arrived(repeat.of, id);
            }
            Ok(reservation)
        })
        .await;
        match reserved {
            Ok(Ok(reservation)) => {
                let title = caller.title.clone();
                Ok(self.failures.reserved(reservation, title, about, now))
            }
            Ok(Err(outbox::Error::Webhook(outbox::WebhookState::Receiving))) => {
                Err(NotReserved::Receiving)
            }
            Ok(Err(outbox::Error::Webhook(outbox::WebhookState::Committed(_, rows)))) => {
                Err(NotReserved::Committed { rows })
            }
            Ok(Err(error)) => Err(NotReserved::Refused(not_ready(NotReady::Outbox(error)))),
            Err(_) => Err(broken(&IngestError::Panicked)),
        }
    }

    async fn turn(&self) -> Result<(), Refusal> {
        let free = self.settings.ingest.admission.free().await;
        free.map_err(|error| refusal(kind(&error), &error.to_string()))
    }

    fn failed(
        &self,
        reservation: Option<Reserved>,
        caller: &Caller,
        kind: FailureKind,
        message: &str,
    ) {
        match reservation {
            Some(reserved) => {
                reserved.fail(kind, message);
            }
            None => self.failures.refused(caller, kind, message),
        }
    }

    async fn receive(
        &self,
        mut reserved: Reserved,
        request: DeliveryRequest,
        source: Source,
    ) -> Result<intake::Accepted, Refusal> {
        if let Some(destination) = self.destination_of(&request) {
            reserved.describe(&destination, &data_of(&request));
        }
        match self.receive_reserved(&reserved, request, source).await {
            Ok(accepted) => {
                reserved.done();
                Ok(accepted)
            }
            Err(mut refusal) => {
                if reserved.fail(refusal.kind, &refusal.message) {
                    let why = refusal.message.trim_end_matches('.');
                    refusal.message = format!("{why}. {ASKED_FOR}");
                }
                Err(refusal)
            }
        }
    }
}

impl DeliveryReceiver {
    async fn receive_reserved(
        &self,
        reserved: &Reserved,
        mut request: DeliveryRequest,
        source: Source,
    ) -> Result<intake::Accepted, Refusal> {
        if let Some(schedule) = reserved.schedule() {
            request.schedule_id = Some(schedule.to_owned());
        }
        let delivery = self.new_delivery(reserved.id(), &request)?;
        let id = delivery.id;
        let changes = self.changes_of(&request, delivery.destination).await?;
        let usual = self.usual_of(&delivery.title, delivery.destination).await;
        let progress = Arc::new(Progress::of(reserved.arrived()));
        let trace = Receiving::new(id, delivery.destination, request.data_type);
        let incoming = ingest::Incoming {
            delivery,
            mapping: self.settings.mapping_of(&request),
            more_columns: request.choices.more_columns.clone(),
            environment: request.environment,
            data_plan: self.settings.data_plan_of(&request.choices),
            changes,
            usual,
        };
        let outcome = ingest::receive(
            incoming,
            source,
            self.outbox.clone(),
            self.settings.ingest.clone(),
            Arc::clone(&progress),
        )
        .await;
        if let Ok(ingested) = &outcome {
            self.arrivals.count(ingested);
        }
        trace.ended(&self.telemetry, &progress, &outcome);
        match outcome {
            Ok(ingested) => {
                tracing::info!(
                    rows = ingested.rows,
                    rejected = ingested.rejected,
                    unchanged = ingested.made.unchanged_rows,
                    users = ingested.made.users,
                    batches = ingested.made.batches,
                    requests = ingested.made.requests,
                    notes = ingested.notes.len(),
                    "delivery is durable"
                );
                Ok(intake::Accepted {
                    delivery: ingested.delivery,
                    rows: ingested.rows,
                    rejected: ingested.rejected,
                })
            }
            Err(error) => {
                let (message, kind) = (with_causes(&error), kind(&error));
                // What the document or its sender got wrong may quote the document.
                tracing::warn!(
                    rows = progress.rows(),
                    bytes = progress.bytes(),
                    kind = kind.name(),
                    "delivery failed; nothing of it is kept"
                );
                Err(refusal(kind, &message))
            }
        }
    }
}

/// What tells two schedules of one Look apart that go to one destination.
fn data_of(request: &DeliveryRequest) -> String {
    format!("{:?}/{:?}", request.data_type, request.environment)
}

/// Credentials and address together, as a name that gives neither away.
fn destination(endpoint: &Url, api_key: &str) -> DestinationId {
    let mut hash = Sha256::new();
    hash.update(endpoint.as_str());
    hash.update([0]);
    hash.update(api_key);
    let mut id = [0; 16];
    id.copy_from_slice(&hash.finalize()[..16]);
    DestinationId(id)
}

/// Host and the end of the key: enough for a person to know which account it is.
fn label(endpoint: &Url, api_key: &str) -> String {
    let host = endpoint.host_str().unwrap_or("mParticle");
    let characters = api_key.chars().count();
    // Of a short key, four characters would be most of it: such accounts are told apart by the
    // beginning of the destination's id.
    if characters < 4 * KEY_CHARACTERS_SHOWN {
        let id = destination(endpoint, api_key).to_string();
        let id: String = id.chars().take(KEY_CHARACTERS_SHOWN).collect();
        return format!("{host}, a short key, destination {id}…");
    }
    let shown = api_key.chars().skip(characters - KEY_CHARACTERS_SHOWN);
    let shown: String = shown.collect();
    format!("{host}, key …{shown}")
}
