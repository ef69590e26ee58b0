//! Records, user by user, to batches, and batches to ready requests.
//!
//! A batch holds one user and any number of their events. mParticle's rate limit counts batches,
//! so every event that shares a batch with another one of its user is sent for nothing.
//!
//! - **A user is the set of identities of a row.** Rows with exactly the same identities share
//!   batches; rows that share only the first one are kept next to each other, the one with the
//!   latest row last, so that its attributes win.
//! - **A batch describes one device.** Events of one user from several devices are sent in one
//!   batch for each device, since `device_info` belongs to the batch. In user mode there are no
//!   events, and device fields merge as attributes do: later rows win.
//! - **Old events travel apart**: those that the mapping has marked are sent in batches and requests
//!   of their own, to mParticle's address for historical events.
//! - **User attributes merge over all rows of the user**, later rows win, and go out with the
//!   last of the user's batches that is not historical, so that no older value can arrive after a newer one. Attributes beyond
//!   what one batch may hold go out in further batches of their own.
//! - **`source_request_id`** is the delivery's id and the number of the first row in the batch. A
//!   row is in one batch only, so the id names the batch for ever. `source_message_id` of an
//!   event is the delivery's id and the number of its row. A delivery that skips what was sent
//!   before has other ids and other batches, see `content.rs`.
//!
//! - **Rows of one transaction are one event** of a user, with the product of each: see `commerce.rs`.
//!
//! Memory: one request, and what is held of the current user, which is bounded (`MOST_HELD`).

mod changes;
mod commerce;
mod content;
mod latest;
mod members;
mod request;
mod sink;
mod text;

use crate::mapping::{EVENT_BITS, Names};
use crate::model::{DataType, DeliveryId, Environment};
use crate::mparticle::limits;
use crate::mparticle::route::Route;
use crate::record::{EventKind, Mark, Members, RecordView, settings};
pub use members::DataPlan;
pub use sink::{Batch, Batches, Made, Share, Sink, Unsendable};

use changes::Changes;
use commerce::Purchases;
use content::Content;
use latest::{Latest, name};
use members::{
    AttributeWriter, Attributes, ORIGIN_FRAME, push_belongings, push_origin, push_user,
    split_device,
};
use request::Request;
use text::{
    EVENT_FRAME, begin_batch, begin_event, push_display, push_event, push_member, push_members,
    push_number, push_object,
};

/// Events of one user that wait for their batch, over all their devices, hold at most this many
/// bytes; then they go out in batches that are not full.
const MOST_HELD: usize = 4 * 1024 * 1024;
/// Identity sets with the same first identity, and devices of one user, that are kept apart at
/// once; beyond, batches go out before they are full.
const MOST_APART: usize = 64;

/// Limits of what is written. All of mParticle's own limits are upper bounds of these.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// Batches of one request, 1 to 100.
    pub max_batches_per_request: usize,
    /// Events of one request, and so of one batch, 1 to 100.
    pub max_events_per_request: usize,
    /// Bytes of one request.
    pub max_request_bytes: usize,
    /// Bytes of one batch.
    pub max_batch_bytes: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            max_batches_per_request: limits::BATCHES_PER_REQUEST,
            max_events_per_request: limits::EVENTS_PER_REQUEST,
            max_request_bytes: limits::REQUEST_BYTES,
            max_batch_bytes: limits::BATCH_BYTES,
        }
    }
}

/// What all batches of a delivery have in common.
#[derive(Clone, Debug)]
pub struct Delivery {
    /// Names the delivery in every id.
    pub id: DeliveryId,
    /// Profiles or events.
    pub data_type: DataType,
    /// mParticle's `environment`.
    pub environment: Environment,
    /// Names of the slots in the records' settings.
    pub names: Names,
}

/// Writes the batches of one delivery. Records must come grouped: those of one user together,
/// rows ascending.
#[derive(Debug)]
pub struct Encoder {
    settings: Settings,
    delivery: Delivery,
    prefix: String,
    suffix: String,
    /// The member `data_plan` of `context`, or empty.
    plan: String,
    /// Set in a delivery that skips what was sent.
    content: Option<Content>,
    /// Set in a delivery that sends only changes.
    changes: Option<Changes>,
    /// What every event of a kind begins with, up to the number of its row.
    events: [String; 3],
    /// Purchases whose rows are still coming; empty in a delivery that has none.
    purchases: Purchases,
    user: Option<u64>,
    people: Vec<Person>,
    /// People that have been used and can be used again with their memory.
    spare: Vec<Person>,
    held: usize,
    /// Bytes of all names together, so that most records need no look at their settings.
    names_bytes: usize,
    request: Request,
    /// The request that is being filled with old events.
    old_request: Request,
    made: Made,
}

