//! A temporary file without a name, sealed under a random key of its own that is in memory only:
//! whatever becomes of its blocks on the disk, nobody can read them once it is dropped.
//!
//! It is a row of blocks of [`BLOCK`] bytes, in packed stretches of [`PACKED_BLOCK`], each sealed with its
//! number as the nonce and followed by its tag. A block is sealed once, when it is full or its stretch
//! ends, and nothing is ever written over another, so no number is used twice.
//!
//! A file that has grown beyond [`PACK_ABOVE`] goes on with *packed* stretches, whose blocks are
//! compressed before they are sealed. Below, compressing costs more than the bytes that it saves:
//! the page cache takes them at the speed of memory. Above, the system must find pages for them first.
//! A block of a packed stretch has two bytes in front, little-endian: the length of what is sealed, its
//! tag included, and in the highest bit whether that is compressed.

use std::fmt;
use std::io::{self, Read};

use lz4_flex::block::{compress_into, decompress_into, get_maximum_output_size};
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, UnboundKey};
use zeroize::Zeroizing;

use super::key::KeyError;
use super::nonce;
use super::sealer::TAG;
use super::space::{Space, SpaceFile};

/// Plain bytes of a block; the last of a stretch has less.
const BLOCK: usize = 8 << 10;
/// The same in a packed stretch. Of a file that is so large there are thousands of stretches, which are
/// read at once, and of each a block is in memory.
const PACKED_BLOCK: usize = 4 << 10;
/// Sealed blocks are usually gathered up to this before they are written.
const BUFFER: usize = 256 << 10;
/// Bytes of a file from which on its stretches are packed, and what has been read can be given back.
const PACK_ABOVE: u64 = 256 << 20;
/// Space is given back in parts of this size: a call to the system each, and so much is held of every
/// stretch that is being read.
const GIVE_BACK: u64 = 256 << 10;
/// Space is given back in pages.
const PAGE: u64 = 4 << 10;
/// What stands before a block of a packed stretch, and the bit in it that says "compressed".
const FRAME: usize = 2;
const COMPRESSED: u16 = 1 << 15;

/// See the module.
pub struct Scratch {
    file: SpaceFile,
    key: LessSafeKey,
    pack_above: u64,
    /// A block that is about to be sealed into a packed stretch.
    packed: Vec<u8>,
    /// Sealed blocks, and behind them the block that is being filled.
    buffer: Vec<u8>,
    /// Where in the buffer that block begins.
    open: usize,
    /// How many blocks are sealed.
    blocks: u64,
    /// Sealed blocks are gathered up to this many bytes.
    gather: usize,
    /// Bytes of the file.
    written: u64,
    /// The stretch that is being written.
    begun: Stretch,
}

/// A part of a scratch file that is read from its beginning to its end.
#[derive(Clone, Copy, Debug, Default)]
pub struct Stretch {
    offset: u64,
    end: u64,
    block: u64,
    packed: bool,
    /// Plain bytes that are left in it.
    plain: u64,
    /// Where what has not been given back begins.
    kept: u64,
}

impl fmt::Debug for Scratch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("Scratch");
        shown.field("written", &self.written);
        shown.finish_non_exhaustive()
    }
}

impl Scratch {
    /// An empty one.
    pub fn create(space: &Space) -> io::Result<Self> {
        Self::create_packing(space, PACK_ABOVE)
    }

    fn create_packing(space: &Space, pack_above: u64) -> io::Result<Self> {
        let mut key = Zeroizing::new([0; 32]);
        getrandom::fill(&mut *key).map_err(io::Error::other)?;
        let key = UnboundKey::new(&AES_256_GCM, &*key).map_err(|_| refused())?;
        Ok(Self {
            file: space.file()?,
            key: LessSafeKey::new(key),
            pack_above,
            packed: Vec::new(),
            buffer: Vec::new(),
            open: 0,
            blocks: 0,
            gather: BUFFER,
            written: 0,
            begun: Stretch {
                packed: pack_above == 0,
                ..Stretch::default()
            },
        })
    }

