//! Opening the state, so that a read that fails is not taken for a state that is lost.
//!
//! sled takes a page that it cannot read for one that is not there: it opens without it, and writes
//! over it. So sled never meets the state itself before it is known what is in it. The files are
//! read whole, in the ordinary way, which fails if the system fails; a copy of them is opened for a
//! trial; and then a second copy takes the place of the state and is opened for good. What the two
//! show must be the same. If it is not, a read has failed, nothing is concluded, and the state is as
//! it was. If both are damaged alike, the state is damaged.

use std::path::Path;

use crate::outbox::local::files::disk::Disk;
use crate::outbox::local::files::read::{ReadError, ReadFile, exists, list};
use crate::outbox::local::state::error::StateError;
use crate::outbox::local::state::index::Index;
use crate::outbox::local::state::load::load;
use crate::outbox::local::state::store::{
    Digest, Store, beside, io_error, settle_interrupted_copy,
};

/// Bytes that are copied at a time. (The allocator keeps what it has once given out in one piece.)
const PART: usize = 64 << 10;

/// Opens the state at `path` and reads it, or makes one; the second value is `None` when it is new.
/// Ends or undoes a copy that was interrupted.
///
/// # Errors
/// It is damaged, or the system refuses; [`StateError::is_of_the_system`] tells which.
pub(in crate::outbox) fn open(
    path: &Path,
    disk: &Disk,
    limit: u64,
) -> Result<(Store, Option<Index>), StateError> {
    settle_interrupted_copy(path, disk)?;
    let opened = if exists(disk, path)? {
        open_checked(path, disk, limit)?
    } else {
        open_untried(path, disk, limit)?
    };
    let parent = path.parent().unwrap_or(path);
    disk.sync_directory(parent)
        .map_err(io_error("the directory above sled's could not be synced"))?;
    Ok(opened)
}

fn open_untried(
    path: &Path,
    disk: &Disk,
    limit: u64,
) -> Result<(Store, Option<Index>), StateError> {
    let store = Store::open(path, disk, limit)?;
    let index = load(&store)?;
    Ok((store, index))
}

fn open_checked(
    path: &Path,
    disk: &Disk,
    limit: u64,
) -> Result<(Store, Option<Index>), StateError> {
    let (trial, fresh) = (beside(path, "trial"), beside(path, "new"));
    let first = match copy(path, &trial, disk, disk) {
        Err(StateError::Io { source, .. }) => {
            // On a full disk what waits can still be sent, which makes room.
            tracing::warn!(error = %source, "there is no room for a copy of the outbox's state; it is opened without a trial");
            return open_untried(path, disk, limit);
        }
        first => first?,
    };
    let seen = peek(&trial, disk);
    disk.remove(&trial)
        .map_err(io_error("a copy of the state could not be removed"))?;
    let second = match copy_durably(path, &fresh, disk) {
        Err(StateError::Io { .. }) => {
            disk.remove(&fresh)
                .map_err(io_error("a copy of the state could not be removed"))?;
            return open_untried(path, disk, limit);
        }
        second => second?,
    };
    if first != second {
        return Err(StateError::Unsteady);
    }
    match seen {
        // What the trial shows is what is there, if the digests are the same.
        Ok((index, digest)) => {
            Store::put_in_place(&fresh, path, disk, limit, digest).map(|store| (store, index))
        }
        Err(error) if error.is_of_the_system() => Err(error),
        Err(error) => {
            let again = peek(&fresh, disk);
            disk.remove(&fresh)
                .map_err(io_error("a copy of the state could not be removed"))?;
            match again {
                Ok(_) => Err(StateError::Unsteady),
                Err(again) if again.is_of_the_system() => Err(again),
                Err(_) => Err(error),
            }
        }
    }
}

/// What a copy of the state shows. The copy is of no use afterwards.
fn peek(copy: &Path, disk: &Disk) -> Result<(Option<Index>, Digest), StateError> {
    let store = Store::open_trial(copy, disk)?;
    Ok((load(&store)?, store.digest()?))
}

/// Copies the files of a state, all of them read whole, to another disk or the same one; returns a
/// checksum of their bytes.
pub(in crate::outbox) fn copy(
    from: &Path,
    to: &Path,
    disk: &Disk,
    target_disk: &Disk,
) -> Result<u32, StateError> {
    let failed = io_error("a copy of the state could not be made");
    target_disk.create_directory(to).map_err(&failed)?;
    let mut files = list(disk, from)?;
    files.sort();
    let mut crc = 0;
    for path in files {
        let name = path.file_name().unwrap_or_default();
        let target = to.join(name);
        if path.is_dir() {
            let inner = copy(&path, &target, disk, target_disk)?;
            crc = crc32c::crc32c_append(crc, &inner.to_le_bytes());
            continue;
        }
        crc = crc32c::crc32c_append(crc, name.as_encoded_bytes());
        let file = target_disk.create(&target).map_err(&failed)?;
        let source = ReadFile::open(disk, &path).map_err(unsteady)?;
        let length = source.length()?;
        for offset in (0..length).step_by(PART) {
            let part = usize::try_from(length - offset).map_or(PART, |left| left.min(PART));
            let bytes = source.read(offset, part).map_err(unsteady)?;
            crc = crc32c::crc32c_append(crc, &bytes);
            let written = target_disk.write(&file, &target, offset, &bytes);
            written.map_err(&failed)?;
        }
    }
    Ok(crc)
}

/// A file that is gone or shorter than it was is being changed, or has not been read.
fn unsteady(error: ReadError) -> StateError {
    match error {
        ReadError::Unreadable(error) => error.into(),
        ReadError::Damaged => StateError::Unsteady,
    }
}

/// The same, and what is copied is on the disk.
fn copy_durably(from: &Path, to: &Path, disk: &Disk) -> Result<u32, StateError> {
    let crc = copy(from, to, disk, disk)?;
    let mut open = vec![to.to_owned()];
    while let Some(directory) = open.pop() {
        for path in list(disk, &directory)? {
            if path.is_dir() {
                open.push(path);
            } else {
                disk.sync_path(&path)
                    .map_err(io_error("a copy of the state could not be synced"))?;
            }
        }
        disk.sync_directory(&directory)
            .map_err(io_error("a copy of the state could not be synced"))?;
    }
    Ok(crc)
}
