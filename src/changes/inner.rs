//! What deliveries of all schedules have in common: who receives one, how earlier ones ended, and room.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use super::files::{Kind, ScheduleFiles, encode_ids};
use super::reads::Reads;
use super::shared::{self, ScheduleRows};
use super::store::{Left, Store, directory};
use super::{Ending, Ledger, ScheduleKey, Settings};
use crate::clock::UnixMillis;
use crate::model::DeliveryId;
use crate::outbox::{Entered, Snapshots};
use crate::seal::Keyring;

/// Who only looks.
pub(super) const NOBODY: [u8; 16] = [0; 16];
/// Between two looks whether a delivery has come in.
const LOOK: Duration = Duration::from_millis(200);
/// Where daemons share what they know, room is looked for with one of so many looks at what has ended.
const ROOM_EVERY: u64 = 64;

/// What of it only this process knows, held while files are listed, named or removed; `None`: the
/// daemons share it, and the database keeps them apart.
pub(super) type Here<'a> = Option<MutexGuard<'a, State>>;

pub(super) struct Inner {
    pub settings: Settings,
    pub keys: Arc<Keyring>,
    pub reads: Reads,
    pub state: Mutex<State>,
    /// Those that daemons share.
    pub snapshots: Option<Snapshots>,
}

#[derive(Default)]
pub(super) struct State {
    /// Schedules of which a delivery is on its way in.
    busy: HashMap<ScheduleKey, Busy>,
    /// The last loss that was heard of.
    lost: Option<UnixMillis>,
    /// Looks at what has ended.
    looks: u64,
}

struct Busy {
    delivery: DeliveryId,
    /// What was unfinished when it began, if it is the first that is known of its schedule.
    before: Vec<DeliveryId>,
    /// The snapshots it is compared with were dropped meanwhile.
    dropped: bool,
}

/// Somebody in a schedule. Dropping it leaves it.
pub(super) struct InSchedule {
    schedule: ScheduleKey,
    /// `None`: files are kept apart by the lock.
    there: Option<(Snapshots, [u8; 16])>,
}

impl InSchedule {
    /// A delivery has begun: it stays in the schedule until [`Inner::leave`].
    ///
    /// # Errors
    /// It cannot be noted.
    pub fn receive(
        mut self,
        here: &mut Here<'_>,
        delivery: DeliveryId,
        before: Vec<DeliveryId>,
    ) -> io::Result<()> {
        if let Some((snapshots, holder)) = &self.there {
            let noted = snapshots.note(self.schedule.0, *holder, encode_ids(&before));
            noted.map_err(io::Error::other)?;
            self.there = None;
        }
        if let Some(state) = here {
            let busy = Busy {
                delivery,
                before,
                dropped: false,
            };
            state.busy.insert(self.schedule, busy);
        }
        Ok(())
    }
}

impl Drop for InSchedule {
    fn drop(&mut self) {
        if let Some((snapshots, holder)) = &self.there {
            snapshots.leave(self.schedule.0, *holder, false);
        }
    }
}

