//! `/metrics`: the overview in Prometheus' text format, version 0.0.4. Names are a promise to
//! dashboards and alerts: they may be added to, not changed.

use std::fmt::{Display, Write};

use super::issue::{Kind, Level};
use super::schedules::Shown;
use super::view::{Destination, Overview};
use crate::clock::UnixMillis;

pub(super) const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Every family, a line each: its name, its kind, and what it says.
const FAMILIES: &str = "\
build_info gauge Always 1; the version is a label.
start_time_seconds gauge When the daemon was started, in seconds since 1970.
ready gauge 1: new deliveries are taken.
deliveries_total counter Deliveries since the start, by how they ended.
failed_deliveries_total counter Deliveries that failed since the start, by reason.
last_failed_delivery_timestamp_seconds gauge When the newest failed delivery on record failed; absent when there is none.
failed_deliveries_for_a_person gauge Failed deliveries of the last day that nobody mends: not asked for again, not followed by a later one, not dismissed.
held_deliveries gauge Deliveries of an unusual size that are held until somebody releases them.
rows_received_total counter Rows of accepted deliveries since the start.
rows_rejected_total counter Rows of them that were rejected at mapping.
rows_unchanged_total counter Rows of them that were not sent, since what they say was delivered before.
receiving_deliveries gauge Deliveries that Looker is sending now.
spans_total counter Spans for OpenTelemetry since the start, by what became of them; absent without a collector.
last_delivery_timestamp_seconds gauge When the newest delivery on record was received; absent when there is none.
asked_again_total counter Calls by which Looker was asked to run a failed delivery again, since the start.
ask_again_ended_total counter Failed deliveries by how asking for them again ended, since the start.
ask_again_open gauge Failed deliveries that are asked for again, by state.
looker_api_up gauge 0: Looker's API could not be asked the last time; absent without an API key.
health gauge 1 for the level of the worst issue: ok, waiting, attention (needs a person), failing.
issues gauge Issues as the status page shows them, by kind.
outbox_bytes gauge Bytes that the outbox takes on the disk.
outbox_max_bytes gauge The configured bound; absent when there is none.
disk_free_bytes gauge Free bytes of the outbox's disk.
outbox_refusing_writes gauge 1: the outbox takes nothing new.
outbox_unreadable gauge 1: part of the outbox cannot be read now, and is not sent until it can.
outbox_damages gauge Damage found in the outbox.
dead_letters gauge Batches in the dead letters.
rejected_rows_kept gauge Rows rejected at mapping that are kept.
cancelled_rows gauge Rows of listed deliveries that are not sent since a person cancelled them.
outbox_set_aside_bytes gauge Bytes of damaged files that are kept until somebody removes them.
destination_state gauge 1 for a destination's state.
requests_sent_total counter Requests sent since the start.
batches_accepted_total counter Batches accepted since the start.
replies_total counter Replies since the start, by kind.
requests_in_flight gauge Requests under way.
pace_batches_per_second gauge Batches a second that may be sent now.
limit_batches_per_second gauge The configured limit; absent when there is none.
latency_mean_seconds gauge Mean time from a request to its reply, recently.
latency_p99_seconds gauge The time within which 99 of 100 recent requests were answered.
last_success_timestamp_seconds gauge When a request was accepted last; absent before the first.
backlog_deliveries gauge Deliveries that have something to send.
backlog_batches gauge Batches that are not settled.
backlog_rows gauge Rows that are not settled.
backlog_bytes gauge Bytes of waiting requests on the disk.
backlog_age_seconds gauge Age of the oldest delivery that has something to send; 0 when nothing waits.
schedule_last_delivery_timestamp_seconds gauge When the newest delivery on record of a schedule was received.
schedule_deliveries gauge Deliveries of a schedule on record.
schedules_left_out gauge Schedules on record beyond those that have series of their own.
";

/// What a destination can be, each as a series of 0 or 1.
const STATES: [&str; 5] = ["idle", "flowing", "waiting", "down", "paused"];

/// The whole page. `newest`: when the newest delivery was received.
pub(super) fn text(overview: &Overview, newest: Option<UnixMillis>, schedules: &Shown) -> String {
    let mut out = Writer(String::with_capacity(8 << 10));
    daemon(&mut out, overview, newest);
    health(&mut out, overview);
    outbox(&mut out, overview);
    sending(&mut out, &overview.destinations);
    backlog(&mut out, overview);
    by_schedule(&mut out, schedules);
    out.0
}

