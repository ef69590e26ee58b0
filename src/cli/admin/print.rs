//! Values of the admin API as text for people, and as plain lines for a pipe.

use std::io;

use super::screen::{Screen, between, dash, indented, left, number};
use crate::cli::summary::bytes;
use crate::clock::UnixMillis;
use crate::control::view::{DeadLetter, Delivery, FailedDelivery, RejectedRow};

/// A delivery that was committed, or one that failed.
#[derive(Debug)]
pub enum Listed {
    Failed(Box<FailedDelivery>),
    Committed(Box<Delivery>),
}

impl Listed {
    /// When it was received.
    pub fn received(&self) -> UnixMillis {
        match self {
            Self::Failed(one) => one.received,
            Self::Committed(one) => one.received,
        }
    }
}

/// A table of deliveries. Why one failed is another table: [`failed`].
pub fn deliveries(screen: &mut Screen<'_>, items: &[Listed]) -> io::Result<()> {
    let now = UnixMillis::now();
    let committed = |delivery: &Delivery| {
        let rows = delivery.rows;
        vec![
            delivery.id.clone(),
            delivery.standing.name().to_owned(),
            between(delivery.received, now),
            number(delivery.rows_in),
            number(rows.delivered),
            number(rows.waiting + rows.in_flight),
            number(rows.unchanged),
            number(rows.rejected),
            number(rows.dead + rows.damaged),
            number(rows.cancelled),
            left(delivery.seconds_left),
            delivery.title.clone(),
        ]
    };
    let failed = |delivery: &FailedDelivery| {
        let mut cells = vec![
            delivery.id.clone(),
            delivery.state.clone(),
            between(delivery.received, now),
            number(delivery.rows),
        ];
        cells.resize_with(11, dash);
        cells.push(delivery.title.clone());
        cells
    };
    let cells = items.iter().map(|one| match one {
        Listed::Committed(delivery) => committed(delivery),
        Listed::Failed(delivery) => failed(delivery),
    });
    let rows: Vec<_> = cells.collect();
    let head = [
        "#ID",
        "*STATE",
        ">AGE",
        ">ROWS",
        "?>DELIVERED",
        "?>WAITING",
        "?>UNCHANGED",
        "?>REJECTED",
        "?>DEAD",
        "?>CANCELLED",
        "?>LEFT",
        "~TITLE",
    ];
    screen.table(&head, &rows, "There are no deliveries.")
}

/// What is done about a failed delivery, in few words.
fn again(delivery: &FailedDelivery, now: UnixMillis) -> String {
    if let Some(of) = &delivery.repeat_of {
        return format!("try {} of another", of.number);
    }
    let Some(again) = &delivery.again else {
        return dash();
    };
    let tries = format!("{} of {}", again.count, again.most);
    match (again.state.as_str(), again.next) {
        ("waiting", Some(next)) if next > now => {
            format!("asked {tries}, next in {}", between(now, next))
        }
        ("waiting", _) => format!("asked {tries}, next when it can be"),
        ("asking" | "asked", _) => format!("asked {tries}, not come yet"),
        ("done", _) => format!("done at try {}", again.count),
        ("given_up", _) => format!("given up, asked {}", again.count),
        _ => "called off".to_owned(),
    }
}

/// A table of deliveries that failed.
pub fn failed(screen: &mut Screen<'_>, items: &[FailedDelivery]) -> io::Result<()> {
    let now = UnixMillis::now();
    let cells = |delivery: &FailedDelivery| {
        vec![
            delivery.id.clone(),
            between(delivery.ended, now),
            delivery.reason.clone(),
            number(delivery.rows),
            again(delivery, now),
            delivery.title.clone(),
            delivery.message.clone(),
        ]
    };
    let rows: Vec<_> = items.iter().map(cells).collect();
    let head = ["#ID", ">AGE", "REASON", ">ROWS", "?AGAIN", "~TITLE", "~WHY"];
    screen.table(&head, &rows, "No delivery has failed.")
}

/// A table of dead letters.
pub fn letters(screen: &mut Screen<'_>, items: &[DeadLetter]) -> io::Result<()> {
    let now = UnixMillis::now();
    let cells = |letter: &DeadLetter| {
        vec![
            letter.id.clone(),
            number(letter.rows),
            bytes(letter.bytes),
            letter.attempts.to_string(),
            between(letter.last_try, now),
            letter.title.clone(),
            letter.reason.clone(),
        ]
    };
    let rows: Vec<_> = items.iter().map(cells).collect();
    let head = [
        ">ID", ">ROWS", "?>SIZE", "?>TRIES", ">AGE", "~TITLE", "~REASON",
    ];
    screen.table(&head, &rows, "There are no dead letters.")
}

/// One dead letter, with its batch.
pub fn letter(screen: &mut Screen<'_>, letter: &DeadLetter) -> io::Result<()> {
    let now = UnixMillis::now();
    let DeadLetter {
        delivery, title, ..
    } = letter;
    screen.line(&format!("Dead letter  {}", letter.id))?;
    screen.line(&format!("Delivery     {delivery} {title}"))?;
    screen.line(&format!("Reason       {}", letter.reason))?;
    screen.line(&format!(
        "Sent         {} time{}, first {} and last {} ago",
        letter.attempts,
        if letter.attempts == 1 { "" } else { "s" },
        between(letter.first_try, now),
        between(letter.last_try, now),
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
    let none = "No rows were rejected, or none of them were kept.";
    screen.table(&[">ROW", "~REASON", "~TEXT"], &rows, none)
}
