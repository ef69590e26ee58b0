//! The worker of one delivery: everything between the bytes and the outbox, on one thread.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;

use tokio::sync::mpsc;

use super::admission::Window;
use super::early::EarlyRows;
use super::{
    CHUNKS_WAITING, Feed, Incoming, IngestError, Ingested, Progress, Reason, Settings, Store, Task,
    Worked, writer,
};
use crate::changes::Session;
use crate::decode::{Chunk, Decoder, RowParser, Step};
use crate::group::{Grouper, Spent};
use crate::mapping::{self, Plan, PlanError, Tally};
use crate::model::{Header, Row};
use crate::mparticle::encode::{Batch, Delivery, Encoder};
use crate::mparticle::route::Route;
use crate::outbox::{Entry, Outbox, RejectedRow, Slice, Staging, Totals};
use crate::record::Record;

/// Where the worker has its bytes from.
pub struct Source {
    pub feed: mpsc::Receiver<Feed>,
    /// Chunks that have been read go back to be filled again.
    pub read: mpsc::Sender<Chunk>,
    pub window: Arc<Window>,
}

/// Works until the feed ends and the delivery is committed, or until something fails.
pub fn run(
    incoming: Incoming,
    source: Source,
    outbox: &Outbox,
    settings: &Settings,
    progress: &Progress,
) -> Result<Ingested, IngestError> {
    let task = Task {
        id: incoming.delivery.id,
        destination: incoming.delivery.destination,
        mapping: mapping::Settings {
            now: incoming.delivery.received,
            ..incoming.mapping
        },
        more_columns: incoming.more_columns,
        environment: incoming.environment,
        data_plan: incoming.data_plan,
    };
    let (received, usual) = (incoming.delivery.received, incoming.usual);
    // Dropping it removes what was staged.
    let mut staging = outbox.begin(incoming.delivery)?;
    // What was delivered so far; dropping it gives this delivery's part up.
    let mut session = match &incoming.changes {
        Some((changes, comparison)) => Some(changes.begin(comparison, task.id, received, outbox)?),
        None => None,
    };
    let Source {
        mut feed,
        read,
        window,
    } = source;
    // All that waits is taken at once, so that neither side is woken for every chunk.
    let mut taken = VecDeque::with_capacity(CHUNKS_WAITING);
    let mut arrived = Vec::with_capacity(CHUNKS_WAITING);
    let mut next = |chunk: &mut Chunk| {
        if taken.is_empty() {
            feed.blocking_recv_many(&mut arrived, CHUNKS_WAITING);
            taken.extend(arrived.drain(..));
        }
        match taken.pop_front() {
            Some(Feed::Chunk(came, bytes)) => {
                window.read(bytes);
                // There is room for all that are under way.
                let _ = read.try_send(std::mem::replace(chunk, came));
                Ok(true)
            }
            Some(Feed::End) => Ok(false),
            Some(Feed::Broken(source)) => Err(Gone::Broken(source)),
            None => Err(Gone::Stopped),
        }
    };
    let (worked, spent) = work(
        &task,
        &mut next,
        &mut staging,
        settings,
        progress,
        &mut session,
    )?;
    if feed.is_closed() {
        return Err(IngestError::Stopped);
    }
    worked.check()?;
    let mut notes = worked.notes();
    progress.written.get_or_init(|| progress.clock.nanos());
    if let Some(session) = &mut session {
        session.check(worked.header.truncated)?;
        notes.splice(0..0, session.note());
        // Before the commit: there must be no delivery that the next one does not know of.
        session.finish()?;
    }
    if let Some(why) = usual.and_then(|usual| usual.objects(worked.rows)) {
        staging.hold();
        notes.insert(0, why);
    }
    let totals = Totals {
        rows_in: worked.rows,
        rows_rejected: worked.rejected,
        rows_unchanged: worked.made.unchanged_rows,
        users: worked.made.users,
        batches: worked.made.batches,
        requests: worked.made.requests,
        notes: notes.clone(),
    };
    std::thread::scope(|scope| {
        if !spent.is_empty() {
            // Beside the commit, which waits for the disk. Without a thread it is dropped here.
            let name = "spent".to_owned();
            let dropping = std::thread::Builder::new().name(name);
            let _ = dropping.spawn_scoped(scope, move || drop(spent));
        }
        staging.commit(totals)
    })?;
    if let Some(session) = session {
        session.committed();
    }
    Ok(Ingested {
        delivery: task.id,
        rows: worked.rows,
        rejected: worked.rejected,
        made: worked.made,
        notes,
    })
}

