//! What may change while the hub serves.

use std::sync::{Arc, PoisonError, RwLock};

use super::token::Keys;
use crate::config::{AllowedHost, IntakeSettings, Secret};

/// The way to change it. Requests that begin afterwards see the new values; those under way go on
/// with what they began with.
#[derive(Clone, Debug)]
pub struct Handle(Arc<RwLock<Arc<Live>>>);

/// The values of one moment.
#[derive(Debug)]
pub(super) struct Live {
    /// Which hub keys are good.
    pub keys: Keys,
    /// Where rows may be fetched from.
    pub allowed_hosts: Vec<AllowedHost>,
}

impl Live {
    fn new(secret: &Secret, intake: &IntakeSettings, allowed_hosts: Vec<AllowedHost>) -> Arc<Self> {
        let mut secrets = vec![secret.clone()];
        secrets.extend(intake.previous_secrets.iter().cloned());
        Arc::new(Self {
            keys: Keys::new(secrets, intake.revoked_keys.clone()),
            allowed_hosts,
        })
    }
}

impl Handle {
    pub(super) fn new(
        secret: &Secret,
        intake: &IntakeSettings,
        allowed_hosts: Vec<AllowedHost>,
    ) -> Self {
        Self(Arc::new(RwLock::new(Live::new(
            secret,
            intake,
            allowed_hosts,
        ))))
    }

    /// From now on hub keys are checked with `secret` and what `intake` says of previous secrets
    /// and revoked keys, and rows are fetched from `allowed_hosts` only.
    pub fn change(
        &self,
        secret: &Secret,
        intake: &IntakeSettings,
        allowed_hosts: Vec<AllowedHost>,
    ) {
        let live = Live::new(secret, intake, allowed_hosts);
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = live;
    }

    pub(super) fn now(&self) -> Arc<Live> {
        Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner))
    }
}
