//! From the outbox to mParticle, for as long as it takes.
//!
//! ```text
//!  outbox --claim--> lane (one a destination) --request--> Transport
//!    ^                |  policy:  what a reply means
//!    |                |  circuit: when to send (wait, probe, pause)
//!    +----settle------+  pace:    how fast
//! ```
//! [`Drain`] runs a lane for each destination that has waiting work. A [`lane::Lane`] decides, and
//! is plain: no I/O, no clock. Its sender has the tasks: it claims ahead just enough, sends
//! requests of one delivery in parallel, and settles what is decided, one durable call at a time,
//! so that settlements gather while the one before is being written.
//!
//! Nothing is settled before its 202, or before the decision to send it to the dead letters. What
//! was in flight when the process died is sent again, byte for byte.

pub mod board;
pub mod circuit;
pub mod entry;
pub mod handed;
pub mod lane;
pub mod latency;
pub mod moment;
pub mod notice;
pub mod pace;
pub mod policy;
mod remembered;
mod sender;
pub mod snapshot;
mod supervisor;
pub mod transport;
mod trouble;

pub use board::Handle;
pub use snapshot::{Record, Replies, SendState, Snapshot};
pub use supervisor::{Drain, Settings};
pub use transport::{Exceeded, Reply, Request, Transport};
