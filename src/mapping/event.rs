//! The columns that make an event's `data`, and one row of them.

use core::ops::Range;

use super::cells::{
    Attribute, Spelling, as_it_stands, attribute_setting, attribute_value, event_type,
    integer_value, text_value,
};
use super::commerce::{self, CommerceColumns};
use super::error::Rejection;
use super::historical::Ages;
use super::limits::{MOST_ATTRIBUTES, MOST_NAME_CHARACTERS};
use super::notes::{Note, Tally};
use super::pivot::PivotColumn;
use super::tags;
use super::time::{self, Times};
use super::typed::Type;
use super::values;
use crate::model::{Literal, Row, Text};
use crate::record::{
    EventKind, FIRST_ATTRIBUTE, Mark, Member, add_setting, begin_setting, end_setting,
};

/// Slots of the columns that each member of `data` is taken from, in Looker's order.
#[derive(Clone, Debug, Default)]
pub(super) struct EventColumns {
    /// Empty: all are custom events.
    pub(super) kind: Vec<usize>,
    /// Of other than custom events.
    pub(super) commerce: CommerceColumns,
    pub(super) name: Vec<usize>,
    pub(super) custom_type: Vec<usize>,
    pub(super) timestamp: Vec<usize>,
    /// Those of them that hold days, by their name or type.
    pub(super) days: Vec<usize>,
    pub(super) event_id: Vec<usize>,
    pub(super) session_id: Vec<usize>,
    pub(super) session_uuid: Vec<usize>,
    /// Slot and `"name":`
    pub(super) attributes: Vec<(usize, Box<str>)>,
    /// Pivoted columns that go to attributes.
    pub(super) pivoted: Vec<PivotColumn>,
    pub(super) times: Times,
    /// What is written for an attribute that is null.
    pub(super) null: &'static [u8],
    pub(super) spelling: Spelling,
    /// A row must have a time or an id, so that it can be told from others.
    pub(super) must_be_distinct: bool,
    /// Which events are so old that they are marked.
    pub(super) ages: Ages,
    /// Members are settings and not written out.
    pub(super) by_slot: bool,
    /// What attributes are turned into, by slot; empty: they stay as they are.
    pub(super) types: Vec<Type>,
    /// Different names that are counted.
    pub(super) most_names: usize,
}

impl EventColumns {
    /// Writes the members of one event's `data`, behind its mark if it can have one. `columns` are the names of the slots.
    pub(super) fn write(
        &self,
        row: &Row<'_>,
        out: &mut Vec<u8>,
        columns: &[String],
        tally: &mut Tally,
    ) -> Result<(), Rejection> {
        let kind = match self.kind.as_slice() {
            [] => EventKind::Custom,
            slots => commerce::event_kind(row, slots, columns, tally)?,
        };
        let start = out.len();
        if self.is_marked() {
            out.push(Mark::default().byte());
        }
        let mut name = 0..0;
        let commerce = match kind {
            EventKind::Custom => {
                name = self.write_custom(row, out, columns, tally)?;
                None
            }
            EventKind::ScreenView => {
                let slots = &self.commerce.screen;
                commerce::write_screen(row, slots, out, self.spelling, tally)?;
                None
            }
            EventKind::Commerce => Some(self.commerce.begin(row, out, columns, tally)?),
        };
        let time = self.write_time(row, out, columns, tally)?;
        let mark = Mark {
            old: self.ages.is_old(time)?,
            kind,
        };
        if mark != Mark::default()
            && let Some(place) = out.get_mut(start)
        {
            *place = mark.byte();
        }
        let mut is_distinct = time.is_some() || commerce.as_ref().is_some_and(|one| one.is_grouped);
        is_distinct |= self.write_integer(out, row, &self.event_id, Member::Id, tally);
        if self.must_be_distinct && !is_distinct {
            return Err(Rejection::NotDistinct);
        }
        self.write_session(row, out, tally);
        match self.by_slot {
            true => self.write_attributes_by_slot(row, out, tally),
            false => self.write_attributes(row, out, tally),
        }
        if let Some(begun) = commerce {
            name = self
                .commerce
                .end(begun, row, out, &self.name, self.spelling, tally);
        }
        // Of an event that is sent only.
        if !self.name.is_empty()
            && let Some(name) = out.get(name).filter(|name| !name.is_empty())
        {
            tally.event_names.add(name, self.most_names);
        }
        Ok(())
    }

