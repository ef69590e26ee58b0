//! Health as one roll-up: header and tiles of the page, `status`, `/readyz`, metrics and callbacks
//! all show this, so that no two of them can disagree. Pure.
//!
//! An [`Issue`] is something that a person may want to know of; its [`Level`] says whether it passes
//! by itself. The daemon's level is that of its worst issue.

use super::issue::{Health, Issue, Kind, Level, Standing};
use super::view::{Delivery, Destination, Overview};

/// The outbox is said to be filling up from this share of its bound on, in percent.
const NEARLY_FULL: u64 = 80;

impl Health {
    /// The roll-up of what was seen at one moment.
    pub fn of(overview: &Overview) -> Self {
        let mut issues = Vec::new();
        outbox(overview, &mut issues);
        for destination in &overview.destinations {
            issues.extend(standing_of(destination));
        }
        failed(overview, &mut issues);
        let dead = overview.outbox.dead_letters;
        if dead > 0 {
            let wait = if dead == 1 { "waits" } else { "wait" };
            let letters = count(dead, "dead letter", "dead letters");
            issues.push(Issue::new(
                Kind::DeadLetters,
                Level::Attention,
                format!("{letters} {wait} for you."),
                "Each was refused by mParticle for good, with the reason. Mend the cause, then \
                 replay; or discard.",
            ));
        }
        let held = overview.outbox.held_deliveries;
        if held > 0 {
            let (wait, text) = match held {
                1 => (
                    "is",
                    "Nothing of it is sent, since its size is unusual. Release it, or cancel it.",
                ),
                _ => (
                    "are",
                    "Nothing of them is sent, since their sizes are unusual. Release them, or cancel them.",
                ),
            };
            let title = format!("{} {wait} held.", count(held, "delivery", "deliveries"));
            let (kind, level) = (Kind::DeliveriesHeld, Level::Attention);
            issues.push(Issue::new(kind, level, title, text));
        }
        issues.sort_by_key(|issue| {
            let rank = Kind::ALL.iter().position(|kind| *kind == issue.kind);
            (std::cmp::Reverse(issue.level), rank)
        });
        let level = issues.first().map_or(Level::Ok, |issue| issue.level);
        let mut health = Self {
            level,
            headline: String::new(),
            issues,
        };
        health.headline = health.sentence(overview);
        health
    }

    fn sentence(&self, overview: &Overview) -> String {
        match (self.level, self.issues.first()) {
            (Level::Failing, _) => "New deliveries are not taken".to_owned(),
            (Level::Attention, _) => {
                let needing = self.for_a_person() as u64;
                let needs = if needing == 1 { "needs" } else { "need" };
                format!("{} {needs} you", count(needing, "thing", "things"))
            }
            (Level::Waiting, Some(issue)) if issue.kind == Kind::DestinationDown => {
                "Waiting for mParticle".to_owned()
            }
            (Level::Waiting, Some(issue)) => issue.title.trim_end_matches('.').to_owned(),
            _ if !overview.receiving.is_empty() => "Receiving".to_owned(),
            _ if overview.destinations.iter().any(|one| one.batches > 0) => "Sending".to_owned(),
            _ if overview.totals.deliveries_accepted == 0 && overview.destinations.is_empty() => {
                "Ready for deliveries".to_owned()
            }
            _ => "Everything is sent".to_owned(),
        }
    }
}

