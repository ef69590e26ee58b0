//! What is remembered of a delivery that is asked for again.

use serde::{Deserialize, Serialize};

use crate::clock::UnixMillis;

/// Tries that are kept with their numbers, the newest; more are counted only.
pub const MAX_TRIES_KEPT: usize = 4;
/// Bytes of a reason.
const MOST: usize = 130;

/// What is remembered of one failed delivery. Written as JSON of at most some 700 bytes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Journal {
    /// Where it stands.
    pub state: State,
    /// When it failed first, or when a person asked: tries are counted from here.
    pub since: UnixMillis,
    /// Waiting: when it is asked for. Asked: until when it is waited for.
    pub next: UnixMillis,
    /// How often Looker was asked in all.
    pub count: u32,
    /// How often it had been asked when a person asked last: those before do not count as tries.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub before: u32,
    /// The last of these tries, the newest last.
    pub tries: Vec<Try>,
    /// Why it stands there, as a sentence; empty while nothing has gone wrong.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub why: String,
}

/// Where it stands; see the room's page.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// It is asked for when its pause has passed.
    Waiting,
    /// Looker is being called.
    Asking,
    /// Looker was called, and it has not come yet, or is being received.
    Asked,
    /// It came, and is committed.
    Done,
    /// It is not asked for any more, and a person is needed.
    GivenUp,
    /// It need not be asked for any more.
    CalledOff,
}

/// One call.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Try {
    /// When.
    pub at: UnixMillis,
    /// The run-once plan that Looker made of it; `None`: it is not known whether it made one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub plan: Option<String>,
    /// The delivery that came of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delivery: Option<String>,
    /// Whether that was committed, once it has ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub committed: Option<bool>,
}

fn is_zero(number: &u32) -> bool {
    *number == 0
}

impl State {
    /// Whether something is still to come.
    pub fn is_open(self) -> bool {
        matches!(self, Self::Waiting | Self::Asking | Self::Asked)
    }

    /// What is said of a failed delivery when it comes to stand so.
    pub fn told(self) -> &'static str {
        match self {
            Self::Waiting => "will be asked for again",
            Self::Asking => "is being asked for again",
            Self::Asked => "was asked for again",
            Self::Done => "has come in after all",
            Self::GivenUp => "is given up",
            Self::CalledOff => "is not asked for any more",
        }
    }

    /// Its name in the API.
    pub fn name(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Asking => "asking",
            Self::Asked => "asked",
            Self::Done => "done",
            Self::GivenUp => "given_up",
            Self::CalledOff => "called_off",
        }
    }
}

impl Journal {
    /// What was written; `None`: nothing was, or it cannot be read.
    pub fn read(bytes: &[u8]) -> Option<Self> {
        serde_json::from_slice(bytes).ok()
    }

    /// As it is written.
    pub fn write(&self) -> Vec<u8> {
        serde_json::to_vec(self).unwrap_or_default()
    }

    /// The try that is under way.
    pub fn last(&self) -> Option<&Try> {
        self.tries.last()
    }

    /// Whether the run-once plan `plan` was made of it.
    pub fn has_plan(&self, plan: &str) -> bool {
        self.tries
            .iter()
            .any(|one| one.plan.as_deref() == Some(plan))
    }

    /// Whether Looker was called and nobody knows what came of it.
    pub fn is_unknown(&self) -> bool {
        let unknown = |one: &Try| one.plan.is_none() && one.delivery.is_none();
        matches!(self.state, State::Asking | State::Asked) && self.last().is_some_and(unknown)
    }

    /// Cut, and without what JSON would write in two characters.
    pub(super) fn say(&mut self, why: &str) {
        self.why.clear();
        let plain = |letter: &char| !letter.is_control() && !matches!(letter, '"' | '\\');
        for letter in why.chars().filter(plain) {
            if self.why.len() + letter.len_utf8() > MOST {
                break;
            }
            self.why.push(letter);
        }
    }

    pub(super) fn push(&mut self, one: Try) {
        self.count += 1;
        self.tries.push(one);
        let excess = self.tries.len().saturating_sub(MAX_TRIES_KEPT);
        self.tries.drain(..excess);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_journal_comes_back_and_is_never_long() {
        let mut journal = Journal {
            state: State::Waiting,
            since: UnixMillis(u64::MAX),
            next: UnixMillis(u64::MAX),
            count: 0,
            before: 99_999,
            tries: Vec::new(),
            why: String::new(),
        };
        for _ in 0..10 {
            journal.push(Try {
                at: UnixMillis(9_999_999_999_999),
                plan: Some("1234567890123456".to_owned()),
                delivery: Some("0198f0c0000000000000000000000001".to_owned()),
                committed: Some(false),
            });
        }
        journal.say(&"why \u{7}\"é".repeat(100));
        assert_eq!((journal.count, journal.tries.len()), (10, MAX_TRIES_KEPT));
        let bytes = journal.write();
        assert!(bytes.len() <= 700, "{}", bytes.len());
        assert_eq!(Journal::read(&bytes), Some(journal));
        assert_eq!(Journal::read(b""), None);
        assert_eq!(Journal::read(b"{\"state\":\"dancing\"}"), None);
    }
}
