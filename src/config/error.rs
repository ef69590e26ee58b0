//! Why a configuration was not accepted, and where each value came from.

use std::fmt;
use std::io;
use std::path::PathBuf;

use crate::causes::with_causes;

/// Where a value was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// The shipped file, at this line.
    Defaults {
        /// Counted from 1.
        line: usize,
    },
    /// The user's file, at this line.
    File {
        /// As it was given.
        path: PathBuf,
        /// Counted from 1.
        line: usize,
    },
    /// An environment variable of this name.
    Variable(String),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Defaults { line } => write!(f, "the shipped defaults, line {line}"),
            Self::File { path, line } => write!(f, "{}, line {line}", path.display()),
            Self::Variable(name) => write!(f, "the environment variable {name}"),
        }
    }
}

/// The configuration cannot be used. Nothing has been opened or started yet; the caller exits 64.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// A file that was named, on the command line or by a key, cannot be read.
    #[error("{what} {} cannot be read", path.display())]
    Read {
        /// Which file it is.
        what: &'static str,
        /// As it was given.
        path: PathBuf,
        /// The key that names it; `None`: the command line.
        key: Option<&'static str>,
        /// What the system says.
        source: io::Error,
    },
    /// The file is not TOML. The parser's own error is not kept as the source: it quotes the line,
    /// and the line may hold a secret.
    #[error("{origin}, is not valid TOML: {reason}")]
    Syntax {
        /// The place.
        origin: Origin,
        /// The parser's words, without the text of the file.
        reason: String,
    },
    /// A key that nothing reads: a spelling mistake, or a key in the wrong section.
    #[error("`{key}` ({origin}) is not a key of this program; {known}")]
    Unknown {
        /// `section.key`, or the variable's name.
        key: String,
        /// The place.
        origin: Origin,
        /// A half sentence that lists what could have been meant.
        known: String,
    },
    /// A value that the key does not take.
    #[error("`{key}` ({origin}) is {found}, but it takes {accepted}")]
    Value {
        /// `section.key`
        key: &'static str,
        /// The place.
        origin: Origin,
        /// The value; hidden if the key is a secret.
        found: String,
        /// What would have been right.
        accepted: String,
    },
    /// Two keys, each right alone, that cannot be used together.
    #[error("`{key}` is {value}, but {rule}")]
    Relation {
        /// `section.key`
        key: &'static str,
        /// Its value.
        value: String,
        /// What must hold, naming the other key and its value.
        rule: String,
    },
    /// `serve` was asked for and there is no hub secret.
    #[error(
        "`intake.secret` is not set, and without it the hub cannot tell Looker from anybody else. \
         Make one with `openssl rand -hex 32` and set it as `secret` in [intake], as `secret_file`, \
         or as LOOKER_FEED_INTAKE__SECRET; then give Looker a key that `looker-feed token` prints"
    )]
    NoSecret,
    /// More than one of these.
    #[error("the configuration has {} mistakes:{}", .0.len(), listed(.0))]
    Several(Vec<ConfigError>),
    /// The shipped file lacks a key: a mistake in this program's build, not of its user.
    #[error("`{key}` has no default in the shipped file")]
    NoDefault {
        /// `section.key`
        key: &'static str,
    },
}

impl ConfigError {
    /// One of them, or all.
    pub(super) fn all(mut errors: Vec<Self>) -> Self {
        match errors.len() {
            1 => errors.swap_remove(0),
            _ => Self::Several(errors),
        }
    }

    /// The key whose value is wrong, if it is that of one.
    pub(super) fn key(&self) -> Option<&'static str> {
        match self {
            Self::Value { key, .. } | Self::Relation { key, .. } => Some(key),
            Self::Read { key, .. } => *key,
            _ => None,
        }
    }
}

/// A line each, with what caused it.
fn listed(errors: &[ConfigError]) -> String {
    let lines = errors
        .iter()
        .map(|error| format!("\n- {}", with_causes(error)));
    lines.collect()
}
