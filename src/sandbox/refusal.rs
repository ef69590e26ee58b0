//! What is wrong with a batch, in the words of a reply.

use std::fmt::{self, Write as _};

/// Where a batch breaks the contract, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Refusal {
    /// From the inside out: the walk adds its steps as it returns.
    path: Vec<Step>,
    what: String,
}

/// One step of the way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Step {
    Name(String),
    Index(usize),
}

impl Refusal {
    /// Of the value at hand.
    pub(super) fn new(what: impl Into<String>) -> Self {
        Self {
            path: Vec::new(),
            what: what.into(),
        }
    }

    /// The same, seen from one step further out.
    pub(super) fn inside(&mut self, step: Step) {
        self.path.push(step);
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (nth, step) in self.path.iter().rev().enumerate() {
            match step {
                Step::Name(name) if nth == 0 => f.write_str(name)?,
                Step::Name(name) => write!(f, ".{name}")?,
                Step::Index(index) => write!(f, "[{index}]")?,
            }
        }
        if !self.path.is_empty() {
            f.write_char(' ')?;
        }
        f.write_str(&self.what)
    }
}
