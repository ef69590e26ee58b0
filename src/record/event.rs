//! What the event section of a record holds where that is not the members of a custom event of
//! today: a mark in front, and the parts of a purchase.

/// What kind of event a row is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum EventKind {
    /// `custom_event`
    #[default]
    Custom,
    /// `screen_view`
    ScreenView,
    /// `commerce_event`; its members are parts of a [`Purchase`].
    Commerce,
}

impl EventKind {
    /// All of them, in the order of their numbers.
    pub const ALL: [Self; 3] = [Self::Custom, Self::ScreenView, Self::Commerce];

    /// mParticle's `event_type`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Custom => "custom_event",
            Self::ScreenView => "screen_view",
            Self::Commerce => "commerce_event",
        }
    }
}

/// What an event is, where that is not the usual: one byte in front of its members. Written out they
/// begin with a quotation mark and so cannot be taken for it; by slot they always have one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Mark {
    /// So old that it is sent as a historical event.
    pub old: bool,
    /// What kind of event it is.
    pub kind: EventKind,
}

impl Mark {
    const OLD: u8 = 1;
    /// The kind's number stands above the bit for old ones.
    const KINDS: [u8; 3] = [0, 2, 4];
    const ALL: u8 = 7;

    /// The byte.
    pub fn byte(self) -> u8 {
        Self::KINDS[self.kind as usize] | u8::from(self.old)
    }

    /// Takes an event section apart: its mark, and what stands behind it.
    pub fn split(event: &[u8]) -> (Self, &[u8]) {
        match event.split_first() {
            Some((&byte, members)) if byte <= Self::ALL => {
                let kind = EventKind::ALL.get(usize::from(byte >> 1)).copied();
                let mark = Self {
                    old: byte & Self::OLD != 0,
                    kind: kind.unwrap_or_default(),
                };
                (mark, members)
            }
            _ => (Self::default(), event),
        }
    }
}

/// The parts of one row of a commerce event. Rows of a user with the same key are one event, with
/// the product of each.
///
/// Lengths of key and head, each in four bytes, little-endian; key; head; product.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Purchase<'a> {
    /// Names the event among those of the user; empty: the row is an event of its own.
    pub key: &'a [u8],
    /// Members of `data`, each behind a comma, the last being `product_action` without its closing
    /// brace.
    pub head: &'a [u8],
    /// The row's product, an object; empty: it has none.
    pub product: &'a [u8],
}

const LENGTHS: usize = 8;

impl<'a> Purchase<'a> {
    /// Takes what stands behind the mark apart. What is not a purchase gives empty parts.
    pub fn read(bytes: &'a [u8]) -> Self {
        let read = || {
            let (key, rest) = bytes.split_first_chunk::<4>()?;
            let (head, rest) = rest.split_first_chunk::<4>()?;
            let (key, rest) = rest.split_at_checked(u32::from_le_bytes(*key) as usize)?;
            let (head, product) = rest.split_at_checked(u32::from_le_bytes(*head) as usize)?;
            Some(Self { key, head, product })
        };
        read().unwrap_or_default()
    }
}

/// Writes a [`Purchase`]: key, head and product are appended one after the other, and it is told
/// where each ends.
#[derive(Clone, Copy, Debug)]
pub struct PurchaseWriter {
    start: usize,
    key_end: usize,
}

impl PurchaseWriter {
    /// What is appended to `bytes` from now on is the key.
    pub fn begin(bytes: &mut Vec<u8>) -> Self {
        let start = bytes.len();
        bytes.extend_from_slice(&[0; LENGTHS]);
        Self {
            start,
            key_end: bytes.len(),
        }
    }

    /// The key has been written; what follows is the head. Whether there is a key.
    pub fn end_key(&mut self, bytes: &mut [u8]) -> bool {
        self.key_end = bytes.len();
        let length = bytes.len() - self.start - LENGTHS;
        self.put(bytes, 0, length);
        length > 0
    }

    /// The head has been written; what follows is the product.
    pub fn end_head(self, bytes: &mut [u8]) {
        let length = bytes.len() - self.key_end;
        self.put(bytes, 4, length);
    }

    fn put(&self, bytes: &mut [u8], at: usize, length: usize) {
        let place = self.start + at;
        if let Some(place) = bytes.get_mut(place..place + 4) {
            place.copy_from_slice(&(length as u32).to_le_bytes());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_is_told_from_members_and_from_nothing() {
        for kind in EventKind::ALL {
            for old in [false, true] {
                let mark = Mark { old, kind };
                let event = [&[mark.byte()], &b"\"a\":1"[..]].concat();
                assert_eq!(Mark::split(&event), (mark, &b"\"a\":1"[..]));
            }
        }
        for event in [&b"\"a\":1"[..], b""] {
            assert_eq!(Mark::split(event), (Mark::default(), event));
        }
    }

    #[test]
    fn the_parts_of_a_purchase_come_back() {
        for (key, head, product) in [
            (&b"k"[..], &b",\"a\":1"[..], &b"{}"[..]),
            (b"", b",\"a\":1", b""),
            (b"", b"", b""),
        ] {
            let mut bytes = b"before".to_vec();
            let mut writer = PurchaseWriter::begin(&mut bytes);
            bytes.extend_from_slice(key);
            assert_eq!(writer.end_key(&mut bytes), !key.is_empty());
            bytes.extend_from_slice(head);
            writer.end_head(&mut bytes);
            bytes.extend_from_slice(product);
            let want = Purchase { key, head, product };
            assert_eq!(Purchase::read(&bytes[6..]), want);
        }
        assert_eq!(Purchase::read(b"\xff\0\0\0\0\0\0\0"), Purchase::default());
    }
}
