//! One delivery that sends only changes, while it is grouped: its users on one side, what earlier
//! deliveries said of them on the other, both in ascending order.

use std::fs::File;
use std::io::{Seek, Write};
use std::sync::Arc;

use super::earlier::{Earlier, Found, Full, random};
use super::files::{Item, Kind};
use super::seen::Seen;
use super::snapshot::{Cursor, Entry, Head, Name, ReadError, Role, WriteError, Writer};
use super::store::{Draft, Left, Store};
use super::{Audience, Comparison, Error, Inner, ScheduleKey};
use crate::clock::UnixMillis;
use crate::model::DeliveryId;

/// A delivery on its way in. Dropping it without [`Session::committed`] gives it up.
pub struct Session {
    inner: Arc<Inner>,
    files: Store,
    schedule: ScheduleKey,
    delivery: DeliveryId,
    number: u64,
    /// Deliveries that were unfinished when this one, the first known of its schedule, began.
    before: Vec<DeliveryId>,
    head: Head,
    audience: Option<Audience>,
    /// Why all users are sent; `None`: only those that differ.
    full: Option<Full>,
    /// What users are held against: the base, and what is pending, the newest last.
    earlier: Vec<Earlier>,
    /// Users that the newest still has to tell that they left.
    owed: Option<Earlier>,
    seen: Option<Seen>,
    users: Option<Writer<Draft>>,
    absent: Option<Writer<File>>,
    /// Those of `absent`, once all users are known.
    leaving: Option<Leaving>,
    /// The user whose requests are not known yet.
    held: Option<Held>,
    people: Vec<u8>,
    members: u64,
    left: u64,
    named: bool,
    committed: bool,
}

/// Writes what becomes of those who are absent.
struct Leaving {
    absent: Cursor,
    gone: Writer<Draft>,
}

struct Held {
    user: u64,
    fingerprint: u128,
    gone: bool,
}

impl Session {
    pub(super) fn begin(
        inner: &Arc<Inner>,
        comparison: &Comparison,
        delivery: DeliveryId,
        now: UnixMillis,
        items: &[Item],
        before: Vec<DeliveryId>,
    ) -> Result<Self, Error> {
        let files = inner.store(comparison.schedule, delivery.0);
        let found = Found::read(inner, comparison, &files, items, now)?;
        let number = items.last().map_or(1, |last| last.number.saturating_add(1));
        let head = Head {
            full_at: match found.full {
                Some(_) => now,
                None => found.head.full_at,
            },
            ..found.head
        };
        let (mut seen, mut absent) = (None, None);
        if comparison.audience.is_some() {
            seen = Some(Seen::new(random()?));
            let name = Name {
                schedule: comparison.schedule,
                delivery,
                role: Role::Absent,
            };
            let file = files.temporary().map_err(|error| failed(&files, error))?;
            absent = Some(writer(inner, &files, file, name, &head)?);
        }
        let name = Name {
            schedule: comparison.schedule,
            delivery,
            role: Role::Users,
        };
        let file = files.draft(number, delivery, Kind::Users);
        let file = file.map_err(|error| failed(&files, error))?;
        Ok(Self {
            users: Some(writer(inner, &files, file, name, &head)?),
            inner: Arc::clone(inner),
            files,
            schedule: comparison.schedule,
            delivery,
            number,
            before,
            head,
            audience: comparison.audience.clone(),
            full: found.full,
            earlier: found.earlier,
            owed: found.owed,
            seen,
            absent,
            leaving: None,
            held: None,
            people: Vec::new(),
            members: 0,
            left: 0,
            named: false,
            committed: false,
        })
    }

    /// Orders the users and makes their fingerprints.
    pub fn key(&self) -> [u8; 16] {
        self.head.key
    }

    /// The user attribute that says who is in the result.
    pub fn attribute(&self) -> Option<&str> {
        self.audience
            .as_ref()
            .map(|audience| audience.attribute.as_str())
    }

    /// What a person should know of the delivery.
    pub fn note(&self) -> Option<String> {
        let damaged = self
            .earlier
            .iter()
            .chain(&self.owed)
            .any(Earlier::is_damaged);
        let mut note = match self.full {
            Some(full) => full.sentence().to_owned(),
            None if damaged => "More users were sent than have changed, since what was kept of an earlier delivery is damaged.".to_owned(),
            None => return None,
        };
        let unknown = self.earlier.is_empty() && self.full != Some(Full::Audience);
        if self.audience.is_some() && (unknown || damaged) {
            note.push_str(" Users who left the audience before are not known.");
        }
        Some(note)
    }

