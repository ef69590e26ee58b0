//! The directory of an outbox: its names (drawn on the page of [`local`](crate::outbox::local)), its
//! lock, its version.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};

use crate::clock::UnixMillis;
use crate::model::DeliveryId;
use crate::outbox::error::OpenError;
use crate::outbox::local::files::disk::Disk;
use crate::outbox::local::files::format::VERSION;
use crate::outbox::local::files::read::{ReadFile, Unreadable, exists, length_of, list, sound};
use crate::outbox::status::SetAside;

const FORMAT_NAME: &str = "looker-feed outbox";
/// See [`Layout::probe`].
const PROBE: &str = "probe";
/// Ends the name of a file that is being written anew.
const DRAFT: &str = ".draft";
const DIRECTORIES: [&str; 4] = ["segments", "dead", "rejected", "damaged"];

/// Names in an outbox directory.
#[derive(Clone, Debug)]
pub(in crate::outbox) struct Layout {
    root: PathBuf,
}

/// What a file in `segments/` is, by its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::outbox) enum SegmentName {
    Segment(DeliveryId, u32),
    Aborted(DeliveryId),
    Cancelled(DeliveryId),
    Held(DeliveryId),
    Probe,
}

impl Layout {
    pub fn new(root: &Path) -> Self {
        Self {
            root: root.to_owned(),
        }
    }

    pub fn root(&self) -> &Path {
        &self.root
    }

    /// See `moved`.
    pub fn moved(&self) -> PathBuf {
        self.root.join("MOVED")
    }

    pub fn state(&self) -> PathBuf {
        self.root.join("state")
    }

    pub fn segments(&self) -> PathBuf {
        self.root.join("segments")
    }

    pub fn segment(&self, id: DeliveryId, number: u32) -> PathBuf {
        self.segments().join(format!("{id}.{number:05}.seg"))
    }

    pub fn aborted(&self, id: DeliveryId) -> PathBuf {
        self.segments().join(format!("{id}.aborted"))
    }

    pub fn cancelled(&self, id: DeliveryId) -> PathBuf {
        self.segments().join(format!("{id}.cancelled"))
    }

    /// Says that a delivery is not sent before somebody releases it.
    pub fn held(&self, id: DeliveryId) -> PathBuf {
        self.segments().join(format!("{id}.held"))
    }

    pub fn dead_directory(&self) -> PathBuf {
        self.root.join("dead")
    }

    pub fn dead(&self, number: u32) -> PathBuf {
        self.dead_directory().join(format!("{number:08}.dead"))
    }

    pub fn rejected_directory(&self) -> PathBuf {
        self.root.join("rejected")
    }

    pub fn rejected(&self, id: DeliveryId) -> PathBuf {
        self.rejected_directory().join(format!("{id}.rejected"))
    }

    /// Size of all files but sled's and those set aside.
    pub fn files_size(&self, disk: &Disk) -> Result<u64, Unreadable> {
        let mut sum = 0;
        for directory in [
            self.segments(),
            self.dead_directory(),
            self.rejected_directory(),
        ] {
            for path in list(disk, &directory)? {
                sum += length_of(disk, &path)?.unwrap_or(0);
            }
        }
        Ok(sum)
    }

    /// A file that is made, synced and removed again to see whether that can be done.
    pub fn probe(&self) -> PathBuf {
        self.segments().join(PROBE)
    }

    /// Says that somebody is being erased.
    pub fn erasing(&self) -> PathBuf {
        self.root.join("erasing")
    }

    /// What a file is called while it is being written anew.
    pub fn draft(&self, path: &Path) -> PathBuf {
        let mut name = path.as_os_str().to_owned();
        name.push(DRAFT);
        PathBuf::from(name)
    }

    /// Where damaged files go.
    pub fn damaged(&self) -> PathBuf {
        self.root.join("damaged")
    }

