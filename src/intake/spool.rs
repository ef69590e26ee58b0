//! Where a pushed document waits when it comes before the settings that say what to do with it,
//! which is the order in which Looker writes them. The file has no name, so that nothing is left
//! behind however the daemon ends; it lies in the outbox directory, whose file system is meant for
//! deliveries, unlike `/tmp`, which is memory on many machines.

use std::io::{self, SeekFrom};
use std::path::PathBuf;

use tokio::fs::File;
use tokio::io::{AsyncSeekExt, AsyncWriteExt};
use tokio_util::io::ReaderStream;

use super::receiver::Source;

/// How much is read at once.
const READ_BYTES: usize = 256 << 10;

/// A temporary file that is written once and read once.
pub(super) struct Spool {
    file: File,
}

impl Spool {
    /// An empty file in `directory`, which must be there.
    pub(super) async fn create(directory: PathBuf) -> io::Result<Self> {
        let file = tokio::task::spawn_blocking(move || tempfile::tempfile_in(directory)).await??;
        Ok(Self {
            file: File::from_std(file),
        })
    }

    pub(super) async fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all(bytes).await
    }

    /// What was written, from its beginning.
    pub(super) async fn into_source(mut self) -> io::Result<Source> {
        // The last write may still be under way, and only the flush tells how it went.
        self.file.flush().await?;
        self.file.seek(SeekFrom::Start(0)).await?;
        Ok(Box::pin(ReaderStream::with_capacity(self.file, READ_BYTES)))
    }
}
