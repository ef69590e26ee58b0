//! Looking through an outbox that nobody uses for damage, without changing it.

use std::collections::{HashMap, HashSet};
use std::io;
use std::path::{Path, PathBuf};

use crate::model::DeliveryId;
use crate::outbox::codec::Malformed;
use crate::outbox::local::files::dead::read_letter;
use crate::outbox::local::files::disk::{Disk, Op};
use crate::outbox::local::files::format::{FileKind, Footer, Header, Place};
use crate::outbox::local::files::keys::{KeyUse, needed};
use crate::outbox::local::files::layout::{
    Layout, SegmentName, is_draft, parse_dead_name, parse_rejected_name, parse_segment_name,
};
use crate::outbox::local::files::read::{ReadFile, Unreadable, exists, length_of, list, sound};
use crate::outbox::local::files::rejected;
use crate::outbox::local::files::segment::{check_framed, read_footer};
use crate::outbox::local::offline::damaged::given_up;
use crate::outbox::local::state::delivery::Segment;
use crate::outbox::local::state::error::StateError;
use crate::outbox::local::state::index::Index;
use crate::outbox::local::state::load::load;
use crate::outbox::local::state::opening;
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
    /// Batches that were given up as damaged and lie sound in `damaged/`: a salvage brings them back.
    /// Told only with keys.
    pub salvageable_batches: u64,
    /// The rows in them.
    pub salvageable_rows: u64,
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
/// state says, if it is sound. Without `keys` what is sealed is held against its checksums only.
pub(in crate::outbox) fn look(
    disk: &Disk,
    layout: &Layout,
    keys: Option<&Keyring>,
) -> Result<(CheckReport, Option<Index>), Unreadable> {
    let mut report = CheckReport {
        keys: needed(disk, layout)?,
        opened: keys.is_some(),
        ..CheckReport::default()
    };
    let index = check_state(disk, layout, &mut report)?;
    let mut look = Look {
        disk,
        layout,
        index: index.as_ref(),
        keys,
        report: &mut report,
    };
    look.segments()?;
    look.rejected()?;
    look.dead()?;
    if let (Some(index), Some(keys)) = (&index, keys) {
        for one in given_up(disk, layout, index, keys)? {
            report.salvageable_batches += u64::from(one.live.count());
            report.salvageable_rows += one.rows();
        }
    }
    Ok((report, index))
}

/// What of the rejected rows of listed deliveries is damaged or gone.
pub(in crate::outbox) fn faults_of_rejected(
    disk: &Disk,
    layout: &Layout,
    index: &Index,
    keys: Option<&Keyring>,
) -> Result<Vec<Fault>, Unreadable> {
    let mut report = CheckReport::default();
    let mut look = Look {
        disk,
        layout,
        index: Some(index),
        keys,
        report: &mut report,
    };
    look.rejected()?;
    Ok(report.faults)
}

/// sled writes when it opens, so it is a copy that is opened; one that is damaged is copied once more.
fn check_state(
    disk: &Disk,
    layout: &Layout,
    report: &mut CheckReport,
) -> Result<Option<Index>, Unreadable> {
    let state = layout.state();
    if !exists(disk, &state)? {
        report.fault(&state, None, (0, 0), "it is gone".to_owned());
        return Ok(None);
    }
    for path in list(disk, &state)? {
        report.bytes += length_of(disk, &path)?.unwrap_or(0);
        report.files += 1;
    }
    let first = peek(disk, &state)?;
    let what = match first {
        Ok(Some(index)) => return Ok(Some(index)),
        Ok(None) => "the state is empty".to_owned(),
        Err(error) => match peek(disk, &state)? {
            Ok(Some(index)) => return Ok(Some(index)),
            _ => error.to_string(),
        },
    };
    report.fault(&state, None, (0, 0), what);
    Ok(None)
}

fn peek(disk: &Disk, state: &Path) -> Result<Result<Option<Index>, StateError>, Unreadable> {
    let refused = |error: StateError| match error {
        StateError::Unreadable(error) => error,
        error => Unreadable::because(state, io::Error::other(error.to_string())),
    };
    let here = Disk::default();
    let home = tempfile::tempdir().map_err(|error| Unreadable::because(state, error))?;
    let copy = home.path().join("state");
    opening::copy(state, &copy, disk, &here).map_err(refused)?;
    let opened = disk
        .check(Op::StateOpen(state))
        .map_err(|error| Unreadable::because(state, error))
        .map(|()| Store::open_trial(&copy, &here))?;
    match opened.and_then(|store| load(&store)) {
        Err(error) if error.is_of_the_system() => Err(refused(error)),
        read => Ok(read),
    }
}

/// A look at work.
struct Look<'a> {
    disk: &'a Disk,
    layout: &'a Layout,
    index: Option<&'a Index>,
    keys: Option<&'a Keyring>,
    report: &'a mut CheckReport,
}

