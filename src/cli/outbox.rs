//! `looker-feed outbox`: what a person can do with an outbox that no daemon uses.

mod keys;
mod moving;
mod text;

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::Failure;
use crate::causes::with_causes;
use crate::harmless::harmless;
use crate::outbox::{
    self, Damage, DeliveryState, DeliveryStatus, Found, Inspected, Inspection, Salvaged,
};
use crate::seal::Keyring;
use keys::{Keys, key_file};
use text::{counted, json_text, say};

/// A check could not look, which is not the same as finding damage.
const NOT_CHECKED: u8 = 2;

#[derive(Debug, clap::Args)]
pub struct Arguments {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    /// Read every file of an outbox in a directory and say what is damaged; changes nothing. Exit code 1 means damage. Without
    /// a key, what is sealed is held against its checksums only
    Check(Check),
    /// Bring what can be read of an outbox in a directory to another place; the outbox itself stays as
    /// it is
    Salvage(Salvage),
    /// Move what is in it into a database, whole or not at all, for daemons with outbox.backend =
    /// "postgres". If it is interrupted, run it again
    Move(moving::Move),
    /// Print the statements that make the tables of a shared outbox, for whoever may run them; running
    /// them again does no harm
    Schema,
}

#[derive(Debug, clap::Args)]
struct Check {
    /// The outbox's directory
    #[arg(long, value_name = "DIR")]
    path: PathBuf,
    #[command(flatten)]
    keys: Keys,
    /// Also list the deliveries that have nothing left to send
    #[arg(long)]
    all: bool,
    /// Answer in JSON, with all deliveries
    #[arg(long)]
    json: bool,
}

