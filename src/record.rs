//! What one row says of its user: the noun that passes from `mapping` through `group` to
//! `mparticle::encode`.
//!
//! A record is one run of bytes with four sections, so that grouping copies and compares memory
//! and never looks inside. Values stay the JSON literals that Looker sent (digits and escapes
//! untouched), which is why this room, `mapping` and `encode` deal in JSON text although rows
//! are values elsewhere: a detour through numbers and strings would cost an allocation a cell and
//! round large integers.
//!
//! | section | holds |
//! |---|---|
//! | identities | members of `user_identities`, ready to send: `"customer_id":"7","email":"a@b.c"`; before them `"mpid":123`, if the row has mParticle's own id |
//! | device | settings: `device_info` values by slot, and where the event comes from |
//! | attributes | settings: user attributes by slot; one that is to be deleted has a mark for its literal |
//! | event | members of the event's `data`, by slot or ready to send (see [`Members`]), behind a [`Mark`] if there is one; empty in user mode |
//!
//! *Settings* are a list of (slot, literal), in two bytes and the literal each where both are small;
//! the names of the slots are the plan's, once for the whole delivery.

mod event;
mod members;

use std::ops::Range;

use crate::model::Literal;

pub use event::{EventKind, Mark, Purchase, PurchaseWriter};
pub use members::{FIRST_ATTRIBUTE, Member, Members};

/// One row, mapped. Made once and refilled for every row.
#[derive(Clone, Debug, Default)]
pub struct Record {
    /// The row's number in its delivery, from 0.
    pub row: u64,
    /// Keyed hash of the user's first identity. Records of one user have the same; records of
    /// different users may share it by accident, so it orders and never identifies.
    pub user: u64,
    bytes: Vec<u8>,
    ends: [u32; 4],
    open: usize,
}

/// The sections of a [`Record`], in the order in which they are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Section {
    /// Members of `user_identities`.
    Identities,
    /// `device_info` settings.
    Device,
    /// User attribute settings.
    Attributes,
    /// Members of the event's `data`.
    Event,
}

/// A record that lies in somebody else's buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecordView<'a> {
    /// See [`Record::row`].
    pub row: u64,
    /// See [`Record::user`].
    pub user: u64,
    /// Members of `user_identities`, ready to send.
    pub identities: &'a [u8],
    /// `device_info` settings; read with [`settings`].
    pub device: &'a [u8],
    /// User attribute settings; read with [`settings`].
    pub attributes: &'a [u8],
    /// Members of the event's `data`, perhaps behind a mark: see [`Mark::split`], [`Members`].
    pub event: &'a [u8],
}

impl Record {
    /// Empties the record for the row with this number.
    pub fn begin(&mut self, row: u64) {
        self.row = row;
        self.user = 0;
        self.bytes.clear();
        self.ends = [0; 4];
        self.open = 0;
    }

    /// Where the next bytes go. Sections are written in their order; going on to a later one
    /// ends those before it.
    pub fn section(&mut self, section: Section) -> &mut Vec<u8> {
        let target = section as usize;
        while self.open < target {
            self.ends[self.open] = self.bytes.len() as u32;
            self.open += 1;
        }
        &mut self.bytes
    }

    /// Ends the last section.
    pub fn end(&mut self) {
        self.section(Section::Event);
        self.ends[3] = self.bytes.len() as u32;
    }

    /// The record as its sections.
    pub fn view(&self) -> RecordView<'_> {
        RecordView::from_parts(self.row, self.user, self.ends, &self.bytes)
    }

    /// The bytes of all sections, one after the other.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Where each section ends in [`Record::bytes`].
    pub fn ends(&self) -> [u32; 4] {
        self.ends
    }
}

impl<'a> RecordView<'a> {
    /// Bytes of all sections together.
    pub fn size(&self) -> usize {
        self.identities.len() + self.device.len() + self.attributes.len() + self.event.len()
    }

