//! Notes, accounts, and what is sealed for other daemons to open.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::columns::column;
use super::columns::count;
use super::columns::read_id;
use super::daemon::database;
use super::handle::SharedOutbox;
use super::session::{Sessions, Tries};
use crate::model::DestinationId;
use crate::outbox::error::Error;
use crate::outbox::note::{MOST_NOTES, Note, NoteKey};
use crate::seal::KeyId;

const NOTING: &str = "a note could not be written";

impl SharedOutbox {
    /// Every note that there is, in the order of destinations and topics.
    ///
    /// # Errors
    /// The server cannot be asked.
    pub fn notes(&self) -> Result<Vec<Note>, Error> {
        let inner = Arc::clone(&self.inner);
        self.run(async move {
            let sql = "SELECT destination, topic, text FROM looker_feed.note
                 ORDER BY destination, topic";
            let rows = inner.read("notes could not be read", sql, &[]).await?;
            rows.iter()
                .map(|row| {
                    let destination = DestinationId(read_id(row, "destination")?);
                    let topic = column::<i16>(row, "topic")? as u8;
                    let text: Vec<u8> = column(row, "text")?;
                    Ok(((destination, topic), text.into()))
                })
                .collect()
        })
    }

    /// Writes a note, in the place of one with the same name, or removes it (`None`).
    ///
    /// # Errors
    /// The note is too long, there are too many, or the server cannot be asked.
    pub fn note(&self, key: NoteKey, text: Option<&[u8]>) -> Result<(), Error> {
        let inner = Arc::clone(&self.inner);
        let text = text.map(<[u8]>::to_vec);
        self.run(async move {
            let (destination, topic) = (&key.0.0[..], i16::from(key.1));
            let Some(text) = text else {
                let sql = "DELETE FROM looker_feed.note WHERE destination = $1 AND topic = $2";
                let params: super::session::Params<'_> = &[&destination, &topic];
                inner.write(NOTING, sql, params, Tries::UntilKnown).await?;
                return Ok(());
            };
            let sql = "INSERT INTO looker_feed.note (destination, topic, text)
                 SELECT $1::bytea, $2::int2, $3::bytea
                 WHERE (SELECT count(*) FROM looker_feed.note
                    WHERE (destination, topic) <> ($1, $2)) < $4
                 ON CONFLICT (destination, topic) DO UPDATE SET text = excluded.text
                 RETURNING 1";
            let params: super::session::Params<'_> =
                &[&destination, &topic, &text, &(MOST_NOTES as i64)];
            let rows = inner.write(NOTING, sql, params, Tries::UntilKnown).await?;
            if rows.is_empty() {
                return Err(Error::TooLarge {
                    what: "the number of notes",
                    limit: MOST_NOTES,
                });
            }
            Ok(())
        })
    }

    /// Shows `reseal` every sealed account and puts what comes back in its place; `None` leaves it as
    /// it is. Returns how many were replaced.
    ///
    /// # Errors
    /// The server cannot be asked; the call can be made again.
    pub fn reseal_accounts(
        &self,
        mut reseal: impl FnMut(DestinationId, &[u8]) -> Option<Vec<u8>>,
    ) -> Result<usize, Error> {
        let inner = Arc::clone(&self.inner);
        let accounts = self.run(async move {
            let sql = "SELECT id, account FROM looker_feed.destination WHERE length(account) > 0";
            let rows = inner.read("accounts could not be read", sql, &[]).await?;
            rows.iter()
                .map(|row| Ok((read_id(row, "id")?, column::<Vec<u8>>(row, "account")?)))
                .collect::<Result<Vec<_>, Error>>()
        })?;
        let mut replaced = 0;
        for (id, before) in accounts {
            let Some(after) = reseal(DestinationId(id), &before) else {
                continue;
            };
            let inner = Arc::clone(&self.inner);
            let rows = self.run(async move {
                // Not if a newer one has come in between.
                let sql = "UPDATE looker_feed.destination
                     SET account = $3, version = version + 1
                     WHERE id = $1 AND account = $2 RETURNING 1";
                let params: super::session::Params<'_> = &[&&id[..], &before, &after];
                let doing = "an account could not be resealed";
                inner.write(doing, sql, params, Tries::UntilKnown).await
            })?;
            replaced += rows.len();
        }
        Ok(replaced)
    }

    /// The keys that something here is sealed under, and how many deliveries and letters need each.
    ///
    /// # Errors
    /// The server cannot be asked.
    pub fn needed_keys(&self) -> Result<BTreeMap<KeyId, u64>, Error> {
        let inner = Arc::clone(&self.inner);
        self.run(async move { needed_keys(&inner.sessions, inner.settings.within).await })
    }
}

pub(super) async fn needed_keys(
    sessions: &Sessions,
    within: Duration,
) -> Result<BTreeMap<KeyId, u64>, Error> {
    let sql = "SELECT key, sum(pieces)::int8 AS pieces FROM (
            SELECT d.key, count(*) AS pieces FROM looker_feed.delivery d
                LEFT JOIN looker_feed.progress p ON p.delivery = d.id
                WHERE d.kept > 0 OR p.cleared IS DISTINCT FROM true GROUP BY d.key
            UNION ALL
            SELECT key, count(*) AS pieces FROM looker_feed.letter GROUP BY key) k GROUP BY key";
    let mut needed = BTreeMap::new();
    let rows = sessions.read(sql, &[], within).await;
    for row in rows.map_err(|fault| database("its keys could not be looked up", &fault))? {
        let key: &[u8] = column(&row, "key")?;
        if let Ok(key) = key.try_into() {
            needed.insert(KeyId(key), count(&row, "pieces")?);
        }
    }
    Ok(needed)
}
