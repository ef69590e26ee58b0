//! Who did what: each changing call, with who made it, when, and what it did; attempts that were refused;
//! reloads, keys, and the end of erasures. Durable before the call
//! is answered, and bounded: two files of JSON lines, the older of which goes when the newer is full.
//!
//! A call whose record cannot be written is answered all the same, since it has been done; the log
//! says so.

use std::fs::{self, OpenOptions};
use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use super::view::Action;
use crate::clock::Clock;

/// Bytes of a file, some 20,000 records.
const FULL: u64 = 4 << 20;

/// Bytes of a line that is read. Ours are far shorter.
const LINE: usize = 16 << 10;

/// The record of who did what. Cloning gives another handle to the same one.
#[derive(Clone, Debug)]
pub struct AuditLog(pub(super) Arc<Audit>, Clock);

impl AuditLog {
    /// It lies in this file and another one beside it.
    pub fn new(file: PathBuf, clock: Clock) -> Self {
        Self(Arc::new(Audit::new(file)), clock)
    }

    /// Writes down what did not come as a call of the admin side. A failure is in the log. Blocks on the
    /// disk.
    pub fn record(&self, who: &str, call: &str, said: &str) {
        let action = Action {
            at: self.1.now(),
            who: who.to_owned(),
            call: call.to_owned(),
            status: 200,
            said: said.to_owned(),
        };
        if let Err(error) = self.0.record(&action) {
            tracing::error!(%error, "the audit log could not be written");
        }
    }
}

/// The records. Its calls block on the disk.
#[derive(Debug)]
pub(super) struct Audit {
    file: PathBuf,
    writing: Mutex<()>,
}

impl Audit {
    pub fn new(file: PathBuf) -> Self {
        Self {
            file,
            writing: Mutex::default(),
        }
    }

    /// Writes a record down.
    pub fn record(&self, action: &Action) -> io::Result<()> {
        let mut line = serde_json::to_vec(action)?;
        line.push(b'\n');
        let _one = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        if fs::metadata(&self.file).is_ok_and(|meta| meta.len() >= FULL) {
            fs::rename(&self.file, self.older())?;
        }
        let mut file = OpenOptions::new()
            .append(true)
            .create(true)
            .mode(0o600)
            .open(&self.file)?;
        file.write_all(&line)?;
        file.sync_data()
    }

    /// The newest records, newest first, at most `limit` after leaving out `skip`; and whether there
    /// are more.
    pub fn newest(&self, skip: usize, limit: usize) -> io::Result<(Vec<Action>, bool)> {
        let mut all = read(&self.older())?;
        all.extend(read(&self.file)?);
        let left = all.len().saturating_sub(skip);
        let shown: Vec<_> = all.drain(..left).rev().take(limit).collect();
        let more = shown.len() < left;
        Ok((shown, more))
    }

    fn older(&self) -> PathBuf {
        let mut name = self.file.as_os_str().to_owned();
        name.push(".1");
        PathBuf::from(name)
    }
}

/// The records of a file. A line that a crash cut short is left out.
fn read(file: &Path) -> io::Result<Vec<Action>> {
    let file = match fs::File::open(file) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let mut actions = Vec::new();
    for line in BufReader::new(file).split(b'\n') {
        let line = line?;
        if line.len() <= LINE {
            actions.extend(serde_json::from_slice::<Action>(&line));
        }
    }
    Ok(actions)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::UnixMillis;

    fn action(n: u64) -> Action {
        Action {
            at: UnixMillis(n),
            who: "ann".to_owned(),
            call: format!("POST /api/v1/deliveries/{n}/cancel"),
            status: 200,
            said: "It is cancelled.".to_owned(),
        }
    }

    #[test]
    fn records_are_read_newest_first_and_outlive_a_restart_and_a_torn_line() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("outbox.audit");
        let audit = Audit::new(file.clone());
        assert_eq!(audit.newest(0, 5).unwrap(), (Vec::new(), false));
        for n in 0..5 {
            audit.record(&action(n)).unwrap();
        }
        let mut torn = OpenOptions::new().append(true).open(&file).unwrap();
        torn.write_all(b"{\"at\":9,\"wh\n").unwrap();
        let audit = Audit::new(file);
        let newest = |skip, limit| {
            let (actions, more) = audit.newest(skip, limit).unwrap();
            let at: Vec<_> = actions.iter().map(|action| action.at.0).collect();
            (at, more)
        };
        assert_eq!(newest(0, 2), (vec![4, 3], true));
        assert_eq!(newest(2, 9), (vec![2, 1, 0], false));
        assert_eq!(newest(9, 9), (Vec::new(), false));
    }

    #[test]
    fn two_files_bound_it() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("outbox.audit");
        let audit = Audit::new(file.clone());
        let mut long = action(0);
        long.said = "x".repeat(8 << 10);
        let lines = 3 * FULL / (8 << 10);
        // Written past the sync, which is not what is tried here.
        let mut text = Vec::new();
        for n in 0..lines {
            long.at = UnixMillis(n);
            serde_json::to_writer(&mut text, &long).unwrap();
            text.push(b'\n');
            if text.len() as u64 >= FULL {
                fs::write(&file, &text).unwrap();
                text.clear();
                audit.record(&action(n)).unwrap();
            }
        }
        let files = fs::read_dir(folder.path()).unwrap();
        let sizes = files.map(|entry| entry.unwrap().metadata().unwrap().len());
        let sizes: Vec<u64> = sizes.collect();
        assert_eq!(sizes.len(), 2);
        let size: u64 = sizes.iter().sum();
        assert!(size < 3 * FULL, "{size}");
        assert!(audit.newest(0, 1).unwrap().0[0].at.0 > 0);
    }
}
