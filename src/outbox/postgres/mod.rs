//! The shared outbox: many daemons, one PostgreSQL. What is promised is what the outbox on the disk
//! promises; what differs is how.
//!
//! **Blocks, not rows of requests.** The sealed records of the outbox lie in blocks of 256 KiB, written
//! once ([`blocks`]). What changes while a delivery is sent is one small row of it, its progress
//! ([`held`], [`marks`]). Every change is one statement, proved by the rows that it returns
//! ([`session`] says why).
//!
//! **A delivery becomes visible** by one statement ([`staging`]): it takes the next position under the
//! row of its destination, so that positions are in the order of commits, and goes through only if
//! the delivery is still on its way in, ours, and all of its blocks are there. If the answer is lost,
//! the delivery is aborted by another statement; whichever of the two comes first decides, and Looker
//! hears which it was.
//!
//! **One daemon sends to a destination at a time**: it holds a lease of it ([`lease`]), by the server's
//! clock, and counts its own time from before it asked. The *fence* is the daemon's random id and the
//! lease's epoch, and stands in every row of progress: a new owner writes its own there as it reads
//! the row, and from then on the old one changes nothing, whatever it believes ([`change`]). So what
//! an owner has read stays true until it changes it, and it keeps it in memory.
//!
//! **What a person asks** (cancel, replay, discard, edit) is carried out by the owner, who knows what
//! flies: at once if that is this daemon, or if nobody holds the destination; otherwise it is
//! written down as a request, which the owner sees within a second ([`requests`]).
//!
//! **Deliveries that are being received or failed** are rows too ([`attempts`]): one without an end
//! whose daemon is silent is ended by any other.
//!
//! **Nothing here needs what not every server of this protocol has**: no advisory locks, no LISTEN, no
//! SKIP LOCKED. Every statement may be refused for the sake of another (40001, 40P01) and is tried
//! again. The daemons look for work twice a second, or once while there is none.
//!
//! Calls block: a caller on tokio uses `spawn_blocking`.

mod action;
mod attempts;
mod blob;
mod blocks;
mod cancel;
mod change;
mod claim;
mod columns;
mod commit;
pub(in crate::outbox) mod copying;
mod daemon;
mod damage;
mod erasing;
mod erasure;
mod facts;
mod granted;
mod handle;
mod held;
mod image;
mod keeper;
mod lease;
mod letters;
mod lock;
mod marks;
mod new_letter;
mod notes;
mod open;
mod pending;
mod queue;
mod read;
mod rejects;
mod requests;
mod rewriting;
mod schema;
mod server;
mod session;
mod settings;
mod settle;
mod snapshots;
mod staging;
mod status;
mod sweep;
pub(in crate::outbox) mod take_in;
pub(in crate::outbox) mod take_out;
mod taken;

pub(in crate::outbox) use attempts::Reservation;
pub use blob::{BlobReader, BlobWriter};
pub use daemon::MOVER;
pub use facts::{Replication, ServerFacts};
pub(in crate::outbox) use granted::Lease;
pub(in crate::outbox) use handle::SharedOutbox;
pub use open::{OpenError, Probed, probe};
pub use schema::{SchemaError, schema};
pub use server::{Server, ServerError};
pub use settings::Settings;
pub use snapshots::{Entered, Inside, Published, SnapshotEntry, SnapshotName, Snapshots};
pub(in crate::outbox) use staging::Staging;
pub use status::Daemon;