    /// What lies in `damaged/`. What cannot be read does not count.
    pub fn set_aside_size(&self) -> SetAside {
        let mut sum = SetAside::default();
        let mut open = vec![self.damaged()];
        while let Some(directory) = open.pop() {
            let entries = fs::read_dir(directory).into_iter().flatten();
            for (entry, meta) in entries.filter_map(|entry| {
                let entry = entry.ok()?;
                let meta = entry.metadata().ok()?;
                Some((entry, meta))
            }) {
                // Links are not followed.
                if meta.is_dir() {
                    open.push(entry.path());
                } else {
                    sum.files += 1;
                    sum.bytes += meta.len();
                }
            }
        }
        sum
    }

    /// Makes the directory, or checks that it is ours, and locks it. The lock is held as long as
    /// the file that is returned.
    pub fn enter(&self, disk: &Disk) -> Result<Lock, OpenError> {
        let failed = |doing| {
            move |source| OpenError::Io {
                path: self.root.clone(),
                doing,
                source,
            }
        };
        disk.create_directory(&self.root)
            .map_err(failed("the directory could not be made"))?;
        self.check_ours(disk)?;
        let lock = self
            .lock()
            .map_err(failed("the lock file could not be opened"))?;
        let lock = lock.ok_or_else(|| OpenError::InUse(self.root.clone()))?;
        let format = self.read_format(disk)?;
        for name in DIRECTORIES {
            disk.create_directory(&self.root.join(name))
                .map_err(failed("a directory could not be made"))?;
        }
        if !format {
            self.write_format(disk)
                .map_err(failed("the format file could not be written"))?;
        }
        disk.sync_directory(&self.root)
            .and_then(|()| match self.root.parent() {
                Some(parent) if !parent.as_os_str().is_empty() => disk.sync_directory(parent),
                _ => Ok(()),
            })
            .map_err(failed("the directory could not be synced"))?;
        Ok(lock)
    }

    /// Locks an outbox that is there, and makes nothing.
    pub fn enter_to_read(&self, disk: &Disk) -> Result<Lock, OpenError> {
        let failed = |source| OpenError::Io {
            path: self.root.clone(),
            doing: "it is not there, or cannot be read",
            source,
        };
        self.check_ours(disk)?;
        let there = exists(disk, &self.segments()).map_err(|error| error.at(&self.root))?;
        if !there {
            return Err(OpenError::Foreign(self.root.clone()));
        }
        self.read_format(disk)?;
        let lock = self.lock().map_err(failed)?;
        lock.ok_or_else(|| OpenError::InUse(self.root.clone()))
    }

    /// `None`: another process has it. The lock file itself never holds anything.
    fn lock(&self) -> io::Result<Option<Lock>> {
        let file = File::options()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(self.root.join("LOCK"))?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Some(Lock(file))),
            Err(rustix::io::Errno::WOULDBLOCK) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Refuses a directory that holds something and nothing of ours.
    fn check_ours(&self, disk: &Disk) -> Result<(), OpenError> {
        let mut ours = false;
        let mut others = false;
        for path in list(disk, &self.root).map_err(|error| error.at(&self.root))? {
            match path.file_name().and_then(OsStr::to_str) {
                Some("FORMAT" | "segments") => ours = true,
                Some("LOCK" | "dead" | "rejected" | "damaged" | "lost+found") => {}
                _ => others = true,
            }
        }
        if others && !ours {
            return Err(OpenError::Foreign(self.root.clone()));
        }
        Ok(())
    }

