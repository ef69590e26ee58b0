//! Configuration: three layers of raw values in, settings that cannot be wrong out.
//!
//! All defaults live in one shipped file, [`DEFAULTS`]; a user's file lies over it, and the
//! environment over both. A key is named once in [`load`], where it gets its type and its bounds,
//! so that the keys that exist are exactly the keys that are read. There is no serde mirror of the
//! file: its errors could not name a variable, a place and what is accepted, and would quote the
//! line that holds a secret.

mod accept;
mod error;
mod found;
mod hosts;
mod layers;
mod looker_api;
mod raw;
mod relations;
mod secret;
mod settings;
mod values;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::Duration;

pub use error::{ConfigError, Origin};
pub use found::Found;
pub use hosts::AllowedHost;
pub use looker_api::{LookerApiSettings, LookerInstance};
pub use secret::{NamedSecret, Secret};
pub use settings::{
    ActionSettings, AdminSettings, ChangesSettings, FormKind, GoodDeliveries, HoldSettings,
    IntakeSettings, LogFormat, LogSettings, LookerSettings, MemorySettings, MparticleSettings,
    NotifySettings, OutboxBackend, OutboxSettings, Pod, SealSettings, ShutdownSettings,
    TelemetrySettings,
};

pub use crate::mapping::{
    AttributeTypes, Historical, IdentityNames, MoreColumns, MoreColumnsError, Nulls,
    PivotedMeasures, Untagged, identity_tags,
};

use crate::outbox;
use accept::{accept, read, secret_of};
use layers::Layers;
use raw::{Entry, Raw};
use relations::check_relations;
use values::{
    address, addresses, base_url, collector, day, duration, endpoint, events, header, hosts,
    is_callback, line, named_secrets, names, nonces, path, paths, placeholders, role, secrets,
    share, size, titles, truth, user_attribute, whole, word,
};

/// The shipped file: every key with its default and what it means.
pub const DEFAULTS: &str = include_str!("../../config/looker-feed.toml");

/// The shortest admin token, in characters.
const TOKEN_LENGTH: usize = 16;

/// mParticle's documented limits (256 KB and 128 KB), in the larger reading of "KB".
const REQUEST_BYTES_LIMIT: u64 = 256 << 10;
const BATCH_BYTES_LIMIT: u64 = 128 << 10;

/// Everything that can be set, checked.
#[derive(Clone, Debug)]
#[allow(missing_docs)]
pub struct Config {
    pub intake: IntakeSettings,
    pub action: ActionSettings,
    pub looker: LookerSettings,
    pub outbox: OutboxSettings,
    pub mparticle: MparticleSettings,
    pub changes: ChangesSettings,
    pub memory: MemorySettings,
    pub hold: HoldSettings,
    pub admin: AdminSettings,
    pub notify: NotifySettings,
    pub telemetry: TelemetrySettings,
    pub log: LogSettings,
    pub shutdown: ShutdownSettings,
    pub seal: SealSettings,
    pub found: Vec<Found>,
}

impl Config {
    /// The hub's secret, for those who cannot go on without it.
    pub fn require_secret(&self) -> Result<&Secret, ConfigError> {
        self.intake.secret.as_ref().ok_or(ConfigError::NoSecret)
    }
}

/// Reads the shipped defaults, `file` and the variables of `env` that begin `LOOKER_FEED_`, each
/// over the one before. Nothing is opened but `file` and the file that `intake.secret_file` names.
///
/// # Errors
/// A file cannot be read; a key is unknown, has a value that it does not take, or does not go
/// together with another. The error names the key and the place; several are told at once.
pub fn load(
    file: Option<&Path>,
    env: impl Iterator<Item = (String, String)>,
) -> Result<Config, ConfigError> {
    let text = file
        .map(|path| read("the configuration file", path, None).map(|text| (text, path)))
        .transpose()?;
    let variables: Vec<_> = env.collect();
    let mut wrong: Vec<ConfigError> = Vec::new();
    // A value that is wrong is left out, so that the others are looked at too.
    let mut without = BTreeSet::new();
    loop {
        let mut layers = Layers::default();
        layers.file(DEFAULTS, None)?;
        layers.without.clone_from(&without);
        if let Some((text, path)) = &text {
            layers.file(text.expose(), Some(path))?;
        }
        layers.environment(variables.iter().cloned());
        match typed(&mut layers) {
            Ok(mut config) => {
                config.found = layers.found();
                let values = wrong.len();
                wrong.extend(layers.finish());
                if values == 0 {
                    wrong.extend(check_relations(&config));
                }
                return match wrong.len() {
                    0 => Ok(config),
                    _ => Err(ConfigError::all(wrong)),
                };
            }
            Err(error) => match error.key() {
                Some(key) if without.insert(key) => wrong.push(error),
                Some(_) if !wrong.is_empty() => return Err(ConfigError::all(wrong)),
                _ => return Err(error),
            },
        }
    }
}

