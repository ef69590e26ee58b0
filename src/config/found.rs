//! What each key is set to and where that stands, to be shown. Secrets are never in it.

use super::error::Origin;
use super::raw::Raw;

/// A key that was read, and what was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// `section.key`.
    pub key: &'static str,
    /// Its value as text; `None`: not set, or a secret.
    pub value: Option<String>,
    /// It is a secret, and set.
    pub secret: bool,
    /// Where it stands; `None`: not set.
    pub origin: Option<Origin>,
}

impl Found {
    pub(super) fn new(key: &'static str, entry: Option<(&Raw, &Origin)>) -> Self {
        Self {
            key,
            value: entry.map(|(raw, _)| shown(raw)),
            secret: false,
            origin: entry.map(|(_, origin)| origin.clone()),
        }
    }

    /// Forgets the value. An empty list is no secret.
    pub(super) fn hide(&mut self) {
        let value = self.value.take();
        self.secret = value.is_some_and(|value| !value.is_empty());
    }
}

fn shown(raw: &Raw) -> String {
    match raw {
        // A url may hold a password.
        Raw::Text(text) if text.contains('@') => "(not shown: it holds an @)".to_owned(),
        Raw::Text(text) => text.clone(),
        Raw::Whole(number) => number.to_string(),
        Raw::Fraction(number) => number.to_string(),
        Raw::Truth(truth) => truth.to_string(),
        Raw::List(items) => items.join(", "),
        Raw::Other(kind) => (*kind).to_owned(),
    }
}
