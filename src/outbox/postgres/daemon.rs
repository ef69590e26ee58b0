//! What the tasks of one daemon share, and how they speak to the server.

use std::collections::{HashMap, HashSet};
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use tokio::sync::{Notify, mpsc, watch};
use tokio_postgres::Row;
use tokio_util::sync::CancellationToken;

use super::facts::ServerFacts;
use super::held::Held;
use super::image::Job;
use super::lock::lock;
use super::pending::{Attempts, Leaving};
use super::session::{Fault, Params, Sessions, Tries};
use super::settings::Settings;
use crate::model::{DeliveryId, DestinationId};
use crate::outbox::error::Error;
use crate::outbox::status::{Damage, Health};
use crate::seal::{Keyring, OpenError, Sealer};

/// What a move calls itself among the daemons: no part of the destinations falls to it.
pub const MOVER: &str = "outbox move";

/// What `counter` has when nothing in the database counts any more.
pub(super) const MOVED_AWAY: &str = "moved away";

/// How long an answer is waited for when it is known that the server gives none.
const AWAY: Duration = Duration::from_secs(3);

/// A daemon is heard of. It writes in any case, so that its answer tells that what came before is as
/// durable as the server makes anything.
pub(super) const BEAT: &str = "INSERT INTO looker_feed.daemon (id, name, since, beat)
     VALUES ($1, $2, clock_timestamp(), clock_timestamp())
     ON CONFLICT (id) DO UPDATE SET beat = excluded.beat RETURNING 1";

/// A daemon that has been silent for so many leases is taken for dead: what it was taking in is
/// aborted.
const DEAD_AFTER: f64 = 4.0;

/// What the tasks of one daemon share.
pub(super) struct Inner {
    pub settings: Settings,
    pub sessions: Sessions,
    /// Names this run of this daemon, at random.
    pub me: [u8; 16],
    pub changed: watch::Sender<u64>,
    /// Wakes whoever looks for work.
    pub nudge: Notify,
    pub held: Mutex<HashMap<DestinationId, Arc<Held>>>,
    /// Destinations whose lease is being asked for.
    pub entering: Mutex<HashSet<DestinationId>>,
    /// How many destinations are this daemon's part of those that have work.
    pub share: AtomicUsize,
    /// Since when destinations with work have been seen without an owner.
    pub free_since: Mutex<HashMap<DestinationId, Instant>>,
    /// Ids for letters that nobody else has.
    pub letter_ids: Mutex<Range<u64>>,
    /// Destinations that had work when it was last looked.
    pub active: Mutex<HashSet<DestinationId>>,
    /// Deliveries that are being received, and failed ones that are still to be written down.
    pub attempts: Attempts,
    /// Deliveries that have begun here and not ended.
    pub staging: Mutex<HashSet<DeliveryId>>,
    /// Deliveries that are to be aborted, since their callers have let go of them.
    pub aborting: Mutex<Vec<DeliveryId>>,
    /// Leases that are to be given back, since their holders have let go of them.
    pub letting_go: Mutex<Vec<Arc<Held>>>,
    /// Schedules that are to be left.
    pub leaving_schedules: Mutex<Vec<Leaving>>,
    pub settles: mpsc::Sender<Job>,
    pub health: Mutex<Health>,
    /// What the server says of itself, as it was asked last.
    pub facts: Mutex<Option<ServerFacts>>,
    /// What was found damaged, as of the last sweep, and here since.
    pub damage: Mutex<Vec<Damage>>,
    /// Bytes that wait on the server, as it was asked last.
    pub used: AtomicU64,
    /// Bytes that this daemon has staged since.
    pub staged: AtomicU64,
    /// No further destinations are taken.
    pub leaving: AtomicBool,
    pub closed: CancellationToken,
}

impl std::fmt::Debug for Inner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Inner({:?})", self.settings.server)
    }
}

impl Inner {
    /// Runs a statement that changes something.
    pub async fn write(
        &self,
        doing: &'static str,
        sql: &'static str,
        params: Params<'_>,
        tries: Tries,
    ) -> Result<Vec<Row>, Error> {
        let run = self
            .sessions
            .run(sql, params, tries, self.settings.within)
            .await;
        run.map_err(|fault| database(doing, &fault))
    }

