//! What `status --watch` shows on a terminal, line by line and no larger than it: health on top, then what
//! waits for whom, then deliveries. Pure.

use super::screen::{Screen, between, number};
use super::status;
use crate::cli::paint::Paint;
use crate::cli::summary::bytes;
use crate::cli::terminal::Size;
use crate::clock::UnixMillis;
use crate::control::view::{Delivery, Level, Overview, Receiving};
use crate::harmless::harmless;

/// Issues that are shown, the most urgent ones.
const ISSUES: usize = 4;
/// Lines of a table that is shortened: its head, one row, and how many more there are.
const LEAST: usize = 3;
/// Characters of a bar.
const BAR: usize = 20;
/// Eighths of a line's height.
const STEPS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];

/// What is known.
#[derive(Clone, Copy, Debug)]
pub(super) struct Look<'a> {
    pub now: &'a Overview,
    /// Open ones, then the latest that are over.
    pub deliveries: &'a [Delivery],
    /// Batches a second that were accepted, at each look.
    pub rates: &'a [f64],
    /// Since when the daemon does not answer, and how.
    pub silent: Option<(UnixMillis, &'a str)>,
    /// This machine's time.
    pub clock: UnixMillis,
}

/// The lines of a screen of this size.
pub(super) fn frame(look: &Look<'_>, size: Size, paint: Paint) -> Vec<String> {
    let Size { columns, lines } = size;
    let now = look.now;
    let mut all = vec![paint.bold(&title(look, columns))];
    all.extend(health(look, columns, paint));
    all.extend(gauges(look, columns, paint));
    // One line is the last one, and a blank one stands before each table.
    let mut room = lines.saturating_sub(all.len() + 1);
    // `after`: tables that come after this one, of which each should show something too.
    let mut table = |head: &[&str], rows: &[Vec<String>], most: usize, after: usize| {
        let lines = rendered(head, rows, columns, paint);
        let most = most.min(room.saturating_sub(1 + after * (1 + LEAST)));
        // A head alone says nothing.
        if rows.is_empty() || most < LEAST.min(lines.len()) {
            return;
        }
        all.push(String::new());
        let hidden = lines.len().saturating_sub(most);
        match hidden {
            0 => all.extend(lines),
            _ => {
                let shown = most - 1;
                all.extend(lines.into_iter().take(shown));
                let more = format!("and {} more", rows.len() - (shown - 1).min(rows.len()));
                all.push(paint.dim(&cut(&more, columns)));
            }
        }
        room = lines_left(size, all.len());
    };
    let third = lines / 3;
    let destinations = now.destinations.iter();
    let destinations: Vec<_> = destinations
        .map(|one| status::destination(one, now.now))
        .collect();
    let receiving = now.receiving.iter();
    let receiving: Vec<_> = receiving.map(|one| coming(one, now.now)).collect();
    let deliveries: Vec<_> = look.deliveries.iter().map(delivery).collect();
    let last = usize::from(!deliveries.is_empty());
    let last_two = last + usize::from(!receiving.is_empty());
    table(
        &status::DESTINATIONS,
        &destinations,
        third.max(LEAST),
        last_two,
    );
    table(&RECEIVING, &receiving, (third / 2).max(LEAST), last);
    table(&DELIVERIES, &deliveries, usize::MAX, 0);
    all.truncate(lines.saturating_sub(1));
    all.resize(lines.saturating_sub(1), String::new());
    all.push(paint.dim(&cut("q: quit   space: look now   every 2 s", columns)));
    all
}

/// Lines that are left for tables, without the last one.
fn lines_left(size: Size, taken: usize) -> usize {
    size.lines.saturating_sub(taken + 1)
}

/// Name and age on the left, the time on the right.
fn title(look: &Look<'_>, columns: usize) -> String {
    let now = look.now;
    let left = format!(
        "looker-feed {}, up for {}",
        harmless(&now.version),
        between(now.started, now.now)
    );
    let time = jiff::Timestamp::from_millisecond(look.clock.0 as i64)
        .map(|time| time.strftime("%Y-%m-%d %H:%M:%S UTC").to_string())
        .unwrap_or_default();
    let gap = columns.saturating_sub(left.chars().count() + time.chars().count());
    match gap {
        0 => cut(&left, columns),
        _ => format!("{left}{}{time}", " ".repeat(gap)),
    }
}

