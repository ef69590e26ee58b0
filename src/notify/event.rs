//! What is told, as JSON and as a sentence.

use serde_json::{Value, json};
use url::Url;

use super::Form;
use crate::clock::UnixMillis;
use crate::control::health::{count, sentence};
use crate::control::view::{Delivery, FailedDelivery, Rows, Standing};
use crate::harmless::is_harmful;

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
    /// A delivery failed, and none of it was sent.
    Failed(Box<FailedDelivery>),
    /// Looker was asked to run a failed delivery again.
    AskedAgain(Box<FailedDelivery>),
    /// A failed delivery is not asked for any more, and did not come.
    GivenUp(Box<FailedDelivery>),
    /// A delivery is held until somebody releases it.
    Held(Box<Delivery>),
    /// There are more dead letters than before.
    DeadLetters {
        /// Batches that came since the last message.
        new: u64,
        /// Batches in all.
        all: u64,
    },
    /// Deliveries of which nothing is left to send and nothing was lost, together.
    Digest(Digest),
    /// Nothing goes to a destination any more.
    Paused(Trouble),
    /// A destination has not answered for a while.
    Down(Trouble),
    /// Requests go to it again.
    Back(Trouble),
    /// New deliveries are refused, since nothing can be written down.
    Refusing {
        /// Why.
        why: String,
    },
    /// The outbox writes again.
    Writing,
}

/// A destination to which nothing goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trouble {
    /// Its id.
    pub destination: String,
    /// Its label.
    pub label: String,
    /// Why.
    pub why: Option<String>,
    /// When it was paused or went down.
    pub since: UnixMillis,
}

/// Good deliveries of some time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Digest {
    /// When the first of them was seen.
    pub since: UnixMillis,
    /// How many.
    pub deliveries: u64,
    /// Their rows.
    pub rows: u64,
}

/// How soon somebody should look.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// Good to know.
    Info,
    /// Somebody should look today.
    Warning,
    /// Deliveries stand still until somebody acts.
    Critical,
}

impl Severity {
    fn name(self) -> &'static str {
        match self {
            Self::Info => "info",
            Self::Warning => "warning",
            Self::Critical => "critical",
        }
    }
}

impl Event {
    /// Every name that there is.
    pub const NAMES: [&str; 12] = [
        "delivery_finished",
        "delivery_failed",
        "delivery_held",
        "delivery_asked_again",
        "delivery_given_up",
        "deliveries_digest",
        "dead_letters",
        "destination_paused",
        "destination_down",
        "destination_back",
        "outbox_refusing_writes",
        "outbox_writes_again",
    ];

    /// The body of a message. `page`: where people reach the status page.
    pub fn body(&self, form: Form, page: Option<&Url>) -> String {
        let link = page.and_then(|page| self.link(page));
        match form {
            Form::Json => self.json(link).to_string(),
            Form::Slack => {
                let text = slack(&self.text());
                let text = link.map_or_else(|| text.clone(), |link| format!("{text} {link}"));
                json!({ "text": text }).to_string()
            }
        }
    }

    /// How soon somebody should look.
    pub fn severity(&self) -> Severity {
        match &self.what {
            What::Finished(delivery) if is_good(delivery) => Severity::Info,
            What::AskedAgain(_) | What::Digest(_) | What::Back(_) | What::Writing => Severity::Info,
            What::GivenUp(_) | What::Paused(_) | What::Refusing { .. } => Severity::Critical,
            What::Finished(_) | What::Failed(_) | What::Held(_) => Severity::Warning,
            What::DeadLetters { .. } | What::Down(_) => Severity::Warning,
        }
    }

    /// The title of the schedule that it is about, if it is about one.
    pub fn schedule(&self) -> Option<&str> {
        match &self.what {
            What::Finished(delivery) | What::Held(delivery) => Some(&delivery.title),
            What::Failed(delivery) | What::AskedAgain(delivery) | What::GivenUp(delivery) => {
                Some(&delivery.title)
            }
            _ => None,
        }
    }

    fn link(&self, page: &Url) -> Option<Url> {
        let path = match &self.what {
            What::Finished(delivery) | What::Held(delivery) => {
                format!("deliveries/{}", delivery.id)
            }
            What::Digest(_) => "deliveries".to_owned(),
            What::Failed(_) | What::AskedAgain(_) | What::GivenUp(_) => {
                "failed-deliveries".to_owned()
            }
            What::DeadLetters { .. } => "dead-letters".to_owned(),
            What::Paused(_) | What::Down(_) | What::Back(_) => "destinations".to_owned(),
            What::Refusing { .. } | What::Writing => String::new(),
        };
        let mut link = page.clone();
        let segments = path.split('/').filter(|segment| !segment.is_empty());
        link.path_segments_mut()
            .ok()?
            .pop_if_empty()
            .extend(segments);
        if let What::Failed(one) | What::AskedAgain(one) | What::GivenUp(one) = &self.what {
            link.query_pairs_mut().append_pair("id", &one.id);
        }
        Some(link)
    }

