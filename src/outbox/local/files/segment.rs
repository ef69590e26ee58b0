//! Segment files, written and read: header, records, footer (see `format` and `record`).
//!
//! [`LogWriter`] is the part that files of rejected rows share.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use crate::model::DeliveryId;
use crate::outbox::codec::Malformed;
use crate::outbox::delivery::Tally;
use crate::outbox::local::files::disk::Disk;
use crate::outbox::local::files::format::{
    Commit, FileKind, Footer, Header, MAX_HEADER, Place, TRAILER,
};
use crate::outbox::local::files::read::{ReadError, ReadFile, sound};
use crate::outbox::record::{self, EncodeError, Frame, Kind, Name, Record, Slice};
use crate::seal::{Keyring, Sealer};

/// Bytes gathered before a write.
const BUFFER: usize = 256 << 10;

/// Appends records to a new file.
#[derive(Debug)]
pub(in crate::outbox) struct LogWriter {
    disk: Disk,
    path: PathBuf,
    file: File,
    /// Made with the file and never used for another, whatever becomes of what was written.
    sealer: Sealer,
    buffer: Vec<u8>,
    written: u64,
    crc: u32,
}

impl LogWriter {
    pub fn create(disk: &Disk, path: PathBuf, header: &Header, keys: &Keyring) -> io::Result<Self> {
        let sealer = keys.sealer().map_err(io::Error::other)?;
        let file = disk.create(&path)?;
        Ok(Self {
            disk: disk.clone(),
            path,
            file,
            sealer,
            buffer: header.encode(),
            written: 0,
            crc: 0,
        })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    pub fn length(&self) -> u64 {
        self.written + self.buffer.len() as u64
    }

    /// Appends one record and returns its offset and length.
    pub fn append(
        &mut self,
        name: Name,
        meta: &[u8],
        slices: &[Slice<'_>],
    ) -> Result<(u64, usize), AppendError> {
        let (offset, before) = (self.length(), self.buffer.len());
        record::encode(&mut self.buffer, &mut self.sealer, name, meta, slices)?;
        let length = self.buffer.len() - before;
        if self.buffer.len() >= BUFFER {
            self.flush()?;
        }
        Ok((offset, length))
    }

    /// Appends bytes as they are, and returns where they lie.
    pub fn copy(&mut self, bytes: &[u8]) -> io::Result<u64> {
        let offset = self.length();
        self.buffer.extend_from_slice(bytes);
        if self.buffer.len() >= BUFFER {
            self.flush()?;
        }
        Ok(offset)
    }

    pub fn flush(&mut self) -> io::Result<()> {
        if self.buffer.is_empty() {
            return Ok(());
        }
        self.disk
            .write(&self.file, &self.path, self.written, &self.buffer)?;
        self.crc = crc32c::crc32c_append(self.crc, &self.buffer);
        self.written += self.buffer.len() as u64;
        self.buffer.clear();
        Ok(())
    }

    pub fn sync(&mut self) -> io::Result<()> {
        self.flush()?;
        self.disk.sync(&self.file, &self.path)
    }

    /// Ends the file: what is before the footer is durable before the footer is written.
    pub fn finish(&mut self, footer: &Footer) -> io::Result<()> {
        self.flush()?;
        self.buffer = footer.encode(self.crc);
        self.sync()
    }
}

/// A record could not be appended.
#[derive(Debug)]
pub(in crate::outbox) enum AppendError {
    TooLarge,
    Io(io::Error),
}

impl From<EncodeError> for AppendError {
    fn from(error: EncodeError) -> Self {
        match error {
            EncodeError::TooLarge => Self::TooLarge,
            EncodeError::Seal(error) => Self::Io(io::Error::other(error)),
        }
    }
}

impl From<io::Error> for AppendError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// What a segment holds, in numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::outbox) struct Summary {
    pub number: u32,
    pub first: u32,
    pub entries: u32,
    pub tally: Tally,
    pub bytes: u64,
}

/// A segment on its way to the disk.
#[derive(Debug)]
pub(in crate::outbox) struct SegmentWriter {
    log: LogWriter,
    delivery: DeliveryId,
    number: u32,
    first: u32,
    tally: Tally,
    footer: Footer,
}

impl SegmentWriter {
    pub fn create(
        disk: &Disk,
        path: PathBuf,
        delivery: DeliveryId,
        header: &Header,
        keys: &Keyring,
    ) -> io::Result<Self> {
        Ok(Self {
            log: LogWriter::create(disk, path, header, keys)?,
            delivery,
            number: header.number,
            first: header.first,
            tally: Tally::default(),
            footer: Footer::default(),
        })
    }

