//! The names of rows.

use crate::model::{DeliveryId, DestinationId};
use crate::outbox::codec::{Decoder, Malformed};
use crate::outbox::webhook::WebhookKey;

/// Names a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::outbox) enum Key {
    Meta,
    Delivery(u64),
    Counters(u64),
    Segment(u64, u32),
    Bits(u64, u32, u32),
    Account(DestinationId),
    Note(DestinationId, u8),
    Webhook(WebhookKey),
    Attempt(DeliveryId),
    Letter(u64),
    DeadFile(u32),
    /// An entry that was given up.
    LostEntry(u64, u32),
    /// A letter that was given up.
    LostLetter(u64),
}

impl Key {
    pub fn encode(self) -> Vec<u8> {
        let mut key = Vec::with_capacity(33);
        let mut put = |letter: u8, parts: &[&[u8]]| {
            key.push(letter);
            parts.iter().for_each(|part| key.extend_from_slice(part));
        };
        match self {
            Self::Meta => put(b'm', &[]),
            Self::Delivery(at) => put(b'd', &[&at.to_be_bytes()]),
            Self::Counters(at) => put(b'c', &[&at.to_be_bytes()]),
            Self::Segment(at, n) => put(b's', &[&at.to_be_bytes(), &n.to_be_bytes()]),
            Self::Bits(at, n, chunk) => put(
                b'b',
                &[&at.to_be_bytes(), &n.to_be_bytes(), &chunk.to_be_bytes()],
            ),
            Self::Account(id) => put(b'a', &[&id.0]),
            Self::Note(id, topic) => put(b'n', &[&id.0, &[topic]]),
            Self::Webhook(key) => put(b'w', &[&key.0]),
            Self::Attempt(id) => put(b'r', &[&id.0]),
            Self::Letter(id) => put(b'l', &[&id.to_be_bytes()]),
            Self::DeadFile(n) => put(b'f', &[&n.to_be_bytes()]),
            Self::LostEntry(at, n) => put(b'g', &[&at.to_be_bytes(), &n.to_be_bytes()]),
            Self::LostLetter(id) => put(b'h', &[&id.to_be_bytes()]),
        }
        key
    }

    pub fn decode(key: &[u8]) -> Result<Self, Malformed> {
        let (&letter, rest) = key.split_first().ok_or(Malformed)?;
        let mut read = Decoder::new(rest);
        let key = match letter {
            b'm' => Self::Meta,
            b'd' => Self::Delivery(wide(&mut read)?),
            b'c' => Self::Counters(wide(&mut read)?),
            b's' => Self::Segment(wide(&mut read)?, narrow(&mut read)?),
            b'b' => Self::Bits(wide(&mut read)?, narrow(&mut read)?, narrow(&mut read)?),
            b'a' => Self::Account(DestinationId(read.array()?)),
            b'n' => Self::Note(DestinationId(read.array()?), read.u8()?),
            b'w' => Self::Webhook(WebhookKey(read.array()?)),
            b'r' => Self::Attempt(DeliveryId(read.array()?)),
            b'l' => Self::Letter(wide(&mut read)?),
            b'f' => Self::DeadFile(narrow(&mut read)?),
            b'g' => Self::LostEntry(wide(&mut read)?, narrow(&mut read)?),
            b'h' => Self::LostLetter(wide(&mut read)?),
            _ => return Err(Malformed),
        };
        read.end()?;
        Ok(key)
    }
}

fn wide(read: &mut Decoder<'_>) -> Result<u64, Malformed> {
    read.array().map(u64::from_be_bytes)
}

fn narrow(read: &mut Decoder<'_>) -> Result<u32, Malformed> {
    read.array().map(u32::from_be_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_come_back_and_sort_by_their_numbers() {
        let keys = [
            Key::Account(DestinationId([9; 16])),
            Key::Bits(1, 2, 3),
            Key::Bits(1, 2, 256),
            Key::Bits(1, 300, 0),
            Key::Counters(7),
            Key::Delivery(255),
            Key::Delivery(256),
            Key::DeadFile(4),
            Key::LostEntry(5, 6),
            Key::LostLetter(7),
            Key::Letter(u64::MAX),
            Key::Meta,
            Key::Note(DestinationId([9; 16]), 1),
            Key::Note(DestinationId([9; 16]), 2),
            Key::Attempt(DeliveryId([4; 16])),
            Key::Segment(5, 6),
            Key::Webhook(WebhookKey([3; 32])),
        ];
        let encoded: Vec<_> = keys.iter().map(|key| key.encode()).collect();
        assert!(encoded.is_sorted());
        for (key, bytes) in keys.iter().zip(&encoded) {
            assert_eq!(Key::decode(bytes), Ok(*key));
            assert_eq!(
                Key::decode(&[bytes.as_slice(), b"x"].concat()),
                Err(Malformed)
            );
        }
        assert_eq!(Key::decode(b""), Err(Malformed));
        // The page of the format has a row for each.
        let page = include_str!("../mod.rs");
        let mut letters: Vec<u8> = encoded.iter().map(|key| key[0]).collect();
        letters.dedup();
        for letter in letters {
            let row = format!("//! | `{}`", char::from(letter));
            assert!(page.contains(&row), "{row}");
        }
    }
}
