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
//! drops sled, and reopens and checks the directory.
//!
//! **If sled's files are lost**, the state is rebuilt from the segments, and more of what had
//! settled is sent again; dead letters that had been replayed or discarded are dead letters
//! again, notes are gone, settled deliveries are listed no more, segments that are gone count as delivered, and of a
//! cancelled delivery that had work left all that had not settled is cancelled.
//!
//! # On the disk
//!
//! ```text
//! FORMAT                        "looker-feed outbox 2 crc=…": version, CRC32C of the text before it, in hex
//! LOCK                          empty; held while a process has the outbox open
//! erasing                       somebody is being erased: whom, in the caller's own form
//! state/                        sled's directory
//! state.new/ state.old/         while the state is being copied; COMPLETE in it says that a copy is whole
//! state.trial/                  a copy that is opened to see whether the state is sound
//! segments/<delivery>.<n>.seg   requests of a delivery, n from 00000
//!          <delivery>.aborted   the delivery was withdrawn: its last segment, renamed
//!          <delivery>.cancelled what is left of the delivery is not sent; empty
//!          <delivery>.held      the delivery is not sent before somebody releases it; empty
//!          probe                made and removed again to see whether the disk takes a file
//! dead/<n>.dead                 dead letters of any delivery, n from 00000000
//! rejected/<delivery>.rejected  rejected rows of a delivery
//! *.draft                       of any of these: was being written anew, and is removed at the next open
//! damaged/                      what was found to be damaged, kept for a person; never read again, not counted
//! MOVED                         "begun" or "done", the move's name in 32 hex digits, where it goes; a second line "crc=…"
//!                               of it, as in FORMAT: no daemon starts here
//! FORMAT.new MOVED.new          while FORMAT or MOVED is being written
//! ```
//! A delivery is named by 32 hexadecimal digits. **Numbers** are little-endian. A **text** is four
//! bytes of length and the bytes, UTF-8; so are *bytes* of any length. *Optional* is one byte, 0 or 1, and
//! after a 1 the value. A **time** is 8 bytes, milliseconds since 1970. A **tally** is rows 8, batches 8.
//!
//! **A file** in `segments/`, `dead/` or `rejected/` is a header, records and, but for dead letters, a footer:
//!
//! ```text
//! header   magic      8  "LFOUTBOX"
//!          version    2  2
//!          kind       1  1 segment, 2 dead letters, 3 rejected rows
//!          codec      1  1: records are lz4 blocks or plain, as each says, and sealed
//!          number     4  of the segment in its delivery, or of the dead-letter file
//!          first      4  ordinal of the segment's first entry; else 0
//!          key        8  id of the key that the records are sealed under
//!          info     4 +  length and bytes: the delivery's info, see below; empty in dead-letter files
//!          crc        4  CRC32C of all of the above
//!
//! record   marker     4  "LFr2"
//!          length     4  bytes that follow the checksum
//!          crc        4  CRC32C of the length and of those bytes
//!          kind       1  1 entry, 2 dead letter, 3 rejected row
//!          flags      1  bit 0: the body is an lz4 block; the other bits are 0
//!          zero       2
//!          ordinal    4  the entry's place in the delivery, from 0; of a rejected row, in its file
//!          delivery  16
//!          meta       4  length of the meta part
//!          slices     4  number of slices: of an entry or dead letter its batches, of a rejected row 1
//!          raw        4  length of the body before compression: the sum of the slices' lengths
//!          table    8 ×  of each slice: length 4, rows 4
//!          stamp     48  under which key (id 8, salt 32, count 8) the rest is sealed, see `seal`
//!          sealed        meta and body (the slices, one after the other)
//!          tag       16  authenticates the sealed part, and all from the kind on in front of it
//!
//!   meta   entry         route 1
//!          dead letter   delivery 16, destination 16, received time, label text, title text, account bytes,
//!                        replaces 8 (the letter that was replayed, or all ones), route 1; then of each
//!                        slice: number in its entry 4, attempts 4, first try time, last try time, reason text
//!          rejected row  row 8 (its number in the delivery), reason text; the slice is the row's text
//!
//! footer   places   4 +  number of entries, and of each: offset 4, length 4, batches 4, rows 4
//!          commit     1  1 in the last segment of a delivery and in a file of rejected rows, else 0; after a 1:
//!                        position 8, committed time, segments 4, totals (see below)
//!          erased    16  a tally: what was erased of the file, which was written anew; absent: nothing
//!          length     4  of places, commit and erased
//!          data crc   4  CRC32C of everything before the footer
//!          crc        4  CRC32C of places, commit, erased and the two fields before
//!          marker     4  "LFe1": the last bytes of the file
//!
//! info                   delivery 16, destination 16, received time, label text, account bytes (sealed),
//!                        webhook optional 32 (SHA-256 of its id), title text, link optional text
//! totals                 rows in 8, rejected 8, unchanged 8, users 8, batches 8, requests 8,
//!                        notes: number 4, a text each
//! ```
//! Every segment carries the whole header, so that each can be salvaged alone. A segment without a
//! footer belongs to a delivery that was never accepted. **The footer with the commit is the moment
//! of acceptance**: from then on the delivery survives the loss of the state. A record's marker is there for
//! salvage: a reader that has lost its place looks for the next one whose record passes its checksum.
//! Damage to the header or to a neighbour costs a record nothing.
//!
//! **The state** is one sled tree. A key is a letter and numbers of our own counters, big-endian so that they
//! sort, or a hash or an id. A value is a version byte 1, the fields below, and 4 bytes CRC32C of both; it is
//! under 4 KiB. A *position* is a delivery's place in the queue: given out at commit, never twice.
//!
//! | key | value |
//! |---|---|
//! | `m` | next position 8, next letter 8 |
//! | `d` position 8 | a delivery, written once: info without its account, totals, committed time, rejected rows that were kept 4 (older rows end before) |
//! | `c` position 8 | where it went, absent while that is nowhere: tallies delivered, dead, discarded, damaged, cancelled; cancelled optional time, settled whole optional time, tally erased, erased rejected rows 8 (older rows end after damaged, or before what was erased) |
//! | `s` position 8, segment 4 | a segment that has not settled: first ordinal 4, entries 4, tally, file size 8, settled entries 4, settled tally, damaged 1 |
//! | `b` position 8, segment 4, chunk 4 | bytes: which of the chunk's 1,024 entries have settled, one bit each, the lowest first; absent: none |
//! | `a` destination 16 | the newest account: the position it came with 8, label text, account bytes (sealed) |
//! | `n` destination 16, topic 1 | bytes: a note |
//! | `w` SHA-256 of a webhook id 32 | delivery 16, rows 8, committed time |
//! | `r` delivery 16 | a delivery that has begun and is not committed: received time, webhook optional 32, end optional (time, kind 1, rows 8, bytes 8), and sealed bytes: title text, about bytes, message text, journal bytes |
//! | `l` letter 8 | a dead-letter record: position 8, file 4, offset 8, length 4, ordinal 4, bytes with a bit for each slice that is meant, tally, queued optional 8 (its place in the queue, when it was replayed) |
//! | `f` file 4 | a dead-letter file: bytes of it that are durable 8, and a 1 if something in it was damaged |
//! | `g` position 8, ordinal 4 | an entry that was given up as damaged; the value has no bytes at all |
//! | `h` letter 8 | a dead letter that was given up as damaged: its row as it was |

