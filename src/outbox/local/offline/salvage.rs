//! A fresh outbox out of one that is damaged.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use crate::outbox::delivery::DeliveryState;
use crate::outbox::error::{Error, OpenError};
use crate::outbox::letter::Moved;
use crate::outbox::local;
use crate::outbox::local::files::disk::Disk;
use crate::outbox::local::files::keys::check_keys;
use crate::outbox::local::files::layout::Layout;
use crate::outbox::local::files::read::{ReadError, ReadFile, Unreadable, list};
use crate::outbox::local::handle::Local;
use crate::outbox::local::offline::check::{Fault, faults_of_rejected};
use crate::outbox::local::offline::damaged::given_up;
use crate::outbox::local::owner::command::Command;
use crate::outbox::settings::Settings;
use crate::outbox::status::Damage;
use crate::seal::Keyring;

/// Longer than any daemon is told to remember: a salvage forgets nothing.
const FOR_EVER: Duration = Duration::from_secs(3650 * 24 * 60 * 60);
/// Bytes that are copied at once.
const CHUNK: u64 = 1 << 20;
/// What is left out, as zeroes, where the disk does not give a part of a file.
const SECTOR: u64 = 4096;

/// The fresh outbox that a salvage has made.
#[derive(Clone, Debug)]
pub struct Salvaged {
    /// Bytes copied.
    pub bytes: u64,
    /// Bytes that the disk did not give; they are zeroes in the copy.
    pub unreadable: u64,
    /// What is in the fresh outbox, newest first.
    pub deliveries: Vec<DeliveryState>,
    /// What was lost or is in doubt, the latest 200.
    pub damage: Vec<Damage>,
    /// What had been given up as damaged, was found sound, and waits now or is a dead letter again.
    pub brought_back: Moved,
    /// Files of rejected rows that are damaged or gone.
    pub rejected: Vec<Fault>,
}

/// A salvage was not made, or not to its end. The outbox that it came from is as it was.
#[derive(Debug, thiserror::Error)]
pub enum SalvageIntoError {
    /// The one it comes from is in use or no outbox, or the copy could not be opened.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The new directory holds something already.
    #[error("{} is not empty; give the salvage a directory that is not there yet", .0.display())]
    NotEmpty(PathBuf),
    /// The new directory would lie in the outbox itself.
    #[error("{} lies in the outbox that is to be salvaged; give the salvage another place", .0.display())]
    Inside(PathBuf),
    /// A file could not be copied.
    #[error("{} could not be copied to the new directory", path.display())]
    Copy {
        /// Which.
        path: PathBuf,
        /// Why: most often the disk is full.
        source: io::Error,
    },
    /// A file cannot be read now.
    #[error("{} cannot be read now", file.display())]
    Unreadable {
        /// Which.
        file: PathBuf,
        /// Why.
        source: Arc<io::Error>,
    },
    /// The losses could not be written down in the copy.
    #[error(transparent)]
    Record(#[from] Error),
}

/// Copies the outbox at `from` to `to`, brings the copy in order as a start would, and reads all of
/// it, so that what is damaged is given up and named now and not when its turn comes. The
/// damaged files are in `damaged/` of the copy. What had been given up before and lies sound in
/// `damaged/` of `from` is taken in again: requests wait behind all else, with the ids that they
/// had, and dead letters are dead letters again. Needs as much disk as the outbox has.
///
/// What is in it stays sealed: the copy needs the same keys as `from`.
///
/// # Errors
/// See [`SalvageIntoError`]. What has been copied by then stays in `to`.
pub fn salvage_into(
    from: &Path,
    to: &Path,
    keys: Arc<Keyring>,
) -> Result<Salvaged, SalvageIntoError> {
    salvage_into_on(&Disk::default(), from, to, keys)
}

/// The same with `from` on a disk whose every read a test can watch and fail.
pub fn salvage_into_on(
    disk: &Disk,
    from: &Path,
    to: &Path,
    keys: Arc<Keyring>,
) -> Result<Salvaged, SalvageIntoError> {
    let layout = Layout::new(from);
    let _lock = layout.enter_to_read(disk)?;
    check_keys(disk, from, &layout, &keys)?;
    if fs::read_dir(to).is_ok_and(|mut entries| entries.next().is_some()) {
        return Err(SalvageIntoError::NotEmpty(to.to_owned()));
    }
    if lies_in(to, from).map_err(copy_error(to))? {
        return Err(SalvageIntoError::Inside(to.to_owned()));
    }
    let mut copied = Copied {
        disk,
        bytes: 0,
        unreadable: 0,
    };
    make_directory(to)?;
    for directory in [
        layout.segments(),
        layout.dead_directory(),
        layout.rejected_directory(),
        layout.state(),
    ] {
        copied.directory(&directory, to)?;
    }
    let settings = Settings {
        reserve_bytes: 0,
        webhook_memory: FOR_EVER,
        history: usize::MAX,
        ..Settings::new(to, Arc::clone(&keys))
    };
    let outbox = local::open(settings, Disk::default())?;
    let finished = finish(&outbox, disk, &layout, &keys);
    let (deliveries, damage) = (
        local::status::deliveries(&outbox, None, usize::MAX).deliveries,
        outbox.shared.damage(),
    );
    outbox.close();
    let (brought_back, rejected) = finished?;
    Ok(Salvaged {
        bytes: copied.bytes,
        unreadable: copied.unreadable,
        deliveries,
        damage,
        brought_back,
        rejected,
    })
}

/// Reads all of the copy, and takes in again what had been given up and is sound.
fn finish(
    outbox: &Local,
    disk: &Disk,
    layout: &Layout,
    keys: &Keyring,
) -> Result<(Moved, Vec<Fault>), SalvageIntoError> {
    let found = given_up(disk, layout, &outbox.shared.index(), keys).map_err(unreadable)?;
    let rejected = faults_of_rejected(disk, layout, &outbox.shared.index(), Some(keys));
    let rejected = rejected.map_err(unreadable)?;
    local::verify::verify(outbox)?;
    let brought_back = match found.is_empty() {
        true => Moved::default(),
        false => outbox.ask(|reply| Command::BringBack(found, reply))?,
    };
    Ok((brought_back, rejected))
}

struct Copied<'a> {
    disk: &'a Disk,
    bytes: u64,
    unreadable: u64,
}

