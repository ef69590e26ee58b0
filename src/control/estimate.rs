//! Time to finish, from what was measured. Pure.

use super::view::{Delivery, Overview};

/// Slower than one batch in a quarter of an hour is standing still.
const STILL: f64 = 0.001;

/// Fills `seconds_left` of the destinations from their `accepted_rate`.
pub(super) fn destinations(overview: &mut Overview) {
    for destination in &mut overview.destinations {
        destination.seconds_left = time(destination.batches, destination.accepted_rate);
    }
}

/// Fills `seconds_left` of deliveries. `newest_first` must begin with the newest delivery: what
/// waits in a destination, less what came after a delivery, is what must be sent until it is done.
pub(super) fn deliveries(overview: &Overview, newest_first: &mut [Delivery]) {
    let mut ahead: Vec<(&str, u64, f64)> = overview
        .destinations
        .iter()
        .map(|destination| {
            (
                destination.id.as_str(),
                destination.batches,
                destination.accepted_rate,
            )
        })
        .collect();
    for delivery in newest_first {
        let left = batches_left(delivery);
        if left == 0 {
            continue;
        }
        let place = ahead
            .iter_mut()
            .find(|(id, ..)| *id == delivery.destination);
        if let Some((_, batches, rate)) = place {
            delivery.seconds_left = time((*batches).max(left), *rate);
            *batches = batches.saturating_sub(left);
        }
    }
}

/// Batches that wait or fly, from the share of rows that do.
fn batches_left(delivery: &Delivery) -> u64 {
    let rows = delivery.rows;
    let open = rows.waiting + rows.in_flight;
    let mapped = rows.total().saturating_sub(rows.rejected);
    if open == 0 || mapped == 0 {
        return 0;
    }
    let share = open as f64 / mapped as f64;
    (delivery.batches as f64 * share).ceil() as u64
}

fn time(batches: u64, rate: f64) -> Option<u64> {
    (batches > 0 && rate > STILL).then(|| (batches as f64 / rate).ceil() as u64)
}
