//! What a daemon does by itself as long as the outbox is open: it is heard of and renews its leases,
//! and looks twice a second for work and for what people have asked, or once while there is no work.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use tokio::time::{sleep, timeout};

use super::columns::column;
use super::columns::count;
use super::columns::read_id;
use super::commit;
use super::daemon::{BEAT, Inner, MOVER};
use super::held::Held;
use super::lease;
use super::lock::lock;
use super::requests;
use super::session::Tries;
use super::snapshots::leave_schedules;
use crate::model::DestinationId;
use crate::outbox::error::Error;

/// Between two looks, while there is work, and while there is none.
const LOOK: [Duration; 2] = [Duration::from_millis(500), Duration::from_secs(1)];

/// Is heard of, and renews the leases, three times in a lease, until the outbox is closed.
pub(super) async fn beat(inner: Arc<Inner>) {
    let every = inner.settings.lease / 3;
    while !inner.is_closed() {
        // The leases first: they have the shorter time.
        let renewed = lease::renew(&inner).await;
        if renewed.is_err() {
            inner.seen(&renewed);
        }
        let beaten = inner
            .sessions
            .run(
                BEAT,
                &[&&inner.me[..], &inner.settings.name],
                Tries::UntilUnknown,
                every,
            )
            .await
            .map_err(|fault| super::daemon::database("the daemon could not be heard of", &fault))
            .map(drop);
        inner.seen(&renewed.and(beaten));
        inner.closed.run_until_cancelled(sleep(every)).await;
    }
}

/// Looks for work.
pub(super) async fn look(inner: Arc<Inner>) {
    let mut seen = Seen::default();
    loop {
        let is_at_rest = inner.is_at_rest() && inner.held().is_empty();
        let jitter = LOOK[usize::from(is_at_rest)].mul_f64(0.9 + fastrand::f64() / 5.0);
        // Whether it was the time or a nudge makes no difference.
        let _ = timeout(jitter, inner.nudge.notified()).await;
        // All that fails here is met again at the next look; the beat says that the server is away.
        for result in [
            commit::abort_all(&inner).await,
            inner.write_ends().await,
            lease::let_go(&inner).await,
            leave_schedules(&inner).await,
            seen.look(&inner).await,
        ] {
            if let Err(error) = result {
                tracing::debug!(%error, "a look at the outbox failed");
            }
        }
    }
}

const ACTIVE: &str = "SELECT t.id, t.version, t.owner,
        coalesce(t.lease_until > clock_timestamp(), false) AS leased,
        EXISTS (SELECT 1 FROM looker_feed.request r
            WHERE r.destination = t.id AND r.answer IS NULL) AS asked,
        (SELECT count(*) FROM looker_feed.daemon m
            WHERE m.name <> $2 AND NOT m.leaving
            AND m.beat > clock_timestamp() - $1::float8 * interval '1 second') AS daemons
     FROM looker_feed.destination t
     WHERE EXISTS (SELECT 1 FROM looker_feed.progress p WHERE p.destination = t.id AND p.open
            AND NOT p.held)
        OR EXISTS (SELECT 1 FROM looker_feed.request r
            WHERE r.destination = t.id AND r.answer IS NULL)";

/// What the last look saw.
#[derive(Default)]
struct Seen {
    /// Version, and whether it has an owner, of each destination with work.
    active: BTreeMap<DestinationId, (i64, bool)>,
}

impl Seen {
    async fn look(&mut self, inner: &Inner) -> Result<(), Error> {
        let lease = inner.settings.lease.as_secs_f64();
        let rows = inner
            .read("work could not be looked for", ACTIVE, &[&lease, &MOVER])
            .await?;
        let mut active = BTreeMap::new();
        let mut asked = Vec::new();
        let mut daemons = 1;
        for row in &rows {
            let id = DestinationId(read_id(row, "id")?);
            let version: i64 = column(row, "version")?;
            let leased: bool = column(row, "leased")?;
            daemons = count(row, "daemons")?.max(1);
            active.insert(id, (version, leased));
            if column(row, "asked")? {
                asked.push((id, leased));
            }
        }
        *lock(&inner.active) = active.keys().copied().collect();
        self.note_free(inner, &active);
        let held: HashMap<DestinationId, Arc<Held>> = inner.held().clone();
        for (id, held) in &held {
            let version = active.get(id).map(|(version, _)| *version);
            let before = self.active.get(id).map(|(version, _)| *version);
            if version != before {
                held.stale.store(true, Ordering::Release);
            }
        }
        share_out(inner, &held, &active, daemons);
        let changed = active != self.active;
        self.active = active;
        let mut failed = Ok(());
        for (id, leased) in asked {
            // One that cannot be carried out now does not keep the others waiting.
            let done = match held.get(&id).filter(|held| !held.is_lost()) {
                Some(held) => requests::carry_out(inner, held).await,
                None if !leased => carry_out_in_passing(inner, id).await,
                None => Ok(()),
            };
            failed = failed.and(done);
        }
        if changed {
            inner.wake();
        }
        failed
    }

    fn note_free(&self, inner: &Inner, active: &BTreeMap<DestinationId, (i64, bool)>) {
        let mut since = lock(&inner.free_since);
        since.retain(|id, _| active.get(id).is_some_and(|(_, leased)| !leased));
        for (id, (_, leased)) in active {
            if !leased {
                since.entry(*id).or_insert_with(Instant::now);
            }
        }
        if !since.is_empty() {
            // One that was left to others is to be looked at again.
            inner.wake();
        }
    }
}

/// What is asked of a destination that nobody sends to.
async fn carry_out_in_passing(inner: &Inner, id: DestinationId) -> Result<(), Error> {
    let Some(held) = lease::enter(inner, id).await? else {
        return Ok(());
    };
    let done = requests::carry_out(inner, &held).await;
    lease::leave(inner, &held).await.and(done)
}

/// Each daemon aims at its part of the destinations with work, and gives back what it has beyond, one
/// by one.
fn share_out(
    inner: &Inner,
    held: &HashMap<DestinationId, Arc<Held>>,
    active: &BTreeMap<DestinationId, (i64, bool)>,
    daemons: u64,
) {
    let share = match daemons {
        // Alone, it takes what comes at once.
        1 => usize::MAX,
        _ => (active.len() as u64).div_ceil(daemons).max(1) as usize,
    };
    inner.share.store(share, Ordering::Relaxed);
    let mut busy: Vec<&Arc<Held>> = held
        .values()
        .filter(|held| active.contains_key(&held.destination) && !held.is_lost())
        .collect();
    let surplus = busy.len().saturating_sub(share);
    let going = busy
        .iter()
        .filter(|held| held.wanted.load(Ordering::Acquire))
        .count();
    if surplus == 0 {
        busy.iter()
            .for_each(|held| held.wanted.store(false, Ordering::Release));
    } else if going == 0 {
        busy.sort_by_key(|held| held.destination);
        if let Some(held) = busy.last() {
            held.wanted.store(true, Ordering::Release);
            inner.wake();
        }
    }
}
