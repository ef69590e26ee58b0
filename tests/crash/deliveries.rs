//! What is sent in, and what is heard about it.

use std::collections::HashSet;

use looker_feed::looker::{Execute, PushStyle, RowOrder, Shape, Source, document};
use looker_feed::model::DataType;
use serde_json::{Value, json};

use super::support::PATIENCE;

/// Accounts: two destinations, so that one waits while the other is sent to.
pub const KEYS: [&str; 2] = ["key-of-account-one", "key-of-account-two"];

/// One execution of a schedule, under one webhook id. It may be sent in several times.
pub struct Execution {
    pub content: Content,
    pub key: &'static str,
    pub webhook: String,
    pub heard: Vec<Heard>,
}

/// How one attempt ended, as Looker sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Heard {
    /// Answered success: every row must arrive.
    Success,
    /// Answered failure: no row may arrive.
    Failure(String),
    /// No answer: all of it arrives or nothing.
    Nothing,
}

#[derive(Clone)]
pub enum Content {
    Events(Shape),
    Profiles(Profiles),
}

/// User profiles that all carry the delivery's version. The same users occur in every delivery, so
/// that an older version that arrives after a newer one shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Profiles {
    pub version: u64,
    pub users: u64,
    pub rows: u64,
}

impl Execution {
    pub fn succeeded(&self) -> bool {
        self.heard.contains(&Heard::Success)
    }

    /// Whether it can be on its way although nobody was told.
    pub fn in_doubt(&self) -> bool {
        self.heard.contains(&Heard::Nothing)
    }

    pub fn request(&self, source: Source) -> Execute {
        let mut execute = Execute::new(source, self.key, "secret-of-it");
        execute.data_type = match self.content {
            Content::Events(_) => DataType::Event,
            Content::Profiles(_) => DataType::User,
        };
        execute.webhook_id.clone_from(&self.webhook);
        execute.timeout = PATIENCE;
        execute
    }
}

impl Content {
    pub fn events(rng: &mut fastrand::Rng, marks: &mut HashSet<String>) -> Self {
        loop {
            let rows = rng.u64(2_000..=5_000);
            let shape = Shape {
                rows,
                users: rows / rng.u64(3..=8),
                seed: rng.u64(..),
                data_type: DataType::Event,
                order: *rng
                    .choice(&[RowOrder::Interleaved, RowOrder::Sorted])
                    .unwrap_or(&RowOrder::Sorted),
                pretty: rng.bool(),
            };
            // The ledger's batches are told apart by it.
            if marks.insert(mark(&shape.row(0).customer_id)) {
                return Self::Events(shape);
            }
        }
    }

    pub fn document(&self) -> Vec<u8> {
        match self {
            Self::Events(shape) => document(shape).flatten().collect(),
            Self::Profiles(profiles) => profiles.document().to_string().into_bytes(),
        }
    }

    pub fn pushed(&self, rng: &mut fastrand::Rng) -> Source {
        let styles = [
            PushStyle::EscapedString,
            PushStyle::InlineJson,
            PushStyle::Base64,
        ];
        let style = styles[rng.usize(..styles.len())];
        let chunks: Vec<_> = self
            .document()
            .chunks(16 << 10)
            .map(hyper::body::Bytes::copy_from_slice)
            .collect();
        Source::Push(style, Box::new(chunks.into_iter()))
    }
}

/// The part of a generated customer id that is the same in the whole delivery and in no other.
pub fn mark(customer_id: &str) -> String {
    let mark = customer_id.split_once('-').map(|(mark, _)| mark);
    mark.unwrap_or_default().to_owned()
}

impl Profiles {
    fn document(&self) -> Value {
        let rows = (0..self.rows).map(|row| {
            json!({
                "p.id": {"value": Self::user(row % self.users)},
                "p.version": {"value": self.version},
                "p.row": {"value": row},
                "p.filler": {"value": "a text as long as many in a user's profile are"},
            })
        });
        json!({
            "fields": {"dimensions": [
                {"name": "p.id", "tags": ["mp_customer_id"]},
                {"name": "p.version", "tags": ["mp_user_attribute"]},
                {"name": "p.row", "tags": ["mp_user_attribute"]},
                {"name": "p.filler", "tags": ["mp_user_attribute"]},
            ]},
            "data": rows.collect::<Vec<_>>(),
        })
    }

    fn user(number: u64) -> String {
        format!("profile-{number}")
    }

    /// Version, user and row of a batch, if it is one of a profile delivery.
    pub fn read(batch: &Value) -> Option<(u64, u64, u64)> {
        let attributes = &batch["user_attributes"];
        let user = batch["user_identities"]["customer_id"].as_str()?;
        Some((
            attributes["looker_p.version"].as_u64()?,
            user.strip_prefix("profile-")?.parse().ok()?,
            attributes["looker_p.row"].as_u64()?,
        ))
    }

    /// Checks that every user arrived once, with the values of their last row.
    pub fn audit(&self, batches: &[Value]) -> Result<(), String> {
        let mut seen = HashSet::new();
        for batch in batches {
            let (version, user, row) = Self::read(batch).ok_or_else(|| format!("{batch}"))?;
            let last = user + (self.rows - 1 - user) / self.users * self.users;
            if version != self.version || user >= self.users || row != last {
                return Err(format!("{self:?} does not have {batch}"));
            }
            if !seen.insert(user) {
                return Err(format!("user {user} of {self:?} arrived twice"));
            }
        }
        if seen.len() as u64 != self.users {
            return Err(format!("{} users of {self:?} arrived", seen.len()));
        }
        Ok(())
    }
}