fn outbox(overview: &Overview, issues: &mut Vec<Issue>) {
    let outbox = &overview.outbox;
    let mut add = |kind, level, title: &str, text: String| {
        issues.push(Issue::new(kind, level, title, text));
    };
    // Refused writes are the reason then, and one thing is counted once.
    if let (Some(why), Some(_)) = (&outbox.refusing, &outbox.database) {
        let text = format!(
            "{} Nothing that was accepted is lost. It is tried again by itself, and goes on when the database does.",
            sentence(why)
        );
        let title = "The database of the outbox takes no writes, so new deliveries are refused.";
        add(Kind::OutboxRefusing, Level::Failing, title, text);
    } else if let Some(why) = &outbox.refusing {
        let text = format!(
            "{} Look at the disk; what was accepted is safe, and the outbox tries again by itself.",
            sentence(why)
        );
        let title = "The outbox does not write, so new deliveries are refused.";
        add(Kind::OutboxRefusing, Level::Failing, title, text);
    } else if !overview.ready && overview.not_ready != outbox.unreadable {
        let why = overview.not_ready.as_deref().unwrap_or_default();
        let title = "New deliveries are not taken.";
        add(Kind::NotReady, Level::Failing, title, sentence(why));
    }
    if let Some(what) = &outbox.unreadable {
        let text = format!(
            "{} Look at the disk, at who owns the files, and at the limit of open files. If it stays so, \
             stop the daemon and run `looker-feed outbox salvage`, which saves what can be read.",
            sentence(what)
        );
        let title = "Part of the outbox cannot be read.";
        add(Kind::OutboxUnreadable, Level::Attention, title, text);
    }
    for damage in &outbox.damage {
        let text = format!(
            "{} Stop the daemon and run `looker-feed outbox check`: it says what can be saved.",
            sentence(damage)
        );
        let title = "Something on the disk is damaged.";
        add(Kind::OutboxDamage, Level::Attention, title, text);
    }
    if let Some(max) = outbox.max_bytes
        && outbox.bytes < max
        && outbox.bytes.saturating_mul(100) >= max.saturating_mul(NEARLY_FULL)
    {
        let percent = outbox.bytes.saturating_mul(100) / max.max(1);
        let title = format!("The outbox is {percent}% full.");
        let text = "When it is full, new deliveries are refused until some of it has been sent. \
                    Raise `outbox.max_bytes`, or see why sending is held up."
            .to_owned();
        add(Kind::OutboxNearlyFull, Level::Waiting, &title, text);
    }
}

/// Deliveries that failed, and whether somebody or something mends them.
fn failed(overview: &Overview, issues: &mut Vec<Issue>) {
    let failures = &overview.failures;
    let alone = failures.for_a_person;
    if alone > 0 {
        let title = count(alone, "delivery failed", "deliveries failed") + " of late.";
        let (it, whom) = match alone {
            1 => ("it", "it"),
            _ => ("them", "each"),
        };
        let text = format!(
            "Nothing of {it} was sent, and nobody asks Looker for {it} again. See the reason; then send {whom} \
             again from Looker, or have Looker asked, or dismiss {whom}."
        );
        issues.push(Issue {
            since: failures.since,
            ..Issue::new(Kind::DeliveriesFailed, Level::Attention, title, text)
        });
    }
    let asked: u64 = overview.ask_again.open.values().sum();
    if asked > 0 {
        let title = count(asked, "delivery failed and is", "deliveries failed and are");
        let it = if asked == 1 { "it" } else { "them" };
        let text = format!(
            "Nothing of {it} was sent, and there is nothing to do: Looker is asked to run {it} again."
        );
        let (kind, level) = (Kind::DeliveriesFailed, Level::Waiting);
        issues.push(Issue::new(kind, level, title + " asked for again.", text));
    }
    for looker in &overview.ask_again.lookers {
        let trouble = looker.trouble.as_deref();
        let Some(trouble) = trouble.filter(|_| asked > 0 || looker.refused) else {
            continue;
        };
        let (level, then) = match looker.refused {
            true => (
                Level::Attention,
                "Deliveries come in as ever, but those that fail are not asked for again until the key is \
                 mended.",
            ),
            false => (Level::Waiting, "It is tried again by itself."),
        };
        let title = format!("Looker at {} cannot be asked again.", looker.host);
        let text = format!("{} {then}", sentence(trouble));
        issues.push(Issue::new(Kind::LookerApi, level, title, text));
    }
}

