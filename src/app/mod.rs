//! The one composition root: opens, binds, wires, and shuts down in order. Nothing else constructs
//! its neighbours.
//!
//! Order of the shutdown: intake stops accepting and lets deliveries finish; then the drain stops
//! claiming and lets requests land; then the admin side, which shows all this, ends; last the
//! outbox is closed.

mod desk;
mod edit;
mod facts;
mod keys;
mod reload;
mod systemd;
mod traces;

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use url::Url;

use crate::config::Config;
use crate::control::{self, Admin, Token, TokenError};
use crate::drain::{self, Drain};
use crate::group;
use crate::ingest;
use crate::intake::{self, Intake};
use crate::mapping;
use crate::model::DataType;
use crate::mparticle::client::{Account, Client, ClientSettings};
use crate::mparticle::encode;
use crate::notify::{self, Notifier};
use crate::outbox::{self, Outbox};
use crate::seal::{KeyError, KeyId, Keyring};
use crate::shutdown::{self, Shutdown};
use crate::telemetry::{self, Exporter, Telemetry};
use crate::tls::{self, Identity, TlsError};
use crate::{config, decode};
pub(crate) use desk::with_causes;

use desk::Desk;
use systemd::Systemd;
use traces::Traced;

pub use desk::{chosen, chosen_plan};
pub use reload::Reloader;

/// Clients of both servers that read nothing of their answers for so long are cut off: far longer
/// than any network that still works needs.
const WRITE_TIMEOUT: Duration = Duration::from_secs(60);