    pub fn append(&mut self, route: u8, slices: &[Slice<'_>]) -> Result<(u32, usize), AppendError> {
        let ordinal = self.next_ordinal();
        let rows = slices.iter().map(|slice| u64::from(slice.rows)).sum();
        let place_rows = u32::try_from(rows).map_err(|_| AppendError::TooLarge)?;
        let name = Name {
            kind: Kind::Entry,
            delivery: self.delivery,
            ordinal,
        };
        let (offset, length) = self.log.append(name, &[route], slices)?;
        self.footer.places.push(Place {
            offset: u32::try_from(offset).map_err(|_| AppendError::TooLarge)?,
            length: u32::try_from(length).map_err(|_| AppendError::TooLarge)?,
            batches: slices.len() as u32,
            rows: place_rows,
        });
        self.tally += Tally {
            rows,
            batches: slices.len() as u64,
        };
        Ok((ordinal, length))
    }

    /// Appends an entry that cannot be opened, as it lies in another file.
    pub fn copy(&mut self, place: Place, bytes: &[u8]) -> Result<(), AppendError> {
        let offset = self.log.copy(bytes)?;
        self.footer.places.push(Place {
            offset: u32::try_from(offset).map_err(|_| AppendError::TooLarge)?,
            ..place
        });
        self.tally += place.tally();
        Ok(())
    }

    /// Says what has been erased of the segment.
    pub fn erased(&mut self, erased: Tally) {
        self.footer.erased = erased;
    }

    pub fn next_ordinal(&self) -> u32 {
        self.first + self.footer.places.len() as u32
    }

    pub fn path(&self) -> &Path {
        self.log.path()
    }

    pub fn length(&self) -> u64 {
        self.log.length()
    }

    pub fn sync(&mut self) -> io::Result<()> {
        self.log.sync()
    }

    /// Ends the segment; with a commit it is the last one, and the delivery is accepted.
    pub fn finish(&mut self, commit: Option<Commit>) -> io::Result<Summary> {
        self.footer.commit = commit;
        self.log.finish(&self.footer)?;
        Ok(self.summary())
    }

    pub fn summary(&self) -> Summary {
        Summary {
            number: self.number,
            first: self.first,
            entries: self.footer.places.len() as u32,
            tally: self.tally,
            bytes: self.log.length(),
        }
    }
}

/// Where the entries of a segment lie.
#[derive(Debug)]
pub(in crate::outbox) struct Places {
    first: u32,
    places: Vec<Place>,
}

impl Places {
    /// Those of the ordinals from `first` on.
    pub fn new(first: u32, places: Vec<Place>) -> Self {
        Self { first, places }
    }

    /// Where an entry lies; `None` when it is not in this segment or not to be found any more.
    pub fn place(&self, ordinal: u32) -> Option<Place> {
        let local = ordinal.checked_sub(self.first)?;
        let place = self.places.get(local as usize)?;
        (place.length > 0).then_some(*place)
    }

    /// What an entry weighs; nothing, when it is not to be found.
    pub fn tally(&self, ordinal: u32) -> Tally {
        self.place(ordinal)
            .map_or_else(Tally::default, Place::tally)
    }

    /// What all entries weigh.
    pub fn weight(&self) -> Tally {
        let mut sum = Tally::default();
        self.places.iter().for_each(|place| sum += place.tally());
        sum
    }
}

/// A committed segment, open for reading.
#[derive(Debug)]
pub(in crate::outbox) struct SegmentFile {
    file: ReadFile,
    delivery: DeliveryId,
    places: Places,
    /// What was erased from it.
    pub erased: Tally,
    /// Header and footer are as they were written.
    pub sound: bool,
}

impl SegmentFile {
    /// Opens the segment of `delivery` that holds the `entries` ordinals from `first` on. One that
    /// is damaged is searched for what can still be read.
    pub fn open(
        disk: &Disk,
        path: &Path,
        delivery: DeliveryId,
        first: u32,
        entries: u32,
    ) -> Result<Self, ReadError> {
        let file = ReadFile::open(disk, path)?;
        let ends = file.twice(|file| {
            let header = read_header(file)?;
            let footer = read_footer(file)?;
            let fits = header.kind == FileKind::Segment && footer.places.len() == entries as usize;
            fits.then_some((footer.places, footer.erased))
                .ok_or(ReadError::Damaged)
        });
        let ((places, erased), sound) = match sound(ends)? {
            Some(ends) => (ends, true),
            None => {
                let places = surviving(&file, delivery, first, entries)?;
                ((places, Tally::default()), false)
            }
        };
        Ok(Self {
            file,
            delivery,
            places: Places::new(first, places),
            erased,
            sound,
        })
    }