fn typed(layers: &mut Layers) -> Result<Config, ConfigError> {
    let mut of = Keys(layers);
    Ok(Config {
        intake: IntakeSettings {
            listen: of.key("intake.listen", address)?,
            base_url: of.maybe("intake.base_url", base_url)?,
            label: of.key("intake.label", line)?,
            secret: of.secret("intake.secret", "intake.secret_file")?,
            previous_secrets: of.hidden("intake.previous_secrets", secrets)?,
            revoked_keys: of.hidden("intake.revoked_keys", nonces)?,
            tls_cert: of.maybe("intake.tls_cert", path)?,
            tls_key: of.maybe("intake.tls_key", path)?,
            keep_alive: of.key("intake.keep_alive", duration(millis(10)..=hours(1)))?,
        },
        action: ActionSettings {
            form: of.key("action.form", word(FORMS))?,
            require_identity_tag: of.key("action.require_identity_tag", truth)?,
            api_key_attribute: of.maybe("action.api_key_attribute", user_attribute)?,
            api_secret_attribute: of.maybe("action.api_secret_attribute", user_attribute)?,
        },
        looker: LookerSettings {
            allowed_hosts: of.key("looker.allowed_hosts", hosts)?,
            ca_file: of.maybe("looker.ca_file", path)?,
            connect_timeout: of.key("looker.connect_timeout", wait())?,
            idle_timeout: of.key("looker.idle_timeout", wait())?,
            max_deliveries: of.key("looker.max_deliveries", whole(1..=1000))?,
            queue_timeout: of.key("looker.queue_timeout", wait())?,
            max_row_bytes: of.key("looker.max_row_bytes", bytes(1 << 10..=1 << 30))?,
            max_depth: of.key("looker.max_depth", whole(8..=128))?,
            max_header_bytes: of.key("looker.max_header_bytes", bytes(1 << 10..=1 << 30))?,
            api: LookerApiSettings {
                instances: of.lookers()?,
                tries: of.key("looker.api.tries", whole(1..=20))?,
                within: of.key("looker.api.within", duration(millis(1000)..=days(30)))?,
                pause: of.key("looker.api.pause", wait())?,
                pause_max: of.key("looker.api.pause_max", wait())?,
                arrival: of.key("looker.api.arrival", wait())?,
                missed_back: of.key("looker.api.missed_back", duration(millis(0)..=days(30)))?,
                missed_every: of.key("looker.api.missed_every", duration(millis(100)..=days(1)))?,
            },
        },
        outbox: OutboxSettings {
            backend: of.key("outbox.backend", word(BACKENDS))?,
            url: of.hidden_text("outbox.url")?,
            password: of.secret_file("outbox.password_file")?,
            pool: of.key("outbox.pool", whole(2..=1000))?,
            lease: of.key("outbox.lease", duration(millis(3000)..=minutes(5)))?,
            allow_unreplicated: of.key("outbox.allow_unreplicated", truth)?,
            path: of.key("outbox.path", path)?,
            max_bytes: of.key("outbox.max_bytes", size(1 << 16..=1 << 50))?,
            reserve_bytes: of.key("outbox.reserve_bytes", size(0..=1 << 50))?,
            segment_bytes: of.key(
                "outbox.segment_bytes",
                size(outbox::Settings::SEGMENT_BYTES),
            )?,
            webhook_memory: of.key("outbox.webhook_memory", duration(hours(1)..=days(3650)))?,
            rejected_rows_kept: of.key("outbox.rejected_rows_kept", whole(0..=1_000_000))?,
            history: of.key("outbox.history", whole(1..=1_000_000))?,
        },
        mparticle: MparticleSettings {
            pod: of.key("mparticle.pod", word(PODS))?,
            endpoint: of.maybe("mparticle.endpoint", endpoint)?,
            ca_file: of.maybe("mparticle.ca_file", path)?,
            batches_per_second: of.key("mparticle.batches_per_second", whole(1..=1_000_000))?,
            max_in_flight: of.key("mparticle.max_in_flight", whole(1..=1000))?,
            request_timeout: of.key("mparticle.request_timeout", wait())?,
            connect_timeout: of.key("mparticle.connect_timeout", wait())?,
            max_batches_per_request: of.key("mparticle.max_batches_per_request", whole(1..=100))?,
            max_events_per_request: of.key("mparticle.max_events_per_request", whole(1..=100))?,
            max_request_bytes: of.key(
                "mparticle.max_request_bytes",
                bytes(256..=REQUEST_BYTES_LIMIT),
            )?,
            max_batch_bytes: of.key("mparticle.max_batch_bytes", bytes(256..=BATCH_BYTES_LIMIT))?,
            identity_names: of.key("mparticle.identity_names", word(IDENTITY_NAMES))?,
            untagged: of.key("mparticle.untagged", word(UNTAGGED))?,
            pivoted_measures: of.key("mparticle.pivoted_measures", word(PIVOTED))?,
            historical_events: of.key("mparticle.historical_events", word(HISTORICAL))?,
            null_attributes: of.key("mparticle.null_attributes", word(NULLS))?,
            trim_identities: of.key("mparticle.trim_identities", truth)?,
            lowercase_email: of.key("mparticle.lowercase_email", truth)?,
            strip_html: of.key("mparticle.strip_html", truth)?,
            attribute_types: of.key("mparticle.attribute_types", word(TYPES))?,
            placeholder_identities: of.key("mparticle.placeholder_identities", placeholders)?,
            earliest_event: of.key("mparticle.earliest_event", day)?,
            latest_event_ahead: of.key(
                "mparticle.latest_event_ahead",
                duration(millis(0)..=days(36_500)),
            )?,
            max_event_names: of.key("mparticle.max_event_names", whole(1..=100_000))?,
            plan_id: of.maybe("mparticle.plan_id", line)?,
            plan_version: of.maybe("mparticle.plan_version", whole(1..=u32::MAX))?,
            backoff_initial: of.key("mparticle.backoff_initial", wait())?,
            backoff_max: of.key("mparticle.backoff_max", wait())?,
            retry_after_max: of.key("mparticle.retry_after_max", wait())?,
            paused_probe: of.key("mparticle.paused_probe", wait())?,
            pause_after_rejected: of.key("mparticle.pause_after_rejected", whole(0..=1_000_000))?,
            max_age: of.maybe("mparticle.max_age", duration(millis(1000)..=days(3650)))?,
        },
        changes: ChangesSettings {
            path: of.maybe("changes.path", path)?,
            full_refresh: of.key("changes.full_refresh", duration(hours(1)..=days(3650)))?,
            max_bytes: of.key("changes.max_bytes", size(1 << 16..=1 << 50))?,
            forget_after: of.key("changes.forget_after", duration(hours(1)..=days(3650)))?,
            max_drop_percent: of.key("changes.max_drop_percent", whole(1..=100))?,
        },
        hold: HoldSettings {
            unusual_percent: of.key("hold.unusual_percent", whole(0..=1_000_000))?,
            schedules: of.key("hold.schedules", titles)?,
        },
        memory: MemorySettings {
            group_budget: of.key("memory.group_budget", bytes(64 << 10..=1 << 40))?,
        },
        admin: AdminSettings {
            listen: of.key("admin.listen", address)?,
            token: of.secret("admin.token", "admin.token_file")?,
            tokens: of.hidden("admin.tokens", named_secrets)?,
            hosts: of.key("admin.hosts", names)?,
            user_header: of.maybe("admin.user_header", header)?,
            user_header_from: of.key("admin.user_header_from", addresses)?,
            user_header_may_act: of.key("admin.user_header_role", role)?,
        },
        notify: NotifySettings {
            webhook_url: of.callback("notify.webhook_url", "notify.webhook_url_file")?,
            slack_url: of.callback("notify.slack_url", "notify.slack_url_file")?,
            webhook_good_deliveries: of.key("notify.webhook_good_deliveries", word(GOOD))?,
            slack_good_deliveries: of.key("notify.slack_good_deliveries", word(GOOD))?,
            digest_every: of.key("notify.digest_every", duration(minutes(1)..=days(7)))?,
            down_after: of.key("notify.down_after", duration(millis(0)..=days(1)))?,
            muted: of.key("notify.muted", events)?,
            schedules: of.key("notify.schedules", titles)?,
            page_url: of.maybe("notify.page_url", base_url)?,
            ca_file: of.maybe("notify.ca_file", path)?,
        },
        telemetry: TelemetrySettings {
            otlp_endpoint: of.maybe("telemetry.otlp_endpoint", collector)?,
            sample_ratio: of.key("telemetry.sample_ratio", share)?,
            ca_file: of.maybe("telemetry.ca_file", path)?,
        },
        log: LogSettings {
            format: of.key("log.format", word(FORMATS))?,
            level: of.key("log.level", word(LEVELS))?,
        },
        shutdown: ShutdownSettings {
            notice: of.key("shutdown.notice", duration(millis(0)..=hours(1)))?,
            deadline: of.key("shutdown.deadline", duration(millis(0)..=hours(1)))?,
        },
        seal: SealSettings {
            key_file: of.maybe("seal.key_file", path)?,
            previous_key_files: of.key("seal.previous_key_files", paths)?,
        },
        found: Vec::new(),
    })
}

