//! A wall clock that is off, as a daemon sees it: by `libfaketime`, where it is installed.

use std::path::PathBuf;

/// See the module.
#[derive(Clone, Debug)]
pub struct Shifted {
    library: Option<PathBuf>,
    hours: i32,
}

impl Shifted {
    /// A clock that is so many hours ahead. Where the library is not installed it goes right, which
    /// [`library`] says.
    pub fn by(hours: i32) -> Self {
        Self {
            library: (hours != 0).then(library).flatten(),
            hours,
        }
    }

    /// What runs a daemon under this clock, before its own arguments.
    pub fn wrapper(&self) -> Vec<String> {
        let Some(library) = &self.library else {
            return Vec::new();
        };
        vec![
            "env".to_owned(),
            format!("LD_PRELOAD={}", library.display()),
            format!("FAKETIME={:+}", self.hours * 3_600),
            // Waits go by the steady clock, which cannot be set on a real machine either.
            "FAKETIME_DONT_FAKE_MONOTONIC=1".to_owned(),
        ]
    }

    /// Removes what the library leaves of a process that was killed.
    pub fn tidy(&self, pid: u32) {
        if self.library.is_some() {
            for name in ["faketime_shm_", "sem.faketime_sem_"] {
                // One that ended by itself has removed it.
                let _ = std::fs::remove_file(format!("/dev/shm/{name}{pid}"));
            }
        }
    }
}

/// The library; `None`, and a line that says so, where it is not installed. With `CI=true` it must be.
pub fn library() -> Option<PathBuf> {
    let found = std::fs::read_dir("/usr/lib").ok().and_then(|entries| {
        let mut paths = entries.filter_map(|entry| {
            let path = entry.ok()?.path().join("faketime/libfaketime.so.1");
            path.exists().then_some(path)
        });
        paths.next()
    });
    if found.is_none() {
        let required = std::env::var("CI").is_ok_and(|value| value == "true");
        assert!(
            !required,
            "libfaketime is not installed, and CI must test with it"
        );
        eprintln!(
            "NOT TESTED: clocks that are off, since libfaketime is not installed (Debian: faketime)"
        );
    }
    found
}
