//! Text that must not be seen.

use std::fmt;

use zeroize::Zeroizing;

/// A secret: cannot be printed, logged or serialised by accident, and its memory is overwritten
/// when it is dropped. Copies are made only by an explicit `clone`.
#[derive(Clone)]
pub struct Secret(Zeroizing<String>);

impl Secret {
    /// Takes the text over; the caller's own copies, if any, are the caller's business.
    pub fn new(text: String) -> Self {
        Self(Zeroizing::new(text))
    }

    /// The text. Each use is a place to look at in a review.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(secret)")
    }
}

/// A token, whose it is, and what they may do.
#[derive(Clone, Debug)]
pub struct NamedSecret {
    /// Whose it is.
    pub name: String,
    /// Whether they may change something; if not, they may look.
    pub may_act: bool,
    /// At least 16 visible ASCII characters.
    pub token: Secret,
}
