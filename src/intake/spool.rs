//! Where a pushed document waits when it comes before the settings that say what to do with it,
//! which is the order in which Looker writes them. The file has no name, so that nothing is left
//! behind however the daemon ends, and is sealed, since its blocks reach the disk all the same; it
//! lies in the outbox directory, whose file system is meant for deliveries, unlike `/tmp`, which is
//! memory on many machines.

use std::io;

use bytes::Bytes;
use futures::stream;

use super::receiver::Source;
use crate::seal::{Scratch, Space};

/// The document is here, and the disk does not give it back: no fault of Looker's.
#[derive(Debug, thiserror::Error)]
#[error("The feed could not read the delivery back from its temporary space: {0}")]
struct NotReadBack(io::Error);

/// Whether a stream broke off because a document that had come whole could not be read back.
pub fn was_not_read_back(error: &io::Error) -> bool {
    error
        .get_ref()
        .is_some_and(|inner| inner.is::<NotReadBack>())
}

/// A temporary file that is written once and read once.
pub(super) struct Spool {
    /// `None` after a failure.
    scratch: Option<Scratch>,
}

impl Spool {
    /// An empty file in `space`.
    pub(super) async fn create(space: Space) -> io::Result<Self> {
        let scratch = blocking(move || Scratch::create(&space)).await?;
        Ok(Self {
            scratch: Some(scratch),
        })
    }

    pub(super) async fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        let mut scratch = self.scratch.take().ok_or_else(failed_before)?;
        if scratch.keep(bytes)? {
            scratch = blocking(move || scratch.flush().map(|()| scratch)).await?;
        }
        self.scratch = Some(scratch);
        Ok(())
    }

    /// What was written, from its beginning.
    pub(super) async fn into_source(self) -> io::Result<Source> {
        let scratch = self.scratch.ok_or_else(failed_before)?;
        let reader = blocking(move || scratch.into_reader()).await?;
        Ok(Box::pin(stream::try_unfold(reader, |mut reader| {
            blocking(move || {
                let chunk = reader.chunk();
                let chunk = chunk.map_err(|error| io::Error::other(NotReadBack(error)))?;
                Ok(chunk.map(|chunk| (Bytes::from(chunk), reader)))
            })
        })))
    }
}

/// Waits for work on the disk without holding up the runtime.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    tokio::task::spawn_blocking(work).await?
}

fn failed_before() -> io::Error {
    io::Error::other("a write to the temporary file has failed before")
}
