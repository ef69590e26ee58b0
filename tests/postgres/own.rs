//! Servers of one test, that it may stop, break and promote.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use crate::server::{Isolation, bin, command, private_directory, psql};

/// A server that ends with the test.
pub struct Own {
    bin: PathBuf,
    pub directory: PathBuf,
}

impl Own {
    /// A new server; `None` where PostgreSQL is not installed, which [`crate::server::database`] says.
    pub fn start(options: &[&str]) -> Option<Self> {
        crate::server::database(Isolation::Default)?;
        let own = Self {
            bin: bin()?,
            directory: private_directory(),
        };
        own.run(
            "initdb",
            &[
                "--no-sync",
                "--auth=trust",
                "--username=postgres",
                "--encoding=UTF8",
            ],
        );
        own.set(&[
            "listen_addresses = ''",
            "shared_buffers = '16MB'",
            "max_connections = 60",
        ]);
        own.set(&[&format!(
            "unix_socket_directories = '{}'",
            own.directory.display()
        )]);
        own.set(options);
        own.up();
        Some(own)
    }

    /// A standby of this one.
    pub fn standby(&self, options: &[&str]) -> Self {
        let own = Self {
            bin: self.bin.clone(),
            directory: private_directory(),
        };
        let from = self.directory.display().to_string();
        let name = format!("host={from} user=postgres application_name=standby");
        own.run(
            "pg_basebackup",
            &["-X", "stream", "-c", "fast", "-R", "-d", &name],
        );
        own.set(&[&format!(
            "unix_socket_directories = '{}'",
            own.directory.display()
        )]);
        own.set(options);
        own.up();
        own
    }

    /// Adds lines to its configuration; the last one of a name counts.
    pub fn set(&self, lines: &[&str]) {
        let text: String = lines.iter().map(|line| format!("{line}\n")).collect();
        let script = format!(
            "printf %s \"$1\" >>'{}'",
            self.data().join("postgresql.auto.conf").display()
        );
        let status = command(Path::new("/bin/sh"))
            .args(["-c", &script, "sh", &text])
            .status()
            .unwrap();
        assert!(status.success());
    }

    pub fn reload(&self) {
        psql(&self.directory, "postgres", "SELECT pg_reload_conf()");
    }

    pub fn up(&self) {
        let log = self.directory.join("log");
        self.run(
            "pg_ctl",
            &["-s", "-w", "-l", &log.display().to_string(), "start"],
        );
    }

    /// Ends it as a crash would: nothing is written any more.
    pub fn crash(&self) {
        self.run("pg_ctl", &["-s", "-w", "-m", "immediate", "stop"]);
    }

    pub fn promote(&self) {
        self.run("pg_ctl", &["-s", "-w", "promote"]);
    }

    pub fn psql(&self, sql: &str) -> String {
        psql(&self.directory, "postgres", sql)
    }

    fn data(&self) -> PathBuf {
        self.directory.join("data")
    }

    fn run(&self, program: &str, arguments: &[&str]) {
        let status = self.status(program, arguments);
        let log = std::fs::read_to_string(self.directory.join("log")).unwrap_or_default();
        assert!(status, "{program} {arguments:?}: {log}");
    }

    fn status(&self, program: &str, arguments: &[&str]) -> bool {
        command(&self.bin.join(program))
            .arg("-D")
            .arg(self.data())
            .args(arguments)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .is_ok_and(|status| status.success())
    }
}

impl Drop for Own {
    fn drop(&mut self) {
        self.status("pg_ctl", &["-s", "-w", "-m", "immediate", "stop"]);
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}

/// The address of a cluster of servers.
pub fn url(servers: &[&Own]) -> String {
    let hosts: Vec<String> = servers
        .iter()
        .map(|own| own.directory.display().to_string().replace('/', "%2F"))
        .collect();
    format!("postgres://postgres@{}/postgres", hosts.join(","))
}
