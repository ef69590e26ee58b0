//! When, and whether, Looker is asked again for a delivery that failed. No I/O, no clock, no chance:
//! time and jitter are handed in, and what is decided is a value.
//!
//! ```text
//!            pause has passed, nothing stands in the way
//!   Waiting ─────────────────────────────────────────────▶ Asking   written down before Looker is called
//!      ▲  ▲      Looker was surely not moved (no connection, 401, 429)  │ │
//!      │  └───────────────────────────────────────────────────────────┘ │ a plan of its own, or nobody knows
//!      │     it failed too for a passing reason, or did not come in time ▼
//!      └────────────────────────────────────────────────────────────  Asked ──▶ Done    it is committed
//!
//!   GivenUp      tried often enough, for long enough, or Looker says that it never will
//!   CalledOff    it came by itself, a newer one took its place, or a person said so
//! ```
//!
//! A [`Journal`] is what is remembered of one failed delivery. Since it says [`State::Asking`] before
//! the call, a crash at any point leaves either a delivery that has not been asked for, or one of which
//! it is known that it may have been: it is waited for before it is asked for again.

mod journal;
mod policy;

pub use journal::{Journal, MAX_TRIES_KEPT, State, Try};
pub use policy::{Answer, Decision, Settings};
