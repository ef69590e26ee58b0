//! The files of one schedule, in a directory of its own. Their names begin with a number that
//! grows from delivery to delivery, and the delivery's id:
//!
//! | name | what it is |
//! |---|---|
//! | `<number>-<delivery>.users` | the snapshot; there once it is whole and synced |
//! | `<number>-<delivery>.gone` | users who left, if the schedule keeps an audience; there before the snapshot |
//! | `<number>-<delivery>.settled` | the delivery has ended; holds which of its requests did not arrive |
//! | `<number>-<delivery>.before` | the delivery was the first one known of its schedule; holds the deliveries that were unfinished when it began, any of which may be one of the schedule's; there before the snapshot |
//! | `*.draft` | was being written; removed when the schedule is next looked at |
//!
//! A `.settled` that names requests stays as long as these can still be sent again, and a `.before` as
//! long as one of its deliveries is unfinished.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use super::Missing;
use super::reads::{Reads, Source};
use crate::model::DeliveryId;

const MAGIC: &[u8; 8] = b"LFSETTL\x01";
const MAGIC_BEFORE: &[u8; 8] = b"LFBEFOR\x01";
const DRAFT: &str = "draft";

/// One schedule's directory.
#[derive(Clone)]
pub(super) struct ScheduleFiles {
    directory: PathBuf,
    reads: Reads,
}

/// What belongs to one delivery.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Item {
    pub number: u64,
    pub delivery: Option<DeliveryId>,
    pub users: bool,
    pub gone: bool,
    pub settled: bool,
    pub before: bool,
}

/// Which file of a delivery.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Users,
    Gone,
    Settled,
    Before,
}

impl Kind {
    fn extension(self) -> &'static str {
        match self {
            Self::Users => "users",
            Self::Gone => "gone",
            Self::Settled => "settled",
            Self::Before => "before",
        }
    }
}

impl ScheduleFiles {
    pub fn new(directory: PathBuf, reads: Reads) -> Self {
        Self { directory, reads }
    }

    /// Opens a file of a delivery for reading.
    pub fn open(&self, number: u64, delivery: DeliveryId, kind: Kind) -> io::Result<Source> {
        self.reads.open(&self.path(number, delivery, kind))
    }

    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// By number, oldest first. A directory that is not there is empty.
    pub fn items(&self) -> io::Result<Vec<Item>> {
        let mut items: BTreeMap<u64, Item> = BTreeMap::new();
        for (path, _) in self.files()? {
            let Some((number, delivery, kind)) = parse(&path) else {
                continue;
            };
            let item = items.entry(number).or_default();
            item.number = number;
            item.delivery = Some(delivery);
            match kind {
                Kind::Users => item.users = true,
                Kind::Gone => item.gone = true,
                Kind::Settled => item.settled = true,
                Kind::Before => item.before = true,
            }
        }
        Ok(items.into_values().collect())
    }

    /// Size of all files, and when the newest was written.
    pub fn weight(&self) -> io::Result<(u64, Option<SystemTime>)> {
        let files = self.files()?;
        let bytes = files.iter().map(|(_, meta)| meta.len()).sum();
        let newest = files
            .iter()
            .filter_map(|(_, meta)| meta.modified().ok())
            .max();
        Ok((bytes, newest))
    }

    fn files(&self) -> io::Result<Vec<(PathBuf, fs::Metadata)>> {
        let mut files = Vec::new();
        for entry in self.reads.list(&self.directory)? {
            files.push((entry.path(), entry.metadata()?));
        }
        Ok(files)
    }

    pub fn path(&self, number: u64, delivery: DeliveryId, kind: Kind) -> PathBuf {
        let extension = kind.extension();
        self.directory
            .join(format!("{number:016x}-{delivery}.{extension}"))
    }

    /// Begins a file that is not there under its name before [`ScheduleFiles::publish`].
    pub fn draft(&self, number: u64, delivery: DeliveryId, kind: Kind) -> io::Result<File> {
        fs::create_dir_all(&self.directory)?;
        create(&draft_of(&self.path(number, delivery, kind)))
    }

    /// Begins a file anew that is there, beside it.
    pub fn anew(&self, number: u64, delivery: DeliveryId, kind: Kind) -> io::Result<File> {
        let draft = draft_of(&self.path(number, delivery, kind));
        match fs::remove_file(&draft) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        create(&draft)
    }

    /// Gives a file that is written its name, durably.
    pub fn publish(
        &self,
        file: &File,
        number: u64,
        delivery: DeliveryId,
        kind: Kind,
    ) -> io::Result<()> {
        file.sync_all()?;
        let path = self.path(number, delivery, kind);
        fs::rename(draft_of(&path), path)?;
        sync_directory(&self.directory)?;
        // The schedule's own directory may be new.
        self.directory.parent().map_or(Ok(()), sync_directory)
    }

    /// An unnamed file beside the others.
    pub fn temporary(&self) -> io::Result<File> {
        fs::create_dir_all(&self.directory)?;
        tempfile::tempfile_in(&self.directory)
    }

