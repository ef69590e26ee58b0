//! A snapshot's file: which users a delivery spoke of, in ascending order, written once and read
//! from its beginning to its end. Numbers are little-endian.
//!
//! ```text
//! file     magic 8 "LFCHANGE" · version 1 · frames
//! frame    kind 1 · length 4 · stamp 48 · sealed bytes · tag 16
//! head     key 16 · time of the last full delivery 8 · name of the audience's attribute, or nothing
//! entries  user 8 · fingerprint 16 · first 4 · last 4 · length 4 · people, again and again
//! end      number of entries 8
//! ```
//! `first` and `last` are the requests of the delivery that the user is in; both [`UNSENT`]: in
//! none. `people` are sets of identities (see `record::parts`), kept only where somebody may have
//! to be told of a user's absence.
//!
//! Each frame is sealed for its file and its place, so frames can neither be altered nor moved nor
//! left out; what has been read is good, whatever the rest of the file is like.

use std::io::{self, BufReader, BufWriter, Read, Write};
use std::sync::Arc;

use super::ScheduleKey;
use super::reads::Source;
use crate::clock::UnixMillis;
use crate::model::DeliveryId;
use crate::seal::{KeyError, Keyring, OpenError, STAMP, Sealer, TAG};

const MAGIC: [u8; 8] = *b"LFCHANGE";
const VERSION: u8 = 1;
const CONTEXT: &[u8] = b"looker-feed changes 1";
/// A frame is sealed when it holds so many bytes.
const FRAME: usize = 64 << 10;
/// A longer frame is none of ours: an entry is at most 64 batches of identities.
const MOST_FRAME: usize = 64 << 20;
const FILE_BUFFER: usize = 128 << 10;
const UNSENT: u32 = u32::MAX;

/// Which file of a delivery.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    /// The users of the result.
    Users = 1,
    /// Users who were in an earlier result and are not in this one.
    Gone = 2,
    /// The same before it is known whether they are in it under another identity. A temporary file.
    Absent = 3,
}

/// What a file is sealed for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Name {
    pub schedule: ScheduleKey,
    pub delivery: DeliveryId,
    pub role: Role,
}

/// What holds for the whole file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Head {
    /// Orders users and makes fingerprints; the same in all snapshots of a schedule.
    pub key: [u8; 16],
    /// When all users were sent last.
    pub full_at: UnixMillis,
    /// The attribute that says who is in the result; empty: none, and no people are kept.
    pub audience: String,
}

/// One user.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Entry<'a> {
    pub user: u64,
    pub fingerprint: u128,
    /// The first and the last request that holds something of the user; `None`: nothing was sent.
    pub sent: Option<(u32, u32)>,
    pub people: &'a [u8],
}

