//! A report for people, and as JSON.

use std::io::{self, Write};
use std::time::Duration;

use super::report::{Column, FirstBatch, Report};
use crate::cli::admin::screen::{escaped, indented};
use crate::cli::paint::Paint;
use crate::cli::summary::{bytes, thousands, time};
use crate::harmless::harmless;
use crate::model::{DataType, Environment};

/// Wider names do not push the other columns of the table further to the right.
const WIDEST_NAME: usize = 40;
const WIDEST_TAGS: usize = 30;

/// One JSON object to standard output.
pub fn json(report: &Report) -> io::Result<()> {
    let text = serde_json::to_string_pretty(report)?;
    let mut out = io::stdout().lock();
    writeln!(out, "{}", escaped(&text))?;
    out.flush()
}

/// For people, to standard output.
pub fn text(report: &Report) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(rendered(report, Paint::for_stdout()).as_bytes())?;
    out.flush()
}

/// Lines under headings, with an empty line between the sections.
struct Page {
    text: String,
    paint: Paint,
}

impl Page {
    fn heading(&mut self, text: &str, aside: &str) {
        let heading = self.paint.bold(text);
        let aside = match aside {
            "" => String::new(),
            aside => format!("  {}", self.paint.dim(&harmless(aside))),
        };
        self.text.push_str(&format!("\n{heading}{aside}\n"));
    }

    /// A line whose parts are harmless.
    fn line(&mut self, text: &str) {
        self.text.push_str(text.trim_end());
        self.text.push('\n');
    }
}

fn rendered(report: &Report, paint: Paint) -> String {
    let kind = match report.data_type {
        DataType::User => "user profiles",
        DataType::Event => "events",
    };
    let environment = match report.environment {
        Environment::Production => "production",
        Environment::Development => "development",
    };
    let mut page = Page {
        text: String::new(),
        paint,
    };
    page.line(&format!(
        "{}: what looker-feed would send, as {kind}, to the {environment} environment. Nothing is sent.",
        harmless(&report.file)
    ));
    columns(&mut page, report);
    let whole = report.error.is_none() || report.counts.users > 0;
    counts(&mut page, report, whole);
    rejected(&mut page, report);
    let warn = |text: &str| paint.warn(text);
    list(&mut page, "WARNINGS", &report.warnings, warn);
    list(&mut page, "LOOKER'S NOTES", &report.looker_notes, warn);
    list(&mut page, "NOTES", &report.notes, |text| paint.dim(text));
    first_batches(&mut page, report);
    page.text
}

fn columns(page: &mut Page, report: &Report) {
    if report.columns.is_empty() {
        return;
    }
    let paint = page.paint;
    let sent = report.columns.iter().filter(|one| one.goes_to.is_some());
    let (sent, all) = (sent.count(), report.columns.len());
    page.heading("COLUMNS", &format!("{sent} of {all} are sent"));
    let tags = |column: &Column| match column.tags.is_empty() {
        true => "-".to_owned(),
        false => harmless(&column.tags.join(", ")),
    };
    let widest = |cell: &dyn Fn(&Column) -> String, most: usize| {
        let widths = report.columns.iter().map(|c| cell(c).chars().count());
        widths.filter(|width| *width <= most).max().unwrap_or(most)
    };
    let name_width = widest(&|column| harmless(&column.name), WIDEST_NAME);
    let tags_width = widest(&tags, WIDEST_TAGS);
    for column in &report.columns {
        let name = pad(&harmless(&column.name), name_width);
        let tags = pad(&tags(column), tags_width);
        let remark = column.remark.as_deref().map(harmless).unwrap_or_default();
        let line = match &column.goes_to {
            Some(path) => {
                let (arrow, path) = (paint.good("→"), paint.good(&harmless(path)));
                format!("  {name}  {tags}  {arrow} {path}")
            }
            None if remark.is_empty() => format!("  {name}  {tags}"),
            None if column.untagged => paint.dim(&format!("  {name}  {tags}  · {remark}")),
            None => format!("  {name}  {tags}  {}", paint.warn(&format!("✗ {remark}"))),
        };
        page.line(&line);
        if column.goes_to.is_some() && !remark.is_empty() {
            let gap = " ".repeat(name_width + tags_width + 8);
            page.line(&format!("{gap}{}", paint.warn(&remark)));
        }
    }
    for pivot in &report.pivots {
        let name = pad(&harmless(pivot), name_width);
        let tags = pad("(pivot)", tags_width);
        page.line(&paint.dim(&format!("  {name}  {tags}  · not sent: pivots never are")));
    }
    let mut columns = report.columns.iter();
    if columns.any(|column| column.goes_to.is_none() && column.untagged) {
        page.line("");
        let rule =
            "  A column goes where its mp_ tag in LookML says, and without one it is not sent:";
        page.line(&paint.dim(rule));
        page.line(&paint.dim("    dimension: email { tags: [\"mp_email\"] }"));
    }
}