    /// Reads an unnamed file.
    pub fn source(&self, file: File) -> Source {
        self.reads.of(file, &self.directory)
    }

    /// Removes what was being written when the process died, or when the delivery was given up.
    pub fn remove_drafts(&self) -> io::Result<()> {
        for (path, _) in self.files()? {
            if path.extension() == Some(OsStr::new(DRAFT)) {
                fs::remove_file(path)?;
            }
        }
        Ok(())
    }

    /// Removes one file. Not there is as good.
    pub fn remove(&self, number: u64, delivery: DeliveryId, kind: Kind) -> io::Result<()> {
        match fs::remove_file(self.path(number, delivery, kind)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    /// Removes all at once and durably: half of it, or all of it after a loss of power, would say
    /// what is not so.
    pub fn clear(&self) -> io::Result<()> {
        let dropped = dropped(&self.directory);
        if dropped.exists() {
            fs::remove_dir_all(&dropped)?;
        }
        match fs::rename(&self.directory, &dropped) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            renamed => renamed?,
        }
        self.directory.parent().map_or(Ok(()), sync_directory)?;
        fs::remove_dir_all(&dropped)
    }

    /// Notes durably how a delivery ended.
    pub fn settle(&self, number: u64, delivery: DeliveryId, missing: &Missing) -> io::Result<()> {
        self.write(number, delivery, Kind::Settled, &encode(missing))
    }

    /// Notes durably which deliveries were unfinished when this one began.
    pub fn note_before(
        &self,
        number: u64,
        delivery: DeliveryId,
        unfinished: &[DeliveryId],
    ) -> io::Result<()> {
        self.write(number, delivery, Kind::Before, &encode_ids(unfinished))
    }

    /// Which deliveries were unfinished when this one began; `None`: the file is damaged, so it may
    /// have been any.
    ///
    /// # Errors
    /// It cannot be read now.
    pub fn before(&self, number: u64, delivery: DeliveryId) -> io::Result<Option<Vec<DeliveryId>>> {
        let mut bytes = Vec::new();
        self.open(number, delivery, Kind::Before)?
            .read_to_end(&mut bytes)?;
        Ok(decode_ids(&bytes))
    }

    fn write(&self, number: u64, delivery: DeliveryId, kind: Kind, bytes: &[u8]) -> io::Result<()> {
        let draft = draft_of(&self.path(number, delivery, kind));
        let mut file = match create(&draft) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                fs::remove_file(&draft)?;
                create(&draft)?
            }
            file => file?,
        };
        file.write_all(bytes)?;
        self.publish(&file, number, delivery, kind)
    }

    /// How a delivery ended; what is damaged or gone is in doubt.
    ///
    /// # Errors
    /// It cannot be read now.
    pub fn missing(&self, number: u64, delivery: DeliveryId) -> io::Result<Missing> {
        let mut bytes = Vec::new();
        let read = self
            .open(number, delivery, Kind::Settled)
            .and_then(|mut file| file.read_to_end(&mut bytes));
        match read {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Missing::InDoubt),
            Err(error) => Err(error),
            Ok(_) => Ok(decode(&bytes).unwrap_or(Missing::InDoubt)),
        }
    }
}

/// Where a directory goes that is being removed.
fn dropped(directory: &Path) -> PathBuf {
    directory.with_extension("dropped")
}

fn create(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .write(true)
        .read(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
}

fn draft_of(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".");
    name.push(DRAFT);
    PathBuf::from(name)
}

pub(super) fn sync_directory(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

fn parse(path: &Path) -> Option<(u64, DeliveryId, Kind)> {
    let name = path.file_name()?.to_str()?;
    let (stem, extension) = name.split_once('.')?;
    let (number, delivery) = stem.split_once('-')?;
    let kinds = [Kind::Users, Kind::Gone, Kind::Settled, Kind::Before];
    let kind = kinds
        .into_iter()
        .find(|kind| kind.extension() == extension)?;
    Some((
        u64::from_str_radix(number, 16).ok()?,
        delivery.parse().ok()?,
        kind,
    ))
}

/// Magic, what is to be kept, then a CRC32C.
fn framed(magic: &[u8; 8], content: impl Iterator<Item = u8>) -> Vec<u8> {
    let mut bytes = magic.to_vec();
    bytes.extend(content);
    let crc = crc32c::crc32c(&bytes);
    bytes.extend_from_slice(&crc.to_le_bytes());
    bytes
}

fn unframed<'a>(magic: &[u8; 8], bytes: &'a [u8]) -> Option<&'a [u8]> {
    let (framed, crc) = bytes.split_last_chunk::<4>()?;
    let whole = crc32c::crc32c(framed) == u32::from_le_bytes(*crc);
    framed.strip_prefix(magic).filter(|_| whole)
}