/// The daemon cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The configuration misses what only a daemon needs.
    #[error(transparent)]
    Config(#[from] config::ConfigError),
    /// A key that seals what is at rest.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// The key file is not there, and the outbox was sealed with it. A new key would not open it.
    #[error(
        "The key file {path} is not there, and the outbox {outbox} needs the key {key} (files sealed under it: {files}). Put the file back, or name the one that holds that key as seal.key_file, or in seal.previous_key_files if it was replaced. Nothing was changed."
    )]
    KeyGone {
        /// Where the key should be.
        path: PathBuf,
        /// The outbox's directory.
        outbox: PathBuf,
        /// The key that is missing.
        key: KeyId,
        /// How many files need it.
        files: u64,
    },
    /// The outbox does not open.
    #[error(transparent)]
    Outbox(#[from] outbox::OpenError),
    /// Credentials could not be sealed under a new key.
    #[error("Credentials could not be sealed under the new key")]
    Reseal(#[from] outbox::Error),
    /// The endpoint is no address.
    #[error("mparticle.endpoint is not a usable address")]
    Endpoint(#[from] url::ParseError),
    /// The admin token is none; the configuration's own check is as strict.
    #[error("admin.token cannot be used")]
    Token(#[from] TokenError),
    /// A certificate, a key or an authority cannot be read or used.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// A callback's address is of no use; it is not shown, since it may hold a secret.
    #[error("A callback's address ([notify]) cannot be used")]
    CallbackAddress(#[from] notify::TargetError),
    /// A port cannot be opened.
    #[error("Cannot listen for {what}")]
    Listen {
        /// Which port.
        what: &'static str,
        /// What the system said.
        source: io::Error,
    },
    /// A worker thread failed while the outbox was being opened.
    #[error(
        "The outbox could not be opened: a mistake in looker-feed; please report it with the log"
    )]
    Panicked,
}

/// The daemon failed while it ran.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// A server ended before it was told to.
    #[error("{what} failed")]
    Server {
        /// Which one.
        what: &'static str,
        /// Why.
        source: io::Error,
    },
    /// A task panicked.
    #[error("{0} stopped by a mistake in looker-feed; please report it with the log")]
    Panicked(&'static str),
}

/// The daemon, with its ports open and its outbox ready.
pub struct App {
    intake: Intake,
    admin: Admin,
    drain: Drain<Traced<Client>>,
    notifier: Notifier,
    exporter: Option<Exporter>,
    desk: Arc<Desk>,
    reloader: Reloader,
    outbox: Outbox,
    hub_url: Url,
    admin_url: Url,
    deadline: Duration,
}

impl App {
    /// Opens the outbox and the ports. Nothing is accepted and nothing sent before [`App::run`].
    ///
    /// # Errors
    /// See [`StartError`].
    pub async fn start(config: Config) -> Result<Self, StartError> {
        let secret = config.require_secret()?.clone();
        // First what a person has to mend in the configuration: nothing has been made then.
        let certificates = Certificates::load(&config)?;
        let (outbox, keys) = open_outbox(&config).await?;

        let endpoint = Url::parse(&config.mparticle.base_address())?;
        let opener = Arc::clone(&keys);
        let trust = certificates.mparticle.clone();
        let client = Client::with_trust(client_settings(&config), trust, move |sealed: &[u8]| {
            let opened = opener
                .open_text(sealed, desk::ACCOUNT_CONTEXT)
                .map_err(|error| error.to_string())?;
            Account::decode(&opened).map_err(|error| error.to_string())
        });
        let (telemetry, exporter) = open_telemetry(&config, certificates.telemetry);
        let client = Arc::new(Traced::new(client, telemetry.clone()));
        let drain = Drain::new(drain_settings(&config), outbox.clone(), client);

        let notifier = Notifier::new(notify_settings(&config, certificates.notify)?);

        let listen = |what| move |source| StartError::Listen { what, source };
        let intake = Intake::bind(intake_settings(
            &config,
            secret,
            certificates.looker,
            certificates.identity,
        ))
            .await
            .map_err(listen("Looker (intake.listen)"))?;
        let admin = Admin::bind(control::AdminSettings {
            listen: config.admin.listen,
            token: config
                .admin
                .token
                .as_ref()
                .map(|token| Token::new(token.expose()))
                .transpose()?,
            hosts: config.admin.hosts.clone(),
            write_timeout: WRITE_TIMEOUT,
        })
        .await
        .map_err(listen("the status page (admin.listen)"))?;
        let reloader = Reloader {
            config: config.clone(),
            intake: intake.handle(),
            drain: drain.handle(),
        };
        let scheme = config.intake.tls_cert.as_ref().map_or("http", |_| "https");
        let hub_url = Url::parse(&format!("{scheme}://{}", intake.addr()))?;
        let admin_url = Url::parse(&format!("http://{}", admin.addr()))?;
        let desk = Arc::new(Desk::new(
            desk::Settings {
                endpoint,
                is_pod: config.mparticle.endpoint.is_none(),
                mapping: mapping_settings(&config.mparticle),
                data_plan: data_plan(&config.mparticle),
                ingest: ingest_settings(&config),
                max_bytes: config.outbox.max_bytes,
            },
            outbox.clone(),
            keys,
            drain.handle(),
            telemetry,
        ));
        Ok(Self {
            intake,
            admin,
            drain,
            notifier,
            exporter,
            desk,
            reloader,
            outbox,
            hub_url,
            admin_url,
            deadline: config.shutdown.deadline,
        })
    }

    /// Where the Action Hub listens.
    pub fn hub_url(&self) -> &Url {
        &self.hub_url
    }

    /// Where the status page is.
    pub fn admin_url(&self) -> &Url {
        &self.admin_url
    }

    /// For a new configuration while it runs.
    pub fn reloader(&self) -> Reloader {
        self.reloader.clone()
    }

    /// Works until `stop`, then shuts down in order.
    ///
    /// # Errors
    /// A part failed by itself. The others are shut down all the same.
    pub async fn run(self, mut stop: Shutdown) -> Result<(), RunError> {
        let (drain_trigger, drain_stop) = shutdown::channel();
        let (admin_trigger, admin_stop) = shutdown::channel();
        let (intake_trigger, intake_stop) = shutdown::channel();
        let mut intake = tokio::spawn(self.intake.run(Arc::clone(&self.desk), intake_stop));
        let mut drain = tokio::spawn(self.drain.run(drain_stop));
        let (watch_trigger, watch_stop) = shutdown::channel();
        let facts: Arc<dyn control::Daemon> = Arc::clone(&self.desk) as _;
        let systemd = Systemd::from_environment();
        let mut notifier = tokio::spawn(self.notifier.run(Arc::clone(&facts), watch_stop.clone()));
        let watched = Arc::clone(&facts);
        let mut admin = tokio::spawn(self.admin.run(facts, admin_stop));
        tracing::info!(hub = %self.hub_url, admin = %self.admin_url, "looker-feed is ready");
        systemd.ready();
        let systemd = Arc::new(systemd);
        let exporter = self.exporter;
        let (export_trigger, export_stop) = shutdown::channel();
        let mut exporter = tokio::spawn(async move {
            if let Some(exporter) = exporter {
                exporter.run(export_stop).await;
            }
        });
        let mut dog = tokio::spawn(keep_watch(Arc::clone(&systemd), watched, watch_stop));

        // Whatever ends first ends all, in order; only the shutdown should.
        let mut early = None;
        tokio::select! {
            () = stop.wait() => {}
            ended = &mut intake => early = Some(server("The Action Hub", ended)),
            ended = &mut admin => early = Some(ended.map_err(|_| RunError::Panicked("The admin side"))),
            ended = &mut drain => early = Some(ended.map_err(|_| RunError::Panicked("The drain"))),
        }
        systemd.stopping();
        self.desk.stop();
        intake_trigger.pull();
        let intake = finish(intake, self.deadline, "The Action Hub").await;
        drain_trigger.pull();
        if !drain.is_finished() {
            let ended = tokio::time::timeout(self.deadline + GRACE, &mut drain).await;
            if ended.is_err() {
                tracing::warn!("requests under way did not end in time; they will be sent again");
                drain.abort();
            }
        }
        // The last words of the drain are told too.
        watch_trigger.pull();
        export_trigger.pull();
        for task in [&mut notifier, &mut dog, &mut exporter] {
            if !task.is_finished() && tokio::time::timeout(2 * GRACE, &mut *task).await.is_err() {
                task.abort();
            }
        }
        admin_trigger.pull();
        if !admin.is_finished() && tokio::time::timeout(2 * GRACE, &mut admin).await.is_err() {
            admin.abort();
        }
        let outbox = self.outbox;
        if tokio::task::spawn_blocking(move || outbox.close())
            .await
            .is_err()
        {
            return Err(RunError::Panicked("The outbox"));
        }
        tracing::info!("stopped");
        early.unwrap_or(Ok(())).and(intake)
    }
}

/// Tells the supervisor that the daemon works, as long as it does.
async fn keep_watch(systemd: Arc<Systemd>, daemon: Arc<dyn control::Daemon>, mut stop: Shutdown) {
    let Some(every) = systemd.watchdog() else {
        return;
    };
    let mut ticks = tokio::time::interval(every);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = stop.wait() => return,
            _ = ticks.tick() => {}
        }
        let daemon = Arc::clone(&daemon);
        let asked = tokio::task::spawn_blocking(move || daemon.alive());
        match tokio::time::timeout(every, asked).await {
            Ok(Ok(Ok(()))) => systemd.alive(),
            Ok(Ok(Err(problem))) => {
                tracing::error!(%problem, "the daemon is not alive; the supervisor is not told otherwise");
                systemd.troubled(&problem.to_string());
            }
            Ok(Err(error)) => {
                tracing::error!(%error, "asking whether the daemon is alive has failed")
            }
            Err(_) => tracing::error!("the daemon does not say whether it is alive"),
        }
    }
}