/// A snapshot cannot be read on.
#[derive(Debug, thiserror::Error)]
pub(super) enum ReadError {
    /// The system refused.
    #[error("it cannot be read")]
    Io(#[from] io::Error),
    /// It does not begin as a snapshot does.
    #[error("it is not a snapshot")]
    NotOurs,
    /// Written by another version.
    #[error("it has version {0}, which this looker-feed does not know")]
    Version(u8),
    /// Damaged, moved, or sealed under another key.
    #[error(transparent)]
    Sealed(#[from] OpenError),
    /// Cut short, or it does not hold together.
    #[error("it is cut short or does not hold together")]
    Malformed,
}

/// A snapshot cannot be written.
#[derive(Debug, thiserror::Error)]
pub(super) enum WriteError {
    #[error("it cannot be written")]
    Io(#[from] io::Error),
    #[error(transparent)]
    Seal(#[from] KeyError),
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Head = 1,
    Entries = 2,
    End = 3,
}

fn context(name: &Name, kind: Kind, number: u32) -> Vec<u8> {
    let mut context = CONTEXT.to_vec();
    context.extend_from_slice(&name.schedule.0);
    context.extend_from_slice(&name.delivery.0);
    context.extend_from_slice(&[name.role as u8, kind as u8]);
    context.extend_from_slice(&number.to_le_bytes());
    context
}

/// Writes one snapshot. Users must come in ascending order.
pub(super) struct Writer<W: Write> {
    out: BufWriter<W>,
    name: Name,
    sealer: Sealer,
    frames: u32,
    entries: u64,
    frame: Vec<u8>,
}

impl<W: Write> Writer<W> {
    pub fn new(file: W, name: Name, keys: &Keyring, head: &Head) -> Result<Self, WriteError> {
        let mut writer = Self {
            out: BufWriter::with_capacity(FILE_BUFFER, file),
            name,
            sealer: keys.sealer()?,
            frames: 0,
            entries: 0,
            frame: Vec::with_capacity(FRAME + 1024),
        };
        writer.out.write_all(&MAGIC)?;
        writer.out.write_all(&[VERSION])?;
        writer.frame.extend_from_slice(&head.key);
        writer
            .frame
            .extend_from_slice(&head.full_at.0.to_le_bytes());
        writer.frame.extend_from_slice(head.audience.as_bytes());
        writer.end_frame(Kind::Head)?;
        Ok(writer)
    }

    pub fn push(&mut self, entry: &Entry<'_>) -> Result<(), WriteError> {
        let (first, last) = entry.sent.unwrap_or((UNSENT, UNSENT));
        let length = u32::try_from(entry.people.len()).map_err(io::Error::other)?;
        let frame = &mut self.frame;
        frame.extend_from_slice(&entry.user.to_le_bytes());
        frame.extend_from_slice(&entry.fingerprint.to_le_bytes());
        frame.extend_from_slice(&first.to_le_bytes());
        frame.extend_from_slice(&last.to_le_bytes());
        frame.extend_from_slice(&length.to_le_bytes());
        frame.extend_from_slice(entry.people);
        self.entries += 1;
        if self.frame.len() >= FRAME {
            self.end_frame(Kind::Entries)?;
        }
        Ok(())
    }

    /// Writes the end; a file is not synced.
    pub fn finish(mut self) -> Result<W, WriteError> {
        if !self.frame.is_empty() {
            self.end_frame(Kind::Entries)?;
        }
        self.frame.extend_from_slice(&self.entries.to_le_bytes());
        self.end_frame(Kind::End)?;
        let file = self.out.into_inner();
        Ok(file.map_err(|error| error.into_error())?)
    }

    fn end_frame(&mut self, kind: Kind) -> Result<(), WriteError> {
        let context = context(&self.name, kind, self.frames);
        let length = u32::try_from(self.frame.len()).map_err(io::Error::other)?;
        let piece = self.sealer.next_piece();
        let stamp = *piece.stamp();
        let tag = piece.seal(&context, &mut self.frame)?;
        self.out.write_all(&[kind as u8])?;
        self.out.write_all(&length.to_le_bytes())?;
        self.out.write_all(&stamp)?;
        self.out.write_all(&self.frame)?;
        self.out.write_all(&tag)?;
        self.frames = self.frames.wrapping_add(1);
        self.frame.clear();
        Ok(())
    }
}

/// Reads one snapshot, user by user.
pub(super) struct Cursor {
    input: BufReader<Source>,
    name: Name,
    keys: Arc<Keyring>,
    head: Head,
    frames: u32,
    entries: u64,
    /// The current frame, and where the entry behind the current one begins.
    frame: Vec<u8>,
    next: usize,
    current: Option<Current>,
}

#[derive(Clone, Copy)]
struct Current {
    user: u64,
    fingerprint: u128,
    sent: Option<(u32, u32)>,
    people: (usize, usize),
}

impl Cursor {
    /// Stands on the first user.
    pub fn open(file: Source, name: Name, keys: Arc<Keyring>) -> Result<Self, ReadError> {
        let mut input = BufReader::with_capacity(FILE_BUFFER, file);
        let mut magic = [0; MAGIC.len() + 1];
        input
            .read_exact(&mut magic)
            .map_err(|error| match error.kind() {
                io::ErrorKind::UnexpectedEof => ReadError::NotOurs,
                _ => ReadError::Io(error),
            })?;
        let [magic @ .., version] = magic;
        if magic != MAGIC {
            return Err(ReadError::NotOurs);
        }
        if version != VERSION {
            return Err(ReadError::Version(version));
        }
        let mut cursor = Self {
            input,
            name,
            keys,
            head: Head {
                key: [0; 16],
                full_at: UnixMillis(0),
                audience: String::new(),
            },
            frames: 0,
            entries: 0,
            frame: Vec::new(),
            next: 0,
            current: None,
        };
        if cursor.read_frame()? != Kind::Head {
            return Err(ReadError::Malformed);
        }
        let (key, full_at) = (cursor.take()?, u64::from_le_bytes(cursor.take()?));
        let audience = cursor.frame.split_off(cursor.next);
        cursor.head = Head {
            key,
            full_at: UnixMillis(full_at),
            audience: String::from_utf8(audience).map_err(|_| ReadError::Malformed)?,
        };
        cursor.advance()?;
        Ok(cursor)
    }

    pub fn head(&self) -> &Head {
        &self.head
    }

    /// The user that the cursor stands on; `None` behind the last.
    pub fn entry(&self) -> Option<Entry<'_>> {
        let current = self.current?;
        Some(Entry {
            user: current.user,
            fingerprint: current.fingerprint,
            sent: current.sent,
            people: self
                .frame
                .get(current.people.0..current.people.1)
                .unwrap_or_default(),
        })
    }

    /// Goes to the next user.
    pub fn advance(&mut self) -> Result<(), ReadError> {
        let before = self.current.take();
        while self.next >= self.frame.len() {
            match self.read_frame()? {
                Kind::Head => return Err(ReadError::Malformed),
                Kind::Entries => {}
                Kind::End => {
                    let said = u64::from_le_bytes(self.take()?);
                    let ended = self.next == self.frame.len() && said == self.entries;
                    return if ended {
                        Ok(())
                    } else {
                        Err(ReadError::Malformed)
                    };
                }
            }
        }
        let user = u64::from_le_bytes(self.take()?);
        let fingerprint = u128::from_le_bytes(self.take()?);
        let first = u32::from_le_bytes(self.take()?);
        let last = u32::from_le_bytes(self.take()?);
        let length = u32::from_le_bytes(self.take()?) as usize;
        let start = self.next;
        let end = start.saturating_add(length);
        if end > self.frame.len() || before.is_some_and(|before| before.user >= user) {
            return Err(ReadError::Malformed);
        }
        self.next = end;
        self.entries += 1;
        self.current = Some(Current {
            user,
            fingerprint,
            sent: (first != UNSENT).then_some((first, last)),
            people: (start, end),
        });
        Ok(())
    }

    fn take<const N: usize>(&mut self) -> Result<[u8; N], ReadError> {
        let rest = self.frame.get(self.next..).unwrap_or_default();
        let bytes = rest.first_chunk::<N>().ok_or(ReadError::Malformed)?;
        self.next += N;
        Ok(*bytes)
    }

    fn read_frame(&mut self) -> Result<Kind, ReadError> {
        let mut head = [0; 5];
        self.read(&mut head)?;
        let [kind, length @ ..] = head;
        let kind = match kind {
            1 => Kind::Head,
            2 => Kind::Entries,
            3 => Kind::End,
            _ => return Err(ReadError::Malformed),
        };
        let length = u32::from_le_bytes(length) as usize;
        if length > MOST_FRAME {
            return Err(ReadError::Malformed);
        }
        let mut stamp = [0; STAMP];
        self.read(&mut stamp)?;
        let mut frame = std::mem::take(&mut self.frame);
        frame.resize(length + TAG, 0);
        self.read(&mut frame)?;
        let context = context(&self.name, kind, self.frames);
        self.keys.open(&stamp, &context, &mut frame)?;
        frame.truncate(length);
        self.frames = self.frames.wrapping_add(1);
        self.frame = frame;
        self.next = 0;
        Ok(kind)
    }

    fn read(&mut self, bytes: &mut [u8]) -> Result<(), ReadError> {
        self.input
            .read_exact(bytes)
            .map_err(|error| match error.kind() {
                io::ErrorKind::UnexpectedEof => ReadError::Malformed,
                _ => ReadError::Io(error),
            })
    }
}

#[cfg(test)]
mod tests {
    use std::io::Seek;
    use std::path::Path;

    use super::*;
    use crate::changes::reads::Reads;

    const NAME: Name = Name {
        schedule: ScheduleKey([1; 16]),
        delivery: DeliveryId([2; 16]),
        role: Role::Users,
    };

    fn head() -> Head {
        Head {
            key: [3; 16],
            full_at: UnixMillis(4),
            audience: "buyer".to_owned(),
        }
    }

    fn written(keys: &Arc<Keyring>, users: u64) -> Vec<u8> {
        let file = tempfile::tempfile().unwrap();
        let mut writer = Writer::new(file, NAME, keys, &head()).unwrap();
        for user in 0..users {
            let people = vec![user as u8; user as usize % 50];
            writer.push(&entry(user, &people)).unwrap();
        }
        let mut file = writer.finish().unwrap();
        file.rewind().unwrap();
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).unwrap();
        bytes
    }

    fn entry(user: u64, people: &[u8]) -> Entry<'_> {
        Entry {
            user: user * 7,
            fingerprint: u128::from(user) << 70,
            sent: (!user.is_multiple_of(3)).then_some((user as u32, user as u32 + 1)),
            people,
        }
    }

    /// Users that are read before the end or an error.
    fn read(bytes: &[u8], name: Name, keys: &Arc<Keyring>) -> (u64, Result<(), ReadError>) {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(bytes).unwrap();
        file.rewind().unwrap();
        let mut cursor = match Cursor::open(
            Reads::default().of(file, Path::new("a snapshot")),
            name,
            Arc::clone(keys),
        ) {
            Ok(cursor) => cursor,
            Err(error) => return (0, Err(error)),
        };
        assert_eq!(cursor.head(), &head());
        let mut count = 0;
        while let Some(found) = cursor.entry() {
            let people = vec![count as u8; count as usize % 50];
            assert_eq!(found, entry(count, &people));
            count += 1;
            if let Err(error) = cursor.advance() {
                return (count, Err(error));
            }
        }
        (count, Ok(()))
    }

    #[test]
    fn users_come_back_as_they_were_written() {
        let keys = Arc::new(Keyring::ephemeral().unwrap());
        for users in [0, 1, 5_000] {
            let bytes = written(&keys, users);
            let (count, end) = read(&bytes, NAME, &keys);
            assert_eq!(count, users);
            end.unwrap();
        }
    }

    #[test]
    fn a_file_that_is_cut_or_altered_anywhere_is_told_and_what_came_before_it_is_good() {
        let keys = Arc::new(Keyring::ephemeral().unwrap());
        let bytes = written(&keys, 5_000);
        assert!(bytes.len() > 3 * FRAME, "several frames");
        for at in (0..bytes.len()).step_by(bytes.len() / 97) {
            let (count, end) = read(&bytes[..at], NAME, &keys);
            assert!(end.is_err() && count <= 5_000, "cut at {at}");
            let mut altered = bytes.clone();
            altered[at] ^= 1;
            assert!(read(&altered, NAME, &keys).1.is_err(), "altered at {at}");
        }
    }

    #[test]
    fn another_key_another_place_and_another_version_are_refused() {
        let keys = Arc::new(Keyring::ephemeral().unwrap());
        let mut bytes = written(&keys, 3);
        let other = Arc::new(Keyring::ephemeral().unwrap());
        assert!(matches!(
            read(&bytes, NAME, &other).1,
            Err(ReadError::Sealed(_))
        ));
        for name in [
            Name {
                schedule: ScheduleKey([9; 16]),
                ..NAME
            },
            Name {
                delivery: DeliveryId([9; 16]),
                ..NAME
            },
            Name {
                role: Role::Gone,
                ..NAME
            },
        ] {
            assert!(matches!(
                read(&bytes, name, &keys).1,
                Err(ReadError::Sealed(_))
            ));
        }
        bytes[8] = 2;
        assert!(matches!(
            read(&bytes, NAME, &keys).1,
            Err(ReadError::Version(2))
        ));
        bytes[0] = 0;
        assert!(matches!(
            read(&bytes, NAME, &keys).1,
            Err(ReadError::NotOurs)
        ));
    }

    #[test]
    fn nothing_of_a_user_can_be_read_in_the_file() {
        let keys = Arc::new(Keyring::ephemeral().unwrap());
        let file = tempfile::tempfile().unwrap();
        let mut writer = Writer::new(file, NAME, &keys, &head()).unwrap();
        writer.push(&entry(1, b"someone@example.com")).unwrap();
        let mut file = writer.finish().unwrap();
        file.rewind().unwrap();
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).unwrap();
        assert!(!bytes.windows(7).any(|part| part == b"someone"));
    }
}
