//! What keys demand of each other.

use super::error::ConfigError;
use super::secret::Secret;
use super::settings::OutboxBackend;
use super::{Config, TOKEN_LENGTH};

/// The rules between keys that do not hold.
pub(super) fn check_relations(config: &Config) -> impl Iterator<Item = ConfigError> {
    let mparticle = &config.mparticle;
    let rules = [
        (
            mparticle.max_batch_bytes <= mparticle.max_request_bytes,
            "mparticle.max_batch_bytes",
            mparticle.max_batch_bytes.to_string(),
            format!(
                "a batch must fit into a request: at most `mparticle.max_request_bytes`, which is {}",
                mparticle.max_request_bytes
            ),
        ),
        (
            mparticle.backoff_initial <= mparticle.backoff_max,
            "mparticle.backoff_initial",
            humantime::format_duration(mparticle.backoff_initial).to_string(),
            format!(
                "the first wait must not pass the longest, `mparticle.backoff_max`, which is {}",
                humantime::format_duration(mparticle.backoff_max)
            ),
        ),
        (
            config.action.api_key_attribute.is_some()
                == config.action.api_secret_attribute.is_some(),
            "action.api_key_attribute",
            named(&config.action.api_key_attribute),
            format!(
                "`action.api_secret_attribute` is {}, and a key and its secret come from the same place",
                named(&config.action.api_secret_attribute)
            ),
        ),
        (
            config.looker.api.pause <= config.looker.api.pause_max,
            "looker.api.pause",
            humantime::format_duration(config.looker.api.pause).to_string(),
            format!(
                "the first pause must not pass the longest, `looker.api.pause_max`, which is {}",
                humantime::format_duration(config.looker.api.pause_max)
            ),
        ),
        (
            mparticle.plan_version.is_none() || mparticle.plan_id.is_some(),
            "mparticle.plan_version",
            mparticle.plan_version.unwrap_or_default().to_string(),
            "`mparticle.plan_id` is not set, and a version alone names no data plan".to_owned(),
        ),
        (
            config.outbox.segment_bytes >= mparticle.max_request_bytes as u64,
            "outbox.segment_bytes",
            config.outbox.segment_bytes.to_string(),
            format!(
                "a file must hold at least one request: `mparticle.max_request_bytes`, which is {}",
                mparticle.max_request_bytes
            ),
        ),
        (
            config.outbox.backend == OutboxBackend::Embedded || config.outbox.url.is_some(),
            "outbox.backend",
            "postgres".to_owned(),
            "`outbox.url` must say which database, such as \
             postgres://feed@db1.example.com,db2.example.com/feed"
                .to_owned(),
        ),
        (
            config.outbox.backend == OutboxBackend::Postgres || config.outbox.url.is_none(),
            "outbox.url",
            "a text that is not shown".to_owned(),
            "`outbox.backend` is \"embedded\", which has no database; it would have to be \"postgres\""
                .to_owned(),
        ),
        (
            config.outbox.backend == OutboxBackend::Embedded || config.seal.key_file.is_some(),
            "outbox.backend",
            "postgres".to_owned(),
            "`seal.key_file` must name the key that all daemons on the database seal with; \
             `openssl rand -hex 32` makes one"
                .to_owned(),
        ),
        (
            config.hold.schedules.is_empty() || config.hold.unusual_percent > 0,
            "hold.schedules",
            config.hold.schedules.join(", "),
            "`hold.unusual_percent` is 0, and with that no delivery is held".to_owned(),
        ),
        (
            config.admin.listen.port() == 0 || config.admin.listen != config.intake.listen,
            "admin.listen",
            config.admin.listen.to_string(),
            "`intake.listen` is the same, and one address cannot serve both".to_owned(),
        ),
        (
            config.admin.listen.ip().to_canonical().is_loopback()
                || config.admin.token.is_some()
                || !config.admin.tokens.is_empty(),
            "admin.listen",
            config.admin.listen.to_string(),
            "other machines can reach that address, so `admin.token`, `admin.token_file` or \
             `admin.tokens` must be set; without a token only a loopback address such as 127.0.0.1:8081 will do"
                .to_owned(),
        ),
        (
            config.admin.user_header.is_none() || !config.admin.user_header_from.is_empty(),
            "admin.user_header",
            config.admin.user_header.as_ref().map(ToString::to_string).unwrap_or_default(),
            "`admin.user_header_from` must list the addresses of the proxy that sets it, since anybody \
             else could send it too"
                .to_owned(),
        ),
        (
            config.intake.tls_cert.is_some() == config.intake.tls_key.is_some(),
            "intake.tls_cert",
            shown(&config.intake.tls_cert),
            format!(
                "`intake.tls_key` is {}, and TLS needs both or neither",
                shown(&config.intake.tls_key)
            ),
        ),
        (
            config.admin.token.as_ref().is_none_or(is_token),
            "admin.token",
            "a text that is not shown".to_owned(),
            format!(
                "a token has at least {TOKEN_LENGTH} characters, all of them visible ASCII and none \
                 a space; `openssl rand -hex 32` makes one"
            ),
        ),
    ];
    let broken = rules.into_iter().filter(|(holds, ..)| !holds);
    broken.map(|(_, key, value, rule)| ConfigError::Relation { key, value, rule })
}

fn named(attribute: &Option<String>) -> String {
    attribute.clone().unwrap_or("not set".to_owned())
}

fn shown(path: &Option<std::path::PathBuf>) -> String {
    path.as_ref()
        .map_or("not set".to_owned(), |path| path.display().to_string())
}

/// Shorter ones can be guessed, and others do not survive an HTTP header.
fn is_token(token: &Secret) -> bool {
    let text = token.expose();
    text.len() >= TOKEN_LENGTH && text.bytes().all(|byte| byte.is_ascii_graphic())
}