fn standing_of(destination: &Destination) -> Option<Issue> {
    let why = sentence(destination.why.as_deref().unwrap_or_default());
    let label = &destination.label;
    let (kind, level, title, text) = match destination.state.as_str() {
        "paused" => (
            Kind::DestinationPaused,
            Level::Attention,
            format!("Nothing is sent to {label}: it is paused."),
            // One that a person has paused is not tried by itself.
            match destination.next_try {
                None => format!("{why} Nothing is lost. Resume it to go on."),
                Some(_) => format!(
                    "{why} Nothing is lost. Correct the credentials in Looker's action (the next delivery brings \
                     them), or cancel the delivery that is wrong; resume to try at once."
                ),
            },
        ),
        "down" => (
            Kind::DestinationDown,
            Level::Waiting,
            format!("{label} does not answer."),
            format!(
                "{why} Nothing is lost, and there is nothing to do: it is tried again by itself."
            ),
        ),
        _ => return None,
    };
    Some(Issue {
        since: destination.since,
        destination: Some(destination.id.clone()),
        ..Issue::new(kind, level, title, text)
    })
}

impl Standing {
    /// Where `delivery` stands. `destination` is its own, if it is known.
    pub fn of(delivery: &Delivery, destination: Option<&Destination>) -> Self {
        let rows = &delivery.rows;
        if matches!(delivery.state.as_str(), "waiting" | "sending") {
            if delivery.held {
                return Self::Held;
            }
            let state = destination.map_or("", |destination| destination.state.as_str());
            return match state {
                "down" | "paused" => Self::Blocked,
                "waiting" if rows.in_flight == 0 => Self::Blocked,
                _ if delivery.state == "sending" => Self::Sending,
                _ => Self::Queued,
            };
        }
        if rows.cancelled > 0 || delivery.state == "cancelled" {
            Self::Cancelled
        } else if rows.dead + rows.rejected + rows.damaged > 0 {
            Self::Incomplete
        } else {
            Self::Delivered
        }
    }

    /// How bad that is for this delivery.
    pub fn level(self, delivery: &Delivery, destination: Option<&Destination>) -> Level {
        let paused = destination.is_some_and(|destination| destination.state == "paused");
        if delivery.dead_waiting > 0 || delivery.rows.damaged > 0 {
            return Level::Attention;
        }
        match self {
            Self::Held => Level::Attention,
            Self::Blocked if paused => Level::Attention,
            Self::Blocked | Self::Incomplete => Level::Waiting,
            Self::Queued | Self::Sending | Self::Delivered | Self::Cancelled => Level::Ok,
        }
    }
}

/// Fills `standing`, `level` and `blocked` of deliveries from what is known of their destinations.
pub(super) fn deliveries(overview: &Overview, deliveries: &mut [Delivery]) {
    for delivery in deliveries {
        let mut all = overview.destinations.iter();
        let destination = all.find(|one| one.id == delivery.destination);
        delivery.standing = Standing::of(delivery, destination);
        delivery.level = delivery.standing.level(delivery, destination);
        delivery.blocked = match (delivery.standing, destination) {
            (Standing::Blocked, Some(destination)) => Some(blocked(destination)),
            _ => None,
        };
    }
}

/// Why a delivery to this destination does not go on, as a sentence without its moment.
fn blocked(destination: &Destination) -> String {
    let why = destination.why.as_deref().unwrap_or("it is not known why");
    let clause = why.trim_end_matches('.');
    let label = &destination.label;
    match destination.state.as_str() {
        "paused" => format!("Waits until {label} is resumed: {clause}."),
        "down" => format!("Waits for {label}, which does not answer: {clause}."),
        _ => format!("Waits for {label}: {clause}."),
    }
}

/// A clause as a sentence: with a capital letter and a full stop.
pub(crate) fn sentence(clause: &str) -> String {
    let clause = clause.trim();
    let mut letters = clause.chars();
    let Some(first) = letters.next() else {
        return String::new();
    };
    let mut text: String = first.to_uppercase().chain(letters).collect();
    if !text.ends_with(['.', '!', '?', '…']) {
        text.push('.');
    }
    text
}

