//! `status`: the roll-up that the page's header shows, and what is behind it.

use std::io;

use super::screen::{Screen, between, dash, left, number};
use crate::cli::summary::bytes;
use crate::clock::UnixMillis;
use crate::control::health::count;
use crate::control::view::{Delivery, Destination, Issue, Level, Outbox, Overview, Standing};

/// One line for a pipe.
pub fn summary(now: &Overview) -> String {
    let all = &now.destinations;
    format!(
        "received {} rows, waiting {} batches, accepted {:.1}/s, dead {}, rejected {}, cancelled {}, {}, {}",
        now.totals.rows_in,
        all.iter().map(|d| d.batches).sum::<u64>(),
        all.iter().map(|d| d.accepted_rate).sum::<f64>(),
        now.outbox.dead_letters,
        now.outbox.rejected_rows,
        now.outbox.cancelled_rows,
        if now.ready { "ready" } else { "not ready" },
        now.health.level.name(),
    )
}

/// Everything at a glance; what is wrong stands on top.
pub fn overview(screen: &mut Screen<'_>, now: &Overview) -> io::Result<()> {
    let up = between(now.started, now.now);
    screen.line(&format!(
        "looker-feed {}, up for {up}: {}",
        now.version, now.health.headline
    ))?;
    for issue in &now.health.issues {
        screen.line(&one_issue(issue, now.now))?;
    }
    for receiving in &now.receiving {
        screen.line(&format!(
            "Receiving    {}, {}, for {}: {}",
            counted(receiving.rows, "row", "rows"),
            bytes(receiving.bytes),
            between(receiving.since, now.now),
            receiving.title,
        ))?;
    }
    for looker in &now.ask_again.lookers {
        let state = match (&looker.trouble, &looker.blind) {
            (Some(trouble), _) => format!("cannot be asked: {trouble}"),
            (None, Some(blind)) => format!("can be asked; missed deliveries are not seen: {blind}"),
            (None, None) => "can be asked again".to_owned(),
        };
        screen.line(&format!("Looker       {} {state}", looker.host))?;
    }
    let outbox = &now.outbox;
    if outbox.set_aside_bytes > 0 {
        screen.line(&format!(
            "KEPT         {} of damaged files, until somebody removes them",
            bytes(outbox.set_aside_bytes),
        ))?;
    }
    let bound = outbox.max_bytes.map(|max| format!(" of {}", bytes(max)));
    screen.line(&format!(
        "Outbox       {}{}, {}",
        bytes(outbox.bytes),
        bound.unwrap_or_default(),
        place(outbox),
    ))?;
    screen.line(&format!(
        "Since start  {} with {} accepted, {} refused",
        counted(now.totals.deliveries_accepted, "delivery", "deliveries"),
        counted(now.totals.rows_in, "row", "rows"),
        counted(now.totals.deliveries_refused, "delivery", "deliveries"),
    ))?;
    screen.line(&format!("For you      {}", for_you(now)))?;
    if now.destinations.is_empty() {
        return Ok(());
    }
    screen.line("")?;
    let rows = now.destinations.iter().map(|one| destination(one, now.now));
    let rows: Vec<_> = rows.collect();
    screen.table(&DESTINATIONS, &rows, "")
}

/// Where the outbox is.
pub(super) fn place(outbox: &Outbox) -> String {
    match &outbox.database {
        Some(database) => format!("in {database}"),
        None => format!("{} free on its disk", bytes(outbox.free_bytes)),
    }
}

/// What somebody may want to look at.
pub(super) fn for_you(now: &Overview) -> String {
    let outbox = &now.outbox;
    format!(
        "{}, {}, {}",
        counted(outbox.dead_letters, "dead letter", "dead letters"),
        counted(outbox.rejected_rows, "rejected row", "rejected rows"),
        counted(outbox.cancelled_rows, "cancelled row", "cancelled rows"),
    )
}

/// An issue as one line: what needs a person begins with an exclamation mark.
pub(super) fn one_issue(issue: &Issue, now: UnixMillis) -> String {
    let Issue { title, text, .. } = issue;
    let mark = match issue.level.needs_a_person() {
        true => '!',
        false => '~',
    };
    let since = issue.since.map(|since| between(since, now));
    let since = since.map_or_else(String::new, |long| format!(" (for {long})"));
    format!("{mark} {title}{since} {text}")
}

/// The head above [`destination`].
pub(super) const DESTINATIONS: [&str; 8] = [
    "~DESTINATION",
    "*STATE",
    ">WAITING",
    "?>OLDEST",
    "?>ACCEPTED/S",
    "?>PACE",
    "?>LEFT",
    "#ID",
];

/// One that has nothing to send has no speed and no pace.
pub(super) fn destination(one: &Destination, now: UnixMillis) -> Vec<String> {
    let busy = one.batches > 0 || one.in_flight > 0;
    let pace = match (busy, one.limit > 0.0) {
        (false, _) => dash(),
        (true, true) => format!("{:.0} of {:.0}", one.rate, one.limit),
        (true, false) => "no limit".into(),
    };
    let accepted = match busy {
        true => format!("{:.1}", one.accepted_rate),
        false => dash(),
    };
    vec![
        one.label.clone(),
        one.state.clone(),
        number(one.batches),
        one.oldest.map_or_else(dash, |at| between(at, now)),
        accepted,
        pace,
        left(one.seconds_left),
        one.id.clone(),
    ]
}

/// Title, where it stands, rows, how much of them is settled, time left, and what did not arrive.
pub(super) fn delivery(one: &Delivery) -> Vec<String> {
    let rows = one.rows;
    let settled = one.rows_in - (rows.waiting + rows.in_flight).min(one.rows_in);
    let missing = [
        (rows.dead, "dead"),
        (rows.rejected, "rejected"),
        (rows.cancelled, "cancelled"),
    ];
    let missing = missing.into_iter().filter(|(count, _)| *count > 0);
    let missing = missing.map(|(count, what)| format!("{} {what}", number(count)));
    let missing: Vec<_> = missing.collect();
    let part = (settled * 100).checked_div(one.rows_in).unwrap_or(100);
    vec![
        one.title.clone(),
        standing(one).to_owned(),
        number(one.rows_in),
        format!("{part} %"),
        left(one.seconds_left),
        missing.join(", "),
    ]
}

/// As the page calls it, with what needs a person made plain.
fn standing(one: &Delivery) -> &'static str {
    match one.standing {
        Standing::Held => "held: release it",
        Standing::Incomplete if one.level == Level::Attention => "incomplete!",
        standing => standing.name(),
    }
}

fn counted(number_of: u64, one: &str, many: &str) -> String {
    let text = count(number_of, one, many);
    let words = text.split_once(' ').map_or("", |(_, words)| words);
    format!("{} {words}", number(number_of))
}
