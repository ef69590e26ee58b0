//! Reads bytes as a file of the outbox without opening one: for tests that feed it anything.

use super::format::{Footer, Header};
use super::record;

/// What bytes hold, taken for a file of the outbox.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Probe {
    /// They begin with a sound header.
    pub header: bool,
    /// They are a sound footer, from end to end.
    pub footer: bool,
    /// Sound records, wherever they begin.
    pub records: usize,
    /// Bytes of all of their slices.
    pub bytes: usize,
}

/// Takes `bytes` for a file, sound or not, as a salvage does.
pub fn probe(bytes: &[u8]) -> Probe {
    let mut found = Probe {
        header: Header::decode(bytes).is_ok(),
        footer: Footer::decode(bytes).is_ok(),
        ..Probe::default()
    };
    for (_, _, record) in record::scan(bytes) {
        found.records += 1;
        found.bytes += record.slices.iter().map(|slice| slice.len()).sum::<usize>();
    }
    found
}
