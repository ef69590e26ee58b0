//! Looking through an outbox that nobody uses for damage, without changing it.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use crate::model::DeliveryId;
use crate::outbox::codec::Malformed;
use crate::outbox::local::files::dead::read_letter;
use crate::outbox::local::files::disk::Disk;
use crate::outbox::local::files::format::{FileKind, Footer, Header, Place};
use crate::outbox::local::files::keys::{KeyUse, needed};
use crate::outbox::local::files::layout::{
    Layout, SegmentName, parse_dead_name, parse_rejected_name, parse_segment_name,
};
use crate::outbox::local::files::rejected;
use crate::outbox::local::files::segment::{is_framed, read_footer, read_whole};
use crate::outbox::local::state::index::{Index, Segment};
use crate::outbox::local::state::load::load;
use crate::outbox::local::state::rows::Letter;
use crate::outbox::local::state::store::Store;
use crate::outbox::record::{self, Frame, Kind};
use crate::seal::Keyring;

/// What a look through an outbox has found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CheckReport {
    /// Files looked at.
    pub files: u64,
    /// Sound records in them.
    pub records: u64,
    /// Bytes of these files.
    pub bytes: u64,
    /// What is not as it was written; empty: all is well.
    pub faults: Vec<Fault>,
    /// The keys that its files are sealed under.
    pub keys: KeyUse,
    /// Whether records were opened, and not only held against their checksums.
    pub opened: bool,
}

/// One file, or the state, that is not as it was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// Which.
    pub file: PathBuf,
    /// Whose rows are in it, where that can be told.
    pub delivery: Option<DeliveryId>,
    /// How many records cannot be read, as far as that can be told.
    pub records: u64,
    /// How many rows that have not settled cannot be read, as far as that can be told.
    pub rows: u64,
    /// What is wrong.
    pub what: String,
}

/// Reads everything in an outbox that is locked, and changes nothing; the second value is what the
/// state says, if it can be read. Without `keys` what is sealed is held against its checksums only.
pub(in crate::outbox) fn look(
    layout: &Layout,
    keys: Option<&Keyring>,
) -> io::Result<(CheckReport, Option<Index>)> {
    let mut report = CheckReport {
        keys: needed(layout)?,
        opened: keys.is_some(),
        ..CheckReport::default()
    };
    let index = check_state(layout, &mut report)?;
    check_segments(layout, index.as_ref(), keys, &mut report)?;
    check_rejected(layout, index.as_ref(), keys, &mut report)?;
    check_dead(layout, index.as_ref(), keys, &mut report)?;
    Ok((report, index))
}

/// sled writes when it opens, so it is a copy that is opened.
fn check_state(layout: &Layout, report: &mut CheckReport) -> io::Result<Option<Index>> {
    let state = layout.state();
    let copy = tempfile::tempdir()?;
    for entry in fs::read_dir(&state)? {
        let entry = entry?;
        if entry.file_type()?.is_file() {
            report.bytes += fs::copy(entry.path(), copy.path().join(entry.file_name()))?;
            report.files += 1;
        }
    }
    let opened = Store::open(copy.path(), &Disk::default(), u64::MAX);
    let what = match opened.and_then(|store| load(&store)) {
        Ok(Some(index)) => return Ok(Some(index)),
        Ok(None) => "the state is empty".to_owned(),
        Err(error) => error.to_string(),
    };
    report.fault(&state, None, (0, 0), what);
    Ok(None)
}

fn check_segments(
    layout: &Layout,
    index: Option<&Index>,
    keys: Option<&Keyring>,
    report: &mut CheckReport,
) -> io::Result<()> {
    let mut known: HashMap<PathBuf, (DeliveryId, &Segment)> = HashMap::new();
    for delivery in index.iter().flat_map(|index| index.deliveries.values()) {
        let id = delivery.row.info.id;
        for (&number, segment) in &delivery.segments {
            known.insert(layout.segment(id, number), (id, segment));
        }
    }
    for entry in fs::read_dir(layout.segments())? {
        let path = entry?.path();
        match path.file_name().and_then(parse_segment_name) {
            Some(SegmentName::Segment(id, _)) => {
                let segment = known.remove(&path).map(|(_, segment)| segment);
                check_segment(&path, id, segment, index.is_some(), keys, report)?;
            }
            Some(SegmentName::Aborted(_) | SegmentName::Cancelled(_)) => {}
            None => report.fault(&path, None, (0, 0), "it is no file of an outbox".to_owned()),
        }
    }
    for (path, (id, segment)) in known {
        let left = (segment.entries_left(), segment.row.left().rows);
        if left.0 == 0 && segment.row.damaged {
            // Given up and named before.
            continue;
        }
        report.fault(&path, Some(id), left, "it is gone".to_owned());
    }
    Ok(())
}

