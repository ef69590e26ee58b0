//! What the files say and the state does not. All of it is read before anything is changed, so that
//! what cannot be read now ends the open and nothing has been concluded from it.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::{Path, PathBuf};

use crate::model::DeliveryId;
use crate::outbox::delivery::{Info, Tally};
use crate::outbox::local::files::disk::Disk;
use crate::outbox::local::files::format::{Commit, Footer, Header};
use crate::outbox::local::files::layout::Layout;
use crate::outbox::local::files::read::{ReadFile, Unreadable, sound};
use crate::outbox::local::files::segment::{
    Places, SegmentFile, Summary, read_footer, read_header,
};
use crate::outbox::local::recovery::letters::{EntryLetters, Tail, by_entry};
use crate::outbox::local::recovery::listing::Listing;
use crate::outbox::local::state::index::Index;
use crate::outbox::record::{self, Kind};
use crate::seal::Keyring;

/// What is to be taken up, in the order in which the replay does it.
#[derive(Debug, Default)]
pub(in crate::outbox) struct Findings {
    /// Deliveries that were withdrawn: their marks, and the files that go with each.
    pub withdrawn: Vec<(DeliveryId, PathBuf, Vec<PathBuf>)>,
    /// Segments that the state no longer counts: all in them has settled.
    pub settled: Vec<PathBuf>,
    /// Deliveries unknown to the state whose segments do not say that they were accepted.
    pub unaccepted: Vec<Unaccepted>,
    /// Deliveries unknown to the state that were accepted, in the order of their acceptance.
    pub accepted: Vec<Accepted>,
    /// Dead-letter files that are longer than the state knows: number, path and length.
    pub tails: Vec<(u32, PathBuf, u64)>,
    /// Deliveries with a dead letter that is sound by its checksum and does not open.
    pub shut: Vec<DeliveryId>,
    /// Dead letters unknown to the state, by delivery and entry.
    pub letters: BTreeMap<DeliveryId, Vec<EntryLetters>>,
    /// Files of rejected rows of deliveries unknown to the state.
    pub rejected: BTreeMap<DeliveryId, PathBuf>,
    /// What the files in `rejected` say of their deliveries.
    pub heads: HashMap<DeliveryId, Head>,
    /// Were being written anew.
    pub drafts: Vec<PathBuf>,
    /// Segments that an erasure has written anew and the state was not told of.
    pub rewritten: Vec<RewrittenSegment>,
    /// Rejected rows of deliveries, by position, that were erased and the state was not told of.
    pub erased_rows: Vec<(u64, u64)>,
    /// Segments known to the state that are gone or of another length.
    pub short: Vec<ShortSegment>,
    /// Dead letters known to the state whose file is gone or ends before their end.
    pub cut_letters: Vec<u64>,
    /// Marks of deliveries that were cancelled.
    pub cancelled: Vec<(DeliveryId, PathBuf)>,
    /// Marks of deliveries that are held.
    pub held: Vec<(DeliveryId, PathBuf)>,
    /// What is not a file of the outbox.
    pub strays: Vec<PathBuf>,
    /// A file that was written to see whether the disk takes one.
    pub probe: Option<PathBuf>,
    /// The first number that no dead-letter file has had.
    pub next_dead_file: u32,
}

/// What a file of rejected rows says of its delivery.
#[derive(Clone, Debug)]
pub(in crate::outbox) struct Head {
    pub info: Info,
    pub commit: Commit,
    /// Rows that were erased from it.
    pub erased: u64,
}

/// A segment of which something was erased.
#[derive(Debug)]
pub(in crate::outbox) struct RewrittenSegment {
    pub position: u64,
    pub number: u32,
    pub places: Places,
    pub bytes: u64,
}

/// A delivery that was cut short, or whose headers are damaged.
#[derive(Debug)]
pub(in crate::outbox) struct Unaccepted {
    pub id: DeliveryId,
    /// There is a commit, and no header that says whose.
    pub commit: bool,
    pub rows: u64,
    pub files: Vec<PathBuf>,
}

/// A delivery that the state does not know, from its segments.
#[derive(Debug)]
pub(in crate::outbox) struct Accepted {
    pub info: Info,
    pub commit: Commit,
    pub segments: Vec<FoundSegment>,
    /// Its rejected rows, if it has any.
    pub rejected: Option<PathBuf>,
}

/// One segment of it.
#[derive(Debug)]
pub(in crate::outbox) struct FoundSegment {
    /// What it holds; of a damaged one, what can still be read.
    pub summary: Summary,
    /// Header or footer is damaged.
    pub damaged: bool,
    /// What was erased from it.
    pub erased: Tally,
    pub places: Option<Places>,
}

