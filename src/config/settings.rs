//! The typed settings, one struct a section. Each room takes its own. What a value of these types
//! says holds: bounds and relations were checked when it was made.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use hyper::header::HeaderName;
use url::Url;

use super::hosts::AllowedHost;
use super::looker_api::LookerApiSettings;
use super::secret::{NamedSecret, Secret};
use crate::mapping::{AttributeTypes, Historical, IdentityNames, Nulls, PivotedMeasures, Untagged};

/// `[intake]`: the Action Hub that Looker is pointed at.
#[derive(Clone, Debug)]
pub struct IntakeSettings {
    /// Where it listens; port 0 lets the system choose.
    pub listen: SocketAddr,
    /// The address under which Looker reaches it; `None`:
    /// `http://<listen>`, as it is once the port is known.
    pub base_url: Option<Url>,
    /// The hub's name in Looker.
    pub label: String,
    /// What hub keys are checked with, from `secret` or `secret_file`; not empty.
    pub secret: Option<Secret>,
    /// Secrets that hub keys were made with before, and whose keys stay good; none is empty.
    pub previous_secrets: Vec<Secret>,
    /// Nonces of keys that are not good any more.
    pub revoked_keys: Vec<String>,
    /// The server's certificate and those between it and the authority, when TLS is served; not
    /// opened at load. Set if and only if `tls_key` is.
    pub tls_cert: Option<PathBuf>,
    /// The certificate's private key.
    pub tls_key: Option<PathBuf>,
    /// Time between the newlines that keep a connection open while a delivery is received.
    pub keep_alive: Duration,
}

/// `[action]`: what Looker shows of the action to those who schedule.
#[derive(Clone, Debug)]
pub struct ActionSettings {
    /// The form's extent.
    pub form: FormKind,
    /// Looker offers the action only where the query has a column with an identity's tag.
    pub require_identity_tag: bool,
    /// The Looker user attribute that holds the API key; `None`: one for all, entered by Looker's
    /// administrator. Set if and only if `api_secret_attribute` is.
    pub api_key_attribute: Option<String>,
    /// The one that holds the API secret.
    pub api_secret_attribute: Option<String>,
}

/// Which fields the form has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FormKind {
    /// All that matter for the choices made so far.
    Full,
    /// The two that Looker's own action has.
    Plain,
}

/// `[looker]`: where rows are fetched from, and what is taken.
#[derive(Clone, Debug)]
pub struct LookerSettings {
    /// Empty: any https host with a public address.
    pub allowed_hosts: Vec<AllowedHost>,
    /// Certificates of authorities that are trusted beside the public ones; not opened at load.
    pub ca_file: Option<PathBuf>,
    /// For opening a connection, TLS included.
    pub connect_timeout: Duration,
    /// The longest silence while a delivery is received.
    pub idle_timeout: Duration,
    /// Deliveries whose rows come in at once, at least 1; further ones wait for their turn.
    pub max_deliveries: usize,
    /// The longest wait for a turn.
    pub queue_timeout: Duration,
    /// The longest row, in bytes of JSON.
    pub max_row_bytes: usize,
    /// How deep objects and arrays may be nested in each other.
    pub max_depth: usize,
    /// All of a document but its rows, in bytes of JSON.
    pub max_header_bytes: usize,
    /// How it is asked again for what failed.
    pub api: LookerApiSettings,
}

/// What keeps the outbox.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OutboxBackend {
    /// A directory of this daemon alone.
    Embedded,
    /// A PostgreSQL database that daemons share.
    Postgres,
}

/// `[outbox]`: what is accepted and not yet sent.
#[derive(Clone, Debug)]
pub struct OutboxSettings {
    /// What keeps it.
    pub backend: OutboxBackend,
    /// The address of the shared database, which may hold a password; set if that is the backend. Not
    /// connected to at load.
    pub url: Option<Secret>,
    /// The password that goes before one in the address, from `password_file`.
    pub password: Option<Secret>,
    /// Connections to the shared database at most, 2 to 1000.
    pub pool: usize,
    /// How long a daemon that has died keeps others from its destinations, 3 s to 5 min.
    pub lease: Duration,
    /// Whether a shared database that has no synchronous standby will do.
    pub allow_unreplicated: bool,
    /// The directory; with a shared database, that of temporary files.
    pub path: PathBuf,
    /// New deliveries are refused above this size of the directory, in bytes.
    pub max_bytes: u64,
    /// New deliveries are refused when the file system has less than this left, in bytes.
    pub reserve_bytes: u64,
    /// Size at which a delivery's next segment file is begun, in bytes; a file can pass it by one
    /// record. At least one whole request.
    pub segment_bytes: u64,
    /// How long webhook ids are remembered.
    pub webhook_memory: Duration,
    /// Rejected rows that are kept for each delivery; more are counted only.
    pub rejected_rows_kept: u64,
    /// Finished deliveries that are remembered with their numbers.
    pub history: u64,
}

