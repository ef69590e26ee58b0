//! Looking for a person in what the daemon holds, and erasing them. Both take as long as it takes to read
//! the outbox, so a call begins one and others ask how far it is. Whom it is about is in no answer, no
//! log and no record of who did what.

use serde::{Deserialize, Serialize};

use crate::clock::UnixMillis;

/// Where a person is looked for; this call changes nothing, though it is a `POST`: whom it is about must not
/// stand in an address.
pub(super) const FIND: &str = "/api/v1/people/find";

/// Whom somebody means: whoever has one of these identities.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Person {
    /// What the identity is, as mParticle calls it (`email`, `customer_id`, `mpid`), and its value.
    pub identities: Vec<(String, String)>,
    /// What the record of who did what calls it, such as the number of a request.
    pub reference: Option<String>,
}

/// Shows nothing of the person.
impl std::fmt::Debug for Person {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Person({} identities)", self.identities.len())
    }
}

/// A search or an erasure.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lookup {
    /// Its name.
    pub id: String,
    /// It erases; if not, it only looks.
    pub erases: bool,
    /// `running`, `waiting` (for requests under way or deliveries that are being received), `done`,
    /// `failed`, `stopped` (an erasure goes on at the next start).
    pub state: String,
    /// What the caller calls it.
    pub reference: Option<String>,
    /// When it began.
    pub started: UnixMillis,
    /// When it ended.
    pub finished: Option<UnixMillis>,
    /// Bytes that have been read.
    pub read_bytes: u64,
    /// Bytes that were there at the start.
    pub total_bytes: u64,
    /// What it found or did, as sentences.
    pub message: String,
    /// Where the person was found, the newest delivery first.
    pub places: Vec<Place>,
}

/// A delivery in which a person was found. Numbers are rows.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    /// Its id.
    pub delivery: String,
    /// The schedule's title. Written by a person: escape it.
    pub title: String,
    /// When it began, as long as it is listed.
    pub received: Option<UnixMillis>,
    /// When the last of it was decided.
    pub finished: Option<UnixMillis>,
    /// Not sent yet.
    pub waiting: u64,
    /// Under way.
    pub in_flight: u64,
    /// Sent, cancelled or discarded, and still in a file.
    pub decided: u64,
    /// In the dead letters.
    pub dead: u64,
    /// Could not be mapped.
    pub rejected: u64,
    /// What is noted for "send only changes": `sent`, `unchanged`, `left` (was told to have left the
    /// audience), or nothing.
    pub noted: Option<String>,
}
