//! `looker-feed preview`: what would be sent of a document, without sending it.
//!
//! The work is the daemon's own ([`ingest::rehearse`]); only the store is another one, which keeps
//! the first batches and counts the rest. So what is shown is what a delivery would send, but for
//! the ids, which are each delivery's own.

mod explore;
mod print;
mod report;

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use serde::Deserialize;

use crate::app;
use crate::causes::with_causes;
use crate::cli::document::{Document, DocumentArgument};
use crate::cli::form::FormArguments;
use crate::cli::{ConfigArgument, Failure, load, looker, runtime, written};
use crate::clock::UnixMillis;
use crate::config::Config;
use crate::ingest::{self, IngestError, Progress, Store, Task};
use crate::mapping;
use crate::model::{DeliveryId, DestinationId, Header};
use crate::mparticle::encode;
use crate::mparticle::route::Route;
use crate::seal::Space;
use report::{FirstBatch, Reason, Report};

/// Stands for a real one.
const DELIVERY: DeliveryId = DeliveryId([0; 16]);
/// Reasons that are told apart; a reason may name a size, so that there could be very many.
const MOST_REASONS: usize = 50;
/// Rows that are named for each reason.
const ROWS_NAMED: usize = 5;

/// Arguments of `looker-feed preview`.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    #[command(flatten)]
    from: From,
    /// Which Looker of [looker.api], by its section's name or its host, if there are several
    #[arg(long, value_name = "NAME")]
    looker: Option<String>,
    /// With --look and --query: rows that Looker is asked for
    #[arg(long, value_name = "N", default_value_t = 500, value_parser = clap::value_parser!(u64).range(1..=100_000))]
    rows: u64,
    #[command(flatten)]
    form: FormArguments,
    #[command(flatten)]
    config: ConfigArgument,
    /// Show the batches of the first rows, at most so many
    #[arg(long, value_name = "N", default_value_t = 3)]
    batches: usize,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Where the result is.
#[derive(Debug, clap::Args)]
#[group(required = true, multiple = false)]
struct From {
    /// A result that Looker made as json_detail or json_detail_lite_stream; - is standard input
    #[arg(value_name = "FILE")]
    file: Option<PathBuf>,
    /// Have Looker run this Look, by the API key of [looker.api]
    #[arg(long, value_name = "ID")]
    look: Option<String>,
    /// Have Looker run this query: its id, or the `qid` of an Explore's address
    #[arg(long, value_name = "ID|SLUG")]
    query: Option<String>,
    /// List the tags of an Explore's fields, and what is missing
    #[arg(long, value_name = "MODEL/EXPLORE")]
    explore: Option<String>,
}

/// The document, from a file or from Looker.
fn open(arguments: &Arguments, config: &Config) -> Result<Document, Failure> {
    if let Some(file) = &arguments.from.file {
        return DocumentArgument { file: file.clone() }.open("read");
    }
    let api = looker::one(config, arguments.looker.as_deref())?;
    let (look, query) = (&arguments.from.look, &arguments.from.query);
    let name = match (look, query) {
        (Some(id), _) => format!("Look {id} of {}", api.host()),
        (_, Some(id)) => format!("query {id} of {}", api.host()),
        (None, None) => api.host().to_owned(),
    };
    let result = runtime()?.block_on(async {
        let result = match (look, query) {
            (Some(id), _) => api.run_look(id, arguments.rows).await,
            (None, id) => {
                let id = id.as_deref().unwrap_or_default();
                api.run_query(id, arguments.rows).await
            }
        };
        api.log_out().await;
        result
    });
    let bytes = result.map_err(|error| Failure::of(&error))?;
    Ok(DocumentArgument::held(name, bytes))
}

/// Lists an Explore's tags. The exit code is 0 if nothing is misspelt and there is an identity.
fn explore(arguments: &Arguments, config: &Config, wanted: &str) -> Result<ExitCode, Failure> {
    let Some((model, name)) = wanted.split_once('/') else {
        return Err(Failure::Usage(
            "--explore takes MODEL/EXPLORE, such as shop/orders.".to_owned(),
        ));
    };
    let api = looker::one(config, arguments.looker.as_deref())?;
    let fields = runtime()?.block_on(async {
        let fields = api.explore(model, name).await;
        api.log_out().await;
        fields
    });
    let fields = fields.map_err(|error| Failure::of(&error))?;
    let tagged = explore::Tagged::new(wanted, &fields);
    let text = match arguments.json {
        true => serde_json::to_string_pretty(&tagged).map_err(|error| Failure::of(&error))? + "\n",
        false => tagged.text(),
    };
    written(io::stdout().write_all(text.as_bytes()))?;
    Ok(match tagged.misspelt.is_empty() && tagged.has_identity() {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    })
}

