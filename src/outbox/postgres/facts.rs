//! What a server says of itself.

use std::fmt;

use super::columns::column;
use super::session::{Fault, Sessions};
use crate::outbox::error::Error;
use std::time::Duration;

/// How a server replicates, as far as it says so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Replication {
    /// A commit waits for standbys: as `synchronous_standby_names` has it.
    Synchronous(String),
    /// A commit waits for nobody. Services that replicate by their disks look like this too.
    None,
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
    /// `server_version_num`: 150004 is 15.4.
    pub(super) number: i64,
}

const FACTS: &str = "SELECT current_setting('server_version') AS version,
     current_setting('server_version_num')::int8 AS number,
     coalesce(current_setting('synchronous_standby_names', true), '') AS standbys,
     current_setting('synchronous_commit') AS waits,
     coalesce(current_setting('fsync', true), 'on') AS fsync";

impl ServerFacts {
    /// Asks a server.
    pub(super) async fn ask(sessions: &Sessions, within: Duration) -> Result<Self, FactsError> {
        let rows = sessions.read(FACTS, &[], within).await?;
        let row = rows.first().ok_or(Error::Closed)?;
        let standbys: String = column(row, "standbys")?;
        let waits: String = column(row, "waits")?;
        let fsync: String = column(row, "fsync")?;
        let waits_for_standby = ["on", "remote_write", "remote_apply"].contains(&waits.as_str());
        Ok(Self {
            version: column(row, "version")?,
            number: column(row, "number")?,
            replication: match standbys.is_empty() || !waits_for_standby {
                true => Replication::None,
                false => Replication::Synchronous(standbys),
            },
            syncs: fsync == "on" && waits != "off",
        })
    }

    /// Whether what is acknowledged outlives the loss of the server's disk, as far as it says so.
    pub fn is_replicated(&self) -> bool {
        self.syncs && self.replication != Replication::None
    }
}

/// As a sentence goes on with it.
impl fmt::Display for ServerFacts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PostgreSQL {}, ", self.version)?;
        match &self.replication {
            Replication::Synchronous(names) => write!(f, "synchronous standbys: {names}")?,
            Replication::None => f.write_str("no synchronous standby")?,
        }
        match self.syncs {
            true => Ok(()),
            false => f.write_str(
                ", commits do not wait for the disk (fsync or synchronous_commit is off)",
            ),
        }
    }
}

/// A server does not say what it is.
pub(super) enum FactsError {
    Fault(Fault),
    Odd(Error),
}

impl From<Fault> for FactsError {
    fn from(fault: Fault) -> Self {
        Self::Fault(fault)
    }
}

impl From<Error> for FactsError {
    fn from(error: Error) -> Self {
        Self::Odd(error)
    }
}

impl From<FactsError> for Error {
    fn from(error: FactsError) -> Self {
        match error {
            FactsError::Fault(fault) => Self::Database {
                doing: "it does not say how it replicates",
                why: fault.to_string().into(),
            },
            FactsError::Odd(error) => error,
        }
    }
}