// The words that keys take.
const FORMS: &[(&str, FormKind)] = &[("full", FormKind::Full), ("plain", FormKind::Plain)];
const BACKENDS: &[(&str, OutboxBackend)] = &[
    ("embedded", OutboxBackend::Embedded),
    ("postgres", OutboxBackend::Postgres),
];
const PODS: &[(&str, Pod)] = &[
    ("us1", Pod::Us1),
    ("us2", Pod::Us2),
    ("eu1", Pod::Eu1),
    ("au1", Pod::Au1),
];
const IDENTITY_NAMES: &[(&str, IdentityNames)] = &[
    ("current", IdentityNames::Current),
    ("legacy", IdentityNames::Legacy),
];
const UNTAGGED: &[(&str, Untagged)] = &[
    ("ignore", Untagged::Ignore),
    ("user_attribute", Untagged::UserAttribute),
    ("event_attribute", Untagged::EventAttribute),
];
const PIVOTED: &[(&str, PivotedMeasures)] = &[
    ("refuse", PivotedMeasures::Refuse),
    ("attributes", PivotedMeasures::Attributes),
    ("json", PivotedMeasures::Json),
];
const HISTORICAL: &[(&str, Historical)] = &[
    ("auto", Historical::Auto),
    ("never", Historical::Never),
    ("always", Historical::Always),
];
const NULLS: &[(&str, Nulls)] = &[
    ("omit", Nulls::Omit),
    ("null", Nulls::Null),
    ("delete", Nulls::Delete),
];
const TYPES: &[(&str, AttributeTypes)] = &[
    ("as_is", AttributeTypes::AsIs),
    ("typed", AttributeTypes::Typed),
];
const FORMATS: &[(&str, LogFormat)] = &[("text", LogFormat::Text), ("json", LogFormat::Json)];
const LEVELS: &[(&str, tracing::Level)] = &[
    ("error", tracing::Level::ERROR),
    ("warn", tracing::Level::WARN),
    ("info", tracing::Level::INFO),
    ("debug", tracing::Level::DEBUG),
    ("trace", tracing::Level::TRACE),
];
/// What may be told of a delivery that arrived whole.
const GOOD: &[(&str, GoodDeliveries)] = &[
    ("each", GoodDeliveries::Each),
    ("digest", GoodDeliveries::Digest),
    ("nothing", GoodDeliveries::Nothing),
];

