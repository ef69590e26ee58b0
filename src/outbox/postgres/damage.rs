//! Losses, named.

use super::daemon::Inner;
use super::session::Tries;
use crate::model::DeliveryId;

impl Inner {
    /// Names a loss, for people: in the log, and for the status page of every daemon. What is lost stands
    /// in the delivery's own row already.
    pub async fn report_damage(&self, delivery: DeliveryId, rows: u64, what: String) {
        let what = format!("{what} is damaged");
        tracing::error!(%delivery, rows, what, "the outbox is damaged; these rows are in doubt");
        let now = self.settings.clock.now().0 as i64;
        let written = self
            .write(
                "a damage could not be written down",
                "INSERT INTO looker_feed.damage (found, delivery, rows, what)
                 VALUES ($1, $2, $3, $4) RETURNING 1",
                &[&now, &&delivery.0[..], &(rows as i64), &what],
                Tries::UntilUnknown,
            )
            .await;
        if let Err(error) = written {
            tracing::warn!(%error, "a damage is in the log only");
        }
    }
}
