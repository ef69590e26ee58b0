//! The fixed text between values: how an event, a batch and an object are written.

use std::io::Write;

use crate::record::{EventKind, Members};

/// What every event of a kind begins with, up to its id.
pub(super) fn begin_event(kind: EventKind) -> &'static str {
    match kind {
        EventKind::Custom => "{\"event_type\":\"custom_event\",\"data\":{\"source_message_id\":\"",
        EventKind::ScreenView => {
            "{\"event_type\":\"screen_view\",\"data\":{\"source_message_id\":\""
        }
        EventKind::Commerce => {
            "{\"event_type\":\"commerce_event\",\"data\":{\"source_message_id\":\""
        }
    }
}

/// An upper bound of what an event's JSON has beside the record's members.
pub(super) const EVENT_FRAME: usize = 128;

pub(super) fn push_event(
    out: &mut Vec<u8>,
    prefix: &str,
    id: impl FnOnce(&mut Vec<u8>),
    members: Members<'_>,
) {
    out.extend_from_slice(prefix.as_bytes());
    id(out);
    out.extend_from_slice(b"\",");
    members.write(out);
    out.extend_from_slice(b"}}");
}

pub(super) fn begin_batch(
    out: &mut Vec<u8>,
    prefix: &str,
    row: u64,
    part: Option<u32>,
    suffix: &str,
) {
    out.extend_from_slice(prefix.as_bytes());
    match part {
        None => push_number(out, row),
        Some(part) => push_display(out, format_args!("{row}-a{part}")),
    }
    out.extend_from_slice(suffix.as_bytes());
}

/// Writes a number's digits; a formatter takes several times as long.
pub(super) fn push_number(out: &mut Vec<u8>, number: u64) {
    out.extend_from_slice(itoa::Buffer::new().format(number).as_bytes());
}

pub(super) fn push_display(out: &mut Vec<u8>, text: std::fmt::Arguments<'_>) {
    // Writing to memory cannot fail.
    let _ = out.write_fmt(text);
}

pub(super) fn push_object(out: &mut Vec<u8>, name: &str, members: &[u8]) {
    if !members.is_empty() {
        out.extend_from_slice(name.as_bytes());
        out.extend_from_slice(members);
        out.push(b'}');
    }
}

pub(super) fn push_members<'a>(
    out: &mut Vec<u8>,
    members: impl Iterator<Item = (&'a str, &'a [u8])>,
) {
    for (at, (name, literal)) in members.enumerate() {
        if at > 0 {
            out.push(b',');
        }
        out.extend_from_slice(name.as_bytes());
        out.extend_from_slice(literal);
    }
}

pub(super) fn push_member(out: &mut Vec<u8>, name: &str, literal: &[u8]) {
    if !out.is_empty() {
        out.push(b',');
    }
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(literal);
}
