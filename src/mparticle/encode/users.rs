//! Users, one after the other: the rows of the current one wait here until they fill batches.

use crate::mapping::EVENT_BITS;
use crate::model::DataType;
use crate::record::{Mark, Members, RecordView};

use super::changes::Changes;
use super::content::Content;
use super::members::Attributes;
use super::person::Person;
use super::sink::{Made, Sink, Unsendable};
use super::writer::{Writer, route_of};

/// Events of one user that wait for their batch, over all their devices, hold at most this many
/// bytes; then they go out in batches that are not full.
const MOST_HELD: usize = 4 * 1024 * 1024;
/// Identity sets with the same first identity, and devices of one user, that are kept apart at
/// once; beyond, batches go out before they are full.
const MOST_APART: usize = 64;

/// The user whose rows are coming.
#[derive(Debug)]
pub(super) struct Users {
    pub(super) writer: Writer,
    /// Set in a delivery that skips what was sent.
    content: Option<Content>,
    /// Set in a delivery that sends only changes.
    changes: Option<Changes>,
    user: Option<u64>,
    people: Vec<Person>,
    /// People that have been used and can be used again with their memory.
    spare: Vec<Person>,
    held: usize,
}

impl Users {
    pub(super) fn new(writer: Writer) -> Self {
        Self {
            writer,
            content: None,
            changes: None,
            user: None,
            people: Vec::new(),
            spare: Vec::new(),
            held: 0,
        }
    }

    /// Events go out alone, under ids that say what they say. Of an account.
    pub(super) fn skip_sent(&mut self, account: [u8; 16]) {
        let environment = self.writer.delivery.environment;
        self.content = Some(Content::new(account, environment));
    }

    /// Only users who have changed are sent.
    pub(super) fn send_changes(&mut self, key: [u8; 16], attribute: Option<&str>) {
        self.changes = Some(Changes::new(key, attribute, &mut self.writer));
    }

    /// Whether rows of a user do not come in their own order.
    pub(super) fn come_in_any_order(&self) -> bool {
        self.content.is_some()
    }

    /// The limit of a batch.
    pub(super) fn most_bytes(&self) -> usize {
        self.writer.settings.max_batch_bytes
    }

    /// Whether no batch can hold a record.
    pub(super) fn too_large(&self, record: &RecordView<'_>) -> bool {
        self.writer.too_large(record).is_some()
    }

    /// Adds a record whose event is complete and stands for `rows`: for one, if it may not fit.
    pub(super) fn push<S: Sink>(
        &mut self,
        record: RecordView<'_>,
        rows: u32,
        sink: &mut S,
    ) -> Result<(), S::Error> {
        if let Some(bytes) = self.writer.too_large(&record) {
            let most = self.most_bytes();
            if self.changes.is_some() {
                // The user is in the result all the same.
                self.begin_user(record.user, sink)?;
            }
            return sink.unsendable(record, Unsendable::TooLarge { bytes, most });
        }
        let at = self.person(&record, sink)?;
        if self.content.is_some() {
            return self.push_alone(at, record, rows, sink);
        }
        let person = &mut self.people[at];
        if self.writer.names().purchases {
            person.note_in_any_order(&record);
        } else {
            person.last_row = record.row;
            person.attributes.set(record.attributes);
        }
        match self.writer.delivery.data_type {
            DataType::User => {
                person.rows += 1;
                person.device.set(record.device);
                Ok(())
            }
            DataType::Event => self.push_event(at, record, rows, sink),
        }
    }

    /// Takes note of what a record says of its user, without its event.
    pub(super) fn note<S: Sink>(
        &mut self,
        record: &RecordView<'_>,
        sink: &mut S,
    ) -> Result<(), S::Error> {
        let at = self.person(record, sink)?;
        self.people[at].note_in_any_order(record);
        Ok(())
    }

    /// Writes what is still held and returns how much was made in all.
    pub(super) fn finish<S: Sink>(mut self, sink: &mut S) -> Result<Made, S::Error> {
        self.end_user(sink)?;
        if let Some(changes) = &mut self.changes {
            changes.write_gone(&mut self.writer, sink)?;
        }
        self.writer.finish(sink)
    }

