//! What keys demand of each other.

use super::error::ConfigError;
use super::secret::Secret;
use super::settings::OutboxBackend;
use super::{Config, TOKEN_LENGTH};

/// Stands for a value that may be a secret.
const NOT_SHOWN: &str = "a text that is not shown";

/// The rules between keys that do not hold.
pub(super) fn check_relations(config: &Config) -> impl Iterator<Item = ConfigError> {
    let (mparticle, admin, intake) = (&config.mparticle, &config.admin, &config.intake);
    let embedded = config.outbox.backend == OutboxBackend::Embedded;
    let longest = humantime::format_duration(mparticle.backoff_max);
    let longest_pause = humantime::format_duration(config.looker.api.pause_max);
    let request = mparticle.max_request_bytes;
    let (key, secret) = (
        &config.action.api_key_attribute,
        &config.action.api_secret_attribute,
    );
    let rules = [
        rule(
            mparticle.max_batch_bytes <= request,
            "mparticle.max_batch_bytes",
            mparticle.max_batch_bytes,
            format!(
                "a batch must fit into a request: at most `mparticle.max_request_bytes`, which is {request}"
            ),
        ),
        rule(
            mparticle.backoff_initial <= mparticle.backoff_max,
            "mparticle.backoff_initial",
            humantime::format_duration(mparticle.backoff_initial),
            format!(
                "the first wait must not pass the longest, `mparticle.backoff_max`, which is {longest}"
            ),
        ),
        rule(
            key.is_some() == secret.is_some(),
            "action.api_key_attribute",
            named(key),
            format!(
                "`action.api_secret_attribute` is {}, and a key and its secret come from the same place",
                named(secret)
            ),
        ),
        rule(
            config.looker.api.pause <= config.looker.api.pause_max,
            "looker.api.pause",
            humantime::format_duration(config.looker.api.pause),
            format!(
                "the first pause must not pass the longest, `looker.api.pause_max`, which is {longest_pause}"
            ),
        ),
        rule(
            mparticle.plan_version.is_none() || mparticle.plan_id.is_some(),
            "mparticle.plan_version",
            mparticle.plan_version.unwrap_or_default(),
            "`mparticle.plan_id` is not set, and a version alone names no data plan",
        ),
        rule(
            config.outbox.segment_bytes >= request as u64,
            "outbox.segment_bytes",
            config.outbox.segment_bytes,
            format!(
                "a file must hold at least one request: `mparticle.max_request_bytes`, which is {request}"
            ),
        ),
        rule(
            embedded || config.outbox.url.is_some(),
            "outbox.backend",
            "postgres",
            "`outbox.url` must say which database, such as \
             postgres://feed@db1.example.com,db2.example.com/feed",
        ),
        rule(
            !embedded || config.outbox.url.is_none(),
            "outbox.url",
            NOT_SHOWN,
            "`outbox.backend` is \"embedded\", which has no database; it would have to be \"postgres\"",
        ),
        rule(
            embedded || config.seal.key_file.is_some(),
            "outbox.backend",
            "postgres",
            "`seal.key_file` must name the key that all daemons on the database seal with; \
             `openssl rand -hex 32` makes one",
        ),
        rule(
            config.hold.schedules.is_empty() || config.hold.unusual_percent > 0,
            "hold.schedules",
            config.hold.schedules.join(", "),
            "`hold.unusual_percent` is 0, and with that no delivery is held",
        ),
        rule(
            admin.listen.port() == 0 || admin.listen != intake.listen,
            "admin.listen",
            admin.listen,
            "`intake.listen` is the same, and one address cannot serve both",
        ),
        rule(
            admin.listen.ip().to_canonical().is_loopback()
                || admin.token.is_some()
                || !admin.tokens.is_empty(),
            "admin.listen",
            admin.listen,
            "other machines can reach that address, so `admin.token`, `admin.token_file` or \
             `admin.tokens` must be set; without a token only a loopback address such as 127.0.0.1:8081 will do",
        ),
        rule(
            admin.user_header.is_none() || !admin.user_header_from.is_empty(),
            "admin.user_header",
            admin
                .user_header
                .as_ref()
                .map(ToString::to_string)
                .unwrap_or_default(),
            "`admin.user_header_from` must list the addresses of the proxy that sets it, since anybody \
             else could send it too",
        ),
        rule(
            intake.tls_cert.is_some() == intake.tls_key.is_some(),
            "intake.tls_cert",
            shown(&intake.tls_cert),
            format!(
                "`intake.tls_key` is {}, and TLS needs both or neither",
                shown(&intake.tls_key)
            ),
        ),
        rule(
            admin.token.as_ref().is_none_or(is_token),
            "admin.token",
            NOT_SHOWN,
            format!(
                "a token has at least {TOKEN_LENGTH} characters, all of them visible ASCII and none \
                 a space; `openssl rand -hex 32` makes one"
            ),
        ),
    ];
    let broken = rules.into_iter().filter(|(holds, ..)| !holds);
    broken.map(|(_, key, value, rule)| ConfigError::Relation { key, value, rule })
}

/// A rule: whether it holds, and what is said of the key's value when it does not.
fn rule(
    holds: bool,
    key: &'static str,
    value: impl ToString,
    text: impl Into<String>,
) -> (bool, &'static str, String, String) {
    (holds, key, value.to_string(), text.into())
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
