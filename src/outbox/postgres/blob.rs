//! Something long that schedules keep, written and read as a stream. A block at a time is in memory, and two
//! when it is read.

use std::io::{self, Read, Write};

use super::snapshots::{BLOCK, SnapshotEntry, SnapshotName, Snapshots};

/// Writes it. What was written is there once it has been published.
#[derive(Debug)]
pub struct BlobWriter {
    snapshots: Snapshots,
    blob: [u8; 16],
    block: Vec<u8>,
    blocks: u64,
    bytes: u64,
}

impl BlobWriter {
    /// Begins it.
    ///
    /// # Errors
    /// The server cannot be asked.
    pub fn new(snapshots: &Snapshots, name: SnapshotName) -> io::Result<Self> {
        let blob = snapshots
            .draft(name, Vec::new())
            .map_err(io::Error::other)?;
        Ok(Self {
            snapshots: snapshots.clone(),
            blob,
            block: Vec::with_capacity(BLOCK),
            blocks: 0,
            bytes: 0,
        })
    }

    /// Stores the rest. Returns what [`Snapshots::publish`] is told.
    ///
    /// # Errors
    /// The server cannot be asked.
    pub fn finish(&mut self) -> io::Result<([u8; 16], u64, u64)> {
        if !self.block.is_empty() {
            self.store()?;
        }
        Ok((self.blob, self.blocks, self.bytes))
    }

    fn store(&mut self) -> io::Result<()> {
        let block = std::mem::replace(&mut self.block, Vec::with_capacity(BLOCK));
        let stored = self.snapshots.store(self.blob, self.blocks, vec![block]);
        stored.map_err(io::Error::other)?;
        self.blocks += 1;
        Ok(())
    }
}

impl Write for BlobWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let room = BLOCK - self.block.len();
        let part = bytes.get(..room).unwrap_or(bytes);
        self.block.extend_from_slice(part);
        self.bytes += part.len() as u64;
        if self.block.len() == BLOCK {
            self.store()?;
        }
        Ok(part.len())
    }

    /// Whole blocks are stored; the rest with the last.
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Reads it.
#[derive(Debug)]
pub struct BlobReader {
    snapshots: Snapshots,
    blob: [u8; 16],
    next: u64,
    blocks: std::vec::IntoIter<Vec<u8>>,
    block: Vec<u8>,
    at: usize,
}

impl BlobReader {
    /// From its beginning.
    pub fn new(snapshots: &Snapshots, entry: &SnapshotEntry) -> Self {
        Self {
            snapshots: snapshots.clone(),
            blob: entry.blob,
            next: 0,
            blocks: Vec::new().into_iter(),
            block: Vec::new(),
            at: 0,
        }
    }
}

impl Read for BlobReader {
    /// A block that is missing ends it.
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        if self.at >= self.block.len() {
            self.at = 0;
            self.block = match self.blocks.next() {
                Some(block) => block,
                None => {
                    let read = self.snapshots.read(self.blob, self.next);
                    let read = read.map_err(io::Error::other)?;
                    self.next += read.len() as u64;
                    self.blocks = read.into_iter();
                    self.blocks.next().unwrap_or_default()
                }
            };
        }
        let rest = self.block.get(self.at..).unwrap_or_default();
        let length = rest.len().min(bytes.len());
        for (to, from) in bytes.iter_mut().zip(rest) {
            *to = *from;
        }
        self.at += length;
        Ok(length)
    }
}