impl Inner {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What only this process knows, if it is alone.
    pub fn alone_here(&self) -> Here<'_> {
        self.snapshots.is_none().then(|| self.state())
    }

    /// What is kept of a schedule, for who is in it under this name.
    pub fn store(&self, schedule: ScheduleKey, holder: [u8; 16]) -> Store {
        match &self.snapshots {
            None => Store::Files(ScheduleFiles::new(
                directory(&self.settings.directory, schedule),
                self.reads.clone(),
            )),
            Some(snapshots) => Store::Shared(ScheduleRows {
                snapshots: snapshots.clone(),
                schedule,
                holder,
                temporary: self.settings.directory.clone(),
                reads: self.reads.clone(),
            }),
        }
    }

    /// Enters a schedule, to receive a delivery or to search it; `None`: a delivery is received.
    ///
    /// # Errors
    /// The database cannot be asked.
    pub fn enter(
        &self,
        here: &Here<'_>,
        schedule: ScheduleKey,
        holder: [u8; 16],
        receives: bool,
    ) -> io::Result<Option<InSchedule>> {
        let Some(snapshots) = &self.snapshots else {
            let busy = here
                .as_ref()
                .is_some_and(|state| state.busy.contains_key(&schedule));
            return Ok((!busy).then_some(InSchedule {
                schedule,
                there: None,
            }));
        };
        let entered = snapshots.enter(schedule.0, holder, receives);
        Ok(match entered.map_err(io::Error::other)? {
            Entered::Busy => None,
            Entered::Yes => Some(InSchedule {
                schedule,
                there: Some((snapshots.clone(), holder)),
            }),
        })
    }

    /// Does something with a schedule while no delivery of it can begin. Where daemons share what they
    /// know, none is received either.
    ///
    /// # Errors
    /// What `work` returns, or it was stopped while it waited.
    pub fn alone<T>(
        &self,
        schedule: ScheduleKey,
        stop: &dyn Fn() -> bool,
        work: impl FnOnce(&Store) -> io::Result<T>,
    ) -> io::Result<T> {
        let here = self.alone_here();
        if here.is_some() {
            return work(&self.store(schedule, NOBODY));
        }
        let mut holder = NOBODY;
        getrandom::fill(&mut holder).map_err(io::Error::other)?;
        let _inside = loop {
            if stop() {
                return Err(io::ErrorKind::Interrupted.into());
            }
            match self.enter(&here, schedule, holder, false)? {
                Some(inside) => break inside,
                None => std::thread::sleep(LOOK),
            }
        };
        work(&self.store(schedule, holder))
    }

    /// Whether something is kept of a schedule.
    pub fn is_known(&self, schedule: ScheduleKey) -> io::Result<bool> {
        match self.store(schedule, NOBODY) {
            Store::Files(files) => files.directory().try_exists(),
            // Also of one that is received now, and has left nothing yet.
            Store::Shared(_) => Ok(true),
        }
    }

    /// Schedules of which something is kept. Directories whose removal was cut short are removed.
    pub fn schedules(&self) -> io::Result<Vec<ScheduleKey>> {
        if let Some(snapshots) = &self.snapshots {
            let all = snapshots.list(None).map_err(io::Error::other)?;
            let mut all: Vec<_> = all
                .iter()
                .map(|one| ScheduleKey(one.name.schedule))
                .collect();
            all.dedup();
            return Ok(all);
        }
        let mut schedules = Vec::new();
        for entry in self.reads.list(&self.settings.directory)? {
            let path = entry.path();
            match schedule_of(&path) {
                Some(schedule) => schedules.push(schedule),
                None if path.extension().is_some_and(|end| end == "dropped") => {
                    if let Err(error) = fs::remove_dir_all(&path) {
                        tracing::warn!(path = %path.display(), %error, "a dropped snapshot could not be removed; it is tried again");
                    }
                }
                None => {}
            }
        }
        Ok(schedules)
    }

    /// Those of which a delivery may have ended.
    pub fn to_settle(&self) -> io::Result<Vec<ScheduleKey>> {
        let Some(snapshots) = &self.snapshots else {
            return self.schedules();
        };
        let ended = snapshots.ended(Kind::Users.number(), Kind::Settled.number());
        let ended = ended.map_err(io::Error::other)?;
        Ok(ended.into_iter().map(ScheduleKey).collect())
    }

    /// Schedules that one of these deliveries may be of, those of which one is received included.
    pub fn may_be_of(
        &self,
        here: &Here<'_>,
        deliveries: &[DeliveryId],
    ) -> io::Result<Vec<ScheduleKey>> {
        if let Some(snapshots) = &self.snapshots {
            return shared::may_be_of(snapshots, deliveries);
        }
        let busy = here.as_ref().map(|state| &state.busy);
        let mut schedules = self.schedules()?;
        schedules.extend(busy.iter().flat_map(|busy| busy.keys()));
        schedules.sort_unstable();
        schedules.dedup();
        let mut found = Vec::new();
        for schedule in schedules {
            let busy = busy.and_then(|busy| busy.get(&schedule));
            let mut knows =
                busy.is_some_and(|busy| busy.before.iter().any(|id| deliveries.contains(id)));
            let files = self.store(schedule, NOBODY);
            for item in files.items()? {
                knows |= files.may_be_of(&item, deliveries)?;
            }
            if knows {
                found.push(schedule);
            }
        }
        Ok(found)
    }

    /// After a loss of the state nothing that it says of earlier deliveries is certain. A database that is
    /// shared tells of none.
    pub fn hear_of_loss(&self, here: &mut Here<'_>, ledger: &dyn Ledger) -> io::Result<()> {
        let lost = ledger.lost();
        if here.as_ref().is_none_or(|state| lost <= state.lost) {
            return Ok(());
        }
        for schedule in self.schedules()? {
            self.drop_schedule(here, schedule, "the state of the outbox was lost")?;
        }
        if let Some(state) = here {
            state.lost = lost;
        }
        Ok(())
    }

    /// The delivery of a schedule that is received now.
    fn incoming(&self, here: &Here<'_>, schedule: ScheduleKey) -> io::Result<Option<DeliveryId>> {
        let Some(snapshots) = &self.snapshots else {
            let busy = here.as_ref().and_then(|state| state.busy.get(&schedule));
            return Ok(busy.map(|busy| busy.delivery));
        };
        let inside = snapshots.inside().map_err(io::Error::other)?;
        let mut inside = inside.into_iter();
        let inside = inside.find(|inside| inside.schedule == schedule.0);
        Ok(inside.and_then(|inside| inside.delivery))
    }

    /// Finds the newest snapshot whose delivery, and all before it, have ended, and removes what it
    /// replaces. Several daemons may do so at once: it comes to the same.
    pub fn settle_one(
        &self,
        here: &mut Here<'_>,
        files: &Store,
        schedule: ScheduleKey,
        ledger: &dyn Ledger,
    ) -> io::Result<()> {
        let mut base = None;
        // Before it is asked who is received: one that has left since is in the ledger, if it is anywhere.
        let items = files.items()?;
        let incoming = self.incoming(here, schedule)?;
        for item in &items {
            let Some(delivery) = item.delivery.filter(|_| item.users) else {
                continue;
            };
            if item.settled {
                base = Some(item.number);
                continue;
            }
            if incoming == Some(delivery) {
                break;
            }
            match ledger.ending(delivery) {
                Ending::Open => break,
                Ending::Settled(missing) => {
                    files.settle(item.number, delivery, &missing)?;
                    base = Some(item.number);
                }
                Ending::Unknown => {
                    tracing::info!(%schedule, why = "it is not known what became of one of its deliveries", "{FORGOTTEN}");
                    return self.drop_store(here, files, schedule);
                }
            }
        }
        for item in items.iter().filter(|item| Some(item.number) < base) {
            let Some(delivery) = item.delivery else {
                continue;
            };
            if item.users {
                files.remove(item.number, delivery, Kind::Users)?;
            }
            if item.gone {
                files.remove(item.number, delivery, Kind::Gone)?;
            }
            // As long as something can be sent again, the delivery must be known here.
            let over = files.missing(item.number, delivery)?.is_nothing()
                || ledger.ending(delivery) == Ending::Unknown;
            if over {
                files.remove(item.number, delivery, Kind::Settled)?;
            }
        }
        Ok(())
    }

    /// Forgets all that is kept of a schedule, also what is about to be of a delivery that is received.
    pub fn drop_schedule(
        &self,
        here: &mut Here<'_>,
        schedule: ScheduleKey,
        why: &'static str,
    ) -> io::Result<()> {
        self.drop_store(here, &self.store(schedule, NOBODY), schedule)?;
        tracing::info!(%schedule, why, "{FORGOTTEN}");
        Ok(())
    }

    fn drop_store(
        &self,
        here: &mut Here<'_>,
        files: &Store,
        schedule: ScheduleKey,
    ) -> io::Result<()> {
        if let Some(busy) = here
            .as_mut()
            .and_then(|state| state.busy.get_mut(&schedule))
        {
            busy.dropped = true;
        }
        files.clear()
    }

    /// Drops schedules that were not seen for long, and the least recently seen ones above the bound.
    pub fn make_room(&self, here: &mut Here<'_>) {
        let found = match &self.snapshots {
            None => self.weigh(here),
            Some(snapshots) => {
                let looks = {
                    let mut state = self.state();
                    state.looks += 1;
                    state.looks
                };
                match looks % ROOM_EVERY {
                    1 => weigh(snapshots),
                    _ => return,
                }
            }
        };
        let mut found = found.unwrap_or_else(|error| {
            tracing::warn!(%error, "snapshots could not be listed");
            Vec::new()
        });
        found.sort();
        let mut total: u64 = found.iter().map(|(_, bytes, _)| bytes).sum();
        for (seen, bytes, schedule) in found {
            let old = seen
                .elapsed()
                .is_ok_and(|age| age > self.settings.forget_after);
            let why = match () {
                () if old => "it was not seen for longer than `changes.forget_after`",
                () if total > self.settings.max_bytes => "there is no room: `changes.max_bytes`",
                () => continue,
            };
            match self.drop_schedule(here, schedule, why) {
                Ok(()) => total = total.saturating_sub(bytes),
                Err(error) => tracing::warn!(%schedule, %error, "snapshots could not be removed"),
            }
        }
    }

    fn weigh(&self, here: &Here<'_>) -> io::Result<Vec<Weight>> {
        let mut found = Vec::new();
        for schedule in self.schedules()? {
            let busy = here.as_ref().map(|state| &state.busy);
            if busy.is_some_and(|busy| busy.contains_key(&schedule)) {
                continue;
            }
            let Store::Files(files) = self.store(schedule, NOBODY) else {
                continue;
            };
            match files.weight() {
                Ok((bytes, seen)) => {
                    found.push((seen.unwrap_or(SystemTime::UNIX_EPOCH), bytes, schedule))
                }
                Err(error) => tracing::warn!(%schedule, %error, "snapshots could not be looked at"),
            }
        }
        Ok(found)
    }

    /// Names what a delivery leaves, unless what it was held against has been dropped meanwhile.
    pub fn publish(&self, schedule: ScheduleKey, files: &Store, left: Left<'_>) -> io::Result<()> {
        let here = self.alone_here();
        let busy = here.as_ref().and_then(|state| state.busy.get(&schedule));
        match busy {
            Some(busy) if busy.dropped => Ok(()),
            _ => files.publish(left),
        }
    }

    /// Ends a delivery's way in. `named` and not committed: nobody can say what becomes of it.
    pub fn leave(&self, schedule: ScheduleKey, delivery: DeliveryId, named: bool, committed: bool) {
        let forget = named && !committed;
        if let Some(snapshots) = &self.snapshots {
            return snapshots.leave(schedule.0, delivery.0, forget);
        }
        let mut here = self.alone_here();
        if let Some(state) = &mut here {
            state.busy.remove(&schedule);
        }
        let left = match forget {
            true => self.drop_schedule(&mut here, schedule, "a delivery of it failed at its end"),
            false => self.store(schedule, NOBODY).remove_drafts(),
        };
        if let Err(error) = left {
            tracing::warn!(%schedule, %error, "files of a delivery could not be removed; it is tried again");
        }
    }
}

