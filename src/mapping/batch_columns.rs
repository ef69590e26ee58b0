//! What belongs to a batch beside the user and the device: ids at partners, and consents.

use core::ops::Range;

use super::cells::{MOST_VALUE_CHARACTERS, Spelling, note_missing, text_value};
use super::names::Names;
use super::notes::{Note, Tally};
use super::placeholders::Placeholders;
use super::time::Times;
use super::values;
use crate::model::Row;
use crate::record;

/// What such columns have in common where no time of consent is tagged.
pub(super) const CONSENT: &str = "consent_state";

/// Slot and `"name":` of each column.
type Named = Vec<(usize, Box<str>)>;

/// Slots of the columns.
#[derive(Clone, Debug, Default)]
pub(super) struct BatchColumns {
    partners: Named,
    gdpr: Named,
    ccpa: Named,
    pub(super) consent_time: Vec<usize>,
    /// Ids at partners that are none.
    placeholders: Placeholders,
}

/// An object of a batch that takes any number of columns, each under its own name.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Object {
    Partners,
    Gdpr,
    Ccpa,
}

impl BatchColumns {
    /// Without columns yet.
    pub(super) fn new(placeholders: Placeholders) -> Self {
        Self {
            placeholders,
            ..Self::default()
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.partners.is_empty() && self.gdpr.is_empty() && self.ccpa.is_empty()
    }

    /// Puts a column into an object, under this name with quotes and colon.
    pub(super) fn put(
        &mut self,
        object: Object,
        slot: usize,
        name: Box<str>,
    ) -> Result<(), String> {
        let columns = match object {
            Object::Partners => &mut self.partners,
            Object::Gdpr => &mut self.gdpr,
            Object::Ccpa => &mut self.ccpa,
        };
        if columns.iter().any(|(_, known)| *known == name) {
            return Err("another column has the same name".to_owned());
        }
        columns.push((slot, name));
        Ok(())
    }

    /// mParticle takes no consent without its time.
    pub(super) fn drop_consents(&mut self) {
        self.gdpr.clear();
        self.ccpa.clear();
    }

    /// Gives the columns their slots among the settings of a device, in an order that is not that
    /// of the columns.
    pub(super) fn name(&mut self, names: &mut Names) {
        let mut give = |columns: &mut Named| {
            columns.sort_by(|(_, a), (_, b)| a.cmp(b));
            let start = names.device.len() as u16;
            let given = columns.iter().map(|(_, name)| name.clone());
            names.device.extend(given);
            start..names.device.len() as u16
        };
        let (partners, gdpr, ccpa) = (
            give(&mut self.partners),
            give(&mut self.gdpr),
            give(&mut self.ccpa),
        );
        (names.partners, names.gdpr, names.ccpa) = (partners, gdpr, ccpa);
    }

    /// Writes the settings of one row.
    pub(super) fn write(
        &self,
        out: &mut Vec<u8>,
        row: &Row<'_>,
        names: &Names,
        times: &Times,
        spelling: Spelling,
        tally: &mut Tally,
    ) {
        each(out, &names.partners, &self.partners, |out, slot| {
            let start = out.len();
            text_value(out, row, slot, MOST_VALUE_CHARACTERS, spelling, tally);
            let content = out.get(start + 1..out.len().max(1) - 1);
            if content.is_some_and(|content| self.placeholders.has(content)) {
                out.truncate(start);
                tally.add(Note::Placeholder, slot, row.number);
            }
        });
        if self.gdpr.is_empty() && self.ccpa.is_empty() {
            return;
        }
        let time = self.time(row, times, tally);
        for (range, columns) in [(&names.gdpr, &self.gdpr), (&names.ccpa, &self.ccpa)] {
            each(out, range, columns, |out, slot| {
                consent_value(out, row, slot, time, tally);
            });
        }
    }

    /// When the consents of a row were given or refused, in milliseconds since 1970.
    fn time(&self, row: &Row<'_>, times: &Times, tally: &mut Tally) -> Option<i64> {
        self.consent_time.iter().find_map(|&slot| {
            let read = times.read(row.value(slot), false)?;
            let note = match read {
                Ok(moment) => moment.note,
                Err(_) => Some(Note::NotATime),
            };
            if let Some(note) = note {
                tally.add(note, slot, row.number);
            }
            read.ok().map(|moment| moment.millis)
        })
    }
}

/// Writes a setting for each column.
fn each(
    out: &mut Vec<u8>,
    range: &Range<u16>,
    columns: &Named,
    mut write: impl FnMut(&mut Vec<u8>, usize),
) {
    for (setting, (slot, _)) in range.clone().zip(columns) {
        let start = record::begin_setting(out, setting);
        write(out, *slot);
        record::end_setting(out, start);
    }
}

/// Writes `{"consented":…,"timestamp_unixtime_ms":…}`; nothing when either is not there.
fn consent_value(
    out: &mut Vec<u8>,
    row: &Row<'_>,
    slot: usize,
    time: Option<i64>,
    tally: &mut Tally,
) {
    let value = row.value(slot);
    let Some(text) = values::plain_text(value) else {
        if !note_missing(value, slot, row.number, tally) {
            tally.add(Note::NotABoolean, slot, row.number);
        }
        return;
    };
    if text.trim().is_empty() {
        return;
    }
    match (values::boolean(&text), time) {
        (Some(consented), Some(time)) => {
            out.extend_from_slice(b"{\"consented\":");
            out.extend_from_slice(consented.as_bytes());
            out.extend_from_slice(b",\"timestamp_unixtime_ms\":");
            out.extend_from_slice(time.to_string().as_bytes());
            out.push(b'}');
        }
        (None, _) => tally.add(Note::NotABoolean, slot, row.number),
        (Some(_), None) => tally.add(Note::ConsentWithoutTime, slot, row.number),
    }
}