/// `[mparticle]`: where requests go, how large and how fast.
#[derive(Clone, Debug)]
pub struct MparticleSettings {
    /// The data centre.
    pub pod: Pod,
    /// Overrides the pod: a base address that ends with `/v2`.
    pub endpoint: Option<Url>,
    /// Certificates of authorities that are trusted beside the public ones; not opened at load.
    pub ca_file: Option<PathBuf>,
    /// The account's rate limit, in batches a second, at least 1.
    pub batches_per_second: u32,
    /// Requests that are under way at once for one destination, at least 1.
    pub max_in_flight: usize,
    /// From the first byte of a request to the last of its reply.
    pub request_timeout: Duration,
    /// For opening a connection, TLS included.
    pub connect_timeout: Duration,
    /// 1 to 100.
    pub max_batches_per_request: usize,
    /// 1 to 100.
    pub max_events_per_request: usize,
    /// A request's body, in bytes, before any compression.
    pub max_request_bytes: usize,
    /// A batch, in bytes; at most `max_request_bytes`.
    pub max_batch_bytes: usize,
    /// How identities are spelled.
    pub identity_names: IdentityNames,
    /// What becomes of columns without an `mp_` tag.
    pub untagged: Untagged,
    /// What becomes of tagged measures in a query with pivots.
    pub pivoted_measures: PivotedMeasures,
    /// What is sent for attributes that are null.
    pub null_attributes: Nulls,
    /// Which events are sent as historical ones.
    pub historical_events: Historical,
    /// White space around identities is not sent.
    pub trim_identities: bool,
    /// E-mail addresses are sent in lower case.
    pub lowercase_email: bool,
    /// Of strings that hold HTML only the text is sent.
    pub strip_html: bool,
    /// Whether attributes are sent by the type of their column.
    pub attribute_types: AttributeTypes,
    /// Texts that count as no identity, each of at most 63 bytes.
    pub placeholder_identities: Vec<String>,
    /// The earliest time of an event that is plausible, in milliseconds since 1970.
    pub earliest_event: i64,
    /// How far in the future an event may lie.
    pub latest_event_ahead: Duration,
    /// Different names that the events of one delivery may have, 1 to 100,000.
    pub max_event_names: usize,
    /// The data plan that batches name.
    pub plan_id: Option<String>,
    /// Its version; `None` although there is a plan: the latest.
    pub plan_version: Option<u32>,
    /// Upper bound of the first wait after a failure; at most `backoff_max`.
    pub backoff_initial: Duration,
    /// Upper bound of any wait after a failure.
    pub backoff_max: Duration,
    /// The longest that a `Retry-After` is obeyed for.
    pub retry_after_max: Duration,
    /// How often a destination is tried whose credentials were refused.
    pub paused_probe: Duration,
    /// A destination is paused when so many batches in a row were rejected, each on its own; 0: it
    /// never is.
    pub pause_after_rejected: u32,
    /// What could not be sent for so long goes to the dead letters; `None`: never.
    pub max_age: Option<Duration>,
}

impl MparticleSettings {
    /// The base address that requests go under, without a slash at its end: `endpoint`, or else
    /// the pod's.
    pub fn base_address(&self) -> String {
        match &self.endpoint {
            Some(url) => url.as_str().to_owned(),
            None => self.pod.base_address(),
        }
    }
}

/// mParticle's data centres.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Pod {
    Us1,
    Us2,
    Eu1,
    Au1,
}

impl Pod {
    /// As it stands in a host name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Us1 => "us1",
            Self::Us2 => "us2",
            Self::Eu1 => "eu1",
            Self::Au1 => "au1",
        }
    }

    /// The base address of its Events API, without a slash at its end.
    pub fn base_address(self) -> String {
        format!("https://s2s.{}.mparticle.com/v2", self.name())
    }
}

