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

use crate::outbox::local::files::disk::{Disk, Op};
use crate::outbox::local::files::read::exists;
use crate::outbox::local::state::error::StateError;

/// Cache of sled, which is never full: all rows stay in memory, as the index of them does. So they are
/// read when the state is opened, which is checked, and never again. A read that failed within a batch
/// would leave a part of the batch behind, which sled writes to the disk later.
const CACHE: u64 = 1 << 40;
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
    /// Opens `path`, or makes it. A file beyond `limit` bytes is worth a copy.
    pub fn open(path: &Path, disk: &Disk, limit: u64) -> Result<Self, StateError> {
        let store = Self::open_trial(path, disk)?;
        store.sync_files()?;
        Ok(Self {
            limit,
            compact_above: limit,
            ..store
        })
    }

    /// The same for a copy that nothing depends on: nothing of it is made durable.
    pub fn open_trial(path: &Path, disk: &Disk) -> Result<Self, StateError> {
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
            disk.check(Op::StateOpen(path))
                .map_err(io_error("sled could not be opened"))?;
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
        Ok(Self {
            db,
            file,
            path: path.to_owned(),
            disk: disk.clone(),
            limit: u64::MAX,
            compact_above: u64::MAX,
        })
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

    /// A digest of all rows.
    pub fn digest(&self) -> Result<Digest, StateError> {
        let mut digest = Digest::default();
        self.scan(|key, value| {
            digest.add(key, value);
            Ok(())
        })?;
        Ok(digest)
    }

    /// Makes `batch` durable, all of it or nothing. After an error the store must be reopened.
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
        let fresh_path = beside(&self.path, "new");
        let (path, disk, limit) = (self.path.clone(), self.disk.clone(), self.limit);
        disk.remove(&fresh_path)
            .map_err(io_error("an old copy of the state could not be removed"))?;
        let fresh = Self::open(&fresh_path, &disk, limit)?;
        let mut digest = Digest::default();
        let mut batch = sled::Batch::default();
        let mut rows = 0;
        self.scan(|key, value| {
            digest.add(key, value);
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
        let mut store = Self::put_in_place(&fresh_path, &path, &disk, limit, digest)?;
        store.compact_above = limit.max(store.size().saturating_mul(4));
        Ok(store)
    }

    /// Puts the directory `fresh`, whose files are durable, in the place of the one at `path`, and
    /// opens it. If what sled reads there is not what `digest` is of, a read has failed, and the old
    /// one is put back.
    pub fn put_in_place(
        fresh: &Path,
        path: &Path,
        disk: &Disk,
        limit: u64,
        digest: Digest,
    ) -> Result<Self, StateError> {
        let (old, mark) = (beside(path, "old"), fresh.join(COMPLETE));
        let parent = path.parent().unwrap_or(path);
        let failed = io_error("the copy of the state could not be put in place");
        (|| {
            let file = disk.create(&mark)?;
            disk.sync(&file, &mark)?;
            disk.sync_directory(fresh)?;
            disk.sync_directory(parent)?;
            disk.rename(path, &old)?;
            disk.rename(fresh, path)?;
            disk.sync_directory(parent)
        })()
        .map_err(&failed)?;
        let opened = Self::open(path, disk, limit).and_then(|store| {
            let steady = store.digest()? == digest;
            steady.then_some(store).ok_or(StateError::Unsteady)
        });
        match opened {
            Ok(store) => {
                disk.remove(&old)
                    .and_then(|()| disk.remove(&path.join(COMPLETE)))
                    .map_err(&failed)?;
                Ok(store)
            }
            Err(error) => {
                disk.remove(path)
                    .and_then(|()| disk.rename(&old, path))
                    .and_then(|()| disk.sync_directory(parent))
                    .map_err(&failed)?;
                Err(match error {
                    error if error.is_of_the_system() => error,
                    _ => StateError::Unsteady,
                })
            }
        }
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

/// All rows, as one number.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::outbox) struct Digest {
    rows: u64,
    crc: u32,
}

impl Digest {
    fn add(&mut self, key: &[u8], value: &[u8]) {
        self.rows += 1;
        for part in [key, &[0xff], value] {
            self.crc = crc32c::crc32c_append(self.crc, part);
        }
    }
}

/// Of `state`, `state.new` and `state.old`, keeps the one that counts.
pub(in crate::outbox) fn settle_interrupted_copy(
    path: &Path,
    disk: &Disk,
) -> Result<(), StateError> {
    let (fresh, old) = (beside(path, "new"), beside(path, "old"));
    let failed = io_error("an interrupted copy of the state could not be settled");
    if !exists(disk, path)? {
        let whole = exists(disk, &fresh)? && exists(disk, &fresh.join(COMPLETE))?;
        let kept = match whole {
            true => Some(&fresh),
            false => exists(disk, &old)?.then_some(&old),
        };
        if let Some(kept) = kept {
            disk.rename(kept, path)
                .and_then(|()| disk.sync_directory(path.parent().unwrap_or(path)))
                .map_err(&failed)?;
        }
    }
    let mark = exists(disk, path)?.then(|| path.join(COMPLETE));
    for left_over in [fresh, old, beside(path, "trial")].into_iter().chain(mark) {
        if exists(disk, &left_over)? {
            disk.remove(&left_over).map_err(&failed)?;
        }
    }
    Ok(())
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

pub(in crate::outbox) fn beside(path: &Path, what: &str) -> PathBuf {
    path.with_extension(what)
}

pub(in crate::outbox) fn io_error(doing: &'static str) -> impl Fn(io::Error) -> StateError {
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
            settle_interrupted_copy(&path, &Disk::default()).unwrap();
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
