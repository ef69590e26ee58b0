//! What `looker-feed outbox` answers on standard output.

use std::io::{self, Write};

use serde_json::Value;

use crate::cli::{Failure, written};

/// Writes an answer. A pipe that is closed is no failure of ours.
pub(super) fn say(text: &str) -> Result<(), Failure> {
    written(io::stdout().lock().write_all(text.as_bytes()))
}

pub(super) fn json_text(value: &Value) -> String {
    format!("{value:#}\n")
}

pub(super) fn counted(count: u64, what: &str) -> String {
    match (count, what) {
        (1, _) => format!("1 {what}"),
        (_, "delivery") => format!("{count} deliveries"),
        (_, what) if what.ends_with("ch") => format!("{count} {what}es"),
        _ => format!("{count} {what}s"),
    }
}
