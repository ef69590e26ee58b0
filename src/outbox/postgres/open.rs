//! Opening: the server is looked at, its tables made, the keys held against those in use, and the
//! daemon's tasks begun.

use std::collections::HashMap;
use std::future::Future;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::runtime::{Builder, Runtime};
use tokio::sync::{Notify, mpsc, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::columns::column;
use super::daemon::{BEAT, Inner, MOVED_AWAY, database};
use super::facts::{FactsError, ServerFacts};
use super::handle::{Parts, Runner, SharedOutbox};
use super::keeper;
use super::lock::lock;
use super::notes;
use super::pending::Attempts;
use super::schema::{self, SchemaError};
use super::session::{Sessions, Tries};
use super::settings::Settings;
use super::settle;
use super::sweep;
use crate::outbox::error::Error;
use crate::outbox::status::Health;
use crate::seal::KeyId;

/// Rows of progress that may wait to be written: a change for each of many destinations.
const JOBS: usize = 1024;
/// How long the server may take to answer at the start.
const WITHIN: Duration = Duration::from_secs(15);
/// The oldest server that is tried: PostgreSQL 14.
const OLDEST: i64 = 140_000;
/// Sealed under each key.
const CANARY: &[u8] = b"looker-feed";

/// A shared outbox could not be opened. Nothing was changed but what is said.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The system gives no threads or no random bytes.
    #[error("its tasks could not be started: {0}")]
    System(String),
    /// Settings that contradict themselves.
    #[error("outbox setting {0}")]
    Setting(&'static str),
    /// The server does not answer, or not as it should.
    #[error("the database {server} cannot be used: {why}{hint}")]
    Server {
        /// Hosts and database.
        server: String,
        /// What it or the system said.
        why: String,
        /// What to do, if that is known.
        hint: &'static str,
    },
    /// It is too old.
    #[error("the database {server} is PostgreSQL {found}, and 14 or later is needed")]
    Old {
        /// Hosts and database.
        server: String,
        /// Its version.
        found: String,
    },
    /// The tables are not there, or not those of this program.
    #[error("the database {server}: {source}")]
    Schema {
        /// Hosts and database.
        server: String,
        /// Why.
        source: SchemaError,
    },
    /// What was in it is in a directory now.
    #[error(
        "the outbox in the database {server} was moved to a directory, and what is left in it is a copy; start the daemon on that directory, or, to begin anew here, have `DROP SCHEMA looker_feed CASCADE` run"
    )]
    MovedAway {
        /// Hosts and database.
        server: String,
    },
    /// Something is sealed under a key that is not there.
    #[error(
        "the database {server} needs the key {key} (deliveries and letters sealed under it: {pieces}), and the keys at hand are {held}; name that key's file as seal.key_file, or in seal.previous_key_files"
    )]
    MissingKey {
        /// Hosts and database.
        server: String,
        /// The key that is missing.
        key: KeyId,
        /// What needs it.
        pieces: u64,
        /// The ids of the keys that are there.
        held: String,
    },
    /// Other daemons seal with keys that this one does not have, and the other way round.
    #[error(
        "the daemons on the database {server} seal with other keys ({theirs}) than this one has ({held}); give all of them the same seal.key_file"
    )]
    OtherKeys {
        /// Hosts and database.
        server: String,
        /// Theirs.
        theirs: String,
        /// Ours.
        held: String,
    },
}

/// What a look at a server has found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Probed {
    /// What it says of itself.
    pub facts: ServerFacts,
    /// Whether the tables are there; if not, the user may make them.
    pub tables: bool,
}

/// What somebody who has the outbox open does in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    /// Takes deliveries in and sends them.
    Daemon,
    /// Takes another outbox in, and is only heard of, under [`MOVER`](super::daemon::MOVER).
    Mover,
    /// Reads all of it, to move it elsewhere, which may have been done before.
    Reader,
}

/// Looks at a server without changing anything: its version, how it replicates, whether its tables are
/// there or can be made, and whether the keys are those in use.
///
/// # Errors
/// It could not be opened.
pub fn probe(settings: &Settings) -> Result<Probed, OpenError> {
    check(settings)?;
    let runtime = runtime()?;
    let settings = settings.clone();
    let probed = wait(&runtime, async move {
        let sessions = Sessions::new(settings.server.clone(), 1);
        let facts = facts(&settings, &sessions).await?;
        let schema = |source| OpenError::Schema {
            server: settings.server.to_string(),
            source,
        };
        let tables = schema::look(&sessions).await.map_err(schema)?;
        if tables {
            check_keys(&settings, &sessions).await?;
        } else {
            schema::may_make(&sessions).await.map_err(schema)?;
        }
        Ok(Probed { facts, tables })
    });
    runtime.shutdown_background();
    probed?
}

