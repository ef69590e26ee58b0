//! The one way to the disk.
//!
//! Every creation, write, sync, rename and removal, every read, and every step of sled that must be
//! durable, goes through [`Disk`], so that a test can make the n-th of them fail and can record what
//! a power cut would leave behind. In production there is no hook and each method is its system
//! call. Reads stand in `read`.

use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::Path;
use std::sync::Arc;

/// One change or read on its way to the disk, as a hook sees it, before it is made.
#[derive(Clone, Copy, Debug)]
pub enum Op<'a> {
    /// A directory is made.
    CreateDirectory(&'a Path),
    /// A new, empty file is made.
    Create(&'a Path),
    /// Bytes are written into a file.
    Write {
        /// The file.
        path: &'a Path,
        /// Where in the file, in bytes.
        offset: u64,
        /// What is written.
        bytes: &'a [u8],
    },
    /// A file is fsynced.
    Sync(&'a Path),
    /// A directory's entries are fsynced.
    SyncDirectory(&'a Path),
    /// A file is cut to a length.
    Cut {
        /// The file.
        path: &'a Path,
        /// Its length from now on, in bytes.
        length: u64,
    },
    /// A file or directory is renamed.
    Rename {
        /// Its name so far.
        from: &'a Path,
        /// Its name from now on.
        to: &'a Path,
    },
    /// A file, or a directory with all that is in it, is removed.
    Remove(&'a Path),
    /// A file is opened for reading.
    Open(&'a Path),
    /// A file's length is asked for, or whether it is there.
    Length(&'a Path),
    /// A directory is listed.
    List(&'a Path),
    /// Bytes are read from a file. An error of the kind
    /// [`UnexpectedEof`](io::ErrorKind::UnexpectedEof) is a read that brings less than it should.
    Read {
        /// The file.
        path: &'a Path,
        /// Where in the file, in bytes.
        offset: u64,
        /// How many bytes.
        length: usize,
    },
    /// sled opens its directory, and reads it.
    StateOpen(&'a Path),
    /// A batch is handed to sled, whose directory this is.
    StateBatch(&'a Path),
    /// sled writes what it holds back.
    StateFlush(&'a Path),
    /// sled's files are fsynced: what it has flushed until now is durable after this.
    StateSync(&'a Path),
}

type Hook = Arc<dyn Fn(&Op<'_>) -> io::Result<()> + Send + Sync>;

/// The way to the disk. Cheap to clone.
#[derive(Clone, Default)]
pub struct Disk {
    hook: Option<Hook>,
}

impl Disk {
    /// A disk whose every change and read is first shown to `hook`; where that returns an error it
    /// is not made and the outbox sees the error as if the system had returned it.
    pub fn with_hook(hook: impl Fn(&Op<'_>) -> io::Result<()> + Send + Sync + 'static) -> Self {
        Self {
            hook: Some(Arc::new(hook)),
        }
    }

    pub(in crate::outbox) fn check(&self, op: Op<'_>) -> io::Result<()> {
        match &self.hook {
            Some(hook) => hook(&op),
            None => Ok(()),
        }
    }

    /// Makes a directory with mode 0700, and its parents; one that is there is left as it is.
    pub(in crate::outbox) fn create_directory(&self, path: &Path) -> io::Result<()> {
        if path.is_dir() {
            return Ok(());
        }
        self.check(Op::CreateDirectory(path))?;
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(path)
    }

    /// Makes a new file with mode 0600 for reading and writing; one that is there is an error.
    pub(in crate::outbox) fn create(&self, path: &Path) -> io::Result<File> {
        self.check(Op::Create(path))?;
        OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(path)
    }

    pub(in crate::outbox) fn write(
        &self,
        file: &File,
        path: &Path,
        offset: u64,
        bytes: &[u8],
    ) -> io::Result<()> {
        self.check(Op::Write {
            path,
            offset,
            bytes,
        })?;
        file.write_all_at(bytes, offset)
    }

    pub(in crate::outbox) fn sync(&self, file: &File, path: &Path) -> io::Result<()> {
        self.check(Op::Sync(path))?;
        file.sync_all()
    }

    /// Makes a file durable that another process may have written.
    pub(in crate::outbox) fn sync_path(&self, path: &Path) -> io::Result<()> {
        self.sync(&File::open(path)?, path)
    }

    pub(in crate::outbox) fn cut(&self, path: &Path, length: u64) -> io::Result<()> {
        self.check(Op::Cut { path, length })?;
        File::options().write(true).open(path)?.set_len(length)
    }

    /// Makes what sled has flushed durable: `file` is our own descriptor of its log.
    pub(in crate::outbox) fn sync_state(&self, file: &File, path: &Path) -> io::Result<()> {
        self.check(Op::StateSync(path))?;
        file.sync_data()
    }

    pub(in crate::outbox) fn sync_directory(&self, path: &Path) -> io::Result<()> {
        self.check(Op::SyncDirectory(path))?;
        File::open(path)?.sync_all()
    }

    pub(in crate::outbox) fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.check(Op::Rename { from, to })?;
        fs::rename(from, to)
    }

    /// Removes a file or a whole directory; what is not there is no error.
    pub(in crate::outbox) fn remove(&self, path: &Path) -> io::Result<()> {
        self.check(Op::Remove(path))?;
        let removed = if path.is_dir() {
            fs::remove_dir_all(path)
        } else {
            fs::remove_file(path)
        };
        match removed {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }
}

impl fmt::Debug for Disk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Disk")
            .field("hooked", &self.hook.is_some())
            .finish()
    }
}
