//! The outbox through its public face: what it promises, with crashes, failing disks and damage.

mod attempts;
mod basics;
mod damage;
mod edits;
mod ending;
mod faults;
mod held;
mod kit;
mod model;
mod power;
mod reads;
mod sealed;
mod space;
