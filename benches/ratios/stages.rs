//! The stages that are measured, each beside what it is compared to.

use crate::kit::Verdict;

#[path = "decode_map.rs"]
pub mod decode_map;
#[path = "drain.rs"]
mod drain;
#[path = "grouping.rs"]
mod grouping;
#[path = "outbox.rs"]
mod outbox;
#[path = "sealing.rs"]
mod sealing;

/// A stage's title, and what measures it.
type Stage = (&'static str, fn() -> Vec<Verdict>);

/// All of them, in the order of the pipeline.
pub const ALL: [Stage; 5] = [
    ("Decode and map", decode_map::ratios),
    ("Grouping", grouping::ratios),
    ("Outbox", outbox::ratios),
    ("Sealing", sealing::ratios),
    ("Drain", drain::ratios),
];