fn daemon(out: &mut Writer, overview: &Overview, newest: Option<UnixMillis>) {
    out.family("build_info")
        .one(&[("version", &overview.version)], 1);
    out.family("start_time_seconds")
        .one(&[], seconds(overview.started));
    out.family("ready").one(&[], u8::from(overview.ready));
    out.family("deliveries_total")
        .one(
            &[("outcome", "accepted")],
            overview.totals.deliveries_accepted,
        )
        .one(
            &[("outcome", "refused")],
            overview.totals.deliveries_refused,
        );
    let mut failed = out.family("failed_deliveries_total");
    for (reason, count) in &overview.totals.failed {
        failed.one(&[("reason", reason)], count);
    }
    out.family("last_failed_delivery_timestamp_seconds")
        .some(&[], overview.failures.newest.map(seconds));
    out.family("failed_deliveries_for_a_person")
        .one(&[], overview.failures.for_a_person);
    asking_again(out, overview);
    out.family("held_deliveries")
        .one(&[], overview.outbox.held_deliveries);
    out.family("rows_received_total")
        .one(&[], overview.totals.rows_in);
    out.family("rows_rejected_total")
        .one(&[], overview.totals.rows_rejected);
    out.family("rows_unchanged_total")
        .one(&[], overview.totals.rows_unchanged);
    out.family("receiving_deliveries")
        .one(&[], overview.receiving.len());
    let mut spans = out.family("spans_total");
    if let Some(counts) = overview.spans {
        spans
            .one(&[("outcome", "exported")], counts.exported)
            .one(&[("outcome", "dropped")], counts.dropped);
    }
    let newest = newest.map(seconds);
    out.family("last_delivery_timestamp_seconds")
        .some(&[], newest);
}

fn asking_again(out: &mut Writer, overview: &Overview) {
    let again = &overview.ask_again;
    out.family("asked_again_total").one(&[], again.asked);
    out.family("ask_again_ended_total")
        .one(&[("outcome", "done")], again.done)
        .one(&[("outcome", "given_up")], again.given_up)
        .one(&[("outcome", "called_off")], again.called_off);
    let mut open = out.family("ask_again_open");
    for (state, count) in &again.open {
        open.one(&[("state", state)], count);
    }
    let mut up = out.family("looker_api_up");
    for looker in &again.lookers {
        let is = u8::from(looker.trouble.is_none());
        up.one(&[("looker", &looker.host)], is);
    }
}

/// `overview.health` must be filled.
fn health(out: &mut Writer, overview: &Overview) {
    let health = &overview.health;
    let mut level = out.family("health");
    for one in Level::ALL {
        level.one(&[("level", one.name())], u8::from(health.level == one));
    }
    let mut issues = out.family("issues");
    for kind in Kind::ALL {
        let of = health.issues.iter().filter(|issue| issue.kind == kind);
        issues.one(&[("kind", kind.name())], of.count());
    }
}

fn outbox(out: &mut Writer, overview: &Overview) {
    let outbox = &overview.outbox;
    out.family("outbox_bytes").one(&[], outbox.bytes);
    out.family("outbox_max_bytes").some(&[], outbox.max_bytes);
    out.family("disk_free_bytes").one(&[], outbox.free_bytes);
    out.family("outbox_refusing_writes")
        .one(&[], u8::from(outbox.refusing.is_some()));
    out.family("outbox_unreadable")
        .one(&[], u8::from(outbox.unreadable.is_some()));
    out.family("outbox_damages").one(&[], outbox.damage.len());
    out.family("dead_letters").one(&[], outbox.dead_letters);
    out.family("rejected_rows_kept")
        .one(&[], outbox.rejected_rows);
    out.family("cancelled_rows").one(&[], outbox.cancelled_rows);
    out.family("outbox_set_aside_bytes")
        .one(&[], outbox.set_aside_bytes);
}

