//! Looking through an outbox for damage, without changing it and with nobody using it
//! ([`check`]), or in a running one, giving up what cannot be read ([`Outbox::verify`]).

use std::collections::HashMap;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use super::codec::Malformed;
use super::dead::read_letter;
use super::disk::Disk;
use super::error::{Error, OpenError};
use super::format::{FileKind, Footer, Header, Place};
use super::index::Index;
use super::layout::{
    Layout, SegmentName, parse_dead_name, parse_rejected_name, parse_segment_name,
};
use super::load::load;
use super::owner::{Command, Loss};
use super::record;
use super::segment::{SegmentFile, read_footer, read_whole};
use super::state::SegmentRow;
use super::store::Store;
use super::{Outbox, Settings};
use crate::model::DeliveryId;

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
}

/// One file, or the state, that is not as it was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// Which.
    pub file: PathBuf,
    /// Whose rows are in it, where that can be told.
    pub delivery: Option<DeliveryId>,
    /// How many rows cannot be read, as far as that can be told.
    pub rows: u64,
    /// What is wrong.
    pub what: String,
}

/// Reads everything in the outbox at `path` and changes nothing. No process may have it open.
/// Opening it afterwards salvages what can be read and sets the rest aside;
/// [`Outbox::verify`] then gives up what cannot.
///
/// # Errors
/// The directory is in use, is not an outbox of this version, or the system refuses to read it.
pub fn check(path: &Path) -> Result<CheckReport, OpenError> {
    let layout = Layout::new(path);
    let failed = |source| OpenError::Io {
        path: path.to_owned(),
        doing: "it could not be read",
        source,
    };
    let _lock = layout.enter_to_read()?;
    let mut report = CheckReport::default();
    let index = check_state(&layout, &mut report).map_err(failed)?;
    check_segments(&layout, index.as_ref(), &mut report).map_err(failed)?;
    check_others(&layout, index.as_ref(), &mut report).map_err(failed)?;
    Ok(report)
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
    report.fault(&state, None, 0, what);
    Ok(None)
}

fn check_segments(
    layout: &Layout,
    index: Option<&Index>,
    report: &mut CheckReport,
) -> io::Result<()> {
    let mut missing: HashMap<PathBuf, (DeliveryId, SegmentRow)> = HashMap::new();
    for delivery in index.iter().flat_map(|index| index.deliveries.values()) {
        let id = delivery.row.info.id;
        for (&number, segment) in &delivery.segments {
            missing.insert(layout.segment(id, number), (id, segment.row));
        }
    }
    for entry in fs::read_dir(layout.segments())? {
        let path = entry?.path();
        missing.remove(&path);
        match path.file_name().and_then(parse_segment_name) {
            Some(SegmentName::Segment(id, _)) => check_segment(&path, id, report)?,
            Some(SegmentName::Aborted(_) | SegmentName::Cancelled(_)) => {}
            None => report.fault(&path, None, 0, "it is no file of an outbox".to_owned()),
        }
    }
    for (path, (id, row)) in missing {
        report.fault(&path, Some(id), row.left().rows, "it is gone".to_owned());
    }
    Ok(())
}

fn check_segment(path: &Path, id: DeliveryId, report: &mut CheckReport) -> io::Result<()> {
    let file = File::open(path)?;
    let bytes = read_whole(&file)?;
    report.files += 1;
    report.bytes += bytes.len() as u64;
    let mut faults = Vec::new();
    if !Header::decode(&bytes).is_ok_and(|(header, _)| header.kind == FileKind::Segment) {
        faults.push("its header".to_owned());
    }
    let mut rows = 0;
    match read_footer(&file)? {
        Some(footer) => {
            for (n, place) in footer.places.iter().enumerate() {
                if record_at(&bytes, *place).is_ok() {
                    report.records += 1;
                } else {
                    rows += u64::from(place.rows);
                    faults.push(format!("request {n}"));
                }
            }
            if faults.is_empty() && !whole_is_sound(&bytes) {
                faults.push("something between its records".to_owned());
            }
        }
        None => {
            report.records += record::scan(&bytes).count() as u64;
            faults.push("its end, or the delivery was never accepted".to_owned());
        }
    }
    if !faults.is_empty() {
        let what = format!("damaged: {}", faults.join(", "));
        report.fault(path, Some(id), rows, what);
    }
    Ok(())
}

fn record_at(bytes: &[u8], place: Place) -> Result<(), Malformed> {
    let start = place.offset as usize;
    let end = start.checked_add(place.length as usize).ok_or(Malformed)?;
    record::decode(bytes.get(start..end).ok_or(Malformed)?).map(|_| ())
}

/// The checksum of the whole file, which the footer carries.
fn whole_is_sound(bytes: &[u8]) -> bool {
    Footer::split(bytes).is_ok_and(|(data, footer)| {
        Footer::decode(footer).is_ok_and(|(_, crc)| crc == crc32c::crc32c(data))
    })
}

