//! A delivery that has begun and is not committed, as it is kept: its texts are sealed.

use std::sync::Arc;

use crate::model::DeliveryId;
use crate::outbox::attempt::{
    Attempt, AttemptEnd, MAX_ABOUT, MAX_MESSAGE, MAX_TITLE, NewAttempt, bounded,
};
use crate::outbox::codec::{Decoder, Encoder, Malformed, cut};
use crate::outbox::error::Error;
use crate::outbox::webhook::WebhookKey;
use crate::seal::Keyring;

/// What a row's text is sealed for, before the delivery's id.
const CONTEXT: &[u8] = b"looker-feed attempt v1";

/// One row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::outbox) struct AttemptRow {
    pub attempt: Attempt,
    pub webhook: Option<WebhookKey>,
    pub sealed: Arc<[u8]>,
    /// Whether the texts of `attempt` are those in `sealed`; if not, its key is not there.
    pub opened: bool,
}

impl AttemptRow {
    pub fn new(new: &NewAttempt, end: Option<AttemptEnd>, keys: &Keyring) -> Result<Self, Error> {
        bounded("what is said of a delivery", &new.about, MAX_ABOUT)?;
        let attempt = Attempt {
            id: new.id,
            title: cut(&new.title, MAX_TITLE).to_owned(),
            about: new.about.as_slice().into(),
            received: new.received,
            end: end.map(|end| AttemptEnd {
                message: cut(&end.message, MAX_MESSAGE).to_owned(),
                ..end
            }),
            journal: Arc::from([]),
        };
        Self::seal(attempt, new.webhook.as_deref().map(WebhookKey::of), keys)
    }

    pub fn seal(
        attempt: Attempt,
        webhook: Option<WebhookKey>,
        keys: &Keyring,
    ) -> Result<Self, Error> {
        let mut plain = Encoder::default();
        let message = attempt.end.as_ref().map_or("", |end| &end.message);
        plain
            .text(&attempt.title)
            .blob(&attempt.about)
            .text(message)
            .blob(&attempt.journal);
        let sealed = keys
            .seal_text(&plain.bytes, &context(attempt.id))
            .map_err(|error| {
                Error::io("a delivery could not be sealed")(std::io::Error::other(error))
            })?;
        Ok(Self {
            attempt,
            webhook,
            sealed: sealed.into(),
            opened: true,
        })
    }

    pub fn id(&self) -> DeliveryId {
        self.attempt.id
    }

    pub fn encode(&self) -> Vec<u8> {
        let mut out = Encoder::for_row();
        out.time(self.attempt.received);
        match self.webhook {
            Some(key) => out.u8(1).raw(&key.0),
            None => out.u8(0),
        };
        match &self.attempt.end {
            Some(end) => out
                .u8(1)
                .time(end.at)
                .u8(end.kind)
                .u64(end.rows)
                .u64(end.bytes),
            None => out.u8(0),
        };
        out.blob(&self.sealed);
        out.row()
    }

    /// The row as it is on the disk; its texts follow with [`Self::unseal`].
    pub fn decode(id: DeliveryId, value: &[u8]) -> Result<Self, Malformed> {
        let mut read = Decoder::of_row(value)?;
        let received = read.time()?;
        let webhook = match read.u8()? {
            0 => None,
            1 => Some(WebhookKey(read.array()?)),
            _ => return Err(Malformed),
        };
        let end = match read.u8()? {
            0 => None,
            1 => Some(AttemptEnd {
                at: read.time()?,
                kind: read.u8()?,
                rows: read.u64()?,
                bytes: read.u64()?,
                message: String::new(),
            }),
            _ => return Err(Malformed),
        };
        let sealed = read.blob()?.into();
        read.end()?;
        Ok(Self {
            attempt: Attempt {
                id,
                title: String::new(),
                about: Arc::from([]),
                received,
                end,
                journal: Arc::from([]),
            },
            webhook,
            sealed,
            opened: false,
        })
    }

    /// Opens the texts. Without the key, or when they were changed, they stay empty: the numbers
    /// still count.
    pub fn unseal(mut self, keys: &Keyring) -> Self {
        let opened = keys
            .open_text(&self.sealed, &context(self.attempt.id))
            .map_err(|error| error.to_string())
            .and_then(|plain| self.read(&plain).map_err(|error| error.to_string()));
        self.opened = opened.is_ok();
        if let Err(error) = opened {
            tracing::warn!(delivery = %self.attempt.id, error, "what is known of a failed delivery cannot be opened");
        }
        self
    }

    fn read(&mut self, plain: &[u8]) -> Result<(), Malformed> {
        let mut read = Decoder::new(plain);
        let (title, about, message, journal) = (
            read.text()?,
            read.blob()?.into(),
            read.text()?,
            read.blob()?.into(),
        );
        read.end()?;
        self.attempt.title = title;
        self.attempt.about = about;
        self.attempt.journal = journal;
        if let Some(end) = &mut self.attempt.end {
            end.message = message;
        }
        Ok(())
    }
}

fn context(id: DeliveryId) -> Vec<u8> {
    [CONTEXT, &id.0].concat()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::UnixMillis;
    use crate::outbox::attempt::MAX_JOURNAL;

    fn attempt() -> NewAttempt {
        NewAttempt {
            id: DeliveryId([7; 16]),
            webhook: Some("w".to_owned()),
            title: "é".repeat(5_000),
            about: vec![b'a'; MAX_ABOUT],
            received: UnixMillis(5),
        }
    }

    #[test]
    fn a_row_comes_back_small_and_sealed() {
        let keys = Keyring::ephemeral().unwrap();
        let end = AttemptEnd {
            at: UnixMillis(9),
            kind: 3,
            rows: 4,
            bytes: 5,
            message: "secret words ".repeat(100),
        };
        let row = AttemptRow::new(&attempt(), Some(end), &keys).unwrap();
        let mut full = row.attempt.clone();
        full.journal = vec![b'j'; MAX_JOURNAL].into();
        let row = AttemptRow::seal(full, row.webhook, &keys).unwrap();
        let bytes = row.encode();
        assert!(bytes.len() < 4 << 10, "{}", bytes.len());
        for word in [&b"secret"[..], b"aaaa", b"jjjj"] {
            assert!(!bytes.windows(word.len()).any(|part| part == word));
        }
        let read = AttemptRow::decode(row.id(), &bytes).unwrap().unseal(&keys);
        assert_eq!(read, row);
    }

    #[test]
    fn without_its_key_a_row_keeps_its_numbers() {
        let keys = Keyring::ephemeral().unwrap();
        let row = AttemptRow::new(&attempt(), None, &keys).unwrap();
        let read = AttemptRow::decode(row.id(), &row.encode()).unwrap();
        let read = read.unseal(&Keyring::ephemeral().unwrap());
        assert_eq!(read.attempt.title, "");
        assert_eq!(read.attempt.received, UnixMillis(5));
        let other = AttemptRow::decode(DeliveryId([8; 16]), &row.encode()).unwrap();
        assert_eq!(other.unseal(&keys).attempt.title, "", "in another's place");
    }

    #[test]
    fn what_is_too_long_is_refused() {
        let keys = Keyring::ephemeral().unwrap();
        let new = NewAttempt {
            about: vec![0; MAX_ABOUT + 1],
            ..attempt()
        };
        let refused = AttemptRow::new(&new, None, &keys);
        assert!(matches!(refused, Err(Error::TooLarge { .. })));
    }
}
