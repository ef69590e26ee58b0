//! Directories that nobody but the daemon's user may look into. One that it makes is private from the
//! start; one that was there before may not be.

use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// Everything for the owner, nothing for others.
const PRIVATE: u32 = 0o700;
/// Read, write and search for the group and all others.
const OTHERS: u32 = 0o077;

/// A directory is open to others and cannot be closed.
#[derive(Debug, thiserror::Error)]
#[error(
    "Other users of this machine can look into {path} (mode {mode:o}), which holds what Looker knows of people, and its mode cannot be changed. Make it a directory of the daemon's user with `chmod 700`, or name a directory below it"
)]
pub struct NotPrivate {
    /// The directory.
    path: PathBuf,
    /// Its mode.
    mode: u32,
    /// What the system said.
    source: io::Error,
}

/// Closes a directory to others and says so; one that is not there is none to close.
///
/// # Errors
/// It is open to others, and belongs to another user or lies on a file system that knows no modes.
pub(super) fn close(path: &Path) -> Result<(), NotPrivate> {
    let Ok(metadata) = fs::metadata(path) else {
        return Ok(());
    };
    let mode = metadata.permissions().mode() & 0o7777;
    if mode & OTHERS == 0 {
        return Ok(());
    }
    let failed = |source| NotPrivate {
        path: path.to_owned(),
        mode,
        source,
    };
    fs::set_permissions(path, Permissions::from_mode(PRIVATE)).map_err(failed)?;
    let now = fs::metadata(path).map_err(failed)?.permissions().mode();
    if now & OTHERS != 0 {
        return Err(failed(io::Error::other("the file system keeps no modes")));
    }
    tracing::warn!(
        path = %path.display(),
        mode = format_args!("{mode:o}"),
        "other users of this machine could look into this directory; it was closed to them (mode 700)"
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_that_others_can_look_into_is_closed_to_them() {
        let home = tempfile::tempdir().unwrap();
        for (mode, after) in [
            (0o755, 0o700),
            (0o770, 0o700),
            (0o500, 0o500),
            (0o700, 0o700),
        ] {
            let path = home.path().join(format!("{mode:o}"));
            fs::create_dir(&path).unwrap();
            fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
            close(&path).unwrap();
            let now = fs::metadata(&path).unwrap().permissions().mode() & 0o7777;
            assert_eq!(now, after, "{mode:o}");
        }
        close(&home.path().join("nothing")).unwrap();
    }
}