    pub async fn read(
        &self,
        doing: &'static str,
        sql: &'static str,
        params: Params<'_>,
    ) -> Result<Vec<Row>, Error> {
        let run = self.sessions.read(sql, params, self.settings.within).await;
        run.map_err(|fault| database(doing, &fault))
    }

    /// The same for somebody who looks, and is not kept waiting when it is known that there is no answer.
    pub async fn show(
        &self,
        doing: &'static str,
        sql: &'static str,
        params: Params<'_>,
    ) -> Result<Vec<Row>, Error> {
        tokio::select! {
            read = self.read(doing, sql, params) => read,
            why = self.away() => Err(Error::Database { doing, why }),
        }
    }

    /// Returns when it has been known for a moment that the server does not answer.
    async fn away(&self) -> Arc<str> {
        loop {
            tokio::time::sleep(AWAY).await;
            if let Health::RefusingWrites { what, .. } = self.health() {
                return what;
            }
        }
    }

    /// Makes sure that all that can be seen on the server is as durable as the server makes anything:
    /// by a write, since a read shows also what has not reached the standby.
    pub async fn confirm(&self) -> Result<(), Error> {
        self.write(
            "what it holds could not be confirmed",
            BEAT,
            &[&&self.me[..], &self.settings.name],
            Tries::UntilKnown,
        )
        .await
        .map(drop)
    }

    /// How many seconds a daemon has been silent that is taken for dead.
    pub fn silence(&self) -> f64 {
        self.settings.lease.as_secs_f64() * DEAD_AFTER
    }

    pub fn held(&self) -> MutexGuard<'_, HashMap<DestinationId, Arc<Held>>> {
        lock(&self.held)
    }

    pub fn wake(&self) {
        self.changed.send_modify(|version| *version += 1);
    }

    pub fn is_closed(&self) -> bool {
        self.closed.is_cancelled()
    }

    pub fn health(&self) -> Health {
        lock(&self.health).clone()
    }

    /// Takes note of whether the server takes writes.
    pub fn seen(&self, result: &Result<(), Error>) {
        let mut health = lock(&self.health);
        match (result, &*health) {
            (Ok(()), Health::RefusingWrites { .. }) => {
                tracing::info!("the database of the outbox takes writes again");
                *health = Health::Ok;
            }
            (Err(error), Health::Ok) => {
                tracing::error!(%error, "the database of the outbox takes no writes; it is tried again");
                let what = match error {
                    Error::Database { doing, why } => format!("{doing}: {why}"),
                    other => other.to_string(),
                };
                *health = Health::RefusingWrites {
                    since: self.settings.clock.now(),
                    what: what.into(),
                };
            }
            _ => {}
        }
    }
}

pub(super) fn database(doing: &'static str, fault: &Fault) -> Error {
    Error::Database {
        doing,
        why: format!("{fault}{}", fault.advice()).into(),
    }
}

impl Inner {
    pub fn sealer(&self) -> Result<Sealer, Error> {
        let sealer = self.settings.keys.sealer();
        sealer.map_err(|error| sealing(&error))
    }

    pub fn seal(&self, text: &[u8], context: &[u8]) -> Result<Vec<u8>, Error> {
        let sealed = self.settings.keys.seal_text(text, context);
        sealed.map_err(|error| sealing(&error))
    }

    pub fn unseal(&self, sealed: &[u8], context: &[u8]) -> Result<Vec<u8>, Error> {
        unseal(&self.settings.keys, sealed, context)
    }
}

fn sealing(error: &dyn std::error::Error) -> Error {
    Error::Database {
        doing: "something could not be sealed",
        why: error.to_string().into(),
    }
}

fn unseal(keys: &Keyring, sealed: &[u8], context: &[u8]) -> Result<Vec<u8>, Error> {
    match keys.open_text(sealed, context) {
        Ok(text) => Ok(text.to_vec()),
        Err(OpenError::UnknownKey(key)) => Err(Error::MissingKey { key }),
        Err(error) => Err(Error::Database {
            doing: "something sealed could not be opened",
            why: error.to_string().into(),
        }),
    }
}