fn sending(out: &mut Writer, all: &[Destination]) {
    let mut state = out.family("destination_state");
    for destination in all {
        for name in STATES {
            let [id, label] = labels(destination);
            let is = u8::from(destination.state == name);
            state.one(&[id, label, ("state", name)], is);
        }
    }
    out.family("requests_sent_total")
        .each(all, |d| Some(d.requests_sent));
    out.family("batches_accepted_total")
        .each(all, |d| Some(d.batches_accepted));
    let mut replies = out.family("replies_total");
    for destination in all {
        let [id, label] = labels(destination);
        for (reply, count) in &destination.replies {
            replies.one(&[id, label, ("reply", reply)], count);
        }
    }
    out.family("requests_in_flight")
        .each(all, |d| Some(d.in_flight));
    out.family("pace_batches_per_second")
        .each(all, |d| Some(d.rate));
    out.family("limit_batches_per_second")
        .each(all, |d| (d.limit > 0.0).then_some(d.limit));
    out.family("latency_mean_seconds")
        .each(all, |d| Some(d.latency_mean_ms / 1000.0));
    out.family("latency_p99_seconds")
        .each(all, |d| Some(d.latency_p99_ms / 1000.0));
    out.family("last_success_timestamp_seconds")
        .each(all, |d| d.last_success.map(seconds));
}

fn backlog(out: &mut Writer, overview: &Overview) {
    let all = &overview.destinations;
    out.family("backlog_deliveries")
        .each(all, |d| Some(d.deliveries));
    out.family("backlog_batches").each(all, |d| Some(d.batches));
    out.family("backlog_rows").each(all, |d| Some(d.rows));
    out.family("backlog_bytes").each(all, |d| Some(d.bytes));
    out.family("backlog_age_seconds").each(all, |d| {
        let now = overview.now.0;
        let age = d.oldest.map(|oldest| now.saturating_sub(oldest.0));
        Some(age.unwrap_or_default() as f64 / 1000.0)
    });
}

fn by_schedule(out: &mut Writer, shown: &Shown) {
    let mut last = out.family("schedule_last_delivery_timestamp_seconds");
    for (schedule, (_, newest)) in &shown.schedules {
        last.one(&[("schedule", schedule)], seconds(*newest));
    }
    let mut count = out.family("schedule_deliveries");
    for (schedule, (deliveries, _)) in &shown.schedules {
        count.one(&[("schedule", schedule)], deliveries);
    }
    out.family("schedules_left_out").one(&[], shown.left_out);
}

fn labels(destination: &Destination) -> [(&str, &str); 2] {
    [
        ("destination", &destination.id),
        ("label", &destination.label),
    ]
}

fn seconds(at: UnixMillis) -> f64 {
    at.0 as f64 / 1000.0
}

/// The text, and at its end the family that samples go to.
struct Writer(String);

impl Writer {
    /// Begins a family: all its samples must follow at once.
    fn family(&mut self, name: &'static str) -> Family<'_> {
        let mut families = FAMILIES.lines().map(|line| line.splitn(3, ' '));
        let of = families.find(|parts| parts.clone().next() == Some(name));
        let mut of = of.into_iter().flatten().skip(1);
        let (kind, help) = (
            of.next().unwrap_or("untyped"),
            of.next().unwrap_or_default(),
        );
        // Writing to a string cannot fail.
        let _ = writeln!(self.0, "# HELP looker_feed_{name} {help}");
        let _ = writeln!(self.0, "# TYPE looker_feed_{name} {kind}");
        Family { out: self, name }
    }
}

struct Family<'a> {
    out: &'a mut Writer,
    name: &'static str,
}

impl Family<'_> {
    fn one(&mut self, labels: &[(&str, &str)], value: impl Display) -> &mut Self {
        let out = &mut self.out.0;
        let _ = write!(out, "looker_feed_{}", self.name);
        for (n, (name, value)) in labels.iter().enumerate() {
            out.push_str(if n == 0 { "{" } else { "," });
            let _ = write!(out, "{name}=\"");
            escape(out, value);
            out.push('"');
        }
        if !labels.is_empty() {
            out.push('}');
        }
        let _ = writeln!(out, " {value}");
        self
    }

    fn some(&mut self, labels: &[(&str, &str)], value: Option<impl Display>) -> &mut Self {
        match value {
            Some(value) => self.one(labels, value),
            None => self,
        }
    }

    fn each<V: Display>(
        &mut self,
        all: &[Destination],
        of: impl Fn(&Destination) -> Option<V>,
    ) -> &mut Self {
        for destination in all {
            self.some(&labels(destination), of(destination));
        }
        self
    }
}

/// Inside the quotes of a label three characters are escaped.
fn escape(out: &mut String, value: &str) {
    for character in value.chars() {
        match character {
            '\\' => out.push_str("\\\\"),
            '"' => out.push_str("\\\""),
            '\n' => out.push_str("\\n"),
            other => out.push(other),
        }
    }
}
