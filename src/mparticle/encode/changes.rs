//! A delivery of profiles that sends only changes: what decides is not here, but behind the
//! [`Sink`], which is told a fingerprint of each user and where the user was put.
//!
//! The unit is all people with the same [`RecordView::user`](crate::record::RecordView::user): they share their first identity, so
//! which of them is sent last decides what mParticle has of them, and none can be passed over alone.
//!
//! A fingerprint is of the very batches that would be sent, written under an id that is the same in
//! all deliveries: whatever a batch may ever say of a user is in it. To which account it goes is for
//! the one to tell apart who remembers it.

use std::convert::Infallible;
use std::hash::Hasher;
use std::mem::{replace, swap, take};

use siphasher::sip128::{Hasher128, SipHasher13};

use crate::model::DataType;
use crate::mparticle::route::Route;
use crate::record::{RecordView, begin_setting, end_setting, parts, push_part};

use super::members::{AttributeWriter, push_origin, push_user};
use super::request::Request;
use super::{Batches, Encoder, Sink, Unsendable, push_display};

/// What a batch begins with while its fingerprint is made.
const PREFIX: &str = "{\"source_request_id\":\"";

/// What an encoder needs that sends only changes.
#[derive(Debug)]
pub(super) struct Changes {
    key: [u8; 16],
    /// The attribute of an audience: `"name":`, and the setting that sets it to true.
    attribute: Option<(Box<str>, Vec<u8>)>,
    /// The current user has more people than are held at once, so there is no fingerprint of all.
    crowded: bool,
    people: Vec<u8>,
    gone: u64,
    /// What takes the place of the encoder's own while a fingerprint is made.
    prefix: String,
    request: Request,
    first_rows: Vec<u64>,
}

impl Encoder {
    /// Asks the sink of each user whether they are known. Records must come sorted by user under a
    /// key that is the same in all deliveries that are compared. `key` makes fingerprints
    /// unforeseeable. `attribute` is set to true for all users, and to false for those that the sink
    /// names at the end. Without effect on events.
    pub fn sending_changes(mut self, key: [u8; 16], attribute: Option<&str>) -> Self {
        if self.delivery.data_type != DataType::User {
            return self;
        }
        let attribute = attribute.map(|name| {
            let names = &mut self.delivery.names.attributes;
            let slot = u16::try_from(names.len()).unwrap_or(u16::MAX);
            let name: Box<str> = format!("{}:", serde_json::Value::from(name)).into();
            names.push(name.clone());
            let mut setting = Vec::new();
            let start = begin_setting(&mut setting, slot);
            setting.extend_from_slice(b"true");
            end_setting(&mut setting, start);
            (name, setting)
        });
        self.names_bytes = self.delivery.names.bytes();
        self.changes = Some(Changes {
            key,
            attribute,
            crowded: false,
            people: Vec::new(),
            gone: 0,
            prefix: PREFIX.to_owned(),
            request: Request::default(),
            first_rows: Vec::new(),
        });
        self
    }

    /// Goes over to a user. Whoever came before is done with.
    pub(super) fn begin_user<S: Sink>(&mut self, user: u64, sink: &mut S) -> Result<(), S::Error> {
        if self.user == Some(user) {
            return Ok(());
        }
        self.end_user(sink)?;
        self.user = Some(user);
        if let Some(changes) = &mut self.changes {
            changes.crowded = false;
        }
        Ok(())
    }

    /// Writes the people that are held of a user, although more of them are to come.
    pub(super) fn make_room<S: Sink>(&mut self, user: u64, sink: &mut S) -> Result<(), S::Error> {
        if let Some(changes) = &mut self.changes {
            changes.crowded = true;
        }
        self.end_user(sink)?;
        self.user = Some(user);
        Ok(())
    }