/// `[changes]`: what is kept so that only changes are sent.
#[derive(Clone, Debug)]
pub struct ChangesSettings {
    /// The directory; `None`: beside the outbox, with `.changes` at the end of its name.
    pub path: Option<PathBuf>,
    /// After so long all users are sent, unless a schedule says otherwise.
    pub full_refresh: Duration,
    /// Of all that is kept, in bytes; a delivery can pass it while it comes in.
    pub max_bytes: u64,
    /// What is kept of a schedule goes when it was not seen for so long.
    pub forget_after: Duration,
    /// Of a hundred users of an audience, at most so many may leave at once, 1 to 100.
    pub max_drop_percent: u8,
}

/// `[hold]`: deliveries of an unusual size wait for a person.
#[derive(Clone, Debug)]
pub struct HoldSettings {
    /// One is held whose rows differ by more than this percentage from the middle of the last runs; 0: none is.
    pub unusual_percent: u32,
    /// Only deliveries with these titles; none: all.
    pub schedules: Vec<String>,
}

/// `[memory]`
#[derive(Clone, Copy, Debug)]
pub struct MemorySettings {
    /// For grouping by user, in bytes: what all deliveries that are received at once share.
    pub group_budget: usize,
}

/// `[admin]`: status, metrics, and what the commands talk to.
#[derive(Clone, Debug)]
pub struct AdminSettings {
    /// Where it listens; port 0 lets the system choose. A loopback address unless there is a token.
    pub listen: SocketAddr,
    /// What callers must know, from `token` or `token_file`: at least 16 visible ASCII characters.
    pub token: Option<Secret>,
    /// Tokens with a name and a role beside it.
    pub tokens: Vec<NamedSecret>,
    /// More names that the `Host` of a request may have when there is no token. Without port.
    pub hosts: Vec<String>,
    /// The header in which a proxy says who somebody is; `None`: nobody is believed.
    pub user_header: Option<HeaderName>,
    /// The addresses of that proxy.
    pub user_header_from: Vec<IpAddr>,
    /// Whether users that it names may change something; if not, they may look.
    pub user_header_may_act: bool,
}

/// `[notify]`: who is told of what Looker cannot be told any more. Each is a url that was checked,
/// and kept as a secret: whoever has it can write there.
#[derive(Clone, Debug)]
pub struct NotifySettings {
    /// Gets JSON.
    pub webhook_url: Option<Secret>,
    /// Gets `{"text": "..."}`.
    pub slack_url: Option<Secret>,
    /// What the webhook is told of a delivery that arrived whole.
    pub webhook_good_deliveries: GoodDeliveries,
    /// The same for Slack.
    pub slack_good_deliveries: GoodDeliveries,
    /// How often such deliveries are told of together.
    pub digest_every: Duration,
    /// A destination that does not answer is told of after so long.
    pub down_after: Duration,
    /// Names of events that are not told.
    pub muted: Vec<String>,
    /// Titles of the schedules whose deliveries are told, with `*` at the end for all that begin so;
    /// none: all.
    pub schedules: Vec<String>,
    /// Where people reach the status page.
    pub page_url: Option<Url>,
    /// Certificates of authorities that are trusted beside the public ones; not opened at load.
    pub ca_file: Option<PathBuf>,
}

/// What is told of a delivery that arrived whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GoodDeliveries {
    /// Each one.
    Each,
    /// How many there were, now and then.
    Digest,
    /// Nothing.
    Nothing,
}

/// `[telemetry]`
#[derive(Clone, Debug)]
pub struct TelemetrySettings {
    /// Where traces are sent; `None`: there are none.
    pub otlp_endpoint: Option<Url>,
    /// Share of the traces that are sent, 0 to 1.
    pub sample_ratio: f64,
    /// Certificates of authorities that are trusted beside the public ones; not opened at load.
    pub ca_file: Option<PathBuf>,
}

/// `[log]`
#[derive(Clone, Copy, Debug)]
pub struct LogSettings {
    /// For whom lines are written.
    pub format: LogFormat,
    /// The least severe that is written.
    pub level: tracing::Level,
}

/// For whom log lines are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// `[shutdown]`
#[derive(Clone, Copy, Debug)]
pub struct ShutdownSettings {
    /// How long `/readyz` fails before no more connections are taken.
    pub notice: Duration,
    /// How long what is under way may take to finish.
    pub deadline: Duration,
}

/// `[seal]`
#[derive(Clone, Debug)]
pub struct SealSettings {
    /// Holds the key under which credentials and rows are sealed; not opened at load.
    pub key_file: Option<PathBuf>,
    /// Hold keys of before, which still open; not opened at load.
    pub previous_key_files: Vec<PathBuf>,
}