/// A segment that is not as long as the state says.
#[derive(Debug)]
pub(in crate::outbox) struct ShortSegment {
    pub position: u64,
    pub number: u32,
    /// `None`: it is gone.
    pub length: Option<u64>,
    /// Where its entries lie, as far as they can be found.
    pub places: Option<Places>,
}

/// Reads what there is to find.
struct Search<'a> {
    disk: &'a Disk,
    layout: &'a Layout,
    index: &'a Index,
    /// Of each file in `segments/` that is there.
    lengths: BTreeMap<(DeliveryId, u32), u64>,
    accepted: HashMap<DeliveryId, Accepted>,
    /// Where the entries lie in the segment that was asked for last.
    last: Option<(PathBuf, Option<Places>)>,
}

impl Findings {
    /// Reads them.
    pub fn read(
        disk: &Disk,
        layout: &Layout,
        keys: &Keyring,
        files: Listing,
        live: &HashSet<DeliveryId>,
        index: &Index,
    ) -> Result<Self, Unreadable> {
        let mut search = Search {
            disk,
            layout,
            index,
            lengths: files.segments,
            accepted: HashMap::new(),
            last: None,
        };
        let mut found = Self {
            cancelled: files.cancelled,
            held: files.held,
            strays: files.strays,
            probe: files.probe,
            drafts: files.drafts,
            ..Self::default()
        };
        if files.erasing {
            search.rewritten(&files.rejected, &mut found)?;
        }
        let mut withdrawn = HashSet::new();
        for (id, mark) in files.aborted {
            withdrawn.insert(id);
            found.withdrawn.push((id, mark, search.files_of(id)));
        }
        let mut rejected = files.rejected;
        rejected.retain(|id, _| !index.by_id.contains_key(id));
        let mut unknown = Vec::new();
        for &(id, number) in search.lengths.keys() {
            if withdrawn.contains(&id) {
                continue;
            }
            match index.delivery(id) {
                Some((_, delivery)) if delivery.segments.get(number).is_some() => {}
                Some(_) => found.settled.push(layout.segment(id, number)),
                None if unknown.last() == Some(&id) => {}
                None => unknown.push(id),
            }
        }
        for id in unknown {
            let unaccepted = search.unknown(id, &mut rejected)?;
            found.unaccepted.extend(unaccepted);
        }
        found.unaccepted.sort_by_key(|one| one.id);
        let mut letters = Vec::new();
        for (&number, &length) in &files.dead {
            let path = layout.dead(number);
            let known = index.dead_files.get(&number);
            // One that the state does not know at all is taken in even if it is empty, so that it goes.
            let unknown = known.is_none();
            let known = known.map_or(0, |file| file.row.length);
            if (length > known || unknown)
                && let Some(tail) = Tail::read(disk, &path, keys, number, known)?
            {
                found.tails.push((number, path, tail.length));
                found.shut.extend(tail.shut);
                letters.extend(tail.letters);
            }
        }
        for mut entry in by_entry(letters) {
            entry.weight = search.weight(entry.delivery, entry.ordinal)?;
            found.letters.entry(entry.delivery).or_default().push(entry);
        }
        for (id, path) in &rejected {
            let head = read_head(disk, path)?;
            found.heads.extend(head.map(|head| (*id, head)));
        }
        found.rejected = rejected;
        found.short = search.short(&live.union(&withdrawn).copied().collect())?;
        let rewritten = |one: &ShortSegment| {
            let mut all = found.rewritten.iter();
            all.any(|other| (other.position, other.number) == (one.position, one.number))
        };
        found.short.retain(|one| !rewritten(one));
        found.cut_letters = search.cut_letters(&files.dead);
        let numbers = files.dead.keys().chain(index.dead_files.keys());
        found.next_dead_file = numbers.max().map_or(0, |last| last.saturating_add(1));
        found.accepted = search.accepted.into_values().collect();
        found
            .accepted
            .sort_by_key(|one| (one.commit.position, one.info.id));
        Ok(found)
    }
}

