//! The members of an event's `data`, as a record's event section holds them behind its mark: written
//! out, ready to send; or by slot.
//!
//! By slot they are settings, whose names stand once in the plan of the delivery. That is a third of
//! an event's bytes less, and all of a record's bytes are copied, sealed, written to a temporary
//! file, read and opened again while a delivery is grouped.

use super::{placed_settings, settings};
use crate::model::append_start;

/// The members that every event can have, in the order in which they are written. Those of attributes
/// follow them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Member {
    /// `event_name`, which is always there.
    Name,
    /// `custom_event_type`
    CustomType,
    /// `timestamp_unixtime_ms`
    Time,
    /// `event_id`
    Id,
    /// `session_id`
    SessionId,
    /// `session_uuid`
    SessionUuid,
}

/// How each [`Member`] is written, up to its value.
const NAMES: [MemberName; 6] = [
    MemberName::new("\"event_name\":"),
    MemberName::new(",\"custom_event_type\":"),
    MemberName::new(",\"timestamp_unixtime_ms\":"),
    MemberName::new(",\"event_id\":"),
    MemberName::new(",\"session_id\":"),
    MemberName::new(",\"session_uuid\":"),
];

/// A name, and zeros behind it, which may be copied with it.
struct MemberName {
    text: &'static str,
    padded: [u8; 32],
}

impl MemberName {
    const fn new(text: &'static str) -> Self {
        let mut padded = [0; 32];
        let (start, _) = padded.split_at_mut(text.len());
        start.copy_from_slice(text.as_bytes());
        Self { text, padded }
    }
}

const ATTRIBUTES: &str = ",\"custom_attributes\":{";

/// The slot of the first custom attribute; as many slots are left for them as `u16` has behind it.
pub const FIRST_ATTRIBUTE: u16 = NAMES.len() as u16;

/// The members of one event.
#[derive(Clone, Copy, Debug)]
pub struct Members<'a> {
    section: &'a [u8],
    /// `"name":` of each custom attribute; `None`: the section is written out.
    names: Option<&'a [Box<str>]>,
}

impl Member {
    /// How it is written, up to its value.
    pub fn name(self) -> &'static str {
        NAMES[self as usize].text
    }
}

impl<'a> Members<'a> {
    /// `section` is an event section without its mark; `names` are those of the delivery's custom
    /// attributes, `None` if its members are written out.
    pub fn new(section: &'a [u8], names: Option<&'a [Box<str>]>) -> Self {
        Self { section, names }
    }

    /// Bytes of them when they are written.
    pub fn bytes(self) -> usize {
        if self.names.is_none() {
            return self.section.len();
        }
        let (mut bytes, mut attributes) = (0, 0);
        for (slot, literal) in settings(self.section) {
            bytes += literal.len();
            bytes += match NAMES.get(usize::from(slot)) {
                Some(name) => name.text.len(),
                None => {
                    attributes += 1;
                    self.attribute(slot).len()
                }
            };
        }
        match attributes {
            0 => bytes,
            // The commas between them, and the brace behind.
            _ => bytes + ATTRIBUTES.len() + attributes,
        }
    }

    /// At most so many bytes, if all names of the delivery have `names` bytes. Quicker than to count.
    pub fn bytes_at_most(self, names: usize) -> usize {
        let fixed: usize = NAMES.iter().map(|name| name.text.len()).sum();
        self.section.len() + names + fixed + ATTRIBUTES.len() + 1
    }

    /// Writes them as JSON.
    pub fn write(self, out: &mut Vec<u8>) {
        if self.names.is_none() {
            out.extend_from_slice(self.section);
            return;
        }
        let mut has_attributes = false;
        for (slot, from, length) in placed_settings(self.section) {
            if let Some(name) = NAMES.get(usize::from(slot)) {
                append_start(out, &name.padded, name.text.len());
            } else {
                match has_attributes {
                    true => out.push(b','),
                    false => out.extend_from_slice(ATTRIBUTES.as_bytes()),
                }
                has_attributes = true;
                out.extend_from_slice(self.attribute(slot).as_bytes());
            }
            append_start(out, from, length);
        }
        if has_attributes {
            out.push(b'}');
        }
    }

    /// The name of the custom attribute in this slot.
    #[inline]
    fn attribute(self, slot: u16) -> &'a str {
        let names = self.names.unwrap_or_default();
        let name = names.get(usize::from(slot - FIRST_ATTRIBUTE));
        name.map_or("\"?\":", |name| name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::{begin_setting, end_setting};

    #[test]
    fn members_by_slot_are_written_with_their_names_and_counted() {
        let names: Vec<Box<str>> = vec!["\"a\":".into(), "\"b\":".into()];
        for (slots, want) in [
            (&[0, 1][..], r#""event_name":0,"custom_event_type":1"#),
            (
                &[0, 2, 6, 7],
                r#""event_name":0,"timestamp_unixtime_ms":2,"custom_attributes":{"a":6,"b":7}"#,
            ),
            (&[0, 7], r#""event_name":0,"custom_attributes":{"b":7}"#),
        ] {
            let mut section = Vec::new();
            for slot in slots {
                let start = begin_setting(&mut section, *slot);
                section.extend_from_slice(slot.to_string().as_bytes());
                end_setting(&mut section, start);
            }
            let members = Members::new(&section, Some(&names));
            let mut out = Vec::new();
            members.write(&mut out);
            assert_eq!(String::from_utf8(out).unwrap(), want);
            assert_eq!(members.bytes(), want.len());
            assert!(members.bytes_at_most(8) >= members.bytes());
        }
        let written = Members::new(b"\"event_name\":1", None);
        let mut out = Vec::new();
        written.write(&mut out);
        assert_eq!(out, b"\"event_name\":1");
        assert_eq!(written.bytes(), out.len());
    }
}
