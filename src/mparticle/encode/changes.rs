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
use std::mem::{replace, swap};

use siphasher::sip128::{Hasher128, SipHasher13};

use crate::mparticle::route::Route;
use crate::record::{RecordView, begin_setting, end_setting, parts, push_part};

use super::person::Person;
use super::request::Request;
use super::sink::{Batches, Sink, Unsendable};
use super::writer::Writer;

/// What a batch begins with while its fingerprint is made.
const PREFIX: &str = "{\"source_request_id\":\"";

/// What tells users who have changed from others.
#[derive(Debug)]
pub(super) struct Changes {
    key: [u8; 16],
    /// The attribute of an audience: `"name":`, and the setting that sets it to true.
    attribute: Option<(Box<str>, Vec<u8>)>,
    /// The current user has more people than are held at once, so there is no fingerprint of all.
    crowded: bool,
    people: Vec<u8>,
    gone: u64,
    /// What takes the place of the writer's own while a fingerprint is made.
    prefix: String,
    request: Request,
    first_rows: Vec<u64>,
}

impl Changes {
    /// `key` makes fingerprints unforeseeable. `attribute` is set to true for all users, and to false for
    /// those that the sink names at the end.
    pub(super) fn new(key: [u8; 16], attribute: Option<&str>, writer: &mut Writer) -> Self {
        let attribute = attribute.map(|name| {
            let name: Box<str> = format!("{}:", serde_json::Value::from(name)).into();
            let mut setting = Vec::new();
            let start = begin_setting(&mut setting, writer.add_attribute(name.clone()));
            setting.extend_from_slice(b"true");
            end_setting(&mut setting, start);
            (name, setting)
        });
        Self {
            key,
            attribute,
            crowded: false,
            people: Vec::new(),
            gone: 0,
            prefix: PREFIX.to_owned(),
            request: Request::default(),
            first_rows: Vec::new(),
        }
    }

    /// Another user begins.
    pub(super) fn begin(&mut self) {
        self.crowded = false;
    }

    /// People of the current user are written although more of them are to come.
    pub(super) fn make_room(&mut self) {
        self.crowded = true;
    }

    /// Writes a user, unless the sink knows them as they are.
    pub(super) fn write<S: Sink>(
        &mut self,
        user: u64,
        people: &mut [Person],
        writer: &mut Writer,
        sink: &mut S,
    ) -> Result<(), S::Error> {
        self.people.clear();
        for person in people.iter_mut() {
            push_part(&mut self.people, &person.identities);
            if let Some((_, setting)) = &self.attribute {
                person.attributes.set(setting);
            }
        }
        // Nobody at all: their rows can be put into no batch. They are in the result all the same.
        let whole = !self.crowded && !people.is_empty();
        let fingerprint = whole.then(|| self.fingerprint(people, writer));
        if sink.is_known(user, fingerprint, &self.people)? {
            for person in people.iter() {
                writer.made.unchanged_rows += u64::from(person.rows);
                writer.made.unchanged_users += 1;
            }
            return Ok(());
        }
        // The request that is being filled, or one behind it.
        let first = writer.made.requests;
        writer.write_people(people, sink)?;
        match fingerprint {
            Some(_) => sink.placed(first, writer.made.requests),
            None => Ok(()),
        }
    }

    /// Of what would be sent of a user.
    fn fingerprint(&mut self, people: &mut [Person], writer: &mut Writer) -> u128 {
        swap(&mut writer.prefix, &mut self.prefix);
        swap(&mut writer.request, &mut self.request);
        let rows = people.iter_mut();
        let rows = rows.map(|person| replace(&mut person.first_row, 0));
        self.first_rows.clear();
        self.first_rows.extend(rows);
        let made = writer.made;
        let mut hash = Fingerprint(SipHasher13::new_with_key(&self.key));
        let Ok(()) = writer.write_people(people, &mut hash);
        let Ok(()) = writer.request.flush(&mut hash, &mut writer.made);
        writer.made = made;
        for (person, row) in people.iter_mut().zip(&self.first_rows) {
            person.first_row = *row;
        }
        swap(&mut writer.request, &mut self.request);
        swap(&mut writer.prefix, &mut self.prefix);
        hash.0.finish128().as_u128()
    }

    /// Tells those who are not in the result any more.
    pub(super) fn write_gone<S: Sink>(
        &mut self,
        writer: &mut Writer,
        sink: &mut S,
    ) -> Result<(), S::Error> {
        let Some((name, _)) = &self.attribute else {
            return Ok(());
        };
        while sink.next_gone(&mut self.people)? {
            let first = writer.made.requests;
            for identities in parts(&self.people) {
                writer.write_gone(self.gone, identities, name, sink)?;
                self.gone += 1;
            }
            sink.placed(first, writer.made.requests)?;
            writer.made.gone += 1;
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
