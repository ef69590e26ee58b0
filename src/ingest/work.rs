//! The worker of one delivery: everything between the bytes and the outbox, on one thread.

use tokio::sync::mpsc;

use super::early::EarlyRows;
use super::{Feed, IngestError, Order, Progress, Receipt, Settings, writer};
use crate::decode::{Decoder, RowParser, Step};
use crate::group::Grouper;
use crate::mapping::{Plan, Tally};
use crate::model::{Header, Row};
use crate::mparticle::encode::{Delivery, Encoder};
use crate::outbox::{Outbox, RejectedRow, Staging, Totals};
use crate::record::Record;

/// Notes that are kept of one delivery; more would not be read.
const MOST_NOTES: usize = 100;

/// Works until the feed ends and the delivery is committed, or until something fails.
pub fn run(
    order: Order,
    mut feed: mpsc::Receiver<Feed>,
    outbox: &Outbox,
    settings: &Settings,
    progress: &Progress,
) -> Result<Receipt, IngestError> {
    let delivery = order.delivery.id;
    let mut job = Job {
        staging: outbox.begin(order.delivery.clone())?,
        order,
        settings,
        progress,
        mapper: None,
        early: None,
        rows: 0,
        rejected: 0,
        first_reason: None,
    };
    let mut decoder = Decoder::new(settings.decode.clone());
    let header = job.read(&mut decoder, &mut feed)?;
    drop(decoder);
    job.finish(delivery, &header)
}

/// The delivery in work. Dropping it removes what was staged.
struct Job<'a> {
    staging: Staging,
    order: Order,
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

impl Job<'_> {
    /// Takes the whole document in; returns its header.
    fn read(
        &mut self,
        decoder: &mut Decoder,
        feed: &mut mpsc::Receiver<Feed>,
    ) -> Result<Header, IngestError> {
        loop {
            match decoder.next()? {
                Step::NeedBytes => match feed.blocking_recv() {
                    Some(Feed::Chunk(chunk)) => decoder.push(&chunk),
                    Some(Feed::End) => decoder.close(),
                    Some(Feed::Broken(source)) => {
                        return Err(IngestError::Stream {
                            rows: self.rows,
                            bytes: self.progress.bytes(),
                            source,
                        });
                    }
                    None => return Err(IngestError::Stopped),
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
                            EarlyRows::create(&self.settings.group.directory)
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
            .rows
            .store(self.rows, std::sync::atomic::Ordering::Relaxed);
    }

    fn prepare(&self, header: &Header) -> Result<Mapper, IngestError> {
        refuse_failed_query(header)?;
        let key = self.order.delivery.id.0;
        let plan = Plan::new(header, &self.order.mapping, key)?;
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
            Ok(()) => Ok(mapper.grouper.push(&mapper.record)?),
            Err(rejection) => {
                self.rejected += 1;
                let reason = rejection.to_string();
                self.staging.reject(RejectedRow {
                    row: row.number,
                    reason: &reason,
                    text: row.text().as_bytes(),
                })?;
                self.first_reason.get_or_insert(reason);
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
        let mut parser = RowParser::new(self.settings.decode.clone(), &columns);
        early.read(|text, number| {
            let row = parser.parse(text, number)?;
            self.map(&row)
        })
    }

    /// Groups, encodes, writes and commits.
    fn finish(
        mut self,
        delivery: crate::model::DeliveryId,
        header: &Header,
    ) -> Result<Receipt, IngestError> {
        refuse_failed_query(header)?;
        self.map_early()?;
        let Some(mapper) = self.mapper.take() else {
            // The decoder gives a header before every end.
            return Err(IngestError::Panicked);
        };
        let mut encoder = Encoder::new(
            self.settings.encode,
            Delivery {
                id: delivery,
                data_type: self.order.mapping.data_type,
                environment: self.order.environment,
                names: mapper.plan.names().clone(),
            },
        );
        let grouper = mapper.grouper;
        let made = writer::write(
            &mut self.staging,
            &mut self.rejected,
            &mut self.first_reason,
            |feeder| {
                grouper
                    .finish(|record| -> Result<(), IngestError> { encoder.push(record, feeder) })?;
                encoder.finish(feeder)
            },
        )?;
        if self.rows > 0 && self.rejected == self.rows {
            return Err(IngestError::NothingToSend {
                rows: self.rows,
                reason: self.first_reason.unwrap_or_default(),
            });
        }
        let notes = notes(header, &mapper.plan, &mapper.tally);
        self.staging.commit(Totals {
            rows_in: self.rows,
            rows_rejected: self.rejected,
            users: made.users,
            batches: made.batches,
            requests: made.requests,
            notes: notes.clone(),
        })?;
        Ok(Receipt {
            delivery,
            rows: self.rows,
            rejected: self.rejected,
            made,
            notes,
        })
    }
}

fn refuse_failed_query(header: &Header) -> Result<(), IngestError> {
    if header.errors.is_empty() {
        return Ok(());
    }
    Err(IngestError::Query(header.errors.join(" ")))
}

/// What a person should know of the delivery, most important first.
fn notes(header: &Header, plan: &Plan, tally: &Tally) -> Vec<String> {
    let cut = header.truncated.then(|| {
        "Looker cut the result at its row limit: there are more rows than were delivered. Choose \"All results\" in the schedule's advanced options.".to_owned()
    });
    let mut notes: Vec<_> = cut
        .into_iter()
        .chain(tally.sentences(plan.columns()))
        .chain(plan.remarks())
        .chain(header.notes.iter().cloned())
        .collect();
    if notes.len() > MOST_NOTES {
        let more = notes.len() - MOST_NOTES;
        notes.truncate(MOST_NOTES);
        notes.push(format!("And {more} more."));
    }
    notes
}

impl From<std::io::Error> for IngestError {
    /// Only rows that were put aside are read with plain I/O here.
    fn from(source: std::io::Error) -> Self {
        Self::Early(source)
    }
}