fn check(settings: &Settings) -> Result<(), OpenError> {
    if settings.pool < 2 {
        return Err(OpenError::Setting("pool must be 2 or more"));
    }
    if !(Duration::from_secs(1)..=Duration::from_secs(300)).contains(&settings.lease) {
        return Err(OpenError::Setting("lease must be from 1 s to 5 min"));
    }
    Ok(())
}

impl SharedOutbox {
    /// Opens a shared outbox: makes its tables if they are not there, and begins to take part in it.
    ///
    /// # Errors
    /// See [`OpenError`].
    pub fn open(settings: Settings) -> Result<Self, OpenError> {
        let mut me = [0; 16];
        getrandom::fill(&mut me).map_err(|error| OpenError::System(error.to_string()))?;
        Self::open_as(settings, me, Part::Daemon)
    }

    pub(super) fn open_as(settings: Settings, me: [u8; 16], part: Part) -> Result<Self, OpenError> {
        check(&settings)?;
        let runtime = runtime()?;
        let (settles, jobs) = mpsc::channel(JOBS);
        let inner = Arc::new(Inner {
            sessions: Sessions::new(settings.server.clone(), settings.pool),
            settings,
            me,
            changed: watch::Sender::new(0),
            nudge: Notify::new(),
            held: Mutex::default(),
            entering: Mutex::default(),
            share: usize::MAX.into(),
            free_since: Mutex::new(HashMap::new()),
            letter_ids: Mutex::new(0..0),
            active: Mutex::default(),
            attempts: Attempts::default(),
            staging: Mutex::default(),
            aborting: Mutex::default(),
            letting_go: Mutex::default(),
            leaving_schedules: Mutex::default(),
            settles,
            health: Mutex::new(Health::Ok),
            facts: Mutex::default(),
            damage: Mutex::default(),
            used: 0.into(),
            staged: 0.into(),
            leaving: false.into(),
            closed: CancellationToken::new(),
        });
        let entered = wait(&runtime, {
            let inner = Arc::clone(&inner);
            async move { enter(&inner, part).await }
        });
        if let Err(error) = entered.and_then(|entered| entered) {
            runtime.shutdown_background();
            return Err(error);
        }
        let mut tasks = JoinSet::new();
        let handle = runtime.handle().clone();
        let beat = handle.spawn(keeper::beat(Arc::clone(&inner)));
        if part == Part::Daemon {
            tasks.spawn_on(keeper::look(Arc::clone(&inner)), &handle);
            tasks.spawn_on(sweep::sweep(Arc::clone(&inner)), &handle);
            tasks.spawn_on(settle::write_jobs(Arc::clone(&inner), jobs), &handle);
        }
        let runner = Runner {
            inner: Arc::clone(&inner),
            parts: Mutex::new(Some(Parts {
                runtime,
                beat,
                tasks,
            })),
            handle,
        };
        Ok(Self {
            inner,
            runner: Arc::new(runner),
        })
    }

    /// What the server says of itself now.
    ///
    /// # Errors
    /// It cannot be asked.
    pub fn facts(&self) -> Result<ServerFacts, Error> {
        let inner = Arc::clone(&self.inner);
        self.run(async move {
            let within = inner.settings.within;
            Ok(ServerFacts::ask(&inner.sessions, within).await?)
        })
    }

    /// The same as it said last.
    pub fn known_facts(&self) -> Option<ServerFacts> {
        lock(&self.inner.facts).clone()
    }

    /// Deletes what nobody needs any more, now instead of within ten seconds.
    ///
    /// # Errors
    /// The server cannot be asked.
    pub fn sweep(&self) -> Result<(), Error> {
        let inner = Arc::clone(&self.inner);
        self.run(async move { sweep::once(&inner).await })
    }
}

fn runtime() -> Result<Runtime, OpenError> {
    Builder::new_multi_thread()
        .worker_threads(2)
        .thread_name("outbox")
        .enable_all()
        .build()
        .map_err(|error| OpenError::System(error.to_string()))
}

