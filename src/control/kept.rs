//! The history as a file, so that the charts outlive a restart. It holds numbers only, of nobody. A
//! file that cannot be read costs the charts their past and nothing else.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use super::history::Kept;

/// Ours has some 400 kB.
const MOST: u64 = 4 << 20;

/// What was kept; `None`: nothing yet.
///
/// # Errors
/// The file cannot be read, or is not one of ours.
pub(super) fn read(path: &Path) -> io::Result<Option<Kept>> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let mut text = Vec::new();
    file.take(MOST).read_to_end(&mut text)?;
    let kept = serde_json::from_slice(&text)
        .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
    Ok(Some(kept))
}

/// Puts it in the place of what was kept before, whole or not at all.
pub(super) fn write(path: &Path, kept: &Kept) -> io::Result<()> {
    let mut new = path.as_os_str().to_owned();
    new.push(".new");
    let text = serde_json::to_vec(kept)?;
    let mut file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&new)?;
    file.write_all(&text)?;
    file.sync_data()?;
    fs::rename(&new, path)
}
