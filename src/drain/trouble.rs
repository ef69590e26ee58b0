//! What can go wrong with a call to the outbox that runs on a thread of its own.

use tokio::task::JoinError;

use crate::outbox::Error;

/// A call to the outbox has failed.
#[derive(Debug, thiserror::Error)]
pub(super) enum Trouble {
    /// By its own account.
    #[error(transparent)]
    Outbox(#[from] Error),
    /// It panicked.
    #[error("the call ended early: {0}")]
    Call(#[from] JoinError),
}

/// What the call came to.
pub(super) fn flatten<V>(result: Result<Result<V, Error>, JoinError>) -> Result<V, Trouble> {
    Ok(result??)
}
