//! The one way in which snapshots are read, so that a test can make the n-th read fail.
//!
//! A read that fails says nothing about what is on the disk: the delivery that needs it fails, and
//! nothing is forgotten for it.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

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
        Source {
            reads: self.clone(),
            path: path.to_owned(),
            file,
        }
    }
}

/// A file that is read.
pub(super) struct Source {
    reads: Reads,
    path: PathBuf,
    file: File,
}

impl Read for Source {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        self.reads.check(&self.path)?;
        self.file.read(bytes)
    }
}
