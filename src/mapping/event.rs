//! The columns that make an event's `data`, and one row of them.

use jiff::tz::TimeZone;

use super::cells::{Attribute, Spelling, attribute_value, event_type, integer_value, text_value};
use super::commerce::{self, CommerceColumns};
use super::error::Rejection;
use super::historical::Ages;
use super::notes::{Note, Tally};
use super::plan::{MOST_ATTRIBUTES, MOST_NAME_CHARACTERS};
use super::{time, values};
use crate::model::Row;
use crate::record::{EventKind, Mark};

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
    /// The zone of dates without an offset, as far as it is known.
    pub(super) zone: Option<TimeZone>,
    /// What is written for an attribute that is null.
    pub(super) null: &'static [u8],
    pub(super) spelling: Spelling,
    /// A row must have a time or an id, so that it can be told from others.
    pub(super) must_be_distinct: bool,
    /// Which events are so old that they are marked.
    pub(super) ages: Ages,
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
        is_distinct |= write_integer(out, row, &self.event_id, "event_id", tally);
        if self.must_be_distinct && !is_distinct {
            return Err(Rejection::NotDistinct);
        }
        self.write_session(row, out, tally);
        self.write_attributes(row, out, tally);
        if let Some(begun) = commerce {
            self.commerce
                .end(begun, row, out, &self.name, self.spelling, tally);
        }
        Ok(())
    }

    /// Writes what every custom event has.
    fn write_custom(&self, row: &Row<'_>, out: &mut Vec<u8>, tally: &mut Tally) {
        out.extend_from_slice(b"\"event_name\":");
        if !self
            .name
            .iter()
            .any(|&slot| text_value(out, row, slot, MOST_NAME_CHARACTERS, self.spelling, tally))
        {
            out.extend_from_slice(b"\"looker_custom_event\"");
        }
        out.extend_from_slice(b",\"custom_event_type\":");
        let kind = self
            .custom_type
            .iter()
            .find_map(|&slot| event_type(row, slot, tally))
            .unwrap_or("other");
        out.push(b'"');
        out.extend_from_slice(kind.as_bytes());
        out.push(b'"');
    }

    fn write_session(&self, row: &Row<'_>, out: &mut Vec<u8>, tally: &mut Tally) {
        write_integer(out, row, &self.session_id, "session_id", tally);
        for &slot in &self.session_uuid {
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
    }

    /// Whether a mark stands before the members. A custom event without a time needs none.
    fn is_marked(&self) -> bool {
        (self.ages.matter() && !self.timestamp.is_empty()) || !self.kind.is_empty()
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
                    member(out, "timestamp_unixtime_ms", &digits);
                    // `values::integer` has seen to it that this can be read.
                    let mut millis: i64 = digits.parse().unwrap_or(i64::MAX);
                    if time::are_seconds(&digits) {
                        out.extend_from_slice(b"000");
                        tally.add(Note::FromSeconds, slot, row.number);
                        millis = millis.saturating_mul(1000);
                    }
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
                    member(out, "timestamp_unixtime_ms", &millis.to_string());
                    return Ok(Some(millis));
                }
                None => {}
            }
        }
        Ok(None)
    }

    fn write_attributes(&self, row: &Row<'_>, out: &mut Vec<u8>, tally: &mut Tally) {
        let how = Attribute {
            lists: false,
            null: self.null,
            spelling: self.spelling,
        };
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
        if written == 0 {
            out.truncate(begin);
        } else {
            out.push(b'}');
        }
    }
}

/// Writes the first of the columns that is a whole number; whether there is one.
fn write_integer(
    out: &mut Vec<u8>,
    row: &Row<'_>,
    slots: &[usize],
    name: &str,
    tally: &mut Tally,
) -> bool {
    for &slot in slots {
        match integer_value(row, slot) {
            Some(Ok(digits)) => {
                member(out, name, &digits);
                return true;
            }
            Some(Err(())) => tally.add(Note::NotAnInteger, slot, row.number),
            None => {}
        }
    }
    false
}

fn member(out: &mut Vec<u8>, name: &str, literal: &str) {
    out.extend_from_slice(b",\"");
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b"\":");
    out.extend_from_slice(literal.as_bytes());
}
