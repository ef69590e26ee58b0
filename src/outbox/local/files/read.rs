//! Reading, with three outcomes: the bytes; *unreadable now*, when the system refuses; *damaged*.
//!
//! **Only damage may change anything.** A read that fails says nothing about what lies on the disk:
//! the disk may be away, the process out of descriptors, the file another user's. It is an error to
//! the caller, who tries again later. Damaged is what was read, twice, and is not what was written;
//! what is shorter than what was durable; and what is gone from a directory that can be listed.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{Advice, fadvise};

use crate::outbox::codec::Malformed;
use crate::outbox::error::{Error, OpenError};
use crate::outbox::local::files::disk::{Disk, Op};

/// A file that is read whole is at most this large; a larger one is none of ours.
const MAX_WHOLE: u64 = 2 << 30;

/// The system refuses to read something now. Nothing is known of what is there.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{} cannot be read now", file.display())]
pub(in crate::outbox) struct Unreadable {
    pub file: PathBuf,
    attempt: Attempt,
    pub source: Arc<io::Error>,
}

/// What was tried.
#[derive(Clone, Copy, Debug)]
enum Attempt {
    Open,
    Length,
    List,
    Read { offset: u64, length: usize },
}

/// Why there are no bytes.
#[derive(Debug)]
pub(in crate::outbox) enum ReadError {
    /// Nothing may be concluded.
    Unreadable(Unreadable),
    /// See the module.
    Damaged,
}

impl From<Unreadable> for ReadError {
    fn from(error: Unreadable) -> Self {
        Self::Unreadable(error)
    }
}

impl From<Malformed> for ReadError {
    fn from(_: Malformed) -> Self {
        Self::Damaged
    }
}

/// Makes damage a value, and leaves what cannot be read an error.
pub(in crate::outbox) fn sound<T>(read: Result<T, ReadError>) -> Result<Option<T>, Unreadable> {
    match read {
        Ok(value) => Ok(Some(value)),
        Err(ReadError::Damaged) => Ok(None),
        Err(ReadError::Unreadable(error)) => Err(error),
    }
}

/// The files and directories in a directory, in no order.
pub(in crate::outbox) fn list(disk: &Disk, directory: &Path) -> Result<Vec<PathBuf>, Unreadable> {
    (|| {
        disk.check(Op::List(directory))?;
        fs::read_dir(directory)?
            .map(|entry| {
                // There may be very many, and they are kept for a while.
                let mut path = entry?.path();
                path.shrink_to_fit();
                Ok(path)
            })
            .collect::<io::Result<Vec<_>>>()
    })()
    .map_err(refused(directory, Attempt::List))
}

/// How long a file is; `None`: it is gone from a directory that can be listed.
pub(in crate::outbox) fn length_of(disk: &Disk, path: &Path) -> Result<Option<u64>, Unreadable> {
    let asked = disk
        .check(Op::Length(path))
        .and_then(|()| fs::symlink_metadata(path));
    match asked {
        Ok(meta) => Ok(Some(meta.len())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            gone(disk, path, Attempt::Length, error).map(|()| None)
        }
        Err(error) => Err(refused(path, Attempt::Length)(error)),
    }
}

/// Whether there is something of this name.
pub(in crate::outbox) fn exists(disk: &Disk, path: &Path) -> Result<bool, Unreadable> {
    length_of(disk, path).map(|length| length.is_some())
}

/// A file that is open for reading.
#[derive(Debug)]
pub(in crate::outbox) struct ReadFile {
    disk: Disk,
    path: PathBuf,
    file: File,
}

impl ReadFile {
    /// Opens a file.
    ///
    /// # Errors
    /// It cannot be opened, or it is gone, which is damage.
    pub fn open(disk: &Disk, path: &Path) -> Result<Self, ReadError> {
        let opened = disk.check(Op::Open(path)).and_then(|()| File::open(path));
        match opened {
            Ok(file) => Ok(Self {
                disk: disk.clone(),
                path: path.to_owned(),
                file,
            }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                gone(disk, path, Attempt::Open, error)?;
                Err(ReadError::Damaged)
            }
            Err(error) => Err(refused(path, Attempt::Open)(error).into()),
        }
    }

