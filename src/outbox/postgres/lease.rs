//! Leases: which daemon sends to a destination. A lease is the server's row of it with an owner, an
//! epoch and an end by the server's clock; here it ends earlier, since its time is counted from before
//! it was asked for.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::columns::column;
use super::columns::read_id;
use super::daemon::Inner;
use super::held::Held;
use super::lock::lock;
use super::session::Tries;
use crate::model::DestinationId;
use crate::outbox::error::Error;

/// A destination that has become free is left to daemons with fewer for this part of a lease.
const COURTESY: u32 = 5;

impl Inner {
    /// Whether this daemon should take a destination that may be free: not as long as one with fewer may
    /// come for it.
    pub fn may_take(&self, destination: DestinationId) -> bool {
        if self.held().contains_key(&destination) {
            return true;
        }
        if self.leaving.load(Ordering::Acquire) {
            return false;
        }
        // Of one that nobody has seen with work, none can be waiting for it.
        if !lock(&self.active).contains(&destination) {
            return true;
        }
        let free_since = lock(&self.free_since).get(&destination).copied();
        let courtesy = self.settings.lease / COURTESY;
        let waited = free_since.is_some_and(|since| since.elapsed() >= courtesy);
        waited || self.held().len() < self.share.load(Ordering::Relaxed)
    }
}

const TAKEN: &str = "SELECT 1 FROM looker_feed.destination WHERE id = $1
     AND owner IS NOT NULL AND owner <> $2 AND lease_until >= clock_timestamp()";
const ACQUIRE: &str = "INSERT INTO looker_feed.destination AS t
        (id, label, account, owner, epoch, lease_until)
     VALUES ($1, '', '', $2, 1, clock_timestamp() + $3::float8 * interval '1 second')
     ON CONFLICT (id) DO UPDATE SET owner = excluded.owner, epoch = t.epoch + 1,
        lease_until = excluded.lease_until
     WHERE t.owner IS NULL OR t.owner = $2 OR t.lease_until < clock_timestamp()
     RETURNING epoch, account, CASE WHEN t.handed_epoch = t.epoch - 1 THEN t.handed END AS handed,
        greatest(0, extract(epoch FROM clock_timestamp() - t.handed_at))::float8 AS ago";
const GIVE_BACK: &str = "UPDATE looker_feed.destination d SET owner = NULL, lease_until = NULL,
        handed = s.handed, handed_epoch = s.epoch, handed_at = clock_timestamp()
     FROM unnest($2::bytea[], $3::int8[], $4::bytea[]) AS s(id, epoch, handed)
     WHERE d.id = s.id AND d.epoch = s.epoch AND d.owner = $1 RETURNING d.id";
const RENEW: &str = "UPDATE looker_feed.destination d
     SET lease_until = clock_timestamp() + $4::float8 * interval '1 second'
     FROM unnest($2::bytea[], $3::int8[]) AS s(id, epoch)
     WHERE d.id = s.id AND d.epoch = s.epoch AND d.owner = $1 RETURNING d.id";

/// Takes part in the lease of a destination, which is asked for if this daemon has not got it. Each
/// must be followed by [`leave`].
pub(super) async fn enter(
    inner: &Inner,
    destination: DestinationId,
) -> Result<Option<Arc<Held>>, Error> {
    {
        let held = inner.held();
        if let Some(held) = held.get(&destination).filter(|held| !held.is_lost()) {
            held.users.fetch_add(1, Ordering::AcqRel);
            return Ok(Some(Arc::clone(held)));
        }
        if !lock(&inner.entering).insert(destination) {
            return Ok(None);
        }
    }
    let entered = acquire(inner, destination).await;
    lock(&inner.entering).remove(&destination);
    entered
}

async fn acquire(inner: &Inner, destination: DestinationId) -> Result<Option<Arc<Held>>, Error> {
    // Asking for it locks the row, which the owner renews: so only if it may be free.
    let doing = "the lease of a destination could not be looked at";
    let taken = inner
        .read(doing, TAKEN, &[&&destination.0[..], &&inner.me[..]])
        .await?;
    if !taken.is_empty() {
        return Ok(None);
    }
    let asked = Instant::now();
    let seconds = inner.settings.lease.as_secs_f64();
    let rows = inner
        .write(
            "the lease of a destination could not be taken",
            ACQUIRE,
            &[&&destination.0[..], &&inner.me[..], &seconds],
            Tries::UntilKnown,
        )
        .await?;
    let Some(row) = rows.first() else {
        return Ok(None);
    };
    let account: Vec<u8> = column(row, "account")?;
    let left: Option<Vec<u8>> = column(row, "handed")?;
    let ago: Option<f64> = column(row, "ago")?;
    let ago = Duration::try_from_secs_f64(ago.unwrap_or(0.0)).unwrap_or_default();
    // A try that took long has used the lease up: the end counts from the first, which is the safe
    // side.
    let until = asked + inner.settings.lease;
    let held = Arc::new(Held::new(
        destination,
        column(row, "epoch")?,
        until,
        account.into(),
        left.map(|left| (left, ago)),
    ));
    inner.held().insert(destination, Arc::clone(&held));
    Ok(Some(held))
}

