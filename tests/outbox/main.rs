//! The outbox in a directory, through its public face: what is about files, with crashes, failing disks and
//! damage. What every outbox promises is tested in the test program `backends`.

mod attempts;
mod damage;
mod edits;
mod faults;
#[allow(dead_code)] // Other test programs use their own part of this.
mod kit;
mod own;
mod power;
mod reads;
mod sealed;
mod space;
