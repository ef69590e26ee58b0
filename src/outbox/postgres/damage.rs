//! Losses, named.

use super::columns::{column, count, millis, read_id};
use super::daemon::Inner;
use super::lock::lock;
use super::session::Tries;
use crate::model::DeliveryId;
use crate::outbox::error::Error;
use crate::outbox::status::Damage;

impl Inner {
    /// Names a loss, for people: in the log, and for the status page of every daemon. What is lost stands
    /// in the delivery's own row already.
    pub async fn report_damage(&self, delivery: DeliveryId, rows: u64, what: String) {
        let what = format!("{what} is damaged");
        tracing::error!(%delivery, rows, what, "the outbox is damaged; these rows are in doubt");
        let found = self.settings.clock.now();
        lock(&self.damage).push(Damage {
            delivery: Some(delivery),
            rows,
            what: what.clone(),
            found,
        });
        let now = found.0 as i64;
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

    /// Looks at what all daemons have found, the latest 200.
    pub async fn look_at_damage(&self) -> Result<(), Error> {
        let sql = "SELECT found, delivery, rows, what FROM looker_feed.damage
             ORDER BY found DESC LIMIT 200";
        let mut rows = self.read("damage could not be looked at", sql, &[]).await?;
        rows.reverse();
        let damage = rows
            .iter()
            .map(|row| {
                Ok(Damage {
                    delivery: Some(DeliveryId(read_id(row, "delivery")?)),
                    rows: count(row, "rows")?,
                    what: column(row, "what")?,
                    found: millis(row, "found")?,
                })
            })
            .collect::<Result<Vec<Damage>, Error>>()?;
        *lock(&self.damage) = damage;
        Ok(())
    }
}