    /// Begins a member; what is appended to `out` until [`Self::end`] is its literal.
    fn begin(&self, out: &mut Vec<u8>, member: Member) -> usize {
        if self.by_slot {
            return begin_setting(out, member as u16);
        }
        out.extend_from_slice(member.name().as_bytes());
        out.len()
    }

    /// Writes a member whose literal is that of the row; returns where it lies now.
    #[inline(always)] // For every member of every row.
    fn add(&self, out: &mut Vec<u8>, member: Member, literal: Literal<'_>) -> Range<usize> {
        match self.by_slot {
            true => add_setting(out, member as u16, literal),
            false => {
                out.extend_from_slice(member.name().as_bytes());
                literal.append_to(out);
            }
        }
        out.len() - literal.len()..out.len()
    }

    /// Returns where the literal lies now.
    fn end(&self, out: &mut Vec<u8>, start: usize) -> Range<usize> {
        match self.by_slot {
            true => end_setting(out, start),
            false => start..out.len(),
        }
    }

    /// Writes what every custom event has. Returns where its name stands.
    fn write_custom(
        &self,
        row: &Row<'_>,
        out: &mut Vec<u8>,
        columns: &[String],
        tally: &mut Tally,
    ) -> Result<Range<usize>, Rejection> {
        let name = match name_as_it_stands(row, &self.name, self.spelling) {
            Some(literal) => self.add(out, Member::Name, literal),
            None => self.write_name(row, out, columns, tally)?,
        };
        match type_as_it_stands(row, &self.custom_type) {
            Some(literal) => _ = self.add(out, Member::CustomType, literal),
            None => self.write_type(row, out, tally),
        }
        Ok(name)
    }

    fn write_name(
        &self,
        row: &Row<'_>,
        out: &mut Vec<u8>,
        columns: &[String],
        tally: &mut Tally,
    ) -> Result<Range<usize>, Rejection> {
        let start = self.begin(out, Member::Name);
        let slot = self
            .name
            .iter()
            .find(|&&slot| text_value(out, row, slot, MOST_NAME_CHARACTERS, self.spelling, tally));
        match slot {
            Some(slot) if is_blank(out.get(start..).unwrap_or_default()) => {
                let column = columns.get(*slot).cloned().unwrap_or_default();
                return Err(Rejection::BlankEventName(column));
            }
            Some(_) => {}
            None => out.extend_from_slice(b"\"looker_custom_event\""),
        }
        Ok(self.end(out, start))
    }

    fn write_type(&self, row: &Row<'_>, out: &mut Vec<u8>, tally: &mut Tally) {
        let start = self.begin(out, Member::CustomType);
        let mut slots = self.custom_type.iter();
        let kind = slots.find_map(|&slot| event_type(row, slot, tally));
        values::quoted(out, kind.unwrap_or("other"));
        self.end(out, start);
    }

    fn write_session(&self, row: &Row<'_>, out: &mut Vec<u8>, tally: &mut Tally) {
        self.write_integer(out, row, &self.session_id, Member::SessionId, tally);
        for &slot in &self.session_uuid {
            match values::plain_text(row.value(slot))
                .as_deref()
                .map(str::trim)
            {
                Some("") | None => {}
                Some(text) if values::is_uuid(text) => {
                    let start = self.begin(out, Member::SessionUuid);
                    values::quoted(out, text);
                    self.end(out, start);
                    break;
                }
                Some(_) => tally.add(Note::NotAUuid, slot, row.number),
            }
        }
    }

    /// Whether a mark stands before the members. A custom event without a time needs none, unless its
    /// first byte could be taken for one.
    fn is_marked(&self) -> bool {
        self.by_slot || (self.ages.matter() && !self.timestamp.is_empty()) || !self.kind.is_empty()
    }