    /// Whether there is a format file of this version. One that is missing or damaged is no
    /// reason to stop when the directories are ours; one that is sound and says another version,
    /// or something else altogether, is.
    fn read_format(&self, disk: &Disk) -> Result<bool, OpenError> {
        let file = ReadFile::open(disk, &self.root.join("FORMAT"));
        let bytes = sound(file.and_then(|file| file.whole()));
        let Some(bytes) = bytes.map_err(|error| error.at(&self.root))? else {
            return Ok(false);
        };
        match parse_format(&bytes) {
            Some(found) if found == u32::from(VERSION) => Ok(true),
            Some(found) => Err(OpenError::Version {
                path: self.root.clone(),
                found,
                known: u32::from(VERSION),
            }),
            None if self.segments().is_dir() => {
                tracing::error!(
                    outbox = %self.root.display(),
                    "the format file of the outbox is damaged and is rewritten"
                );
                Ok(false)
            }
            None => Err(OpenError::Foreign(self.root.clone())),
        }
    }

    fn write_format(&self, disk: &Disk) -> io::Result<()> {
        let (fresh, path) = (self.root.join("FORMAT.new"), self.root.join("FORMAT"));
        disk.remove(&fresh)?;
        let file = disk.create(&fresh)?;
        disk.write(&file, &fresh, 0, format_line(u32::from(VERSION)).as_bytes())?;
        disk.sync(&file, &fresh)?;
        disk.rename(&fresh, &path)
    }

    /// Moves a damaged file or directory out of the way and returns where it went, which says when.
    pub fn set_aside(&self, disk: &Disk, path: &Path, now: UnixMillis) -> io::Result<PathBuf> {
        let name = path.file_name().unwrap_or(OsStr::new("unnamed"));
        let damaged = self.damaged();
        for attempt in 0..1_000 {
            let target = damaged.join(format!("{}.{}.{attempt}", name.display(), now.0));
            if !target.exists() {
                disk.rename(path, &target)?;
                if let Some(parent) = path.parent() {
                    disk.sync_directory(parent)?;
                }
                disk.sync_directory(&damaged)?;
                return Ok(target);
            }
        }
        Err(io::Error::other("there is no free name in damaged/"))
    }
}

/// Whether a file is one that was being written anew.
pub(in crate::outbox) fn is_draft(path: &Path) -> bool {
    path.to_str().is_some_and(|name| name.ends_with(DRAFT))
}

/// Reads a name in `segments/`.
pub(in crate::outbox) fn parse_segment_name(name: &OsStr) -> Option<SegmentName> {
    let name = name.to_str()?;
    if name == PROBE {
        return Some(SegmentName::Probe);
    }
    let (id, rest) = name.split_once('.')?;
    let id = id.parse().ok()?;
    if rest == "aborted" {
        return Some(SegmentName::Aborted(id));
    }
    if rest == "cancelled" {
        return Some(SegmentName::Cancelled(id));
    }
    if rest == "held" {
        return Some(SegmentName::Held(id));
    }
    let number = rest.strip_suffix(".seg")?.parse().ok()?;
    Some(SegmentName::Segment(id, number))
}

/// The lock of a directory; given back when it is dropped, also where a child that is being started has
/// the file open as well.
#[derive(Debug)]
pub(in crate::outbox) struct Lock(File);

impl Drop for Lock {
    fn drop(&mut self) {
        // Closing the file gives it back too.
        let _ = flock(&self.0, FlockOperation::Unlock);
    }
}

/// Reads a name in `rejected/`.
pub(in crate::outbox) fn parse_rejected_name(name: &OsStr) -> Option<DeliveryId> {
    name.to_str()?.strip_suffix(".rejected")?.parse().ok()
}

/// Reads a name in `dead/`.
pub(in crate::outbox) fn parse_dead_name(name: &OsStr) -> Option<u32> {
    name.to_str()?.strip_suffix(".dead")?.parse().ok()
}

fn format_line(version: u32) -> String {
    let line = format!("{FORMAT_NAME} {version}");
    format!("{line} crc={:08x}\n", crc32c::crc32c(line.as_bytes()))
}