fn check_others(
    layout: &Layout,
    index: Option<&Index>,
    report: &mut CheckReport,
) -> io::Result<()> {
    for entry in fs::read_dir(layout.rejected_directory())? {
        let path = entry?.path();
        let bytes = read_whole(&File::open(&path)?)?;
        report.files += 1;
        report.bytes += bytes.len() as u64;
        report.records += record::scan(&bytes).count() as u64;
        if !whole_is_sound(&bytes) {
            let id = path.file_name().and_then(parse_rejected_name);
            let what = "damaged, or its delivery was never accepted";
            report.fault(&path, id, 0, what.to_owned());
        }
    }
    for entry in fs::read_dir(layout.dead_directory())? {
        let path = entry?.path();
        report.files += 1;
        report.bytes += path.metadata()?.len();
        if path.file_name().and_then(parse_dead_name).is_none() {
            report.fault(&path, None, 0, "it is no file of an outbox".to_owned());
        }
    }
    for (id, letter) in index.iter().flat_map(|index| &index.letters) {
        if read_letter(layout, letter).is_ok() {
            report.records += 1;
            continue;
        }
        let delivery = index
            .and_then(|index| index.deliveries.get(&letter.position))
            .map(|delivery| delivery.row.info.id);
        let what = format!("dead letter {id} is damaged or gone");
        report.fault(&layout.dead(letter.file), delivery, letter.tally.rows, what);
    }
    Ok(())
}

impl CheckReport {
    fn fault(&mut self, file: &Path, delivery: Option<DeliveryId>, rows: u64, what: String) {
        self.faults.push(Fault {
            file: file.to_owned(),
            delivery,
            rows,
            what,
        });
    }
}

impl Outbox {
    /// Opens an outbox, reads everything in it, gives up what cannot be read, and closes it
    /// again. What comes back is what was lost; the files are kept in `damaged/`.
    ///
    /// # Errors
    /// It cannot be opened, or what is lost cannot be recorded.
    pub fn salvage(settings: Settings) -> Result<Vec<super::Damage>, SalvageError> {
        let outbox = Self::open(settings)?;
        let verified = outbox.verify();
        outbox.close();
        verified?;
        Ok(outbox.damage())
    }

    /// Reads all that waits and all dead letters, and gives up what cannot be read, as a claim
    /// would when its turn came. Each loss is logged and listed ([`Outbox::damage`]). Blocks on
    /// the disk for as long as it takes to read everything.
    ///
    /// # Errors
    /// A file cannot be opened, or the losses cannot be recorded.
    pub fn verify(&self) -> Result<(), Error> {
        let work: Vec<(u64, DeliveryId, SegmentRow)> = {
            let index = self.shared.index();
            let deliveries = index.deliveries.iter();
            deliveries
                .flat_map(|(position, delivery)| {
                    let id = delivery.row.info.id;
                    let segments = delivery.segments.values();
                    segments.map(move |segment| (*position, id, segment.row))
                })
                .collect()
        };
        for (position, id, row) in work {
            self.verify_segment(position, id, row)?;
        }
        let letters = self.shared.index().letters.clone();
        let lost: Vec<Loss> = letters
            .iter()
            .filter(|(_, letter)| read_letter(&self.shared.layout, letter).is_err())
            // One that has gone since is not lost.
            .filter(|(id, _)| self.shared.index().letters.contains_key(*id))
            .map(|(id, _)| Loss::Letter(*id))
            .collect();
        self.ask(|reply| Command::Lost(lost, reply))
    }

    fn verify_segment(&self, position: u64, id: DeliveryId, row: SegmentRow) -> Result<(), Error> {
        let summary = row.summary;
        let path = self.shared.layout.segment(id, summary.number);
        let file = match SegmentFile::open(&path, summary.first, summary.entries) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let gone = self
                    .shared
                    .index()
                    .segment_mut(position, summary.number)
                    .is_none();
                if gone {
                    // It has settled since.
                    return Ok(());
                }
                let lost = vec![Loss::Segment {
                    position,
                    number: summary.number,
                    file: None,
                }];
                return self.ask(|reply| Command::Lost(lost, reply));
            }
            Err(error) => return Err(Error::io("a segment could not be opened")(error)),
        };
        let file = std::sync::Arc::new(file);
        let mut lost = Vec::new();
        if !file.sound {
            lost.push(Loss::Segment {
                position,
                number: summary.number,
                file: Some(std::sync::Arc::clone(&file)),
            });
        }
        for ordinal in summary.first..summary.first.saturating_add(summary.entries) {
            if file.place(ordinal).is_some() && file.read(ordinal).is_err() {
                lost.push(Loss::Entry {
                    position,
                    ordinal,
                    tally: file.tally(ordinal),
                });
            }
        }
        if lost.is_empty() {
            return Ok(());
        }
        self.ask(|reply| Command::Lost(lost, reply))
    }
}

/// An outbox could not be salvaged.
#[derive(Debug, thiserror::Error)]
pub enum SalvageError {
    /// It could not be opened.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// It was opened, and what is lost could not be recorded.
    #[error(transparent)]
    Record(#[from] Error),
}
