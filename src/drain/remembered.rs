//! What the drain finds again after a restart: notes in the outbox, which does not read them.

use super::snapshot::SendState;
use crate::clock::UnixMillis;
use crate::model::DestinationId;
use crate::outbox::{Error, Outbox};

/// Topic of the note that an operator has paused a destination.
const PAUSED: u8 = 1;
const VERSION: u8 = 1;
/// Bytes of a label that are kept: more than any label has.
const MAX_LABEL: usize = 512;

/// An operator has paused a destination.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Paused {
    pub since: UnixMillis,
    /// What people call the destination: it may have no work that would say so.
    pub label: String,
}

impl Paused {
    /// Every one that is written down. One that cannot be read counts all the same: nobody has
    /// resumed it.
    ///
    /// # Errors
    /// The outbox does not answer: then nobody knows what is paused, and nothing may be sent.
    pub fn all(outbox: &Outbox, now: UnixMillis) -> Result<Vec<(DestinationId, Self)>, Error> {
        let notes = outbox.notes()?.into_iter();
        let paused = notes.filter(|((_, topic), _)| *topic == PAUSED);
        let read = paused.map(|((destination, _), text)| {
            let read = Self::decode(&text).unwrap_or_else(|| {
                tracing::warn!(
                    %destination,
                    "what is written of an operator's pause cannot be read; it stays paused until it is resumed",
                );
                Self {
                    since: now,
                    label: String::new(),
                }
            });
            (destination, read)
        });
        Ok(read.collect())
    }

    /// The same of one destination; `None`: it is not paused.
    pub fn of(
        outbox: &Outbox,
        destination: DestinationId,
        now: UnixMillis,
    ) -> Result<Option<Self>, Error> {
        let mut all = Self::all(outbox, now)?.into_iter();
        let found = all.find(|(id, _)| *id == destination);
        Ok(found.map(|(_, paused)| paused))
    }

    /// Writes down that a destination is paused; nothing if `standing` says that it is not.
    pub fn write(
        outbox: &Outbox,
        destination: DestinationId,
        label: &str,
        standing: &SendState,
    ) -> Result<(), Error> {
        let SendState::Paused {
            since,
            probe_at: None,
            ..
        } = standing
        else {
            return Ok(());
        };
        let paused = Self {
            since: *since,
            label: label.to_owned(),
        };
        outbox.note((destination, PAUSED), Some(&paused.encode()))
    }

    /// Forgets it.
    pub fn erase(outbox: &Outbox, destination: DestinationId) -> Result<(), Error> {
        outbox.note((destination, PAUSED), None)
    }

    fn encode(&self) -> Vec<u8> {
        let mut out = vec![VERSION];
        out.extend_from_slice(&self.since.0.to_be_bytes());
        let end = self.label.floor_char_boundary(MAX_LABEL);
        out.extend_from_slice(self.label.get(..end).unwrap_or_default().as_bytes());
        out
    }

    fn decode(text: &[u8]) -> Option<Self> {
        let (version, rest) = text.split_first()?;
        let (since, label) = rest.split_first_chunk()?;
        (*version == VERSION).then_some(())?;
        Some(Self {
            since: UnixMillis(u64::from_be_bytes(*since)),
            label: String::from_utf8(label.to_vec()).ok()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pause_comes_back_and_what_is_no_pause_does_not() {
        let paused = Paused {
            since: UnixMillis(1_700_000_000_000),
            label: "us1 …-key".to_owned(),
        };
        let text = paused.encode();
        assert_eq!(Paused::decode(&text), Some(paused.clone()));
        for wrong in [
            &b""[..],
            &text[..8],
            &[&[VERSION + 1], &text[1..]].concat(),
            &[&text[..], &[0xff]].concat(),
        ] {
            assert_eq!(Paused::decode(wrong), None, "{wrong:?}");
        }
        let long = Paused {
            label: "ä".repeat(MAX_LABEL),
            ..paused
        };
        let text = long.encode();
        assert!(text.len() <= crate::outbox::MAX_NOTE);
        assert!(Paused::decode(&text).is_some_and(|read| long.label.starts_with(&read.label)));
    }
}
