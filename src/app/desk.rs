//! The desk between the rooms: takes deliveries from intake to the outbox, and keeps what the
//! admin side shows of them.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use sha2::{Digest, Sha256};
use url::Url;

use super::facts;
use super::traces::Receiving;
use crate::clock::{self, UnixMillis};
use crate::control::view;
use crate::drain;
use crate::ingest::{self, IngestError, Progress};
use crate::intake::{self, Choices, Order, Receiver, Refusal, Source, WebhookState};
use crate::mapping;
use crate::model::{DeliveryId, DestinationId};
use crate::mparticle::client::Account;
use crate::mparticle::encode::DataPlan;
use crate::outbox::{self, NewDelivery, Outbox};
use crate::seal::{KeyError, Keyring};
use crate::telemetry::Telemetry;

/// What credentials are sealed for.
pub const ACCOUNT_CONTEXT: &[u8] = b"looker-feed account v1";
/// What links back to Looker are sealed for: they name filters, and those can name people.
const LINK_CONTEXT: &[u8] = b"looker-feed link v1";
/// Characters of an API key that are shown to tell accounts apart.
const KEY_CHARACTERS_SHOWN: usize = 4;

/// What deliveries are made with.
#[derive(Debug)]
pub struct Settings {
    /// mParticle's base address.
    pub endpoint: Url,
    /// The address is that of a pod, so that a schedule may choose another one. An address of
    /// one's own (a stand-in, a proxy) is never left: a trial must not reach real data.
    pub is_pod: bool,
    /// The choices of a mapping, as far as a schedule makes none; the type of data is always the
    /// schedule's.
    pub mapping: mapping::Settings,
    /// The data plan, unless a schedule names one.
    pub data_plan: Option<DataPlan>,
    /// Bounds and memory of a delivery.
    pub ingest: ingest::Settings,
    /// Bound of the outbox.
    pub max_bytes: u64,
}

impl Settings {
    /// Where a delivery goes.
    fn endpoint_of(&self, choices: &Choices) -> Result<Url, Refusal> {
        let Some(pod) = choices.pod else {
            return Ok(self.endpoint.clone());
        };
        if !self.is_pod {
            return Err(refusal(
                "This looker-feed sends to one fixed address (`mparticle.endpoint` in its configuration), so a data center cannot be chosen. Choose \"As configured\" in the schedule.",
            ));
        }
        Url::parse(&pod.base_address()).map_err(|error| refusal(&error.to_string()))
    }

    fn mapping_of(&self, order: &Order) -> mapping::Settings {
        mapping::Settings {
            data_type: order.data_type,
            ..chosen(&order.choices, self.mapping)
        }
    }

    fn data_plan_of(&self, choices: &Choices) -> Option<DataPlan> {
        chosen_plan(choices, self.data_plan.as_ref())
    }
}

/// The mapping of a schedule that makes these choices, where this one is configured.
pub fn chosen(choices: &Choices, configured: mapping::Settings) -> mapping::Settings {
    mapping::Settings {
        untagged: choices.untagged.unwrap_or(configured.untagged),
        nulls: choices.null_attributes.unwrap_or(configured.nulls),
        skip_sent: choices.skip_sent,
        strip_html: choices.strip_html.unwrap_or(configured.strip_html),
        historical: choices.historical_events.unwrap_or(configured.historical),
        ..configured
    }
}

/// The data plan of a schedule that makes these choices, where this one is configured.
pub fn chosen_plan(choices: &Choices, configured: Option<&DataPlan>) -> Option<DataPlan> {
    match &choices.plan_id {
        Some(id) => Some(DataPlan {
            id: id.clone(),
            version: choices.plan_version,
        }),
        None => configured.cloned(),
    }
}

/// See the module's page.
pub struct Desk {
    pub(super) settings: Settings,
    pub(super) outbox: Outbox,
    pub(super) drain: drain::Handle,
    pub(super) started: UnixMillis,
    pub(super) counters: Counters,
    pub(super) telemetry: Telemetry,
    keys: Arc<Keyring>,
    receiving: Mutex<HashMap<DeliveryId, Incoming>>,
    stopping: AtomicBool,
}

/// Since the start of the daemon.
#[derive(Debug, Default)]
pub struct Counters {
    /// Deliveries committed.
    pub accepted: AtomicU64,
    /// Deliveries that failed.
    pub refused: AtomicU64,
    /// Rows of committed deliveries.
    pub rows_in: AtomicU64,
    /// Rows of them that were rejected.
    pub rows_rejected: AtomicU64,
}