    /// The same, for one who has less memory: it is written when so many bytes have been gathered, but
    /// at least a block, and at most as many as usual.
    pub fn gathering(mut self, bytes: usize) -> Self {
        self.gather = bytes.clamp(BLOCK, BUFFER);
        self
    }

    /// Bytes on the disk.
    pub fn len(&self) -> u64 {
        self.written
    }

    /// Whether nothing is on the disk.
    pub fn is_empty(&self) -> bool {
        self.written == 0
    }

    /// Appends to the current stretch.
    ///
    /// # Errors
    /// The file cannot be written; nothing more can be done with it then.
    pub fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        if self.keep(bytes)? {
            self.flush()?;
        }
        Ok(())
    }

    /// The same in memory only. Returns whether it is time to [`flush`](Self::flush).
    pub fn keep(&mut self, mut bytes: &[u8]) -> io::Result<bool> {
        loop {
            let room = self.begun.block_bytes() - (self.buffer.len() - self.open);
            let (now, rest) = bytes.split_at(room.min(bytes.len()));
            self.buffer.extend_from_slice(now);
            self.begun.plain += now.len() as u64;
            if now.len() < room {
                return Ok(self.open >= self.gather);
            }
            self.seal_block()?;
            bytes = rest;
        }
    }

    /// Writes the blocks that are full.
    pub fn flush(&mut self) -> io::Result<()> {
        let sealed = self.buffer.get(..self.open).unwrap_or_default();
        self.file.write_at(sealed, self.written)?;
        self.written += self.open as u64;
        self.buffer.drain(..self.open);
        self.open = 0;
        Ok(())
    }

    /// Ends the current stretch; the next write begins another.
    pub fn end_stretch(&mut self) -> io::Result<Stretch> {
        if self.buffer.len() > self.open {
            self.seal_block()?;
        }
        self.flush()?;
        let next = Stretch {
            offset: self.written,
            end: self.written,
            block: self.blocks,
            packed: self.written >= self.pack_above,
            plain: 0,
            kept: self.written,
        };
        let begun = std::mem::replace(&mut self.begun, next);
        Ok(Stretch {
            end: self.written,
            ..begun
        })
    }

    /// Ends the stretch at hand and reads it.
    pub fn into_reader(mut self) -> io::Result<Reader> {
        let stretch = self.end_stretch()?;
        self.buffer = Vec::new();
        Ok(Reader {
            scratch: self,
            stretch,
            plain: Vec::new(),
            at: 0,
        })
    }

    fn seal_block(&mut self) -> io::Result<()> {
        if self.begun.packed {
            self.pack_block()?;
        } else {
            let block = self.buffer.get_mut(self.open..).unwrap_or_default();
            let tag = self
                .key
                .seal_in_place_separate_tag(nonce(self.blocks), Aad::empty(), block)
                .map_err(|_| refused())?;
            self.buffer.extend_from_slice(tag.as_ref());
        }
        self.blocks += 1;
        self.open = self.buffer.len();
        Ok(())
    }

    fn pack_block(&mut self) -> io::Result<()> {
        let block = self.buffer.get(self.open..).unwrap_or_default();
        self.packed.resize(get_maximum_output_size(PACKED_BLOCK), 0);
        let compressed = compress_into(block, &mut self.packed).map_err(io::Error::other)?;
        let is_smaller = compressed < block.len();
        if is_smaller {
            self.packed.truncate(compressed);
        } else {
            self.packed.clear();
            self.packed.extend_from_slice(block);
        }
        let frame = frame(self.packed.len() + TAG, is_smaller);
        let tag = self
            .key
            .seal_in_place_separate_tag(nonce(self.blocks), Aad::from(frame), &mut self.packed)
            .map_err(|_| refused())?;
        self.buffer.truncate(self.open);
        self.buffer.extend_from_slice(&frame);
        self.buffer.extend_from_slice(&self.packed);
        self.buffer.extend_from_slice(tag.as_ref());
        Ok(())
    }
}

