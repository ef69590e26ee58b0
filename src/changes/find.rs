//! Looking for a user in what is kept of schedules, and erasing them from it.

use std::io;
use std::sync::Arc;

use super::files::Kind;
use super::inner::NOBODY;
use super::snapshot::{Cursor, Entry, Name, ReadError, Role, WriteError, Writer};
use super::store::Store;
use super::{Changes, Inner, ScheduleKey};
use crate::model::DeliveryId;

/// Whom is looked for.
pub trait Who: Sync {
    /// What the user may be called in a snapshot with this key.
    fn users(&self, key: &[u8; 16]) -> Vec<u64>;

    /// Whether they are among these sets of identities (see `record::parts`).
    fn is_among(&self, people: &[u8]) -> bool;
}

/// Where a user was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Trace {
    /// The delivery that spoke of them.
    pub delivery: DeliveryId,
    /// Something of them was to be sent with it; if not, nothing of them had changed.
    pub sent: bool,
    /// It was to tell that they have left the audience.
    pub left: bool,
}

/// One file of a schedule.
#[derive(Clone, Copy)]
struct Place {
    schedule: ScheduleKey,
    number: u64,
    delivery: DeliveryId,
    kind: Kind,
}

impl Place {
    fn name(&self) -> Name {
        Name {
            schedule: self.schedule,
            delivery: self.delivery,
            role: match self.kind {
                Kind::Gone => Role::Gone,
                Kind::Users | Kind::Settled | Kind::Before => Role::Users,
            },
        }
    }
}

impl Changes {
    /// The deliveries whose notes speak of a user: those that the next delivery of their schedule is
    /// compared with. Blocks on the disk for as long as it takes to read them.
    ///
    /// # Errors
    /// A file cannot be read. One that is damaged is passed over: no delivery relies on it either.
    pub fn find(&self, who: &dyn Who) -> io::Result<Vec<Trace>> {
        let mut traces = Vec::new();
        for place in self.inner.places()? {
            let trace = self.inner.look(place, who);
            traces.extend(trace?.unwrap_or_default());
        }
        Ok(traces)
    }

    /// Removes what is noted of a user, durably, and returns from how many deliveries. The next delivery
    /// of their schedule takes them for new, so it sends them if they are in its result. A schedule
    /// with a damaged file is dropped. No delivery can begin while a file is written anew, and where
    /// daemons share what they know, one that is being received is waited for. `stop` ends it early.
    /// Blocks on the disk.
    ///
    /// # Errors
    /// The disk refuses, or it was stopped; it can be called again.
    pub fn erase(&self, who: &dyn Who, stop: &dyn Fn() -> bool) -> io::Result<u64> {
        let mut erased = 0;
        loop {
            let mut found = false;
            for place in self.inner.places()? {
                match self.inner.look(place, who)? {
                    Some(None) => {}
                    Some(Some(_)) => {
                        self.inner.alone(place.schedule, stop, |files| {
                            self.inner.write_without(files, place, who)
                        })?;
                        found = true;
                        erased += 1;
                    }
                    None => {
                        let why = "one of its files cannot be searched for somebody who is erased";
                        let mut here = self.inner.alone_here();
                        self.inner.drop_schedule(&mut here, place.schedule, why)?;
                    }
                }
            }
            // A delivery that was waited for may have carried them over.
            if !found {
                return Ok(erased);
            }
        }
    }
}

impl Inner {
    fn places(&self) -> io::Result<Vec<Place>> {
        let _state = self.alone_here();
        let mut places = Vec::new();
        for schedule in self.schedules()? {
            for item in self.store(schedule, NOBODY).items()? {
                let Some(delivery) = item.delivery else {
                    continue;
                };
                let kinds = [(item.users, Kind::Users), (item.gone, Kind::Gone)];
                let there = kinds.into_iter().filter(|(there, _)| *there);
                places.extend(there.map(|(_, kind)| Place {
                    schedule,
                    number: item.number,
                    delivery,
                    kind,
                }));
            }
        }
        Ok(places)
    }

    fn open(&self, files: &Store, place: Place) -> Result<Option<Cursor>, ReadError> {
        let file = match files.open(place.number, place.delivery, place.kind) {
            // Something newer has taken its place.
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            file => file?,
        };
        Cursor::open(file, place.name(), Arc::clone(&self.keys)).map(Some)
    }

    /// The outer `None`: the file is damaged.
    fn look(&self, place: Place, who: &dyn Who) -> io::Result<Option<Option<Trace>>> {
        let files = self.store(place.schedule, NOBODY);
        let look = || -> Result<Option<Trace>, ReadError> {
            let Some(mut cursor) = self.open(&files, place)? else {
                return Ok(None);
            };
            let users = who.users(&cursor.head().key);
            let mut trace = None;
            while let Some(entry) = cursor.entry() {
                if is_meant(&entry, &users, who) {
                    trace.get_or_insert(Trace {
                        delivery: place.delivery,
                        sent: entry.sent.is_some(),
                        left: place.kind == Kind::Gone,
                    });
                }
                cursor.advance()?;
            }
            Ok(trace)
        };
        match look() {
            Ok(trace) => Ok(Some(trace)),
            Err(ReadError::Io(error)) => Err(error),
            // Something newer may have taken its place while it was read.
            Err(_) => Ok(match self.is_there(&files, place)? {
                true => None,
                false => Some(None),
            }),
        }
    }

    fn is_there(&self, files: &Store, place: Place) -> io::Result<bool> {
        let items = files.items()?;
        let item = items.iter().find(|item| item.number == place.number);
        Ok(item.is_some_and(|item| match place.kind {
            Kind::Gone => item.gone,
            _ => item.users,
        }))
    }

    /// Writes a file anew without a user. The caller is alone with the schedule.
    fn write_without(&self, files: &Store, place: Place, who: &dyn Who) -> io::Result<()> {
        let read = |error: ReadError| match error {
            ReadError::Io(error) => error,
            error => io::Error::other(error),
        };
        let written = |error: WriteError| match error {
            WriteError::Io(error) => error,
            error => io::Error::other(error),
        };
        let Some(mut cursor) = self.open(files, place).map_err(read)? else {
            return Ok(());
        };
        let users = who.users(&cursor.head().key);
        let file = files.anew(place.number, place.delivery, place.kind)?;
        let head = cursor.head().clone();
        let mut writer = Writer::new(file, place.name(), &self.keys, &head).map_err(written)?;
        while let Some(entry) = cursor.entry() {
            if !is_meant(&entry, &users, who) {
                writer.push(&entry).map_err(written)?;
            }
            cursor.advance().map_err(read)?;
        }
        let file = writer.finish().map_err(written)?;
        files.publish_anew(file, place.number, place.delivery, place.kind)
    }
}

fn is_meant(entry: &Entry<'_>, users: &[u64], who: &dyn Who) -> bool {
    users.contains(&entry.user) || (!entry.people.is_empty() && who.is_among(entry.people))
}