/// A delivery that is being received.
#[derive(Clone, Debug)]
pub struct Incoming {
    /// The schedule's title.
    pub title: String,
    /// When it began.
    pub since: UnixMillis,
    /// How far it has come.
    pub progress: Arc<Progress>,
}

impl Desk {
    /// A desk for one outbox.
    pub fn new(
        settings: Settings,
        outbox: Outbox,
        keys: Arc<Keyring>,
        drain: drain::Handle,
        telemetry: Telemetry,
    ) -> Self {
        Self {
            settings,
            telemetry,
            outbox,
            drain,
            started: UnixMillis::now(),
            counters: Counters::default(),
            keys,
            receiving: Mutex::default(),
            stopping: AtomicBool::new(false),
        }
    }

    /// From now on nothing new is taken.
    pub fn stop(&self) {
        self.stopping.store(true, Ordering::Relaxed);
    }

    /// Whether the shutdown has begun.
    pub fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Relaxed)
    }

    /// What is being received at this moment, oldest first.
    pub fn incoming(&self) -> Vec<Incoming> {
        let mut incoming: Vec<_> = self.receiving().values().cloned().collect();
        incoming.sort_by_key(|incoming| incoming.since);
        incoming
    }

    fn receiving(&self) -> std::sync::MutexGuard<'_, HashMap<DeliveryId, Incoming>> {
        self.receiving
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

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
            link: order.link.as_deref().and_then(|link| self.seal_link(link)),
            received: UnixMillis::now(),
        })
    }

    fn seal_link(&self, link: &str) -> Option<String> {
        let sealed = self.keys.seal_text(link.as_bytes(), LINK_CONTEXT).ok()?;
        Some(BASE64.encode(sealed))
    }

    /// A delivery for the admin side. Its link is left out when its key was taken away since.
    pub(super) fn view(&self, state: outbox::DeliveryState) -> view::Delivery {
        let link = state.link.as_deref().and_then(|sealed| {
            let sealed = BASE64.decode(sealed).ok()?;
            let plain = self.keys.open_text(&sealed, LINK_CONTEXT).ok()?;
            String::from_utf8(plain.to_vec()).ok()
        });
        facts::delivery(state, link)
    }

    fn count(&self, outcome: &Result<ingest::Receipt, IngestError>) {
        let counters = &self.counters;
        let add = |counter: &AtomicU64, n| counter.fetch_add(n, Ordering::Relaxed);
        match outcome {
            Ok(receipt) => {
                add(&counters.accepted, 1);
                add(&counters.rows_in, receipt.rows);
                add(&counters.rows_rejected, receipt.rejected);
            }
            Err(_) => {
                add(&counters.refused, 1);
            }
        }
    }
}

impl Receiver for Desk {
    fn admit(&self) -> Result<(), Refusal> {
        if self.is_stopping() {
            return Err(refusal(
                "looker-feed is being stopped; send the delivery again.",
            ));
        }
        self.outbox
            .admit()
            .map_err(|error| refusal(&error.to_string()))
    }

    fn webhook(&self, id: &str) -> WebhookState {
        match self.outbox.webhook(id) {
            outbox::WebhookState::Unknown => WebhookState::Unknown,
            outbox::WebhookState::Receiving => WebhookState::Receiving,
            outbox::WebhookState::Committed(_, rows) => WebhookState::Committed { rows },
        }
    }