impl Search<'_> {
    /// The segments of a delivery that are there.
    fn numbers(&self, id: DeliveryId) -> impl Iterator<Item = u32> {
        let all = self.lengths.range((id, 0)..=(id, u32::MAX));
        all.map(|((_, number), _)| *number)
    }

    /// Their paths.
    fn files_of(&self, id: DeliveryId) -> Vec<PathBuf> {
        let path = |number| self.layout.segment(id, number);
        self.numbers(id).map(path).collect()
    }

    /// Looks at the segments of a delivery that the state does not know. One that was accepted is
    /// kept here.
    fn unknown(
        &mut self,
        id: DeliveryId,
        rejected: &mut BTreeMap<DeliveryId, PathBuf>,
    ) -> Result<Option<Unaccepted>, Unreadable> {
        let mut parts = BTreeMap::new();
        for number in self.numbers(id) {
            let path = self.layout.segment(id, number);
            if let Some(part) = Part::read(self.disk, &path, id)? {
                parts.insert(number, part);
            }
        }
        let commit = parts
            .last_key_value()
            .and_then(|(_, last)| last.footer.as_ref()?.commit.clone());
        let info = parts
            .values()
            .find_map(|part| part.header.as_ref()?.info.clone())
            .filter(|info| info.id == id);
        let (Some(commit), Some(info)) = (&commit, info) else {
            let rows = match &commit {
                Some(commit) => commit.totals.rows_in,
                None => parts.values().map(|part| part.tally().rows).sum(),
            };
            let files = self.files_of(id).into_iter().chain(rejected.remove(&id));
            return Ok(Some(Unaccepted {
                id,
                commit: commit.is_some(),
                rows,
                files: files.collect(),
            }));
        };
        let mut segments = Vec::new();
        for (&number, part) in &parts {
            let summary = part.summary(number, parts.get(&(number + 1)));
            let places = match (&part.header, &part.footer) {
                (Some(header), Some(footer)) => {
                    Some(Places::new(header.first, footer.places.clone()))
                }
                _ => self.places(id, summary)?,
            };
            segments.push(FoundSegment {
                summary,
                damaged: part.is_damaged(),
                erased: part
                    .footer
                    .as_ref()
                    .map_or_else(Tally::default, |footer| footer.erased),
                places,
            });
        }
        let accepted = Accepted {
            info,
            commit: commit.clone(),
            segments,
            rejected: rejected.remove(&id),
        };
        self.accepted.insert(id, accepted);
        Ok(None)
    }

    /// Where the entries of a segment lie; `None`: it is gone.
    fn places(&self, id: DeliveryId, summary: Summary) -> Result<Option<Places>, Unreadable> {
        let path = self.layout.segment(id, summary.number);
        let file = SegmentFile::open(self.disk, &path, id, summary.first, summary.entries);
        Ok(sound(file)?.map(SegmentFile::into_places))
    }

    /// What an entry weighs by its segment; `None`: that is not there, or does not say.
    fn weight(&mut self, id: DeliveryId, ordinal: u32) -> Result<Option<Tally>, Unreadable> {
        if let Some(accepted) = self.accepted.get(&id) {
            let places = accepted
                .segments
                .iter()
                .filter_map(|one| one.places.as_ref());
            let place = places.filter_map(|places| places.place(ordinal)).next();
            return Ok(place.map(|place| place.tally()));
        }
        let delivery = self.index.delivery(id);
        let Some(segment) = delivery.and_then(|(_, delivery)| delivery.segment_of(ordinal)) else {
            return Ok(None);
        };
        let path = self.layout.segment(id, segment.row.summary.number);
        if self.last.as_ref().is_none_or(|(last, _)| *last != path) {
            self.last = Some((path, self.places(id, segment.row.summary)?));
        }
        let places = self.last.as_ref().and_then(|(_, places)| places.as_ref());
        Ok(places.and_then(|places| Some(places.place(ordinal)?.tally())))
    }

    /// What an erasure that a crash has cut short has written anew.
    fn rewritten(
        &self,
        rejected: &BTreeMap<DeliveryId, PathBuf>,
        found: &mut Findings,
    ) -> Result<(), Unreadable> {
        for (&position, delivery) in &self.index.deliveries {
            let id = delivery.row.info.id;
            for segment in delivery.segments.iter() {
                let summary = segment.row.summary;
                let number = summary.number;
                let path = self.layout.segment(id, number);
                let file = SegmentFile::open(self.disk, &path, id, summary.first, summary.entries);
                let file = sound(file)?.filter(|file| file.sound);
                let anew = file.filter(|file| file.places().weight() != summary.tally);
                if let (Some(file), Some(&bytes)) = (anew, self.lengths.get(&(id, number))) {
                    found.rewritten.push(RewrittenSegment {
                        position,
                        number,
                        places: file.into_places(),
                        bytes,
                    });
                }
            }
            let Some(path) = rejected.get(&id) else {
                continue;
            };
            let footer = ReadFile::open(self.disk, path).and_then(|file| read_footer(&file));
            let erased = sound(footer)?.map_or(0, |footer| footer.erased.rows);
            let more = erased.saturating_sub(delivery.counters().erased_rejected);
            if more > 0 {
                found.erased_rows.push((position, more));
            }
        }
        Ok(())
    }

    /// Segments that the state counts on and that are not as long as it says, but those of the
    /// deliveries in `except`.
    fn short(&self, except: &HashSet<DeliveryId>) -> Result<Vec<ShortSegment>, Unreadable> {
        let mut short = Vec::new();
        for (&position, delivery) in &self.index.deliveries {
            let id = delivery.row.info.id;
            if except.contains(&id) {
                continue;
            }
            for segment in delivery.segments.iter() {
                let summary = segment.row.summary;
                let number = summary.number;
                let length = self.lengths.get(&(id, number)).copied();
                if length != Some(summary.bytes) && !segment.row.is_settled() {
                    short.push(ShortSegment {
                        position,
                        number,
                        length,
                        places: self.places(id, summary)?,
                    });
                }
            }
        }
        Ok(short)
    }

    /// `lengths` are those of the dead-letter files that are there.
    fn cut_letters(&self, lengths: &BTreeMap<u32, u64>) -> Vec<u64> {
        let letters = self.index.letters.iter();
        let cut = letters.filter(|(_, letter)| {
            let end = letter.offset.saturating_add(u64::from(letter.length));
            let length = lengths.get(&letter.file);
            length.is_none_or(|length| *length < end)
        });
        cut.map(|(id, _)| *id).collect()
    }
}

