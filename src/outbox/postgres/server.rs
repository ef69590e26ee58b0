//! Which server: an address as `psql` takes it, and whom to trust there.

use std::fmt;
use std::path::Path;
use std::str::FromStr;
use std::time::Duration;

use tokio_postgres::Config;
use tokio_postgres::config::{Host, SslMode, TargetSessionAttrs};
use tokio_postgres_rustls::MakeRustlsConnect;

use crate::tls;

/// A host that does not answer is left for the next one after this.
const CONNECT: Duration = Duration::from_secs(5);
/// A connection on which nothing is acknowledged for this long is given up by the system.
const SILENT: Duration = Duration::from_secs(10);
/// Shown by the server beside each connection.
const NAME: &str = "looker-feed";

/// A server, or several of which the one that takes writes is meant.
#[derive(Clone)]
pub struct Server {
    pub(super) config: Config,
    pub(super) tls: MakeRustlsConnect,
}

/// The address of a server is of no use. No part of it is repeated, since a password may be in it.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// It is none.
    #[error(
        "it must be an address like postgres://user@host1:5432,host2:5432/database?sslmode=verify-full"
    )]
    Scheme,
    /// The driver cannot read it.
    #[error("it cannot be read: {0}")]
    Malformed(String),
    /// A value of `sslmode` that would not say whom one talks to.
    #[error(
        "sslmode must be verify-full, or disable for a server on this machine or behind a tunnel of your own; it is {0:?}"
    )]
    SslMode(String),
    /// The certificate of the authority.
    #[error("sslrootcert")]
    Authority(#[from] tls::TlsError),
}

impl Server {
    /// Reads an address. `sslmode` is `verify-full` (the certificate must be good and name the host)
    /// or `disable`; without one, it is `verify-full` unless all hosts are sockets or loopback
    /// addresses. `sslrootcert` names a file with an authority to trust beside Mozilla's. `password`
    /// goes before one in the address.
    ///
    /// # Errors
    /// See [`ServerError`].
    pub fn parse(address: &str, password: Option<&str>) -> Result<Self, ServerError> {
        if !["postgres://", "postgresql://"]
            .iter()
            .any(|scheme| address.starts_with(scheme))
        {
            return Err(ServerError::Scheme);
        }
        let (front, query) = address.split_once('?').unwrap_or((address, ""));
        let mut rest = Vec::new();
        let (mut mode, mut authority) = (None, None);
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            match pair.split_once('=') {
                Some(("sslmode", value)) => mode = Some(value),
                Some(("sslrootcert", value)) => authority = Some(value),
                _ => rest.push(pair),
            }
        }
        let plain = format!("{front}?{}", rest.join("&"));
        let mut config = Config::from_str(plain.trim_end_matches('?'))
            .map_err(|error| ServerError::Malformed(error.to_string()))?;
        let secure = match mode {
            Some("verify-full" | "require") => true,
            Some("disable") => false,
            Some(other) => return Err(ServerError::SslMode(other.to_owned())),
            None => !config.get_hosts().iter().all(is_near),
        };
        config
            .ssl_mode(if secure {
                SslMode::Require
            } else {
                SslMode::Disable
            })
            .application_name(NAME)
            .connect_timeout(CONNECT)
            .tcp_user_timeout(SILENT)
            .keepalives_idle(SILENT)
            .target_session_attrs(TargetSessionAttrs::ReadWrite);
        if let Some(password) = password {
            config.password(password);
        }
        let tls = tls::client("sslrootcert", authority.map(Path::new))?;
        Ok(Self {
            config,
            tls: MakeRustlsConnect::new(tls),
        })
    }
}

fn is_near(host: &Host) -> bool {
    match host {
        Host::Unix(_) => true,
        Host::Tcp(name) => {
            name == "localhost"
                || name
                    .parse::<std::net::IpAddr>()
                    .is_ok_and(|address| address.is_loopback())
        }
    }
}

/// Hosts and database, without user and password.
impl fmt::Display for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, host) in self.config.get_hosts().iter().enumerate() {
            if at > 0 {
                f.write_str(",")?;
            }
            match host {
                Host::Tcp(name) => f.write_str(name)?,
                Host::Unix(path) => write!(f, "{}", path.display())?,
            }
        }
        write!(f, "/{}", self.config.get_dbname().unwrap_or("(default)"))
    }
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Server({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(address: &str) -> SslMode {
        Server::parse(address, None).unwrap().config.get_ssl_mode()
    }

    #[test]
    fn a_far_host_is_verified_unless_the_address_says_otherwise() {
        for (address, secure) in [
            ("postgres://u@db.example.com/feed", true),
            ("postgres://u@db.example.com,127.0.0.1/feed", true),
            ("postgres://u@db.example.com/feed?sslmode=verify-full", true),
            ("postgres://u@db.example.com/feed?sslmode=disable", false),
            ("postgresql://u@127.0.0.1:5432/feed", false),
            ("postgresql://u@localhost/feed", false),
            ("postgres://u@%2Frun%2Fpostgresql/feed", false),
        ] {
            let want = if secure {
                SslMode::Require
            } else {
                SslMode::Disable
            };
            assert_eq!(mode(address), want, "{address}");
        }
    }

    #[test]
    fn what_is_wrong_is_said_without_the_password() {
        for bad in [
            "mysql://u:secret@h/d",
            "host=h password=secret",
            "postgres://u:secret@h/d?sslmode=prefer",
            "postgres://u:secret@h:port/d",
            "postgres://u:secret@h/d?unheard=of",
            "postgres://u:secret@h/d?sslrootcert=/nowhere.pem",
        ] {
            let error = Server::parse(bad, None).unwrap_err();
            let said = format!("{error} {error:?}");
            assert!(!said.contains("secret"), "{said}");
        }
        let server = Server::parse("postgres://u:secret@one,two/feed", Some("other")).unwrap();
        assert_eq!(server.to_string(), "one,two/feed");
        assert!(!format!("{server:?}").contains("secret"));
        assert_eq!(server.config.get_password(), Some(&b"other"[..]));
    }
}
