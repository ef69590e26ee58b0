//! Connections to the server, each used by one statement at a time, and what became of a statement.
//!
//! Whatever changes something is a single statement, proved by the rows that it returns. There are no
//! transactions of several: the driver takes the server's rollback of one for success (rust-postgres
//! issues 1334 and 1342). A statement ends in one of three ways, and they are different types:
//! its rows; *refused*, so that nothing was changed; or *unknown*. Unknown is a lost connection, a
//! deadline that has passed, and a statement that succeeded with a warning of class 01000: that is how
//! the server says that it has stopped waiting for its synchronous standby. Nothing is ever cancelled,
//! for the same reason, and the server's own `statement_timeout` does not end such a wait, so the
//! deadlines are kept here.

use std::collections::HashMap;
use std::fmt;
use std::future::poll_fn;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout_at};
use tokio_postgres::types::ToSql;
use tokio_postgres::{AsyncMessage, Client, Row, Statement};

use super::server::Server;

/// Between two tries of a statement: at first, and at most.
const PAUSES: [Duration; 2] = [Duration::from_millis(20), Duration::from_secs(1)];

/// How the driver says that it has found no server that takes writes.
const NO_WRITES: &str = "database does not allow writes";

/// Parameters of a statement.
pub(super) type Params<'a> = &'a [&'a (dyn ToSql + Sync)];

/// How often a statement may be tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tries {
    /// Until nobody knows whether it has been carried out.
    UntilUnknown,
    /// Also when nobody knows: it comes to the same when it is carried out twice.
    UntilKnown,
}

/// Why there are no rows.
#[derive(Clone, Debug)]
pub(super) enum Fault {
    /// The server said no, and has changed nothing: its code and its words.
    Refused { code: String, words: String },
    /// No connection was to be had within the time: nothing was changed.
    Away(String),
    /// All connections of the pool were taken for all of the time: nothing was changed.
    Busy,
    /// It may have been carried out or not, or be carried out yet.
    Unknown(String),
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused { code, words } => write!(f, "the server says: {words} ({code})"),
            Self::Away(words) => write!(f, "no connection: {words}"),
            Self::Busy => f.write_str("all connections of the pool are busy"),
            Self::Unknown(words) => write!(f, "the answer was lost: {words}"),
        }
    }
}

impl std::error::Error for Fault {}

impl Fault {
    fn is_passing(&self) -> bool {
        match self {
            Self::Away(_) | Self::Busy => true,
            Self::Unknown(_) => false,
            // Serialization failures, deadlocks, no room for connections or memory, a server that
            // starts, stops, or has become a standby.
            Self::Refused { code, .. } => {
                ["40", "53", "57P03", "25006", "55P03"]
                    .iter()
                    .any(|class| code.starts_with(class))
                    && code != "53100"
            }
        }
    }

    /// What whoever runs the daemon can do about it, to go on a sentence with.
    pub fn advice(&self) -> &'static str {
        match self {
            Self::Away(_) => {
                "; see whether the database runs, and whether it can be reached from here at the address in outbox.url"
            }
            Self::Unknown(_) => {
                "; see whether the database, its standby and the network between are well"
            }
            Self::Busy => "; raise outbox.pool, or see what keeps the database busy",
            Self::Refused { code, .. } => match code.as_str() {
                "28P01" | "28000" => {
                    "; look at the user and the password in outbox.url and outbox.password_file, and at the server's pg_hba.conf"
                }
                "3D000" => "; make the database, or correct its name in outbox.url",
                "42501" => "; give the user of outbox.url the right to it",
                "42P01" | "3F000" | "42703" => {
                    "; its tables have been removed or changed: restart the daemon, which makes them"
                }
                "25006" => {
                    "; it is read-only: name the primary in outbox.url, or all hosts of the cluster, or end default_transaction_read_only"
                }
                "53100" => "; make room on the disk of the database",
                "53200" => "; it is out of memory",
                "53300" => "; lower outbox.pool, or raise max_connections there",
                "57P03" => "; it is starting, and this passes",
                _ => "",
            },
        }
    }

    pub fn code(&self) -> &str {
        match self {
            Self::Refused { code, .. } => code,
            _ => "",
        }
    }
}

/// A bounded number of connections.
pub(super) struct Sessions {
    server: Server,
    places: Semaphore,
    free: Mutex<Vec<Session>>,
}

struct Session {
    client: Client,
    driver: JoinHandle<()>,
    statements: HashMap<&'static str, Statement>,
    /// A warning of class 01000 has come since the last statement began.
    warned: Arc<AtomicBool>,
}

impl Drop for Session {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

impl Sessions {
    pub fn new(server: Server, most: usize) -> Self {
        Self {
            server,
            places: Semaphore::new(most.max(1)),
            free: Mutex::default(),
        }
    }

    /// Runs one statement, with all that may pass tried again until `within` is over.
    pub async fn run(
        &self,
        sql: &'static str,
        params: Params<'_>,
        tries: Tries,
        within: Duration,
    ) -> Result<Vec<Row>, Fault> {
        let deadline = Instant::now() + within;
        let mut pause = PAUSES[0];
        loop {
            let fault = match self.once(sql, params, deadline).await {
                Ok(rows) => return Ok(rows),
                Err(fault) => fault,
            };
            let again = fault.is_passing()
                || (tries == Tries::UntilKnown && matches!(fault, Fault::Unknown(_)));
            let jittered = pause.mul_f64(0.5 + fastrand::f64());
            if !again || Instant::now() + jittered >= deadline {
                return Err(fault);
            }
            sleep(jittered).await;
            pause = (pause * 2).min(PAUSES[1]);
        }
    }

