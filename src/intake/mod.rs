//! (room: intake)
mod action;
mod address;
mod download;
mod receiver;
mod token;
pub use receiver::{Order, Receipt, Receiver, Refusal, Source, WebhookState};
pub use token::new_key;