/// `1 thing`, `2 things`.
pub(crate) fn count(number: u64, one: &str, many: &str) -> String {
    format!("{number} {}", if number == 1 { one } else { many })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::UnixMillis;
    use crate::control::view::{LookerApi, Rows};

    fn destination(state: &str, batches: u64) -> Destination {
        Destination {
            id: format!("id-{state}"),
            label: format!("label-{state}"),
            state: state.to_owned(),
            why: Some("status 503".to_owned()),
            since: Some(UnixMillis(7)),
            batches,
            ..Destination::default()
        }
    }

    fn healthy() -> Overview {
        Overview {
            ready: true,
            destinations: vec![destination("idle", 0)],
            ..Overview::default()
        }
    }

    #[test]
    fn a_healthy_daemon_says_what_it_does() {
        let mut overview = healthy();
        assert_eq!(Health::of(&overview).headline, "Everything is sent");
        overview.destinations = vec![destination("flowing", 3)];
        let health = Health::of(&overview);
        assert_eq!((health.level, &*health.headline), (Level::Ok, "Sending"));
        overview.destinations.clear();
        assert_eq!(Health::of(&overview).headline, "Ready for deliveries");
    }

    #[test]
    fn dead_letters_are_never_quiet() {
        let mut overview = healthy();
        overview.outbox.dead_letters = 18;
        let health = Health::of(&overview);
        assert_eq!(health.level, Level::Attention);
        assert_eq!(health.headline, "1 thing needs you");
        assert_eq!(health.issues[0].title, "18 dead letters wait for you.");
    }

    #[test]
    fn what_needs_a_person_is_counted_once_and_the_most_urgent_comes_first() {
        let mut overview = healthy();
        overview.destinations = vec![
            destination("down", 5),
            destination("paused", 0),
            destination("paused", 9),
        ];
        overview.outbox.dead_letters = 1;
        let health = Health::of(&overview);
        assert_eq!(health.headline, "3 things need you");
        assert_eq!(health.for_a_person(), 3);
        let kinds: Vec<_> = health.issues.iter().map(|issue| issue.kind).collect();
        let paused = Kind::DestinationPaused;
        let want = [paused, paused, Kind::DeadLetters, Kind::DestinationDown];
        assert_eq!(kinds, want);

        // The disk that fails is the reason that nothing is taken: one thing.
        overview.ready = false;
        overview.not_ready = Some("the outbox refuses writes".to_owned());
        overview.outbox.refusing = Some("the disk failed".to_owned());
        let health = Health::of(&overview);
        assert_eq!(health.headline, "New deliveries are not taken");
        assert_eq!(health.for_a_person(), 4);
        assert_eq!(health.issues[0].kind, Kind::OutboxRefusing);
    }

    #[test]
    fn a_failed_delivery_needs_a_person_unless_looker_is_asked_for_it() {
        let mut overview = healthy();
        overview.failures.for_a_person = 2;
        overview.failures.since = Some(UnixMillis(5));
        let health = Health::of(&overview);
        assert_eq!(health.headline, "1 thing needs you");
        assert_eq!(health.issues[0].title, "2 deliveries failed of late.");
        assert_eq!(health.issues[0].since, Some(UnixMillis(5)));
        overview.failures.for_a_person = 0;
        overview.ask_again.open = [("waiting".to_owned(), 1), ("asked".to_owned(), 0)].into();
        let health = Health::of(&overview);
        assert_eq!(health.level, Level::Waiting);
        assert_eq!(health.headline, "1 delivery failed and is asked for again");
        overview.ask_again.open.clear();
        assert_eq!(Health::of(&overview).level, Level::Ok);
    }

    #[test]
    fn a_looker_that_is_down_matters_when_it_is_needed_and_a_wrong_key_always() {
        let mut overview = healthy();
        overview.ask_again.lookers = vec![LookerApi {
            host: "looker.example.com".to_owned(),
            trouble: Some("it answered with status 503".to_owned()),
            ..LookerApi::default()
        }];
        assert_eq!(Health::of(&overview).level, Level::Ok);
        overview.ask_again.open = [("waiting".to_owned(), 1)].into();
        let health = Health::of(&overview);
        assert_eq!((health.level, health.issues.len()), (Level::Waiting, 2));
        overview.ask_again.open.clear();
        overview.ask_again.lookers[0].refused = true;
        let health = Health::of(&overview);
        assert_eq!(health.level, Level::Attention);
        assert_eq!(health.issues[0].kind, Kind::LookerApi);
    }

    #[test]
    fn each_issue_is_whole_sentences() {
        let mut overview = healthy();
        overview.destinations = vec![destination("down", 5), destination("paused", 0)];
        overview.outbox.dead_letters = 1;
        overview.outbox.damage = vec!["a segment is gone".to_owned()];
        overview.outbox.max_bytes = Some(100);
        overview.outbox.bytes = 85;
        overview.not_ready = Some("it is being stopped".to_owned());
        overview.ready = false;
        overview.failures.for_a_person = 1;
        overview.ask_again.open = [("waiting".to_owned(), 3)].into();
        overview.ask_again.lookers = vec![LookerApi {
            host: "looker.example.com".to_owned(),
            trouble: Some("it does not answer".to_owned()),
            ..LookerApi::default()
        }];
        let health = Health::of(&overview);
        assert_eq!(health.issues.len(), 9);
        for issue in &health.issues {
            for text in [&issue.title, &issue.text] {
                assert!(text.ends_with('.') && !text.contains(".."), "{text}");
                let small = text.starts_with(char::is_lowercase);
                assert!(!small || text.starts_with("label"), "{text}");
            }
        }
        let mut issues = health.issues.iter();
        let down = issues.find(|one| one.kind == Kind::DestinationDown);
        let down = down.expect("it is there");
        let words = "Status 503. Nothing is lost";
        assert!(down.text.starts_with(words), "{}", down.text);
        assert_eq!(down.since, Some(UnixMillis(7)));
    }

    #[test]
    fn a_delivery_is_delivered_only_when_all_of_it_arrived() {
        let of = |state: &str, rows: Rows, at: &str| {
            let delivery = Delivery {
                state: state.to_owned(),
                rows,
                dead_waiting: rows.dead,
                ..Delivery::default()
            };
            let destination = destination(at, 1);
            let standing = Standing::of(&delivery, Some(&destination));
            (standing, standing.level(&delivery, Some(&destination)))
        };
        let sent = || Rows {
            delivered: 238,
            ..Rows::default()
        };
        let with = |change: fn(&mut Rows)| {
            let mut rows = sent();
            change(&mut rows);
            rows
        };
        let dead = with(|rows| rows.dead = 62);
        let rejected = with(|rows| rows.rejected = 1);
        let open = with(|rows| rows.waiting = 9);
        let flying = with(|rows| rows.in_flight = 9);
        use Level::{Attention, Waiting};
        use Standing::{Blocked, Cancelled, Delivered, Incomplete, Queued, Sending};
        for (state, rows, at, want, level) in [
            ("done", sent(), "idle", Delivered, Level::Ok),
            ("done", dead, "idle", Incomplete, Attention),
            ("done", rejected, "idle", Incomplete, Waiting),
            ("sending", open, "flowing", Sending, Level::Ok),
            ("sending", open, "down", Blocked, Waiting),
            ("sending", open, "waiting", Blocked, Waiting),
            ("sending", flying, "waiting", Sending, Level::Ok),
            ("waiting", open, "paused", Blocked, Attention),
            ("waiting", open, "flowing", Queued, Level::Ok),
            ("cancelled", sent(), "idle", Cancelled, Level::Ok),
        ] {
            assert_eq!(of(state, rows, at), (want, level), "{state} {at}");
        }
    }
}
