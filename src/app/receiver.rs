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
use crate::ingest::{self, Progress};
use crate::intake::{self, Caller, Choices, NotReserved, Order, Receiver, Refusal, Source};
use crate::model::{DeliveryId, DestinationId, FailureKind};
use crate::mparticle::client::Account;
use crate::outbox::{self, NewAttempt, NewDelivery, Outbox};
use crate::seal::{KeyError, Keyring};
use crate::telemetry::Telemetry;

/// Characters of an API key that are shown to tell accounts apart.
const KEY_CHARACTERS_SHOWN: usize = 4;

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
    fn destination_of(&self, order: &Order) -> Option<String> {
        let endpoint = self.settings.endpoint_of(&order.choices).ok()?;
        Some(destination(&endpoint, &order.api_key).to_string())
    }

    /// What the outbox must know of a delivery before it begins.
    fn new_delivery(&self, id: DeliveryId, order: &Order) -> Result<NewDelivery, Refusal> {
        let endpoint = self.settings.endpoint_of(&order.choices)?;
        let failed = |error: KeyError| {
            tracing::error!(%error, "credentials cannot be sealed");
            refusal(
                FailureKind::Program,
                "looker-feed cannot keep the mParticle credentials safely, so it took nothing. Its log says why.",
            )
        };
        let origin = About {
            link: order.link.clone(),
            schedule: order.schedule_id.clone(),
            data: Some(data_of(order)),
            ..About::default()
        };
        let account = Account::new(
            endpoint.clone(),
            order.api_key.clone(),
            order.api_secret.expose().to_owned(),
        )
        .map_err(|error| refusal(FailureKind::Request, &error.to_string()))?;
        let sealed = self
            .keys
            .seal_text(&account.encode(), ACCOUNT_CONTEXT)
            .map_err(failed)?;
        Ok(NewDelivery {
            id,
            destination: destination(&endpoint, &order.api_key),
            destination_label: label(&endpoint, &order.api_key),
            account: sealed,
            webhook: order.webhook_id.clone(),
            title: order.title.clone(),
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
        order: Option<&Order>,
    ) -> Result<Reserved, NotReserved> {
        if self.readiness.is_stopping() {
            return Err(NotReserved::Refused(not_ready(NotReady::Stopping)));
        }
        let now = UnixMillis::now();
        let id = clock::new_delivery_id(now).map_err(|error| {
            NotReserved::Refused(refusal(FailureKind::Program, &error.to_string()))
        })?;
        let repeat = self.again.correlate(caller).await;
        let mut about = About::of(caller);
        about.repeat_of = repeat.as_ref().map(|repeat| repeat.of.to_string());
        if let Some(repeat) = &repeat {
            // What belongs to the schedule sees it as the schedule's.
            about.schedule.clone_from(&repeat.schedule);
        }
        if let Some(order) = order {
            about.destination = self.destination_of(order);
            about.data = Some(data_of(order));
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
            Err(_) => Err(NotReserved::Refused(refusal(
                FailureKind::Program,
                &IngestError::Panicked.to_string(),
            ))),
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
            Some(reserved) => reserved.fail(kind, message),
            None => self.failures.refused(caller, kind, message),
        }
    }

    async fn receive(
        &self,
        mut reserved: Reserved,
        order: Order,
        source: Source,
    ) -> Result<intake::Receipt, Refusal> {
        if let Some(destination) = self.destination_of(&order) {
            reserved.describe(&destination, &data_of(&order));
        }
        let received = self.receive_reserved(&reserved, order, source).await;
        match &received {
            Ok(_) => reserved.done(),
            Err(refusal) => reserved.fail(refusal.kind, &refusal.message),
        }
        received
    }
}

impl DeliveryReceiver {
    async fn receive_reserved(
        &self,
        reserved: &Reserved,
        mut order: Order,
        source: Source,
    ) -> Result<intake::Receipt, Refusal> {
        if let Some(schedule) = reserved.schedule() {
            order.schedule_id = Some(schedule.to_owned());
        }
        let delivery = self.new_delivery(reserved.id(), &order)?;
        let id = delivery.id;
        let changes = self.changes_of(&order, delivery.destination).await?;
        let progress = Arc::new(Progress::of(reserved.arrived()));
        let trace = Receiving::new(id, delivery.destination, order.data_type);
        let ingest_order = ingest::Order {
            delivery,
            mapping: self.settings.mapping_of(&order),
            more_columns: order.choices.more_columns.clone(),
            environment: order.environment,
            data_plan: self.settings.data_plan_of(&order.choices),
            changes,
        };
        let outcome = ingest::receive(
            ingest_order,
            source,
            self.outbox.clone(),
            self.settings.ingest.clone(),
            Arc::clone(&progress),
        )
        .await;
        if let Ok(receipt) = &outcome {
            self.arrivals.count(receipt);
        }
        trace.ended(&self.telemetry, &progress, &outcome);
        match outcome {
            Ok(receipt) => {
                tracing::info!(
                    rows = receipt.rows,
                    rejected = receipt.rejected,
                    unchanged = receipt.made.unchanged_rows,
                    users = receipt.made.users,
                    batches = receipt.made.batches,
                    requests = receipt.made.requests,
                    notes = receipt.notes.len(),
                    "delivery is durable"
                );
                Ok(intake::Receipt {
                    delivery: receipt.delivery,
                    rows: receipt.rows,
                    rejected: receipt.rejected,
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
fn data_of(order: &Order) -> String {
    format!("{:?}/{:?}", order.data_type, order.environment)
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
    let shown: String = api_key
        .chars()
        .skip(characters - KEY_CHARACTERS_SHOWN)
        .collect();
    format!("{host}, key …{shown}")
}
