//! The settings of each room, out of the configuration. No room takes the whole of it.

use std::sync::Arc;
use std::time::Duration;

use url::Url;

use super::{GRACE, StartError, WRITE_TIMEOUT, choices};
use crate::clock::Clock;
use crate::config::{self, Config, Secret};
use crate::looker_api::{self, LookerApi};
use crate::model::DataType;
use crate::mparticle::client::ClientSettings;
use crate::mparticle::encode;
use crate::net::descriptors;
use crate::outbox::postgres;
use crate::seal::{Keyring, Space};
use crate::telemetry::{self, Exporter, Telemetry};
use crate::tls::Identity;
use crate::{decode, drain, group, ingest, intake, mapping, notify, outbox};

/// Connections to the hub at once: far more than the schedules that begin at midnight.
const MOST_CONNECTIONS: usize = 1024;
/// From the first byte of a call of Looker's API to the last of its answer. System Activity is slow.
const LOOKER_API_TIMEOUT: Duration = Duration::from_secs(90);

pub(super) fn outbox_settings(config: &Config, keys: Arc<Keyring>) -> outbox::Settings {
    outbox::Settings {
        max_bytes: Some(config.outbox.max_bytes),
        reserve_bytes: config.outbox.reserve_bytes,
        segment_bytes: config.outbox.segment_bytes,
        webhook_memory: config.outbox.webhook_memory,
        rejected_rows: config.outbox.rejected_rows_kept,
        history: config.outbox.history as usize,
        ..outbox::Settings::new(&config.outbox.path, keys)
    }
}

/// Of the outbox that daemons share.
///
/// # Errors
/// Its address is of no use.
pub(crate) fn shared_settings(
    config: &Config,
    keys: Arc<Keyring>,
) -> Result<postgres::Settings, StartError> {
    let settings = &config.outbox;
    let url = settings.url.as_ref().map_or("", Secret::expose);
    let password = settings.password.as_ref().map(Secret::expose);
    Ok(postgres::Settings {
        pool: settings.pool,
        lease: settings.lease,
        allow_unreplicated: settings.allow_unreplicated,
        max_bytes: Some(settings.max_bytes),
        webhook_memory: settings.webhook_memory,
        rejected_rows: settings.rejected_rows_kept,
        history: settings.history as usize,
        ..postgres::Settings::new(postgres::Server::parse(url, password)?, name(), keys)
    })
}

/// What people call this daemon: its machine and process.
fn name() -> String {
    let host = rustix::system::uname();
    let host = host.nodename().to_string_lossy();
    format!("{host}/{}", std::process::id())
}

/// Off, unless a collector is configured.
pub(super) fn open_telemetry(
    config: &Config,
    trust: rustls::ClientConfig,
) -> (Telemetry, Option<Exporter>) {
    let settings = &config.telemetry;
    let Some(endpoint) = settings.otlp_endpoint.clone() else {
        return (Telemetry::off(), None);
    };
    let (telemetry, exporter) = Telemetry::new(telemetry::Settings {
        endpoint,
        ratio: settings.sample_ratio,
        trust,
    });
    (telemetry, Some(exporter))
}

pub(super) fn intake_settings(
    config: &Config,
    secret: config::Secret,
    trust: rustls::ClientConfig,
    identity: Option<Identity>,
) -> intake::Settings {
    intake::Settings {
        trust,
        identity: identity.map(Arc::new),
        intake: config.intake.clone(),
        action: config.action.clone(),
        looker: config.looker.clone(),
        secret,
        spool: Space::new(&config.outbox.path),
        deadline: config.shutdown.deadline,
        connections: connections(),
        write_timeout: WRITE_TIMEOUT,
    }
}

/// A delivery has a connection to the hub, one to Looker, and a file or two. A quarter of what the
/// system allows leaves some for everything else.
fn connections() -> usize {
    let quarter = descriptors::limit().map_or(usize::MAX, |limit| limit as usize / 4);
    quarter.clamp(MOST_CONNECTIONS / 16, MOST_CONNECTIONS)
}

/// The clients of the Lookers that can be asked; `trust` has one for each.
pub(crate) fn looker_apis(config: &Config, trust: Vec<rustls::ClientConfig>) -> Vec<LookerApi> {
    let instances = config.looker.api.instances.iter().zip(trust);
    let client = |(one, trust): (&config::LookerInstance, _)| {
        LookerApi::new(looker_api::Settings {
            url: one.url.clone(),
            client_id: one.client_id.clone(),
            client_secret: one.client_secret.clone(),
            trust,
            connect_timeout: config.looker.connect_timeout,
            timeout: LOOKER_API_TIMEOUT,
        })
    };
    instances.map(client).collect()
}

/// How Looker is asked again.
pub(super) fn again_settings(config: &Config, hub: &Url) -> super::again::Settings {
    let api = &config.looker.api;
    let base_url = config.intake.base_url.as_ref().unwrap_or(hub);
    super::again::Settings {
        policy: crate::again::Settings {
            tries: api.tries,
            within: api.within,
            pause: api.pause,
            pause_max: api.pause_max,
            arrival: api.arrival,
        },
        back: api.missed_back,
        check_every: api.missed_every,
        base_url: base_url.to_string(),
        max_deliveries: config.looker.max_deliveries,
    }
}

