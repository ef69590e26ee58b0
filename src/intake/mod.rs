//! The Action Hub that Looker is pointed at.
//!
//! ```text
//! server    the port, and the end of all that is under way
//!   routes    paths, the hub key, one task for each execute request  throttle  failed keys
//!     action    what the hub says about itself       form  what its owner fills in for a schedule
//!     execute   one delivery: checks, then url, push or spool, then the receiver
//!       parts     the request's body, part by part       request   what the request asks for
//!                                                        choices   what was filled in, changes of it
//!                                                        caller    which schedule it comes from
//!       download  the one-time url                       spool     a push that came too early
//!     reply     newlines until the outcome is known, then the outcome
//! ```
//!
//! What lies behind it is one trait, [`Receiver`]: intake knows when a delivery may be taken and
//! where its bytes come from, and nothing of what becomes of them.

mod action;
mod address;
mod caller;
mod changes;
mod choices;
mod download;
mod error;
mod execute;
mod form;
mod live;
mod parts;
mod quote;
mod receiver;
mod reply;
mod request;
mod routes;
mod server;
mod spool;
mod throttle;
mod token;

use std::sync::Arc;
use std::time::Duration;

pub use live::Handle;
pub use receiver::{
    Accepted, Caller, Choices, DeliveryRequest, NotReserved, OnlyChanges, Receiver, Refusal, Source,
};
pub use server::Intake;
pub use spool::was_not_read_back;
pub use token::new_key;

use crate::config::{ActionSettings, IntakeSettings, LookerSettings, Secret};
use crate::model::FailureKind;
use crate::seal::Space;
use crate::tls::Identity;

/// What the optional fields of a form mean, given as Looker would send it.
///
/// # Errors
/// What the hub would answer to a field that holds what the form does not offer.
pub fn choices(form: &serde_json::Value) -> Result<Choices, Refusal> {
    choices::choices(form).map_err(|error| Refusal {
        kind: FailureKind::Request,
        message: error.to_string(),
    })
}

/// What the hub needs to be told.
#[derive(Clone, Debug)]
pub struct Settings {
    /// `[intake]`; of its secrets only the previous ones are looked at.
    pub intake: IntakeSettings,
    /// `[action]`
    pub action: ActionSettings,
    /// `[looker]`
    pub looker: LookerSettings,
    /// What hub keys are checked with; not empty.
    pub secret: Secret,
    /// Whom downloads trust.
    pub trust: rustls::ClientConfig,
    /// With what TLS is served; `None`: plain HTTP.
    pub identity: Option<Arc<Identity>>,
    /// Where pushed documents wait that come before their settings; must be there. A delivery's
    /// size is its need. Meant to be the outbox directory.
    pub spool: Space,
    /// How long deliveries may go on after the shutdown has begun.
    pub deadline: Duration,
    /// Connections at once, those of deliveries that are being received included.
    pub connections: usize,
    /// A client that reads nothing of its answer for so long is cut off.
    pub write_timeout: Duration,
}
