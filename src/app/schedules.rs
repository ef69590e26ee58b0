//! Deliveries that send only changes: which schedule they belong to, and who tells what became of
//! those before them.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use sha2::{Digest, Sha256};

use super::receiver::DeliveryReceiver;
use super::refusal::refusal;
use crate::changes::{self, Audience, Changes, ScheduleKey};
use crate::config::Config;
use crate::intake::{DeliveryRequest, Refusal};
use crate::model::{DataType, DestinationId, Environment, FailureKind};
use crate::outbox::Outbox;
use crate::seal::Keyring;
use crate::shutdown::Shutdown;

/// What has ended is taken up this often at most: deliveries end one by one, requests do not matter.
const PAUSE: Duration = Duration::from_secs(1);
/// Old schedules are looked for this often when nothing else happens.
const IDLE: Duration = Duration::from_secs(600);

/// What schedules delivered last: in files, or in the database of a shared outbox.
pub(super) fn changes(config: &Config, outbox: &Outbox, keys: &Arc<Keyring>) -> Changes {
    let (settings, keys) = (settings(config), Arc::clone(keys));
    match outbox.snapshots() {
        None => Changes::new(settings, keys),
        Some(snapshots) => Changes::shared(settings, keys, snapshots),
    }
}

/// How snapshots are kept.
pub(super) fn settings(config: &Config) -> changes::Settings {
    let beside = || {
        let mut name = config.outbox.path.clone().into_os_string();
        name.push(".changes");
        PathBuf::from(name)
    };
    changes::Settings {
        directory: config.changes.path.clone().unwrap_or_else(beside),
        max_bytes: config.changes.max_bytes,
        forget_after: config.changes.forget_after,
        max_drop_percent: config.changes.max_drop_percent,
    }
}

impl DeliveryReceiver {
    /// What a delivery is compared with; `None`: all of it is sent.
    pub(super) async fn changes_of(
        &self,
        request: &DeliveryRequest,
        destination: DestinationId,
    ) -> Result<Option<(Changes, changes::Comparison)>, Refusal> {
        let Some(id) = &request.schedule_id else {
            return Ok(None);
        };
        let schedule = schedule_key(request, id, destination);
        if let Some(only) = &request.choices.only_changes {
            let comparison = changes::Comparison {
                schedule,
                full_refresh: only.full_refresh.unwrap_or(self.settings.full_refresh),
                audience: only.audience.clone().map(|attribute| Audience {
                    attribute,
                    may_shrink: only.may_shrink,
                }),
            };
            return Ok(Some((self.changes.clone(), comparison)));
        }
        if request.data_type == DataType::User {
            // What it sends, the next one that sends only changes would not know of.
            let changes = self.changes.clone();
            let forgotten = tokio::task::spawn_blocking(move || changes.forget(schedule)).await;
            if let Ok(Err(error)) = forgotten {
                tracing::error!(%schedule, %error, "what a schedule delivered cannot be forgotten");
                return Err(refusal(
                    FailureKind::Disk,
                    "looker-feed cannot change its notes on this schedule, so it took nothing. Its log says why.",
                ));
            }
        }
        Ok(None)
    }
}

/// What one schedule sends to one place is compared within, and nothing else.
fn schedule_key(request: &DeliveryRequest, id: &str, destination: DestinationId) -> ScheduleKey {
    let environment: &[u8] = match request.environment {
        Environment::Production => b"production",
        Environment::Development => b"development",
    };
    let instance = request.instance.as_deref().unwrap_or_default();
    let mut hash = Sha256::new();
    for part in [
        &destination.0,
        environment,
        instance.as_bytes(),
        id.as_bytes(),
    ] {
        hash.update((part.len() as u64).to_le_bytes());
        hash.update(part);
    }
    let mut key = [0; 16];
    key.copy_from_slice(&hash.finalize()[..16]);
    ScheduleKey(key)
}

/// Takes up what becomes of deliveries until `stop`.
pub(super) async fn follow(changes: Changes, outbox: Outbox, mut stop: Shutdown) {
    let mut changed = outbox.subscribe();
    loop {
        let (changes, outbox) = (changes.clone(), outbox.clone());
        let settled = tokio::task::spawn_blocking(move || changes.settle(&outbox));
        if settled.await.is_err() {
            tracing::error!("taking up what became of deliveries has failed");
        }
        tokio::select! {
            () = stop.wait() => return,
            () = tokio::time::sleep(PAUSE) => {}
        }
        tokio::select! {
            () = stop.wait() => return,
            () = tokio::time::sleep(IDLE) => {}
            news = changed.changed() => {
                if news.is_err() {
                    return;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::app::choices::tests::request;
    use crate::intake::Choices;

    #[test]
    fn another_schedule_place_environment_or_looker_is_another_key() {
        let request = || request(DataType::User, Choices::default());
        let here = DestinationId([1; 16]);
        let test = DeliveryRequest {
            environment: Environment::Development,
            ..request()
        };
        let other = DeliveryRequest {
            instance: Some("7".to_owned()),
            ..request()
        };
        let keys = [
            schedule_key(&request(), "7", here),
            schedule_key(&request(), "8", here),
            schedule_key(&request(), "7", DestinationId([2; 16])),
            schedule_key(&test, "7", here),
            schedule_key(&other, "", here),
        ];
        let different: std::collections::HashSet<_> = keys.iter().collect();
        assert_eq!(different.len(), keys.len());
        let mut again = request();
        again.title = "renamed".to_owned();
        assert_eq!(schedule_key(&again, "7", here), keys[0]);
    }
}
