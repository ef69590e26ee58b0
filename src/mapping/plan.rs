//! What each column of a delivery is for, decided once from its header, and applied to each row.

use std::hash::Hasher;

use siphasher::sip::SipHasher13;

use super::cells::{
    Lists, attribute_value, device_value, event_type, identity_value, integer_value, text_value,
};
use super::notes::{Note, Tally};
use super::tags::{self, DeviceType, Identity, Tag};
use super::{Settings, Untagged, values};
use crate::model::{DataType, Field, FieldKind, Header, Row};
use crate::record::{self, Record, Section};

/// Attributes of one event, and characters of names, that mParticle takes.
/// ("Default Service Limits")
const MOST_ATTRIBUTES: usize = 100;
const MOST_NAME_CHARACTERS: usize = 256;
/// Columns that a plan can hold: settings name their slot in 16 bits.
const MOST_COLUMNS: usize = u16::MAX as usize;

/// The mapping of one delivery.
#[derive(Clone, Debug)]
pub struct Plan {
    data_type: DataType,
    columns: Vec<String>,
    fates: Vec<ColumnFate>,
    names: Names,
    identities: Vec<IdentityColumns>,
    device: Vec<DeviceColumn>,
    attributes: Vec<usize>,
    event: EventColumns,
    key: [u8; 16],
}

/// What became of one column of the result, for people who look for a missing tag.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ColumnFate {
    /// The column's full name.
    pub column: String,
    /// Where its values go, as a path in a batch; `None`: nowhere.
    pub goes_to: Option<String>,
    /// Why it goes nowhere, or what to know of where it goes.
    pub remark: Option<String>,
}

/// JSON names (with quotes and colon) of the slots in a record's settings.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Names {
    /// `"looker_<view>.<dimension>":` for each user attribute.
    pub attributes: Vec<Box<str>>,
    /// `"<field>":` for each `device_info` member.
    pub device: Vec<Box<str>>,
}

/// The delivery as a whole makes no sense.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    /// No column has an identity tag. The wording is that of Looker's own action.
    #[error(
        "Each row must specify at least 1 identity tag. Add a tag such as mp_customer_id or mp_email to a dimension of the Look, in its LookML."
    )]
    NoIdentity,
    /// A measure or table calculation with a tag, in a query with pivots.
    #[error(
        "Column {column} has the tag {tag}, but the query pivots on {pivot}, so each row holds several values of it. Remove the pivot from the Look, or the tag from the column."
    )]
    Pivoted {
        /// The tagged column.
        column: String,
        /// Its tag.
        tag: String,
        /// The first pivot.
        pivot: String,
    },
    /// More columns than a plan can hold.
    #[error("The result has {0} columns with tags; at most 65,535 can be mapped.")]
    TooManyColumns(usize),
}

/// One row cannot be sent. Its text never holds a value of the row.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Rejection {
    /// Every identity column is null, empty or absent.
    #[error("no identity: {0} null, empty or absent")]
    NoIdentity(String),
    /// The event's time is not a whole number of milliseconds.
    #[error(
        "the timestamp in column {0} is not a whole number of milliseconds since 1970 (in LookML, convert the date to unix milliseconds)"
    )]
    Timestamp(String),
}

#[derive(Clone, Debug)]
struct IdentityColumns {
    identity: Identity,
    /// `"email":`
    name: &'static str,
    slots: Vec<usize>,
}

#[derive(Clone, Debug)]
struct DeviceColumn {
    slot: usize,
    kind: DeviceType,
}

#[derive(Clone, Debug, Default)]
struct EventColumns {
    name: Vec<usize>,
    custom_type: Vec<usize>,
    timestamp: Vec<usize>,
    event_id: Vec<usize>,
    session_id: Vec<usize>,
    session_uuid: Vec<usize>,
    attributes: Vec<(usize, Box<str>)>,
}

impl Plan {
    /// Decides what each column is for. `key` makes the hashes that order users unforeseeable;
    /// any 16 bytes that are the same for the whole delivery will do.
    ///
    /// # Errors
    /// See [`PlanError`]: what makes the delivery as a whole senseless.
    pub fn new(header: &Header, settings: &Settings, key: [u8; 16]) -> Result<Self, PlanError> {
        let mut plan = Self::place_all(header, settings, key)?;
        if plan.identities.is_empty() {
            return Err(PlanError::NoIdentity);
        }
        if plan.columns.len() > MOST_COLUMNS {
            return Err(PlanError::TooManyColumns(plan.columns.len()));
        }
        plan.identities.sort_by_key(|columns| columns.identity);
        Ok(plan)
    }

