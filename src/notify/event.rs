//! What is told, as JSON and as a sentence.

use serde_json::{Value, json};

use super::Form;
use crate::clock::UnixMillis;
use crate::control::view::{Delivery, Rows};

/// Version of the JSON form; a new one is made when a field changes its meaning or goes.
const VERSION: u32 = 1;
/// Characters of a title or a reason; they come from outside.
const MOST: usize = 300;

/// Something that a person may want to know.
#[derive(Clone, Debug, PartialEq)]
pub struct Event {
    /// When it was seen.
    pub at: UnixMillis,
    /// What it is.
    pub what: What,
}

/// What has happened.
#[derive(Clone, Debug, PartialEq)]
pub enum What {
    /// Nothing of a delivery is left to send.
    Finished(Box<Delivery>),
    /// There are more dead letters than before.
    DeadLetters {
        /// Batches that came since the last message.
        new: u64,
        /// Batches in all.
        all: u64,
    },
    /// Nothing goes to a destination any more.
    Paused {
        /// Its id.
        destination: String,
        /// Its label.
        label: String,
        /// Why.
        why: Option<String>,
    },
    /// Requests go to it again.
    Back {
        /// Its id.
        destination: String,
        /// Its label.
        label: String,
    },
    /// New deliveries are refused, since nothing can be written down.
    Refusing {
        /// Why.
        why: String,
    },
    /// The outbox writes again.
    Writing,
}

impl Event {
    /// The body of a message.
    pub fn body(&self, form: Form) -> String {
        match form {
            Form::Json => self.json().to_string(),
            Form::Slack => json!({ "text": slack(&self.text()) }).to_string(),
        }
    }

    /// Its name in the JSON form.
    pub fn name(&self) -> &'static str {
        match &self.what {
            What::Finished(_) => "delivery_finished",
            What::DeadLetters { .. } => "dead_letters",
            What::Paused { .. } => "destination_paused",
            What::Back { .. } => "destination_back",
            What::Refusing { .. } => "outbox_refusing_writes",
            What::Writing => "outbox_writes_again",
        }
    }

    fn json(&self) -> Value {
        let mut body = json!({
            "version": VERSION,
            "event": self.name(),
            "at": self.at,
            "text": self.text(),
        });
        let more = match &self.what {
            What::Finished(delivery) => ("delivery", facts(delivery)),
            What::DeadLetters { new, all } => ("dead_letters", json!({ "new": new, "all": all })),
            What::Paused {
                destination,
                label,
                why,
            } => (
                "destination",
                json!({ "id": destination, "label": label, "why": why }),
            ),
            What::Back { destination, label } => {
                ("destination", json!({ "id": destination, "label": label }))
            }
            What::Refusing { why } => ("outbox", json!({ "why": why })),
            What::Writing => ("outbox", json!({})),
        };
        if let Some(object) = body.as_object_mut() {
            object.insert(more.0.to_owned(), more.1);
        }
        body
    }

    fn text(&self) -> String {
        match &self.what {
            What::Finished(delivery) => {
                let verb = if delivery.state == "cancelled" {
                    "was cancelled"
                } else {
                    "is finished"
                };
                format!(
                    "looker-feed: “{}” {verb}: {}.",
                    short(&delivery.title),
                    counts(delivery.rows_in, &delivery.rows)
                )
            }
            What::DeadLetters { new, all } => format!(
                "looker-feed: mParticle refused {new} batches for good; {all} dead letters wait to \
                 be looked at."
            ),
            What::Paused { label, why, .. } => format!(
                "looker-feed: sending to {} is paused: {}.",
                short(label),
                short(why.as_deref().unwrap_or("no reason is known"))
            ),
            What::Back { label, .. } => {
                format!("looker-feed: sending to {} goes on.", short(label))
            }
            What::Refusing { why } => format!(
                "looker-feed: the outbox cannot write, and new deliveries are refused: {}.",
                short(why)
            ),
            What::Writing => "looker-feed: the outbox writes again.".to_owned(),
        }
    }
}

/// The numbers, and no notes: those can quote names of columns.
fn facts(delivery: &Delivery) -> Value {
    json!({
        "id": delivery.id,
        "title": delivery.title,
        "link": delivery.link,
        "destination": delivery.destination,
        "destination_label": delivery.destination_label,
        "state": delivery.state,
        "received": delivery.received,
        "finished": delivery.finished,
        "rows_in": delivery.rows_in,
        "rows": delivery.rows,
        "users": delivery.users,
        "batches": delivery.batches,
        "batches_delivered": delivery.batches_delivered,
    })
}

fn counts(rows_in: u64, rows: &Rows) -> String {
    let mut text = format!("{} of {rows_in} rows delivered", rows.delivered);
    for (count, what) in [
        (rows.unchanged, "unchanged"),
        (rows.rejected, "rejected"),
        (rows.dead, "in the dead letters"),
        (rows.cancelled, "cancelled"),
        (rows.damaged, "lost to damage"),
    ] {
        if count > 0 {
            text.push_str(&format!(", {count} {what}"));
        }
    }
    text
}

fn short(text: &str) -> String {
    let plain = |letter: &char| {
        !letter.is_control()
            && !matches!(*letter, '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    let mut cut: String = text.chars().filter(plain).take(MOST).collect();
    if cut.is_empty() {
        cut.push_str("untitled");
    }
    cut
}

/// <https://api.slack.com/reference/surfaces/formatting#escaping>
fn slack(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn finished(title: &str) -> Event {
        let delivery = Delivery {
            title: title.to_owned(),
            state: "done".to_owned(),
            rows_in: 10,
            rows: Rows {
                delivered: 7,
                rejected: 1,
                dead: 2,
                ..Rows::default()
            },
            notes: vec!["a note".to_owned()],
            ..Delivery::default()
        };
        Event {
            at: UnixMillis(5),
            what: What::Finished(Box::new(delivery)),
        }
    }

    #[test]
    fn a_finished_delivery_is_told_with_its_counts() {
        let body: Value = serde_json::from_str(&finished("Daily").body(Form::Json)).unwrap();
        assert_eq!(body["event"], "delivery_finished");
        assert_eq!(body["delivery"]["rows"]["delivered"], 7);
        assert_eq!(body["delivery"].get("notes"), None);
        assert_eq!(
            body["text"],
            "looker-feed: “Daily” is finished: 7 of 10 rows delivered, 1 rejected, 2 in the dead letters."
        );
    }

    #[test]
    fn a_title_cannot_call_everybody_or_hide_the_text() {
        let body = finished("<!channel>\u{202e}\n&").body(Form::Slack);
        let body: Value = serde_json::from_str(&body).unwrap();
        let text = body["text"].as_str().unwrap();
        assert!(text.contains("“&lt;!channel&gt;&amp;”"), "{text}");
        let long = finished(&"x".repeat(100_000)).body(Form::Slack);
        assert!(long.len() < 1_000, "{}", long.len());
    }
}
