//! Where temporary files are made, and the one way to them: a test can make the n-th step fail, or
//! have the system take or give less than it was asked for.

use std::fmt;
use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::buffer::spare_capacity;
use rustix::fs::{FallocateFlags, fallocate};

/// A step on its way to a temporary file, as a hook sees it, before it is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SpaceOp {
    /// A file is made.
    Create,
    /// So many bytes are written.
    Write(usize),
    /// So many bytes are read.
    Read(usize),
}

type Hook = Arc<dyn Fn(SpaceOp) -> io::Result<usize> + Send + Sync>;

/// A directory for temporary files. Cheap to clone.
#[derive(Clone)]
pub struct Space {
    directory: PathBuf,
    hook: Option<Hook>,
}

impl Space {
    /// Files are made in `directory`, which must be there then.
    pub fn new(directory: impl Into<PathBuf>) -> Self {
        Self {
            directory: directory.into(),
            hook: None,
        }
    }

    /// The same, where every step is first shown to `hook`: it says of how many bytes the step is at
    /// most, or the error that the system is to have returned.
    pub fn with_hook(
        directory: impl Into<PathBuf>,
        hook: impl Fn(SpaceOp) -> io::Result<usize> + Send + Sync + 'static,
    ) -> Self {
        Self {
            directory: directory.into(),
            hook: Some(Arc::new(hook)),
        }
    }

    /// Where the files are made.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// An empty file without a name.
    pub(super) fn file(&self) -> io::Result<SpaceFile> {
        check(&self.hook, SpaceOp::Create, 0)?;
        Ok(SpaceFile {
            file: tempfile::tempfile_in(&self.directory)?,
            hook: self.hook.clone(),
        })
    }
}

impl fmt::Debug for Space {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Space")
            .field("directory", &self.directory)
            .field("hooked", &self.hook.is_some())
            .finish()
    }
}

/// A file without a name.
pub(super) struct SpaceFile {
    file: File,
    hook: Option<Hook>,
}

impl SpaceFile {
    /// Writes all of `bytes`.
    pub fn write_at(&self, mut bytes: &[u8], mut offset: u64) -> io::Result<()> {
        while !bytes.is_empty() {
            let most = check(&self.hook, SpaceOp::Write(bytes.len()), bytes.len())?;
            let part = bytes.get(..most).unwrap_or(bytes);
            let written = match self.file.write_at(part, offset) {
                Ok(0) if most > 0 => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => written,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => 0,
                Err(error) => return Err(error),
            };
            bytes = bytes.get(written..).unwrap_or_default();
            offset += written as u64;
        }
        Ok(())
    }

    /// Appends to `out` what the file holds from `offset` on, until `out` has this length.
    pub fn read_at(&self, offset: u64, out: &mut Vec<u8>, length: usize) -> io::Result<()> {
        let before = out.len();
        while out.len() < length {
            let from = offset + (out.len() - before) as u64;
            let wanted = length - out.len();
            let most = check(&self.hook, SpaceOp::Read(wanted), wanted)?;
            let had = out.len();
            // Into memory that nobody has to fill with zeros first; there may be room for more.
            match rustix::io::pread(&self.file, spare_capacity(out), from) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(_) => out.truncate(had + most),
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// Gives the space of this range back to the file system, if that can do it: else it comes back with
    /// the file.
    pub fn give_back(&self, range: Range<u64>) {
        let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        fallocate(&self.file, flags, range.start, range.end - range.start).ok();
    }

    #[cfg(test)]
    pub fn raw(&self) -> &File {
        &self.file
    }
}

/// How many bytes a step is of.
fn check(hook: &Option<Hook>, op: SpaceOp, bytes: usize) -> io::Result<usize> {
    match hook {
        Some(hook) => Ok(hook(op)?.min(bytes)),
        None => Ok(bytes),
    }
}
