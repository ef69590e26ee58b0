//! Follows a delivery over the admin API until nothing of it is left to send.

use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::cli::Failure;
use crate::cli::client::{Client, DaemonArgument};
use crate::cli::summary::thousands;
use crate::control::view::{Delivery, Overview};
use crate::harmless::harmless;

/// How often it is looked at.
const TICK: Duration = Duration::from_millis(250);
/// How often a pipe gets a line.
const LINE: Duration = Duration::from_secs(5);

/// Waits, with a bar on a terminal and a line now and then in a pipe. There is no limit: the daemon
/// tries for as long as it takes, and an interrupt ends only the waiting.
pub async fn until_done(daemon: &DaemonArgument, id: &str) -> Result<Delivery, Failure> {
    let client = Client::new(daemon).map_err(|error| Failure::of(&error))?;
    let bar = bar();
    let mut last_line = Instant::now();
    loop {
        let delivery = client.get::<Delivery>(&["deliveries", id], &[]).await;
        let delivery = delivery.map_err(|error| Failure::of(&error))?;
        let rows = &delivery.rows;
        bar.set_length(delivery.rows_in);
        bar.set_position(delivery.rows_in - (rows.waiting + rows.in_flight).min(delivery.rows_in));
        if rows.waiting + rows.in_flight == 0 && !matches!(&*delivery.state, "waiting" | "sending")
        {
            bar.finish_and_clear();
            return Ok(delivery);
        }
        if last_line.elapsed() >= LINE {
            last_line = Instant::now();
            let why = why(&client, &delivery.destination).await;
            if bar.is_hidden() {
                eprintln!("{}{}", summary(&delivery), why.unwrap_or_default());
            } else {
                bar.set_message(why.unwrap_or_default());
            }
        }
        tokio::time::sleep(TICK).await;
    }
}

/// Where the rows are, in a sentence.
pub fn summary(delivery: &Delivery) -> String {
    let rows = &delivery.rows;
    let (delivered, all) = (thousands(rows.delivered), thousands(delivery.rows_in));
    let mut parts = vec![format!("{delivered} of {all} rows delivered")];
    for (count, what) in [
        (rows.waiting + rows.in_flight, "to be sent"),
        (rows.unchanged, "unchanged"),
        (rows.rejected, "rejected"),
        (rows.dead, "in the dead letters"),
        (rows.damaged, "damaged"),
        (rows.cancelled, "cancelled"),
    ] {
        if count > 0 {
            parts.push(format!("{} {what}", thousands(count)));
        }
    }
    parts.join(", ") + "."
}

/// Why the destination waits.
async fn why(client: &Client, destination: &str) -> Option<String> {
    let overview: Overview = client.get(&["overview"], &[]).await.ok()?;
    let mut all = overview.destinations.into_iter();
    let found = all.find(|known| known.id == destination)?;
    found.why.map(|why| format!(" {}", harmless(&why)))
}

/// Hidden where standard error is no terminal.
fn bar() -> ProgressBar {
    let style = ProgressStyle::with_template(
        "delivered {bar:36.cyan/dim} {percent:>3}%  {human_pos:>11} rows  {per_sec:>14}  {elapsed:>4}{msg}",
    )
    .unwrap_or_else(|_| ProgressStyle::default_bar());
    ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr()).with_style(style)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::view::Rows;

    #[test]
    fn the_sentence_names_only_what_there_is() {
        let mut delivery = Delivery {
            rows_in: 1200,
            rows: Rows {
                delivered: 1200,
                ..Rows::default()
            },
            ..Delivery::default()
        };
        assert_eq!(summary(&delivery), "1,200 of 1,200 rows delivered.");
        delivery.rows = Rows {
            delivered: 1000,
            waiting: 100,
            in_flight: 50,
            dead: 30,
            rejected: 20,
            ..Rows::default()
        };
        let want =
            "1,000 of 1,200 rows delivered, 150 to be sent, 20 rejected, 30 in the dead letters.";
        assert_eq!(summary(&delivery), want);
    }
}