    /// Reads: what it says is as old as its answer.
    pub async fn read(
        &self,
        sql: &'static str,
        params: Params<'_>,
        within: Duration,
    ) -> Result<Vec<Row>, Fault> {
        self.run(sql, params, Tries::UntilKnown, within).await
    }

    async fn once(
        &self,
        sql: &'static str,
        params: Params<'_>,
        deadline: Instant,
    ) -> Result<Vec<Row>, Fault> {
        let away = |why: &str| Fault::Away(why.to_owned());
        let place: SemaphorePermit<'_> = match timeout_at(deadline, self.places.acquire()).await {
            Ok(Ok(place)) => place,
            _ => return Err(Fault::Busy),
        };
        let mut session = match self.take() {
            Some(session) => session,
            None => match timeout_at(deadline, self.connect()).await {
                Ok(session) => session?,
                Err(_) => return Err(away("the server did not answer in time")),
            },
        };
        let statement = match session.statements.get(sql) {
            Some(statement) => statement.clone(),
            None => match timeout_at(deadline, session.client.prepare(sql)).await {
                Ok(Ok(statement)) => {
                    session.statements.insert(sql, statement.clone());
                    statement
                }
                // Preparing changes nothing.
                Ok(Err(error)) => {
                    return Err(refusal(&error).unwrap_or_else(|| away(&chain(&error))));
                }
                Err(_) => return Err(away("the server did not answer in time")),
            },
        };
        session.warned.store(false, Ordering::Release);
        match timeout_at(deadline, session.client.query(&statement, params)).await {
            Ok(Ok(rows)) => {
                let warned = session.warned.load(Ordering::Acquire);
                self.put_back(session);
                drop(place);
                if warned {
                    return Err(Fault::Unknown(
                        "it is there, and the server has stopped waiting for its standby"
                            .to_owned(),
                    ));
                }
                Ok(rows)
            }
            Ok(Err(error)) => {
                let fault = refusal(&error).unwrap_or_else(|| Fault::Unknown(chain(&error)));
                // A primary that has become a standby keeps its connections.
                if matches!(fault, Fault::Refused { .. }) && fault.code() != "25006" {
                    self.put_back(session);
                }
                Err(fault)
            }
            // The connection goes with the session: the statement may be carried out yet.
            Err(_) => Err(Fault::Unknown("no answer in time".to_owned())),
        }
    }

    /// Runs statements that are none of the outbox's own, one after the other, each by itself.
    pub async fn batch(&self, sql: &str, within: Duration) -> Result<(), Fault> {
        let deadline = Instant::now() + within;
        let session = match timeout_at(deadline, self.connect()).await {
            Ok(session) => session?,
            Err(_) => return Err(Fault::Away("the server did not answer in time".to_owned())),
        };
        match timeout_at(deadline, session.client.batch_execute(sql)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(refusal(&error).unwrap_or_else(|| Fault::Unknown(chain(&error)))),
            Err(_) => Err(Fault::Unknown("no answer in time".to_owned())),
        }
    }

    fn take(&self) -> Option<Session> {
        let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        while let Some(session) = free.pop() {
            if !session.client.is_closed() {
                return Some(session);
            }
        }
        None
    }

    fn put_back(&self, session: Session) {
        let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        free.push(session);
    }

    async fn connect(&self) -> Result<Session, Fault> {
        let connecting = self.server.config.connect(self.server.tls.clone());
        let (client, mut connection) = connecting.await.map_err(|error| {
            let read_only = || {
                let words = chain(&error);
                // The driver has asked it, and has no code for the answer.
                words.contains(NO_WRITES).then(|| Fault::Refused {
                    code: "25006".to_owned(),
                    words: NO_WRITES.to_owned(),
                })
            };
            let said = refusal(&error).or_else(read_only);
            said.unwrap_or_else(|| Fault::Away(chain(&error)))
        })?;
        let warned = Arc::new(AtomicBool::new(false));
        let heard = Arc::clone(&warned);
        // The driver hands notices over in their order among the answers.
        let driver = tokio::spawn(async move {
            while let Some(message) = poll_fn(|context| connection.poll_message(context)).await {
                match message {
                    Ok(AsyncMessage::Notice(notice)) => {
                        if notice.code().code() == "01000" {
                            heard.store(true, Ordering::Release);
                        }
                    }
                    Ok(_) => {}
                    // Whoever waits for an answer hears of it.
                    Err(_) => break,
                }
            }
        });
        Ok(Session {
            client,
            driver,
            statements: HashMap::new(),
            warned,
        })
    }
}

/// What the server said, if it is certain that it has changed nothing.
fn refusal(error: &tokio_postgres::Error) -> Option<Fault> {
    let said = error.as_db_error()?;
    let code = said.code().code();
    // The session was ended, or the server does not know itself.
    let unsure = code.starts_with("08")
        || ["57P01", "57P02", "40003"].contains(&code)
        || code.starts_with("58")
        || code.starts_with("XX");
    (!unsure).then(|| Fault::Refused {
        code: code.to_owned(),
        words: said.message().to_owned(),
    })
}

/// An error with what is behind it.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(inner) = source {
        text.push_str(": ");
        text.push_str(&inner.to_string());
        source = inner.source();
    }
    text
}