/// Asks the layers for keys and gives their values a type.
struct Keys<'a>(&'a mut Layers);

impl Keys<'_> {
    fn key<T>(
        &mut self,
        key: &'static str,
        parse: impl Fn(&Raw) -> Result<T, String>,
    ) -> Result<T, ConfigError> {
        accept(key, self.0.required(key)?, parse)
    }

    fn maybe<T>(
        &mut self,
        key: &'static str,
        parse: impl Fn(&Raw) -> Result<T, String>,
    ) -> Result<Option<T>, ConfigError> {
        let entry = self.0.optional(key);
        entry.map(|entry| accept(key, entry, parse)).transpose()
    }

    /// A callback's address, which is a secret.
    fn callback(
        &mut self,
        key: &'static str,
        file_key: &'static str,
    ) -> Result<Option<Secret>, ConfigError> {
        let url = self.secret(key, file_key)?;
        match url {
            Some(url) if !is_callback(url.expose()) => Err(ConfigError::Relation {
                key,
                value: HIDDEN.to_owned(),
                rule: "it takes an https url, or plain http to a loopback host, without user name \
                       and fragment"
                    .to_owned(),
            }),
            url => Ok(url),
        }
    }

    /// A text that is a secret, or holds one.
    fn hidden_text(&mut self, key: &'static str) -> Result<Option<Secret>, ConfigError> {
        let entry = self.0.optional(key);
        self.0.hide(key);
        entry.map(|entry| hidden_text(key, entry)).transpose()
    }

    /// A secret given by the name of a file that holds nothing else.
    fn secret_file(&mut self, key: &'static str) -> Result<Option<Secret>, ConfigError> {
        let file = self.maybe(key, path)?;
        file.map(|file| secret_of(&file, key)).transpose()
    }

    /// A value that is not shown when it is wrong.
    fn hidden<T>(
        &mut self,
        key: &'static str,
        parse: impl Fn(&Raw) -> Result<T, String>,
    ) -> Result<T, ConfigError> {
        let Entry { raw, origin } = self.0.required(key)?;
        self.0.hide(key);
        parse(&raw).map_err(|accepted| ConfigError::Value {
            key,
            origin,
            found: HIDDEN.to_owned(),
            accepted,
        })
    }

    /// A secret given by value or by the name of a file that holds nothing else.
    fn secret(
        &mut self,
        key: &'static str,
        file_key: &'static str,
    ) -> Result<Option<Secret>, ConfigError> {
        let by_value = self.0.optional(key);
        self.0.hide(key);
        let file = self.maybe(file_key, path)?;
        match (by_value, file) {
            (None, None) => Ok(None),
            (Some(_), Some(file)) => Err(ConfigError::Relation {
                key: file_key,
                value: file.display().to_string(),
                rule: format!("`{key}` is set too; one of them must go"),
            }),
            (Some(entry), None) => hidden_text(key, entry).map(Some),
            (None, Some(file)) => secret_of(&file, file_key).map(Some),
        }
    }

    /// The Lookers that can be asked: the section itself, and those within it.
    fn lookers(&mut self) -> Result<Vec<LookerInstance>, ConfigError> {
        let own = [
            "looker.api.url",
            "looker.api.client_id",
            "looker.api.client_secret",
            "looker.api.client_secret_file",
            "looker.api.ca_file",
            "looker.api.hub_id",
        ];
        let mut first = BTreeMap::new();
        for (key, name) in own.iter().zip(looker_api::KEYS) {
            if let Some(entry) = self.0.optional(key) {
                first.insert(name.to_owned(), entry);
            }
        }
        self.0.hide("looker.api.client_secret");
        let mut lookers: Vec<_> = looker_api::instance("", first)?.into_iter().collect();
        for (name, entries) in self.0.within("looker.api") {
            lookers.extend(looker_api::instance(&name, entries)?);
        }
        Ok(lookers)
    }
}