const FORGOTTEN: &str = "what a schedule delivered is forgotten; its next delivery sends all users";

/// When a schedule was seen, and what it takes.
type Weight = (SystemTime, u64, ScheduleKey);

/// What schedules take of which no delivery is received.
fn weigh(snapshots: &Snapshots) -> io::Result<Vec<Weight>> {
    let inside = snapshots.inside().map_err(io::Error::other)?;
    let mut found: BTreeMap<[u8; 16], (u64, u64)> = BTreeMap::new();
    for entry in snapshots.list(None).map_err(io::Error::other)? {
        let (seen, bytes) = found.entry(entry.name.schedule).or_default();
        *seen = entry.written.0.max(*seen);
        *bytes += entry.bytes + entry.body.len() as u64;
    }
    found.retain(|schedule, _| inside.iter().all(|one| one.schedule != *schedule));
    let found = found.into_iter().map(|(schedule, (seen, bytes))| {
        let seen = SystemTime::UNIX_EPOCH + Duration::from_millis(seen);
        (seen, bytes, ScheduleKey(schedule))
    });
    Ok(found.collect())
}

fn schedule_of(path: &Path) -> Option<ScheduleKey> {
    let id: DeliveryId = path.file_name()?.to_str()?.parse().ok()?;
    Some(ScheduleKey(id.0))
}
