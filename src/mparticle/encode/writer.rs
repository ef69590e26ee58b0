//! Batches, written into the requests that are being filled.

use crate::mapping::Names;
use crate::model::{DataType, Environment};
use crate::mparticle::limits;
use crate::mparticle::route::Route;
use crate::record::{EventKind, Mark, Members, RecordView, settings};

use super::content::ContentId;
use super::latest::name;
use super::members::DataPlan;
use super::members::{
    AttributeWriter, Attributes, ORIGIN_FRAME, push_batch_columns, push_origin, push_user,
};
use super::person::{Device, Person};
use super::request::Request;
use super::sink::{Made, Sink};
use super::text::{
    EVENT_FRAME, begin_batch, begin_event, push_display, push_event, push_members, push_number,
    push_object,
};
use super::{Delivery, Settings};

/// Where an event goes.
pub(super) fn route_of(mark: Mark) -> Route {
    match mark.old {
        true => Route::Historical,
        false => Route::Current,
    }
}

/// Writes the batches of one delivery.
#[derive(Debug)]
pub(super) struct Writer {
    pub(super) settings: Settings,
    pub(super) delivery: Delivery,
    /// What every batch begins with, up to the number of its first row.
    pub(super) prefix: String,
    suffix: String,
    /// The member `data_plan` of `context`, or empty.
    plan: String,
    /// What every event of a kind begins with, up to the number of its row.
    events: [String; 3],
    /// Bytes of all names together, so that most records need no look at their settings.
    names_bytes: usize,
    pub(super) request: Request,
    /// The request that is being filled with old events.
    old_request: Request,
    pub(super) made: Made,
}

impl Writer {
    pub(super) fn new(settings: Settings, delivery: Delivery) -> Self {
        let environment = match delivery.environment {
            Environment::Production => "production",
            Environment::Development => "development",
        };
        Self {
            settings,
            prefix: format!("{{\"source_request_id\":\"{}-", delivery.id),
            suffix: format!("\",\"environment\":\"{environment}\",\"user_identities\":{{"),
            plan: String::new(),
            events: EventKind::ALL.map(|kind| format!("{}{}-", begin_event(kind), delivery.id)),
            names_bytes: delivery.names.bytes(),
            delivery,
            request: Request::of(Route::Current),
            old_request: Request::of(Route::Historical),
            made: Made::default(),
        }
    }

    /// Every batch names this data plan.
    pub(super) fn name_plan(&mut self, plan: &DataPlan) {
        let id = serde_json::Value::from(plan.id.as_str());
        self.plan = match plan.version {
            Some(version) => {
                format!("\"data_plan\":{{\"plan_id\":{id},\"plan_version\":{version}}}")
            }
            None => format!("\"data_plan\":{{\"plan_id\":{id}}}"),
        };
    }

    /// Adds a user attribute that is none of the records'; its slot.
    pub(super) fn add_attribute(&mut self, name: Box<str>) -> u16 {
        let names = &mut self.delivery.names.attributes;
        let slot = u16::try_from(names.len()).unwrap_or(u16::MAX);
        names.push(name);
        self.names_bytes = self.delivery.names.bytes();
        slot
    }

    pub(super) fn names(&self) -> &Names {
        &self.delivery.names
    }

    /// The member `data_plan` of `context`, or empty.
    pub(super) fn plan(&self) -> &str {
        &self.plan
    }

    /// Hands out the requests that are not full.
    pub(super) fn finish<S: Sink>(mut self, sink: &mut S) -> Result<Made, S::Error> {
        self.request.flush(sink, &mut self.made)?;
        self.old_request.flush(sink, &mut self.made)?;
        Ok(self.made)
    }

    /// Whether a batch has no room for an event beside those that wait for it.
    pub(super) fn is_full(&self, person: &Person, device: &Device, members: Members<'_>) -> bool {
        let others = self.head_bytes(person.identities.len(), device.size())
            + device.events.len()
            + EVENT_FRAME;
        let most = self.settings.max_batch_bytes;
        device.count > 0
            && (device.count == self.settings.max_events_per_request
                || (others + members.bytes_at_most(self.names_bytes) > most
                    && others + members.bytes() > most))
    }

