//! What can go wrong with the state.

use std::io;

use crate::outbox::error::OpenError;
use crate::outbox::local::files::read::Unreadable;
use std::path::Path;

/// What sled, or the fsync behind it, said.
#[derive(Debug, thiserror::Error)]
pub(in crate::outbox) enum StateError {
    /// sled returned an error.
    #[error("sled: {0}")]
    Sled(#[from] sled::Error),
    /// sled panicked; the text is its message.
    #[error("sled panicked: {0}")]
    Panicked(String),
    /// A system call on its files failed.
    #[error("{doing}")]
    Io {
        /// Which step.
        doing: &'static str,
        /// Why.
        source: io::Error,
    },
    /// A file cannot be read now.
    #[error(transparent)]
    Unreadable(#[from] Unreadable),
    /// Read twice, it was not the same: a read in between has failed.
    #[error(
        "the state was not the same when it was read twice; the disk or the system has failed a read"
    )]
    Unsteady,
    /// Its rows are not what the outbox wrote.
    #[error("the state does not hold together: {0}")]
    Inconsistent(String),
}

impl StateError {
    /// The files may be sound: it was the system that refused.
    pub(in crate::outbox) fn is_of_the_system(&self) -> bool {
        match self {
            Self::Io { .. } | Self::Unreadable(_) | Self::Unsteady => true,
            Self::Sled(sled::Error::Io(error)) => {
                error.raw_os_error().is_some() || error.to_string().contains("lock")
            }
            Self::Sled(_) | Self::Panicked(_) | Self::Inconsistent(_) => false,
        }
    }
}

impl StateError {
    /// Why the outbox at `path` is not opened.
    pub(in crate::outbox) fn at(self, path: &Path) -> OpenError {
        match self {
            Self::Unreadable(error) => error.at(path),
            source => OpenError::State {
                path: path.to_owned(),
                source: Box::new(source),
            },
        }
    }
}
