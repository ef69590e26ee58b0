//! Which deliveries of the history: by state, schedule, destination, time, and words. Pure.

use super::view::{Delivery, FailedDelivery};
use crate::clock::UnixMillis;

/// What a listed delivery must be like; without any of them, all are listed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// How it stands; of no meaning for one that failed.
    pub state: Option<State>,
    /// The schedule's title, to the letter.
    pub schedule: Option<String>,
    /// The destination's id.
    pub destination: Option<String>,
    /// Received at this time or later.
    pub from: Option<UnixMillis>,
    /// Received before this time.
    pub until: Option<UnixMillis>,
    /// In the title, or the beginning of the id; capitals do not matter.
    pub search: Option<String>,
}

/// How a delivery stands, as a choice in a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// Something of it waits or is being sent.
    Open,
    /// It waits for a person to release it, since its size is unusual.
    Held,
    /// Nothing of it waits: all that follow.
    Done,
    /// All of it that was to be sent has arrived.
    Delivered,
    /// Some of its rows did not arrive: rejected, dead, discarded or damaged.
    Incomplete,
    /// Some of its rows wait in the dead letters.
    DeadLetters,
    /// A person cancelled what was left of it.
    Cancelled,
}

impl Filter {
    /// Whether `delivery` is listed.
    pub fn admits(&self, delivery: &Delivery) -> bool {
        self.state.is_none_or(|state| state.admits(delivery))
            && is(self.destination.as_ref(), &delivery.destination)
            && self.names(&delivery.id, &delivery.title, delivery.received)
    }

    /// The same of one that failed. Where it was to go is not known of all of them.
    pub fn admits_failed(&self, failed: &FailedDelivery) -> bool {
        let destination = failed.destination.as_deref().unwrap_or_default();
        is(self.destination.as_ref(), destination)
            && self.names(&failed.id, &failed.title, failed.received)
    }

    fn names(&self, id: &str, title: &str, received: UnixMillis) -> bool {
        is(self.schedule.as_ref(), title)
            && self.from.is_none_or(|from| received >= from)
            && self.until.is_none_or(|until| received < until)
            && self.search.as_ref().is_none_or(|words| {
                let words = words.trim().to_lowercase();
                id.starts_with(&words) || title.to_lowercase().contains(&words)
            })
    }

    /// Whether what it lists, newest first, holds every open delivery of a destination that it lists
    /// one of.
    pub(super) fn holds_all_open(&self) -> bool {
        matches!(self.state, None | Some(State::Open))
            && self.schedule.is_none()
            && self.from.is_none()
            && self.until.is_none()
            && self.search.is_none()
    }
}

impl State {
    fn admits(self, delivery: &Delivery) -> bool {
        let rows = &delivery.rows;
        let open = matches!(delivery.state.as_str(), "waiting" | "sending");
        let missing = rows.dead + rows.rejected + rows.damaged > 0;
        match self {
            Self::Open => open,
            Self::Held => open && delivery.held,
            Self::Done => !open,
            Self::Delivered => !open && !missing && rows.cancelled == 0,
            Self::Incomplete => !open && missing,
            Self::DeadLetters => delivery.dead_waiting > 0,
            Self::Cancelled => rows.cancelled > 0,
        }
    }
}

fn is(wanted: Option<&String>, found: &str) -> bool {
    wanted.is_none_or(|wanted| wanted == found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::view::Rows;

    fn delivery() -> Delivery {
        Delivery {
            id: "0198f0c0aa".to_owned(),
            title: "Customers, EU (Daily)".to_owned(),
            destination: "d1".to_owned(),
            received: UnixMillis(1_000),
            state: "done".to_owned(),
            rows: Rows {
                delivered: 5,
                dead: 1,
                ..Rows::default()
            },
            dead_waiting: 1,
            ..Delivery::default()
        }
    }

    #[test]
    fn each_condition_holds_alone_and_all_hold_together() {
        let one = delivery();
        assert!(Filter::default().admits(&one));
        fn text(text: &str) -> Option<String> {
            Some(text.to_owned())
        }
        fn at(millis: u64) -> Option<UnixMillis> {
            Some(UnixMillis(millis))
        }
        type Set = fn(&mut Filter);
        let cases: [(Set, bool); 12] = [
            (|f| f.schedule = text("Customers, EU (Daily)"), true),
            (|f| f.schedule = text("Customers"), false),
            (|f| f.destination = text("d1"), true),
            (|f| f.destination = text("d2"), false),
            (|f| f.from = at(1_000), true),
            (|f| f.from = at(1_001), false),
            (|f| f.until = at(1_001), true),
            (|f| f.until = at(1_000), false),
            (|f| f.search = text(" eu (dAILY"), true),
            (|f| f.search = text("0198F0C"), true),
            (|f| f.search = text("98f0c"), false),
            (
                |f| (f.search, f.destination) = (text("eu"), text("d2")),
                false,
            ),
        ];
        for (set, wanted) in cases {
            let mut filter = Filter::default();
            set(&mut filter);
            assert_eq!(filter.admits(&one), wanted, "{filter:?}");
            let failed = FailedDelivery {
                id: one.id.clone(),
                title: one.title.clone(),
                destination: Some(one.destination.clone()),
                received: one.received,
                ..FailedDelivery::default()
            };
            assert_eq!(filter.admits_failed(&failed), wanted, "{filter:?}");
        }
    }

    #[test]
    fn a_failed_delivery_that_is_not_known_to_go_anywhere_is_of_no_destination() {
        let failed = FailedDelivery::default();
        assert!(Filter::default().admits_failed(&failed));
        let of_one = Filter {
            destination: Some("d1".to_owned()),
            ..Filter::default()
        };
        assert!(!of_one.admits_failed(&failed));
    }

    #[test]
    fn states_tell_deliveries_apart() {
        let mut one = delivery();
        let admitted = |one: &Delivery| -> Vec<State> {
            let all = [
                State::Open,
                State::Held,
                State::Done,
                State::Delivered,
                State::Incomplete,
                State::DeadLetters,
                State::Cancelled,
            ];
            all.into_iter().filter(|state| state.admits(one)).collect()
        };
        assert_eq!(
            admitted(&one),
            [State::Done, State::Incomplete, State::DeadLetters]
        );
        one.dead_waiting = 0;
        assert_eq!(admitted(&one), [State::Done, State::Incomplete]);
        one.rows.dead = 0;
        assert_eq!(admitted(&one), [State::Done, State::Delivered]);
        one.rows.cancelled = 2;
        assert_eq!(admitted(&one), [State::Done, State::Cancelled]);
        one.state = "sending".to_owned();
        one.rows.cancelled = 0;
        assert_eq!(admitted(&one), [State::Open]);
        one.held = true;
        assert_eq!(admitted(&one), [State::Open, State::Held]);
    }
}