/// `length` is that of a block, at most, and its tag.
fn frame(length: usize, compressed: bool) -> [u8; FRAME] {
    let mark = if compressed { COMPRESSED } else { 0 };
    (length as u16 | mark).to_le_bytes()
}

impl Stretch {
    /// Appends the next plain bytes of it to `out`: at least `wanted` and less than a block more, or
    /// all that is left. Returns whether it was anything.
    pub fn read(
        &mut self,
        scratch: &Scratch,
        out: &mut Vec<u8>,
        wanted: usize,
    ) -> io::Result<bool> {
        if self.packed {
            return self.read_packed(scratch, out, wanted);
        }
        let blocks = wanted.div_ceil(BLOCK).max(1);
        let left = usize::try_from(self.end - self.offset).unwrap_or(usize::MAX);
        let sealed = blocks.saturating_mul(BLOCK + TAG).min(left);
        if sealed == 0 {
            return Ok(false);
        }
        // Opening moves the plain text of each block over the tags of those before it.
        let mut plain = out.len();
        let mut from = plain;
        // Grouping holds hundreds of these buffers: none may be twice as large as it need be.
        out.reserve_exact(sealed);
        scratch.file.read_at(self.offset, out, plain + sealed)?;
        while from < out.len() {
            let to = out.len().min(from + BLOCK + TAG);
            let place = out.get_mut(plain..to).unwrap_or_default();
            let opened = scratch
                .key
                .open_within(nonce(self.block), Aad::empty(), place, from - plain..)
                .map_err(|_| changed())?;
            plain += opened.len();
            self.block += 1;
            from = to;
        }
        self.offset += sealed as u64;
        out.truncate(plain);
        Ok(true)
    }

    fn read_packed(
        &mut self,
        scratch: &Scratch,
        out: &mut Vec<u8>,
        wanted: usize,
    ) -> io::Result<bool> {
        let before = out.len();
        // Grouping holds thousands of these buffers.
        let most = wanted.min(usize::try_from(self.plain).unwrap_or(usize::MAX));
        out.reserve_exact(most.next_multiple_of(PACKED_BLOCK));
        let mut sealed = Vec::new();
        while self.offset < self.end && out.len() - before < wanted {
            let left = usize::try_from(self.end - self.offset).unwrap_or(usize::MAX);
            sealed.clear();
            let begun = self.offset;
            let ask = self.sealed_for(wanted - (out.len() - before)).min(left);
            sealed.reserve_exact(ask);
            scratch.file.read_at(self.offset, &mut sealed, ask)?;
            let mut rest = sealed.as_mut_slice();
            while out.len() - before < wanted
                && let Some((head, behind)) = rest.split_first_chunk_mut::<FRAME>()
            {
                let head = *head;
                let length = usize::from(u16::from_le_bytes(head) & !COMPRESSED);
                let Some((block, behind)) = behind.split_at_mut_checked(length) else {
                    break;
                };
                self.open_block(scratch, head, block, out)?;
                self.offset += (FRAME + length) as u64;
                rest = behind;
            }
            // At least one whole block was asked for.
            if self.offset == begun {
                return Err(changed());
            }
        }
        Ok(out.len() > before)
    }

    /// Plain bytes of a block: the least that is read of it at once.
    pub fn block_bytes(&self) -> usize {
        match self.packed {
            true => PACKED_BLOCK,
            false => BLOCK,
        }
    }

    /// Whether all of it has been read.
    pub fn is_read(&self) -> bool {
        self.offset == self.end
    }

    /// How much of the file holds about so many plain bytes: at least one whole block.
    fn sealed_for(&self, plain: usize) -> usize {
        let share = (self.end - self.offset) as f64 / self.plain.max(1) as f64;
        ((plain as f64 * share) as usize).saturating_add(FRAME + PACKED_BLOCK + TAG)
    }

