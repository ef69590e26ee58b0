//! Asks Looker again for deliveries that failed: what the rules of [`again`](crate::again) say, carried
//! out between the outbox, which keeps the journals, and Looker's API.
//!
//! ```text
//! receiver ──▶ begins · arrived · committed · failed ──▶ ledger (what is open, in memory)
//!                                                            │  woken
//! operator ──▶ ask now · do not ask ─────────────────────────┤
//!                                                            ▼
//!                      one task a Looker: writes journals, asks, and looks for what was missed
//! ```
//!
//! What must not be lost in a crash is durable before it has an effect: that Looker is being asked
//! before it is, and which delivery came of it before that can be committed. The rest is written soon
//! after, and worked out anew at a start from what the outbox lists.

mod ask;
mod elsewhere;
mod entry;
mod instance;
mod missed;
mod run;
mod steer;

pub(super) use ask::{AskAgain, Settings};
pub(super) use instance::Instance;
