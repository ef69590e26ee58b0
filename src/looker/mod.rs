//! A local stand-in for Looker: result documents of any size, one-time download urls, and the call
//! that Looker makes to an action hub. Used by `looker-feed demo`, tests and benches.
//!
//! What it imitates is what Looker's public Action Hub and captured streams show: a
//! `json_detail_lite_stream` document with 10-25 KB of metadata before `data`, a download url that
//! can be fetched once, the `execute` request with its four ways to hand rows over, and the scheduling
//! dialog with the action's form, and of API 4.0 what a delivery can be asked for again with, with the schedules
//! behind it. It shares the HTTP server below with the other stand-in (`sandbox::serve`).

mod api;
mod audit;
mod dialog;
mod execute;
mod publish;
mod row;
mod schedules;
mod server;
mod shape;

pub use api::{Api, ApiFault, User};
pub use audit::{Mismatch, audit};
pub use dialog::{Dialog, DialogError, FormField, Person};
pub use execute::{Answer, Execute, ExecuteError, Plan, PushStyle, Source, execute};
pub use publish::{Failure, Publisher};
pub use row::{ExpectedEvent, ExpectedProfile, ExpectedRow};
pub use schedules::{Job, Schedule, Schedules};
pub use server::Looker;
pub use shape::{Column, RowOrder, Shape, document};
