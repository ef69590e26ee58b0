//! What can be asked about an outbox.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::clock::UnixMillis;
use crate::model::{DeliveryId, DestinationId};
use crate::outbox::delivery::{DeliveryCursor, DeliveryPage, DeliveryState, Tally};
use crate::outbox::error::Error;
use crate::outbox::local::files::capacity::free_bytes;
use crate::outbox::local::files::read::{ReadFile, sound};
use crate::outbox::local::files::rejected;
use crate::outbox::local::handle::Local;
use crate::outbox::local::state::delivery::Segment;
use crate::outbox::local::state::index::Work;
use crate::outbox::note::NoteKey;
use crate::outbox::rejected::RejectedPage;
use crate::outbox::status::{DestinationState, Title, Usage};
use crate::outbox::webhook::{WebhookKey, WebhookState};

/// Destinations with something to do, in the order of their ids.
pub(in crate::outbox) fn destinations(local: &Local) -> Vec<DestinationState> {
    let index = local.shared.index();
    let mut states: BTreeMap<DestinationId, DestinationState> = BTreeMap::new();
    for (id, queue) in &index.queues {
        let account = index.accounts.get(id);
        let deliveries = queue
            .iter()
            .filter(|(position, _)| !index.is_held(**position))
            .map(|(_, work)| work)
            .filter(|work| !matches!(work, Work::Replay(letters) if letters.is_empty()));
        let state = DestinationState {
            id: *id,
            label: account.map_or_else(String::new, |account| account.label.clone()),
            deliveries: deliveries.count() as u64,
            waiting: Tally::default(),
            in_flight: Tally::default(),
            bytes: 0,
            oldest: None,
            holder: None,
        };
        states.insert(*id, state);
    }
    for (&position, delivery) in &index.deliveries {
        let info = &delivery.row.info;
        if index.is_held(position) {
            continue;
        }
        let (waiting, in_flight) = (delivery.waiting(), delivery.in_flight());
        if waiting == Tally::default() && in_flight == Tally::default() {
            continue;
        }
        if let Some(state) = states.get_mut(&info.destination) {
            state.waiting += waiting;
            state.in_flight += in_flight;
            state.bytes += delivery
                .segments
                .iter()
                .map(|segment| segment.row.summary.bytes)
                .sum::<u64>();
            let received = Some(info.received);
            if state.oldest.is_none() || received < state.oldest {
                state.oldest = received;
            }
            if state.label.is_empty() {
                state.label.push_str(&info.label);
            }
        }
    }
    states.into_values().collect()
}

/// Deliveries behind `after`, the newest first.
pub(in crate::outbox) fn deliveries(
    local: &Local,
    after: Option<DeliveryCursor>,
    limit: usize,
) -> DeliveryPage {
    let index = local.shared.index();
    let until = after.map_or(u64::MAX, |after| after.place);
    let mut older = index.deliveries.range(..until).rev();
    let page: Vec<_> = older.by_ref().take(limit).collect();
    let last = page
        .last()
        .map(|(position, _)| DeliveryCursor::at(**position));
    DeliveryPage {
        deliveries: page
            .iter()
            .map(|(position, delivery)| index.state_of(**position, delivery))
            .collect(),
        next: last.filter(|_| older.next().is_some()),
    }
}

/// The titles of listed deliveries, in alphabetical order. A schedule is known for as long as one
/// of its deliveries is listed.
pub(in crate::outbox) fn titles(local: &Local) -> Vec<Title> {
    let index = local.shared.index();
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
pub(in crate::outbox) fn delivery(local: &Local, id: DeliveryId) -> Option<DeliveryState> {
    let index = local.shared.index();
    index
        .delivery(id)
        .map(|(position, delivery)| index.state_of(position, delivery))
}

/// Rows of a delivery that could not be mapped: at most `limit`, leaving out the first
/// `skip`. `None`: the delivery is not listed. Blocks on the disk.
pub(in crate::outbox) fn rejected(
    local: &Local,
    delivery: DeliveryId,
    after: Option<u64>,
    limit: usize,
) -> Result<Option<RejectedPage>, Error> {
    let Some(state) = self::delivery(local, delivery) else {
        return Ok(None);
    };
    let mut page = RejectedPage {
        total: state.rejected,
        ..RejectedPage::default()
    };
    let shared = &local.shared;
    let skip = after.map_or(0, |after| usize::try_from(after).unwrap_or(usize::MAX));
    let path = shared.layout.rejected(delivery);
    let read = ReadFile::open(&shared.disk, &path)
        .and_then(|file| rejected::read(&file, delivery, &shared.settings.keys, skip, limit));
    match sound(read).map_err(|error| local.unreadable(error))? {
        Some((rows, kept)) => {
            let seen = (skip as u64).saturating_add(limit as u64);
            page.next = (seen < kept).then_some(seen);
            page.rows = rows;
            page.kept = kept;
        }
        // None was kept, or the delivery has left the history in between.
        None => return Ok(self::delivery(local, delivery).map(|_| page)),
    }
    Ok(Some(page))
}

/// How large the outbox is.
pub(in crate::outbox) fn usage(local: &Local) -> Usage {
    let index = local.shared.index();
    let mut usage = Usage {
        bytes: local.shared.capacity.used(),
        free: free_bytes(&local.shared.settings.path),
        receiving: index.receiving.len() as u64,
        set_aside: local.shared.set_aside(),
        deliveries: index.deliveries.len() as u64,
        ..Usage::default()
    };
    usage.held = index.held_deliveries();
    let kept = local.shared.settings.rejected_rows;
    for delivery in index.deliveries.values() {
        let counters = delivery.counters();
        usage.dead_letters += counters.dead;
        usage.cancelled += counters.cancelled;
        let kept = match delivery.row.kept {
            Some(kept) => u64::from(kept),
            None => delivery.row.totals.rows_rejected.min(kept),
        };
        usage.rejected_rows += kept.saturating_sub(counters.erased_rejected);
        usage.entries += delivery
            .segments
            .iter()
            .map(Segment::entries_left)
            .sum::<u64>();
    }
    usage
}

/// Every note that there is.
pub(in crate::outbox) fn notes(local: &Local) -> Vec<(NoteKey, Arc<[u8]>)> {
    let index = local.shared.index();
    let notes = index.notes.iter();
    notes.map(|(key, text)| (*key, Arc::clone(text))).collect()
}

/// What is known of a webhook id.
pub(in crate::outbox) fn webhook(local: &Local, id: &str) -> WebhookState {
    let index = local.shared.index();
    local.shared.webhook_state(&index, WebhookKey::of(id))
}
