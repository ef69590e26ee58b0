//! The note that an erasure is under way: what is to be erased, in the caller's own form, and which daemon
//! works on it. It is there before anything is erased and goes when all is. Another daemon goes on with it
//! if that one is not heard of any more.

use std::sync::Arc;

use super::columns::column;
use super::handle::SharedOutbox;
use super::session::Tries;
use crate::outbox::error::Error;

const BEGIN: &str = "WITH begun AS (INSERT INTO looker_feed.erasure (one, owner, what)
        VALUES (true, $1, $2) ON CONFLICT (one) DO NOTHING RETURNING 1)
     SELECT 1 FROM begun UNION ALL
     SELECT 1 FROM looker_feed.erasure WHERE owner = $1 AND what = $2";
const TAKE: &str = "UPDATE looker_feed.erasure e SET owner = $1
     WHERE e.owner <> $1 AND NOT EXISTS (SELECT 1 FROM looker_feed.daemon m WHERE m.id = e.owner
        AND m.beat > clock_timestamp() - $2::float8 * interval '1 second') RETURNING e.what";
const READING: &str = "it could not be read whether somebody is being erased";

impl SharedOutbox {
    /// Begins an erasure. `false`: another one is under way.
    pub fn begin_erasure(&self, what: &[u8]) -> Result<bool, Error> {
        let (inner, what) = (Arc::clone(&self.inner), what.to_vec());
        self.run(async move {
            let doing = "an erasure could not be begun";
            let params: super::session::Params<'_> = &[&&inner.me[..], &what];
            let begun = inner.write(doing, BEGIN, params, Tries::UntilKnown).await?;
            Ok(!begun.is_empty())
        })
    }

    /// What is to be erased; `None`: no erasure is under way.
    pub fn pending_erasure(&self) -> Result<Option<Vec<u8>>, Error> {
        let inner = Arc::clone(&self.inner);
        self.run(async move {
            let sql = "SELECT what FROM looker_feed.erasure";
            let rows = inner.read(READING, sql, &[]).await?;
            rows.first().map(|row| column(row, "what")).transpose()
        })
    }

    /// Takes over an erasure whose daemon is not heard of any more; `None`: there is none.
    pub fn take_erasure(&self) -> Result<Option<Vec<u8>>, Error> {
        let inner = Arc::clone(&self.inner);
        self.run(async move {
            let silent = inner.silence();
            let params: super::session::Params<'_> = &[&&inner.me[..], &silent];
            // Not twice: what was taken over without an answer is taken over by the next one.
            let taken = inner.write(READING, TAKE, params, Tries::UntilUnknown);
            let taken = taken.await?;
            taken.first().map(|row| column(row, "what")).transpose()
        })
    }

    /// Ends the erasure that this daemon works on.
    pub fn end_erasure(&self) -> Result<(), Error> {
        let inner = Arc::clone(&self.inner);
        self.run(async move {
            let doing = "an erasure could not be ended";
            let sql = "DELETE FROM looker_feed.erasure WHERE owner = $1 RETURNING 1";
            let params: super::session::Params<'_> = &[&&inner.me[..]];
            inner.write(doing, sql, params, Tries::UntilKnown).await?;
            Ok(())
        })
    }
}