/// One set of identities.
#[derive(Debug, Default)]
struct Person {
    identities: Vec<u8>,
    first_row: u64,
    last_row: u64,
    rows: u32,
    attributes: Latest,
    /// User mode only.
    device: Latest,
    /// Event mode only.
    devices: Vec<Device>,
    spare: Vec<Device>,
}

/// The events of a person from one device.
#[derive(Debug, Default)]
struct Device {
    /// The settings as they stand in the record: what tells devices apart.
    key: Vec<u8>,
    /// Members of `device_info`.
    json: Vec<u8>,
    /// `ip` and `context`.
    origin: Vec<u8>,
    events: Vec<u8>,
    count: usize,
    /// Rows that the events are of.
    rows: u32,
    first_row: u64,
    last_row: u64,
    route: Route,
}

impl Encoder {
    /// An encoder for one delivery.
    pub fn new(settings: Settings, delivery: Delivery) -> Self {
        let environment = match delivery.environment {
            Environment::Production => "production",
            Environment::Development => "development",
        };
        Self {
            settings,
            prefix: format!("{{\"source_request_id\":\"{}-", delivery.id),
            events: EventKind::ALL.map(|kind| format!("{}{}-", begin_event(kind), delivery.id)),
            purchases: Purchases::default(),
            names_bytes: delivery.names.bytes(),
            suffix: format!("\",\"environment\":\"{environment}\",\"user_identities\":{{"),
            delivery,
            plan: String::new(),
            content: None,
            changes: None,
            user: None,
            people: Vec::new(),
            spare: Vec::new(),
            held: 0,
            request: Request::of(Route::Current),
            old_request: Request::of(Route::Historical),
            made: Made::default(),
        }
    }

    /// Adds a record.
    ///
    /// # Errors
    /// The sink's.
    pub fn push<S: Sink>(&mut self, record: RecordView<'_>, sink: &mut S) -> Result<(), S::Error> {
        if self.delivery.names.purchases {
            return self.push_perhaps_purchase(record, sink);
        }
        self.push_whole(record, 1, sink)
    }