/// The roll-up, and what is behind it.
fn health(look: &Look<'_>, columns: usize, paint: Paint) -> Vec<String> {
    let now = look.now;
    if let Some((since, why)) = look.silent {
        let why = format!("The daemon does not answer: {}", harmless(why));
        let age = between(since, look.clock);
        let old = format!("What follows is {age} old.");
        return vec![
            paint.bad(&cut(&why, columns)),
            paint.bad(&cut(&old, columns)),
        ];
    }
    let health = &now.health;
    let tone = |level: Level, text: &str| match level {
        Level::Ok => paint.good(text),
        Level::Waiting => paint.warn(text),
        Level::Attention | Level::Failing => paint.bad(text),
    };
    let headline = cut(&harmless(&health.headline), columns);
    let mut lines = vec![tone(health.level, &headline)];
    for issue in health.issues.iter().take(ISSUES) {
        let text = cut(&harmless(&status::one_issue(issue, now.now)), columns);
        lines.push(tone(issue.level, &text));
    }
    let more = health.issues.len().saturating_sub(ISSUES);
    if more > 0 {
        lines.push(paint.dim(&cut(&format!("and {more} more"), columns)));
    }
    lines
}

/// The outbox, the speed, and what waits for a person.
fn gauges(look: &Look<'_>, columns: usize, paint: Paint) -> Vec<String> {
    let (now, outbox) = (look.now, &look.now.outbox);
    let (part, of) = match outbox.max_bytes {
        Some(max) if max > 0 => {
            let part = outbox.bytes.saturating_mul(100) / max;
            let (bar, max) = (bar(outbox.bytes, max), bytes(max));
            (format!("{bar} {part:>3} %  "), format!(" of {max}"))
        }
        _ => (String::new(), String::new()),
    };
    let store = format!(
        "Outbox    {part}{}{of}, {}",
        bytes(outbox.bytes),
        status::place(outbox)
    );
    let rate = look.rates.last().copied().unwrap_or(0.0);
    let waiting: u64 = now.destinations.iter().map(|one| one.batches).sum();
    // The line of rates takes what the words leave.
    let words = format!(" {rate:.0}/s, {} batches wait", number(waiting));
    let room = columns.saturating_sub("Accepted  ".len() + words.chars().count());
    let from = look.rates.len().saturating_sub(room.min(3 * BAR));
    let rates = look.rates.get(from..).unwrap_or_default();
    let speed = format!("Accepted  {}{words}", line(rates));
    let for_you = format!("For you   {}", status::for_you(now));
    let mut lines = vec![String::new()];
    lines.push(cut(&store, columns));
    lines.push(cut(&speed, columns));
    let for_you = cut(&for_you, columns);
    lines.push(match outbox.dead_letters > 0 {
        true => paint.warn(&for_you),
        false => for_you,
    });
    lines
}

const RECEIVING: [&str; 4] = ["~RECEIVING", ">ROWS", ">SIZE", ">FOR"];

fn coming(one: &Receiving, now: UnixMillis) -> Vec<String> {
    vec![
        one.title.clone(),
        number(one.rows),
        bytes(one.bytes),
        between(one.since, now),
    ]
}

const DELIVERIES: [&str; 7] = [
    "~DELIVERY",
    "*STATE",
    ">ROWS",
    ">DONE",
    "?",
    "?>LEFT",
    "?~NOT DELIVERED",
];

fn delivery(one: &Delivery) -> Vec<String> {
    let mut cells = status::delivery(one);
    let rows = one.rows;
    let settled = one.rows_in - (rows.waiting + rows.in_flight).min(one.rows_in);
    let bar = match settled == one.rows_in {
        true => String::new(),
        false => bar(settled, one.rows_in),
    };
    cells.insert(4, bar);
    cells
}

/// A table's lines.
fn rendered(head: &[&str], rows: &[Vec<String>], columns: usize, paint: Paint) -> Vec<String> {
    let mut text = Vec::new();
    // Memory takes what is written.
    let _ = Screen::of_width(&mut text, columns, paint).table(head, rows, "");
    let text = String::from_utf8_lossy(&text);
    text.lines().map(str::to_owned).collect()
}

/// A part of a whole.
fn bar(part: u64, whole: u64) -> String {
    let full = (u128::from(part) * BAR as u128)
        .checked_div(u128::from(whole))
        .unwrap_or(0);
    let full = usize::try_from(full).unwrap_or(BAR).min(BAR);
    format!("{}{}", "█".repeat(full), "░".repeat(BAR - full))
}