    /// Writes the event's time and returns it: milliseconds since 1970.
    fn write_time(
        &self,
        row: &Row<'_>,
        out: &mut Vec<u8>,
        columns: &[String],
        tally: &mut Tally,
    ) -> Result<Option<i64>, Rejection> {
        for &slot in &self.timestamp {
            if let Some(literal) = row.number(slot)
                && let Some(millis) = self.times.plain_millis(literal.bytes())
            {
                self.add(out, Member::Time, literal);
                return Ok(Some(millis));
            }
            let value = row.value(slot);
            match self.times.read(value, self.days.contains(&slot)) {
                None => {}
                Some(Ok(moment)) => {
                    if let Some(note) = moment.note {
                        tally.add(note, slot, row.number);
                    }
                    let start = self.begin(out, Member::Time);
                    out.extend_from_slice(itoa::Buffer::new().format(moment.millis).as_bytes());
                    self.end(out, start);
                    return Ok(Some(moment.millis));
                }
                Some(Err(guess)) => {
                    return Err(Rejection::Timestamp {
                        column: columns.get(slot).cloned().unwrap_or_default(),
                        guess,
                        value: time::quoted(value),
                    });
                }
            }
        }
        Ok(None)
    }

    /// Writes the first of the columns that is a whole number; whether there is one.
    fn write_integer(
        &self,
        out: &mut Vec<u8>,
        row: &Row<'_>,
        slots: &[usize],
        member: Member,
        tally: &mut Tally,
    ) -> bool {
        for &slot in slots {
            match integer_value(row, slot) {
                Some(Ok(number)) => {
                    let start = self.begin(out, member);
                    out.extend_from_slice(itoa::Buffer::new().format(number).as_bytes());
                    self.end(out, start);
                    return true;
                }
                Some(Err(())) => tally.add(Note::NotAnInteger, slot, row.number),
                None => {}
            }
        }
        false
    }

    /// How custom attributes are written.
    fn attribute(&self) -> Attribute<'_> {
        Attribute {
            lists: false,
            null: self.null,
            spelling: self.spelling,
            types: &self.types,
            times: &self.times,
        }
    }

    fn write_attributes_by_slot(&self, row: &Row<'_>, out: &mut Vec<u8>, tally: &mut Tally) {
        let how = self.attribute();
        let mut written = 0;
        for ((slot, _), place) in self.attributes.iter().zip(FIRST_ATTRIBUTE..) {
            let before = out.len();
            let is_there = attribute_setting(out, place, row, *slot, tally, &how);
            if is_there && written == MOST_ATTRIBUTES {
                out.truncate(before);
                tally.add(Note::TooMany, *slot, row.number);
            } else {
                written += usize::from(is_there);
            }
        }
    }

    fn write_attributes(&self, row: &Row<'_>, out: &mut Vec<u8>, tally: &mut Tally) {
        let how = self.attribute();
        let begin = out.len();
        out.extend_from_slice(b",\"custom_attributes\":{");
        let mut written = 0;
        for (slot, name) in &self.attributes {
            let start = out.len();
            if written > 0 {
                out.push(b',');
            }
            out.extend_from_slice(name.as_bytes());
            let value = out.len();
            attribute_value(out, row, *slot, tally, &how);
            if out.len() == value {
                out.truncate(start);
            } else if written == MOST_ATTRIBUTES {
                out.truncate(start);
                tally.add(Note::TooMany, *slot, row.number);
            } else {
                written += 1;
            }
        }
        for column in &self.pivoted {
            for (name, literal) in column.members(row, tally, &how) {
                if written == MOST_ATTRIBUTES {
                    tally.add(Note::TooMany, column.slot, row.number);
                    continue;
                }
                if written > 0 {
                    out.push(b',');
                }
                out.extend_from_slice(name.as_bytes());
                out.extend_from_slice(&literal);
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

/// An event's name to which nothing is to be done, if the first of its columns has one.
#[inline]
fn name_as_it_stands<'a>(
    row: &Row<'a>,
    slots: &[usize],
    spelling: Spelling,
) -> Option<Literal<'a>> {
    let literal = as_it_stands(row, *slots.first()?, MOST_NAME_CHARACTERS, spelling)?;
    let first = literal.bytes().get(1)?;
    first.is_ascii_alphanumeric().then_some(literal)
}

/// The same of an event's type.
#[inline]
fn type_as_it_stands<'a>(row: &Row<'a>, slots: &[usize]) -> Option<Literal<'a>> {
    let literal = row.plain(*slots.first()?)?;
    tags::is_event_type(literal.bytes()).then_some(literal)
}

/// Whether nothing can be seen in a JSON string.
fn is_blank(literal: &[u8]) -> bool {
    let content = literal.get(1..literal.len().max(1) - 1).unwrap_or_default();
    let raw = std::str::from_utf8(content).unwrap_or_default();
    let escaped = raw.contains('\\');
    values::is_blank(Text { raw, escaped })
}
