//! Takes deliveries from intake to the outbox.

use std::sync::Arc;

use sha2::{Digest, Sha256};
use url::Url;

use super::arrivals::Arrivals;
use super::choices::Settings;
use super::keys::{self, ACCOUNT_CONTEXT};
use super::readiness::Readiness;
use super::traces::Receiving;
use crate::causes::with_causes;
use crate::changes::Changes;
use crate::clock::{self, UnixMillis};
use crate::ingest::{self, IngestError, Progress};
use crate::intake::{self, Choices, Order, Receiver, Refusal, Source, WebhookState};
use crate::model::{DeliveryId, DestinationId};
use crate::mparticle::client::Account;
use crate::outbox::{self, NewDelivery, Outbox};
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
}

impl DeliveryReceiver {
    /// What the outbox must know of a delivery before it begins.
    fn new_delivery(&self, id: DeliveryId, order: &Order) -> Result<NewDelivery, Refusal> {
        let endpoint = self.settings.endpoint_of(&order.choices)?;
        let failed = |error: KeyError| {
            tracing::error!(%error, "credentials cannot be sealed");
            refusal(
                "looker-feed cannot keep the mParticle credentials safely, so it took nothing. Its log says why.",
            )
        };
        let account = Account::new(
            endpoint.clone(),
            order.api_key.clone(),
            order.api_secret.expose().to_owned(),
        )
        .map_err(|error| refusal(&error.to_string()))?;
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
            link: order
                .link
                .as_deref()
                .and_then(|link| keys::seal_link(&self.keys, link)),
            received: UnixMillis::now(),
        })
    }
}

impl Receiver for DeliveryReceiver {
    fn admit(&self) -> Result<(), Refusal> {
        let ready = self.readiness.admit();
        ready.map_err(|error| refusal(&error.to_string()))
    }

    fn allows(&self, choices: &Choices) -> Result<(), Refusal> {
        self.settings.endpoint_of(choices).map(|_| ())
    }

    fn webhook(&self, id: &str) -> WebhookState {
        match self.outbox.webhook(id) {
            outbox::WebhookState::Unknown => WebhookState::Unknown,
            outbox::WebhookState::Receiving => WebhookState::Receiving,
            outbox::WebhookState::Committed(_, rows) => WebhookState::Committed { rows },
        }
    }

    async fn turn(&self) -> Result<(), Refusal> {
        let free = self.settings.ingest.admission.free().await;
        free.map_err(|error| refusal(&error.to_string()))
    }

    async fn receive(&self, order: Order, source: Source) -> Result<intake::Receipt, Refusal> {
        let now = UnixMillis::now();
        let id = clock::new_delivery_id(now).map_err(|error| refusal(&error.to_string()))?;
        let delivery = self.new_delivery(id, &order)?;
        let changes = self.changes_of(&order, delivery.destination).await?;
        let progress = Arc::new(Progress::default());
        let _listed = self.arrivals.enter(id, &order.title, now, &progress);
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
        self.arrivals.count(&outcome);
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
                let message = with_causes(&error);
                // What the document or its sender got wrong may quote the document.
                tracing::warn!(
                    rows = progress.rows(),
                    bytes = progress.bytes(),
                    kind = kind(&error),
                    "delivery failed; nothing of it is kept"
                );
                Err(refusal(&message))
            }
        }
    }
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

pub(super) fn refusal(message: &str) -> Refusal {
    Refusal {
        message: message.to_owned(),
    }
}

/// What failed, for a log that must not quote the delivery.
pub(super) fn kind(error: &IngestError) -> &'static str {
    match error {
        IngestError::Stream { .. } => "the stream broke off",
        IngestError::Decode(_) => "the document is not valid or not whole",
        IngestError::Query(_) => "Looker's query failed",
        IngestError::Plan(_) => "the columns do not fit",
        IngestError::NothingToSend { .. } => "no row can be sent",
        IngestError::Changes(_) => "only changes cannot be sent",
        IngestError::Group(_) | IngestError::Early(_) => "temporary space failed",
        IngestError::Thread(_) => "the system refused a thread",
        IngestError::Outbox(_) => "the outbox refused",
        IngestError::Busy { .. } => "no place became free",
        IngestError::Stopped => "the daemon is being stopped",
        IngestError::Panicked => "a mistake in looker-feed",
    }
}