impl Look<'_> {
    fn segments(&mut self) -> Result<(), Unreadable> {
        let mut known: HashMap<PathBuf, (DeliveryId, &Segment)> = HashMap::new();
        for delivery in self
            .index
            .iter()
            .flat_map(|index| index.deliveries.values())
        {
            let id = delivery.row.info.id;
            for segment in delivery.segments.iter() {
                let number = segment.row.summary.number;
                known.insert(self.layout.segment(id, number), (id, segment));
            }
        }
        for path in list(self.disk, &self.layout.segments())? {
            match path.file_name().and_then(parse_segment_name) {
                Some(SegmentName::Segment(id, _)) => {
                    let segment = known.remove(&path).map(|(_, segment)| segment);
                    let sound = self.index.is_some();
                    check_segment(self.disk, &path, id, segment, sound, self.keys, self.report)?;
                }
                Some(
                    SegmentName::Aborted(_)
                    | SegmentName::Cancelled(_)
                    | SegmentName::Held(_)
                    | SegmentName::Probe,
                ) => {}
                // The next open removes it.
                None if is_draft(&path) => {}
                None => self.report.stray(&path),
            }
        }
        for (path, (id, segment)) in known {
            let left = (segment.entries_left(), segment.row.left().rows);
            if left.0 == 0 && segment.row.damaged {
                // Given up and named before.
                continue;
            }
            self.report
                .fault(&path, Some(id), left, "it is gone".to_owned());
        }
        Ok(())
    }

    fn rejected(&mut self) -> Result<(), Unreadable> {
        let mut kept: HashSet<DeliveryId> = HashSet::new();
        let deliveries = self
            .index
            .iter()
            .flat_map(|index| index.deliveries.values());
        kept.extend(
            deliveries
                .filter(|delivery| delivery.row.kept.is_some_and(|kept| kept > 0))
                .map(|delivery| delivery.row.info.id),
        );
        for path in list(self.disk, &self.layout.rejected_directory())? {
            if is_draft(&path) {
                continue;
            }
            let file = ReadFile::open(self.disk, &path).and_then(|file| file.whole());
            let Some(bytes) = sound(file)? else {
                continue;
            };
            self.report.files += 1;
            self.report.bytes += bytes.len() as u64;
            let id = path.file_name().and_then(parse_rejected_name);
            id.inspect(|id| {
                kept.remove(id);
            });
            let (sound, shut) = id.map_or((0, 0), |id| rejected::weigh(&bytes, id, self.keys));
            self.report.records += sound - shut;
            // Rows of a delivery that was cut short: the next open removes them.
            let cut_short = match (self.index, id) {
                (Some(index), Some(id)) => !index.by_id.contains_key(&id),
                _ => false,
            };
            if (!whole_is_sound(&bytes) || shut > 0) && !cut_short {
                let what = "damaged, or its delivery was never accepted";
                self.report.fault(&path, id, (shut, 0), what.to_owned());
            }
        }
        for id in kept {
            let path = self.layout.rejected(id);
            let what = "the rejected rows are gone".to_owned();
            self.report.fault(&path, Some(id), (0, 0), what);
        }
        Ok(())
    }

    fn dead(&mut self) -> Result<(), Unreadable> {
        for path in list(self.disk, &self.layout.dead_directory())? {
            self.report.files += 1;
            self.report.bytes += length_of(self.disk, &path)?.unwrap_or(0);
            if path.file_name().and_then(parse_dead_name).is_none() {
                self.report.stray(&path);
            }
        }
        for (id, letter) in self.index.iter().flat_map(|index| &index.letters) {
            let delivery = self
                .index
                .and_then(|index| index.deliveries.get(&letter.position))
                .map(|delivery| delivery.row.info.id);
            if let Some(delivery) = delivery
                && self.letter_is_sound(delivery, letter)?
            {
                self.report.records += 1;
                continue;
            }
            let what = format!("dead letter {id} is damaged or gone");
            let lost = (1, letter.tally.rows);
            let file = self.layout.dead(letter.file);
            self.report.fault(&file, delivery, lost, what);
        }
        Ok(())
    }

    fn letter_is_sound(&self, delivery: DeliveryId, letter: &Letter) -> Result<bool, Unreadable> {
        let (name, place) = (letter.name(delivery), letter.place());
        let read = match self.keys {
            Some(keys) => read_letter(self.disk, self.layout, keys, name, place).map(|_| ()),
            None => ReadFile::open(self.disk, &self.layout.dead(place.file)).and_then(|file| {
                file.twice(|file| check_framed(file, place.offset, place.length, name))
            }),
        };
        Ok(sound(read)?.is_some())
    }
}

/// `known` is what a sound state says of the segment. One that such a state does not know has
/// settled, or its delivery was cut short, or the next open takes it up: it need not have an end.
fn check_segment(
    disk: &Disk,
    path: &Path,
    id: DeliveryId,
    known: Option<&Segment>,
    state_is_sound: bool,
    keys: Option<&Keyring>,
    report: &mut CheckReport,
) -> Result<(), Unreadable> {
    let Some(file) = sound(ReadFile::open(disk, path))? else {
        // It has gone since it was listed.
        return Ok(());
    };
    let bytes = sound(file.whole())?.unwrap_or_default();
    report.files += 1;
    report.bytes += bytes.len() as u64;
    let footer = sound(file.twice(read_footer))?;
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

impl CheckReport {
    fn stray(&mut self, file: &Path) {
        self.fault(
            file,
            None,
            (0, 0),
            "it is not a file of an outbox".to_owned(),
        );
    }

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
