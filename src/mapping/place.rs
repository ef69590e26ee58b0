//! Where an event came from: an IP address, and a place on the globe.

use core::net::IpAddr;

use super::cells::note_missing;
use super::notes::{Note, Tally};
use super::values;
use super::values::quoted;
use crate::model::Row;

const MOST_LATITUDE: f64 = 90.0;
const MOST_LONGITUDE: f64 = 180.0;

/// Writes the first of the columns that holds an IP address; nothing when none does.
pub(super) fn ip_value(out: &mut Vec<u8>, row: &Row<'_>, slots: &[usize], tally: &mut Tally) {
    for &slot in slots {
        let value = row.value(slot);
        match values::plain_text(value).as_deref().map(str::trim) {
            Some("") => {}
            Some(text) if text.parse::<IpAddr>().is_ok() => return quoted(out, text),
            Some(_) => tally.add(Note::NotAnIp, slot, row.number),
            None => {
                if !note_missing(value, slot, row.number, tally) {
                    tally.add(Note::NotAnIp, slot, row.number);
                }
            }
        }
    }
}

/// Writes `{"latitude":…,"longitude":…}`; nothing unless both are there.
pub(super) fn location_value(
    out: &mut Vec<u8>,
    row: &Row<'_>,
    latitudes: &[usize],
    longitudes: &[usize],
    tally: &mut Tally,
) {
    let start = out.len();
    out.extend_from_slice(b"{\"latitude\":");
    let latitude = degrees(out, row, latitudes, MOST_LATITUDE);
    out.extend_from_slice(b",\"longitude\":");
    let longitude = degrees(out, row, longitudes, MOST_LONGITUDE);
    out.push(b'}');
    if latitude == Degrees::Written && longitude == Degrees::Written {
        return;
    }
    out.truncate(start);
    if latitude == Degrees::None && longitude == Degrees::None {
        return;
    }
    for &slot in latitudes.iter().chain(longitudes).take(1) {
        tally.add(Note::NotAPlace, slot, row.number);
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Degrees {
    Written,
    None,
    Wrong,
}

/// Writes the first of the columns that is not null.
fn degrees(out: &mut Vec<u8>, row: &Row<'_>, slots: &[usize], most: f64) -> Degrees {
    for &slot in slots {
        let Some(text) = values::literal_text(row.value(slot)) else {
            continue;
        };
        if text.trim().is_empty() {
            continue;
        }
        return match values::number_within(&text, most) {
            Some(literal) => {
                out.extend_from_slice(literal.as_bytes());
                Degrees::Written
            }
            None => Degrees::Wrong,
        };
    }
    Degrees::None
}