pub(in crate::outbox) mod accounts;
pub(in crate::outbox) mod arriving;
pub(in crate::outbox) mod claim;
pub(in crate::outbox) mod ending;
pub(in crate::outbox) mod erase;
pub(in crate::outbox) mod files;
pub(in crate::outbox) mod handle;
pub(in crate::outbox) mod lease;
pub(in crate::outbox) mod leaving;
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
use crate::outbox::local::files::layout::{Layout, Lock};
use crate::outbox::local::files::moved::check_not_moved;
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
pub(in crate::outbox) fn open(settings: Settings, disk: Disk) -> Result<Local, OpenError> {
    settings.check()?;
    let layout = Layout::new(&settings.path);
    let lock = layout.enter(&disk)?;
    check_not_moved(&disk, &layout)?;
    start(settings, layout, disk, lock)
}

/// Opens a directory that is there to move what is in it elsewhere, which may have begun before.
pub(in crate::outbox) fn open_to_move(settings: Settings, disk: Disk) -> Result<Local, OpenError> {
    let layout = Layout::new(&settings.path);
    drop(layout.enter_to_read(&disk)?);
    let lock = layout.enter(&disk)?;
    start(settings, layout, disk, lock)
}

fn start(settings: Settings, layout: Layout, disk: Disk, lock: Lock) -> Result<Local, OpenError> {
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
