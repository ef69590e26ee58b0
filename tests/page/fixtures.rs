//! What is delivered, and what becomes of it.

use std::path::{Path, PathBuf};

use looker_feed::looker::{Shape, document};
use looker_feed::model::DataType;
use serde_json::{Value, json};

use crate::browser::Browser;
use crate::support::{Daemon, SECRET, run};

/// mParticle refuses what holds this.
pub const UNLUCKY: &str = "unlucky";

/// `looker-feed send`, so that a delivery has a title.
pub fn send(daemon: &Daemon, title: &str, file: &Path, data_type: &str) {
    let (code, said) = send_to(daemon, title, file, data_type, "us1-3f9c2b7d41e8a605");
    assert_eq!(code, Some(0), "{said}");
}

/// The same to the account of a key, however it ends: the exit code, and what was printed.
pub fn send_to(
    daemon: &Daemon,
    title: &str,
    file: &Path,
    data_type: &str,
    key: &str,
) -> (Option<i32>, String) {
    let arguments = [
        "send",
        file.to_str().expect("a path"),
        "--title",
        title,
        "--api-key",
        key,
        "--hub",
        daemon.hub.as_str(),
        "--data-type",
        data_type,
    ];
    let settings = [("INTAKE__SECRET", SECRET), ("API_SECRET", "account-secret")];
    let (code, out, err) = run(&arguments, &settings);
    (code, format!("{out}\n{err}"))
}

/// `users` rows, each of a user of its own; the one in the middle is unlucky, the last has no
/// identity.
pub fn file(directory: &Path, users: u64) -> PathBuf {
    let rows: Vec<_> = (0..users)
        .map(|user| {
            let id = match user {
                user if user == users / 2 => json!(UNLUCKY),
                user if user + 1 == users => Value::Null,
                user => json!(user),
            };
            json!({"u.id": {"value": id}})
        })
        .collect();
    let document = json!({
        "fields": {"dimensions": [{"name": "u.id", "tags": ["mp_customer_id"]}]},
        "data": rows,
    });
    written(directory, "marked.json", document.to_string().as_bytes())
}

pub fn generated(directory: &Path, rows: u64, users: u64, data_type: DataType) -> PathBuf {
    let shape = Shape {
        rows,
        users,
        data_type,
        ..Shape::default()
    };
    let bytes: Vec<u8> = document(&shape).flatten().collect();
    written(directory, &format!("{rows}-{users}.json"), &bytes)
}

pub fn written(directory: &Path, name: &str, bytes: &[u8]) -> PathBuf {
    let path = directory.join(name);
    std::fs::write(&path, bytes).expect("a file");
    path
}

impl Browser {
    /// To an address of the daemon.
    pub async fn visit(&self, daemon: &Daemon, path: &str) {
        let address = daemon.admin.join(path).expect("an address");
        self.page.goto(address.as_str()).await.expect("the page");
    }
}