/// What a part may take beyond its own deadline.
const GRACE: Duration = Duration::from_secs(5);

type Ended = Result<io::Result<()>, tokio::task::JoinError>;

/// Waits for a server that was told to stop; cuts it off after a while.
async fn finish(
    mut task: tokio::task::JoinHandle<io::Result<()>>,
    deadline: Duration,
    what: &'static str,
) -> Result<(), RunError> {
    if task.is_finished() {
        // Its end has been told, or it is a good one.
        return Ok(());
    }
    match tokio::time::timeout(deadline + GRACE, &mut task).await {
        Ok(ended) => server(what, ended),
        Err(_) => {
            tracing::warn!(what, "did not end in time and is cut off");
            task.abort();
            Ok(())
        }
    }
}

fn server(what: &'static str, ended: Ended) -> Result<(), RunError> {
    match ended {
        Ok(ran) => ran.map_err(|source| RunError::Server { what, source }),
        Err(_) => Err(RunError::Panicked(what)),
    }
}

async fn open_outbox(config: &Config) -> Result<(Outbox, Arc<Keyring>), StartError> {
    let config = config.clone();
    let opened = tokio::task::spawn_blocking(move || {
        let keys = keys::load(&config)?;
        let outbox = Outbox::open(outbox_settings(&config, Arc::clone(&keys)))?;
        keys::renew(&outbox, &config, &keys)?;
        Ok((outbox, keys))
    });
    opened.await.map_err(|_| StartError::Panicked)?
}

