//! A local stand-in for Looker: result documents of any size, one-time download urls, and the call
//! that Looker makes to an action hub. Used by `looker-feed demo`, tests and benches.
//!
//! What it imitates is what Looker's public Action Hub and captured streams show: a
//! `json_detail_lite_stream` document with 10-25 KB of metadata before `data`, a download url that
//! can be fetched once, the `execute` request with its four ways to hand rows over, and the scheduling
//! dialog with the action's form. It shares the HTTP server below with the other stand-in (`sandbox::serve`).

mod audit;
mod dialog;
mod execute;
mod row;
mod server;
mod shape;

pub use audit::{Mismatch, audit};
pub use dialog::{Dialog, DialogError, FormField, Person};
pub use execute::{Answer, Execute, ExecuteError, PushStyle, Source, execute};
pub use row::{ExpectedEvent, ExpectedProfile, ExpectedRow};
pub use server::{Failure, Looker, Publisher};
pub use shape::{Column, RowOrder, Shape, document};
