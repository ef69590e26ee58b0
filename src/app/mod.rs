//! The one composition root: opens, binds, wires, and shuts down in order. Nothing else constructs
//! its neighbours.
//!
//! ```text
//! settings     each room's own, out of the configuration     certificates, keys   what lies in files
//! receiver     what stands behind the hub: deliveries go from intake to the outbox
//!   usual        how many rows are usual for a schedule
//!   choices      what a schedule's form chooses              schedules  those that send only changes
//! facts        what stands behind the admin side             edit       a dead letter's new batch
//!   overview     the state at one moment
//!   lookups      searches for a person, and erasures  person     whom they mean
//!   arrivals     what is being received, and sums            readiness  whether a delivery would be taken
//! parts        the tasks, in the order in which they end     private    directories that are closed to others
//! systemd, traces, reload
//! ```
//!
//! Order of the shutdown: intake stops accepting and lets deliveries finish; then the drain stops
//! claiming and lets requests land; then the admin side, which shows all this, ends; last the
//! outbox is closed.

mod about;
mod again;
mod arrivals;
mod certificates;
mod choices;
mod edit;
mod facts;
mod failed;
mod keys;
mod lookups;
mod overview;
mod parts;
mod person;
mod private;
mod readiness;
mod receiver;
mod refusal;
mod reload;
mod schedules;
mod settings;
mod standing;
mod systemd;
mod traces;
mod usual;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use url::Url;

use crate::changes::Changes;
use crate::clock::{Clock, UnixMillis};
use crate::config::{self, Config, OutboxBackend};
use crate::control::{self, Admin, AuditLog, NamedToken, Proxy, Token, TokenError, view};
use crate::drain::Drain;
use crate::ingest::Admission;
use crate::intake::Intake;
use crate::mparticle::client::{Account, Client};
use crate::notify::{self, Notifier};
use crate::outbox::{self, Outbox};
use crate::seal::{KeyError, KeyId, Keyring};
use crate::shutdown::Shutdown;
use crate::telemetry::Exporter;
use crate::tls::TlsError;

use again::{AskAgain, Instance};
use arrivals::{Arrivals, FailureCounts};
use facts::Facts;
use failed::Failures;
use lookups::Lookups;
use parts::Parts;
use private::NotPrivate;
use readiness::Readiness;
use receiver::DeliveryReceiver;
use systemd::Systemd;
use traces::Traced;

