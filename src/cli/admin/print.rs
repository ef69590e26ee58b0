//! Values of the admin API as text for people, and as plain lines for a pipe.

use std::io;
use std::time::Duration;

use super::screen::{Screen, indented, number, span};
use crate::cli::summary::bytes;
use crate::clock::UnixMillis;
use crate::control::view::{DeadLetter, Delivery, Overview, RejectedRow};

/// One line for a pipe.
pub fn summary(now: &Overview) -> String {
    let all = &now.destinations;
    format!(
        "received {} rows, waiting {} batches, accepted {:.1}/s, dead {}, rejected {}, cancelled {}, {}",
        now.totals.rows_in,
        all.iter().map(|d| d.batches).sum::<u64>(),
        all.iter().map(|d| d.accepted_rate).sum::<f64>(),
        now.outbox.dead_letters,
        now.outbox.rejected_rows,
        now.outbox.cancelled_rows,
        if now.ready { "ready" } else { "not ready" },
    )
}

/// Everything at a glance.
pub fn overview(screen: &mut Screen<'_>, now: &Overview) -> io::Result<()> {
    let up = span(between(now.started, now.now));
    screen.line(&format!("looker-feed {}, up for {up}", now.version))?;
    if !now.ready {
        let why = now.not_ready.as_deref().unwrap_or_default();
        screen.line(&format!("NOT READY: new deliveries are not taken. {why}"))?;
    }
    if let Some(why) = &now.outbox.refusing {
        screen.line(&format!("REFUSING: the outbox does not write. {why}"))?;
    }
    for damage in &now.outbox.damage {
        screen.line(&format!("DAMAGE: {damage}"))?;
    }
    for receiving in &now.receiving {
        screen.line(&format!(
            "Receiving    {} rows, {}, for {}: {}",
            number(receiving.rows),
            bytes(receiving.bytes),
            span(between(receiving.since, now.now)),
            receiving.title,
        ))?;
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
        "Outbox       {}{}, {} free on its disk",
        bytes(outbox.bytes),
        bound.unwrap_or_default(),
        bytes(outbox.free_bytes),
    ))?;
    screen.line(&format!(
        "Since start  {} deliveries with {} rows accepted, {} deliveries refused",
        number(now.totals.deliveries_accepted),
        number(now.totals.rows_in),
        number(now.totals.deliveries_refused),
    ))?;
    screen.line(&format!(
        "For you      {} dead letters, {} rejected rows, {} cancelled rows",
        number(outbox.dead_letters),
        number(outbox.rejected_rows),
        number(outbox.cancelled_rows),
    ))?;
    if now.destinations.is_empty() {
        return Ok(());
    }
    screen.line("")?;
    let rows: Vec<_> = now
        .destinations
        .iter()
        .map(|d| {
            let pace = match d.limit > 0.0 {
                true => format!("{:.0} of {:.0}", d.rate, d.limit),
                false => "no limit".into(),
            };
            vec![
                d.label.clone(),
                d.state.clone(),
                number(d.batches),
                d.oldest.map_or_else(dash, |at| span(between(at, now.now))),
                format!("{:.1}", d.accepted_rate),
                pace,
                d.seconds_left
                    .map_or_else(dash, |left| span(Duration::from_secs(left))),
                d.why
                    .clone()
                    .or_else(|| d.last_error.clone())
                    .unwrap_or_default(),
                d.id.clone(),
            ]
        })
        .collect();
    let head = [
        "DESTINATION",
        "STATE",
        ">WAITING",
        ">OLDEST",
        ">ACCEPTED/S",
        ">PACE",
        ">LEFT",
        "WHY",
        "ID",
    ];
    screen.table(&head, &rows)
}

/// A table of deliveries.
pub fn deliveries(screen: &mut Screen<'_>, items: &[Delivery]) -> io::Result<()> {
    let now = UnixMillis::now();
    let rows: Vec<_> = items
        .iter()
        .map(|delivery| {
            let rows = delivery.rows;
            vec![
                delivery.id.clone(),
                delivery.state.clone(),
                span(between(delivery.received, now)),
                number(delivery.rows_in),
                number(rows.delivered),
                number(rows.waiting + rows.in_flight),
                number(rows.rejected),
                number(rows.dead + rows.damaged),
                number(rows.cancelled),
                delivery
                    .seconds_left
                    .map_or_else(dash, |left| span(Duration::from_secs(left))),
                delivery.title.clone(),
            ]
        })
        .collect();
    let head = [
        "ID",
        "STATE",
        ">AGE",
        ">ROWS",
        ">DELIVERED",
        ">WAITING",
        ">REJECTED",
        ">DEAD",
        ">CANCELLED",
        ">LEFT",
        "TITLE",
    ];
    screen.table(&head, &rows)
}

/// A table of dead letters.
pub fn letters(screen: &mut Screen<'_>, items: &[DeadLetter]) -> io::Result<()> {
    let now = UnixMillis::now();
    let rows: Vec<_> = items
        .iter()
        .map(|letter| {
            vec![
                letter.id.clone(),
                number(letter.rows),
                bytes(letter.bytes),
                letter.attempts.to_string(),
                span(between(letter.last_try, now)),
                letter.title.clone(),
                letter.reason.clone(),
            ]
        })
        .collect();
    let head = [">ID", ">ROWS", ">SIZE", ">TRIES", ">AGE", "TITLE", "REASON"];
    screen.table(&head, &rows)
}

/// One dead letter, with its batch.
pub fn letter(screen: &mut Screen<'_>, letter: &DeadLetter) -> io::Result<()> {
    let now = UnixMillis::now();
    screen.line(&format!("Dead letter  {}", letter.id))?;
    screen.line(&format!(
        "Delivery     {} {}",
        letter.delivery, letter.title
    ))?;
    screen.line(&format!("Reason       {}", letter.reason))?;
    screen.line(&format!(
        "Sent         {} times, first {} and last {} ago",
        letter.attempts,
        span(between(letter.first_try, now)),
        span(between(letter.last_try, now)),
    ))?;
    if letter.may_have_arrived {
        screen.line("Careful      mParticle may have taken it: no answer refused it")?;
    }
    screen.line(&format!("Rows         {}", number(letter.rows)))?;
    if let Some(batch) = &letter.batch {
        screen.json(&indented(batch.0.get()))?;
    }
    Ok(())
}

/// A table of rows that were rejected at mapping.
pub fn rejected(screen: &mut Screen<'_>, items: &[RejectedRow]) -> io::Result<()> {
    let row = |row: &RejectedRow| vec![row.row.to_string(), row.reason.clone(), row.text.clone()];
    let rows: Vec<_> = items.iter().map(row).collect();
    screen.table(&[">ROW", "REASON", "TEXT"], &rows)
}

fn between(earlier: UnixMillis, later: UnixMillis) -> Duration {
    Duration::from_millis(later.0.saturating_sub(earlier.0))
}

fn dash() -> String {
    "-".into()
}
