//! What can be asked about an outbox.

use std::collections::BTreeMap;
use std::fs::File;
use std::sync::Arc;

use super::Outbox;
use super::capacity::free_bytes;
use super::delivery::{DeliveryState, Tally};
use super::error::Error;
use super::index::Work;
use super::rejected::{self, RejectedPage};
use crate::clock::UnixMillis;
use crate::model::{DeliveryId, DestinationId};

/// Whether the outbox can do its work.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Health {
    /// It can.
    Ok,
    /// A sync or a write of the state failed; it is tried again at least every five seconds.
    RefusingWrites {
        /// When that was.
        since: UnixMillis,
        /// What failed.
        what: Arc<str>,
    },
}

/// A loss, or what may be one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damage {
    /// Whose rows; `None`: not of one delivery.
    pub delivery: Option<DeliveryId>,
    /// How many rows are in doubt.
    pub rows: u64,
    /// What is damaged.
    pub what: String,
    /// When it was found.
    pub found: UnixMillis,
}

impl Damage {
    pub(super) fn of_state(what: String) -> Self {
        Self {
            delivery: None,
            rows: 0,
            what,
            found: UnixMillis::now(),
        }
    }
}

/// What waits for one destination.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DestinationState {
    /// Which.
    pub id: DestinationId,
    /// The destination for people.
    pub label: String,
    /// Turns in the queue: deliveries, and replays of dead letters.
    pub deliveries: u64,
    /// Not claimed yet.
    pub waiting: Tally,
    /// Claimed.
    pub in_flight: Tally,
    /// Size of the segment files that still have work.
    pub bytes: u64,
    /// When the oldest delivery that waits began.
    pub oldest: Option<UnixMillis>,
}

/// The deliveries of one title that are listed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Title {
    /// The title, as it came.
    pub title: String,
    /// How many deliveries of it are listed.
    pub deliveries: u64,
    /// When the newest of them began.
    pub newest: UnixMillis,
}

/// What was found damaged and is kept for a person. It is never removed by the outbox, and not
/// counted in [`Usage::bytes`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SetAside {
    /// Files.
    pub files: u64,
    /// Bytes of them.
    pub bytes: u64,
}

/// How large the outbox is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Bytes held on the disk.
    pub bytes: u64,
    /// Bytes free on the disk; `None`: the system does not say.
    pub free: Option<u64>,
    /// Entries that have not settled.
    pub entries: u64,
    /// Batches and rows in the dead letters.
    pub dead_letters: Tally,
    /// Deliveries on their way in.
    pub receiving: u64,
    /// Deliveries that are listed.
    pub deliveries: u64,
    /// Rows that could not be mapped, of listed deliveries, as far as they are kept.
    pub rejected_rows: u64,
    /// What is not sent of listed deliveries, since a person cancelled them.
    pub cancelled: Tally,
    /// What was set aside as damaged, as of a minute ago at most.
    pub set_aside: SetAside,
}

impl Outbox {
    /// Destinations with something to do, in the order of their ids.
    pub fn destinations(&self) -> Vec<DestinationState> {
        let index = self.shared.index();
        let mut states: BTreeMap<DestinationId, DestinationState> = BTreeMap::new();
        for (id, queue) in &index.queues {
            let account = index.accounts.get(id);
            let deliveries = queue
                .values()
                .filter(|work| !matches!(work, Work::Replay(letters) if letters.is_empty()));
            let state = DestinationState {
                id: *id,
                label: account.map_or_else(String::new, |account| account.label.clone()),
                deliveries: deliveries.count() as u64,
                waiting: Tally::default(),
                in_flight: Tally::default(),
                bytes: 0,
                oldest: None,
            };
            states.insert(*id, state);
        }
        for delivery in index.deliveries.values() {
            let info = &delivery.row.info;
            let (waiting, in_flight) = (delivery.waiting(), delivery.flight.tally);
            if waiting == Tally::default() && in_flight == Tally::default() {
                continue;
            }
            if let Some(state) = states.get_mut(&info.destination) {
                state.waiting += waiting;
                state.in_flight += in_flight;
                state.bytes += delivery
                    .segments
                    .values()
                    .map(|segment| segment.row.summary.bytes)
                    .sum::<u64>();
                let received = Some(info.received);
                if state.oldest.is_none() || received < state.oldest {
                    state.oldest = received;
                }
                if state.label.is_empty() {
                    state.label.clone_from(&info.label);
                }
            }
        }
        states.into_values().collect()
    }

