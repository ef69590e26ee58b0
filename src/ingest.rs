//! One delivery: bytes in, a durable set of ready requests out.
//!
//! The bytes are taken from the stream by a task and handed over a bounded channel to one thread,
//! which does the work that needs a processor: decode, map, group, encode. So the network and the
//! work overlap, the runtime stays free, and a slow disk slows the sender down. Once all has come in,
//! a second thread stores what the first one makes: it compresses and writes.
//!
//! A delivery is atomic. Its stream must end well, its document must be whole, and its rows must
//! make sense before anything of it becomes visible to the drain; else all that was written of it
//! is removed. A delivery of which every single row was refused fails too: a success of nothing
//! would hide the mistake.
//!
//! The work itself knows nothing of the outbox: what it makes goes to a [`Store`]. So [`rehearse`]
//! does with a document exactly what [`receive`] does, and keeps nothing.

mod admission;
mod early;
mod ledger;
mod work;
mod worked;
mod writer;

use std::fmt;
use std::io;
use std::sync::atomic::Ordering;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use futures::{Stream, StreamExt};
use tokio::sync::mpsc;

use crate::changes::{self, Changes};
use crate::clock::Clock;
use crate::decode::{self, Chunk, DecodeError};
use crate::group::{self, GroupError};
use crate::mapping::{self, MoreColumns, PlanError};
use crate::model::{DeliveryId, DestinationId, Environment, Header};
use crate::mparticle::encode;
use crate::mparticle::route::Route;
use crate::outbox::{self, Arrived, NewDelivery, Outbox};

pub use admission::{Admission, Place};
pub use worked::Worked;

use admission::part_of;

/// Chunks that wait for the worker, and as many that it has taken. How many bytes that may be depends
/// on how many deliveries there are ([`Admission`]).
const CHUNKS_WAITING: usize = 48;

/// How deliveries are worked on.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Bounds of what is read.
    pub decode: decode::Limits,
    /// Memory for grouping, and the place of temporary files.
    pub group: group::Settings,
    /// How many deliveries are received at once, and what they share.
    pub admission: Admission,
    /// Bounds of what is written.
    pub encode: encode::Settings,
}

/// What is known of a delivery before its first byte.
#[derive(Debug)]
pub struct Incoming {
    /// How the outbox knows it.
    pub delivery: NewDelivery,
    /// The choices that its mapping depends on. Ages are measured against the time at which the
    /// outbox's delivery was received, whatever stands here.
    pub mapping: mapping::Settings,
    /// Tags of columns that count before those of LookML.
    pub more_columns: MoreColumns,
    /// mParticle's `environment`.
    pub environment: Environment,
    /// The data plan that batches name.
    pub data_plan: Option<encode::DataPlan>,
    /// Set if only changes are sent: what the delivery is compared with.
    pub changes: Option<(Changes, changes::Comparison)>,
    /// Set if a delivery of an unusual size is held: what is usual.
    pub usual: Option<Usual>,
}

/// The usual number of rows of a schedule's deliveries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Usual {
    /// At least so many.
    pub least: u64,
    /// At most so many.
    pub most: u64,
}

impl Usual {
    /// Why a delivery with so many rows is held, as a sentence; `None`: it is not.
    pub fn objects(self, rows: u64) -> Option<String> {
        let usual = (self.least..=self.most).contains(&rows);
        (!usual).then(|| {
            format!(
                "Held: {rows} rows, where {} to {} are usual. Release it, or cancel it.",
                self.least, self.most
            )
        })
    }
}

/// What the work on a document depends on.
#[derive(Clone, Debug)]
pub struct Task {
    /// Stands in every id that is sent.
    pub id: DeliveryId,
    /// Where it goes: events that were sent before are known by destination.
    pub destination: DestinationId,
    /// The choices that its mapping depends on.
    pub mapping: mapping::Settings,
    /// Tags of columns that count before those of LookML.
    pub more_columns: MoreColumns,
    /// mParticle's `environment`.
    pub environment: Environment,
    /// The data plan that batches name, if any.
    pub data_plan: Option<encode::DataPlan>,
}

/// Takes what a document becomes, on one thread after the other.
pub trait Store: Send {
    /// Called once, when the columns are known and before anything is made of them.
    fn columns(&mut self, _header: &Header) {}

