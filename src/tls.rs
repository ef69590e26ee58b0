//! TLS for both directions: whom the daemon trusts when it calls, and with what it answers when it
//! serves TLS itself. rustls with ring, TLS 1.2 and 1.3.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore, ServerConfig};

/// Bundles of all public authorities are some 250 kB.
const MAX_FILE_BYTES: u64 = 4 << 20;

/// Files are looked at again when a connection comes and the last look is older than this.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// TLS cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read, or is larger than 4 MiB.
    #[error("{what} {path} cannot be read")]
    Read {
        /// Which file, by its key in the configuration.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A file is not PEM, or lacks what it is there for.
    #[error("{what} {path} holds no {wanted} in PEM form")]
    Pem {
        /// Which file.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// A certificate or a private key.
        wanted: &'static str,
        /// What the parser said.
        source: pem::Error,
    },
    /// A certificate in a file cannot be used.
    #[error("{what} {path} cannot be used")]
    Certificate {
        /// Which file.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// Malformed, or the key belongs to another certificate.
        source: rustls::Error,
    },
    /// rustls refuses its own defaults.
    #[error("TLS cannot be set up")]
    Setup(#[from] rustls::Error),
}

/// A client that trusts Mozilla's authorities.
pub fn public() -> Result<ClientConfig, rustls::Error> {
    trusting(public_roots())
}

fn public_roots() -> RootCertStore {
    RootCertStore {
        roots: webpki_roots::TLS_SERVER_ROOTS.to_vec(),
    }
}

fn trusting(roots: RootCertStore) -> Result<ClientConfig, rustls::Error> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    Ok(ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth())
}

/// Whom a client trusts: Mozilla's authorities, and those in `ca_file`, which the key `what` of the
/// configuration names.
pub fn client(what: &'static str, ca_file: Option<&Path>) -> Result<ClientConfig, TlsError> {
    let mut roots = public_roots();
    if let Some(path) = ca_file {
        for certificate in certificates(what, path, &read(what, path)?)? {
            roots
                .add(certificate)
                .map_err(|source| TlsError::Certificate {
                    what,
                    path: path.to_owned(),
                    source,
                })?;
        }
    }
    Ok(trusting(roots)?)
}

/// A server's certificate and key, read again when their files change.
#[derive(Debug)]
pub struct Identity {
    cert: PathBuf,
    key: PathBuf,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    config: Arc<ServerConfig>,
    /// What the files were like when they were read last, well or badly.
    stamp: Option<[Stamp; 2]>,
    looked: Instant,
}

/// Modification time in seconds and nanoseconds, inode, length: a file that is replaced, written
/// over or reached through a link that is moved has another one.
type Stamp = (i64, i64, u64, u64);

impl Identity {
    /// Reads `cert` (the server's certificate, then those between it and the authority) and `key`.
    ///
    /// # Errors
    /// A file cannot be read, is not PEM, or the key is another certificate's.
    pub fn load(cert: &Path, key: &Path) -> Result<Self, TlsError> {
        // Before the files are read: a change in between is seen at the next look.
        let stamp = stamps(cert, key);
        let config = server(cert, key)?;
        Ok(Self {
            cert: cert.to_owned(),
            key: key.to_owned(),
            state: Mutex::new(State {
                config,
                stamp,
                looked: Instant::now(),
            }),
        })
    }

    /// What to answer a connection with that comes now. Reads the files again if they have changed,
    /// so it may block; a pair of files that does not fit together, as in the middle of a change, is
    /// logged once, and the one before stays.
    pub fn current(&self) -> Arc<ServerConfig> {
        // Whole after any panic: what is read is put in by single assignments.
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.looked.elapsed() < LOOK_AGAIN {
            return Arc::clone(&state.config);
        }
        state.looked = Instant::now();
        let stamp = stamps(&self.cert, &self.key);
        if stamp.is_some() && stamp != state.stamp {
            state.stamp = stamp;
            match server(&self.cert, &self.key) {
                Ok(config) => {
                    state.config = config;
                    tracing::info!(cert = %self.cert.display(), "the TLS certificate was read again");
                }
                Err(error) => tracing::warn!(
                    cert = %self.cert.display(),
                    error = %with_cause(&error),
                    "the changed TLS certificate or key cannot be used; the one before stays in use"
                ),
            }
        }
        Arc::clone(&state.config)
    }
}

fn stamps(cert: &Path, key: &Path) -> Option<[Stamp; 2]> {
    let stamp = |path: &Path| {
        let of = std::fs::metadata(path).ok()?;
        Some((of.mtime(), of.mtime_nsec(), of.ino(), of.len()))
    };
    Some([stamp(cert)?, stamp(key)?])
}

fn server(cert: &Path, key: &Path) -> Result<Arc<ServerConfig>, TlsError> {
    const CERT: &str = "intake.tls_cert";
    const KEY: &str = "intake.tls_key";
    let chain = certificates(CERT, cert, &read(CERT, cert)?)?;
    let private = zeroize::Zeroizing::new(read(KEY, key)?);
    let private = PrivateKeyDer::from_pem_slice(&private).map_err(|source| TlsError::Pem {
        what: KEY,
        path: key.to_owned(),
        wanted: "private key",
        source,
    })?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(chain, private)
        .map_err(|source| TlsError::Certificate {
            what: CERT,
            path: cert.to_owned(),
            source,
        })?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

/// All certificates of a PEM file, at least one.
fn certificates(
    what: &'static str,
    path: &Path,
    text: &[u8],
) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(text).collect();
    let found = all.and_then(|all| match all.is_empty() {
        true => Err(pem::Error::NoItemsFound),
        false => Ok(all),
    });
    found.map_err(|source| TlsError::Pem {
        what,
        path: path.to_owned(),
        wanted: "certificate",
        source,
    })
}

fn read(what: &'static str, path: &Path) -> Result<Vec<u8>, TlsError> {
    let mut bytes = Vec::new();
    let result =
        File::open(path).and_then(|file| file.take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes));
    match result {
        Ok(length) if length as u64 > MAX_FILE_BYTES => Err(io::Error::new(
            io::ErrorKind::FileTooLarge,
            "it is larger than 4 MiB",
        )),
        Ok(_) => return Ok(bytes),
        Err(error) => Err(error),
    }
    .map_err(|source| TlsError::Read {
        what,
        path: path.to_owned(),
        source,
    })
}

fn with_cause(error: &TlsError) -> String {
    match std::error::Error::source(error) {
        Some(cause) => format!("{error}: {cause}"),
        None => error.to_string(),
    }
}
