//! How much the outbox may hold. Checked when a delivery begins and while it is appended to;
//! draining is never held up.

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crate::outbox::error::Error;
use crate::outbox::settings::Settings;

/// The free disk is asked for again after so many appended bytes.
const ASK_EVERY: u64 = 8 << 20;

/// Bytes on the disk, counted as they come and go.
#[derive(Debug, Default)]
pub(in crate::outbox) struct Capacity {
    files: AtomicU64,
    state: AtomicU64,
    since_asked: AtomicU64,
}

impl Capacity {
    /// Files of the outbox beside sled's.
    pub fn set_files(&self, bytes: u64) {
        self.files.store(bytes, Relaxed);
    }

    /// sled's own.
    pub fn set_state(&self, bytes: u64) {
        self.state.store(bytes, Relaxed);
    }

    pub fn add(&self, bytes: u64) {
        self.files.fetch_add(bytes, Relaxed);
        self.since_asked.fetch_add(bytes, Relaxed);
    }

    pub fn give_back(&self, bytes: u64) {
        // It cannot fail: the closure always has a value.
        let _ = self
            .files
            .fetch_update(Relaxed, Relaxed, |files| Some(files.saturating_sub(bytes)));
    }

    pub fn used(&self) -> u64 {
        self.files
            .load(Relaxed)
            .saturating_add(self.state.load(Relaxed))
    }

    /// Whether a delivery may begin.
    pub fn admit(&self, settings: &Settings) -> Result<(), Error> {
        self.check_bytes(settings, 0)?;
        self.check_disk(settings)
    }

    /// Whether a delivery may go on by `more` bytes.
    pub fn admit_more(&self, settings: &Settings, more: u64) -> Result<(), Error> {
        self.check_bytes(settings, more)?;
        if self.since_asked.load(Relaxed) >= ASK_EVERY {
            self.check_disk(settings)?;
        }
        Ok(())
    }

    fn check_bytes(&self, settings: &Settings, more: u64) -> Result<(), Error> {
        let used = self.used();
        match settings.max_bytes {
            Some(limit) if used.saturating_add(more) >= limit => Err(Error::Full { used, limit }),
            _ => Ok(()),
        }
    }

    fn check_disk(&self, settings: &Settings) -> Result<(), Error> {
        self.since_asked.store(0, Relaxed);
        let reserve = settings.reserve_bytes;
        match free_bytes(&settings.path) {
            Some(free) if free < reserve => Err(Error::DiskLow { free, reserve }),
            _ => Ok(()),
        }
    }
}

/// Bytes that this user may still write to the disk of `path`; `None`: the system does not say.
pub(in crate::outbox) fn free_bytes(path: &Path) -> Option<u64> {
    let disk = rustix::fs::statvfs(path).ok()?;
    Some(disk.f_bavail.saturating_mul(disk.f_frsize))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::seal::Keyring;

    #[test]
    fn the_bound_counts_files_and_state_together() {
        let capacity = Capacity::default();
        let settings = Settings {
            max_bytes: Some(100),
            reserve_bytes: 0,
            ..Settings::new("/", Arc::new(Keyring::ephemeral().unwrap()))
        };
        capacity.add(60);
        capacity.set_state(30);
        assert!(capacity.admit(&settings).is_ok());
        assert!(capacity.admit_more(&settings, 10).is_err());
        capacity.add(10);
        assert!(matches!(
            capacity.admit(&settings),
            Err(Error::Full {
                used: 100,
                limit: 100
            })
        ));
        capacity.give_back(1);
        assert!(capacity.admit(&settings).is_ok());
        capacity.give_back(1_000);
        assert_eq!(capacity.used(), 30);
    }

    #[test]
    fn a_disk_below_its_reserve_is_refused() {
        let capacity = Capacity::default();
        let settings = Settings {
            reserve_bytes: u64::MAX,
            ..Settings::new("/", Arc::new(Keyring::ephemeral().unwrap()))
        };
        assert!(matches!(
            capacity.admit(&settings),
            Err(Error::DiskLow {
                reserve: u64::MAX,
                ..
            })
        ));
        assert!(
            capacity.admit_more(&settings, 1).is_ok(),
            "asked for too soon"
        );
        capacity.add(ASK_EVERY);
        assert!(capacity.admit_more(&settings, 1).is_err());
    }
}
