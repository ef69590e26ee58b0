//! What stands under a key, before the key has said what it takes.

use super::error::Origin;

/// A value before its key has said what it takes.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Raw {
    /// A TOML string, or the value of a variable.
    Text(String),
    /// A TOML integer that fits.
    Whole(i64),
    /// A TOML number with a fraction, or infinity, or none.
    Fraction(f64),
    /// A TOML boolean.
    Truth(bool),
    /// A TOML array of strings.
    List(Vec<String>),
    /// Anything else; no key takes it. Described, not quoted.
    Other(&'static str),
}

/// A raw value and its place.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) raw: Raw,
    pub(super) origin: Origin,
}
