//! Bytes on the disk: how files are named, made, written and read. Nothing here knows of the state.
//!
//! `disk` is the way to the system; `layout` names the files and holds the lock; `format` is what
//! stands at the beginning and the end of a file, [`record`](crate::outbox::record) what is
//! between; `segment`, `dead` and `rejected` are the three kinds of files.

pub(in crate::outbox) mod capacity;
pub(in crate::outbox) mod dead;
pub(in crate::outbox) mod disk;
pub(in crate::outbox) mod format;
pub(in crate::outbox) mod keys;
pub(in crate::outbox) mod layout;
pub(in crate::outbox) mod moved;
pub(in crate::outbox) mod probe;
pub(in crate::outbox) mod read;
pub(in crate::outbox) mod rejected;
pub(in crate::outbox) mod segment;