    /// Adds a record whose event is complete and stands for `rows`: for one, if it may not fit.
    fn push_whole<S: Sink>(
        &mut self,
        record: RecordView<'_>,
        rows: u32,
        sink: &mut S,
    ) -> Result<(), S::Error> {
        if let Some(bytes) = self.too_large(&record) {
            let most = self.settings.max_batch_bytes;
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
        if self.delivery.names.purchases {
            person.note_in_any_order(&record);
        } else {
            person.last_row = record.row;
            person.attributes.set(record.attributes);
        }
        match self.delivery.data_type {
            DataType::User => {
                person.rows += 1;
                person.device.set(record.device);
                Ok(())
            }
            DataType::Event => self.push_event(at, record, rows, sink),
        }
    }

    /// Where the person of a record is kept. Whoever came before is done with.
    fn person<S: Sink>(
        &mut self,
        record: &RecordView<'_>,
        sink: &mut S,
    ) -> Result<usize, S::Error> {
        let user = match self.content.is_some() || self.delivery.names.purchases {
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
            self.make_room(user, sink)?;
        }
        self.made.users += 1;
        let mut person = self.spare.pop().unwrap_or_default();
        person.identities.extend_from_slice(record.identities);
        person.first_row = record.row;
        self.people.push(person);
        Ok(self.people.len() - 1)
    }

    /// Writes what is still held and returns how much was made in all.
    ///
    /// # Errors
    /// The sink's.
    pub fn finish<S: Sink>(mut self, sink: &mut S) -> Result<Made, S::Error> {
        self.end_purchases(sink)?;
        self.end_user(sink)?;
        self.write_gone(sink)?;
        self.request.flush(sink, &mut self.made)?;
        self.old_request.flush(sink, &mut self.made)?;
        Ok(self.made)
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
        let route = route(mark);
        let person = &mut self.people[at];
        let known = person
            .devices
            .iter()
            .rposition(|device| device.key == record.device && device.route == route);
        let device = match known {
            Some(known) => known,
            None => {
                let mut device = person.spare.pop().unwrap_or_default();
                device.describe(record.device, &self.delivery.names, &self.plan);
                device.first_row = record.row;
                device.route = route;
                person.devices.push(device);
                person.devices.len() - 1
            }
        };
        let full = {
            let members = Members::new(section, self.delivery.names.event.as_deref());
            let person = &self.people[at];
            let device = &person.devices[device];
            let others = self.head_bytes(person.identities.len(), device.size())
                + device.events.len()
                + EVENT_FRAME;
            let most = self.settings.max_batch_bytes;
            device.count > 0
                && (device.count == self.settings.max_events_per_request
                    || (others + members.bytes_at_most(self.names_bytes) > most
                        && others + members.bytes() > most))
        };
        if full {
            self.write_device(at, device, Attributes::Later, sink)?;
            let device = &mut self.people[at].devices[device];
            self.held -= device.events.len();
            device.events.clear();
            device.count = 0;
            device.rows = 0;
            device.first_row = record.row;
        }
        let device = &mut self.people[at].devices[device];
        let before = device.events.len();
        if device.count > 0 {
            device.events.push(b',');
        }
        push_event(
            &mut device.events,
            &self.events[mark.kind as usize],
            |out| push_number(out, record.row),
            Members::new(section, self.delivery.names.event.as_deref()),
        );
        self.held += device.events.len() - before;
        device.count += 1;
        device.rows += rows;
        device.last_row = record.row;
        Ok(())
    }

    /// Writes all devices' events of the current user and keeps the rest.
    fn end_devices<S: Sink>(&mut self, sink: &mut S) -> Result<(), S::Error> {
        for at in 0..self.people.len() {
            for device in 0..self.people[at].devices.len() {
                self.write_device(at, device, Attributes::Later, sink)?;
            }
            self.people[at].retire_devices();
        }
        self.held = 0;
        Ok(())
    }

    /// Writes all that is held of the current user.
    fn end_user<S: Sink>(&mut self, sink: &mut S) -> Result<(), S::Error> {
        self.people.sort_by_key(|person| person.last_row);
        self.write_people_if_changed(sink)?;
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

    /// Writes the people of the current user.
    fn write_people<S: Sink>(&mut self, sink: &mut S) -> Result<(), S::Error> {
        for at in 0..self.people.len() {
            match self.delivery.data_type {
                DataType::User => self.write_profile(at, sink)?,
                DataType::Event => {
                    let person = &mut self.people[at];
                    person.devices.sort_by_key(|device| device.last_row);
                    let count = person.devices.len();
                    let has_attributes = person.attributes.count > 0;
                    // What a user is like now has no place among what the user did long ago.
                    let is_current = |device: &Device| device.route == Route::Current;
                    let last = person.devices.iter().rposition(is_current);
                    if last.is_none() && has_attributes {
                        // All current events, if any, went out early; the attributes are to go.
                        self.write_attributes(at, 0, sink)?;
                    }
                    for device in 0..count {
                        let which = if Some(device) == last {
                            Attributes::Now
                        } else {
                            Attributes::Later
                        };
                        self.write_device(at, device, which, sink)?;
                    }
                }
            }
        }
        Ok(())
    }

    /// A batch of events, with the person's attributes if it is the last one.
    fn write_device<S: Sink>(
        &mut self,
        at: usize,
        device: usize,
        attributes: Attributes,
        sink: &mut S,
    ) -> Result<(), S::Error> {
        let person = &self.people[at];
        let Some(device) = person.devices.get(device) else {
            return Ok(());
        };
        let head = self.head_bytes(person.identities.len(), device.size());
        let alone = head + device.events.len();
        let fits = person.attributes.count <= limits::ATTRIBUTES
            && alone + person.attributes.bytes(&self.delivery.names.attributes)
                <= self.settings.max_batch_bytes;
        let now = attributes == Attributes::Now;
        let request = match device.route {
            Route::Current => &mut self.request,
            Route::Historical => &mut self.old_request,
        };
        let out = request.begin();
        begin_batch(out, &self.prefix, device.first_row, None, &self.suffix);
        push_user(out, &person.identities);
        if now && fits && person.attributes.count > 0 {
            let names = &self.delivery.names.attributes;
            let mut writer = AttributeWriter::default();
            for (name, literal) in person.attributes.members(names) {
                writer.add(out, name, literal);
            }
            writer.end(out);
        }
        push_object(out, ",\"device_info\":{", &device.json);
        out.extend_from_slice(&device.origin);
        out.extend_from_slice(b",\"events\":[");
        out.extend_from_slice(&device.events);
        out.extend_from_slice(b"]}");
        let rows = device.rows;
        request.end(rows, device.count, &self.settings, sink, &mut self.made)?;
        if now && !fits {
            self.write_attributes(at, 0, sink)?;
        }
        Ok(())
    }

    /// A person without events: one batch, or as many as the attributes need.
    fn write_profile<S: Sink>(&mut self, at: usize, sink: &mut S) -> Result<(), S::Error> {
        let rows = self.people[at].rows;
        self.write_attributes(at, rows, sink)
    }

    /// Batches without events that hold the person's attributes; the last one stands for `rows`.
    fn write_attributes<S: Sink>(
        &mut self,
        at: usize,
        rows: u32,
        sink: &mut S,
    ) -> Result<(), S::Error> {
        let event_mode = self.delivery.data_type == DataType::Event;
        let person = &self.people[at];
        let names = &self.delivery.names;
        let head = self.head_bytes(person.identities.len(), person.device.bytes(&names.device));
        let mut members = person.attributes.members(&names.attributes).peekable();
        let mut part = 0u32;
        loop {
            let out = self.request.begin();
            let part_name = (event_mode || part > 0).then_some(part);
            begin_batch(out, &self.prefix, person.first_row, part_name, &self.suffix);
            push_user(out, &person.identities);
            let mut writer = AttributeWriter::default();
            let mut size = head;
            let mut count = 0;
            while let Some((name, literal)) = members.peek() {
                let more = name.len() + literal.len() + 1;
                let full = count == limits::ATTRIBUTES
                    || (count > 0 && size + more > self.settings.max_batch_bytes);
                if full {
                    break;
                }
                writer.add(out, name, literal);
                size += more;
                count += 1;
                members.next();
            }
            writer.end(out);
            let fields = names.device.get(..names.device_info()).unwrap_or_default();
            let mut device = person.device.members(fields).peekable();
            if device.peek().is_some() {
                out.extend_from_slice(b",\"device_info\":{");
                push_members(out, device);
                out.push(b'}');
            }
            let ip = person.device.get(names.ip);
            push_origin(out, ip, person.device.get(names.location), &self.plan);
            if names.has_belongings() {
                push_belongings(out, names, |slot| person.device.get(Some(slot)));
            }
            out.push(b'}');
            let last = members.peek().is_none();
            let rows = if last { rows } else { 0 };
            self.request
                .end(rows, 0, &self.settings, sink, &mut self.made)?;
            if last {
                return Ok(());
            }
            part += 1;
        }
    }

    /// The size of a batch that could hold this record and nothing else, if it is too large.
    fn too_large(&self, record: &RecordView<'_>) -> Option<usize> {
        let whole = record.size() + self.names_bytes + EVENT_FRAME;
        if self.head_bytes(whole, 0) <= self.settings.max_batch_bytes {
            return None;
        }
        let names = &self.delivery.names;
        let device: usize = settings(record.device)
            .map(|(slot, literal)| name(&names.device, slot).len() + literal.len() + 1)
            .sum();
        let largest_attribute = settings(record.attributes)
            .map(|(slot, literal)| name(&names.attributes, slot).len() + literal.len() + 1)
            .max()
            .unwrap_or(0);
        let event = match self.delivery.data_type {
            DataType::Event => {
                let (_, members) = Mark::split(record.event);
                Members::new(members, names.event.as_deref()).bytes() + EVENT_FRAME
            }
            DataType::User => 0,
        };
        let size = self.head_bytes(record.identities.len(), device) + event.max(largest_attribute);
        (size > self.settings.max_batch_bytes).then_some(size)
    }

    /// An upper bound of a batch's size beside its events and attributes.
    fn head_bytes(&self, identities: usize, device: usize) -> usize {
        const PUNCTUATION: usize = 128;
        let names = &self.delivery.names;
        let origin = match names.device_info() < names.device.len() || !self.plan.is_empty() {
            true => ORIGIN_FRAME + self.plan.len(),
            false => 0,
        };
        PUNCTUATION + self.prefix.len() + self.suffix.len() + identities + device + origin
    }
}

/// Where an event goes.
fn route(mark: Mark) -> Route {
    match mark.old {
        true => Route::Historical,
        false => Route::Current,
    }
}

impl Person {
    /// Takes note of a row among rows that come in any order. The first of those with attributes names
    /// the batches of attributes: each is noted once, so that no name is used twice.
    fn note_in_any_order(&mut self, record: &RecordView<'_>) {
        if self.attributes.count == 0 {
            self.first_row = record.row;
        } else if !record.attributes.is_empty() {
            self.first_row = self.first_row.min(record.row);
        }
        self.last_row = self.last_row.max(record.row);
        self.attributes.set_if_later(record.attributes, record.row);
    }

    fn clear(&mut self) {
        self.identities.clear();
        self.rows = 0;
        self.attributes.clear();
        self.device.clear();
        self.retire_devices();
    }

    fn retire_devices(&mut self) {
        for mut device in self.devices.drain(..) {
            device.clear();
            if self.spare.is_empty() {
                self.spare.push(device);
            }
        }
    }
}

impl Device {
    /// `section` is the device of a record.
    fn describe(&mut self, section: &[u8], names: &Names, plan: &str) {
        self.key.extend_from_slice(section);
        split_device(section, names, plan, &mut self.json, &mut self.origin);
    }

    /// Bytes that it takes of each batch.
    fn size(&self) -> usize {
        self.json.len() + self.origin.len()
    }

    fn clear(&mut self) {
        self.key.clear();
        self.json.clear();
        self.origin.clear();
        self.events.clear();
        self.count = 0;
        self.rows = 0;
    }
}

#[cfg(test)]
mod tests;
