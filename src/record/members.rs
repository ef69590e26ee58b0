//! The members of an event's `data`, as a record's event section holds them behind its mark: written
//! out, ready to send; or by slot.
//!
//! By slot they are settings, whose names stand once in the plan of the delivery. That is a third of
//! an event's bytes less, and all of a record's bytes are copied, sealed, written to a temporary
//! file, read and opened again while a delivery is grouped.

use super::settings;

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
const NAMES: [&str; 6] = [
    "\"event_name\":",
    ",\"custom_event_type\":",
    ",\"timestamp_unixtime_ms\":",
    ",\"event_id\":",
    ",\"session_id\":",
    ",\"session_uuid\":",
];

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
        NAMES[self as usize]
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
        self.each().map(|(before, name, literal)| before.len() + name.len() + literal.len()).sum::<usize>()
            // The brace behind the attributes, if there are any.
            + 1
    }

    /// At most so many bytes, if all names of the delivery have `names` bytes. Quicker than to count.
    pub fn bytes_at_most(self, names: usize) -> usize {
        let fixed: usize = NAMES.iter().map(|name| name.len()).sum();
        self.section.len() + names + fixed + ATTRIBUTES.len() + 1
    }

    /// Writes them as JSON.
    pub fn write(self, out: &mut Vec<u8>) {
        if self.names.is_none() {
            out.extend_from_slice(self.section);
            return;
        }
        let mut has_attributes = false;
        for (before, name, literal) in self.each() {
            if !before.is_empty() {
                has_attributes = true;
                out.extend_from_slice(before.as_bytes());
            }
            out.extend_from_slice(name.as_bytes());
            out.extend_from_slice(literal);
        }
        if has_attributes {
            out.push(b'}');
        }
    }

    /// What stands before the name, the name, and the literal of each.
    fn each(self) -> impl Iterator<Item = (&'static str, &'a str, &'a [u8])> {
        let names = self.names.unwrap_or_default();
        let mut before = ATTRIBUTES;
        settings(self.section).map(move |(slot, literal)| {
            if let Some(name) = NAMES.get(usize::from(slot)) {
                return ("", *name, literal);
            }
            let name = names.get(usize::from(slot - FIRST_ATTRIBUTE));
            let before = std::mem::replace(&mut before, ",");
            (before, name.map_or("\"?\":", |name| name), literal)
        })
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
            assert!(members.bytes() >= want.len() && members.bytes() <= want.len() + 1);
            assert!(members.bytes_at_most(8) >= members.bytes());
        }
        let written = Members::new(b"\"event_name\":1", None);
        let mut out = Vec::new();
        written.write(&mut out);
        assert_eq!(out, b"\"event_name\":1");
        assert_eq!(written.bytes(), out.len());
    }
}