    /// Its name in the JSON form.
    pub fn name(&self) -> &'static str {
        match &self.what {
            What::Finished(_) => "delivery_finished",
            What::Failed(_) => "delivery_failed",
            What::Held(_) => "delivery_held",
            What::AskedAgain(_) => "delivery_asked_again",
            What::GivenUp(_) => "delivery_given_up",
            What::DeadLetters { .. } => "dead_letters",
            What::Digest(_) => "deliveries_digest",
            What::Paused(_) => "destination_paused",
            What::Down(_) => "destination_down",
            What::Back(_) => "destination_back",
            What::Refusing { .. } => "outbox_refusing_writes",
            What::Writing => "outbox_writes_again",
        }
    }

    fn json(&self, link: Option<Url>) -> Value {
        let mut body = json!({
            "version": VERSION,
            "event": self.name(),
            "at": self.at,
            "severity": self.severity().name(),
            "text": self.text(),
            "page": link.as_ref().map(Url::as_str),
        });
        let more = match &self.what {
            What::Finished(delivery) | What::Held(delivery) => ("delivery", facts(delivery)),
            What::Failed(delivery) | What::AskedAgain(delivery) | What::GivenUp(delivery) => {
                ("delivery", failure(delivery))
            }
            What::DeadLetters { new, all } => ("dead_letters", json!({ "new": new, "all": all })),
            What::Paused(one) | What::Down(one) | What::Back(one) => {
                let mut facts = json!({ "id": one.destination, "label": one.label });
                if !matches!(self.what, What::Back(_)) {
                    facts["why"] = json!(one.why);
                }
                if !matches!(self.what, What::Paused(_)) {
                    facts["since"] = json!(one.since);
                }
                ("destination", facts)
            }
            What::Digest(Digest {
                since,
                deliveries,
                rows,
            }) => (
                "digest",
                json!({ "since": since, "deliveries": deliveries, "rows": rows }),
            ),
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
                let verb = match Standing::of(delivery, None) {
                    Standing::Cancelled => "was cancelled",
                    Standing::Incomplete => "is finished, but not all of it arrived",
                    _ => "is finished",
                };
                format!(
                    "looker-feed: “{}” {verb}: {}.",
                    short(&delivery.title),
                    counts(delivery.rows_in, &delivery.rows)
                )
            }
            What::Held(delivery) => format!(
                "looker-feed: “{}” is held, since {} are unusual for it. Nothing of it is sent before it is released.",
                short(&delivery.title),
                count(delivery.rows_in, "row", "rows")
            ),
            What::Failed(delivery) => format!(
                "looker-feed: “{}” failed, and none of it was sent: {}",
                short(&delivery.title),
                short(&delivery.message)
            ),
            What::AskedAgain(delivery) => {
                let again = delivery.again.as_ref();
                format!(
                    "looker-feed: Looker is asked for “{}” again, try {} of {}.",
                    short(&delivery.title),
                    again.map_or(1, |again| again.count),
                    again.map_or(1, |again| again.most),
                )
            }
            What::GivenUp(delivery) => format!(
                "looker-feed: “{}” failed and is given up; send it from Looker: {}",
                short(&delivery.title),
                short(
                    delivery
                        .again
                        .as_ref()
                        .and_then(|again| again.why.as_deref())
                        .unwrap_or(&delivery.message)
                )
            ),
            What::Digest(digest) => format!(
                "looker-feed: {} with {} arrived whole in the last {}.",
                count(digest.deliveries, "delivery", "deliveries"),
                count(digest.rows, "row", "rows"),
                span(digest.since, self.at)
            ),
            What::DeadLetters { new, all } => format!(
                "looker-feed: mParticle refused {} for good; {} to be looked at.",
                count(*new, "batch", "batches"),
                count(*all, "dead letter waits", "dead letters wait"),
            ),
            What::Paused(one) => format!(
                "looker-feed: sending to {} is paused until somebody acts. {}",
                short(&one.label),
                reason(one.why.as_deref())
            ),
            What::Down(one) => format!(
                "looker-feed: {} has not answered for {}; nothing is lost, and it is tried again \
                 by itself. {}",
                short(&one.label),
                span(one.since, self.at),
                reason(one.why.as_deref())
            ),
            What::Back(one) => format!(
                "looker-feed: sending to {} goes on, after {}.",
                short(&one.label),
                span(one.since, self.at)
            ),
            What::Refusing { why } => format!(
                "looker-feed: the outbox cannot write, and new deliveries are refused. {}",
                reason(Some(why))
            ),
            What::Writing => "looker-feed: the outbox writes again.".to_owned(),
        }
    }
}

/// Nothing of it waits for a person, and nothing was lost.
pub(super) fn is_good(delivery: &Delivery) -> bool {
    !matches!(Standing::of(delivery, None), Standing::Incomplete)
}

fn reason(why: Option<&str>) -> String {
    sentence(&short(why.unwrap_or("No reason is known")))
}