/// Ids of deliveries, to be kept.
pub(super) fn encode_ids(ids: &[DeliveryId]) -> Vec<u8> {
    framed(MAGIC_BEFORE, ids.iter().flat_map(|id| id.0))
}

/// `None`: they are damaged.
pub(super) fn decode_ids(bytes: &[u8]) -> Option<Vec<DeliveryId>> {
    let (ids, rest) = unframed(MAGIC_BEFORE, bytes)?.as_chunks::<16>();
    rest.is_empty()
        .then(|| ids.iter().map(|id| DeliveryId(*id)).collect())
}

/// The numbers of the requests (u32), or `u32::MAX` alone for doubt.
pub(super) fn encode(missing: &Missing) -> Vec<u8> {
    let doubt = [u32::MAX];
    let requests = match missing {
        Missing::InDoubt => &doubt[..],
        Missing::Requests(requests) => requests,
    };
    framed(
        MAGIC,
        requests.iter().flat_map(|request| request.to_le_bytes()),
    )
}

pub(super) fn decode(bytes: &[u8]) -> Option<Missing> {
    let (requests, rest) = unframed(MAGIC, bytes)?.as_chunks::<4>();
    if !rest.is_empty() {
        return None;
    }
    let requests: Vec<u32> = requests
        .iter()
        .map(|request| u32::from_le_bytes(*request))
        .collect();
    Some(match requests.contains(&u32::MAX) {
        true => Missing::InDoubt,
        false => Missing::Requests(requests),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const DELIVERY: DeliveryId = DeliveryId([7; 16]);

    #[test]
    fn a_draft_is_not_listed_and_a_published_file_is() {
        let home = tempfile::tempdir().unwrap();
        let files = ScheduleFiles::new(home.path().join("a"), Reads::default());
        assert_eq!(files.items().unwrap(), []);
        let file = files.draft(3, DELIVERY, Kind::Users).unwrap();
        assert_eq!(files.items().unwrap(), []);
        files.publish(&file, 3, DELIVERY, Kind::Users).unwrap();
        files.draft(4, DELIVERY, Kind::Gone).unwrap();
        let want = Item {
            number: 3,
            delivery: Some(DELIVERY),
            users: true,
            ..Item::default()
        };
        assert_eq!(files.items().unwrap(), std::slice::from_ref(&want));
        files.remove_drafts().unwrap();
        assert_eq!(fs::read_dir(files.directory()).unwrap().count(), 1);
        files.clear().unwrap();
        assert_eq!(files.items().unwrap(), []);
        assert_eq!(fs::read_dir(home.path()).unwrap().count(), 0);
    }

    #[test]
    fn how_a_delivery_ended_comes_back_and_what_is_damaged_is_in_doubt() {
        let home = tempfile::tempdir().unwrap();
        let files = ScheduleFiles::new(home.path().to_owned(), Reads::default());
        assert_eq!(files.missing(1, DELIVERY).unwrap(), Missing::InDoubt);
        for missing in [
            Missing::Requests(vec![]),
            Missing::Requests(vec![1, 2, 300_000]),
            Missing::InDoubt,
        ] {
            files.settle(1, DELIVERY, &missing).unwrap();
            assert_eq!(files.missing(1, DELIVERY).unwrap(), missing);
        }
        files
            .settle(1, DELIVERY, &Missing::Requests(vec![5]))
            .unwrap();
        let path = files.path(1, DELIVERY, Kind::Settled);
        let whole = fs::read(&path).unwrap();
        for at in 0..whole.len() {
            let mut bytes = whole.clone();
            bytes[at] ^= 4;
            fs::write(&path, &bytes).unwrap();
            assert_eq!(files.missing(1, DELIVERY).unwrap(), Missing::InDoubt);
            fs::write(&path, &whole[..at]).unwrap();
            assert_eq!(files.missing(1, DELIVERY).unwrap(), Missing::InDoubt);
        }
    }

    #[test]
    fn what_was_unfinished_comes_back_and_what_is_damaged_may_be_any() {
        let home = tempfile::tempdir().unwrap();
        let files = ScheduleFiles::new(home.path().to_owned(), Reads::default());
        let unfinished = [DeliveryId([1; 16]), DeliveryId([2; 16])];
        files.note_before(1, DELIVERY, &unfinished).unwrap();
        assert!(files.items().unwrap()[0].before);
        assert_eq!(
            files.before(1, DELIVERY).unwrap().as_deref(),
            Some(&unfinished[..])
        );
        let path = files.path(1, DELIVERY, Kind::Before);
        let whole = fs::read(&path).unwrap();
        for at in 0..whole.len() {
            let mut bytes = whole.clone();
            bytes[at] ^= 4;
            fs::write(&path, &bytes).unwrap();
            assert_eq!(files.before(1, DELIVERY).unwrap(), None);
            fs::write(&path, &whole[..at]).unwrap();
            assert_eq!(files.before(1, DELIVERY).unwrap(), None);
        }
        assert!(files.before(2, DELIVERY).is_err(), "an error is no answer");
    }
}