    async fn receive(&self, order: Order, source: Source) -> Result<intake::Receipt, Refusal> {
        let now = UnixMillis::now();
        let id = clock::new_delivery_id(now).map_err(|error| refusal(&error.to_string()))?;
        let delivery = self.new_delivery(id, &order)?;
        let progress = Arc::new(Progress::default());
        let _listed = Listed::enter(self, id, &order.title, now, &progress);
        let trace = Receiving::new(id, delivery.destination, order.data_type);
        let ingest_order = ingest::Order {
            delivery,
            mapping: self.settings.mapping_of(&order),
            environment: order.environment,
            data_plan: self.settings.data_plan_of(&order.choices),
        };
        let outcome = ingest::receive(
            ingest_order,
            source,
            self.outbox.clone(),
            self.settings.ingest.clone(),
            Arc::clone(&progress),
        )
        .await;
        self.count(&outcome);
        trace.ended(&self.telemetry, &progress, &outcome);
        match outcome {
            Ok(receipt) => {
                tracing::info!(
                    rows = receipt.rows,
                    rejected = receipt.rejected,
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

/// A delivery in the list of those that are being received, for as long as this lives.
struct Listed<'a> {
    desk: &'a Desk,
    id: DeliveryId,
}

impl<'a> Listed<'a> {
    fn enter(
        desk: &'a Desk,
        id: DeliveryId,
        title: &str,
        since: UnixMillis,
        progress: &Arc<Progress>,
    ) -> Self {
        let incoming = Incoming {
            title: title.to_owned(),
            since,
            progress: Arc::clone(progress),
        };
        desk.receiving().insert(id, incoming);
        Self { desk, id }
    }
}

impl Drop for Listed<'_> {
    fn drop(&mut self) {
        self.desk.receiving().remove(&self.id);
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
    // Of a short key, four characters would be most of it.
    let shown: String = if characters >= 4 * KEY_CHARACTERS_SHOWN {
        api_key
            .chars()
            .skip(characters - KEY_CHARACTERS_SHOWN)
            .collect()
    } else {
        String::new()
    };
    format!("{host}, key …{shown}")
}

fn refusal(message: &str) -> Refusal {
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
        IngestError::Group(_) | IngestError::Early(_) => "temporary space failed",
        IngestError::Thread(_) => "the system refused a thread",
        IngestError::Outbox(_) => "the outbox refused",
        IngestError::Stopped => "the daemon is being stopped",
        IngestError::Panicked => "a mistake in looker-feed",
    }
}

/// An error and what caused it, as one line.
pub(crate) fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = error.to_string();
        // Some errors print their cause themselves.
        if !text.contains(&more) {
            text.push_str(": ");
            text.push_str(&more);
        }
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Historical, Nulls, Pod, Untagged};
    use crate::group;
    use crate::model::DataType;

    fn settings(is_pod: bool) -> Settings {
        Settings {
            endpoint: Url::parse("https://s2s.us1.mparticle.com/v2").unwrap(),
            is_pod,
            mapping: mapping::Settings {
                untagged: Untagged::UserAttribute,
                trim_identities: true,
                ..mapping::Settings::new(DataType::User)
            },
            data_plan: Some(DataPlan {
                id: "ours".to_owned(),
                version: Some(1),
            }),
            ingest: ingest::Settings {
                decode: crate::decode::Limits::default(),
                group: group::Settings {
                    budget: 1,
                    directory: std::path::PathBuf::new(),
                },
                encode: crate::mparticle::encode::Settings::default(),
            },
            max_bytes: 1,
        }
    }

    fn order(choices: Choices) -> Order {
        Order {
            api_key: "k".to_owned(),
            api_secret: crate::config::Secret::new("s".to_owned()),
            data_type: DataType::Event,
            environment: crate::model::Environment::Production,
            webhook_id: None,
            title: String::new(),
            link: None,
            instance: None,
            schedule_id: None,
            choices,
        }
    }

    #[test]
    fn a_schedule_goes_to_the_pod_that_it_chooses_and_never_leaves_a_fixed_address() {
        let eu = Choices {
            pod: Some(Pod::Eu1),
            ..Choices::default()
        };
        let chosen = settings(true).endpoint_of(&eu).unwrap();
        assert_eq!(chosen.as_str(), "https://s2s.eu1.mparticle.com/v2");
        let refused = settings(false).endpoint_of(&eu).unwrap_err();
        assert!(refused.message.contains("fixed address"), "{refused}");
        for is_pod in [true, false] {
            let kept = settings(is_pod).endpoint_of(&Choices::default()).unwrap();
            assert_eq!(kept.as_str(), "https://s2s.us1.mparticle.com/v2");
        }
    }

    #[test]
    fn what_a_schedule_does_not_choose_is_as_it_is_configured() {
        let settings = settings(true);
        let kept = settings.mapping_of(&order(Choices::default()));
        assert_eq!(kept.data_type, DataType::Event);
        assert_eq!(kept.untagged, Untagged::UserAttribute);
        assert_eq!((kept.nulls, kept.skip_sent), (Nulls::Omit, false));
        assert_eq!(
            settings.data_plan_of(&Choices::default()),
            settings.data_plan
        );

        let choices = Choices {
            untagged: Some(Untagged::Ignore),
            null_attributes: Some(Nulls::Delete),
            historical_events: Some(Historical::Never),
            skip_sent: true,
            plan_id: Some("theirs".to_owned()),
            ..Choices::default()
        };
        let chosen = settings.mapping_of(&order(choices.clone()));
        assert_eq!(chosen.untagged, Untagged::Ignore);
        assert_eq!((chosen.nulls, chosen.skip_sent), (Nulls::Delete, true));
        assert_eq!(kept.historical, Historical::Auto);
        assert_eq!(chosen.historical, Historical::Never);
        assert!(chosen.trim_identities);
        let plan = settings.data_plan_of(&choices);
        assert_eq!(
            plan,
            Some(DataPlan {
                id: "theirs".to_owned(),
                version: None,
            })
        );
    }
}
