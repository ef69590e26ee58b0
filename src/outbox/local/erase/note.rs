//! The note in the directory that an erasure is under way: what is to be erased, in the caller's own
//! form. It is durable before anything is erased and goes when all is.

use std::io;

use crate::outbox::error::Error;
use crate::outbox::local::files::read::{ReadFile, sound};
use crate::outbox::local::handle::Local;

/// Begins an erasure: what it is to erase is durable on return.
pub(in crate::outbox) fn begin(local: &Local, what: &[u8]) -> Result<(), Error> {
    local.shared.check_healthy()?;
    let (layout, disk) = (&local.shared.layout, &local.shared.disk);
    let path = layout.erasing();
    let write = || -> io::Result<()> {
        let draft = layout.draft(&path);
        disk.remove(&draft)?;
        let file = disk.create(&draft)?;
        disk.write(&file, &draft, 0, what)?;
        disk.sync(&file, &draft)?;
        disk.rename(&draft, &path)?;
        disk.sync_directory(layout.root())
    };
    write().map_err(Error::io("an erasure could not be begun"))
}

/// What is to be erased; `None`: no erasure is under way.
pub(in crate::outbox) fn pending(local: &Local) -> Result<Option<Vec<u8>>, Error> {
    let read = ReadFile::open(&local.shared.disk, &local.shared.layout.erasing());
    sound(read.and_then(|file| file.whole())).map_err(|error| local.unreadable(error))
}

/// Ends an erasure. Durable on return.
pub(in crate::outbox) fn end(local: &Local) -> Result<(), Error> {
    let (layout, disk) = (&local.shared.layout, &local.shared.disk);
    disk.remove(&layout.erasing())
        .and_then(|()| disk.sync_directory(layout.root()))
        .map_err(Error::io("an erasure could not be ended"))
}