impl Copied<'_> {
    /// Copies the files of a directory; one that is not there has none.
    fn directory(&mut self, from: &Path, to: &Path) -> Result<(), SalvageIntoError> {
        let target = to.join(from.file_name().unwrap_or_default());
        let files = match list(self.disk, from) {
            Err(error) if error.source.kind() == io::ErrorKind::NotFound => return Ok(()),
            files => files.map_err(unreadable)?,
        };
        make_directory(&target)?;
        for path in files {
            let copy = target.join(path.file_name().unwrap_or_default());
            if path.is_file() {
                self.file(&path, &copy)?;
            }
        }
        File::open(&target)
            .and_then(|directory| directory.sync_all())
            .map_err(copy_error(from))
    }

    /// Copies what the disk gives of a file: a part that it does not give when it is asked twice is
    /// left out, as zeroes.
    fn file(&mut self, from: &Path, to: &Path) -> Result<(), SalvageIntoError> {
        let source = match ReadFile::open(self.disk, from) {
            Ok(source) => source,
            Err(ReadError::Unreadable(error)) => return Err(unreadable(error)),
            // Gone since it was listed.
            Err(ReadError::Damaged) => return Ok(()),
        };
        let length = source.length().map_err(unreadable)?;
        let failed = copy_error(to);
        let mut options = File::options();
        let target = options.write(true).create_new(true).mode(0o600).open(to);
        let mut target = target.map_err(&failed)?;
        let mut at = 0;
        while at < length {
            let step = (length - at).min(CHUNK);
            let part = match source.read(at, step as usize) {
                Ok(part) => part,
                Err(_) => self.sectors(&source, at, step),
            };
            target.write_all(&part).map_err(&failed)?;
            at += step;
        }
        self.bytes += length;
        target.sync_all().map_err(failed)
    }

    fn sectors(&mut self, source: &ReadFile, at: u64, length: u64) -> Vec<u8> {
        let mut part = Vec::new();
        let mut done = 0;
        while done < length {
            let step = (length - done).min(SECTOR);
            let read = || source.read(at + done, step as usize);
            let sector = read().or_else(|_| read()).unwrap_or_else(|_| {
                self.unreadable += step;
                vec![0; step as usize]
            });
            part.extend_from_slice(&sector);
            done += step;
        }
        part
    }
}

fn unreadable(error: Unreadable) -> SalvageIntoError {
    SalvageIntoError::Unreadable {
        file: error.file,
        source: error.source,
    }
}

/// Whether `path`, which need not be there, is below `directory`.
fn lies_in(path: &Path, directory: &Path) -> io::Result<bool> {
    let directory = directory.canonicalize()?;
    let path = std::path::absolute(path)?;
    let there = path.ancestors().find_map(|path| path.canonicalize().ok());
    Ok(there.is_some_and(|path| path.starts_with(directory)))
}

/// For its owner only, like the outbox itself.
fn make_directory(path: &Path) -> Result<(), SalvageIntoError> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .map_err(copy_error(path))
}

fn copy_error(path: &Path) -> impl Fn(io::Error) -> SalvageIntoError {
    move |source| SalvageIntoError::Copy {
        path: path.to_owned(),
        source,
    }
}