fn outbox_settings(config: &Config, keys: Arc<Keyring>) -> outbox::Settings {
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

/// What the certificate files of the configuration hold.
pub(crate) struct Certificates {
    mparticle: rustls::ClientConfig,
    looker: rustls::ClientConfig,
    notify: rustls::ClientConfig,
    telemetry: rustls::ClientConfig,
    identity: Option<Identity>,
}

impl Certificates {
    /// Reads them.
    ///
    /// # Errors
    /// A file cannot be read, or does not hold what it should; the error names it.
    pub(crate) fn load(config: &Config) -> Result<Self, TlsError> {
        let intake = &config.intake;
        let files = intake.tls_cert.as_ref().zip(intake.tls_key.as_ref());
        let trust = |what, file: &Option<PathBuf>| tls::client(what, file.as_deref());
        Ok(Self {
            mparticle: trust("mparticle.ca_file", &config.mparticle.ca_file)?,
            looker: trust("looker.ca_file", &config.looker.ca_file)?,
            notify: trust("notify.ca_file", &config.notify.ca_file)?,
            telemetry: trust("telemetry.ca_file", &config.telemetry.ca_file)?,
            identity: files
                .map(|(cert, key)| Identity::load(cert, key))
                .transpose()?,
        })
    }
}

/// Off, unless a collector is configured.
fn open_telemetry(config: &Config, trust: rustls::ClientConfig) -> (Telemetry, Option<Exporter>) {
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

fn intake_settings(
    config: &Config,
    secret: config::Secret,
    trust: rustls::ClientConfig,
    identity: Option<Identity>,
) -> intake::Settings {
    intake::Settings {
        trust,
        identity: identity.map(Arc::new),
        intake: config.intake.clone(),
        looker: config.looker.clone(),
        secret,
        spool_directory: config.outbox.path.clone(),
        deadline: config.shutdown.deadline,
        write_timeout: WRITE_TIMEOUT,
    }
}

/// How deliveries are worked on.
pub fn ingest_settings(config: &Config) -> ingest::Settings {
    ingest::Settings {
        decode: decode::Limits {
            max_depth: config.looker.max_depth,
            max_row_bytes: config.looker.max_row_bytes,
            max_header_bytes: config.looker.max_header_bytes,
            ..decode::Limits::default()
        },
        group: group::Settings {
            // The budget is for all deliveries together, and so many may come at once.
            budget: config.memory.group_budget / config.looker.max_deliveries.max(1),
            directory: config.outbox.path.clone(),
        },
        encode: encode::Settings {
            max_batches_per_request: config.mparticle.max_batches_per_request,
            max_events_per_request: config.mparticle.max_events_per_request,
            max_request_bytes: config.mparticle.max_request_bytes,
            max_batch_bytes: config.mparticle.max_batch_bytes,
        },
    }
}

/// Who is told. The configuration has checked the addresses.
fn notify_settings(
    config: &Config,
    trust: rustls::ClientConfig,
) -> Result<notify::Settings, StartError> {
    let settings = &config.notify;
    let targets = [
        (&settings.webhook_url, notify::Form::Json),
        (&settings.slack_url, notify::Form::Slack),
    ];
    let targets = targets
        .into_iter()
        .filter_map(|(url, form)| Some(notify::Target::new(url.as_ref()?.expose(), form)))
        .collect::<Result<_, _>>()?;
    Ok(notify::Settings { targets, trust })
}

fn client_settings(config: &Config) -> ClientSettings {
    ClientSettings {
        request_timeout: config.mparticle.request_timeout,
        connect_timeout: config.mparticle.connect_timeout,
        ..ClientSettings::default()
    }
}

fn drain_settings(config: &Config) -> drain::Settings {
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
    circuit.doubt_after = mparticle.pause_after_rejected;
    settings.reply_within = mparticle.request_timeout + mparticle.connect_timeout + GRACE;
    settings.deadline = config.shutdown.deadline;
    settings
}

/// The mapping's choices, as far as a schedule makes none.
/// The choices of the configuration; a delivery's own come on top.
pub(crate) fn mapping_settings(mparticle: &config::MparticleSettings) -> mapping::Settings {
    mapping::Settings {
        identity_names: mparticle.identity_names,
        untagged: mparticle.untagged,
        trim_identities: mparticle.trim_identities,
        lowercase_email: mparticle.lowercase_email,
        strip_html: mparticle.strip_html,
        nulls: mparticle.null_attributes,
        historical: mparticle.historical_events,
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