/// A segment file of a delivery that the state does not know, as far as it is sound.
#[derive(Debug)]
struct Part {
    header: Option<Header>,
    footer: Option<Footer>,
    bytes: u64,
    /// Of a damaged one: the first and the last ordinal of its records, and what they weigh.
    span: Option<(u32, u32)>,
    weight: Tally,
}

impl Part {
    /// `None`: it has gone since it was listed.
    fn read(disk: &Disk, path: &Path, id: DeliveryId) -> Result<Option<Self>, Unreadable> {
        let Some(file) = sound(ReadFile::open(disk, path))? else {
            return Ok(None);
        };
        let mut part = Self {
            header: sound(file.twice(read_header))?,
            footer: sound(file.twice(read_footer))?,
            bytes: file.length()?,
            span: None,
            weight: Tally::default(),
        };
        if part.is_damaged() {
            let bytes = sound(file.whole())?.unwrap_or_default();
            part.scan(&bytes, id);
        }
        Ok(Some(part))
    }

    fn is_damaged(&self) -> bool {
        self.header.is_none() || self.footer.is_none()
    }

    fn scan(&mut self, bytes: &[u8], id: DeliveryId) {
        for (_, _, frame) in record::scan(bytes) {
            if (frame.name.kind, frame.name.delivery) != (Kind::Entry, id) {
                continue;
            }
            self.weight += Tally {
                rows: frame.total_rows(),
                batches: u64::from(frame.slices()),
            };
            let ordinal = frame.name.ordinal;
            let (first, last) = self.span.unwrap_or((ordinal, ordinal));
            self.span = Some((first.min(ordinal), last.max(ordinal)));
        }
    }

    /// What its footer says that it weighs.
    fn tally(&self) -> Tally {
        let mut sum = Tally::default();
        for place in self.footer.iter().flat_map(|footer| &footer.places) {
            sum += place.tally();
        }
        sum
    }

    /// What the segment holds; of a damaged one, what can still be read.
    fn summary(&self, number: u32, next: Option<&Self>) -> Summary {
        let mut summary = Summary {
            number,
            bytes: self.bytes,
            tally: self.tally(),
            ..Summary::default()
        };
        if let (Some(header), Some(footer)) = (&self.header, &self.footer) {
            summary.first = header.first;
            summary.entries = footer.places.len() as u32;
            return summary;
        }
        let (first, after) = self.span.map_or((0, 0), |(first, last)| (first, last + 1));
        summary.first = self.header.as_ref().map_or(first, |header| header.first);
        let end = next
            .and_then(|next| Some(next.header.as_ref()?.first))
            .unwrap_or(after);
        summary.entries = match &self.footer {
            Some(footer) => footer.places.len() as u32,
            None => end.saturating_sub(summary.first),
        };
        summary.tally = self.weight;
        summary
    }
}

/// What a file of rejected rows says of its delivery, if it is sound.
fn read_head(disk: &Disk, path: &Path) -> Result<Option<Head>, Unreadable> {
    let Some(file) = sound(ReadFile::open(disk, path))? else {
        return Ok(None);
    };
    let header = sound(file.twice(read_header))?;
    let footer = sound(file.twice(read_footer))?;
    let (info, footer) = (header.and_then(|header| header.info), footer);
    Ok(info.zip(footer).and_then(|(info, footer)| {
        Some(Head {
            info,
            commit: footer.commit?,
            erased: footer.erased.rows,
        })
    }))
}
