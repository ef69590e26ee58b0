//! What the admin side shows of how Looker is asked again: the JSON, as in [`view`](super::view).

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::clock::UnixMillis;

/// What is done about a delivery that failed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AskedAgain {
    /// `waiting`, `asking`, `asked` (Looker runs it, or it is coming in), `done` (it came),
    /// `given_up`, `called_off` (it need not come any more).
    pub state: String,
    /// When Looker is asked next.
    pub next: Option<UnixMillis>,
    /// How often it was asked.
    pub count: u32,
    /// How often it is asked at most.
    pub most: u32,
    /// Why it stands there, as a sentence.
    pub why: Option<String>,
    /// The last tries, the newest last.
    pub tries: Vec<AskedOnce>,
}

/// One call of Looker.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AskedOnce {
    /// When.
    pub at: UnixMillis,
    /// The id of the run-once plan that Looker made.
    pub plan: Option<String>,
    /// The delivery that came of it.
    pub delivery: Option<String>,
    /// Whether that was committed, once it has ended.
    pub committed: Option<bool>,
}

/// A delivery came in because it was asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RepeatOf {
    /// The failed delivery.
    pub delivery: String,
    /// Which try it is, from 1.
    pub number: u32,
}

/// A Looker that can be asked again.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LookerApi {
    /// Host and port.
    pub host: String,
    /// Its name in the configuration; empty for the first.
    pub name: String,
    /// Why it could not be asked the last time.
    pub trouble: Option<String>,
    /// It refuses the API key: that does not pass by itself.
    #[serde(default)]
    pub refused: bool,
    /// When it is tried again.
    pub next_try: Option<UnixMillis>,
    /// When it answered last.
    pub answered: Option<UnixMillis>,
    /// When missed deliveries were looked for last.
    pub looked: Option<UnixMillis>,
    /// Why they are not.
    pub blind: Option<String>,
}

/// What came of asking again, since the daemon was started, and what is open now.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AskAgain {
    /// Calls of Looker.
    pub asked: u64,
    /// Failed deliveries that came in all the same.
    pub done: u64,
    /// Failed deliveries that were given up.
    pub given_up: u64,
    /// Failed deliveries that need not come any more.
    pub called_off: u64,
    /// Failed deliveries by their open state: `waiting`, `asking`, `asked`.
    pub open: BTreeMap<String, u64>,
    /// The Lookers that can be asked.
    pub lookers: Vec<LookerApi>,
}