    fn open_block(
        &mut self,
        scratch: &Scratch,
        head: [u8; FRAME],
        block: &mut [u8],
        out: &mut Vec<u8>,
    ) -> io::Result<()> {
        let opened = scratch
            .key
            .open_in_place(nonce(self.block), Aad::from(head), block)
            .map_err(|_| changed())?;
        let plain = out.len();
        if u16::from_le_bytes(head) & COMPRESSED == 0 {
            out.extend_from_slice(opened);
        } else {
            out.resize(plain + PACKED_BLOCK, 0);
            let place = out.get_mut(plain..).unwrap_or_default();
            let length = decompress_into(opened, place).map_err(|_| changed())?;
            out.truncate(plain + length);
        }
        self.block += 1;
        self.plain = self.plain.saturating_sub((out.len() - plain) as u64);
        Ok(())
    }

    /// Gives the space of what has been read back to the file system, of a large file and in large
    /// parts; it cannot be read again. Where the file system cannot do this, the space comes back
    /// with the file.
    pub fn give_back(&mut self, scratch: &Scratch) {
        let from = self.kept.next_multiple_of(PAGE);
        let to = self.offset / PAGE * PAGE;
        if scratch.written < scratch.pack_above || to.saturating_sub(from) < GIVE_BACK {
            return;
        }
        scratch.file.give_back(from..to);
        self.kept = to;
    }
}

/// Reads a scratch file from its beginning.
#[derive(Debug)]
pub struct Reader {
    scratch: Scratch,
    stretch: Stretch,
    plain: Vec<u8>,
    at: usize,
}

impl Reader {
    /// The next bytes, some hundred thousand at a time; `None` at the end.
    pub fn chunk(&mut self) -> io::Result<Option<Vec<u8>>> {
        let mut plain = Vec::new();
        let more = self.stretch.read(&self.scratch, &mut plain, BUFFER)?;
        Ok(more.then_some(plain))
    }
}

impl Read for Reader {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        if self.at == self.plain.len() {
            self.plain.clear();
            self.at = 0;
            self.stretch.read(&self.scratch, &mut self.plain, BUFFER)?;
        }
        let left = self.plain.get(self.at..).unwrap_or_default();
        let now = left.len().min(out.len());
        out[..now].copy_from_slice(&left[..now]);
        self.at += now;
        Ok(now)
    }
}

fn refused() -> io::Error {
    io::Error::other(KeyError::Cipher)
}

