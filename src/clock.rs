//! Wall-clock time, read in one place, so that the rooms take it as a value.

use std::time::{SystemTime, UNIX_EPOCH};

use crate::model::DeliveryId;

/// Milliseconds since 1970, UTC.
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    serde::Serialize,
    serde::Deserialize,
)]
#[serde(transparent)]
pub struct UnixMillis(pub u64);

impl UnixMillis {
    /// Now, by the machine's clock. A clock before 1970 reads as 0.
    pub fn now() -> Self {
        let since = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        Self(since.as_millis() as u64)
    }
}

/// A new delivery id: `now` in front, so that ids sort by time, and 80 random bits behind.
///
/// # Errors
/// The operating system gives no random bytes.
pub fn new_delivery_id(now: UnixMillis) -> Result<DeliveryId, getrandom::Error> {
    let mut id = [0; 16];
    getrandom::fill(&mut id[6..])?;
    id[..6].copy_from_slice(&now.0.to_be_bytes()[2..]);
    Ok(DeliveryId(id))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delivery_ids_sort_by_time() {
        let earlier = new_delivery_id(UnixMillis(1_000)).unwrap();
        let later = new_delivery_id(UnixMillis(2_000)).unwrap();
        assert!(earlier < later);
        assert_ne!(
            new_delivery_id(UnixMillis(1)).unwrap(),
            new_delivery_id(UnixMillis(1)).unwrap()
        );
    }
}
