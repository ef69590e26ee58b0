//! One Looker with an API key, and whether it can be asked now.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::backoff::{self, Backoff};
use crate::clock::UnixMillis;
use crate::looker_api::{ApiError, LookerApi};

/// After a failure that concerns the whole Looker it is left alone for so long.
const BACKOFF: Backoff = Backoff {
    base: Duration::from_secs(15),
    cap: Duration::from_secs(300),
};
/// A key that is refused is refused until a person mends it.
const REFUSED: Duration = Duration::from_secs(300);

/// See the module.
pub(in crate::app) struct Instance {
    /// Its name in the configuration; empty for the first.
    pub name: String,
    pub api: LookerApi,
    /// This hub's id there, if it is configured.
    pub hub: Option<String>,
    state: Mutex<Known>,
}

/// What is known of a Looker.
#[derive(Clone, Debug, Default)]
pub(in crate::app) struct Known {
    /// Why it is left alone, and until when.
    down: Option<(String, UnixMillis)>,
    /// That is for its refusing the key.
    pub refused: bool,
    /// Failures in a row.
    failures: u32,
    /// When it answered last.
    pub answered: Option<UnixMillis>,
    /// Why missed deliveries are not looked for.
    pub blind: Option<String>,
    /// When missed deliveries were looked for last.
    pub looked: Option<UnixMillis>,
    /// This hub's id there, once it is known.
    pub found_hub: Option<String>,
}

impl Instance {
    pub fn new(name: String, api: LookerApi, hub: Option<String>) -> Self {
        Self {
            name,
            api,
            hub,
            state: Mutex::default(),
        }
    }

    pub fn is_at(&self, host: &str) -> bool {
        self.api.is_at(host)
    }

    pub fn known(&self) -> Known {
        self.state().clone()
    }

    pub fn change(&self, change: impl FnOnce(&mut Known)) {
        change(&mut self.state());
    }

    /// Why it cannot be asked at `now`, and until when.
    pub fn down(&self, now: UnixMillis) -> Option<(String, UnixMillis)> {
        let state = self.state();
        let (why, until) = state.down.as_ref()?;
        (*until > now).then(|| (why.clone(), *until))
    }

    /// Why it could not be asked the last time, whether or not its pause is over.
    pub fn trouble(&self) -> Option<String> {
        self.state().down.as_ref().map(|(why, _)| why.clone())
    }

    /// It has answered.
    pub fn answered(&self, now: UnixMillis) {
        let mut state = self.state();
        state.failures = 0;
        state.refused = false;
        if let Some((why, _)) = state.down.take() {
            tracing::info!(
                looker = self.api.host(),
                before = why,
                "Looker's API answers again"
            );
        }
        state.answered = Some(now);
    }

    /// It has not; it is left alone for a while that grows.
    pub fn failed(&self, error: &ApiError, why: &str, now: UnixMillis) {
        let mut state = self.state();
        state.failures += 1;
        state.refused = matches!(error, ApiError::Credentials { .. });
        let mut rng = fastrand::Rng::new();
        let pause = match error {
            ApiError::Credentials { .. } => REFUSED,
            ApiError::TooMany {
                after: Some(after), ..
            } => backoff::obeyed(*after, BACKOFF.cap, &mut rng),
            _ => BACKOFF.probe(state.failures, &mut rng),
        };
        let news = state.down.as_ref().is_none_or(|(before, _)| before != why);
        if news {
            tracing::warn!(
                looker = self.api.host(),
                why,
                "Looker cannot be asked again now"
            );
        }
        state.down = Some((why.to_owned(), now.plus(pause)));
    }

    fn state(&self) -> MutexGuard<'_, Known> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