/// Rates as columns of characters; the largest is as high as can be.
fn line(rates: &[f64]) -> String {
    let largest = rates.iter().copied().fold(0.0, f64::max);
    let step = |rate: &f64| {
        let height = (rate / largest * STEPS.len() as f64).ceil() as usize;
        STEPS.get(height.max(1) - 1).copied().unwrap_or('█')
    };
    match largest > 0.0 {
        true => rates.iter().map(step).collect(),
        false => "▁".repeat(rates.len()),
    }
}

/// `text` in a line of so many characters.
fn cut(text: &str, columns: usize) -> String {
    if text.chars().count() <= columns {
        return text.to_owned();
    }
    let mut cut: String = text.chars().take(columns.saturating_sub(1)).collect();
    cut.push('…');
    cut
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::view::{Destination, Health, Issue, Kind, Rows, Standing};

    fn many() -> (Overview, Vec<Delivery>) {
        let hostile = "\u{1b}[2J\u{9b}31m\u{202e}evil";
        let issue = |at: usize| Issue {
            kind: Kind::DeadLetters,
            level: Level::Attention,
            title: format!("Thing {at} {hostile}"),
            text: "It is long, ".repeat(20),
            since: Some(UnixMillis(0)),
            destination: None,
        };
        let now = Overview {
            version: "1".to_owned(),
            now: UnixMillis(100_000),
            health: Health {
                level: Level::Attention,
                headline: format!("Many things {hostile}"),
                issues: (0..9).map(issue).collect(),
            },
            destinations: (0..40)
                .map(|at| Destination {
                    id: format!("{at:032x}"),
                    label: format!("mparticle {at} {hostile}"),
                    state: "down".to_owned(),
                    batches: 7,
                    ..Destination::default()
                })
                .collect(),
            receiving: vec![
                Receiving {
                    title: hostile.repeat(30),
                    ..Receiving::default()
                };
                64
            ],
            ..Overview::default()
        };
        let deliveries = (0..200)
            .map(|at| Delivery {
                title: format!("{at} {}", hostile.repeat(9)),
                standing: Standing::Sending,
                rows_in: 10,
                rows: Rows {
                    waiting: 4,
                    delivered: 5,
                    dead: 1,
                    ..Rows::default()
                },
                ..Delivery::default()
            })
            .collect();
        (now, deliveries)
    }

    #[test]
    fn a_screen_is_full_and_no_larger_and_nothing_from_outside_steers_it() {
        let (now, deliveries) = many();
        for (columns, lines) in [(80, 24), (200, 60), (40, 10), (10, 3), (1, 1)] {
            let silent = [None, Some((UnixMillis(0), "\u{1b}c gone"))];
            for silent in silent {
                let look = Look {
                    now: &now,
                    deliveries: &deliveries,
                    rates: &[0.0, 1.0, 2.5],
                    silent,
                    clock: UnixMillis(101_000),
                };
                let shown = frame(&look, Size { columns, lines }, Paint::off());
                assert_eq!(shown.len(), lines, "{columns} {shown:#?}");
                for line in &shown {
                    let harmful = line.chars().any(crate::harmless::is_harmful);
                    assert!(!harmful, "{line:?}");
                    // A table has columns that it must show.
                    let width = line.chars().count();
                    assert!(width <= columns.max(60), "{columns} {line}");
                    assert!(columns < 80 || width <= columns, "{columns} {line}");
                }
                if lines >= 24 {
                    let text = shown.join("\n");
                    for head in ["DESTINATION", "RECEIVING", "DELIVERY", "and "] {
                        assert!(text.contains(head), "{columns} {head}\n{text}");
                    }
                    assert_eq!(text.contains("1 min 41 s old"), silent.is_some(), "{text}");
                    assert_eq!(text.contains("Many things"), silent.is_none(), "{text}");
                }
            }
        }
    }

    #[test]
    fn bars_and_lines_are_in_proportion() {
        assert_eq!(bar(0, 0), "░".repeat(BAR));
        assert_eq!(bar(1, 2), format!("{}{}", "█".repeat(10), "░".repeat(10)));
        assert_eq!(bar(u64::MAX, u64::MAX), "█".repeat(BAR));
        assert_eq!(line(&[]), "");
        assert_eq!(line(&[0.0, 0.0]), "▁▁");
        assert_eq!(line(&[0.0, 1.0, 4.0, 8.0]), "▁▁▄█");
    }
}