/// The end of [`enter`]: the last one gives the lease back.
pub(super) async fn leave(inner: &Inner, held: &Arc<Held>) -> Result<(), Error> {
    {
        let mut all = inner.held();
        if held.users.fetch_sub(1, Ordering::AcqRel) > 1 {
            return Ok(());
        }
        forget(&mut all, held);
    }
    if held.is_lost() {
        return Ok(());
    }
    held.lose();
    give_back(inner, std::slice::from_ref(held)).await
}

fn forget(all: &mut HashMap<DestinationId, Arc<Held>>, held: &Arc<Held>) {
    if all
        .get(&held.destination)
        .is_some_and(|there| Arc::ptr_eq(there, held))
    {
        all.remove(&held.destination);
    }
}

async fn give_back(inner: &Inner, held: &[Arc<Held>]) -> Result<(), Error> {
    let (ids, epochs) = names(held);
    let left: Vec<_> = held
        .iter()
        .map(|held| held.take_left().map(|(text, _)| text))
        .collect();
    inner
        .write(
            "a lease could not be given back",
            GIVE_BACK,
            &[&&inner.me[..], &ids, &epochs, &left],
            Tries::UntilKnown,
        )
        .await?;
    inner.wake();
    Ok(())
}

fn names(held: &[Arc<Held>]) -> (Vec<&[u8]>, Vec<i64>) {
    held.iter()
        .map(|held| (&held.destination.0[..], held.epoch))
        .unzip()
}

/// Gives back what their holders have let go of.
pub(super) async fn let_go(inner: &Inner) -> Result<(), Error> {
    let going = std::mem::take(&mut *lock(&inner.letting_go));
    for held in going {
        leave(inner, &held).await?;
    }
    Ok(())
}

const RETIRE: &str = "UPDATE looker_feed.daemon SET leaving = true WHERE id = $1 RETURNING 1";

/// Tells the others that this daemon takes no further destinations.
pub(super) async fn retire(inner: &Inner) -> Result<(), Error> {
    inner.leaving.store(true, Ordering::Release);
    let doing = "the daemon could not say that it stops";
    inner
        .write(doing, RETIRE, &[&&inner.me[..]], Tries::UntilKnown)
        .await
        .map(drop)
}

const LEAVE: &str = "DELETE FROM looker_feed.daemon WHERE id = $1 RETURNING 1";

/// Gives everything back, for the end. What this daemon was taking in is aborted by others from then on.
pub(super) async fn give_all_back(inner: &Inner) -> Result<(), Error> {
    let all: Vec<Arc<Held>> = inner.held().drain().map(|(_, held)| held).collect();
    all.iter().for_each(|held| held.lose());
    if !all.is_empty() {
        give_back(inner, &all).await?;
    }
    let doing = "the daemon could not take its leave";
    let left = inner
        .write(doing, LEAVE, &[&&inner.me[..]], Tries::UntilKnown)
        .await;
    left.map(drop)
}

/// Renews all leases by one statement.
pub(super) async fn renew(inner: &Inner) -> Result<(), Error> {
    let all: Vec<Arc<Held>> = inner.held().values().cloned().collect();
    let live: Vec<Arc<Held>> = all.into_iter().filter(|held| !held.is_lost()).collect();
    if live.is_empty() {
        return Ok(());
    }
    let (ids, epochs) = names(&live);
    let asked = Instant::now();
    let seconds = inner.settings.lease.as_secs_f64();
    let rows = inner
        .sessions
        .run(
            RENEW,
            &[&&inner.me[..], &ids, &epochs, &seconds],
            Tries::UntilUnknown,
            inner.settings.lease / 3,
        )
        .await
        .map_err(|fault| super::daemon::database("the leases could not be renewed", &fault))?;
    let mut renewed = HashSet::new();
    for row in &rows {
        renewed.insert(DestinationId(read_id(row, "id")?));
    }
    for held in live {
        if renewed.contains(&held.destination) {
            held.renew(asked + inner.settings.lease);
        } else {
            tracing::warn!(
                destination = %held.destination,
                "another daemon has taken over a destination; what was in flight is left to it"
            );
            held.lose();
            inner.wake();
        }
    }
    Ok(())
}