/// Works the document through and prints what became of it. The exit code is 0 if the daemon would
/// take it.
pub fn run(arguments: &Arguments) -> Result<ExitCode, Failure> {
    let config = load(&arguments.config)?;
    let choices = arguments.form.choices()?;
    if let Some(wanted) = &arguments.from.explore {
        return explore(arguments, &config, wanted);
    }
    let mut document = open(arguments, &config)?;
    let mut settings = app::ingest_settings(&config);
    // The outbox belongs to a daemon, and need not be there.
    settings.group.space = Space::new(std::env::temp_dir());
    let task = Task {
        id: DELIVERY,
        destination: DestinationId([0; 16]),
        mapping: mapping::Settings {
            data_type: arguments.form.data_type(),
            now: UnixMillis::now(),
            ..app::chosen(&choices, app::mapping_settings(&config.mparticle))
        },
        more_columns: choices.more_columns.clone(),
        environment: arguments.form.environment(),
        data_plan: app::chosen_plan(&choices, app::data_plan(&config.mparticle).as_ref()),
    };
    let mut kept = Kept::new(arguments.batches);
    let progress = Progress::default();
    let worked = ingest::rehearse(&task, || document.next(), &mut kept, &settings, &progress);
    let name = document.name().to_owned();
    drop(document);

    let mut report = Report::new(name, &task, config.mparticle.batches_per_second);
    report.rows(&progress, kept.rejected_rows());
    if let Some(header) = &kept.header {
        report.columns(header, &task.mapping);
    }
    let failed = match &worked {
        Ok(worked) => {
            report.worked(worked);
            worked.check().err().map(|error| with_causes(&error))
        }
        Err(error) => Some(with_causes(error)),
    };
    report.kept(kept.reasons, kept.batches.into_values(), worked.is_ok());
    report.error.clone_from(&failed);

    written(match arguments.json {
        true => print::json(&report),
        false => print::text(&report),
    })?;
    match failed {
        None => Ok(ExitCode::SUCCESS),
        Some(_) if arguments.json => Ok(ExitCode::FAILURE),
        Some(why) => {
            let _ = io::stdout().flush();
            Err(Failure::Other(why))
        }
    }
}

/// What is kept for the report.
struct Kept {
    most: usize,
    header: Option<Header>,
    /// By their first row.
    batches: BTreeMap<u64, FirstBatch>,
    reasons: Vec<Reason>,
}

impl Kept {
    fn new(most: usize) -> Self {
        Self {
            most,
            header: None,
            batches: BTreeMap::new(),
            reasons: Vec::new(),
        }
    }

    fn rejected_rows(&self) -> u64 {
        self.reasons.iter().map(|reason| reason.rows).sum()
    }
}

impl Store for Kept {
    fn columns(&mut self, header: &Header) {
        self.header = Some(header.clone());
    }

    fn request(&mut self, route: Route, batches: &[encode::Batch<'_>]) -> Result<(), IngestError> {
        for batch in batches.iter().filter(|_| self.most > 0) {
            // Batches come in an order of users that nobody would recognize.
            let Some(named) = first_row(batch.json) else {
                continue;
            };
            // In a delivery that skips what was sent, ids say nothing of rows.
            let row = named.unwrap_or(self.batches.len() as u64);
            let last = self.batches.last_key_value().map(|(row, _)| *row);
            if self.batches.len() >= self.most {
                if last.is_none_or(|last| row >= last) {
                    continue;
                }
                self.batches.pop_last();
            }
            if let Some(kept) = FirstBatch::new(named, route, batch) {
                self.batches.insert(row, kept);
            }
        }
        Ok(())
    }

    fn reject(
        &mut self,
        row: u64,
        reason: ingest::Reason<'_>,
        _text: &[u8],
    ) -> Result<(), IngestError> {
        let mut known = self.reasons.iter();
        let known = known.position(|known| known.reason == reason.kind);
        let at = match known {
            Some(at) => at,
            None if self.reasons.len() < MOST_REASONS => {
                self.reasons.push(Reason::new(reason.kind));
                self.reasons.len() - 1
            }
            None => {
                if self.reasons.len() == MOST_REASONS {
                    self.reasons.push(Reason::new("other reasons"));
                }
                MOST_REASONS
            }
        };
        if let Some(known) = self.reasons.get_mut(at) {
            known.rows += 1;
            if known.first_rows.len() < ROWS_NAMED {
                known.first_rows.push(row + 1);
                known.values.extend(reason.value.map(str::to_owned));
            }
        }
        Ok(())
    }
}

/// The number of the first row in a batch, which stands at the end of its id if that is one of the
/// delivery's; `None` for batches that hold attributes only.
fn first_row(batch: &[u8]) -> Option<Option<u64>> {
    #[derive(Deserialize)]
    struct Named<'a> {
        source_request_id: &'a str,
    }
    let named: Named<'_> = serde_json::from_slice(batch).ok()?;
    let (delivery, row) = named.source_request_id.split_once('-')?;
    if delivery != DELIVERY.to_string() {
        return Some(None);
    }
    row.parse().ok().map(Some)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn batch(row: u64) -> String {
        format!("{{\"source_request_id\":\"{}-{row}\"}}", "0".repeat(32))
    }

    #[test]
    fn the_batches_of_the_first_rows_are_kept_in_whatever_order_they_come() {
        for most in [0, 1, 3, 100] {
            let mut kept = Kept::new(most);
            for row in [7, 3, 9, 0, 12, 1] {
                let json = batch(row);
                let batch = encode::Batch {
                    json: json.as_bytes(),
                    rows: 1,
                };
                kept.request(Route::Current, &[batch]).unwrap();
            }
            let rows: Vec<_> = kept.batches.into_keys().collect();
            let want = [0, 1, 3, 7, 9, 12];
            assert_eq!(rows, want[..most.min(want.len())]);
        }
    }

    fn reason(kind: &str) -> ingest::Reason<'_> {
        ingest::Reason { kind, value: None }
    }

    #[test]
    fn reasons_are_counted_with_their_first_rows_and_are_bounded() {
        let mut kept = Kept::new(0);
        for row in 0..7 {
            kept.reject(row, reason("no identity"), b"").unwrap();
        }
        for row in 7..1000 {
            kept.reject(row, reason(&format!("reason {row}")), b"")
                .unwrap();
        }
        assert_eq!(kept.rejected_rows(), 1000);
        assert_eq!(kept.reasons[0].rows, 7);
        assert_eq!(kept.reasons[0].first_rows, [1, 2, 3, 4, 5]);
        assert_eq!(kept.reasons.len(), MOST_REASONS + 1);
        assert_eq!(kept.reasons[MOST_REASONS].reason, "other reasons");
    }
}