    /// Whether a user need not be sent. Users must come in ascending order. `people` are the sets of
    /// identities (see `record::parts`), `fingerprint` is of all that would be sent; `None`: it is
    /// not known whole, so the user is sent and nothing is kept. If the user is sent, and there is a
    /// fingerprint, [`Session::placed`] comes next.
    ///
    /// # Errors
    /// The snapshot cannot be written, or earlier ones cannot be read now.
    pub fn is_known(
        &mut self,
        user: u64,
        fingerprint: Option<u128>,
        people: &[u8],
    ) -> Result<bool, Error> {
        self.sweep(Some(user))?;
        let mut known = self.full.is_none() && fingerprint.is_some();
        for earlier in &mut self.earlier {
            let read = earlier.go_to(user);
            read.map_err(|error| self.files.unreadable(error))?;
            known &= earlier.has(user, fingerprint);
        }
        let newest = self.earlier.last().and_then(Earlier::entry);
        self.members += u64::from(newest.is_some_and(|entry| entry.user == user));
        for earlier in self.earlier.iter_mut().chain(&mut self.owed) {
            let read = earlier.pass(user);
            read.map_err(|error| self.files.unreadable(error))?;
        }
        if let Some(seen) = &mut self.seen {
            seen.add(people);
        }
        let Some(fingerprint) = fingerprint else {
            return Ok(false);
        };
        self.people.clear();
        if self.audience.is_some() {
            self.people.extend_from_slice(people);
        }
        self.held = Some(Held {
            user,
            fingerprint,
            gone: false,
        });
        if known {
            self.keep(None)?;
        }
        Ok(known)
    }

    /// The requests that hold the user, or the one who left, that was asked about last.
    ///
    /// # Errors
    /// The snapshot cannot be written.
    pub fn placed(&mut self, first: u64, last: u64) -> Result<(), Error> {
        // A delivery has fewer requests; one that had more would only be sent again.
        let number = |request| u32::try_from(request).unwrap_or(u32::MAX - 1);
        self.keep(Some((number(first), number(last))))
    }

    /// The next one who left the audience and is to be told so: fills `people` with the sets of
    /// identities; `false`: there is nobody else. Call it when all users have come;
    /// [`Session::placed`] comes next.
    ///
    /// # Errors
    /// The snapshot cannot be written.
    pub fn next_gone(&mut self, people: &mut Vec<u8>) -> Result<bool, Error> {
        if self.audience.is_none() {
            return Ok(false);
        }
        self.end_users()?;
        loop {
            let (Some(leaving), Some(seen)) = (&mut self.leaving, &self.seen) else {
                return Ok(false);
            };
            let Some(entry) = leaving.absent.entry() else {
                return Ok(false);
            };
            let (user, fingerprint) = (entry.user, entry.fingerprint);
            people.clear();
            people.extend_from_slice(entry.people);
            let next = leaving.absent.advance();
            next.map_err(|error| unreadable(&self.files, error))?;
            self.people.clone_from(people);
            let spared = seen.any(people);
            self.held = Some(Held {
                user,
                fingerprint,
                gone: true,
            });
            if !spared {
                self.left += u64::from(fingerprint == MEMBER);
                return Ok(true);
            }
            self.keep(None)?;
        }
    }

    /// Checks what must hold before those who left are told so, once all have been asked for.
    /// `truncated`: the result is not whole.
    ///
    /// # Errors
    /// [`Error::Shrunk`] and [`Error::Truncated`].
    pub fn check(&self, truncated: bool) -> Result<(), Error> {
        let Some(audience) = &self.audience else {
            return Ok(());
        };
        if truncated {
            return Err(Error::Truncated);
        }
        let most = self.inner.settings.max_drop_percent;
        let too_many = u128::from(self.left) * 100 > u128::from(self.members) * u128::from(most);
        if too_many && !audience.may_shrink {
            return Err(Error::Shrunk {
                left: self.left,
                members: self.members,
                most,
            });
        }
        Ok(())
    }

    /// Makes the snapshot durable; the delivery may be committed then.
    ///
    /// # Errors
    /// The disk refuses.
    pub fn finish(&mut self) -> Result<(), Error> {
        self.end_users()?;
        let users = self.users.take().map(Writer::finish).transpose();
        let users = users.map_err(|error| write_failed(&self.files, error))?;
        let gone = self.leaving.take().map(|leaving| leaving.gone.finish());
        let gone = gone.transpose();
        let gone = gone.map_err(|error| write_failed(&self.files, error))?;
        let left = Left {
            number: self.number,
            delivery: self.delivery,
            before: &self.before,
            gone,
            users,
        };
        // Named from here on: also a part of it may be there when this fails.
        self.named = true;
        let published = self.inner.publish(self.schedule, &self.files, left);
        published.map_err(|error| failed(&self.files, error))
    }

    /// The delivery is durable.
    pub fn committed(mut self) {
        self.committed = true;
    }

