//! Webhook ids: Looker's name for one execution, by which a repetition of it is known.

use sha2::{Digest, Sha256};

use crate::model::DeliveryId;

/// What is known of a webhook id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WebhookState {
    /// Never seen, or forgotten by now, or its delivery was aborted.
    Unknown,
    /// Its delivery has begun and not ended.
    Receiving,
    /// Its delivery is durable: the delivery, and its `rows_in`.
    Committed(DeliveryId, u64),
}

/// A webhook id of any length as a key of fixed width. A cryptographic hash, since the ids come
/// from outside and two that collide would lose a delivery.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub(in crate::outbox) struct WebhookKey(pub [u8; 32]);

impl WebhookKey {
    pub fn of(id: &str) -> Self {
        Self(Sha256::digest(id.as_bytes()).into())
    }
}