    /// Where the person of a record is kept. Whoever came before is done with.
    fn person<S: Sink>(
        &mut self,
        record: &RecordView<'_>,
        sink: &mut S,
    ) -> Result<usize, S::Error> {
        let user = match self.content.is_some() || self.writer.names().purchases {
            false => record.user,
            true => record.user & !EVENT_BITS,
        };
        self.begin_user(user, sink)?;
        let known = self
            .people
            .iter()
            .rposition(|person| person.identities == record.identities);
        if let Some(at) = known {
            return Ok(at);
        }
        if self.people.len() >= MOST_APART {
            if let Some(changes) = &mut self.changes {
                changes.make_room();
            }
            self.end_user(sink)?;
            self.user = Some(user);
        }
        self.writer.made.users += 1;
        let mut person = self.spare.pop().unwrap_or_default();
        person.identities.extend_from_slice(record.identities);
        person.first_row = record.row;
        self.people.push(person);
        Ok(self.people.len() - 1)
    }

    fn push_event<S: Sink>(
        &mut self,
        at: usize,
        record: RecordView<'_>,
        rows: u32,
        sink: &mut S,
    ) -> Result<(), S::Error> {
        let apart: usize = self.people.iter().map(|person| person.devices.len()).sum();
        if self.held > MOST_HELD || apart >= MOST_APART {
            self.end_devices(sink)?;
        }
        let (mark, section) = Mark::split(record.event);
        let (names, plan) = (self.writer.names(), self.writer.plan());
        let person = &mut self.people[at];
        let device = person.device(&record, route_of(mark), names, plan);
        let members = Members::new(section, names.event.as_deref());
        let is_full = self
            .writer
            .is_full(person, &person.devices[device], members);
        if is_full {
            let person = &self.people[at];
            let full = &person.devices[device];
            self.held -= full.events.len();
            let later = Attributes::Later;
            self.writer.write_device(person, full, later, sink)?;
            self.people[at].devices[device].restart(record.row);
        }
        let device = &mut self.people[at].devices[device];
        let members = Members::new(section, self.writer.names().event.as_deref());
        let before = device.events.len();
        self.writer.add_event(device, mark, members, record.row);
        self.held += device.events.len() - before;
        device.rows += rows;
        Ok(())
    }

    /// An event, which stands for `rows`, in a batch of its own.
    fn push_alone<S: Sink>(
        &mut self,
        at: usize,
        record: RecordView<'_>,
        rows: u32,
        sink: &mut S,
    ) -> Result<(), S::Error> {
        let person = &mut self.people[at];
        person.note_in_any_order(&record);
        let Some(content) = &mut self.content else {
            return Ok(());
        };
        let names = self.writer.names();
        let id = content.id(&record, names);
        let mut device = person.spare_device();
        device.describe(record.device, names, self.writer.plan());
        let written = self.writer.write_alone(id, &record, &device, rows, sink);
        person.retire(device);
        written
    }

    /// Writes all devices' events of the current user and keeps the rest.
    fn end_devices<S: Sink>(&mut self, sink: &mut S) -> Result<(), S::Error> {
        for person in &mut self.people {
            for device in &person.devices {
                let later = Attributes::Later;
                self.writer.write_device(person, device, later, sink)?;
            }
            person.retire_devices();
        }
        self.held = 0;
        Ok(())
    }

    /// Goes over to a user. Whoever came before is done with.
    fn begin_user<S: Sink>(&mut self, user: u64, sink: &mut S) -> Result<(), S::Error> {
        if self.user == Some(user) {
            return Ok(());
        }
        self.end_user(sink)?;
        self.user = Some(user);
        if let Some(changes) = &mut self.changes {
            changes.begin();
        }
        Ok(())
    }

    /// Writes all that is held of the current user.
    fn end_user<S: Sink>(&mut self, sink: &mut S) -> Result<(), S::Error> {
        self.people.sort_by_key(|person| person.last_row);
        match (&mut self.changes, self.user) {
            (None, _) => self.writer.write_people(&mut self.people, sink)?,
            (Some(changes), Some(user)) => {
                changes.write(user, &mut self.people, &mut self.writer, sink)?;
            }
            (Some(_), None) => {}
        }
        for mut person in self.people.drain(..) {
            person.clear();
            // One spare is what almost every delivery needs; more would only hold memory.
            if self.spare.is_empty() {
                self.spare.push(person);
            }
        }
        self.held = 0;
        self.user = None;
        Ok(())
    }
}
