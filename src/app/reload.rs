//! A new configuration for a daemon that runs: what can be changed is changed, and what cannot is
//! said.

use crate::causes::with_causes;
use crate::config::{Config, ConfigError, Secret};
use crate::control::AuditLog;
use crate::{drain, intake};

/// Who sends SIGHUP is not known.
const WHO: &str = "somebody on this machine";

/// The parts that can be told of a new configuration.
#[derive(Clone)]
pub struct Reloader {
    pub(super) config: Config,
    pub(super) intake: intake::Handle,
    pub(super) drain: drain::Handle,
    pub(super) audit: AuditLog,
}

impl Reloader {
    /// Takes a new configuration over as far as that goes, and logs what has changed and what needs
    /// a restart, a line each. The log's own level is the caller's.
    ///
    /// # Errors
    /// It lacks what only a daemon needs: nothing has been changed.
    pub fn reload(&mut self, new: Config) -> Result<(), ConfigError> {
        let secret = new.require_secret()?.clone();
        let old = &self.config;
        let text = |secrets: &[Secret]| -> Vec<String> {
            let texts = secrets.iter().map(|secret| secret.expose().to_owned());
            texts.collect()
        };
        let own = old.intake.secret.as_ref().map(Secret::expose) != Some(secret.expose());
        let previous = text(&old.intake.previous_secrets) != text(&new.intake.previous_secrets);
        let revoked = old.intake.revoked_keys != new.intake.revoked_keys;
        let hosts = old.looker.allowed_hosts != new.looker.allowed_hosts;
        let rate = old.mparticle.batches_per_second != new.mparticle.batches_per_second;
        let in_flight = old.mparticle.max_in_flight != new.mparticle.max_in_flight;
        let changed = [
            ("intake.secret", own),
            ("intake.previous_secrets", previous),
            ("intake.revoked_keys", revoked),
            ("looker.allowed_hosts", hosts),
            ("mparticle.batches_per_second", rate),
            ("mparticle.max_in_flight", in_flight),
            ("log.level", old.log.level != new.log.level),
        ];
        let changed = changed.into_iter().filter(|(_, differs)| *differs);
        let changed: Vec<_> = changed.map(|(key, _)| key).collect();
        self.intake
            .change(&secret, &new.intake, new.looker.allowed_hosts.clone());
        if rate || in_flight {
            let new = &new.mparticle;
            self.drain.adjust(new.max_in_flight, new.batches_per_second);
        }
        for key in &changed {
            tracing::info!(key, "the new value holds from now on");
        }
        let fixed = needs_restart(old, &new);
        for section in &fixed {
            tracing::warn!(
                section,
                "it has changes that need a restart; the old values stay"
            );
        }
        let said = match (changed.as_slice(), fixed.as_slice()) {
            ([], []) => "Nothing in it has changed.".to_owned(),
            (changed, []) => format!("In force: {}.", changed.join(", ")),
            ([], fixed) => format!("A restart is needed for: {}.", fixed.join(", ")),
            (changed, fixed) => format!(
                "In force: {}. A restart is needed for: {}.",
                changed.join(", "),
                fixed.join(", ")
            ),
        };
        self.audit.record(WHO, "reload", &said);
        if changed.is_empty() && fixed.is_empty() {
            tracing::info!("the configuration was read again, and nothing in it has changed");
        }
        // What is in force, so that the next reload tells the same of what still is not.
        self.config.intake.secret = Some(secret);
        self.config.intake.previous_secrets = new.intake.previous_secrets;
        self.config.intake.revoked_keys = new.intake.revoked_keys;
        self.config.looker.allowed_hosts = new.looker.allowed_hosts;
        self.config.mparticle.batches_per_second = new.mparticle.batches_per_second;
        self.config.mparticle.max_in_flight = new.mparticle.max_in_flight;
        self.config.log.level = new.log.level;
        Ok(())
    }

    /// A new configuration was refused: that goes on record.
    pub fn refused(&self, error: &ConfigError) {
        let said = format!("Refused, the old one stays: {}", with_causes(error));
        self.audit.record(WHO, "reload", &said);
    }
}

/// Sections that differ in more than what can be reloaded. Secrets print alike: the callbacks'
/// addresses and the admin token are compared by themselves.
fn needs_restart(old: &Config, new: &Config) -> Vec<&'static str> {
    let mut same = new.clone();
    same.intake.secret.clone_from(&old.intake.secret);
    same.intake
        .previous_secrets
        .clone_from(&old.intake.previous_secrets);
    same.intake
        .revoked_keys
        .clone_from(&old.intake.revoked_keys);
    same.looker
        .allowed_hosts
        .clone_from(&old.looker.allowed_hosts);
    same.mparticle.batches_per_second = old.mparticle.batches_per_second;
    same.mparticle.max_in_flight = old.mparticle.max_in_flight;
    same.log.level = old.log.level;
    let text = |config: &Config| {
        let url =
            |url: &Option<crate::config::Secret>| url.as_ref().map(|url| url.expose().to_owned());
        [
            ("[intake]", format!("{:?}", config.intake)),
            ("[action]", format!("{:?}", config.action)),
            ("[looker]", format!("{:?}", config.looker)),
            (
                "[outbox]",
                format!(
                    "{:?} {:?} {:?}",
                    config.outbox,
                    url(&config.outbox.url),
                    url(&config.outbox.password)
                ),
            ),
            ("[mparticle]", format!("{:?}", config.mparticle)),
            ("[changes]", format!("{:?}", config.changes)),
            ("[hold]", format!("{:?}", config.hold)),
            ("[memory]", format!("{:?}", config.memory)),
            (
                "[admin]",
                format!(
                    "{:?} {:?} {:?}",
                    config.admin,
                    url(&config.admin.token),
                    config
                        .admin
                        .tokens
                        .iter()
                        .map(|one| one.token.expose().to_owned())
                        .collect::<Vec<_>>()
                ),
            ),
            (
                "[notify]",
                format!(
                    "{:?} {:?} {:?}",
                    config.notify,
                    url(&config.notify.webhook_url),
                    url(&config.notify.slack_url)
                ),
            ),
            ("[telemetry]", format!("{:?}", config.telemetry)),
            ("[log]", format!("{:?}", config.log)),
            ("[shutdown]", format!("{:?}", config.shutdown)),
            ("[seal]", format!("{:?}", config.seal)),
        ]
    };
    let pairs = text(old).into_iter().zip(text(&same));
    pairs
        .filter(|((_, old), (_, new))| old != new)
        .map(|((section, _), _)| section)
        .collect()
}
