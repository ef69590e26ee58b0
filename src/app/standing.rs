//! How a destination stands: what waits for it in the outbox, and what the drain knows of it.

use std::collections::BTreeMap;

use crate::control::view;
use crate::drain::{Replies, SendState, Snapshot};
use crate::outbox::DestinationState;

pub(super) fn destination(
    state: Option<&DestinationState>,
    snapshot: Option<&Snapshot>,
) -> view::Destination {
    let mut view = view::Destination {
        state: "idle".to_owned(),
        ..view::Destination::default()
    };
    if let Some(state) = state {
        view.id = state.id.to_string();
        view.label.clone_from(&state.label);
        view.deliveries = state.deliveries;
        view.batches = state.waiting.batches + state.in_flight.batches;
        view.rows = state.waiting.rows + state.in_flight.rows;
        view.bytes = state.bytes;
        view.oldest = state.oldest;
    }
    // What this daemon remembers of it is from before another one took it.
    let elsewhere = state.and_then(|state| state.holder.as_ref());
    if let Some(holder) = elsewhere.filter(|holder| !holder.own) {
        view.state = "flowing".to_owned();
        view.why = Some(format!(
            "The daemon {} sends there; its own page says how it goes.",
            holder.name
        ));
        view.sender = Some(holder.name.clone());
        return view;
    }
    let Some(snapshot) = snapshot else {
        return view;
    };
    view.id = snapshot.destination.to_string();
    if view.label.is_empty() {
        view.label.clone_from(&snapshot.label);
    }
    match &snapshot.state {
        SendState::Flowing if view.batches > 0 => view.state = "flowing".to_owned(),
        SendState::Flowing => {}
        SendState::Waiting { until, why } => {
            view.state = "waiting".to_owned();
            view.why = Some(why.clone());
            view.next_try = Some(*until);
        }
        SendState::Paused {
            why,
            probe_at,
            since,
        } => {
            view.state = "paused".to_owned();
            view.why = Some(why.clone());
            view.since = Some(*since);
            view.next_try = *probe_at;
        }
        SendState::Down {
            probe_at,
            why,
            since,
            ..
        } => {
            view.state = "down".to_owned();
            view.why = Some(why.clone());
            view.since = Some(*since);
            view.next_try = Some(*probe_at);
        }
    }
    view.rate = snapshot.rate.unwrap_or(0.0);
    view.heading = snapshot.heading.unwrap_or(0.0);
    view.limit = snapshot.limit.map_or(0.0, f64::from);
    view.in_flight = snapshot.in_flight as u64;
    view.requests_sent = snapshot.record.requests;
    view.batches_sent = snapshot.record.batches;
    view.batches_accepted = snapshot.record.accepted_batches;
    view.replies = replies(&snapshot.record.replies);
    view.last_error.clone_from(&snapshot.record.last_error);
    view.last_success = snapshot.record.last_success;
    let millis =
        |time: Option<std::time::Duration>| time.map_or(0.0, |time| time.as_secs_f64() * 1000.0);
    view.latency_mean_ms = millis(snapshot.latency_mean);
    view.latency_p99_ms = millis(snapshot.latency_p99);
    view
}

fn replies(replies: &Replies) -> BTreeMap<String, u64> {
    [
        ("accepted", replies.accepted),
        ("throttled", replies.throttled),
        ("unavailable", replies.unavailable),
        ("unauthorized", replies.unauthorized),
        ("unexpected", replies.unexpected),
        ("rejected", replies.rejected),
        ("too_large", replies.too_large),
    ]
    .into_iter()
    .map(|(name, count)| (name.to_owned(), count))
    .collect()
}
