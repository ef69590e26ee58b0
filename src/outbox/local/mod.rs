//! The embedded backend: an outbox in a directory of one process.
//!
//! Bodies lie in append-only segment files ([`files`]); what is small and changes together lies in
//! sled ([`state`]). Payloads, rejected rows and dead letters with their reasons are sealed under
//! [`Settings::keys`]; titles, labels, times, sizes and counts are not. One thread of its own, the
//! owner ([`owner`]), holds sled and groups what is waiting into one sync.
//!
//! ```text
//! handle   claim, letters, staging, status …   what a caller asks for: looks into the index, reads files,
//!                                              or sends a command
//! owner    one thread                          changes the state, durably, and then the index
//! recovery an open, and a reopen after a failure
//! offline  an outbox that nobody has open
//! state    rows, sled, the index, changes of it
//! files    names, headers, records, footers
//! ```
//! Each layer uses those below it, and not those above.
//!
//! **Commit**, in this order: segments written and fsynced; their directory fsynced; the last
//! segment's footer, which carries the commit, written and fsynced; sled's batch; flush; fdatasync
//! of sled's file; the answer. A crash before the footer: the delivery was never there. After it:
//! the delivery is adopted at the next open. `commit` returns an error only after the footer has
//! been withdrawn.
//!
//! **After a failed sync** the outbox refuses writes and says so ([`Health`](super::status::Health)),
//! drops sled, and opens and checks the directory anew.
//!
//! **If sled's files are lost**, the state is built anew from the segments, and more of what had
//! settled is sent again; dead letters that had been replayed or discarded are dead letters
//! again, notes are gone, settled deliveries are listed no more, segments that are gone count as delivered, and of a
//! cancelled delivery that had work left all that had not settled is cancelled.

pub(in crate::outbox) mod accounts;
pub(in crate::outbox) mod claim;
pub(in crate::outbox) mod ending;
pub(in crate::outbox) mod files;
pub(in crate::outbox) mod handle;
pub(in crate::outbox) mod lease;
pub(in crate::outbox) mod letters;
pub(in crate::outbox) mod offline;
pub(in crate::outbox) mod owner;
mod recovery;
pub(in crate::outbox) mod reservation;
mod shared;
pub(in crate::outbox) mod staging;
pub(in crate::outbox) mod state;
pub(in crate::outbox) mod status;
mod unreadable;
pub(in crate::outbox) mod verify;
mod writing;

use std::sync::Arc;
use std::sync::mpsc::sync_channel;

use crate::outbox::error::OpenError;
use crate::outbox::local::files::dead::DeadWriter;
use crate::outbox::local::files::disk::Disk;
use crate::outbox::local::files::keys::check_keys;
use crate::outbox::local::files::layout::Layout;
use crate::outbox::local::handle::Local;
use crate::outbox::local::owner::Owner;
use crate::outbox::local::owner::keeper::Keeper;
use crate::outbox::local::recovery::recover;
use crate::outbox::local::shared::Shared;
use crate::outbox::settings::Settings;

/// Commands that may wait for the owner; a caller beyond waits itself. Twice a group, so that the
/// next one gathers while the last is being synced.
const COMMANDS: usize = 512;

/// Opens the directory, makes it if it is not there, and mends what a crash has left.
///
/// # Errors
/// See [`Outbox::open`](crate::outbox::Outbox::open).
pub(in crate::outbox) fn open(settings: Settings, disk: Disk) -> Result<Local, OpenError> {
    settings.check()?;
    let layout = Layout::new(&settings.path);
    let lock = layout.enter(&disk)?;
    check_keys(&disk, &settings.path, &layout, &settings.keys)?;
    let size = layout
        .files_size(&disk)
        .map_err(|error| error.at(&settings.path))?;
    let recovered = recover(&settings, &layout, &disk, &Default::default())?;
    let dead = DeadWriter::new(&disk, &layout, recovered.next_dead_file, &settings);
    let path = settings.path.clone();
    let shared = Arc::new(Shared::new(settings, layout, disk, recovered.index));
    shared.capacity.set_files(size);
    shared.capacity.set_state(recovered.store.size());
    for damage in recovered.damage {
        shared.note_damage(damage);
    }
    shared.count_set_aside();
    let (commands, receiver) = sync_channel(COMMANDS);
    let keeper = Keeper::new(Arc::clone(&shared), recovered.store, dead, lock);
    let owner = Owner::new(receiver, keeper);
    let thread = std::thread::Builder::new()
        .name("outbox".to_owned())
        .spawn(move || owner.run())
        .map_err(|source| OpenError::Io {
            path,
            doing: "its thread could not be started",
            source,
        })?;
    Ok(Local::new(shared, commands, thread))
}
