//! Reads bytes as a file of the outbox without opening one: for tests that feed it anything.

use crate::outbox::codec::{Decoder, Encoder};
use crate::outbox::dead::DeadMeta;
use crate::outbox::local::files::format::{Footer, Header};
use crate::outbox::record::{self, Frame};
use crate::outbox::rejected::Rejected;
use crate::seal::{Key, Keyring};

/// What bytes hold, taken for a file of the outbox.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Probe {
    /// They begin with a sound header.
    pub header: bool,
    /// They are a sound footer, from end to end.
    pub footer: bool,
    /// Sound records, wherever they begin.
    pub records: usize,
    /// Those of them that open under the key of all probes.
    pub opened: usize,
    /// Bytes of all of their slices.
    pub bytes: usize,
    /// Its meta part is that of a dead letter or of a rejected row; told by [`probe_sealed`] only.
    pub meta: bool,
}

/// The key of all probes: no secret.
fn keys() -> Keyring {
    Keyring::new(Key::new([0; 32]), Vec::new())
}

/// Takes `bytes` for a file, sound or not, as a salvage does.
pub fn probe(bytes: &[u8]) -> Probe {
    let mut found = Probe {
        header: Header::decode(bytes).is_ok(),
        footer: Footer::decode(bytes).is_ok(),
        ..Probe::default()
    };
    let keys = keys();
    for (_, _, frame) in record::scan(bytes) {
        found.records += 1;
        if let Ok(record) = frame.open(&keys) {
            found.opened += 1;
            found.bytes += record.slices.iter().map(|slice| slice.len()).sum::<usize>();
        }
    }
    found
}

/// The same for a record that opens under the key of all probes, so that what stands behind the seal
/// is fed anything too. `data` is kind, flags, length of the meta part (u16), number of slices,
/// their lengths (u16 each), and the plain text of what is sealed.
pub fn probe_sealed(data: &[u8]) -> Probe {
    let Some(bytes) = sealed(data) else {
        return Probe::default();
    };
    let opened = Frame::decode(&bytes).and_then(|frame| frame.open(&keys()));
    Probe {
        meta: opened
            .is_ok_and(|record| DeadMeta::decode(&record).is_ok() | Rejected::of(&record).is_ok()),
        ..probe(&bytes)
    }
}

fn sealed(data: &[u8]) -> Option<Vec<u8>> {
    let mut read = Decoder::new(data);
    let (kind, flags) = (read.u8().ok()?, read.u8().ok()?);
    let (meta, slices) = (read.u16().ok()?, read.u8().ok()?);
    let mut table = Encoder::default();
    let mut raw = 0;
    for rows in 0..u32::from(slices) {
        let length = u32::from(read.u16().ok()?);
        table.u32(length).u32(rows);
        raw += length;
    }
    let mut sealer = keys().sealer().ok()?;
    let seal = sealer.next_piece();
    let mut clear = Encoder::default();
    clear
        .u8(kind)
        .u8(flags)
        .u16(0)
        .u32(0)
        .raw(&[0; 16])
        .u32(u32::from(meta))
        .u32(u32::from(slices))
        .u32(raw)
        .raw(&table.bytes)
        .raw(seal.stamp());
    let mut secret = read.rest.to_vec();
    let tag = seal.seal(&clear.bytes, &mut secret).ok()?;
    Some(record::framed(&[&clear.bytes[..], &secret, &tag].concat()))
}

#[cfg(test)]
mod tests {
    use super::*;

    macro_rules! corpus {
        ($name:literal) => {
            include_bytes!(concat!("../../../../tests/fuzz/corpus/outbox/", $name)).as_slice()
        };
    }

    #[test]
    fn the_corpus_of_the_fuzz_target_reaches_what_stands_behind_the_seal() {
        for (data, bytes) in [
            (corpus!("sealed_record"), 5),
            (corpus!("sealed_packed"), 100),
            (corpus!("sealed_dead"), 4),
            (corpus!("sealed_rejected"), 4),
        ] {
            let found = probe_sealed(data);
            assert_eq!((found.records, found.opened), (1, 1), "{found:?}");
            assert_eq!(found.bytes, bytes);
        }
        assert!(probe_sealed(corpus!("sealed_dead")).meta);
        assert!(probe_sealed(corpus!("sealed_rejected")).meta);
        // It opens, and is refused for what is in it.
        let bomb = probe_sealed(corpus!("sealed_lz4_bomb"));
        assert_eq!((bomb.records, bomb.opened), (1, 0));
    }
}