    /// Takes a record apart again. Ends beyond `bytes` give empty sections.
    pub fn from_parts(row: u64, user: u64, ends: [u32; 4], bytes: &'a [u8]) -> Self {
        let section = |from: u32, to: u32| bytes.get(from as usize..to as usize).unwrap_or(&[]);
        Self {
            row,
            user,
            identities: section(0, ends[0]),
            device: section(ends[0], ends[1]),
            attributes: section(ends[1], ends[2]),
            event: section(ends[2], ends[3]),
        }
    }
}

/// Stands for a number that needs more than a byte: the number follows, and of a slot this once more,
/// so that it is known from both sides.
const LONG: u8 = u8::MAX;
/// Bytes of a long slot, and those that a long length has more than a short one.
const LONG_SLOT: usize = 4;
const MORE_LENGTH: usize = 4;

/// Adds a setting of `slot` whose literal is that of a row.
#[inline]
pub fn add_setting(bytes: &mut Vec<u8>, slot: u16, literal: Literal<'_>) {
    match (u8::try_from(slot), u8::try_from(literal.len())) {
        (Ok(slot), Ok(length)) if slot != LONG && length != LONG => {
            bytes.extend_from_slice(&[slot, length]);
            literal.append_to(bytes);
        }
        _ => add_long_setting(bytes, slot, literal),
    }
}

#[cold]
fn add_long_setting(bytes: &mut Vec<u8>, slot: u16, literal: Literal<'_>) {
    let start = begin_setting(bytes, slot);
    literal.append_to(bytes);
    end_setting(bytes, start);
}

/// Begins a setting of `slot`; what is appended to `bytes` until [`end_setting`] is its literal.
#[inline]
pub fn begin_setting(bytes: &mut Vec<u8>, slot: u16) -> usize {
    match u8::try_from(slot) {
        Ok(slot) if slot != LONG => bytes.extend_from_slice(&[slot, 0]),
        _ => {
            let [low, high] = slot.to_le_bytes();
            bytes.extend_from_slice(&[LONG, low, high, LONG, 0]);
        }
    }
    bytes.len()
}

/// Ends the setting whose literal began at `start`; an empty literal takes the setting back. Returns
/// where the literal lies now.
#[inline(always)] // Most values are short, and there are very many.
pub fn end_setting(bytes: &mut Vec<u8>, start: usize) -> Range<usize> {
    let end = bytes.len();
    let length = end - start;
    match bytes.get_mut(start - 1) {
        Some(place) if (1..usize::from(LONG)).contains(&length) => {
            *place = length as u8;
            start..end
        }
        _ => end_other_setting(bytes, start),
    }
}

/// Of one that is empty or long.
#[cold]
fn end_other_setting(bytes: &mut Vec<u8>, start: usize) -> Range<usize> {
    let length = bytes.len() - start;
    let place = start - 1;
    if length == 0 {
        let slot = match bytes.get(place - 1) {
            Some(&LONG) => LONG_SLOT,
            _ => 1,
        };
        bytes.truncate(place - slot);
        return bytes.len()..bytes.len();
    }
    bytes[place] = LONG;
    bytes.extend_from_slice(&[0; MORE_LENGTH]);
    bytes.copy_within(start..start + length, start + MORE_LENGTH);
    bytes[start..start + MORE_LENGTH].copy_from_slice(&(length as u32).to_le_bytes());
    start + MORE_LENGTH..bytes.len()
}

/// The (slot, literal) pairs of a settings section. Ends where it was cut.
pub fn settings(section: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    placed_settings(section).map(|(slot, from, length)| (slot, from.get(..length).unwrap_or(from)))
}