    /// A request that is ready to be sent to one of mParticle's addresses: a JSON array of these
    /// batches.
    ///
    /// # Errors
    /// It could not be kept; the delivery is given up.
    fn request(&mut self, route: Route, batches: &[encode::Batch<'_>]) -> Result<(), IngestError>;

    /// A row (0 for the first) that cannot be sent: why, and its text as far as it is known.
    ///
    /// # Errors
    /// It could not be kept; the delivery is given up.
    fn reject(&mut self, row: u64, reason: Reason<'_>, text: &[u8]) -> Result<(), IngestError>;
}

/// Why a row cannot be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reason<'a> {
    /// What rows that are refused for the same cause share.
    pub kind: &'a str,
    /// The row's value that is to blame, where it says something.
    pub value: Option<&'a str>,
}

impl fmt::Display for Reason<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.value {
            Some(value) => write!(f, "{}: {value}", self.kind),
            None => f.write_str(self.kind),
        }
    }
}

/// A delivery that is durable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ingested {
    /// Its id.
    pub delivery: DeliveryId,
    /// Rows that came.
    pub rows: u64,
    /// Rows of them that cannot be sent and were kept with their reason.
    pub rejected: u64,
    /// Users, batches and requests that were made, and rows that need not be sent.
    pub made: encode::Made,
    /// What a person should know, in sentences.
    pub notes: Vec<String>,
}

/// How far a delivery has come; read while it is being received.
#[derive(Debug, Default)]
pub struct Progress {
    arrived: Arc<Arrived>,
    read: OnceLock<u64>,
    written: OnceLock<u64>,
    clock: Clock,
}

impl Progress {
    /// Counted where the outbox sees it too.
    pub fn of(arrived: Arc<Arrived>) -> Self {
        Self {
            arrived,
            ..Self::default()
        }
    }

    /// Rows so far.
    pub fn rows(&self) -> u64 {
        self.arrived.rows.load(Ordering::Relaxed)
    }

    /// Bytes of the document so far.
    pub fn bytes(&self) -> u64 {
        self.arrived.bytes.load(Ordering::Relaxed)
    }

    /// When all rows had been read and mapped, in nanoseconds since 1970.
    pub fn read(&self) -> Option<u64> {
        self.read.get().copied()
    }

    /// When all requests had been made and written, to be committed, in nanoseconds since 1970.
    pub fn written(&self) -> Option<u64> {
        self.written.get().copied()
    }
}