    /// What is known of users before `until` who are not in this result holds on, unless all are
    /// sent: they may be back in the next one, and a result that is empty by mistake must not cost
    /// a full delivery.
    fn carry(&mut self, until: Option<u64>) -> Result<(), Error> {
        let (None, Some(users)) = (self.full, &mut self.users) else {
            return Ok(());
        };
        while let Some((newest, older)) = self.earlier.split_last_mut() {
            let Some(entry) = newest.entry() else {
                return Ok(());
            };
            if until.is_some_and(|until| entry.user >= until) {
                return Ok(());
            }
            let carried = Entry {
                user: entry.user,
                fingerprint: entry.fingerprint,
                sent: None,
                people: &[],
            };
            let mut known = newest.arrived(&entry);
            for earlier in older {
                let read = earlier.go_to(carried.user);
                read.map_err(|error| self.files.unreadable(error))?;
                known &= earlier.has(carried.user, Some(carried.fingerprint));
                let read = earlier.pass(carried.user);
                read.map_err(|error| self.files.unreadable(error))?;
            }
            if known {
                let pushed = users.push(&carried);
                pushed.map_err(|error| write_failed(&self.files, error))?;
            }
            let read = newest.step();
            read.map_err(|error| self.files.unreadable(error))?;
        }
        Ok(())
    }

    /// Puts those aside who are in the newest snapshot, and before `until` are not in this result.
    fn sweep(&mut self, until: Option<u64>) -> Result<(), Error> {
        if self.audience.is_none() {
            return self.carry(until);
        }
        let Some(absent) = &mut self.absent else {
            return Ok(());
        };
        loop {
            let newest = self.earlier.last_mut();
            let before = |earlier: &Earlier| {
                let user = earlier.entry()?.user;
                until.is_none_or(|until| user < until).then_some(user)
            };
            let member = newest.as_deref().and_then(before);
            let owed = self.owed.as_ref().and_then(before);
            let (earlier, mark) = match (member, owed) {
                (None, None) => return Ok(()),
                (Some(member), Some(owed)) if owed < member => (self.owed.as_mut(), OWED),
                (Some(_), _) => (newest, MEMBER),
                (None, Some(_)) => (self.owed.as_mut(), OWED),
            };
            let Some(earlier) = earlier else {
                return Ok(());
            };
            if let Some(entry) = earlier.entry()
                && (mark == MEMBER || !earlier.arrived_for_good(&entry))
            {
                let entry = Entry {
                    fingerprint: mark,
                    sent: None,
                    ..entry
                };
                let pushed = absent.push(&entry);
                pushed.map_err(|error| write_failed(&self.files, error))?;
            }
            self.members += u64::from(mark == MEMBER);
            let read = earlier.step();
            read.map_err(|error| self.files.unreadable(error))?;
        }
    }

    /// All users have come.
    fn end_users(&mut self) -> Result<(), Error> {
        self.sweep(None)?;
        let Some(absent) = self.absent.take() else {
            return Ok(());
        };
        let files = &self.files;
        let file = absent.finish();
        let mut file = file.map_err(|error| write_failed(files, error))?;
        file.rewind().map_err(|error| failed(files, error))?;
        let mut name = Name {
            schedule: self.schedule,
            delivery: self.delivery,
            role: Role::Absent,
        };
        let keys = Arc::clone(&self.inner.keys);
        let file = files.source(file);
        let absent = Cursor::open(file, name, keys).map_err(|error| unreadable(files, error))?;
        name.role = Role::Gone;
        let file = files.draft(self.number, self.delivery, Kind::Gone);
        let file = file.map_err(|error| failed(files, error))?;
        let gone = writer(&self.inner, files, file, name, &self.head)?;
        self.leaving = Some(Leaving { absent, gone });
        Ok(())
    }

    fn keep(&mut self, sent: Option<(u32, u32)>) -> Result<(), Error> {
        let Some(held) = self.held.take() else {
            return Ok(());
        };
        let entry = Entry {
            user: held.user,
            fingerprint: held.fingerprint,
            sent,
            people: &self.people,
        };
        let out = match held.gone {
            true => self.leaving.as_mut().map(|leaving| &mut leaving.gone),
            false => self.users.as_mut(),
        };
        out.map_or(Ok(()), |out| out.push(&entry))
            .map_err(|error| write_failed(&self.files, error))
    }
}

/// Stand for a fingerprint among those who are absent: whether they were in the last result, or had
/// left before.
const MEMBER: u128 = 1;
const OWED: u128 = 0;

impl Drop for Session {
    fn drop(&mut self) {
        let (schedule, delivery) = (self.schedule, self.delivery);
        self.inner
            .leave(schedule, delivery, self.named, self.committed);
    }
}

fn writer<W: Write>(
    inner: &Inner,
    files: &Store,
    file: W,
    name: Name,
    head: &Head,
) -> Result<Writer<W>, Error> {
    Writer::new(file, name, &inner.keys, head).map_err(|error| write_failed(files, error))
}

fn failed(files: &Store, source: std::io::Error) -> Error {
    files.failed(source)
}

fn write_failed(files: &Store, error: WriteError) -> Error {
    match error {
        WriteError::Seal(error) => Error::Seal(error),
        WriteError::Io(source) => failed(files, source),
    }
}

/// Of a file that this very delivery has written.
fn unreadable(files: &Store, error: ReadError) -> Error {
    match error {
        ReadError::Io(error) => files.unreadable(error),
        error => failed(files, std::io::Error::other(error)),
    }
}