#[derive(Debug, clap::Args)]
struct Salvage {
    /// The outbox's directory
    #[arg(long, value_name = "DIR")]
    path: PathBuf,
    #[command(flatten)]
    keys: Keys,
    #[command(flatten)]
    target: Target,
    /// Answer in JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, clap::Args)]
#[group(required = true)]
struct Target {
    /// A directory that is not there yet: it becomes an outbox that a daemon can be started on
    #[arg(long, value_name = "DIR")]
    to: Option<PathBuf>,
    /// A file that is not there yet: every undelivered batch in it, one JSON object a line, for
    /// people. It holds user data
    #[arg(long, value_name = "FILE")]
    json_lines: Option<PathBuf>,
}

/// Does it, and answers on standard output.
pub fn run(arguments: &Arguments) -> Result<ExitCode, Failure> {
    match &arguments.action {
        Action::Check(arguments) => check(arguments),
        Action::Salvage(arguments) => salvage(arguments).map(|()| ExitCode::SUCCESS),
        Action::Move(arguments) => moving::run(arguments).map(|()| ExitCode::SUCCESS),
        Action::Schema => say(&outbox::postgres::schema()).map(|()| ExitCode::SUCCESS),
    }
}

fn check(arguments: &Check) -> Result<ExitCode, Failure> {
    let not_checked = |why: &dyn std::fmt::Display| {
        eprintln!("looker-feed: {why}");
        Ok(ExitCode::from(NOT_CHECKED))
    };
    let keys = match arguments.keys.load(&arguments.path) {
        Ok(keys) => keys,
        Err(failure) => return not_checked(&failure),
    };
    let found = match outbox::inspect(&arguments.path, keys.as_deref()) {
        Ok(found) => found,
        Err(error) => return not_checked(&with_causes(&error)),
    };
    say(&if arguments.json {
        json_text(&inspection_json(&found))
    } else {
        inspection_text(&arguments.path, &found, arguments.all)
    })?;
    let (report, path) = (&found.report, arguments.path.display());
    let faults = counted(report.faults.len() as u64, "damaged place");
    let batches = counted(report.salvageable_batches, "batch");
    Err(Failure::Other(
        match (report.faults.is_empty(), report.salvageable_batches) {
            (true, 0) => return Ok(ExitCode::SUCCESS),
            (true, _) => format!(
                "{batches} of {path} were given up as damaged and can be read after all; `looker-feed outbox salvage --to` takes them in again."
            ),
            (false, _) => format!(
                "{faults} in {path}; `looker-feed outbox salvage` brings what can be read to another directory."
            ),
        },
    ))
}

fn salvage(arguments: &Salvage) -> Result<(), Failure> {
    let keys = arguments.keys.require(&arguments.path)?;
    let mut answer = json!({});
    let mut text = String::new();
    if let Some(file) = &arguments.target.json_lines {
        let written = write_lines(&arguments.path, &keys, file)?;
        answer["batches_written"] = json!(written.batches);
        answer["state_read"] = json!(written.state_read);
        let (batches, file) = (
            counted(written.batches, "undelivered batch"),
            file.display(),
        );
        text += &format!("{batches} written to {file}. They hold user data.\n");
        if !written.state_read {
            text +=
                "The state cannot be read: batches that were delivered already are among them.\n";
        }
    }
    if let Some(to) = &arguments.target.to {
        let salvaged = outbox::salvage_into(&arguments.path, to, keys);
        let salvaged = salvaged.map_err(|error| Failure::of(&error))?;
        answer["salvaged"] = salvaged_json(&salvaged);
        text += &salvaged_text(&arguments.path, to, &salvaged);
    }
    say(&match arguments.json {
        true => json_text(&answer),
        false => text,
    })
}

struct Written {
    batches: u64,
    state_read: bool,
}

fn write_lines(path: &Path, keys: &Keyring, file: &Path) -> Result<Written, Failure> {
    let cannot =
        |error: io::Error| Failure::Other(format!("Cannot write {}: {error}", file.display()));
    let mut options = File::options();
    // User data: for its owner only.
    let target = options.write(true).create_new(true).mode(0o600).open(file);
    let mut out = BufWriter::new(target.map_err(cannot)?);
    let mut batches = 0;
    let mut failed = None;
    let read = outbox::read_batches(path, keys, |found| {
        let written = write_line(&mut out, &found);
        batches += 1;
        written.map_err(|error| {
            let told = io::Error::new(error.kind(), "the lines could not be written");
            failed = Some(error);
            told
        })
    });
    if let Some(error) = failed {
        return Err(cannot(error));
    }
    let state_read = read.map_err(|error| Failure::of(&error))?;
    let file = out.into_inner();
    let file = file.map_err(|error| cannot(error.into_error()))?;
    file.sync_all().map_err(cannot)?;
    Ok(Written {
        batches,
        state_read,
    })
}

/// `{"delivery","request","rows","dead_letter","batch"}`; a batch that is not JSON stands as
/// `batch_base64`.
fn write_line(out: &mut impl Write, found: &Found) -> io::Result<()> {
    #[derive(serde::Serialize)]
    struct Line<'a> {
        delivery: String,
        request: u32,
        rows: u32,
        #[serde(skip_serializing_if = "Option::is_none")]
        dead_letter: Option<&'a str>,
        #[serde(skip_serializing_if = "Option::is_none")]
        batch: Option<&'a RawValue>,
        #[serde(skip_serializing_if = "Option::is_none")]
        batch_base64: Option<String>,
    }
    let batch: Option<&RawValue> = serde_json::from_slice(&found.payload).ok();
    let line = Line {
        delivery: found.delivery.to_string(),
        request: found.entry,
        rows: found.rows,
        dead_letter: found.reason.as_deref(),
        batch_base64: batch.is_none().then(|| BASE64.encode(&found.payload)),
        batch,
    };
    serde_json::to_writer(&mut *out, &line)?;
    out.write_all(b"\n")
}