/// What deliveries are made with; `endpoint` is mParticle's base address.
pub(super) fn delivery_settings(config: &Config, endpoint: Url) -> choices::Settings {
    choices::Settings {
        endpoint,
        is_pod: config.mparticle.endpoint.is_none(),
        mapping: mapping_settings(&config.mparticle),
        data_plan: data_plan(&config.mparticle),
        ingest: ingest_settings(config),
        full_refresh: config.changes.full_refresh,
        hold_percent: config.hold.unusual_percent,
        hold_schedules: config.hold.schedules.clone(),
    }
}

/// How deliveries are worked on.
pub fn ingest_settings(config: &Config) -> ingest::Settings {
    let memory = group::Memory::new(config.memory.group_budget);
    ingest::Settings {
        decode: decode::Limits {
            max_depth: config.looker.max_depth,
            max_row_bytes: config.looker.max_row_bytes,
            max_header_bytes: config.looker.max_header_bytes,
            ..decode::Limits::default()
        },
        group: group::Settings {
            memory: memory.clone(),
            space: Space::new(&config.outbox.path),
        },
        admission: ingest::Admission::new(
            config.looker.max_deliveries,
            config.looker.queue_timeout,
            memory,
        ),
        encode: encode::Settings {
            max_batches_per_request: config.mparticle.max_batches_per_request,
            max_events_per_request: config.mparticle.max_events_per_request,
            max_request_bytes: config.mparticle.max_request_bytes,
            max_batch_bytes: config.mparticle.max_batch_bytes,
        },
    }
}

/// Who is told. The configuration has checked the addresses.
pub(super) fn notify_settings(
    config: &Config,
    trust: rustls::ClientConfig,
) -> Result<notify::Settings, StartError> {
    let settings = &config.notify;
    let (json, slack) = (notify::Form::Json, notify::Form::Slack);
    let (told, slack_told) = (
        settings.webhook_good_deliveries,
        settings.slack_good_deliveries,
    );
    let webhook = (&settings.webhook_url, json, told);
    let targets = [webhook, (&settings.slack_url, slack, slack_told)];
    let good = |choice| match choice {
        config::GoodDeliveries::Each => notify::Good::Each,
        config::GoodDeliveries::Digest => notify::Good::Digest,
        config::GoodDeliveries::Nothing => notify::Good::Nothing,
    };
    let targets = targets.into_iter().filter_map(|(url, form, choice)| {
        let url = url.as_ref()?.expose();
        Some(notify::Target::new(url, form, good(choice)))
    });
    let targets = targets.collect::<Result<_, _>>()?;
    Ok(notify::Settings {
        targets,
        patience: notify::Patience {
            down_millis: settings.down_after.as_millis() as u64,
            digest_millis: settings.digest_every.as_millis() as u64,
        },
        muted: settings.muted.clone(),
        schedules: settings.schedules.clone(),
        page: settings.page_url.clone(),
        trust,
        clock: Clock::default(),
    })
}

pub(super) fn client_settings(config: &Config) -> ClientSettings {
    ClientSettings {
        request_timeout: config.mparticle.request_timeout,
        connect_timeout: config.mparticle.connect_timeout,
        ..ClientSettings::default()
    }
}

pub(super) fn drain_settings(config: &Config) -> drain::Settings {
    let mparticle = &config.mparticle;
    let mut settings = drain::Settings::default();
    settings.lane.max_in_flight = mparticle.max_in_flight;
    settings.lane.max_age = mparticle.max_age;
    settings.lane.pace.batches_per_second = mparticle.batches_per_second;
    settings.lane.pace.burst = mparticle.max_batches_per_request as u32;
    let circuit = &mut settings.lane.circuit;
    circuit.backoff.base = mparticle.backoff_initial;
    circuit.backoff.cap = mparticle.backoff_max;
    circuit.probe.base = mparticle.backoff_initial;
    circuit.probe.cap = mparticle.backoff_max;
    circuit.retry_after_max = mparticle.retry_after_max;
    circuit.paused_probe = mparticle.paused_probe;
    circuit.pause_after_rejected = mparticle.pause_after_rejected;
    settings.reply_within = mparticle.request_timeout + mparticle.connect_timeout + GRACE;
    settings.deadline = config.shutdown.deadline;
    settings
}

/// The choices of the configuration; a delivery's own come on top.
pub(crate) fn mapping_settings(mparticle: &config::MparticleSettings) -> mapping::Settings {
    mapping::Settings {
        identity_names: mparticle.identity_names,
        untagged: mparticle.untagged,
        pivoted_measures: mparticle.pivoted_measures,
        trim_identities: mparticle.trim_identities,
        lowercase_email: mparticle.lowercase_email,
        strip_html: mparticle.strip_html,
        nulls: mparticle.null_attributes,
        historical: mparticle.historical_events,
        attribute_types: mparticle.attribute_types,
        placeholders: mapping::Placeholders::new(
            mparticle.placeholder_identities.iter().map(String::as_str),
        ),
        plausible: mapping::Plausible {
            earliest: mparticle.earliest_event,
            ahead: i64::try_from(mparticle.latest_event_ahead.as_millis()).unwrap_or(i64::MAX),
        },
        max_event_names: mparticle.max_event_names,
        // Each delivery has its own.
        ..mapping::Settings::new(DataType::User)
    }
}

/// The data plan of the configuration, if there is one.
pub(crate) fn data_plan(mparticle: &config::MparticleSettings) -> Option<encode::DataPlan> {
    Some(encode::DataPlan {
        id: mparticle.plan_id.clone()?,
        version: mparticle.plan_version,
    })
}
