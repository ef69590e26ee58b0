//! One row, by the plan of its delivery: to a record.

use std::hash::Hasher;

use siphasher::sip::SipHasher13;

use super::EVENT_BITS;
use super::cells::{Attribute, attribute_setting, device_value};
use super::error::Rejection;
use super::identity::{identity_value, mpid_value};
use super::notes::Tally;
use super::place::{ip_value, location_value};
use super::plan::Plan;
use super::tags::Identity;
use crate::model::{DataType, Row};
use crate::record::{self, EventKind, Mark, Purchase, Record, Section};

impl Plan {
    /// Maps one row whose slots are [`Plan::columns`]. With pivots the names of attributes are learned
    /// from the rows: [`Plan::names`] is complete behind the last.
    ///
    /// # Errors
    /// The row cannot be sent; `record` is then of no use.
    pub fn map(
        &mut self,
        row: &Row<'_>,
        record: &mut Record,
        tally: &mut Tally,
    ) -> Result<(), Rejection> {
        record.begin(row.number);
        tally.rows += 1;
        self.map_identities(row, record, tally)?;
        let times = &self.event.times;
        let bytes = record.section(Section::Device);
        for (slot, column) in self.device.iter().enumerate() {
            let start = record::begin_setting(bytes, slot as u16);
            let (slot, kind) = (column.slot, column.kind);
            device_value(bytes, row, slot, kind, self.spelling, times, tally);
            record::end_setting(bytes, start);
        }
        if let Some(slot) = self.names.ip {
            let start = record::begin_setting(bytes, slot);
            ip_value(bytes, row, &self.ip, tally);
            record::end_setting(bytes, start);
        }
        if let Some(slot) = self.names.location {
            let start = record::begin_setting(bytes, slot);
            location_value(bytes, row, &self.latitude, &self.longitude, tally);
            record::end_setting(bytes, start);
        }
        if !self.batch_columns.is_empty() {
            self.batch_columns
                .write(bytes, row, &self.names, times, self.spelling, tally);
        }
        let how = Attribute {
            lists: true,
            null: self.null,
            spelling: self.spelling,
            types: &self.event.types,
            times,
        };
        let bytes = record.section(Section::Attributes);
        for (slot, &column) in self.attributes.iter().enumerate() {
            attribute_setting(bytes, slot as u16, row, column, tally, &how);
        }
        self.pivots.write(bytes, row, &mut self.names, tally, &how);
        if self.data_type == DataType::Event {
            let bytes = record.section(Section::Event);
            self.event.write(row, bytes, &self.columns, tally)?;
        }
        record.end();
        if self.skip_sent || self.names.purchases {
            self.bring_together(record);
        }
        Ok(())
    }

    /// Rows of one transaction of a user get the same low bits, and so do equal events if what was sent
    /// is skipped; see [`EVENT_BITS`].
    fn bring_together(&self, record: &mut Record) {
        let mut hasher = SipHasher13::new_with_key(&self.key);
        let view = record.view();
        let (mark, members) = Mark::split(view.event);
        let key = match mark.kind {
            EventKind::Commerce => Purchase::read(members).key,
            _ => b"",
        };
        if !key.is_empty() {
            hasher.write(key);
            record.user = (record.user & !EVENT_BITS) | (hasher.finish() & EVENT_BITS);
            return;
        }
        if !self.skip_sent {
            record.user &= !EVENT_BITS;
            return;
        }
        for part in [view.identities, view.device, view.event] {
            hasher.write_usize(part.len());
            hasher.write(part);
        }
        record.user = (record.user & !EVENT_BITS) | (hasher.finish() & EVENT_BITS);
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
            bytes.extend_from_slice(columns.member.as_bytes());
            let mut found = None;
            for &slot in &columns.slots {
                let there = match columns.identity {
                    Identity::Mpid => mpid_value(bytes, row, slot, tally),
                    _ => {
                        let how = (columns.cleaning, &self.placeholders);
                        identity_value(bytes, row, slot, how, tally)
                            .map_err(|error| error.in_column(&self.columns[slot]))?
                    }
                };
                if there {
                    found = Some(slot);
                    break;
                }
            }
            let Some(slot) = found else {
                bytes.truncate(start);
                continue;
            };
            let identity = bytes.get(start..).unwrap_or_default();
            tally.identity(slot, identity, row.number);
            if start == 0 {
                user = SipHasher13::new_with_key(&self.key).hash(identity);
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
}