/// The delivery failed and nothing of it is kept.
#[derive(Debug, thiserror::Error)]
pub enum IngestError {
    /// The stream of bytes broke off.
    #[error(
        "The delivery broke off after {rows} rows ({bytes} bytes): {}. None of it was sent; send it again.", .source.to_string().trim_end_matches('.')
    )]
    Stream {
        /// Complete rows before the break.
        rows: u64,
        /// Bytes before the break.
        bytes: u64,
        /// What the stream said.
        source: io::Error,
    },
    /// The document is not what Looker should send, or is cut short.
    #[error(transparent)]
    Decode(#[from] DecodeError),
    /// Looker says in the document that its query failed.
    #[error("Looker reports that its query failed: {0}")]
    Query(String),
    /// The columns make no sense for mParticle.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// Rows came, and not one of them can be sent.
    #[error("None of the {rows} rows can be sent. The first: {reason}.")]
    NothingToSend {
        /// Rows that came.
        rows: u64,
        /// Why the first of them was refused.
        reason: String,
    },
    /// Only changes were to be sent, and that cannot be done.
    #[error(transparent)]
    Changes(#[from] changes::Error),
    /// Grouping failed.
    #[error(transparent)]
    Group(#[from] GroupError),
    /// Rows that came before `fields` were put aside in a temporary file, which failed.
    #[error("Rows that Looker sends before their columns need temporary space, which failed")]
    Early(#[source] io::Error),
    /// The system would not start a thread.
    #[error("The delivery needs a thread, which the system refused")]
    Thread(#[source] io::Error),
    /// The outbox could not keep it.
    #[error(transparent)]
    Outbox(#[from] outbox::Error),
    /// All places were taken for too long.
    #[error(
        "looker-feed is receiving as many deliveries at once as it may ({at_once}), and no place became free within {}. Send this one again later, or raise `looker.max_deliveries` in its configuration.", humantime::format_duration(*waited)
    )]
    Busy {
        /// How many it may receive at once.
        at_once: usize,
        /// How long it waited.
        waited: Duration,
    },
    /// The daemon stops.
    #[error("looker-feed is being stopped. None of the delivery was sent; send it again.")]
    Stopped,
    /// The worker panicked: a mistake in looker-feed.
    #[error(
        "looker-feed made a mistake while it worked on the delivery. None of it was sent. Please report this with the log."
    )]
    Panicked,
}

/// What the task tells the worker.
enum Feed {
    /// With its bytes.
    Chunk(Chunk, usize),
    /// The stream ended well. A channel that closes without this was given up.
    End,
    Broken(io::Error),
}

/// Receives one delivery. Returns when it is durable, or when nothing of it is left. Until the first
/// byte comes, and until there is a place then, the stream is all that is held of it.
///
/// Dropping the future gives the delivery up.
pub async fn receive<S>(
    incoming: Incoming,
    mut stream: S,
    outbox: Outbox,
    settings: Settings,
    progress: Arc<Progress>,
) -> Result<Ingested, IngestError>
where
    S: Stream<Item = io::Result<Bytes>> + Unpin,
{
    let mut coming = stream.next().await;
    let _place = settings.admission.enter().await?;
    let (sender, receiver) = mpsc::channel(CHUNKS_WAITING);
    // The memory of chunks that have been read comes back to be filled again, and what the stream
    // gave is given back to it at once: else each part of the stream would need memory from the system.
    let (read, mut spare) = mpsc::channel::<Chunk>(2 * CHUNKS_WAITING);
    let span = tracing::Span::current();
    let seen = Arc::clone(&progress);
    let admission = settings.admission.clone();
    let window = Arc::new(admission.window());
    let source = work::Source {
        feed: receiver,
        read,
        window: Arc::clone(&window),
    };
    let worker = tokio::task::spawn_blocking(move || {
        let _entered = span.enter();
        work::run(incoming, source, &outbox, &settings, &seen)
    });
    // The worker hangs up early only when it has failed; its answer says why.
    'stream: loop {
        let last = match coming {
            Some(Ok(bytes)) => {
                progress
                    .arrived
                    .bytes
                    .fetch_add(bytes.len() as u64, Ordering::Relaxed);
                let waiting = admission.waiting();
                let part_bytes = part_of(waiting);
                for part in bytes.chunks(part_bytes) {
                    tokio::select! {
                        biased;
                        () = window.below(waiting) => {}
                        () = sender.closed() => break 'stream,
                    }
                    let mut chunk = spare.try_recv().unwrap_or_default();
                    chunk.fill(part);
                    window.sent(part.len());
                    if sender.send(Feed::Chunk(chunk, part.len())).await.is_err() {
                        break 'stream;
                    }
                }
                // Others have come meanwhile: memory that they need is not kept to be filled again.
                while window.bytes() + spare.len() * part_bytes > waiting
                    && spare.try_recv().is_ok()
                {}
                coming = stream.next().await;
                continue;
            }
            Some(Err(error)) => Feed::Broken(error),
            None => Feed::End,
        };
        let _ = sender.send(last).await;
        break;
    }
    // The sender is kept until the worker is done: the end of the channel means "given up".
    let answer = worker.await;
    drop(sender);
    answer.unwrap_or(Err(IngestError::Panicked))
}

/// Does with a document what [`receive`] does and hands everything to `store`. `next` gives the
/// document's bytes, part by part, until `None`. Blocks, on `next` and on a processor.
///
/// Whether the daemon would accept the document is for [`Worked::check`] to say.
pub fn rehearse<S: Store>(
    task: &Task,
    mut next: impl FnMut() -> io::Result<Option<Bytes>>,
    store: &mut S,
    settings: &Settings,
    progress: &Progress,
) -> Result<Worked, IngestError> {
    let mut next = |chunk: &mut Chunk| {
        let Some(bytes) = next().map_err(work::Gone::Broken)? else {
            return Ok(false);
        };
        progress
            .arrived
            .bytes
            .fetch_add(bytes.len() as u64, Ordering::Relaxed);
        chunk.fill(&bytes);
        Ok(true)
    };
    let worked = work::work(task, &mut next, store, settings, progress, &mut None);
    worked.map(|(worked, _spent)| worked)
}