    /// Deliveries in the order of their commit, the newest first: at most `limit`, leaving out
    /// the first `skip`.
    pub fn deliveries(&self, skip: usize, limit: usize) -> Vec<DeliveryState> {
        let index = self.shared.index();
        let newest = index.deliveries.values().rev();
        newest
            .skip(skip)
            .take(limit)
            .map(|delivery| delivery.state())
            .collect()
    }

    /// The titles of listed deliveries, in alphabetical order. A schedule is known for as long as one
    /// of its deliveries is listed.
    pub fn titles(&self) -> Vec<Title> {
        let index = self.shared.index();
        let mut titles: BTreeMap<&str, (u64, UnixMillis)> = BTreeMap::new();
        for delivery in index.deliveries.values() {
            let info = &delivery.row.info;
            let (count, newest) = titles.entry(&info.title).or_insert((0, info.received));
            *count += 1;
            *newest = (*newest).max(info.received);
        }
        let owned = titles
            .into_iter()
            .map(|(title, (deliveries, newest))| Title {
                title: title.to_owned(),
                deliveries,
                newest,
            });
        owned.collect()
    }

    /// One delivery, while it is listed.
    pub fn delivery(&self, id: DeliveryId) -> Option<DeliveryState> {
        let index = self.shared.index();
        index.delivery(id).map(|(_, delivery)| delivery.state())
    }

    /// Rows of a delivery that could not be mapped: at most `limit`, leaving out the first
    /// `skip`. `None`: the delivery is not listed. Blocks on the disk.
    ///
    /// # Errors
    /// The file that holds them cannot be read.
    pub fn rejected(
        &self,
        delivery: DeliveryId,
        skip: usize,
        limit: usize,
    ) -> Result<Option<RejectedPage>, Error> {
        let Some(state) = self.delivery(delivery) else {
            return Ok(None);
        };
        let mut page = RejectedPage {
            total: state.rejected,
            ..RejectedPage::default()
        };
        let path = self.shared.layout.rejected(delivery);
        match File::open(path).and_then(|file| {
            rejected::read(&file, delivery, &self.shared.settings.keys, skip, limit)
        }) {
            Ok((rows, kept)) => {
                page.rows = rows;
                page.kept = kept;
            }
            // None was kept, or the delivery has left the history in between.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return Ok(self.delivery(delivery).map(|_| page));
            }
            Err(error) => return Err(Error::io("the rejected rows could not be read")(error)),
        }
        Ok(Some(page))
    }

    /// How large the outbox is.
    pub fn usage(&self) -> Usage {
        let index = self.shared.index();
        let mut usage = Usage {
            bytes: self.shared.capacity.used(),
            free: free_bytes(&self.shared.settings.path),
            receiving: index.receiving.len() as u64,
            set_aside: self.shared.set_aside(),
            deliveries: index.deliveries.len() as u64,
            ..Usage::default()
        };
        let kept = self.shared.settings.rejected_rows;
        for delivery in index.deliveries.values() {
            usage.dead_letters += delivery.counters.dead;
            usage.cancelled += delivery.counters.cancelled;
            usage.rejected_rows += delivery.row.totals.rows_rejected.min(kept);
            usage.entries += delivery
                .segments
                .values()
                .map(|segment| {
                    let row = segment.row;
                    u64::from(row.summary.entries.saturating_sub(row.settled_entries))
                })
                .sum::<u64>();
        }
        usage
    }

    /// Whether the outbox can do its work.
    pub fn health(&self) -> Health {
        self.shared.health()
    }

    /// What was found damaged since the outbox was opened, the latest 200. Each was logged as an
    /// error when it was found.
    pub fn damage(&self) -> Vec<Damage> {
        self.shared.damage()
    }
}