/// The version, if the line is sound.
fn parse_format(bytes: &[u8]) -> Option<u32> {
    let text = std::str::from_utf8(bytes).ok()?;
    let version = text
        .strip_prefix(FORMAT_NAME)?
        .trim_start()
        .split(' ')
        .next()?
        .parse()
        .ok()?;
    (format_line(version) == text).then_some(version)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn enter(path: &Path) -> Result<Lock, OpenError> {
        Layout::new(path).enter(&Disk::default())
    }

    #[test]
    fn a_second_owner_is_told_which_directory_is_in_use() {
        let directory = tempfile::tempdir().unwrap();
        let held = enter(directory.path()).unwrap();
        let error = enter(directory.path()).unwrap_err();
        assert!(matches!(error, OpenError::InUse(_)));
        let text = error.to_string();
        assert!(
            text.contains(&directory.path().display().to_string()),
            "{text}"
        );
        assert!(text.contains("another process"), "{text}");
        drop(held);
        enter(directory.path()).unwrap();
    }

    #[test]
    fn foreign_data_is_refused_and_left_alone() {
        for name in ["db", "notes.txt", "FORMAT"] {
            let directory = tempfile::tempdir().unwrap();
            fs::write(directory.path().join(name), "something else").unwrap();
            let error = enter(directory.path()).unwrap_err();
            assert!(matches!(error, OpenError::Foreign(_)), "{name}: {error}");
            assert!(
                error
                    .to_string()
                    .contains(&directory.path().display().to_string())
            );
            assert_eq!(
                fs::read(directory.path().join(name)).unwrap(),
                b"something else"
            );
        }
    }

    #[test]
    fn another_version_is_refused_by_name() {
        let directory = tempfile::tempdir().unwrap();
        drop(enter(directory.path()).unwrap());
        fs::write(directory.path().join("FORMAT"), format_line(7)).unwrap();
        let error = enter(directory.path()).unwrap_err();
        assert!(
            matches!(
                error,
                OpenError::Version {
                    found: 7,
                    known: 2,
                    ..
                }
            ),
            "{error}"
        );
    }

    #[test]
    fn a_damaged_or_missing_format_file_of_ours_is_written_anew() {
        let directory = tempfile::tempdir().unwrap();
        drop(enter(directory.path()).unwrap());
        let path = directory.path().join("FORMAT");
        let sound = fs::read(&path).unwrap();
        for at in 0..sound.len() {
            let mut bad = sound.clone();
            bad[at] ^= 2;
            fs::write(&path, bad).unwrap();
            drop(enter(directory.path()).unwrap());
            assert_eq!(fs::read(&path).unwrap(), sound, "byte {at}");
        }
        fs::remove_file(&path).unwrap();
        drop(enter(directory.path()).unwrap());
        assert_eq!(fs::read(&path).unwrap(), sound);
    }

    #[test]
    fn the_directory_is_for_its_owner_only() {
        use std::os::unix::fs::PermissionsExt;
        let parent = tempfile::tempdir().unwrap();
        let path = parent.path().join("a/b");
        drop(enter(&path).unwrap());
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o700);
    }

    #[test]
    fn names_are_read_back() {
        let layout = Layout::new(Path::new("/x"));
        let id = DeliveryId([0xab; 16]);
        let name = |path: PathBuf| path.file_name().unwrap().to_owned();
        assert_eq!(
            parse_segment_name(&name(layout.segment(id, 12))),
            Some(SegmentName::Segment(id, 12))
        );
        assert_eq!(
            parse_segment_name(&name(layout.aborted(id))),
            Some(SegmentName::Aborted(id))
        );
        assert_eq!(
            parse_segment_name(&name(layout.cancelled(id))),
            Some(SegmentName::Cancelled(id))
        );
        assert_eq!(parse_rejected_name(&name(layout.rejected(id))), Some(id));
        assert_eq!(parse_dead_name(&name(layout.dead(9))), Some(9));
        for stray in ["", "x", "lost+found", "ab.00001.seg"] {
            assert_eq!(parse_segment_name(OsStr::new(stray)), None);
        }
    }
}
