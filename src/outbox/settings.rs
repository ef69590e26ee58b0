//! How an outbox is kept.

use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::clock::Clock;
use crate::outbox::error::OpenError;
use crate::seal::Keyring;

/// How an outbox is kept. The defaults suit a single daemon with a disk of its own.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The directory; made if it is not there. One process at a time.
    pub path: PathBuf,
    /// Bytes that the directory may hold before deliveries are refused; `None`: no bound.
    pub max_bytes: Option<u64>,
    /// Bytes of the disk that stay free: below, deliveries are refused.
    pub reserve_bytes: u64,
    /// A segment is ended at about this size. Disk space comes back in steps of it while a
    /// delivery drains. Within [`Settings::SEGMENT_BYTES`].
    pub segment_bytes: u64,
    /// sled's file is copied into a fresh one when it has grown beyond this (and beyond four
    /// times what the last copy came to).
    pub state_bytes: u64,
    /// How long the webhook ids of committed deliveries are remembered.
    pub webhook_memory: Duration,
    /// How many settled deliveries stay listed. One with dead letters stays in any case.
    pub history: usize,
    /// How many rejected rows of a delivery are kept (and at most 64 MiB of them); more are only
    /// counted.
    pub rejected_rows: u64,
    /// What records are sealed with, and opened with.
    pub keys: Arc<Keyring>,
    /// Tells the time.
    pub clock: Clock,
}

impl Settings {
    /// Between which sizes a segment may be ended.
    pub const SEGMENT_BYTES: RangeInclusive<u64> = 1 << 10..=1 << 30;

    /// The defaults, at `path`, sealed with `keys`.
    pub fn new(path: impl Into<PathBuf>, keys: Arc<Keyring>) -> Self {
        Self {
            path: path.into(),
            max_bytes: None,
            reserve_bytes: 1 << 30,
            segment_bytes: 64 << 20,
            state_bytes: 24 << 20,
            webhook_memory: Duration::from_secs(7 * 24 * 60 * 60),
            history: 1_000,
            rejected_rows: 10_000,
            keys,
            clock: Clock::default(),
        }
    }

    pub(in crate::outbox) fn check(&self) -> Result<(), OpenError> {
        if !Self::SEGMENT_BYTES.contains(&self.segment_bytes) {
            return Err(OpenError::Setting(
                "segment_bytes must be from 1 KiB to 1 GiB",
            ));
        }
        if u32::try_from(self.rejected_rows).is_err() {
            return Err(OpenError::Setting(
                "rejected_rows must be less than 4,294,967,296",
            ));
        }
        Ok(())
    }
}
