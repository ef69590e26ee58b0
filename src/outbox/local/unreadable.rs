//! What of the outbox cannot be read at the moment: for the health, and for the log, which says it
//! at once and then once a minute until it is over.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::clock::{Clock, UnixMillis};
use crate::outbox::local::files::disk::Disk;
use crate::outbox::local::files::read::Unreadable;

/// Files that are remembered; of more, the first ones are tried again until they can be read.
const MOST: usize = 64;
/// First pause before it is tried again whether they can be read; it doubles up to the last.
const PAUSE: Duration = Duration::from_millis(20);
const PAUSE_MAX: Duration = Duration::from_secs(5);
/// Between two log lines.
const LINES: Duration = Duration::from_secs(60);

/// See the module.
#[derive(Debug)]
pub(in crate::outbox) struct Unreadables {
    clock: Clock,
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    files: BTreeMap<PathBuf, Unreadable>,
    since: Option<UnixMillis>,
    said: Option<Instant>,
    due: Option<(Instant, Duration)>,
}

impl Unreadables {
    pub fn new(clock: Clock) -> Self {
        Self {
            clock,
            inner: Mutex::default(),
        }
    }

    /// Takes note of one. Returns whether it is the first.
    pub fn note(&self, error: Unreadable) -> bool {
        let mut inner = self.inner();
        let first = inner.files.is_empty();
        if first {
            inner.since = Some(self.clock.now());
            inner.due = Some((self.clock.instant() + PAUSE, PAUSE));
        }
        if inner.files.len() < MOST {
            inner.files.insert(error.file.clone(), error);
        }
        inner.say(self.clock.instant());
        first
    }

    /// Since when something cannot be read, and what; `None`: nothing is known to be unreadable.
    pub fn summary(&self) -> Option<(UnixMillis, Arc<str>)> {
        let inner = self.inner();
        let first = inner.files.values().next()?;
        Some((inner.since?, Arc::from(inner.what(first))))
    }

    /// When they are to be tried again.
    pub fn due(&self) -> Option<Instant> {
        self.inner().due.map(|(at, _)| at)
    }

    /// Tries again, if it is time, and forgets what can be read.
    pub fn try_again(&self, disk: &Disk) {
        let now = self.clock.instant();
        let Some((_, pause)) = self.inner().due.filter(|(at, _)| *at <= now) else {
            return;
        };
        // Not under the lock: a disk may take its time.
        let files = std::mem::take(&mut self.inner().files);
        let left: Vec<_> = files
            .into_values()
            .filter(|error| error.persists(disk))
            .collect();
        let mut inner = self.inner();
        for error in left {
            inner.files.insert(error.file.clone(), error);
        }
        if inner.files.is_empty() {
            *inner = Inner::default();
            tracing::info!("all of the outbox can be read again");
            return;
        }
        let pause = (pause * 2).min(PAUSE_MAX);
        inner.due = Some((self.clock.instant() + pause, pause));
        inner.say(self.clock.instant());
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn say(&mut self, now: Instant) {
        let silent = self.said.is_some_and(|said| now < said + LINES);
        if !silent && let Some(first) = self.files.values().next() {
            self.said = Some(now);
            tracing::warn!(
                files = self.files.len(),
                what = self.what(first),
                "the outbox cannot be read; nothing is lost, and it is tried again"
            );
        }
    }

    fn what(&self, first: &Unreadable) -> String {
        let others = match self.files.len() {
            0 | 1 => String::new(),
            more => format!(", and {} more files", more - 1),
        };
        format!("{first}: {}{others}", first.source)
    }
}
