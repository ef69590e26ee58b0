//! How a command for a running daemon ends.

use std::io;

use serde_json::json;

use super::screen::Screen;
use crate::cli::client::ClientError;
use crate::control::view::Done;

/// A command did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    /// The daemon could not be asked, or did not do it.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// Standard output or a file cannot be written.
    #[error("{0} cannot be written")]
    Output(String, #[source] io::Error),
    /// A file or standard input cannot be read.
    #[error("{0} cannot be read")]
    Input(String, #[source] io::Error),
    /// The command line asks for something that is not safe or not clear.
    #[error("{0}")]
    Usage(String),
}

/// Standard output: a full disk, or a reader that has gone.
impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::Output("standard output".into(), error)
    }
}

/// Whether there was something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Found {
    Something,
    Nothing,
}

impl Found {
    /// There are so many.
    pub fn of(count: u64) -> Self {
        if count > 0 {
            Self::Something
        } else {
            Self::Nothing
        }
    }
}

/// What a changing call did.
pub(super) fn tell(screen: &mut Screen<'_>, done: &Done, as_json: bool) -> Result<(), Failure> {
    if as_json {
        screen.json(&json!(done).to_string())?;
    } else {
        screen.line(&done.message)?;
    }
    Ok(())
}