/// Why no more bytes come although the document has not ended.
pub enum Gone {
    /// The stream failed.
    Broken(io::Error),
    /// The delivery was given up.
    Stopped,
}

/// Turns one document into requests, which go to `store`. `next` puts the document's next bytes in the
/// place of those that it is given; `false` is a good end. Temporary space comes back to be dropped.
pub fn work<S: Store>(
    task: &Task,
    next: &mut dyn FnMut(&mut Chunk) -> Result<bool, Gone>,
    store: &mut S,
    settings: &Settings,
    progress: &Progress,
    session: &mut Option<Session>,
) -> Result<(Worked, Spent), IngestError> {
    let mut job = Job {
        store,
        session,
        task,
        settings,
        progress,
        mapper: None,
        early: None,
        rows: 0,
        rejected: 0,
        first_reason: None,
    };
    let mut decoder = Decoder::new(settings.decode);
    let header = job.read(&mut decoder, next)?;
    drop(decoder);
    progress.read.get_or_init(|| progress.clock.nanos());
    job.finish(header)
}

/// The delivery in work.
struct Job<'a, S> {
    store: &'a mut S,
    session: &'a mut Option<Session>,
    task: &'a Task,
    settings: &'a Settings,
    progress: &'a Progress,
    mapper: Option<Mapper>,
    early: Option<EarlyRows>,
    rows: u64,
    rejected: u64,
    first_reason: Option<String>,
}

/// What exists once the columns are known.
struct Mapper {
    plan: Plan,
    record: Record,
    tally: Tally,
    grouper: Grouper,
}