pub(crate) use certificates::Certificates;
pub use choices::{chosen, chosen_plan};
pub(crate) use keys::load as load_keys;
pub use reload::Reloader;
pub use settings::ingest_settings;
pub(crate) use settings::{data_plan, looker_apis, mapping_settings, shared_settings};

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
    /// The shared outbox does not open.
    #[error(transparent)]
    Shared(#[from] outbox::postgres::OpenError),
    /// The address of the shared outbox is of no use; it is not shown, since it may hold a password.
    #[error("outbox.url cannot be used")]
    SharedAddress(#[from] outbox::postgres::ServerError),
    /// The key that all daemons on a database seal with is not there.
    #[error(
        "The key file {path} is not there, and all daemons on one database need the same key. Put the file there; the first time, `(umask 077; openssl rand -hex 32 >FILE)` makes one. Keep a copy of it: without it what waits cannot be read."
    )]
    NoKey {
        /// Where the key should be.
        path: PathBuf,
    },
    /// The directory for temporary files cannot be made.
    #[error("The directory {path} (outbox.path) cannot be made")]
    Directory {
        /// Which.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A directory that holds people's data is open to other users.
    #[error(transparent)]
    NotPrivate(#[from] NotPrivate),
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
    /// The outbox does not say which destinations are paused.
    #[error("The outbox could not be asked what is paused")]
    Drain(#[source] outbox::Error),
    /// The outbox does not say what has failed.
    #[error("The outbox could not be asked which deliveries have failed")]
    Failures(#[source] outbox::Error),
    /// A worker thread failed while the outbox was being opened.
    #[error(
        "The outbox could not be opened: a mistake in looker-feed; please report it with the log"
    )]
    Panicked,
}

/// The daemon failed while it ran.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// A part failed, before it was told to stop or while it stopped.
    #[error("{what} failed")]
    Server {
        /// Which one.
        what: &'static str,
        /// Why.
        source: io::Error,
    },
    /// A part ended before it was told to.
    #[error("{0} ended by a mistake in looker-feed; please report it with the log")]
    Ended(&'static str),
    /// A task panicked.
    #[error("{0} stopped by a mistake in looker-feed; please report it with the log")]
    Panicked(&'static str),
}

/// The daemon, with its ports open and its outbox ready.
pub struct App {
    intake: Intake,
    admin: Admin,
    drain: Drain<Traced<Client>>,
    notifier: Option<Notifier>,
    exporter: Option<Exporter>,
    receiver: Arc<DeliveryReceiver>,
    facts: Arc<Facts>,
    again: Arc<AskAgain>,
    lookups: Lookups,
    readiness: Arc<Readiness>,
    admission: Admission,
    reloader: Reloader,
    changes: Changes,
    outbox: Outbox,
    hub_url: Url,
    admin_url: Url,
    notice: Duration,
    deadline: Duration,
}

impl App {
    /// Opens the outbox and the ports. Nothing is accepted and nothing sent before [`App::run`].
    pub async fn start(config: Config) -> Result<Self, StartError> {
        let secret = config.require_secret()?.clone();
        let started = UnixMillis::now();
        // First what a person has to mend in the configuration: nothing has been made then.
        let certificates = Certificates::load(&config)?;
        let audit = AuditLog::new(beside(&config.outbox.path, ".audit"), Clock::default());
        let (outbox, keys) = open_outbox(&config, audit.clone()).await?;
        let changes = schedules::changes(&config, &outbox, &keys);
        // Before anything is accepted or forgotten.
        let (settling, ledger) = (changes.clone(), outbox.clone());
        aside(move || settling.settle(&ledger)).await?;

        let endpoint = Url::parse(&config.mparticle.base_address())?;
        let opener = Arc::clone(&keys);
        let trust = certificates.mparticle.clone();
        let client = Client::with_trust(
            settings::client_settings(&config),
            trust,
            move |sealed: &[u8]| {
                let opened = opener
                    .open_text(sealed, keys::ACCOUNT_CONTEXT)
                    .map_err(|error| error.to_string())?;
                Account::decode(&opened).map_err(|error| error.to_string())
            },
        );
        let (telemetry, exporter) = settings::open_telemetry(&config, certificates.telemetry);
        let client = Arc::new(Traced::new(client, telemetry.clone()));
        let (how, kept) = (settings::drain_settings(&config), outbox.clone());
        let drain = aside(move || Drain::new(how, kept, client)).await?;
        let drain = drain.map_err(StartError::Drain)?;

        let callbacks = settings::notify_settings(&config, certificates.notify)?;
        let notifier = (!callbacks.targets.is_empty()).then(|| Notifier::new(callbacks));

        let listen = |what| move |source| StartError::Listen { what, source };
        let (trust, identity) = (certificates.looker, certificates.identity);
        let hub = settings::intake_settings(&config, secret, trust, identity);
        let intake = Intake::bind(hub).await;
        let intake = intake.map_err(listen("Looker (intake.listen)"))?;
        let admin = Admin::bind(control::AdminSettings {
            listen: config.admin.listen,
            tokens: admin_tokens(&config.admin)?,
            hosts: config.admin.hosts.clone(),
            write_timeout: WRITE_TIMEOUT,
            history: Some(beside(&config.outbox.path, ".history")),
            audit: Some(audit.clone()),
            proxy: proxy(&config.admin),
            configuration: configuration(&config),
            clock: Clock::default(),
        })
        .await
        .map_err(listen("the status page (admin.listen)"))?;
        let reloader = Reloader {
            config: config.clone(),
            intake: intake.handle(),
            drain: drain.handle(),
            audit: audit.clone(),
        };
        let scheme = config.intake.tls_cert.as_ref().map_or("http", |_| "https");
        let hub_url = Url::parse(&format!("{scheme}://{}", intake.addr()))?;
        let admin_url = Url::parse(&format!("http://{}", admin.addr()))?;
        let readiness = Arc::new(Readiness::new(outbox.clone()));
        let arrivals = Arc::new(Arrivals::default());
        let (kept, ready, known) = (outbox.clone(), Arc::clone(&readiness), Arc::clone(&keys));
        let asking = settings::again_settings(&config, &hub_url);
        let lookers = lookers(&config, certificates.looker_apis);
        let looked_up = aside(move || {
            let counts = Arc::new(FailureCounts::default());
            let again = Arc::new(AskAgain::new(
                kept.clone(),
                known,
                Arc::clone(&ready),
                Arc::clone(&counts),
                asking,
                lookers,
                started,
            )?);
            let failures = Failures::new(kept, ready, counts, Arc::clone(&again), started)?;
            Ok((again, Arc::new(failures)))
        });
        let (again, failures) = looked_up.await?.map_err(StartError::Failures)?;
        let lookups = Lookups::new(
            outbox.clone(),
            changes.clone(),
            drain.handle(),
            Arc::clone(&keys),
            audit,
        );
        let facts = Facts {
            failures: Arc::clone(&failures),
            lookups: lookups.clone(),
            again: Arc::clone(&again),
            outbox: outbox.clone(),
            drain: drain.handle(),
            changes: changes.clone(),
            telemetry: telemetry.clone(),
            keys: Arc::clone(&keys),
            readiness: Arc::clone(&readiness),
            arrivals: Arc::clone(&arrivals),
            started,
            max_bytes: config.outbox.max_bytes,
            max_batch_bytes: config.mparticle.max_batch_bytes,
        };
        let settings = settings::delivery_settings(&config, endpoint);
        let admission = settings.ingest.admission.clone();
        let receiver = DeliveryReceiver {
            settings,
            outbox: outbox.clone(),
            keys,
            changes: changes.clone(),
            telemetry,
            readiness: Arc::clone(&readiness),
            arrivals,
            failures,
            again: Arc::clone(&again),
        };
        Ok(Self {
            intake,
            admin,
            drain,
            notifier,
            exporter,
            receiver: Arc::new(receiver),
            facts: Arc::new(facts),
            again,
            lookups,
            readiness,
            admission,
            reloader,
            changes,
            outbox,
            hub_url,
            admin_url,
            notice: config.shutdown.notice,
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
        let long = self.deadline + GRACE;
        let short = 2 * GRACE;
        let facts: Arc<dyn control::Daemon> = self.facts;
        let systemd = Arc::new(Systemd::from_environment());
        let lookups = self.lookups;
        let resumed = lookups.clone();
        let resumed = tokio::task::spawn_blocking(move || resumed.resume());
        if resumed.await.is_err() {
            return Err(RunError::Panicked("Going on with an erasure"));
        }
        let mut parts = Parts::default();
        parts.start("The Action Hub", long, |stop| {
            self.intake.run(self.receiver, stop)
        });
        for instance in 0..self.again.instances().len() {
            parts.start_aside("Asking Looker again", short, |stop| {
                Arc::clone(&self.again).run(instance, stop)
            });
        }
        parts.then();
        parts.start("The drain", long, |stop| async {
            self.drain.run(stop).await;
            Ok(())
        });
        // The last words of the drain are told too.
        parts.then();
        if let Some(notifier) = self.notifier {
            parts.start_aside("The callbacks", short, |stop| {
                notifier.run(Arc::clone(&facts), stop)
            });
        }
        if let Some(every) = systemd.watchdog() {
            parts.start_aside("The watchdog", short, |stop| {
                keep_watch(Arc::clone(&systemd), every, Arc::clone(&facts), stop)
            });
        }
        parts.start_aside("Erasures", short, |stop| lookups.clone().follow(stop));
        parts.start_aside("What schedules delivered", short, |stop| {
            schedules::follow(self.changes, self.outbox.clone(), stop)
        });
        if let Some(exporter) = self.exporter {
            parts.start_aside("The traces", short, |stop| exporter.run(stop));
        }
        // It shows all this.
        parts.then();
        parts.start("The admin side", short, |stop| async {
            self.admin.run(facts, stop).await;
            Ok(())
        });
        tracing::info!(hub = %self.hub_url, admin = %self.admin_url, "looker-feed is ready");
        systemd.ready();

        // Whatever ends first ends all, in order; only the shutdown should.
        let failed = tokio::select! {
            () = stop.wait() => {
                systemd.stopping();
                self.readiness.leave();
                tokio::select! {
                    () = tokio::time::sleep(self.notice) => Ok(()),
                    failed = parts.failed() => Err(failed),
                }
            }
            failed = parts.failed() => {
                systemd.stopping();
                Err(failed)
            }
        };
        self.readiness.stop();
        self.admission.stop();
        let retiring = self.outbox.clone();
        let retired = tokio::task::spawn_blocking(move || retiring.retire());
        let ended = parts.end().await;
        // It takes two seconds at most.
        if retired.await.is_err() {
            tracing::error!("telling other daemons of the end has failed");
        }
        let outbox = self.outbox;
        let close = move || {
            lookups.stop();
            outbox.close();
        };
        if tokio::task::spawn_blocking(close).await.is_err() {
            return Err(RunError::Panicked("The outbox"));
        }
        tracing::info!("stopped");
        failed.and(ended)
    }
}

/// Tells the supervisor that the daemon works, as long as it does.
async fn keep_watch(
    systemd: Arc<Systemd>,
    every: Duration,
    daemon: Arc<dyn control::Daemon>,
    mut stop: Shutdown,
) {
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

/// The Lookers that can be asked again.
fn lookers(config: &Config, trust: Vec<rustls::ClientConfig>) -> Vec<Instance> {
    let apis = settings::looker_apis(config, trust).into_iter();
    let instances = config.looker.api.instances.iter();
    instances
        .zip(apis)
        .map(|(one, api)| Instance::new(one.name.clone(), api, one.hub_id.clone()))
        .collect()
}

/// What a part may take beyond its own deadline.
const GRACE: Duration = Duration::from_secs(5);

async fn open_outbox(
    config: &Config,
    audit: AuditLog,
) -> Result<(Outbox, Arc<Keyring>), StartError> {
    let config = config.clone();
    let opened = aside(move || {
        let (keys, made) = keys::load(&config)?;
        let outbox = match config.outbox.backend {
            OutboxBackend::Embedded => {
                Outbox::open(settings::outbox_settings(&config, Arc::clone(&keys)))?
            }
            OutboxBackend::Postgres => {
                let path = &config.outbox.path;
                std::fs::create_dir_all(path).map_err(|source| StartError::Directory {
                    path: path.clone(),
                    source,
                })?;
                Outbox::open_shared(settings::shared_settings(&config, Arc::clone(&keys))?)?
            }
        };
        // Only now it is known that the directory is an outbox, and not /tmp.
        private::close(&config.outbox.path)?;
        private::close(&schedules::settings(&config).directory)?;
        if made {
            let said = format!("The key {} was made.", keys.current());
            audit.record("looker-feed", "key", &said);
        }
        let renewed = keys::renew(&outbox, &config, &keys)?;
        if renewed > 0 {
            let key = keys.current();
            let said = format!(
                "The credentials of {renewed} destinations are sealed under the key {key} now."
            );
            audit.record("looker-feed", "key", &said);
        }
        Ok((outbox, keys))
    });
    opened.await?
}

/// Does on a thread of its own, while the daemon starts, what blocks.
async fn aside<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, StartError> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|_| StartError::Panicked)
}

/// Who may look and act on the admin side.
fn admin_tokens(admin: &config::AdminSettings) -> Result<Vec<NamedToken>, TokenError> {
    let named = admin.tokens.iter();
    let named = named.map(|one| (one.name.as_str(), one.may_act, &one.token));
    let one = admin.token.iter().map(|token| ("admin", true, token));
    one.chain(named)
        .map(|(name, may_act, token)| {
            Ok(NamedToken {
                name: name.to_owned(),
                may_act,
                token: Token::new(token.expose())?,
            })
        })
        .collect()
}

/// The proxy that says who somebody is.
fn proxy(admin: &config::AdminSettings) -> Option<Proxy> {
    Some(Proxy {
        header: admin.user_header.clone()?,
        addresses: admin.user_header_from.clone(),
        may_act: admin.user_header_may_act,
    })
}

/// The name of the outbox's directory with something at its end.
pub(crate) fn beside(outbox: &Path, end: &str) -> PathBuf {
    let mut name = outbox.as_os_str().to_owned();
    name.push(end);
    PathBuf::from(name)
}

/// The configuration for the admin side's page.
fn configuration(config: &Config) -> Vec<view::Setting> {
    let setting = |found: &config::Found| view::Setting {
        key: found.key.to_owned(),
        value: found.value.clone(),
        secret: found.secret,
        changed: !matches!(found.origin, None | Some(config::Origin::Defaults { .. })),
        source: found
            .origin
            .as_ref()
            .map_or_else(|| "not set".to_owned(), ToString::to_string),
    };
    config.found.iter().map(setting).collect()
}
