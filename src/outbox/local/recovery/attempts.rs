//! Deliveries that were being received when the process before ended.

use std::collections::HashSet;
use std::sync::Arc;

use crate::clock::UnixMillis;
use crate::model::DeliveryId;
use crate::outbox::attempt::{AttemptEnd, INTERRUPTED};
use crate::outbox::attempt_row::AttemptRow;
use crate::outbox::local::recovery::work::Recovery;
use crate::outbox::local::state::change::Change;
use crate::outbox::local::state::error::StateError;
use crate::seal::Keyring;

/// Ends what the process before has left without an end, and seals under the current key what is
/// sealed under another. Those in `live` are being received.
pub(in crate::outbox) fn take_up(
    recovery: &mut Recovery<'_>,
    keys: &Keyring,
    live: &HashSet<DeliveryId>,
) -> Result<(), StateError> {
    let mut change = Change::default();
    for row in recovery.index.attempts.values_mut() {
        *row = Arc::new(AttemptRow::clone(row).unseal(keys));
    }
    for (id, row) in &recovery.index.attempts {
        if recovery.index.by_id.contains_key(id) {
            change.drop_attempt(*id);
            continue;
        }
        let mut attempt = row.attempt.clone();
        let interrupted = attempt.end.is_none() && !live.contains(id);
        if interrupted {
            attempt.end = Some(AttemptEnd {
                at: UnixMillis::now(),
                kind: INTERRUPTED,
                rows: 0,
                bytes: 0,
                message: String::new(),
            });
        }
        let old_key = row.opened && !keys.is_current(&row.sealed);
        let mut ended = AttemptRow {
            attempt,
            ..AttemptRow::clone(row)
        };
        if old_key {
            match AttemptRow::seal(ended.attempt.clone(), ended.webhook, keys) {
                Ok(row) => ended = row,
                Err(error) => {
                    tracing::warn!(delivery = %id, %error, "a failed delivery could not be sealed anew");
                }
            }
        }
        if interrupted || old_key {
            change.put_attempt(Arc::new(ended));
        }
    }
    recovery.make(change)
}