/// `known` is what a sound state says of the segment. One that such a state does not know has
/// settled, or its delivery was cut short, or the next open takes it up: it need not have an end.
fn check_segment(
    path: &Path,
    id: DeliveryId,
    known: Option<&Segment>,
    state_is_sound: bool,
    keys: Option<&Keyring>,
    report: &mut CheckReport,
) -> io::Result<()> {
    let file = File::open(path)?;
    let bytes = read_whole(&file)?;
    report.files += 1;
    report.bytes += bytes.len() as u64;
    let footer = read_footer(&file)?;
    if footer.is_none() && known.is_none() && state_is_sound {
        report.records += record::scan(&bytes).count() as u64;
        return Ok(());
    }
    let mut faults = Vec::new();
    if !Header::decode(&bytes).is_ok_and(|(header, _)| header.kind == FileKind::Segment) {
        faults.push("its header".to_owned());
    }
    // Records and rows that cannot be read, and of the records those that have not settled.
    let (mut records, mut rows, mut left) = (0, 0, 0);
    match footer {
        Some(footer) => {
            for (n, place) in (0u32..).zip(&footer.places) {
                if record_at(&bytes, *place, id, keys).is_ok() {
                    report.records += 1;
                    continue;
                }
                records += 1;
                if !known.is_some_and(|segment| segment.has_settled(n)) {
                    rows += u64::from(place.rows);
                    left += 1;
                }
                faults.push(format!("request {n}"));
            }
            if faults.is_empty() && !whole_is_sound(&bytes) {
                faults.push("something between its records".to_owned());
            }
        }
        None => {
            if let Some(segment) = known {
                (records, rows) = (segment.entries_left(), segment.row.left().rows);
            }
            for (_, _, frame) in record::scan(&bytes) {
                if !opens(&frame, keys) {
                    continue;
                }
                report.records += 1;
                if let Some(segment) = known
                    && frame.name.kind == Kind::Entry
                    && let Some(n) = frame.name.ordinal.checked_sub(segment.row.summary.first)
                    && !segment.has_settled(n)
                {
                    records = records.saturating_sub(1);
                    rows = rows.saturating_sub(frame.total_rows());
                }
            }
            left = records;
            faults.push("its end, or the delivery was never accepted".to_owned());
        }
    }
    // What was lost with it has been given up and named: it is set aside when the rest is sent.
    let known_to_be_damaged = known.is_some_and(|segment| segment.row.damaged);
    if !faults.is_empty() && (left > 0 || !known_to_be_damaged) {
        let what = format!("damaged: {}", faults.join(", "));
        report.fault(path, Some(id), (records, rows), what);
    }
    Ok(())
}

fn record_at(
    bytes: &[u8],
    place: Place,
    id: DeliveryId,
    keys: Option<&Keyring>,
) -> Result<(), Malformed> {
    let start = place.offset as usize;
    let end = start.checked_add(place.length as usize).ok_or(Malformed)?;
    let frame = Frame::decode(bytes.get(start..end).ok_or(Malformed)?)?;
    if frame.name.delivery == id && opens(&frame, keys) {
        Ok(())
    } else {
        Err(Malformed)
    }
}

/// Whether a record opens, as far as that can be told.
fn opens(frame: &Frame<'_>, keys: Option<&Keyring>) -> bool {
    keys.is_none_or(|keys| frame.open(keys).is_ok())
}

/// The checksum of the whole file, which the footer carries.
fn whole_is_sound(bytes: &[u8]) -> bool {
    Footer::split(bytes).is_ok_and(|(data, footer)| {
        Footer::decode(footer).is_ok_and(|(_, crc)| crc == crc32c::crc32c(data))
    })
}

fn check_rejected(
    layout: &Layout,
    index: Option<&Index>,
    keys: Option<&Keyring>,
    report: &mut CheckReport,
) -> io::Result<()> {
    for entry in fs::read_dir(layout.rejected_directory())? {
        let path = entry?.path();
        let bytes = read_whole(&File::open(&path)?)?;
        report.files += 1;
        report.bytes += bytes.len() as u64;
        let id = path.file_name().and_then(parse_rejected_name);
        let (sound, shut) = id.map_or((0, 0), |id| rejected::weigh(&bytes, id, keys));
        report.records += sound - shut;
        // Rows of a delivery that was cut short: the next open removes them.
        let cut_short = match (index, id) {
            (Some(index), Some(id)) => !index.by_id.contains_key(&id),
            _ => false,
        };
        if (!whole_is_sound(&bytes) || shut > 0) && !cut_short {
            let what = "damaged, or its delivery was never accepted";
            report.fault(&path, id, (shut, 0), what.to_owned());
        }
    }
    Ok(())
}

fn check_dead(
    layout: &Layout,
    index: Option<&Index>,
    keys: Option<&Keyring>,
    report: &mut CheckReport,
) -> io::Result<()> {
    for entry in fs::read_dir(layout.dead_directory())? {
        let path = entry?.path();
        report.files += 1;
        report.bytes += path.metadata()?.len();
        if path.file_name().and_then(parse_dead_name).is_none() {
            report.fault(&path, None, (0, 0), "it is no file of an outbox".to_owned());
        }
    }
    for (id, letter) in index.iter().flat_map(|index| &index.letters) {
        let delivery = index
            .and_then(|index| index.deliveries.get(&letter.position))
            .map(|delivery| delivery.row.info.id);
        if delivery.is_some_and(|delivery| letter_is_sound(layout, keys, delivery, letter)) {
            report.records += 1;
            continue;
        }
        let what = format!("dead letter {id} is damaged or gone");
        let lost = (1, letter.tally.rows);
        report.fault(&layout.dead(letter.file), delivery, lost, what);
    }
    Ok(())
}

fn letter_is_sound(
    layout: &Layout,
    keys: Option<&Keyring>,
    delivery: DeliveryId,
    letter: &Letter,
) -> bool {
    match keys {
        Some(keys) => read_letter(layout, keys, letter.name(delivery), letter.place()).is_ok(),
        None => File::open(layout.dead(letter.file)).is_ok_and(|file| {
            is_framed(&file, letter.offset, letter.length, letter.name(delivery))
        }),
    }
}

impl CheckReport {
    /// `lost` are records and rows.
    fn fault(&mut self, file: &Path, delivery: Option<DeliveryId>, lost: (u64, u64), what: String) {
        let (records, rows) = lost;
        self.faults.push(Fault {
            file: file.to_owned(),
            delivery,
            records,
            rows,
            what,
        });
    }
}
