//! The one way in which snapshots are read, so that a test can make the n-th read fail.
//!
//! A read that fails says nothing about what is on the disk: the delivery that needs it fails, and
//! nothing is forgotten for it.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::outbox::BlobReader;

type Hook = Arc<dyn Fn(&Path) -> io::Result<()> + Send + Sync>;

/// The way to read. Cheap to clone.
#[derive(Clone, Default)]
pub struct Reads {
    hook: Option<Hook>,
}

impl Reads {
    /// Each opening, listing and read is first shown to `hook`; where that returns an error it is not
    /// made, and the error is taken for the system's.
    pub fn with_hook(hook: impl Fn(&Path) -> io::Result<()> + Send + Sync + 'static) -> Self {
        Self {
            hook: Some(Arc::new(hook)),
        }
    }

    fn check(&self, path: &Path) -> io::Result<()> {
        self.hook.as_ref().map_or(Ok(()), |hook| hook(path))
    }

    /// What is in a directory; one that is not there is empty.
    pub(super) fn list(&self, directory: &Path) -> io::Result<Vec<fs::DirEntry>> {
        self.check(directory)?;
        match fs::read_dir(directory) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
            entries => entries?.collect(),
        }
    }

    /// Opens a file.
    pub(super) fn open(&self, path: &Path) -> io::Result<Source> {
        self.check(path)?;
        Ok(self.of(File::open(path)?, path))
    }

    /// A file that is open already.
    pub(super) fn of(&self, file: File, path: &Path) -> Source {
        Source::File {
            reads: self.clone(),
            path: path.to_owned(),
            file,
        }
    }
}

/// What is read.
pub(super) enum Source {
    File {
        reads: Reads,
        path: PathBuf,
        file: File,
    },
    Blob(BlobReader),
}

impl Read for Source {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::File { reads, path, file } => {
                reads.check(path)?;
                file.read(bytes)
            }
            Self::Blob(blob) => blob.read(bytes),
        }
    }
}
