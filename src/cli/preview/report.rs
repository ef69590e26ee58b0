//! What a preview says, as values: the form of `--json`.

use serde::Serialize;
use serde_json::value::RawValue;

use crate::ingest::{Progress, Task, Worked};
use crate::mapping::{self, Plan};
use crate::model::{DataType, Environment, Field, FieldKind, Header};
use crate::mparticle::encode;
use crate::mparticle::route::Route;

/// Everything that is printed.
#[derive(Debug, Serialize)]
pub struct Report {
    pub file: String,
    pub data_type: DataType,
    pub environment: Environment,
    /// Why the daemon would not take it.
    pub error: Option<String>,
    pub columns: Vec<Column>,
    /// Dimensions that the query pivots on; they are never sent.
    pub pivots: Vec<String>,
    pub counts: Counts,
    pub rejected: Vec<Reason>,
    pub warnings: Vec<String>,
    /// What is as it should be, and good to know.
    pub notes: Vec<String>,
    /// The names of the events; `None`: no column has names.
    pub event_names: Option<EventNames>,
    /// What Looker itself notes in the document.
    pub looker_notes: Vec<String>,
    /// The configured limit.
    pub batches_per_second: u32,
    /// Time to send all at that limit.
    pub seconds: f64,
    pub first_batches: Vec<FirstBatch>,
}

/// A column and its fate.
#[derive(Debug, Serialize)]
pub struct Column {
    pub name: String,
    pub kind: &'static str,
    pub tags: Vec<String>,
    /// The path in a batch; `None`: it is not sent.
    pub goes_to: Option<String>,
    /// Why it is not sent, or what to know of it.
    pub remark: Option<String>,
    /// Nobody asked for it to be sent, so that there is nothing wrong.
    #[serde(skip)]
    pub untagged: bool,
}

/// The names that the events have.
#[derive(Debug, Serialize)]
pub struct EventNames {
    /// How many different ones.
    pub distinct: usize,
    /// How many there may be.
    pub most: usize,
    /// Those that most events have.
    pub most_common: Vec<EventName>,
}

/// A name of events, which is cut if it is long.
#[derive(Debug, Serialize)]
pub struct EventName {
    pub name: String,
    pub events: u64,
}

/// How much there is of what.
#[derive(Debug, Default, Serialize)]
pub struct Counts {
    pub document_bytes: u64,
    pub rows: u64,
    pub rejected_rows: u64,
    pub users: u64,
    /// Different ones, over all users.
    pub user_attributes: usize,
    pub batches: u64,
    pub events: u64,
    pub requests: u64,
    pub batch_bytes: u64,
    pub events_per_request: f64,
    /// What of these goes to mParticle's address for historical events.
    pub historical_events: u64,
    pub historical_batches: u64,
    pub historical_requests: u64,
}

/// Rows that cannot be sent, for one reason.
#[derive(Debug, Serialize)]
pub struct Reason {
    pub reason: String,
    pub rows: u64,
    /// From 1.
    pub first_rows: Vec<u64>,
    /// What is wrong in these rows, if it is a value that says something.
    pub values: Vec<String>,
}

impl Reason {
    pub fn new(reason: &str) -> Self {
        Self {
            reason: reason.to_owned(),
            rows: 0,
            first_rows: Vec::new(),
            values: Vec::new(),
        }
    }
}

/// A batch to the letter.
#[derive(Debug, Serialize)]
pub struct FirstBatch {
    /// From 1; `None` where the batch's id does not say.
    pub first_row: Option<u64>,
    pub rows: u32,
    pub bytes: usize,
    /// It goes to mParticle's address for historical events.
    pub historical: bool,
    pub batch: Box<RawValue>,
}

impl FirstBatch {
    /// `first_row` is 0 for the first. `None` if it were not JSON.
    pub fn new(first_row: Option<u64>, route: Route, batch: &encode::Batch<'_>) -> Option<Self> {
        let text = std::str::from_utf8(batch.json).ok()?.to_owned();
        Some(Self {
            first_row: first_row.map(|row| row + 1),
            rows: batch.rows,
            bytes: batch.json.len(),
            historical: route == Route::Historical,
            batch: RawValue::from_string(text).ok()?,
        })
    }
}

