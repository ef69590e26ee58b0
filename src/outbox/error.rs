//! What can go wrong, as the callers see it.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::clock::UnixMillis;
use crate::model::DeliveryId;
use crate::outbox::webhook::WebhookState;
use crate::seal::KeyId;

/// The outbox could not be opened. Damage is no reason: it is set aside and named.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The lock file is held: a daemon is running on this directory.
    #[error(
        "the outbox {} is in use by another process; stop that one, or give this one a directory of its own",
        .0.display()
    )]
    InUse(PathBuf),
    /// The directory holds files and none of them is ours.
    #[error(
        "{} holds files that are not an outbox; give the outbox an empty directory of its own",
        .0.display()
    )]
    Foreign(PathBuf),
    /// The directory was written by a version of this program that this one does not know.
    #[error(
        "the outbox {} has format version {found}, and this program reads version {known}; use the program that wrote it, or let that one drain it first",
        path.display()
    )]
    Version {
        /// The directory.
        path: PathBuf,
        /// What stands there.
        found: u32,
        /// What this program reads.
        known: u32,
    },
    /// Files are sealed under a key that is not there. Nothing was changed.
    #[error(
        "the outbox {} needs the key {key} (files sealed under it: {files}), and the keys at hand are {held}; name that key's file as seal.key_file, or in seal.previous_key_files if it was replaced (with --key-file for `outbox check` and `outbox salvage`). Nothing was changed",
        path.display()
    )]
    MissingKey {
        /// The directory.
        path: PathBuf,
        /// The key that is missing.
        key: KeyId,
        /// How many files need it.
        files: u64,
        /// The ids of the keys that are there.
        held: String,
    },
    /// A file or directory cannot be read, which says nothing about what is in it.
    #[error(
        "the outbox {} is not opened, since {} cannot be read; look at its owner and mode, at the disk, and at the limit of open files. Nothing is lost",
        path.display(), file.display()
    )]
    Unreadable {
        /// The outbox's directory.
        path: PathBuf,
        /// What cannot be read.
        file: PathBuf,
        /// Why.
        source: Arc<io::Error>,
    },
    /// It is being moved elsewhere, or has been: nothing is sent from two places.
    #[error("{}", moved(path, to, *done))]
    Moved {
        /// The directory.
        path: PathBuf,
        /// Where to.
        to: String,
        /// Whether that is done.
        done: bool,
    },
    /// The settings contradict themselves.
    #[error("outbox setting {0}")]
    Setting(&'static str),
    /// The system refused a step of opening.
    #[error("the outbox {} could not be opened: {doing}", path.display())]
    Io {
        /// The directory.
        path: PathBuf,
        /// Which step.
        doing: &'static str,
        /// Why.
        source: io::Error,
    },
    /// What holds the state opens neither what was there nor a fresh directory.
    #[error("the state database of the outbox {} could not be opened", path.display())]
    State {
        /// The directory.
        path: PathBuf,
        /// Why.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

fn moved(path: &Path, to: &str, done: bool) -> String {
    let path = path.display();
    match done {
        true => format!(
            "the outbox {path} was moved to {to}, and what is left in it is a copy; name {to} in outbox.url, or give this daemon a directory of its own"
        ),
        false => format!(
            "a move of the outbox {path} to {to} has begun and not ended; end it with `looker-feed outbox move`, to the same address, or give it up with `looker-feed outbox move --give-up`"
        ),
    }
}

/// For people: `4.1 MB`.
fn size(bytes: u64) -> String {
    match bytes {
        0..1_000_000_000 => format!("{:.1} MB", bytes as f64 / 1e6),
        _ => format!("{:.1} GB", bytes as f64 / 1e9),
    }
}

/// A call on an open outbox failed.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    /// [`Settings::max_bytes`](super::Settings::max_bytes) is reached.
    #[error(
        "the outbox holds {} and may hold {} (outbox.max_bytes); it takes new deliveries again when some of it \
         has been sent",
        size(*used),
        size(*limit)
    )]
    Full {
        /// Bytes held.
        used: u64,
        /// Bytes allowed.
        limit: u64,
    },
    /// [`Settings::reserve_bytes`](super::Settings::reserve_bytes) is touched.
    #[error(
        "the disk that outbox.path is on has {} free, and {} are to stay free (outbox.reserve_bytes): make room \
         on it; what was accepted is safe",
        size(*free),
        size(*reserve)
    )]
    DiskLow {
        /// Bytes free.
        free: u64,
        /// Bytes to stay free.
        reserve: u64,
    },
    /// A sync or a write of the state failed; the outbox tries to reopen by itself.
    #[error("the outbox refuses writes, since one failed: {what}")]
    RefusingWrites {
        /// When that was.
        since: UnixMillis,
        /// What failed.
        what: Arc<str>,
    },
    /// A delivery of this id has begun or was committed before.
    #[error("delivery {0} is known already")]
    Duplicate(DeliveryId),
    /// A delivery with this webhook id has begun or was committed before.
    #[error("this webhook id is known already: {0:?}")]
    Webhook(WebhookState),
    /// The caller's totals are not what was appended. The delivery is aborted.
    #[error(
        "the totals of the delivery do not add up: {said} {what} were announced, {held} were appended"
    )]
    Unbalanced {
        /// Of what.
        what: &'static str,
        /// In the totals.
        said: u64,
        /// By append and reject.
        held: u64,
    },
    /// Something is larger than its bound.
    #[error("{what} is larger than {limit}")]
    TooLarge {
        /// What.
        what: &'static str,
        /// The bound.
        limit: usize,
    },
    /// A settlement names a slice that its entry does not have. Nothing of the call was applied.
    #[error("entry {ordinal} of delivery {delivery} has no slice {slice}")]
    NoSuchSlice {
        /// Delivery of the entry.
        delivery: DeliveryId,
        /// The entry.
        ordinal: u64,
        /// The slice.
        slice: usize,
    },
    /// A system call failed. What it was part of has been undone.
    #[error("the outbox failed: {doing}")]
    Io {
        /// Which step.
        doing: &'static str,
        /// Why.
        source: Arc<io::Error>,
    },
    /// A file cannot be read now: the disk is away, or the process is out of descriptors, or the file
    /// is another user's. Nothing is concluded from it and nothing has changed; it can be tried again.
    #[error("{} cannot be read now; nothing is lost, and it is tried again", file.display())]
    Unreadable {
        /// Which.
        file: Arc<Path>,
        /// Why.
        source: Arc<io::Error>,
    },
    /// Something was read twice and is not what was written.
    #[error("{what} is damaged")]
    Damaged {
        /// What.
        what: Arc<str>,
    },
    /// The state could not be made durable. What was asked for may or may not come back after a
    /// restart; a commit is withdrawn before this is returned.
    #[error("the outbox could not make its state durable")]
    State {
        /// Why.
        source: Arc<dyn std::error::Error + Send + Sync>,
    },
    /// The database of a shared outbox cannot be asked, or has refused. It passes, or the words of the
    /// server say what to do.
    #[error("the database of the outbox: {doing}: {why}")]
    Database {
        /// What was to be done.
        doing: &'static str,
        /// What the server or the system said.
        why: Arc<str>,
    },
    /// The database of a shared outbox is away or takes no writes, as it was seen last.
    #[error(
        "looker-feed keeps deliveries in a database, which takes none now. Nothing of this one was kept or sent: send it again when the database is back, which looker-feed finds out by itself. What is wrong, for whoever runs it: {why}"
    )]
    Away {
        /// What the server or the system said.
        why: Arc<str>,
    },
    /// The database of a shared outbox does not replicate what it commits, and that was not allowed.
    #[error(
        "the database of the outbox ({facts}) does not wait for a synchronous standby when it commits, so that what it acknowledges would be lost with its disk: set synchronous_standby_names there, or outbox.allow_unreplicated = true here if its disk is replicated by other means"
    )]
    Unreplicated {
        /// What the server says of itself.
        facts: Arc<str>,
    },
    /// Another daemon sends to the destination, or the time of the lease is over: nothing more may be
    /// sent under it.
    #[error("the lease of the destination is lost; another daemon goes on with it")]
    LeaseLost,
    /// Something is sealed under a key that this daemon does not have. Nothing is damaged.
    #[error(
        "it is sealed under the key {key}, which is not at hand; name that key's file in seal.previous_key_files"
    )]
    MissingKey {
        /// The key that is missing.
        key: KeyId,
    },
    /// [`Scan::stop`](super::Scan::stop) was called.
    #[error("it was stopped before its end")]
    Stopped,
    /// [`Outbox::close`](super::Outbox::close) was called, or its thread has ended.
    #[error("the outbox is closed")]
    Closed,
}

impl Error {
    pub(in crate::outbox) fn io(doing: &'static str) -> impl Fn(io::Error) -> Self {
        move |source| Self::Io {
            doing,
            source: Arc::new(source),
        }
    }
}