fn changed() -> io::Error {
    io::Error::new(
        io::ErrorKind::InvalidData,
        "a temporary file is not what was written to it",
    )
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::FileExt;

    use proptest::prelude::*;

    use super::*;

    fn scratch() -> (tempfile::TempDir, Scratch) {
        packing(PACK_ABOVE)
    }

    fn packing(above: u64) -> (tempfile::TempDir, Scratch) {
        let directory = tempfile::tempdir().unwrap();
        let scratch = Scratch::create_packing(&Space::new(directory.path()), above).unwrap();
        (directory, scratch)
    }

    proptest! {
        #[test]
        fn stretches_come_back_whole_however_they_are_written_and_read(
            stretches in prop::collection::vec(
                prop::collection::vec((any::<u64>(), any::<bool>(), 0..40_000usize), 0..5), 1..5),
            wanted in 1..30_000usize,
            pack_above in prop_oneof![Just(PACK_ABOVE), Just(0), 0..100_000u64],
        ) {
            let (_directory, mut scratch) = packing(pack_above);
            let mut written = Vec::new();
            for parts in &stretches {
                let mut plain = Vec::new();
                for (seed, noise, length) in parts {
                    let mut part = vec![*seed as u8; *length];
                    if *noise {
                        fastrand::Rng::with_seed(*seed).fill(&mut part);
                    }
                    scratch.write(&part).unwrap();
                    plain.extend_from_slice(&part);
                }
                written.push((scratch.end_stretch().unwrap(), plain));
            }
            // In any order.
            for (mut stretch, plain) in written.into_iter().rev() {
                let mut back = Vec::new();
                loop {
                    let before = back.len();
                    if !stretch.read(&scratch, &mut back, wanted).unwrap() {
                        break;
                    }
                    stretch.give_back(&scratch);
                    let all = back.len() == plain.len();
                    prop_assert!(all || back.len() >= before + wanted);
                    prop_assert!(back.len() < before + wanted + BLOCK);
                }
                prop_assert!(back == plain);
            }
        }
    }

    #[test]
    fn a_reader_gives_the_bytes_in_chunks_or_bit_by_bit() {
        let plain: Vec<u8> = (0..1_000_000u32).map(|n| (n % 251) as u8).collect();
        let (_directory, mut one) = scratch();
        one.write(&plain).unwrap();
        let mut back = Vec::new();
        let mut reader = one.into_reader().unwrap();
        while let Some(chunk) = reader.chunk().unwrap() {
            assert!(!chunk.is_empty());
            back.extend_from_slice(&chunk);
        }
        assert_eq!(back, plain);
        let (_directory, mut other) = scratch();
        plain
            .chunks(997)
            .for_each(|part| other.write(part).unwrap());
        let mut back = Vec::new();
        other.into_reader().unwrap().read_to_end(&mut back).unwrap();
        assert_eq!(back, plain);
    }

    #[test]
    fn a_file_that_is_packed_is_small_and_gives_back_what_has_been_read() {
        use std::os::unix::fs::MetadataExt;
        let (_directory, mut scratch) = packing(1 << 20);
        let plain = b"{\"email\":\"ada@example.com\",\"city\":\"Oslo\"}".repeat(500_000);
        scratch.write(&plain[..2 << 20]).unwrap();
        scratch.end_stretch().unwrap();
        let before = scratch.len();
        assert!(before >= 2 << 20, "the first stretch is as it is");
        let mut noise = vec![0; 8 << 20];
        fastrand::Rng::with_seed(1).fill(&mut noise);
        scratch.write(&plain).unwrap();
        let packed = scratch.len() - before;
        assert!(packed < plain.len() as u64 / 10, "{packed} bytes");
        scratch.write(&noise).unwrap();
        let mut stretch = scratch.end_stretch().unwrap();
        let held = |scratch: &Scratch| scratch.file.raw().metadata().unwrap().blocks() * 512;
        scratch.file.raw().sync_all().unwrap();
        let most = held(&scratch);
        let mut back = Vec::new();
        while stretch.read(&scratch, &mut back, BUFFER).unwrap() {
            stretch.give_back(&scratch);
        }
        assert!(back == [&plain[..], &noise[..]].concat());
        let left = held(&scratch);
        // Not on every file system.
        assert!(left + (6 << 20) < most || left == most, "{left} of {most}");
    }

    #[test]
    fn nothing_plain_is_in_the_file_and_a_changed_byte_is_seen() {
        for pack_above in [PACK_ABOVE, 0] {
            a_changed_byte_is_seen(pack_above);
        }
    }

    fn a_changed_byte_is_seen(pack_above: u64) {
        let (_directory, mut scratch) = packing(pack_above);
        // Half of it noise, so that packing leaves something.
        let mut plain = b"ada@example.com ".repeat(2_000);
        plain.resize(64_000, 0);
        fastrand::Rng::with_seed(7).fill(&mut plain[32_000..]);
        scratch.write(&plain).unwrap();
        let stretch = scratch.end_stretch().unwrap();
        let mut bytes = vec![0; scratch.len() as usize];
        scratch.file.raw().read_exact_at(&mut bytes, 0).unwrap();
        let holds = |bytes: &[u8]| memchr::memmem::find(bytes, b"ada@example").is_some();
        assert!(!holds(&bytes) && holds(&plain));
        for at in (0..bytes.len()).step_by(1_979) {
            let changed = [bytes[at] ^ 1];
            scratch
                .file
                .raw()
                .write_all_at(&changed, at as u64)
                .unwrap();
            let mut out = Vec::new();
            let read = stretch.clone().read(&scratch, &mut out, plain.len());
            assert_eq!(read.unwrap_err().kind(), io::ErrorKind::InvalidData);
            scratch
                .file
                .raw()
                .write_all_at(&bytes[at..=at], at as u64)
                .unwrap();
        }
        let mut out = Vec::new();
        let mut stretch = stretch;
        stretch.read(&scratch, &mut out, plain.len()).unwrap();
        assert_eq!(out, plain);
    }
}
