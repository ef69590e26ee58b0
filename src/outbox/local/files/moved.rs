//! The mark of an outbox that is being moved elsewhere, or has been: one line in `MOVED`. With it, no
//! daemon starts on the directory, so that nothing is sent from two places.

use std::io;

use data_encoding::HEXLOWER;

use crate::outbox::error::OpenError;
use crate::outbox::local::files::disk::Disk;
use crate::outbox::local::files::layout::Layout;
use crate::outbox::local::files::read::{ReadFile, Unreadable, sound};

const BEGUN: &str = "begun";
const DONE: &str = "done";

/// See the module.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::outbox) struct Mark {
    /// Names the move.
    pub id: [u8; 16],
    /// Whether all is there and counts; until then the directory is what counts, or that is not known.
    pub done: bool,
    /// Where it goes, for people.
    pub to: String,
}

impl Mark {
    /// The mark of a directory, if it has one. One that is damaged is a move that has begun, of no
    /// known name.
    pub fn read(disk: &Disk, layout: &Layout) -> Result<Option<Self>, Unreadable> {
        let file = ReadFile::open(disk, &layout.moved());
        let Some(bytes) = sound(file.and_then(|file| file.whole()))? else {
            return Ok(None);
        };
        let unknown = Self {
            id: [0; 16],
            done: false,
            to: "another place".to_owned(),
        };
        Ok(Some(Self::parse(&bytes).unwrap_or(unknown)))
    }

    /// Puts the mark on a directory, in the place of an earlier one. Durable on return.
    pub fn write(&self, disk: &Disk, layout: &Layout) -> io::Result<()> {
        let path = layout.moved();
        let fresh = path.with_extension("new");
        disk.remove(&fresh)?;
        let file = disk.create(&fresh)?;
        disk.write(&file, &fresh, 0, self.line().as_bytes())?;
        disk.sync(&file, &fresh)?;
        disk.rename(&fresh, &path)?;
        disk.sync_directory(layout.root())
    }

    /// Takes the mark off: the directory is an outbox as before.
    pub fn remove(disk: &Disk, layout: &Layout) -> io::Result<()> {
        disk.remove(&layout.moved())?;
        disk.sync_directory(layout.root())
    }

    fn line(&self) -> String {
        let stand = if self.done { DONE } else { BEGUN };
        let to = self.to.replace(char::is_whitespace, " ");
        let line = format!("{stand} {} {to}", HEXLOWER.encode(&self.id));
        format!("{line}\ncrc={:08x}\n", crc32c::crc32c(line.as_bytes()))
    }

    fn parse(bytes: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(bytes).ok()?;
        let mut words = text.lines().next()?.splitn(3, ' ');
        let stand = words.next()?;
        let id = HEXLOWER.decode(words.next()?.as_bytes()).ok()?;
        let mark = Self {
            id: id.try_into().ok()?,
            done: stand == DONE,
            to: words.next()?.to_owned(),
        };
        (mark.line() == text).then_some(mark)
    }
}

/// Refuses a directory with a mark.
pub(in crate::outbox) fn check_not_moved(disk: &Disk, layout: &Layout) -> Result<(), OpenError> {
    let path = layout.root();
    match Mark::read(disk, layout).map_err(|error| error.at(path))? {
        None => Ok(()),
        Some(mark) => Err(OpenError::Moved {
            path: path.to_owned(),
            to: mark.to,
            done: mark.done,
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_comes_back_and_a_damaged_one_still_keeps_daemons_away() {
        let directory = tempfile::tempdir().unwrap();
        let (disk, layout) = (Disk::default(), Layout::new(directory.path()));
        assert_eq!(Mark::read(&disk, &layout).unwrap(), None);
        check_not_moved(&disk, &layout).unwrap();
        let mut mark = Mark {
            id: [7; 16],
            done: false,
            to: "db1:5432,db2:5432/feed".to_owned(),
        };
        for done in [false, true] {
            mark.done = done;
            mark.write(&disk, &layout).unwrap();
            assert_eq!(Mark::read(&disk, &layout).unwrap().as_ref(), Some(&mark));
            assert!(check_not_moved(&disk, &layout).is_err());
        }
        std::fs::write(layout.moved(), "done 07").unwrap();
        let damaged = Mark::read(&disk, &layout).unwrap().unwrap();
        assert!(!damaged.done && damaged.id == [0; 16]);
        assert!(check_not_moved(&disk, &layout).is_err());
        Mark::remove(&disk, &layout).unwrap();
        check_not_moved(&disk, &layout).unwrap();
    }
}