    /// Where its entries lie.
    pub fn places(&self) -> &Places {
        &self.places
    }

    /// The same, without the open file.
    pub fn into_places(self) -> Places {
        self.places
    }

    /// See [`Places::place`].
    pub fn place(&self, ordinal: u32) -> Option<Place> {
        self.places.place(ordinal)
    }

    /// What an entry weighs; nothing, when it is not to be found.
    pub fn tally(&self, ordinal: u32) -> Tally {
        self.places.tally(ordinal)
    }

    /// An entry's bytes as they lie there.
    pub fn bytes(&self, place: Place) -> Result<Vec<u8>, ReadError> {
        self.file
            .read(u64::from(place.offset), place.length as usize)
    }

    /// Reads one entry back.
    ///
    /// # Errors
    /// It cannot be read, or it is damaged: not to be found, or not what was written.
    pub fn read(&self, ordinal: u32, keys: &Keyring) -> Result<Record, ReadError> {
        let (place, name) = self.named(ordinal)?;
        let offset = u64::from(place.offset);
        self.file
            .twice(|file| read_record(file, offset, place.length, name, keys))
    }

    /// Reads one entry as it is sealed, and opens it to see that it is sound.
    pub fn read_sealed(&self, ordinal: u32, keys: &Keyring) -> Result<Vec<u8>, ReadError> {
        let (place, name) = self.named(ordinal)?;
        let offset = u64::from(place.offset);
        self.file
            .twice(|file| read_sealed(file, offset, place.length, name, keys))
    }