    /// Adds an event to those that wait for their batch.
    pub(super) fn add_event(
        &self,
        device: &mut Device,
        mark: Mark,
        members: Members<'_>,
        row: u64,
    ) {
        if device.count > 0 {
            device.events.push(b',');
        }
        push_event(
            &mut device.events,
            &self.events[mark.kind as usize],
            |out| push_number(out, row),
            members,
        );
        device.count += 1;
        device.last_row = row;
    }

    /// Writes all that is held of some people, who are in the order in which they are to arrive.
    pub(super) fn write_people<S: Sink>(
        &mut self,
        people: &mut [Person],
        sink: &mut S,
    ) -> Result<(), S::Error> {
        for person in people {
            match self.delivery.data_type {
                // One batch, or as many as the attributes need.
                DataType::User => self.write_attributes(person, person.rows, sink)?,
                DataType::Event => self.write_events(person, sink)?,
            }
        }
        Ok(())
    }

    fn write_events<S: Sink>(&mut self, person: &mut Person, sink: &mut S) -> Result<(), S::Error> {
        person.devices.sort_by_key(|device| device.last_row);
        let has_attributes = person.attributes.count > 0;
        // What a user is like now has no place among what the user did long ago.
        let is_current = |device: &Device| device.route == Route::Current;
        let last = person.devices.iter().rposition(is_current);
        if last.is_none() && has_attributes {
            // All current events, if any, went out early; the attributes are to go.
            self.write_attributes(person, 0, sink)?;
        }
        for (at, device) in person.devices.iter().enumerate() {
            let which = match Some(at) == last {
                true => Attributes::Now,
                false => Attributes::Later,
            };
            self.write_device(person, device, which, sink)?;
        }
        Ok(())
    }

    /// A batch of events, with the person's attributes if it is the last one.
    pub(super) fn write_device<S: Sink>(
        &mut self,
        person: &Person,
        device: &Device,
        attributes: Attributes,
        sink: &mut S,
    ) -> Result<(), S::Error> {
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
            self.write_attributes(person, 0, sink)?;
        }
        Ok(())
    }

    /// A batch of one event under an id that says what the event says; `device` is that of the record.
    pub(super) fn write_alone<S: Sink>(
        &mut self,
        id: ContentId,
        record: &RecordView<'_>,
        device: &Device,
        rows: u32,
        sink: &mut S,
    ) -> Result<(), S::Error> {
        let (mark, members) = Mark::split(record.event);
        let members = Members::new(members, self.delivery.names.event.as_deref());
        let request = match route_of(mark) {
            Route::Current => &mut self.request,
            Route::Historical => &mut self.old_request,
        };
        let out = request.begin();
        out.extend_from_slice(b"{\"source_request_id\":\"");
        push_display(out, format_args!("{id}"));
        out.extend_from_slice(self.suffix.as_bytes());
        push_user(out, record.identities);
        push_object(out, ",\"device_info\":{", &device.json);
        out.extend_from_slice(&device.origin);
        out.extend_from_slice(b",\"events\":[");
        let named = |out: &mut Vec<u8>| push_display(out, format_args!("{id}"));
        push_event(out, begin_event(mark.kind), named, members);
        out.extend_from_slice(b"]}");
        request.end(rows, 1, &self.settings, sink, &mut self.made)
    }

    /// A batch that sets one attribute of somebody who is not in the result any more: `number` tells
    /// them apart.
    pub(super) fn write_gone<S: Sink>(
        &mut self,
        number: u64,
        identities: &[u8],
        attribute: &str,
        sink: &mut S,
    ) -> Result<(), S::Error> {
        let out = self.request.begin();
        out.extend_from_slice(self.prefix.as_bytes());
        push_display(out, format_args!("gone-{number}"));
        out.extend_from_slice(self.suffix.as_bytes());
        push_user(out, identities);
        let mut writer = AttributeWriter::default();
        writer.add(out, attribute, b"false");
        writer.end(out);
        push_origin(out, None, None, &self.plan);
        out.push(b'}');
        self.request.end(0, 0, &self.settings, sink, &mut self.made)
    }

    /// Batches without events that hold the person's attributes; the last one stands for `rows`.
    fn write_attributes<S: Sink>(
        &mut self,
        person: &Person,
        rows: u32,
        sink: &mut S,
    ) -> Result<(), S::Error> {
        let event_mode = self.delivery.data_type == DataType::Event;
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
            if names.has_batch_columns() {
                push_batch_columns(out, names, |slot| person.device.get(Some(slot)));
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
    pub(super) fn too_large(&self, record: &RecordView<'_>) -> Option<usize> {
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
