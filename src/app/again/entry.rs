//! A failed delivery that is asked for again.

use crate::again::Journal;
use crate::app::about::About;
use crate::app::keys::open_origin;
use crate::clock::UnixMillis;
use crate::intake::Caller;
use crate::outbox::{Attempt, DeliveryState};
use crate::seal::Keyring;

/// One of the ledger's.
pub(super) struct Entry {
    pub about: About,
    pub title: String,
    pub received: UnixMillis,
    /// When it failed.
    pub ended: UnixMillis,
    /// Which Looker.
    pub instance: usize,
    pub journal: Journal,
    /// As it stands in the outbox.
    pub written: Vec<u8>,
    /// What could not be written, and may stand there all the same.
    pub doubtful: Option<Vec<u8>>,
    /// `journal` is not what stands there.
    pub dirty: bool,
}

impl Entry {
    pub fn new(attempt: &Attempt, about: About, instance: usize, journal: Journal) -> Self {
        let written = attempt.journal.to_vec();
        Self {
            about,
            title: attempt.title.clone(),
            received: attempt.received,
            ended: attempt.end.as_ref().map_or(attempt.received, |end| end.at),
            instance,
            dirty: journal.write() != written && !written.is_empty(),
            journal,
            written,
            doubtful: None,
        }
    }

    /// A delivery of the schedule that was received since then takes its place: since it was received
    /// itself, or since a person asked for it.
    pub fn from(&self) -> UnixMillis {
        match self.is_by_hand() {
            true => self.journal.since,
            false => self.received,
        }
    }

    /// A person has asked for it.
    pub fn is_by_hand(&self) -> bool {
        self.journal.since > self.ended
    }

    /// Whether a request with an unknown plan may be what was asked for: a copy of the schedule has its
    /// title, its content, its query and its data.
    pub fn is_alike(&self, caller: &Caller, data: Option<&str>) -> bool {
        self.title == caller.title
            && unless_different(&self.about.data, &data.map(str::to_owned))
            && unless_different(&self.about.link, &caller.link)
            && unless_different(&self.about.query, &caller.query_id)
    }

    /// Whether a delivery is one of this schedule: by its id, or, since what a person sends by hand
    /// has an id of its own, by all that is known of it.
    pub fn is_of(&self, title: &str, about: &About) -> bool {
        let same = |one: &Option<String>, other: &Option<String>| one.is_some() && one == other;
        same(&self.about.schedule, &about.schedule)
            || (self.title == title
                && same(&self.about.destination, &about.destination)
                && unless_different(&self.about.data, &about.data)
                && unless_different(&self.about.link, &about.link))
    }

    pub fn is_of_the_schedule_of(&self, other: &Self) -> bool {
        self.instance == other.instance && self.is_of(&other.title, &other.about)
    }

    /// Whether a delivery that is listed is one of this schedule, and came later.
    pub fn is_superseded_by(&self, delivery: &DeliveryState, keys: &Keyring) -> bool {
        self.from() <= delivery.received && self.is_of(&delivery.title, &listed(delivery, keys))
    }
}

/// What is known of a delivery that is listed.
pub(super) fn listed(delivery: &DeliveryState, keys: &Keyring) -> About {
    let origin = delivery.link.as_deref();
    About {
        destination: Some(delivery.destination.to_string()),
        ..origin.map_or_else(About::default, |sealed| open_origin(keys, sealed))
    }
}

/// Equal, or one of them is not known.
fn unless_different(one: &Option<String>, other: &Option<String>) -> bool {
    one.is_none() || other.is_none() || one == other
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::app::keys::seal_origin;
    use crate::model::{DeliveryId, DestinationId};
    use crate::outbox::{AttemptEnd, Tally};

    const DESTINATION: DestinationId = DestinationId([9; 16]);

    fn about(schedule: &str, data: &str) -> About {
        About {
            link: Some("https://looker.example.com/looks/7".to_owned()),
            schedule: Some(schedule.to_owned()),
            destination: Some(DESTINATION.to_string()),
            data: Some(data.to_owned()),
            ..About::default()
        }
    }

    fn failed() -> Entry {
        let attempt = Attempt {
            id: DeliveryId([1; 16]),
            title: "Daily".to_owned(),
            about: [].into(),
            received: UnixMillis(100),
            end: Some(AttemptEnd {
                at: UnixMillis(150),
                kind: 1,
                rows: 0,
                bytes: 0,
                message: String::new(),
            }),
            journal: [].into(),
        };
        let settings = crate::again::Settings {
            tries: 4,
            within: std::time::Duration::from_secs(60),
            pause: std::time::Duration::from_secs(1),
            pause_max: std::time::Duration::from_secs(1),
            arrival: std::time::Duration::from_secs(1),
        };
        let journal = Journal::begin(UnixMillis(150), &settings, 0.0);
        Entry::new(&attempt, about("7", "User/Production"), 0, journal)
    }

    fn listed(keys: &Keyring, origin: &About, received: u64) -> DeliveryState {
        DeliveryState {
            erased: Tally::default(),
            held: false,
            id: DeliveryId([2; 16]),
            cursor: "1".parse().unwrap(),
            destination: DESTINATION,
            destination_label: String::new(),
            title: "Daily".to_owned(),
            link: seal_origin(keys, origin),
            received: UnixMillis(received),
            committed: UnixMillis(received + 1),
            rows_in: 1,
            users: 1,
            batches: 1,
            requests: 1,
            waiting: Tally::default(),
            in_flight: Tally::default(),
            delivered: Tally::default(),
            dead: Tally::default(),
            discarded: Tally::default(),
            damaged: Tally::default(),
            cancelled: Tally::default(),
            cancelled_at: None,
            rejected: 0,
            unchanged: 0,
            notes: Vec::new(),
            settled: true,
            finished: None,
        }
    }

    #[test]
    fn only_a_later_delivery_of_the_same_schedule_takes_its_place() {
        let keys = Keyring::ephemeral().unwrap();
        let mut entry = failed();
        let cases = [
            // Sent by hand: another id, and the rest is the same.
            (about("8", "User/Production"), 120, true),
            (about("7", "User/Production"), 99, false),
            // Another schedule of the same Look and title, with other data.
            (about("9", "Event/Production"), 120, false),
            // From before the origin was kept: what is known is the same.
            (About::default(), 120, true),
        ];
        for (origin, received, superseded) in cases {
            let delivery = listed(&keys, &origin, received);
            assert_eq!(
                entry.is_superseded_by(&delivery, &keys),
                superseded,
                "{origin:?} at {received}"
            );
        }
        // What came before a person asked for it is no reason not to ask.
        entry.journal = entry.journal.asked_for(UnixMillis(200));
        for (received, superseded) in [(120, false), (201, true)] {
            let delivery = listed(&keys, &about("7", "User/Production"), received);
            assert_eq!(entry.is_superseded_by(&delivery, &keys), superseded);
        }
    }
}
