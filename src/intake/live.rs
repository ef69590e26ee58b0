//! What may change while the hub serves.

use std::sync::{Arc, PoisonError, RwLock};

use crate::config::{AllowedHost, Secret};

/// The way to change it. Requests that begin afterwards see the new values; those under way go on
/// with what they began with.
#[derive(Clone, Debug)]
pub struct Handle(Arc<RwLock<Arc<Live>>>);

/// The values of one moment.
#[derive(Debug)]
pub(super) struct Live {
    /// What hub keys are checked with.
    pub secret: Secret,
    /// Where rows may be fetched from.
    pub allowed_hosts: Vec<AllowedHost>,
}

impl Handle {
    pub(super) fn new(secret: Secret, allowed_hosts: Vec<AllowedHost>) -> Self {
        let live = Live {
            secret,
            allowed_hosts,
        };
        Self(Arc::new(RwLock::new(Arc::new(live))))
    }

    /// From now on hub keys are checked with `secret`, and rows fetched from `allowed_hosts` only.
    pub fn change(&self, secret: Secret, allowed_hosts: Vec<AllowedHost>) {
        let live = Arc::new(Live {
            secret,
            allowed_hosts,
        });
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = live;
    }

    pub(super) fn now(&self) -> Arc<Live> {
        Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner))
    }
}