fn counts(page: &mut Page, report: &Report, whole: bool) {
    let counts = &report.counts;
    page.heading("COUNTS", "");
    let size = bytes(counts.document_bytes);
    let read = match whole {
        true => "",
        false => "  (read before the error)",
    };
    let mut lines = vec![("rows", counts.rows, format!("in {size} of document{read}"))];
    if whole {
        let per = |part: u64, of: u64| part as f64 / of.max(1) as f64;
        lines.push(("rejected rows", counts.rejected_rows, String::new()));
        lines.push(("users", counts.users, "sets of identities".to_owned()));
        if counts.user_attributes > 0 {
            let aside = "of users, different ones".to_owned();
            lines.push(("attributes", counts.user_attributes as u64, aside));
        }
        let aside = format!("{} of JSON", bytes(counts.batch_bytes));
        lines.push(("batches", counts.batches, aside));
        if report.data_type == DataType::Event {
            let each = per(counts.events, counts.batches);
            lines.push(("events", counts.events, format!("{each:.1} in a batch")));
        }
        if let Some(names) = &report.event_names {
            let most = thousands(names.most as u64);
            let aside = format!("different ones, of {most} that mParticle takes in a workspace");
            lines.push(("event names", names.distinct as u64, aside));
        }
        if counts.historical_events > 0 {
            let aside = format!(
                "historical: to an address of their own, in {} batches and {} requests",
                thousands(counts.historical_batches),
                thousands(counts.historical_requests)
            );
            lines.push(("  of them", counts.historical_events, aside));
        }
        let batches = per(counts.batches, counts.requests);
        let events = match report.data_type {
            DataType::User => String::new(),
            DataType::Event => format!(", {:.1} events", counts.events_per_request),
        };
        let aside = format!("{batches:.1} batches{events} in each");
        lines.push(("requests", counts.requests, aside));
    }
    let widths = lines.iter().map(|(_, count, _)| thousands(*count).len());
    let width = widths.max().unwrap_or(0);
    for (name, count, aside) in &lines {
        let count = thousands(*count);
        let gap = " ".repeat(width - count.len());
        let aside = page.paint.dim(aside);
        page.line(&format!("  {name:13}  {gap}{count}  {aside}"));
    }
    if whole && counts.rows == 0 {
        page.line("  There are no rows: nothing is sent, and Looker is told that all went well.");
    }
    if counts.batches > 0 {
        let rate = report.batches_per_second;
        let takes = match report.seconds {
            seconds if seconds < 1.0 => "less than 1 s".to_owned(),
            seconds => time(Duration::from_secs_f64(seconds)),
        };
        let rows = counts.rows.saturating_sub(counts.rejected_rows);
        let alone = rows as f64 / f64::from(rate.max(1));
        let alone = match counts.batches < rows && alone >= 1.0 {
            true => {
                let alone = time(Duration::from_secs_f64(alone));
                format!("; with a batch for every row it would be {alone}")
            }
            false => String::new(),
        };
        let aside = format!("at {rate} batches a second{alone}");
        let aside = page.paint.dim(&aside);
        page.line(&format!("  {:13}  {takes}  {aside}", "time"));
    }
}

fn rejected(page: &mut Page, report: &Report) {
    if report.rejected.is_empty() {
        return;
    }
    page.heading("REJECTED ROWS", "kept with their reason, and not sent");
    for reason in &report.rejected {
        let rows: Vec<_> = reason.first_rows.iter().map(u64::to_string).collect();
        let noun = if reason.rows == 1 { "row" } else { "rows" };
        let more = match reason.rows > rows.len() as u64 {
            true => ", …",
            false => "",
        };
        let values = match reason.values.is_empty() {
            true => String::new(),
            false => format!(": {}{more}", harmless(&reason.values.join(", "))),
        };
        let line = format!(
            "{} {noun}: {} ({noun} {}{more}){values}",
            thousands(reason.rows),
            harmless(&reason.reason),
            rows.join(", ")
        );
        page.line(&format!("  {}", page.paint.warn(&line)));
    }
}

fn list(page: &mut Page, heading: &str, sentences: &[String], paint: impl Fn(&str) -> String) {
    if sentences.is_empty() {
        return;
    }
    page.heading(heading, "");
    for sentence in sentences {
        page.line(&format!("  {}", paint(&harmless(sentence))));
    }
}

fn first_batches(page: &mut Page, report: &Report) {
    if report.first_batches.is_empty() {
        return;
    }
    let shown = report.first_batches.len();
    let all = thousands(report.counts.batches);
    let aside = format!("{shown} of {all}; the ids are not real: each delivery has its own");
    page.heading("FIRST BATCHES", &aside);
    for batch in &report.first_batches {
        page.line(&head(batch, page.paint));
        let json = escaped(&indented(batch.batch.get()));
        for line in json.lines() {
            page.line(&format!("  {line}"));
        }
    }
}

fn head(batch: &FirstBatch, paint: Paint) -> String {
    let rows = thousands(batch.rows.into());
    let rows = match (batch.rows, batch.first_row.map(thousands)) {
        (1, Some(row)) => format!("row {row}"),
        (1, None) => "1 row".to_owned(),
        (_, Some(row)) => format!("{rows} rows, the first is row {row}"),
        (_, None) => format!("{rows} rows"),
    };
    let address = match batch.historical {
        true => ", to the address for historical events",
        false => "",
    };
    paint.dim(&format!("  {rows}, {}{address}", bytes(batch.bytes as u64)))
}

fn pad(text: &str, width: usize) -> String {
    let gap = width.saturating_sub(text.chars().count());
    format!("{text}{}", " ".repeat(gap))
}