    /// What each column would be for, also where the columns together make no plan, so that a
    /// person sees what is missing.
    ///
    /// # Errors
    /// [`PlanError::Pivoted`].
    pub fn preview(header: &Header, settings: &Settings) -> Result<Vec<ColumnFate>, PlanError> {
        Ok(Self::place_all(header, settings, [0; 16])?.fates)
    }

    fn place_all(header: &Header, settings: &Settings, key: [u8; 16]) -> Result<Self, PlanError> {
        let mut plan = Self {
            data_type: settings.data_type,
            columns: Vec::new(),
            fates: Vec::new(),
            names: Names::default(),
            identities: Vec::new(),
            device: Vec::new(),
            attributes: Vec::new(),
            event: EventColumns::default(),
            key,
        };
        for field in &header.fields {
            let fate = plan.place(field, header, settings)?;
            plan.fates.push(fate);
        }
        Ok(plan)
    }

    /// The columns that a row must be asked for, in the order of a row's slots.
    pub fn columns(&self) -> &[String] {
        &self.columns
    }

    /// What became of each column of the result, in Looker's order.
    pub fn fates(&self) -> &[ColumnFate] {
        &self.fates
    }

    /// Names of the slots in the records' settings.
    pub fn names(&self) -> &Names {
        &self.names
    }

