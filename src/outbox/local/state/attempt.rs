//! What stands in the index while a delivery is being received.

use crate::outbox::attempt::Receiving;
use crate::outbox::webhook::WebhookKey;

/// A delivery in the list of those that are being received.
#[derive(Clone, Debug)]
pub(in crate::outbox) struct Registered {
    pub webhook: Option<WebhookKey>,
    /// Its [`Reservation`], if it has one: title, beginning, counters.
    pub reserved: Option<Receiving>,
    /// A [`Staging`](crate::outbox::Staging) of it is there.
    pub staged: bool,
}

impl Registered {
    /// One that was begun without a reservation.
    pub fn staged(webhook: Option<WebhookKey>) -> Self {
        Self {
            webhook,
            reserved: None,
            staged: true,
        }
    }
}