fn inspection_text(path: &Path, found: &Inspection, all: bool) -> String {
    let report = &found.report;
    let mut text = format!(
        "Outbox {}: {}, {}, {} bytes.\n",
        path.display(),
        counted(report.files, "file"),
        counted(report.records, "sound record"),
        report.bytes
    );
    let mut passed_over = 0;
    for delivery in &found.deliveries {
        if !all && is_over(delivery) {
            passed_over += 1;
            continue;
        }
        let (rows, requests) = (
            |rows| counted(rows, "row"),
            |requests| counted(requests, "request"),
        );
        text += &format!(
            "Delivery {} {:?} to {}: {}; {} in {}",
            delivery.id,
            delivery.title,
            harmless(&delivery.destination),
            standing(delivery.standing).1,
            rows(delivery.rows),
            requests(delivery.entries),
        );
        if delivery.entries_left > 0 {
            let (rows, requests) = (rows(delivery.rows_left), requests(delivery.entries_left));
            text += &format!(", of which {rows} in {requests} wait");
        }
        if delivery.rows_dead > 0 {
            text += &format!(", {} in the dead letters", rows(delivery.rows_dead));
        }
        if delivery.rows_lost > 0 {
            text += &format!(", {} lost to earlier damage", rows(delivery.rows_lost));
        }
        text += ".\n";
        if is_damaged(delivery) {
            let records = counted(delivery.damaged_records, "record");
            let rows = rows(delivery.damaged_rows);
            text += &format!("  DAMAGED: {records} cannot be read, {rows} of it undelivered.\n");
        }
    }
    if passed_over > 0 {
        let are = match passed_over {
            1 => "1 delivery is".to_owned(),
            many => format!("{} are", counted(many, "delivery")),
        };
        text += &format!("{are} settled and sound, and not listed (--all lists them).\n");
    }
    for fault in &report.faults {
        text += &format!("Damage in {}: {}", fault.file.display(), fault.what);
        if fault.rows > 0 {
            text += &format!(" ({} undelivered)", counted(fault.rows, "row"));
        }
        text += ".\n";
    }
    for (key, files) in &report.keys {
        text += &format!("Sealed under the key {key}: {}.\n", counted(*files, "file"));
    }
    if !report.opened && !report.keys.is_empty() {
        text += &format!(
            "Nothing was opened, since {} is not there and no --key-file was given: damage by the disk is found, a change by hand is not.\n",
            key_file(path).display()
        );
    }
    if report.salvageable_batches > 0 {
        text += &format!(
            "Given up as damaged earlier, and sound in {}: {} with {}.\n",
            path.join("damaged").display(),
            counted(report.salvageable_batches, "batch"),
            counted(report.salvageable_rows, "row")
        );
    }
    let lost: u64 = found.deliveries.iter().map(|one| one.rows_lost).sum();
    let rows = counted(lost, "row");
    if report.faults.is_empty() {
        text += &match lost {
            0 => "Nothing is damaged.\n".to_owned(),
            _ => format!("Nothing is damaged apart from what was given up earlier ({rows}).\n"),
        };
    }
    text
}

/// Nothing of it is left, nothing is damaged, and nobody needs to look.
fn is_over(delivery: &Inspected) -> bool {
    delivery.standing == DeliveryStatus::Settled
        && delivery.rows_dead == 0
        && delivery.rows_lost == 0
        && !is_damaged(delivery)
}

fn is_damaged(delivery: &Inspected) -> bool {
    delivery.damaged_records > 0 || delivery.damaged_rows > 0
}

fn inspection_json(found: &Inspection) -> Value {
    let report = &found.report;
    let deliveries = found.deliveries.iter().map(|delivery| {
        json!({
            "id": delivery.id.to_string(),
            "title": delivery.title,
            "destination": delivery.destination,
            "received": delivery.received,
            "standing": standing(delivery.standing).0,
            "settled": delivery.standing == DeliveryStatus::Settled,
            "requests": delivery.entries,
            "requests_left": delivery.entries_left,
            "rows": delivery.rows,
            "rows_left": delivery.rows_left,
            "rows_dead": delivery.rows_dead,
            "rows_lost": delivery.rows_lost,
            "damaged_records": delivery.damaged_records,
            "damaged_rows": delivery.damaged_rows,
        })
    });
    let keys = report.keys.iter();
    let keys = keys.map(|(key, files)| json!({ "id": key.to_string(), "files": files }));
    let faults = report.faults.iter().map(|fault| {
        json!({
            "file": fault.file.display().to_string(),
            "delivery": fault.delivery.map(|id| id.to_string()),
            "records": fault.records,
            "rows": fault.rows,
            "what": fault.what,
        })
    });
    json!({
        "sound": report.faults.is_empty(),
        "files": report.files,
        "records": report.records,
        "bytes": report.bytes,
        "keys": keys.collect::<Vec<_>>(),
        "opened": report.opened,
        "salvageable_batches": report.salvageable_batches,
        "salvageable_rows": report.salvageable_rows,
        "deliveries": deliveries.collect::<Vec<_>>(),
        "faults": faults.collect::<Vec<_>>(),
    })
}