    /// Writes the current user, unless only changes are sent and the sink knows them as they are.
    pub(super) fn write_people_if_changed<S: Sink>(
        &mut self,
        sink: &mut S,
    ) -> Result<(), S::Error> {
        let Some(changes) = &mut self.changes else {
            return self.write_people(sink);
        };
        let Some(user) = self.user else {
            return Ok(());
        };
        changes.people.clear();
        for person in &mut self.people {
            push_part(&mut changes.people, &person.identities);
            if let Some((_, setting)) = &changes.attribute {
                person.attributes.set(setting);
            }
        }
        // Nobody at all: their rows can be put into no batch. They are in the result all the same.
        let whole = !changes.crowded && !self.people.is_empty();
        let people = take(&mut changes.people);
        let fingerprint = match whole {
            true => self.fingerprint(),
            false => None,
        };
        let known = sink.is_known(user, fingerprint, &people);
        if let Some(changes) = &mut self.changes {
            changes.people = people;
        }
        if known? {
            for person in &self.people {
                self.made.unchanged_rows += u64::from(person.rows);
                self.made.unchanged_users += 1;
            }
            return Ok(());
        }
        // The request that is being filled, or one behind it.
        let first = self.made.requests;
        self.write_people(sink)?;
        match fingerprint {
            Some(_) => sink.placed(first, self.made.requests),
            None => Ok(()),
        }
    }

    /// Of what would be sent of the current user.
    fn fingerprint(&mut self) -> Option<u128> {
        let changes = self.changes.as_mut()?;
        swap(&mut self.prefix, &mut changes.prefix);
        swap(&mut self.request, &mut changes.request);
        let rows = self.people.iter_mut();
        let rows = rows.map(|person| replace(&mut person.first_row, 0));
        changes.first_rows.clear();
        changes.first_rows.extend(rows);
        let made = self.made;
        let mut hash = Fingerprint(SipHasher13::new_with_key(&changes.key));
        let Ok(()) = self.write_people(&mut hash);
        let Ok(()) = self.request.flush(&mut hash, &mut self.made);
        self.made = made;
        let changes = self.changes.as_mut()?;
        for (person, row) in self.people.iter_mut().zip(&changes.first_rows) {
            person.first_row = *row;
        }
        swap(&mut self.request, &mut changes.request);
        swap(&mut self.prefix, &mut changes.prefix);
        Some(hash.0.finish128().as_u128())
    }

    /// Tells those who are not in the result any more.
    pub(super) fn write_gone<S: Sink>(&mut self, sink: &mut S) -> Result<(), S::Error> {
        let Some(changes) = &mut self.changes else {
            return Ok(());
        };
        let Some((name, _)) = &changes.attribute else {
            return Ok(());
        };
        let mut people = take(&mut changes.people);
        while sink.next_gone(&mut people)? {
            let first = self.made.requests;
            for identities in parts(&people) {
                let out = self.request.begin();
                out.extend_from_slice(self.prefix.as_bytes());
                push_display(out, format_args!("gone-{}", changes.gone));
                out.extend_from_slice(self.suffix.as_bytes());
                push_user(out, identities);
                let mut writer = AttributeWriter::default();
                writer.add(out, name, b"false");
                writer.end(out);
                push_origin(out, None, None, &self.plan);
                out.push(b'}');
                self.request
                    .end(0, 0, &self.settings, sink, &mut self.made)?;
                changes.gone += 1;
            }
            sink.placed(first, self.made.requests)?;
            self.made.gone += 1;
        }
        Ok(())
    }
}

/// Takes what would be sent and keeps a hash of it.
struct Fingerprint(SipHasher13);

impl Sink for Fingerprint {
    type Error = Infallible;

    fn request(&mut self, _: Route, batches: &mut Batches) -> Result<(), Infallible> {
        for batch in batches.iter() {
            self.0.write(&(batch.json.len() as u64).to_le_bytes());
            self.0.write(batch.json);
        }
        Ok(())
    }

    fn unsendable(&mut self, _: RecordView<'_>, _: Unsendable) -> Result<(), Infallible> {
        Ok(())
    }
}
