//! Time to finish of destinations and deliveries. Pure.

use super::outlook::Outlook;
use super::speeds::Speeds;
use super::view::{Delivery, Overview};

/// Fills `seconds_left` of the destinations; their `accepted_rate` must be filled.
pub(super) fn destinations(overview: &mut Overview, speeds: &Speeds) {
    for destination in &mut overview.destinations {
        let outlook = speeds.outlook(destination, overview.now);
        destination.seconds_left = whole(outlook.seconds(destination.batches));
    }
}

/// Fills `seconds_left` of deliveries. `newest_first` must hold every open delivery of a destination
/// from the newest on: what waits in a destination, less what came after a delivery, is what must
/// be sent until it is done. What is held waits for a person: nothing waits for it, and it is none of
/// its destination's batches.
pub(super) fn deliveries(overview: &Overview, speeds: &Speeds, newest_first: &mut [Delivery]) {
    let ahead = overview.destinations.iter().map(|destination| {
        let outlook = speeds.outlook(destination, overview.now);
        (destination.id.as_str(), destination.batches, outlook)
    });
    let mut ahead: Vec<(&str, u64, Outlook)> = ahead.collect();
    for delivery in newest_first {
        let left = batches_left(delivery);
        if left == 0 || delivery.held {
            continue;
        }
        let mut places = ahead.iter_mut();
        let place = places.find(|(id, ..)| *id == delivery.destination);
        if let Some((_, batches, outlook)) = place {
            delivery.seconds_left = whole(outlook.seconds((*batches).max(left)));
            *batches = batches.saturating_sub(left);
        }
    }
}

/// Batches that wait or fly, from the share of rows that do.
fn batches_left(delivery: &Delivery) -> u64 {
    let rows = delivery.rows;
    let open = rows.waiting + rows.in_flight;
    let mapped = rows.total().saturating_sub(rows.rejected + rows.unchanged);
    if open == 0 || mapped == 0 {
        return 0;
    }
    let share = open as f64 / mapped as f64;
    (delivery.batches as f64 * share).ceil() as u64
}

fn whole(seconds: Option<f64>) -> Option<u64> {
    seconds.map(|seconds| seconds.ceil() as u64)
}