/// The time between, in the largest unit that tells it.
fn span(since: UnixMillis, now: UnixMillis) -> String {
    let seconds = now.0.saturating_sub(since.0) / 1000;
    match seconds {
        0..120 => count(seconds, "second", "seconds"),
        120..7_200 => count(seconds / 60, "minute", "minutes"),
        7_200..172_800 => count(seconds / 3_600, "hour", "hours"),
        _ => count(seconds / 86_400, "day", "days"),
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

fn failure(delivery: &FailedDelivery) -> Value {
    json!({
        "id": delivery.id,
        "title": delivery.title,
        "link": delivery.link,
        "instance": delivery.instance,
        "schedule": delivery.schedule,
        "state": delivery.state,
        "received": delivery.received,
        "ended": delivery.ended,
        "reason": delivery.reason,
        "passing": delivery.passing,
        "message": short(&delivery.message),
        "rows": delivery.rows,
        "again": delivery.again,
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
    let mut cut: String = text
        .chars()
        .filter(|letter| !is_harmful(*letter))
        .take(MOST)
        .collect();
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
        let body: Value = serde_json::from_str(&finished("Daily").body(Form::Json, None)).unwrap();
        assert_eq!(body["event"], "delivery_finished");
        assert_eq!(body["delivery"]["rows"]["delivered"], 7);
        assert_eq!(body["delivery"].get("notes"), None);
        assert_eq!(
            body["text"],
            "looker-feed: “Daily” is finished, but not all of it arrived: 7 of 10 rows delivered, 1 rejected, 2 in the dead letters."
        );
    }

    #[test]
    fn a_message_has_a_severity_and_leads_to_its_page() {
        let page: Url = "https://feed.example.com/admin".parse().unwrap();
        let mut event = finished("Daily");
        if let What::Finished(delivery) = &mut event.what {
            delivery.id = "0198".to_owned();
        }
        let body: Value = serde_json::from_str(&event.body(Form::Json, Some(&page))).unwrap();
        assert_eq!(body["severity"], "warning");
        assert_eq!(
            body["page"],
            "https://feed.example.com/admin/deliveries/0198"
        );
        let slack = event.body(Form::Slack, Some(&page));
        assert!(
            slack.contains("dead letters. https://feed.example.com/admin/deliveries/0198"),
            "{slack}"
        );

        let at = |what| Event {
            at: UnixMillis(3_600_000),
            what,
        };
        let trouble = Trouble {
            destination: "d".to_owned(),
            label: "us1, key …a605".to_owned(),
            why: Some("status 503".to_owned()),
            since: UnixMillis(2_880_000),
        };
        for (event, text, severity) in [
            (
                at(What::Down(trouble.clone())),
                "looker-feed: us1, key …a605 has not answered for 12 minutes; nothing is lost, and it is tried again by itself. Status 503.",
                Severity::Warning,
            ),
            (
                at(What::Back(trouble.clone())),
                "looker-feed: sending to us1, key …a605 goes on, after 12 minutes.",
                Severity::Info,
            ),
            (
                at(What::Paused(trouble)),
                "looker-feed: sending to us1, key …a605 is paused until somebody acts. Status 503.",
                Severity::Critical,
            ),
            (
                at(What::Digest(Digest {
                    since: UnixMillis(0),
                    deliveries: 520,
                    rows: 1_000,
                })),
                "looker-feed: 520 deliveries with 1000 rows arrived whole in the last 60 minutes.",
                Severity::Info,
            ),
            (
                at(What::DeadLetters { new: 1, all: 1 }),
                "looker-feed: mParticle refused 1 batch for good; 1 dead letter waits to be looked at.",
                Severity::Warning,
            ),
        ] {
            assert_eq!(event.text(), text);
            assert_eq!(event.severity(), severity);
            assert!(Event::NAMES.contains(&event.name()));
        }
    }

    #[test]
    fn a_failed_delivery_is_told_with_its_reason() {
        let failed = Event {
            at: UnixMillis(5),
            what: What::Failed(Box::new(FailedDelivery {
                title: "Daily".to_owned(),
                reason: "cut".to_owned(),
                message: format!("It broke off after 7 rows. {}", "x".repeat(1_000)),
                rows: 7,
                ..FailedDelivery::default()
            })),
        };
        let body: Value = serde_json::from_str(&failed.body(Form::Json, None)).unwrap();
        assert_eq!(body["event"], "delivery_failed");
        assert_eq!(body["delivery"]["reason"], "cut");
        assert_eq!(body["delivery"]["rows"], 7);
        let text = body["text"].as_str().unwrap();
        assert!(
            text.starts_with("looker-feed: “Daily” failed, and none of it was sent: It broke"),
            "{text}"
        );
        assert!(text.len() < 500, "{text}");
    }

    #[test]
    fn a_title_cannot_call_everybody_or_hide_the_text() {
        let body = finished("<!channel>\u{202e}\n&").body(Form::Slack, None);
        let body: Value = serde_json::from_str(&body).unwrap();
        let text = body["text"].as_str().unwrap();
        assert!(text.contains("“&lt;!channel&gt;&amp;”"), "{text}");
        let long = finished(&"x".repeat(100_000)).body(Form::Slack, None);
        assert!(long.len() < 1_000, "{}", long.len());
    }
}
