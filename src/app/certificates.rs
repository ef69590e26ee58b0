//! The certificate files of the configuration.

use std::path::PathBuf;

use crate::config::Config;
use crate::tls::{self, Identity, TlsError};

/// What the certificate files of the configuration hold.
pub(crate) struct Certificates {
    pub(super) mparticle: rustls::ClientConfig,
    pub(super) looker: rustls::ClientConfig,
    pub(super) notify: rustls::ClientConfig,
    pub(super) telemetry: rustls::ClientConfig,
    pub(super) identity: Option<Identity>,
    /// For the API of each Looker.
    pub(super) looker_apis: Vec<rustls::ClientConfig>,
}

impl Certificates {
    /// Whom the API of each Looker is trusted with.
    pub(crate) fn looker_apis(self) -> Vec<rustls::ClientConfig> {
        self.looker_apis
    }

    /// Reads them.
    ///
    /// # Errors
    /// A file cannot be read, or does not hold what it should; the error names it.
    pub(crate) fn load(config: &Config) -> Result<Self, TlsError> {
        let intake = &config.intake;
        let files = intake.tls_cert.as_ref().zip(intake.tls_key.as_ref());
        let trust = |what, file: &Option<PathBuf>| tls::client(what, file.as_deref());
        Ok(Self {
            mparticle: trust("mparticle.ca_file", &config.mparticle.ca_file)?,
            looker: trust("looker.ca_file", &config.looker.ca_file)?,
            notify: trust("notify.ca_file", &config.notify.ca_file)?,
            telemetry: trust("telemetry.ca_file", &config.telemetry.ca_file)?,
            looker_apis: config
                .looker
                .api
                .instances
                .iter()
                .map(|one| {
                    let own = one.ca_file.is_some();
                    match own {
                        true => trust("looker.api.ca_file", &one.ca_file),
                        false => trust("looker.ca_file", &config.looker.ca_file),
                    }
                })
                .collect::<Result<_, _>>()?,
            identity: files
                .map(|(cert, key)| Identity::load(cert, key))
                .transpose()?,
        })
    }
}