    fn named(&self, ordinal: u32) -> Result<(Place, Name), ReadError> {
        let place = self.place(ordinal).ok_or(ReadError::Damaged)?;
        let name = Name {
            kind: Kind::Entry,
            delivery: self.delivery,
            ordinal,
        };
        Ok((place, name))
    }
}

/// Where the entries lie in a segment whose header or footer is damaged, as far as they are found.
fn surviving(
    file: &ReadFile,
    delivery: DeliveryId,
    first: u32,
    entries: u32,
) -> Result<Vec<Place>, ReadError> {
    if let Some(footer) = sound(read_footer(file))?
        && footer.places.len() == entries as usize
    {
        return Ok(footer.places);
    }
    let mut places = vec![Place::default(); entries as usize];
    for (offset, length, frame) in record::scan(&file.whole()?) {
        let local = frame.name.ordinal.checked_sub(first);
        let local = local.map(|local| local as usize);
        if (frame.name.kind, frame.name.delivery) == (Kind::Entry, delivery)
            && let Some(place) = local.and_then(|local| places.get_mut(local))
        {
            *place = Place {
                offset: offset as u32,
                length: length as u32,
                batches: frame.slices(),
                rows: u32::try_from(frame.total_rows()).unwrap_or(u32::MAX),
            };
        }
    }
    Ok(places)
}
/// Reads the record of known place and length, which must be the one of this name.
pub(in crate::outbox) fn read_record(
    file: &ReadFile,
    offset: u64,
    length: u32,
    name: Name,
    keys: &Keyring,
) -> Result<Record, ReadError> {
    let bytes = file.read(offset, length as usize)?;
    Ok(framed(&bytes, name)?.open(keys)?)
}

/// The record of known place, length and name as it is sealed, once it has been opened.
pub(in crate::outbox) fn read_sealed(
    file: &ReadFile,
    offset: u64,
    length: u32,
    name: Name,
    keys: &Keyring,
) -> Result<Vec<u8>, ReadError> {
    let bytes = file.read(offset, length as usize)?;
    framed(&bytes, name)?.open(keys)?;
    Ok(bytes)
}

/// Whether the record of known place, length and name is sound by its checksum.
pub(in crate::outbox) fn check_framed(
    file: &ReadFile,
    offset: u64,
    length: u32,
    name: Name,
) -> Result<(), ReadError> {
    let bytes = file.read(offset, length as usize)?;
    Ok(framed(&bytes, name).map(|_| ())?)
}

fn framed(bytes: &[u8], name: Name) -> Result<Frame<'_>, Malformed> {
    let frame = Frame::decode(bytes)?;
    if frame.name == name {
        Ok(frame)
    } else {
        Err(Malformed)
    }
}

/// The header.
pub(in crate::outbox) fn read_header(file: &ReadFile) -> Result<Header, ReadError> {
    let length = file.length()?.min(MAX_HEADER as u64);
    let bytes = file.read(0, length as usize)?;
    Ok(Header::decode(&bytes).map(|(header, _)| header)?)
}

/// The footer.
///
/// # Errors
/// The file cannot be read, or has no sound one.
pub(in crate::outbox) fn read_footer(file: &ReadFile) -> Result<Footer, ReadError> {
    let length = file.length()?;
    let at = length
        .checked_sub(TRAILER as u64)
        .ok_or(ReadError::Damaged)?;
    let trailer = file.read(at, TRAILER)?;
    let trailer = trailer.first_chunk().ok_or(ReadError::Damaged)?;
    let start = at
        .checked_sub(u64::from(Footer::body_length(trailer)?))
        .ok_or(ReadError::Damaged)?;
    let bytes = file.read(start, (length - start) as usize)?;
    Ok(Footer::decode(&bytes).map(|(footer, _)| footer)?)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::FileExt;

    use super::*;
    use crate::seal::Key;

    const DELIVERY: DeliveryId = DeliveryId([4; 16]);

    fn keys() -> Keyring {
        Keyring::new(Key::new([1; 32]), Vec::new())
    }

    fn written(path: &Path) -> Summary {
        let header = Header {
            kind: FileKind::Segment,
            number: 0,
            first: 10,
            key: keys().current(),
            info: None,
        };
        let disk = Disk::default();
        let mut writer =
            SegmentWriter::create(&disk, path.to_owned(), DELIVERY, &header, &keys()).unwrap();
        for n in 0..20u32 {
            let text = format!("entry {n} ").repeat(n as usize);
            let slices = [Slice {
                bytes: text.as_bytes(),
                rows: n,
            }];
            assert_eq!(writer.append(n as u8, &slices).unwrap().0, 10 + n);
        }
        writer.sync().unwrap();
        writer.finish(None).unwrap()
    }

    #[test]
    fn entries_are_read_back_by_their_ordinal() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("segment");
        let summary = written(&path);
        assert_eq!(summary.entries, 20);
        assert_eq!(summary.tally.rows, 190);
        assert_eq!(summary.bytes, path.metadata().unwrap().len());
        let segment = SegmentFile::open(&Disk::default(), &path, DELIVERY, 10, 20).unwrap();
        assert!(segment.sound);
        let record = segment.read(17, &keys()).unwrap();
        assert_eq!(&record.slices[0][..], "entry 7 ".repeat(7).as_bytes());
        assert_eq!(record.route(), Ok(7));
        assert!(segment.read(9, &keys()).is_err());
        assert!(segment.read(30, &keys()).is_err());
    }

    #[test]
    fn a_segment_without_its_footer_gives_every_sound_entry() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("segment");
        written(&path);
        let places = SegmentFile::open(&Disk::default(), &path, DELIVERY, 10, 20)
            .unwrap()
            .into_places()
            .places;
        let file = File::options().write(true).open(&path).unwrap();
        file.set_len(u64::from(places[15].offset) + 5).unwrap();
        file.write_all_at(b"!", u64::from(places[3].offset) + 20)
            .unwrap();
        let segment = SegmentFile::open(&Disk::default(), &path, DELIVERY, 10, 20).unwrap();
        assert!(!segment.sound);
        for ordinal in 10..30 {
            let lost = ordinal == 13 || ordinal >= 25;
            assert_eq!(segment.read(ordinal, &keys()).is_err(), lost, "{ordinal}");
        }
    }

    #[test]
    fn a_segment_that_lies_where_another_belongs_gives_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("segment");
        written(&path);
        let other = DeliveryId([9; 16]);
        let segment = SegmentFile::open(&Disk::default(), &path, other, 10, 20).unwrap();
        assert!(segment.read(17, &keys()).is_err());
        let shifted = SegmentFile::open(&Disk::default(), &path, DELIVERY, 11, 20).unwrap();
        assert!(shifted.read(17, &keys()).is_err());
    }
}