/// Stands for a value that may be a secret.
const HIDDEN: &str = "something else (not shown)";

fn hidden_text(key: &'static str, Entry { raw, origin }: Entry) -> Result<Secret, ConfigError> {
    match raw {
        Raw::Text(text) if !text.trim().is_empty() => Ok(Secret::new(text)),
        _ => Err(ConfigError::Value {
            key,
            origin,
            found: HIDDEN.to_owned(),
            accepted: "text that is not empty".to_owned(),
        }),
    }
}

/// A size that is used as a length in memory.
fn bytes(range: std::ops::RangeInclusive<u64>) -> impl Fn(&Raw) -> Result<usize, String> {
    let parse = size(range);
    move |raw| {
        let bytes = parse(raw)?;
        usize::try_from(bytes).map_err(|_| "a size that this machine can address".to_owned())
    }
}

/// A time to wait: neither none at all nor forever.
fn wait() -> impl Fn(&Raw) -> Result<Duration, String> {
    duration(millis(1)..=hours(24))
}

fn millis(count: u64) -> Duration {
    Duration::from_millis(count)
}

fn minutes(count: u64) -> Duration {
    Duration::from_secs(count * 60)
}

fn hours(count: u64) -> Duration {
    Duration::from_secs(count * 3600)
}

fn days(count: u64) -> Duration {
    hours(count * 24)
}