impl<S: Store> Job<'_, S> {
    /// Takes the whole document in; returns its header.
    fn read(
        &mut self,
        decoder: &mut Decoder,
        next: &mut dyn FnMut(&mut Chunk) -> Result<bool, Gone>,
    ) -> Result<Header, IngestError> {
        let mut chunk = Chunk::default();
        loop {
            match decoder.next()? {
                Step::NeedBytes => match next(&mut chunk) {
                    Ok(true) => decoder.take(&mut chunk),
                    Ok(false) => decoder.close(),
                    Err(Gone::Broken(source)) => {
                        return Err(IngestError::Stream {
                            rows: self.rows,
                            bytes: self.progress.bytes(),
                            source,
                        });
                    }
                    Err(Gone::Stopped) => return Err(IngestError::Stopped),
                },
                Step::Header(header) => {
                    let mapper = self.prepare(header)?;
                    let columns: Vec<_> =
                        mapper.plan.columns().iter().map(String::as_str).collect();
                    decoder.select(&columns);
                    self.mapper = Some(mapper);
                }
                Step::EarlyRow(row) => {
                    let early = match &mut self.early {
                        Some(early) => early,
                        none => none.insert(
                            EarlyRows::create(&self.settings.group.space)
                                .map_err(IngestError::Early)?,
                        ),
                    };
                    early.push(row).map_err(IngestError::Early)?;
                    self.count_row();
                }
                Step::Row(row) => {
                    self.count_row();
                    self.map(&row)?;
                }
                Step::End(header) => return Ok(header.clone()),
            }
        }
    }

    fn count_row(&mut self) {
        self.rows += 1;
        self.progress
            .arrived
            .rows
            .store(self.rows, std::sync::atomic::Ordering::Relaxed);
    }

    fn prepare(&mut self, header: &Header) -> Result<Mapper, IngestError> {
        let tagged = self.task.more_columns.apply(header);
        self.store.columns(tagged.as_deref().unwrap_or(header));
        refuse_failed_query(header)?;
        let header = &*tagged.map_err(PlanError::from)?;
        // Users of deliveries that are compared come in the same order.
        let session = self.session.as_ref();
        let key = session.map_or(self.task.id.0, Session::key);
        let plan = Plan::new(header, &self.task.mapping, key)?;
        Ok(Mapper {
            record: Record::default(),
            tally: Tally::new(plan.columns().len()),
            grouper: Grouper::new(self.settings.group.clone()),
            plan,
        })
    }

    fn map(&mut self, row: &Row<'_>) -> Result<(), IngestError> {
        let Some(mapper) = &mut self.mapper else {
            return Ok(());
        };
        match mapper.plan.map(row, &mut mapper.record, &mut mapper.tally) {
            Ok(()) => {
                mapper.plan.check(&mapper.tally)?;
                Ok(mapper.grouper.push(&mapper.record)?)
            }
            Err(rejection) => {
                self.rejected += 1;
                let kind = rejection.kind();
                let reason = Reason {
                    kind: &kind,
                    value: rejection.value(),
                };
                self.store
                    .reject(row.number, reason, row.text().as_bytes())?;
                self.first_reason.get_or_insert_with(|| reason.to_string());
                Ok(())
            }
        }
    }

    /// Maps the rows that came before the columns.
    fn map_early(&mut self) -> Result<(), IngestError> {
        let (Some(early), Some(mapper)) = (self.early.take(), &self.mapper) else {
            return Ok(());
        };
        let columns: Vec<_> = mapper.plan.columns().to_vec();
        let columns: Vec<_> = columns.iter().map(String::as_str).collect();
        let mut parser = RowParser::new(self.settings.decode, &columns);
        early.read(|text, number| {
            let row = parser.parse(text, number)?;
            self.map(&row)
        })
    }

    /// Groups, encodes and writes.
    fn finish(mut self, header: Header) -> Result<(Worked, Spent), IngestError> {
        refuse_failed_query(&header)?;
        self.map_early()?;
        let Some(mapper) = self.mapper.take() else {
            // The decoder gives a header before every end.
            return Err(IngestError::Panicked);
        };
        let mut encoder = Encoder::new(
            self.settings.encode,
            Delivery {
                id: self.task.id,
                data_type: self.task.mapping.data_type,
                environment: self.task.environment,
                names: mapper.plan.names().clone(),
            },
        );
        if let Some(plan) = &self.task.data_plan {
            encoder = encoder.with_data_plan(plan);
        }
        if self.task.mapping.skip_sent {
            encoder = encoder.skipping_sent(self.task.destination.0);
        }
        if let Some(session) = self.session.as_ref() {
            encoder = encoder.sending_changes(session.key(), session.attribute());
        }
        let grouped = mapper.grouper.end()?;
        let _turn = self.settings.admission.finish(grouped.has_spilled());
        let (made, spent) = writer::write(
            self.store,
            self.session.as_mut(),
            &mut self.rejected,
            &mut self.first_reason,
            |feeder| {
                let spent = grouped
                    .visit(|record| -> Result<(), IngestError> { encoder.push(record, feeder) })?;
                Ok((encoder.finish(feeder)?, spent))
            },
        )?;
        let worked = Worked {
            header,
            plan: mapper.plan,
            tally: mapper.tally,
            rows: self.rows,
            rejected: self.rejected,
            first_reason: self.first_reason,
            made,
        };
        Ok((worked, spent))
    }
}

fn refuse_failed_query(header: &Header) -> Result<(), IngestError> {
    if header.errors.is_empty() {
        return Ok(());
    }
    Err(IngestError::Query(header.errors.join(" ")))
}

impl Store for Staging {
    fn request(&mut self, route: Route, batches: &[Batch<'_>]) -> Result<(), IngestError> {
        let slices: Vec<_> = batches
            .iter()
            .map(|batch| Slice {
                bytes: batch.json,
                rows: batch.rows,
            })
            .collect();
        self.append(Entry {
            slices: &slices,
            route: route.number(),
        })?;
        Ok(())
    }

    fn reject(&mut self, row: u64, reason: Reason<'_>, text: &[u8]) -> Result<(), IngestError> {
        let reason = reason.to_string();
        let reason = reason.as_str();
        Staging::reject(self, RejectedRow { row, reason, text })?;
        Ok(())
    }
}

impl From<io::Error> for IngestError {
    /// Only rows that were put aside are read with plain I/O here.
    fn from(source: io::Error) -> Self {
        Self::Early(source)
    }
}
