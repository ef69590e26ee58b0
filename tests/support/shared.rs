//! A shared outbox for daemons of a test: settings beside those of an outbox of their own.

use std::os::unix::fs::PermissionsExt;

use crate::server::{Database, Isolation, database};

/// A database and the key that all daemons on it seal with.
pub struct Shared {
    #[allow(dead_code)] // Not every test program looks into it.
    pub database: Database,
    settings: Vec<(&'static str, String)>,
    _home: tempfile::TempDir,
}

impl Shared {
    /// `None` where PostgreSQL is not installed, which [`database`] says.
    pub fn new() -> Option<Self> {
        let database = database(Isolation::Default)?;
        let home = tempfile::tempdir().expect("a directory");
        let key = home.path().join("key");
        std::fs::write(&key, "5a".repeat(32)).expect("a key");
        std::fs::set_permissions(&key, PermissionsExt::from_mode(0o600)).expect("its mode");
        let settings = vec![
            ("OUTBOX__BACKEND", "postgres".to_owned()),
            ("OUTBOX__URL", database.url()),
            ("OUTBOX__LEASE", "3s".to_owned()),
            ("OUTBOX__ALLOW_UNREPLICATED", "true".to_owned()),
            ("SEAL__KEY_FILE", key.display().to_string()),
        ];
        Some(Self {
            database,
            settings,
            _home: home,
        })
    }

    /// What a daemon on it is told.
    pub fn settings(&self) -> Vec<(&str, &str)> {
        let settings = self.settings.iter();
        settings
            .map(|(name, value)| (*name, value.as_str()))
            .collect()
    }
}
