//! sled, kept on a short leash.
//!
//! One default tree, small rows, one writer. `flush` of sled 0.34 ends in `sync_file_range` and
//! not in fsync, so [`Store::apply`] follows it with an fdatasync on a descriptor of our own.
//! sled's periodic flusher is off: it would write beside us, and what it is good for (giving
//! space back) is done better by [`Store::compact`], which copies the few live rows into a fresh
//! directory. Every call is guarded against panics, which this version turns some damage into.

use std::any::Any;
use std::fs::{self, File};
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::outbox::error::StateError;
use crate::outbox::local::files::disk::{Disk, Op};

/// Cache of sled; all its rows together are seldom larger.
const CACHE: u64 = 16 << 20;
/// Rows copied in one batch.
const COPY_ROWS: usize = 1_000;
/// sled lets go of its lock file only when its last background job has ended.
const LOCK_TRIES: u32 = 100;
const LOCK_PAUSE: Duration = Duration::from_millis(20);
/// Its presence says that a copy is whole.
const COMPLETE: &str = "COMPLETE";

/// An open sled database and our way to fsync it.
pub(in crate::outbox) struct Store {
    db: sled::Db,
    file: File,
    path: PathBuf,
    disk: Disk,
    /// File size that calls for a copy, by the settings.
    limit: u64,
    /// File size that calls for the next copy.
    compact_above: u64,
}

impl Store {
    /// Opens `path`, or makes it; ends or undoes a copy that was interrupted. A file beyond
    /// `limit` bytes is worth a copy.
    pub fn open(path: &Path, disk: &Disk, limit: u64) -> Result<Self, StateError> {
        settle_interrupted_copy(path, disk)?;
        let store = Self::open_directory(path, disk, limit)?;
        let parent = path.parent().unwrap_or(path);
        disk.sync_directory(parent)
            .map_err(io_error("the directory above sled's could not be synced"))?;
        Ok(store)
    }

    fn open_directory(path: &Path, disk: &Disk, limit: u64) -> Result<Self, StateError> {
        disk.create_directory(path)
            .map_err(io_error("sled's directory could not be made"))?;
        remove_unfinished_snapshots(path, disk)
            .map_err(io_error("an unfinished snapshot could not be removed"))?;
        let config = sled::Config::new()
            .path(path)
            .mode(sled::Mode::HighThroughput)
            .cache_capacity(CACHE)
            .flush_every_ms(None);
        let mut tries = 0;
        let db = loop {
            match guarded(|| config.open()) {
                Err(StateError::Sled(sled::Error::Io(error)))
                    if tries < LOCK_TRIES && error.to_string().contains("lock") =>
                {
                    tries += 1;
                    std::thread::sleep(LOCK_PAUSE);
                }
                other => break other?,
            }
        };
        let file = File::options()
            .read(true)
            .write(true)
            .open(path.join("db"))
            .map_err(io_error("sled's file could not be opened"))?;
        let store = Self {
            db,
            file,
            path: path.to_owned(),
            disk: disk.clone(),
            limit,
            compact_above: limit,
        };
        store.sync_files()?;
        Ok(store)
    }

    /// Hands `rows` to `visit`, in the order of their keys.
    pub fn scan(
        &self,
        mut visit: impl FnMut(&[u8], &[u8]) -> Result<(), StateError>,
    ) -> Result<(), StateError> {
        let visit = &mut visit;
        guarded_with(move || {
            for row in self.db.iter() {
                let (key, value) = row?;
                visit(&key, &value)?;
            }
            Ok(())
        })
    }

    /// Makes `batch` durable, all of it or nothing. After an error the store must be opened anew.
    pub fn apply(&self, batch: sled::Batch) -> Result<(), StateError> {
        self.disk
            .check(Op::StateBatch(&self.path))
            .map_err(io_error("the batch could not be written"))?;
        guarded(|| self.db.apply_batch(batch))?;
        self.flush()
    }

    fn flush(&self) -> Result<(), StateError> {
        self.disk
            .check(Op::StateFlush(&self.path))
            .map_err(io_error("sled could not be flushed"))?;
        guarded(|| self.db.flush().map(|_| ()))?;
        self.disk
            .sync_state(&self.file, &self.path)
            .map_err(io_error("sled's file could not be synced"))
    }

    /// Size of sled's log on the disk.
    pub fn size(&self) -> u64 {
        self.file.metadata().map_or(0, |meta| meta.len())
    }

    /// Whether sled's file has grown so far that it is worth a copy.
    pub fn wants_compaction(&self) -> bool {
        self.size() > self.compact_above
    }