impl Report {
    /// Of a document that nothing is known of yet.
    pub fn new(file: String, task: &Task, batches_per_second: u32) -> Self {
        Self {
            file,
            data_type: task.mapping.data_type,
            environment: task.environment,
            error: None,
            columns: Vec::new(),
            pivots: Vec::new(),
            counts: Counts::default(),
            rejected: Vec::new(),
            warnings: Vec::new(),
            notes: Vec::new(),
            event_names: None,
            looker_notes: Vec::new(),
            batches_per_second,
            seconds: 0.0,
            first_batches: Vec::new(),
        }
    }

    /// How far the document was read.
    pub fn rows(&mut self, progress: &Progress, rejected: u64) {
        self.counts.document_bytes = progress.bytes();
        self.counts.rows = progress.rows();
        self.counts.rejected_rows = rejected;
    }

    /// What the columns are for, also of a document that makes no delivery.
    pub fn columns(&mut self, header: &Header, settings: &mapping::Settings) {
        self.pivots.clone_from(&header.pivots);
        // Without fates there is an error, which names the column.
        let fates = Plan::preview(header, settings).unwrap_or_default();
        let column = |(at, field): (usize, &Field)| {
            let fate = fates.get(at);
            let goes_to = fate.and_then(|fate| fate.goes_to.clone());
            let remark = fate.and_then(|fate| fate.remark.clone());
            let untagged =
                remark.is_none() && !field.tags.iter().any(|tag| tag.trim().starts_with("mp_"));
            let remark = match remark {
                None if fate.is_some() && goes_to.is_none() => Some(
                    match field.tags.is_empty() {
                        true => "not sent: no mp_ tag",
                        false => "not sent: none of its tags begins with mp_",
                    }
                    .to_owned(),
                ),
                remark => remark,
            };
            Column {
                name: field.name.clone(),
                kind: match field.kind {
                    FieldKind::Dimension => "dimension",
                    FieldKind::Measure => "measure",
                    FieldKind::TableCalculation => "table_calculation",
                },
                tags: field.tags.clone(),
                untagged,
                goes_to,
                remark,
            }
        };
        self.columns = header.fields.iter().enumerate().map(column).collect();
    }

    /// What was made of a document that is whole.
    pub fn worked(&mut self, worked: &Worked) {
        let made = &worked.made;
        self.counts = Counts {
            document_bytes: self.counts.document_bytes,
            rows: worked.rows,
            rejected_rows: worked.rejected,
            users: made.users,
            user_attributes: worked.plan.names().attributes.len(),
            batches: made.batches,
            events: made.events,
            requests: made.requests,
            batch_bytes: made.bytes,
            events_per_request: made.events as f64 / made.requests.max(1) as f64,
            historical_events: made.historical.events,
            historical_batches: made.historical.batches,
            historical_requests: made.historical.requests,
        };
        self.seconds = made.batches as f64 / f64::from(self.batches_per_second.max(1));
        self.warnings = worked.warnings().collect();
        self.notes = worked.remarks().collect();
        let names = worked.names();
        let common = names.most_common().into_iter();
        let common = common.map(|(name, events)| EventName {
            name: name.to_owned(),
            events,
        });
        self.event_names = (names.distinct() > 0).then(|| EventNames {
            distinct: names.distinct(),
            most: worked.plan.most_event_names(),
            most_common: common.collect(),
        });
        self.looker_notes.clone_from(&worked.header.notes);
    }

    /// Rows that were refused, most frequent reason first, and the first batches if the document
    /// is whole: of one that is not, nothing would be sent.
    pub fn kept(
        &mut self,
        mut reasons: Vec<Reason>,
        batches: impl Iterator<Item = FirstBatch>,
        whole: bool,
    ) {
        reasons.sort_by_key(|reason| std::cmp::Reverse(reason.rows));
        self.rejected = reasons;
        if whole {
            self.first_batches = batches.collect();
        }
    }
}