/// The same, each with all of the section that stands behind it: slot, section from the literal on,
/// length of the literal.
#[inline]
fn placed_settings(mut section: &[u8]) -> impl Iterator<Item = (u16, &[u8], usize)> {
    std::iter::from_fn(move || {
        let (slot, rest) = match *section {
            [LONG, low, high, LONG, ref rest @ ..] => (u16::from_le_bytes([low, high]), rest),
            [LONG, ..] | [] => return None,
            [slot, ref rest @ ..] => (u16::from(slot), rest),
        };
        let (length, from) = match *rest {
            [LONG, a, b, c, d, ref rest @ ..] => (u32::from_le_bytes([a, b, c, d]) as usize, rest),
            [LONG, ..] | [] => return None,
            [length, ref rest @ ..] => (usize::from(length), rest),
        };
        section = from.get(length..)?;
        Some((slot, from, length))
    })
}

/// Appends one part of a list of parts, such as the sets of identities of several people.
pub fn push_part(list: &mut Vec<u8>, part: &[u8]) {
    list.extend_from_slice(&(part.len() as u32).to_le_bytes());
    list.extend_from_slice(part);
}

/// The parts of a list that [`push_part`] made; ends where it was cut.
pub fn parts(mut list: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::from_fn(move || {
        let (length, rest) = list.split_first_chunk::<4>()?;
        let (part, rest) = rest.split_at_checked(u32::from_le_bytes(*length) as usize)?;
        list = rest;
        Some(part)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sections_come_back_as_they_were_written() {
        let mut record = Record::default();
        for _ in 0..2 {
            record.begin(7);
            record
                .section(Section::Identities)
                .extend_from_slice(b"\"email\":\"a\"");
            let bytes = record.section(Section::Attributes);
            let start = begin_setting(bytes, 3);
            bytes.extend_from_slice(b"1.50");
            end_setting(bytes, start);
            let start = begin_setting(bytes, 4);
            end_setting(bytes, start);
            record.end();
            let view = record.view();
            assert_eq!(view.identities, b"\"email\":\"a\"");
            assert_eq!(view.device, b"");
            assert_eq!(view.event, b"");
            let pairs: Vec<_> = settings(view.attributes).collect();
            assert_eq!(pairs, [(3, &b"1.50"[..])]);
            let again = RecordView::from_parts(7, 0, record.ends(), record.bytes());
            assert_eq!(again, view);
        }
    }

    #[test]
    fn settings_of_any_slot_and_length_come_back_in_as_few_bytes_as_they_need() {
        let literals: [(u16, usize, usize); 9] = [
            (0, 1, 2),
            (1, 254, 2),
            (2, 255, 6),
            (3, 70_000, 6),
            (254, 3, 2),
            (255, 3, 5),
            (256, 300, 9),
            (u16::MAX, 1, 5),
            (7, 0, 0),
        ];
        let mut section = Vec::new();
        let mut want = Vec::new();
        for (slot, length, head) in literals {
            let before = section.len();
            let start = begin_setting(&mut section, slot);
            let literal = vec![slot as u8; length];
            section.extend_from_slice(&literal);
            let place = end_setting(&mut section, start);
            assert_eq!(section[place], literal);
            assert_eq!(section.len(), before + head + length);
            if length > 0 {
                want.push((slot, literal));
            }
        }
        // One that is taken back, however its slot is written.
        for slot in [9, 255, 1_000] {
            let start = begin_setting(&mut section, slot);
            end_setting(&mut section, start);
        }
        let back: Vec<_> = settings(&section).collect();
        let want: Vec<_> = want.iter().map(|(slot, text)| (*slot, &text[..])).collect();
        assert_eq!(back, want);
        for end in [1, 2, section.len() - 1] {
            assert!(settings(&section[..end]).count() < want.len());
        }
    }

    #[test]
    fn parts_come_back_and_a_list_that_is_cut_ends_there() {
        let mut list = Vec::new();
        let want: [&[u8]; 3] = [b"one", b"", b"three"];
        want.iter().for_each(|part| push_part(&mut list, part));
        assert_eq!(parts(&list).collect::<Vec<_>>(), want);
        assert_eq!(
            parts(&list[..list.len() - 1]).collect::<Vec<_>>(),
            want[..2]
        );
    }
}
