//! Opening: the server is looked at, its tables made, the keys held against those in use, and the
//! daemon's tasks begun.

use std::collections::HashMap;
use std::future::Future;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::runtime::{Builder, Runtime};
use tokio::sync::{Notify, mpsc, watch};
use tokio::task::JoinSet;

use super::columns::column;
use super::daemon::{BEAT, Inner};
use super::handle::Runner;
use super::handle::SharedOutbox;
use super::keeper;
use super::notes;
use super::schema::{self, SchemaError};
use super::session::{Fault, Sessions, Tries};
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

/// How a server replicates, as far as it says so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Replication {
    /// A commit waits for standbys: as `synchronous_standby_names` has it.
    Synchronous(String),
    /// A commit waits for nobody. Services that replicate by their disks look like this too.
    None,
}

/// What somebody who has the outbox open does in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    /// Takes deliveries in and sends them.
    Daemon,
    /// Takes another outbox in, and is only heard of, under [`MOVER`](super::daemon::MOVER).
    Mover,
}

/// What a server says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerFacts {
    /// Its version.
    pub version: String,
    /// How it replicates.
    pub replication: Replication,
    /// Whether a commit waits for the disk.
    pub syncs: bool,
}

impl SharedOutbox {
    /// Looks at a server without changing anything: its version, how it replicates, whether its
    /// tables can be made, and whether the keys are those in use.
    ///
    /// # Errors
    /// It could not be opened.
    pub fn probe(settings: &Settings) -> Result<ServerFacts, OpenError> {
        let runtime = runtime()?;
        let sessions = Sessions::new(settings.server.clone(), 1);
        let probed = wait(&runtime, {
            let settings = settings.clone();
            async move {
                let facts = facts(&settings, &sessions).await?;
                let there = schema::look(&sessions).await;
                there.map_err(|source| OpenError::Schema {
                    server: settings.server.to_string(),
                    source,
                })?;
                Ok(facts)
            }
        });
        runtime.shutdown_background();
        probed?
    }

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
        if settings.pool < 2 {
            return Err(OpenError::Setting("pool must be 2 or more"));
        }
        if !(Duration::from_secs(1)..=Duration::from_secs(300)).contains(&settings.lease) {
            return Err(OpenError::Setting("lease must be from 1 s to 5 min"));
        }
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
            staging: Mutex::default(),
            aborting: Mutex::default(),
            letting_go: Mutex::default(),
            settles,
            health: Mutex::new(Health::Ok),
            used: 0.into(),
            staged: 0.into(),
            closed: false.into(),
        });
        let entered = wait(&runtime, {
            let inner = Arc::clone(&inner);
            async move { enter(&inner).await }
        });
        if let Err(error) = entered.and_then(|entered| entered) {
            runtime.shutdown_background();
            return Err(error);
        }
        let mut tasks = JoinSet::new();
        let handle = runtime.handle().clone();
        tasks.spawn_on(keeper::beat(Arc::clone(&inner)), &handle);
        if part == Part::Daemon {
            tasks.spawn_on(keeper::look(Arc::clone(&inner)), &handle);
            tasks.spawn_on(sweep::sweep(Arc::clone(&inner)), &handle);
            tasks.spawn_on(settle::write_jobs(Arc::clone(&inner), jobs), &handle);
        }
        let runner = Runner {
            inner: Arc::clone(&inner),
            parts: Mutex::new(Some((runtime, tasks))),
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
            let facts = facts(&inner.settings, &inner.sessions).await;
            facts.map_err(|error| Error::Database {
                doing: "it does not say how it replicates",
                why: error.to_string().into(),
            })
        })
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

async fn enter(inner: &Inner) -> Result<(), OpenError> {
    let server = || inner.settings.server.to_string();
    facts(&inner.settings, &inner.sessions).await?;
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
    check_keys(inner).await?;
    inner
        .write(
            "the daemon could not be entered",
            BEAT,
            &[&&inner.me[..], &inner.settings.name],
            Tries::UntilKnown,
        )
        .await
        .map_err(failed)?;
    Ok(())
}

async fn check_keys(inner: &Inner) -> Result<(), OpenError> {
    let server = || inner.settings.server.to_string();
    let keys = &inner.settings.keys;
    let held = || {
        let ids: Vec<String> = keys.ids().map(|id| id.to_string()).collect();
        ids.join(", ")
    };
    let failed = |error: Error| OpenError::Server {
        server: server(),
        why: error.to_string(),
        hint: "",
    };
    let needed = notes::needed_keys(inner).await.map_err(failed)?;
    if let Some((&key, &pieces)) = needed.iter().find(|(key, _)| !keys.holds(**key)) {
        return Err(OpenError::MissingKey {
            server: server(),
            key,
            pieces,
            held: held(),
        });
    }
    let doing = "the keys in use could not be looked up";
    let rows = inner
        .read(doing, "SELECT key FROM looker_feed.canary", &[])
        .await
        .map_err(failed)?;
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
    let sealed = inner.seal(CANARY, CANARY).map_err(failed)?;
    inner
        .write(
            doing,
            "INSERT INTO looker_feed.canary (key, sealed) VALUES ($1, $2)
             ON CONFLICT (key) DO NOTHING",
            &[&&keys.current().0[..], &sealed],
            Tries::UntilKnown,
        )
        .await
        .map_err(failed)?;
    Ok(())
}

const FACTS: &str = "SELECT current_setting('server_version') AS version,
     current_setting('server_version_num')::int8 AS number,
     coalesce(current_setting('synchronous_standby_names', true), '') AS standbys,
     current_setting('synchronous_commit') AS waits,
     coalesce(current_setting('fsync', true), 'on') AS fsync";

async fn facts(settings: &Settings, sessions: &Sessions) -> Result<ServerFacts, OpenError> {
    let server = settings.server.to_string();
    let rows = sessions
        .read(FACTS, &[], WITHIN)
        .await
        .map_err(|fault| OpenError::Server {
            server: server.clone(),
            hint: hint(&fault),
            why: fault.to_string(),
        })?;
    let odd = |error: Error| OpenError::Server {
        server: settings.server.to_string(),
        why: error.to_string(),
        hint: "",
    };
    let Some(row) = rows.first() else {
        return Err(odd(Error::Closed));
    };
    let version: String = column(row, "version").map_err(odd)?;
    let number: i64 = column(row, "number").map_err(odd)?;
    if number < OLDEST {
        return Err(OpenError::Old {
            server,
            found: version,
        });
    }
    let standbys: String = column(row, "standbys").map_err(odd)?;
    let waits: String = column(row, "waits").map_err(odd)?;
    let fsync: String = column(row, "fsync").map_err(odd)?;
    let waits_for_standby = ["on", "remote_write", "remote_apply"].contains(&waits.as_str());
    Ok(ServerFacts {
        version,
        replication: if standbys.is_empty() || !waits_for_standby {
            Replication::None
        } else {
            Replication::Synchronous(standbys)
        },
        syncs: fsync == "on" && waits != "off",
    })
}

/// What to do about what the server says at the door.
fn hint(fault: &Fault) -> &'static str {
    match fault.code() {
        "28P01" | "28000" => "; look at the user and the password in outbox.url",
        "3D000" => "; make the database, or correct its name in outbox.url",
        "42501" => "; give the user of outbox.url the right to it",
        "25006" => "; it is read-only: name the primary in outbox.url, or all hosts of the cluster",
        "53300" => "; it has no connection left: lower outbox.pool, or raise max_connections",
        _ => "",
    }
}