    /// One sentence for each column of which the person who tagged it should know something.
    pub fn remarks(&self) -> impl Iterator<Item = String> + '_ {
        self.fates.iter().filter_map(|fate| {
            let remark = fate.remark.as_ref()?;
            Some(format!("Column {}: {remark}.", fate.column))
        })
    }

    /// Maps one row whose slots are [`Plan::columns`].
    ///
    /// # Errors
    /// The row cannot be sent; `record` is then of no use.
    pub fn map(
        &self,
        row: &Row<'_>,
        record: &mut Record,
        tally: &mut Tally,
    ) -> Result<(), Rejection> {
        record.begin(row.number);
        self.map_identities(row, record, tally)?;
        let bytes = record.section(Section::Device);
        for (slot, column) in self.device.iter().enumerate() {
            let start = record::begin_setting(bytes, slot as u16);
            device_value(bytes, row, column.slot, column.kind, tally);
            record::end_setting(bytes, start);
        }
        let bytes = record.section(Section::Attributes);
        for (slot, &column) in self.attributes.iter().enumerate() {
            let start = record::begin_setting(bytes, slot as u16);
            attribute_value(bytes, row, column, tally, Lists::Kept);
            record::end_setting(bytes, start);
        }
        if self.data_type == DataType::Event {
            self.map_event(row, record.section(Section::Event), tally)?;
        }
        record.end();
        Ok(())
    }

    /// Decides one column's fate.
    fn place(
        &mut self,
        field: &Field,
        header: &Header,
        settings: &Settings,
    ) -> Result<ColumnFate, PlanError> {
        let fate = |goes_to: Option<String>, remark: Option<String>| ColumnFate {
            column: field.name.clone(),
            goes_to,
            remark,
        };
        let mut tags = field
            .tags
            .iter()
            .map(|tag| tag.trim())
            .filter(|tag| tag.starts_with("mp_"));
        let first = tags.next();
        let more = tags.next().is_some();
        let tag = match first {
            Some(text) => match tags::tag(text) {
                Some(tag) => tag,
                None => {
                    let why = format!("not sent: {text} is not a tag that looker-feed understands");
                    return Ok(fate(None, Some(why)));
                }
            },
            None if settings.untagged == Untagged::UserAttribute
                && settings.data_type == DataType::User
                && !is_pivoted(field, header) =>
            {
                Tag::UserAttribute
            }
            None => return Ok(fate(None, None)),
        };
        if let (Some(text), Some(pivot)) = (first, header.pivots.first())
            && is_pivoted(field, header)
        {
            return Err(PlanError::Pivoted {
                column: field.name.clone(),
                tag: text.to_owned(),
                pivot: pivot.clone(),
            });
        }
        Ok(match self.assign(field, tag, settings) {
            Ok((path, remark)) => {
                let second = more.then(|| {
                    format!(
                        "it has several mp_ tags and only the first, {}, counts",
                        first.unwrap_or_default()
                    )
                });
                fate(Some(path), remark.or(second))
            }
            Err(why) => fate(None, Some(format!("not sent: {why}"))),
        })
    }

    /// Gives a column its place; the path of its values in a batch, and a remark. An error says
    /// why the column has no place.
    fn assign(
        &mut self,
        field: &Field,
        tag: Tag,
        settings: &Settings,
    ) -> Result<(String, Option<String>), String> {
        let dimension = field.name.rsplit('.').next().unwrap_or(&field.name);
        let slot = self.columns.len();
        let attribute = format!("looker_{}", field.name);
        let event_only = |what: &str| format!("{what} is for event data and this is user data");
        let twice = |columns: &[usize]| {
            (columns.len() > 1).then(|| {
                "another column has the same tag; the first of them that is not null is sent"
                    .to_owned()
            })
        };
        let place = |columns: &mut Vec<usize>, name: &str| {
            columns.push(slot);
            (format!("events[].data.{name}"), twice(columns))
        };
        let event_mode = settings.data_type == DataType::Event;
        let placed = match tag {
            Tag::Identity(identity) => {
                let name = identity.wire_name(settings.identity_names);
                let known = self
                    .identities
                    .iter()
                    .position(|columns| columns.identity == identity);
                let at = known.unwrap_or_else(|| {
                    self.identities.push(IdentityColumns {
                        identity,
                        name,
                        slots: Vec::new(),
                    });
                    self.identities.len() - 1
                });
                let slots = &mut self.identities[at].slots;
                slots.push(slot);
                (format!("user_identities.{name}"), twice(slots))
            }
            Tag::UserAttribute => {
                let json = json_name(&attribute)?;
                if self.names.attributes.contains(&json) {
                    return Err("another column has the same name".to_owned());
                }
                self.names.attributes.push(json);
                self.attributes.push(slot);
                (format!("user_attributes.\"{attribute}\""), None)
            }
            Tag::DeviceInfo => {
                let (name, kind) = tags::device_field(dimension).ok_or_else(|| {
                    format!("mParticle's device_info has no field named {dimension}")
                })?;
                let json = json_name(name)?;
                if self.names.device.contains(&json) {
                    return Err(format!("another column fills device_info.{name} already"));
                }
                self.names.device.push(json);
                self.device.push(DeviceColumn { slot, kind });
                (format!("device_info.{name}"), None)
            }
            Tag::CustomAttribute if event_mode => {
                let json = json_name(&attribute)?;
                if self.event.attributes.iter().any(|(_, name)| *name == json) {
                    return Err("another column has the same name".to_owned());
                }
                self.event.attributes.push((slot, json));
                let path = format!("events[].data.custom_attributes.\"{attribute}\"");
                let crowded = (self.event.attributes.len() > MOST_ATTRIBUTES).then(|| {
                    format!(
                        "there are more than {MOST_ATTRIBUTES} custom attributes, the most that mParticle takes of an event; of each row the first {MOST_ATTRIBUTES} that are not null are sent"
                    )
                });
                (path, crowded)
            }
            Tag::EventName if event_mode => place(&mut self.event.name, "event_name"),
            Tag::CustomEventType if event_mode => {
                place(&mut self.event.custom_type, "custom_event_type")
            }
            Tag::EventId if event_mode => place(&mut self.event.event_id, "event_id"),
            Tag::Timestamp if event_mode => {
                place(&mut self.event.timestamp, "timestamp_unixtime_ms")
            }
            Tag::SessionId if event_mode => place(&mut self.event.session_id, "session_id"),
            Tag::SessionUuid if event_mode => place(&mut self.event.session_uuid, "session_uuid"),
            Tag::CustomAttribute => return Err(event_only("mp_custom_attribute")),
            _ => return Err(event_only("its tag")),
        };
        self.columns.push(field.name.clone());
        Ok(placed)
    }

    fn map_identities(
        &self,
        row: &Row<'_>,
        record: &mut Record,
        tally: &mut Tally,
    ) -> Result<(), Rejection> {
        let mut user = 0;
        let bytes = record.section(Section::Identities);
        for columns in &self.identities {
            let start = bytes.len();
            if start > 0 {
                bytes.push(b',');
            }
            bytes.push(b'"');
            bytes.extend_from_slice(columns.name.as_bytes());
            bytes.extend_from_slice(b"\":");
            let found = columns
                .slots
                .iter()
                .any(|&slot| identity_value(bytes, row, slot, tally));
            if !found {
                bytes.truncate(start);
            } else if start == 0 {
                let mut hasher = SipHasher13::new_with_key(&self.key);
                hasher.write(bytes);
                user = hasher.finish();
            }
        }
        if bytes.is_empty() {
            return Err(Rejection::NoIdentity(self.identity_columns()));
        }
        record.user = user;
        Ok(())
    }

    fn identity_columns(&self) -> String {
        let names: Vec<_> = self
            .identities
            .iter()
            .flat_map(|columns| &columns.slots)
            .map(|&slot| self.columns[slot].as_str())
            .collect();
        match names.as_slice() {
            [one] => format!("{one} is"),
            several => format!("{} are all", several.join(", ")),
        }
    }

    fn map_event(
        &self,
        row: &Row<'_>,
        out: &mut Vec<u8>,
        tally: &mut Tally,
    ) -> Result<(), Rejection> {
        let event = &self.event;
        out.extend_from_slice(b"\"event_name\":");
        if !event
            .name
            .iter()
            .any(|&slot| text_value(out, row, slot, MOST_NAME_CHARACTERS, tally))
        {
            out.extend_from_slice(b"\"looker_custom_event\"");
        }
        out.extend_from_slice(b",\"custom_event_type\":");
        let kind = event
            .custom_type
            .iter()
            .find_map(|&slot| event_type(row, slot, tally))
            .unwrap_or("other");
        out.push(b'"');
        out.extend_from_slice(kind.as_bytes());
        out.push(b'"');
        for &slot in &event.timestamp {
            match integer_value(row, slot) {
                Some(Ok(digits)) => {
                    member(out, "timestamp_unixtime_ms", &digits);
                    break;
                }
                Some(Err(())) => return Err(Rejection::Timestamp(self.columns[slot].clone())),
                None => {}
            }
        }
        for (slots, name) in [
            (&event.event_id, "event_id"),
            (&event.session_id, "session_id"),
        ] {
            for &slot in slots {
                match integer_value(row, slot) {
                    Some(Ok(digits)) => {
                        member(out, name, &digits);
                        break;
                    }
                    Some(Err(())) => tally.add(Note::NotAnInteger, slot, row.number),
                    None => {}
                }
            }
        }
        for &slot in &event.session_uuid {
            match values::plain_text(row.value(slot))
                .as_deref()
                .map(str::trim)
            {
                Some("") | None => {}
                Some(text) if values::is_uuid(text) => {
                    out.extend_from_slice(b",\"session_uuid\":\"");
                    out.extend_from_slice(text.as_bytes());
                    out.push(b'"');
                    break;
                }
                Some(_) => tally.add(Note::NotAUuid, slot, row.number),
            }
        }
        self.map_custom_attributes(row, out, tally);
        Ok(())
    }

    fn map_custom_attributes(&self, row: &Row<'_>, out: &mut Vec<u8>, tally: &mut Tally) {
        let begin = out.len();
        out.extend_from_slice(b",\"custom_attributes\":{");
        let mut written = 0;
        for (slot, name) in &self.event.attributes {
            let start = out.len();
            if written > 0 {
                out.push(b',');
            }
            out.extend_from_slice(name.as_bytes());
            let value = out.len();
            attribute_value(out, row, *slot, tally, Lists::AsText);
            if out.len() == value {
                out.truncate(start);
            } else if written == MOST_ATTRIBUTES {
                out.truncate(start);
                tally.add(Note::TooMany, *slot, row.number);
            } else {
                written += 1;
            }
        }
        if written == 0 {
            out.truncate(begin);
        } else {
            out.push(b'}');
        }
    }
}

fn is_pivoted(field: &Field, header: &Header) -> bool {
    !header.pivots.is_empty() && field.kind != FieldKind::Dimension
}

/// `"name":`, or why mParticle would not take the name.
fn json_name(name: &str) -> Result<Box<str>, String> {
    if name.chars().count() > MOST_NAME_CHARACTERS {
        return Err(format!(
            "its attribute's name would be longer than the {MOST_NAME_CHARACTERS} characters that mParticle takes"
        ));
    }
    let mut json = serde_json::Value::from(name).to_string();
    json.push(':');
    Ok(json.into_boxed_str())
}

fn member(out: &mut Vec<u8>, name: &str, literal: &str) {
    out.extend_from_slice(b",\"");
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b"\":");
    out.extend_from_slice(literal.as_bytes());
}