    /// How long the file is, in bytes.
    pub fn length(&self) -> Result<u64, Unreadable> {
        self.disk
            .check(Op::Length(&self.path))
            .and_then(|()| self.file.metadata())
            .map(|meta| meta.len())
            .map_err(refused(&self.path, Attempt::Length))
    }

    /// Exactly these bytes. A file that ends before is damaged.
    pub fn read(&self, offset: u64, length: usize) -> Result<Vec<u8>, ReadError> {
        let end = offset
            .checked_add(length as u64)
            .ok_or(ReadError::Damaged)?;
        // Asked first: a length that a damaged footer says would be allocated.
        if self.length()? < end {
            return Err(ReadError::Damaged);
        }
        let mut bytes = vec![0; length];
        let op = Op::Read {
            path: &self.path,
            offset,
            length,
        };
        self.disk
            .check(op)
            .and_then(|()| self.file.read_exact_at(&mut bytes, offset))
            .map_err(refused(&self.path, Attempt::Read { offset, length }))?;
        Ok(bytes)
    }

    /// All of it. A file larger than any of ours is damaged.
    pub fn whole(&self) -> Result<Vec<u8>, ReadError> {
        let length = self.length()?;
        if length > MAX_WHOLE {
            return Err(ReadError::Damaged);
        }
        self.read(0, length as usize)
    }

    /// Reads, and what is damaged once more: the second time from the disk, not from memory.
    pub fn twice<T>(&self, read: impl Fn(&Self) -> Result<T, ReadError>) -> Result<T, ReadError> {
        match read(self) {
            Err(ReadError::Damaged) => {
                // A hint: where it is not taken, the same bytes are read again.
                let _ = fadvise(&self.file, 0, None, Advice::DontNeed);
                read(self)
            }
            outcome => outcome,
        }
    }
}

impl From<Unreadable> for Error {
    fn from(error: Unreadable) -> Self {
        Self::Unreadable {
            file: Arc::from(error.file),
            source: error.source,
        }
    }
}

impl Unreadable {
    /// Something other than a plain read has failed on this file.
    pub fn because(file: &Path, source: io::Error) -> Self {
        refused(file, Attempt::Open)(source)
    }

    /// Why the outbox at `path` is not opened.
    pub fn at(self, path: &Path) -> OpenError {
        OpenError::Unreadable {
            path: path.to_owned(),
            file: self.file,
            source: self.source,
        }
    }

    /// Whether what failed is still not to be read.
    pub fn persists(&self, disk: &Disk) -> bool {
        let again = match self.attempt {
            Attempt::List => list(disk, &self.file).map(|_| ()).map_err(ReadError::from),
            Attempt::Length => length_of(disk, &self.file)
                .map(|_| ())
                .map_err(ReadError::from),
            Attempt::Open => ReadFile::open(disk, &self.file).map(|_| ()),
            Attempt::Read { offset, length } => ReadFile::open(disk, &self.file)
                .and_then(|file| file.read(offset, length))
                .map(|_| ()),
        };
        matches!(again, Err(ReadError::Unreadable(_)))
    }
}

/// Confirms that a file is gone: its directory can be listed, and does not have it.
fn gone(disk: &Disk, path: &Path, attempt: Attempt, error: io::Error) -> Result<(), Unreadable> {
    let listed = list(disk, path.parent().unwrap_or(path));
    match listed {
        Ok(files) if !files.iter().any(|file| file == path) => Ok(()),
        _ => Err(refused(path, attempt)(error)),
    }
}

fn refused(path: &Path, attempt: Attempt) -> impl Fn(io::Error) -> Unreadable {
    move |source| Unreadable {
        file: path.to_owned(),
        attempt,
        source: Arc::new(source),
    }
}
