//! The columns that make an event's `data`, and one row of them.

use jiff::tz::TimeZone;

use super::cells::{Attribute, Spelling, attribute_value, event_type, integer_value, text_value};
use super::commerce::{self, CommerceColumns};
use super::error::Rejection;
use super::historical::Ages;
use super::notes::{Note, Tally};
use super::pivot::PivotColumn;
use super::plan::{MOST_ATTRIBUTES, MOST_NAME_CHARACTERS};
use super::{time, values};
use crate::model::Row;
use crate::record::{EventKind, FIRST_ATTRIBUTE, Mark, Member, begin_setting, end_setting};

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
    pub(super) event_id: Vec<usize>,
    pub(super) session_id: Vec<usize>,
    pub(super) session_uuid: Vec<usize>,
    /// Slot and `"name":`
    pub(super) attributes: Vec<(usize, Box<str>)>,
    /// Pivoted columns that go to attributes.
    pub(super) pivoted: Vec<PivotColumn>,
    /// The zone of dates without an offset, as far as it is known.
    pub(super) zone: Option<TimeZone>,
    /// What is written for an attribute that is null.
    pub(super) null: &'static [u8],
    pub(super) spelling: Spelling,
    /// A row must have a time or an id, so that it can be told from others.
    pub(super) must_be_distinct: bool,
    /// Which events are so old that they are marked.
    pub(super) ages: Ages,
    /// Members are settings and not written out.
    pub(super) by_slot: bool,
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
        let commerce = match kind {
            EventKind::Custom => {
                self.write_custom(row, out, tally);
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
            self.commerce
                .end(begun, row, out, &self.name, self.spelling, tally);
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

    fn end(&self, out: &mut Vec<u8>, start: usize) {
        if self.by_slot {
            end_setting(out, start);
        }
    }

    /// Writes what every custom event has.
    fn write_custom(&self, row: &Row<'_>, out: &mut Vec<u8>, tally: &mut Tally) {
        let start = self.begin(out, Member::Name);
        if !self
            .name
            .iter()
            .any(|&slot| text_value(out, row, slot, MOST_NAME_CHARACTERS, self.spelling, tally))
        {
            out.extend_from_slice(b"\"looker_custom_event\"");
        }
        self.end(out, start);
        let start = self.begin(out, Member::CustomType);
        let kind = self
            .custom_type
            .iter()
            .find_map(|&slot| event_type(row, slot, tally))
            .unwrap_or("other");
        values::quoted(out, kind);
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
            match integer_value(row, slot) {
                Some(Ok(digits)) => {
                    let start = self.begin(out, Member::Time);
                    out.extend_from_slice(digits.as_bytes());
                    // `values::integer` has seen to it that this can be read.
                    let mut millis: i64 = digits.parse().unwrap_or(i64::MAX);
                    if time::are_seconds(&digits) {
                        out.extend_from_slice(b"000");
                        tally.add(Note::FromSeconds, slot, row.number);
                        millis = millis.saturating_mul(1000);
                    }
                    self.end(out, start);
                    return Ok(Some(millis));
                }
                Some(Err(())) => {
                    let moment = values::plain_text(row.value(slot))
                        .and_then(|text| time::moment(&text, self.zone.as_ref()));
                    let (millis, note) = match moment {
                        Some(time::Moment::Date(millis)) => (millis, Note::FromDate),
                        Some(time::Moment::DateAsUtc(millis)) => (millis, Note::FromDateAsUtc),
                        Some(time::Moment::Seconds(millis)) => (millis, Note::FromSeconds),
                        None => return Err(Rejection::Timestamp(columns[slot].clone())),
                    };
                    tally.add(note, slot, row.number);
                    let start = self.begin(out, Member::Time);
                    out.extend_from_slice(millis.to_string().as_bytes());
                    self.end(out, start);
                    return Ok(Some(millis));
                }
                None => {}
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
                Some(Ok(digits)) => {
                    let start = self.begin(out, member);
                    out.extend_from_slice(digits.as_bytes());
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
    fn attribute(&self) -> Attribute {
        Attribute {
            lists: false,
            null: self.null,
            spelling: self.spelling,
        }
    }

    fn write_attributes_by_slot(&self, row: &Row<'_>, out: &mut Vec<u8>, tally: &mut Tally) {
        let how = self.attribute();
        let mut written = 0;
        for ((slot, _), place) in self.attributes.iter().zip(FIRST_ATTRIBUTE..) {
            let before = out.len();
            let start = begin_setting(out, place);
            attribute_value(out, row, *slot, tally, how);
            if out.len() > start && written == MOST_ATTRIBUTES {
                out.truncate(before);
                tally.add(Note::TooMany, *slot, row.number);
                continue;
            }
            written += usize::from(out.len() > start);
            end_setting(out, start);
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
            attribute_value(out, row, *slot, tally, how);
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
            for (name, literal) in column.members(row, tally, how) {
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