/// For scripts and for people.
fn standing(standing: DeliveryStatus) -> (&'static str, &'static str) {
    match standing {
        DeliveryStatus::Settled => ("settled", "settled"),
        DeliveryStatus::Unsettled => ("unsettled", "not all sent"),
        DeliveryStatus::Unrecorded => (
            "unrecorded",
            "accepted, and the state does not know it (the next start takes it up)",
        ),
        DeliveryStatus::NotAccepted => (
            "not_accepted",
            "cut short and never accepted (the next start removes it)",
        ),
        DeliveryStatus::Unknown => ("unknown", "it cannot be told whether it was accepted"),
    }
}

fn salvaged_text(from: &Path, to: &Path, salvaged: &Salvaged) -> String {
    let mut text = format!(
        "Copied {} to {}: {}.\n",
        counted(salvaged.bytes, "byte"),
        to.display(),
        counted(salvaged.deliveries.len() as u64, "delivery")
    );
    if salvaged.unreadable > 0 {
        let bytes = counted(salvaged.unreadable, "byte");
        text += &format!("The disk did not give {bytes}.\n");
    }
    for delivery in salvaged.deliveries.iter().rev() {
        let (waiting, lost) = (delivery.waiting.rows, delivery.damaged.rows);
        if waiting > 0 || lost > 0 {
            let (id, title) = (delivery.id, &delivery.title);
            let (waiting, lost) = (counted(waiting, "row"), counted(lost, "row"));
            text += &format!("Delivery {id} {title:?}: {waiting} to be sent, {lost} lost.\n");
        }
    }
    for damage in &salvaged.damage {
        text += &damage_text(damage);
    }
    for fault in &salvaged.rejected {
        text += &format!("Damage in {}: {}.\n", fault.file.display(), fault.what);
    }
    let back = salvaged.brought_back;
    if back.letters > 0 {
        text += &format!(
            "Taken in again, given up as damaged earlier and sound in {}: {} with {}.\n",
            from.join("damaged").display(),
            counted(back.letters, "batch"),
            counted(back.rows, "row")
        );
    }
    let lost: u64 = salvaged.deliveries.iter().map(|one| one.damaged.rows).sum();
    if salvaged.damage.is_empty() && salvaged.rejected.is_empty() {
        text += match lost {
            0 => "Nothing was lost.\n",
            _ => "Nothing was lost apart from what was given up earlier.\n",
        };
    }
    text + &format!(
        "What is in it stays sealed: start the daemon with outbox.path = {:?}, and with the key of the old one (a copy of {:?} as {:?}, unless seal.key_file is set).\n",
        to.display().to_string(),
        key_file(from).display().to_string(),
        key_file(to).display().to_string()
    )
}

fn damage_text(damage: &Damage) -> String {
    let (rows, what) = (counted(damage.rows, "row"), &damage.what);
    match damage.delivery {
        Some(id) => format!("Lost or in doubt: {rows} of delivery {id}: {what}.\n"),
        None => format!("Lost or in doubt: {what}.\n"),
    }
}

fn salvaged_json(salvaged: &Salvaged) -> Value {
    let deliveries = salvaged.deliveries.iter().map(|delivery: &DeliveryState| {
        json!({
            "id": delivery.id.to_string(),
            "title": delivery.title,
            "rows": delivery.rows_in,
            "rows_left": delivery.waiting.rows,
            "rows_dead": delivery.dead.rows,
            "rows_lost": delivery.damaged.rows,
        })
    });
    let damage = salvaged.damage.iter().map(|damage| {
        json!({
            "delivery": damage.delivery.map(|id| id.to_string()),
            "rows": damage.rows,
            "what": damage.what,
        })
    });
    let faults = salvaged.rejected.iter();
    let faults =
        faults.map(|fault| json!({ "file": fault.file.display().to_string(), "what": fault.what }));
    json!({
        "bytes": salvaged.bytes,
        "unreadable_bytes": salvaged.unreadable,
        "deliveries": deliveries.collect::<Vec<_>>(),
        "damage": damage.collect::<Vec<_>>(),
        "brought_back": { "batches": salvaged.brought_back.letters, "rows": salvaged.brought_back.rows },
        "rejected_faults": faults.collect::<Vec<_>>(),
    })
}