    /// Copies the rows into a fresh directory and puts that in the place of the old one. A crash
    /// at any point leaves either the old or the whole new one.
    pub fn compact(self) -> Result<Self, StateError> {
        let (fresh_path, old_path) = (beside(&self.path, "new"), beside(&self.path, "old"));
        let (path, disk, limit) = (self.path.clone(), self.disk.clone(), self.limit);
        let parent = path.parent().unwrap_or(&path).to_owned();
        let swap_error = io_error("the copy of the state could not be put in place");
        disk.remove(&fresh_path).map_err(&swap_error)?;
        let fresh = Self::open_directory(&fresh_path, &disk, limit)?;
        let mut batch = sled::Batch::default();
        let mut rows = 0;
        self.scan(|key, value| {
            batch.insert(key, value);
            rows += 1;
            if rows % COPY_ROWS == 0 {
                fresh.apply(std::mem::take(&mut batch))?;
            }
            Ok(())
        })?;
        fresh.apply(batch)?;
        drop(fresh);
        drop(self);
        let mark = fresh_path.join(COMPLETE);
        (|| {
            let file = disk.create(&mark)?;
            disk.sync(&file, &mark)?;
            disk.sync_directory(&fresh_path)?;
            disk.sync_directory(&parent)?;
            disk.rename(&path, &old_path)?;
            disk.rename(&fresh_path, &path)?;
            disk.sync_directory(&parent)?;
            disk.remove(&old_path)?;
            disk.remove(&path.join(COMPLETE))
        })()
        .map_err(&swap_error)?;
        let mut store = Self::open_directory(&path, &disk, limit)?;
        store.compact_above = limit.max(store.size().saturating_mul(4));
        Ok(store)
    }

    /// sled makes `conf` and snapshots without syncing them.
    fn sync_files(&self) -> Result<(), StateError> {
        (|| {
            self.disk.check(Op::StateSync(&self.path))?;
            for entry in fs::read_dir(&self.path)? {
                let entry = entry?;
                if entry.file_type()?.is_file() {
                    File::open(entry.path())?.sync_all()?;
                }
            }
            self.disk.sync_directory(&self.path)
        })()
        .map_err(io_error("sled's files could not be synced"))
    }
}

/// Of `state`, `state.new` and `state.old`, keeps the one that counts.
fn settle_interrupted_copy(path: &Path, disk: &Disk) -> Result<(), StateError> {
    let (fresh, old) = (beside(path, "new"), beside(path, "old"));
    (|| {
        if !path.exists() {
            if fresh.join(COMPLETE).exists() {
                disk.rename(&fresh, path)?;
            } else if old.exists() {
                disk.rename(&old, path)?;
            }
            disk.sync_directory(path.parent().unwrap_or(path))?;
        }
        for left_over in [fresh, old, path.join(COMPLETE)] {
            if left_over.exists() {
                disk.remove(&left_over)?;
            }
        }
        Ok(())
    })()
    .map_err(io_error(
        "an interrupted copy of the state could not be settled",
    ))
}

/// sled takes an unfinished snapshot for a damaged one (upstream 1527, 1533).
fn remove_unfinished_snapshots(path: &Path, disk: &Disk) -> io::Result<()> {
    for entry in fs::read_dir(path)? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if name.starts_with("snap.") && name.ends_with(".generating") {
            disk.remove(&path)?;
        }
    }
    Ok(())
}

fn beside(path: &Path, what: &str) -> PathBuf {
    path.with_extension(what)
}

fn io_error(doing: &'static str) -> impl Fn(io::Error) -> StateError {
    move |source| StateError::Io { doing, source }
}

fn guarded<T>(call: impl FnOnce() -> sled::Result<T>) -> Result<T, StateError> {
    guarded_with(|| call().map_err(StateError::Sled))
}

fn guarded_with<T>(call: impl FnOnce() -> Result<T, StateError>) -> Result<T, StateError> {
    match catch_unwind(AssertUnwindSafe(call)) {
        Ok(result) => result,
        Err(panic) => Err(StateError::Panicked(message(&*panic))),
    }
}

fn message(panic: &(dyn Any + Send)) -> String {
    if let Some(text) = panic.downcast_ref::<&str>() {
        (*text).to_owned()
    } else if let Some(text) = panic.downcast_ref::<String>() {
        text.clone()
    } else {
        "no message".to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filled(path: &Path) -> Store {
        let store = Store::open(path, &Disk::default(), 1 << 20).unwrap();
        let mut batch = sled::Batch::default();
        for n in 0..2_500u32 {
            batch.insert(&n.to_be_bytes(), vec![n as u8; 40]);
        }
        store.apply(batch).unwrap();
        store
    }

    fn count(store: &Store) -> usize {
        let mut rows = 0;
        store
            .scan(|key, value| {
                assert_eq!(value, vec![key[3]; 40]);
                rows += 1;
                Ok(())
            })
            .unwrap();
        rows
    }

    #[test]
    fn a_copy_holds_the_same_rows_and_leaves_nothing_beside_it() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("state");
        let store = filled(&path).compact().unwrap();
        assert_eq!(count(&store), 2_500);
        let names: Vec<_> = fs::read_dir(directory.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name())
            .collect();
        assert_eq!(names, ["state"]);
    }

    #[test]
    fn a_copy_that_fails_at_any_step_loses_no_row() {
        for nth in 0.. {
            let directory = tempfile::tempdir().unwrap();
            let path = directory.path().join("state");
            drop(filled(&path));
            let calls = std::sync::atomic::AtomicUsize::new(0);
            let disk = Disk::with_hook(move |_| {
                if calls.fetch_add(1, std::sync::atomic::Ordering::Relaxed) == nth {
                    Err(io::Error::other("injected"))
                } else {
                    Ok(())
                }
            });
            let outcome = Store::open(&path, &disk, 1 << 20).and_then(Store::compact);
            let finished = outcome.is_ok();
            drop(outcome);
            assert_eq!(
                count(&Store::open(&path, &Disk::default(), 1 << 20).unwrap()),
                2_500,
                "{nth}"
            );
            if finished {
                assert!(nth > 10, "only {nth} steps were tried");
                break;
            }
        }
    }
}
