//! What a supervisor such as systemd is told: ready, alive, stopping. `sd_notify(3)` is a line of
//! text in a datagram to the socket that `NOTIFY_SOCKET` names.

use std::env;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

/// The way to the supervisor; to none, if nobody asked to be told.
#[derive(Debug, Default)]
pub struct Systemd {
    socket: Option<UnixDatagram>,
    watchdog: Option<Duration>,
}

impl Systemd {
    /// As the environment says. A socket that cannot be used is logged: then the supervisor will
    /// take the daemon for one that does not start.
    pub fn from_environment() -> Self {
        let variable = |name| env::var(name).ok();
        let Some(path) = env::var_os("NOTIFY_SOCKET").filter(|path| !path.is_empty()) else {
            return Self::default();
        };
        let socket = match connect(path.as_encoded_bytes()) {
            Ok(socket) => Some(socket),
            Err(error) => {
                tracing::warn!(%error, "NOTIFY_SOCKET is set and cannot be used");
                None
            }
        };
        let ours = variable("WATCHDOG_PID").is_none_or(|pid| pid == std::process::id().to_string());
        let watchdog = variable("WATCHDOG_USEC").and_then(|micros| micros.parse().ok());
        Self {
            watchdog: watchdog
                .filter(|micros| ours && *micros > 0 && socket.is_some())
                .map(Duration::from_micros),
            socket,
        }
    }

    /// How often [`Systemd::alive`] is to be called, if at all: at half of what is allowed, as
    /// `sd_watchdog_enabled(3)` advises.
    pub fn watchdog(&self) -> Option<Duration> {
        self.watchdog.map(|period| period / 2)
    }

    /// The ports are open and the outbox is too.
    pub fn ready(&self) {
        self.tell("READY=1\nSTATUS=Deliveries are taken.");
    }

    /// The parts of the daemon work.
    pub fn alive(&self) {
        self.tell("WATCHDOG=1");
    }

    /// One of them does not; without [`Systemd::alive`] the supervisor will end the daemon.
    pub fn troubled(&self, why: &str) {
        self.tell(&format!("STATUS={}", why.replace('\n', " ")));
    }

    /// The shutdown has begun.
    pub fn stopping(&self) {
        self.tell("STOPPING=1\nSTATUS=Deliveries and requests under way are finished.");
    }

    fn tell(&self, text: &str) {
        if let Some(socket) = &self.socket
            && let Err(error) = socket.send(text.as_bytes())
        {
            tracing::warn!(%error, "the supervisor could not be told");
        }
    }
}

/// A path, or a name in the abstract namespace behind an `@`.
fn connect(name: &[u8]) -> io::Result<UnixDatagram> {
    use std::os::unix::ffi::OsStrExt;
    let address = match name.strip_prefix(b"@") {
        Some(name) => SocketAddr::from_abstract_name(name)?,
        None => SocketAddr::from_pathname(std::ffi::OsStr::from_bytes(name))?,
    };
    let socket = UnixDatagram::unbound()?;
    socket.connect_addr(&address)?;
    // A supervisor that does not read must not stop the daemon.
    socket.set_nonblocking(true)?;
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_kinds_of_socket_are_told() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("notify");
        let abstract_name = format!("looker-feed-test-{}", std::process::id());
        let address = SocketAddr::from_abstract_name(&abstract_name).unwrap();
        let named = UnixDatagram::bind(&path).unwrap();
        let nameless = UnixDatagram::bind_addr(&address).unwrap();
        let names = [path.to_str().unwrap(), &format!("@{abstract_name}")];
        for (name, receiver) in names.into_iter().zip([named, nameless]) {
            let systemd = Systemd {
                socket: Some(connect(name.as_bytes()).unwrap()),
                watchdog: Some(Duration::from_secs(10)),
            };
            assert_eq!(systemd.watchdog(), Some(Duration::from_secs(5)));
            systemd.ready();
            systemd.stopping();
            for begin in ["READY=1\n", "STOPPING=1\n"] {
                let mut buffer = [0; 100];
                receiver.recv(&mut buffer).unwrap();
                assert!(buffer.starts_with(begin.as_bytes()), "{name} {begin}");
            }
        }
        assert!(connect(b"/nowhere/at/all").is_err());
    }
}