fn wait<T: Send + 'static>(
    runtime: &Runtime,
    future: impl Future<Output = T> + Send + 'static,
) -> Result<T, OpenError> {
    let (reply, answer) = std::sync::mpsc::sync_channel(1);
    // Awaited right here, by the answer.
    drop(runtime.spawn(async move {
        let _ = reply.send(future.await);
    }));
    let ended = |_| OpenError::System("a task has ended early".to_owned());
    answer.recv().map_err(ended)
}

async fn enter(inner: &Inner, part: Part) -> Result<(), OpenError> {
    let server = || inner.settings.server.to_string();
    let facts = facts(&inner.settings, &inner.sessions).await?;
    match facts.is_replicated() {
        true => tracing::info!(server = server(), %facts, "the outbox is shared"),
        false => {
            tracing::warn!(server = server(), %facts, "the outbox is shared, and lives as long as the server's disk")
        }
    }
    *lock(&inner.facts) = Some(facts);
    schema::apply(&inner.sessions)
        .await
        .map_err(|source| OpenError::Schema {
            server: server(),
            source,
        })?;
    let failed = |error: Error| OpenError::Server {
        server: server(),
        why: error.to_string(),
        hint: "",
    };
    check_keys(&inner.settings, &inner.sessions).await?;
    let sealed = inner.seal(CANARY, CANARY).map_err(failed)?;
    inner
        .write(
            "the key could not be entered",
            "INSERT INTO looker_feed.canary (key, sealed) VALUES ($1, $2)
             ON CONFLICT (key) DO NOTHING",
            &[&&inner.settings.keys.current().0[..], &sealed],
            Tries::UntilKnown,
        )
        .await
        .map_err(failed)?;
    inner
        .write(
            "the daemon could not be entered",
            BEAT,
            &[&&inner.me[..], &inner.settings.name],
            Tries::UntilKnown,
        )
        .await
        .map_err(failed)?;
    // Once this one has been heard of: who moves the outbox away looks for that.
    let sql = "SELECT 1 FROM looker_feed.counter WHERE name = $1";
    let moved = inner
        .read("it could not be looked up", sql, &[&MOVED_AWAY])
        .await
        .map_err(failed)?;
    if !moved.is_empty() && part != Part::Reader {
        return Err(OpenError::MovedAway { server: server() });
    }
    inner.reseal_attempts().await.map_err(failed)
}

async fn check_keys(settings: &Settings, sessions: &Sessions) -> Result<(), OpenError> {
    let server = || settings.server.to_string();
    let keys = &settings.keys;
    let held = || {
        let ids: Vec<String> = keys.ids().map(|id| id.to_string()).collect();
        ids.join(", ")
    };
    let failed = |error: Error| OpenError::Server {
        server: server(),
        why: error.to_string(),
        hint: "",
    };
    let needed = notes::needed_keys(sessions, WITHIN).await.map_err(failed)?;
    if let Some((&key, &pieces)) = needed.iter().find(|(key, _)| !keys.holds(**key)) {
        return Err(OpenError::MissingKey {
            server: server(),
            key,
            pieces,
            held: held(),
        });
    }
    let doing = "the keys in use could not be looked up";
    let rows = sessions
        .read("SELECT key FROM looker_feed.canary", &[], WITHIN)
        .await
        .map_err(|fault| failed(database(doing, &fault)))?;
    let mut theirs = Vec::new();
    for row in &rows {
        let key: &[u8] = column(row, "key").map_err(failed)?;
        theirs.extend(key.try_into().ok().map(KeyId));
    }
    if !theirs.is_empty() && !theirs.iter().any(|key| keys.holds(*key)) {
        let theirs: Vec<String> = theirs.iter().map(|key| key.to_string()).collect();
        return Err(OpenError::OtherKeys {
            server: server(),
            theirs: theirs.join(", "),
            held: held(),
        });
    }
    Ok(())
}

async fn facts(settings: &Settings, sessions: &Sessions) -> Result<ServerFacts, OpenError> {
    let server = || settings.server.to_string();
    let facts = ServerFacts::ask(sessions, WITHIN).await;
    let facts = facts.map_err(|error| match error {
        FactsError::Fault(fault) => OpenError::Server {
            server: server(),
            hint: fault.advice(),
            why: fault.to_string(),
        },
        FactsError::Odd(error) => OpenError::Server {
            server: server(),
            why: error.to_string(),
            hint: "",
        },
    })?;
    if facts.number < OLDEST {
        return Err(OpenError::Old {
            server: server(),
            found: facts.version,
        });
    }
    Ok(facts)
}
