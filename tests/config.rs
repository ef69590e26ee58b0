//! The configuration as a user meets it: files, variables, and the sentences that errors are.

use std::error::Error;
use std::path::PathBuf;
use std::time::Duration;

use looker_feed::config::{self, Config, ConfigError, FormKind, LogFormat, Pod, Secret};
use looker_feed::mapping::{
    AttributeTypes, Historical, IdentityNames, Nulls, PivotedMeasures, Placeholders, Untagged,
};

fn load(file: &str, env: &[(&str, &str)]) -> Result<Config, ConfigError> {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("user.toml");
    std::fs::write(&path, file).unwrap();
    let env = env
        .iter()
        .map(|(name, value)| (name.to_string(), value.to_string()));
    config::load(Some(&path), env)
}

fn sentence(result: Result<Config, ConfigError>) -> String {
    result.map(|_| "accepted").unwrap_err().to_string()
}

#[test]
fn the_shipped_file_alone_gives_the_documented_defaults() {
    let config = config::load(None, std::iter::empty()).unwrap();
    assert_eq!(config.intake.listen.to_string(), "127.0.0.1:8080");
    assert_eq!(config.intake.base_url, None);
    assert_eq!(config.intake.label, "looker-feed");
    assert_eq!(config.intake.keep_alive, Duration::from_secs(30));
    assert!(config.intake.secret.is_none());
    assert!(config.intake.previous_secrets.is_empty() && config.intake.revoked_keys.is_empty());
    assert_eq!(config.action.form, FormKind::Full);
    assert!(config.action.require_identity_tag);
    assert_eq!(config.action.api_key_attribute, None);
    assert_eq!(config.action.api_secret_attribute, None);
    assert!(config.looker.allowed_hosts.is_empty());
    assert_eq!(config.looker.connect_timeout, Duration::from_secs(10));
    assert_eq!(config.looker.idle_timeout, Duration::from_secs(13 * 60));
    assert_eq!(config.looker.max_deliveries, 64);
    assert_eq!(config.looker.queue_timeout, Duration::from_secs(45 * 60));
    assert_eq!(config.outbox.path, PathBuf::from("./looker-feed-data"));
    assert_eq!(config.mparticle.pod, Pod::Us1);
    assert_eq!(
        config.mparticle.base_address(),
        "https://s2s.us1.mparticle.com/v2"
    );
    assert_eq!(config.mparticle.batches_per_second, 270);
    assert_eq!(config.mparticle.max_in_flight, 8);
    assert_eq!(config.mparticle.request_timeout, Duration::from_secs(30));
    assert_eq!(config.mparticle.max_batches_per_request, 100);
    assert_eq!(config.mparticle.max_events_per_request, 100);
    assert_eq!(config.mparticle.max_request_bytes, 256_000);
    assert_eq!(config.mparticle.max_batch_bytes, 128_000);
    assert_eq!(config.mparticle.identity_names, IdentityNames::Current);
    assert_eq!(config.mparticle.untagged, Untagged::Ignore);
    assert_eq!(config.mparticle.pivoted_measures, PivotedMeasures::Refuse);
    assert_eq!(config.mparticle.null_attributes, Nulls::Omit);
    assert_eq!(config.mparticle.historical_events, Historical::Auto);
    let cleaning = [
        config.mparticle.trim_identities,
        config.mparticle.lowercase_email,
        config.mparticle.strip_html,
    ];
    assert_eq!(cleaning, [false; 3]);
    assert_eq!(config.mparticle.attribute_types, AttributeTypes::AsIs);
    let placeholders = &config.mparticle.placeholder_identities;
    assert_eq!(placeholders, &Placeholders::COMMON);
    assert_eq!(config.mparticle.earliest_event, 946_684_800_000);
    let ahead = config.mparticle.latest_event_ahead;
    assert_eq!(ahead, Duration::from_secs(365 * 86_400));
    assert_eq!(config.mparticle.max_event_names, 1000);
    assert_eq!(config.mparticle.plan_id, None);
    assert_eq!(config.mparticle.plan_version, None);
    assert_eq!(config.mparticle.backoff_initial, Duration::from_millis(500));
    assert_eq!(config.mparticle.backoff_max, Duration::from_secs(60));
    assert_eq!(config.mparticle.retry_after_max, Duration::from_secs(300));
    assert_eq!(config.mparticle.paused_probe, Duration::from_secs(60));
    assert_eq!(config.mparticle.pause_after_rejected, 100);
    assert_eq!(config.mparticle.max_age, None);
    let changes = &config.changes;
    assert_eq!(changes.path, None);
    assert_eq!(changes.full_refresh, Duration::from_secs(7 * 86_400));
    assert_eq!(changes.forget_after, Duration::from_secs(30 * 86_400));
    assert_eq!((changes.max_bytes, changes.max_drop_percent), (4 << 30, 50));
    assert_eq!(config.memory.group_budget, 64 << 20);
    assert_eq!(config.admin.listen.to_string(), "127.0.0.1:8081");
    assert!(config.admin.token.is_none() && config.admin.hosts.is_empty());
    assert_eq!(config.log.format, LogFormat::Text);
    assert_eq!(config.log.level, tracing::Level::INFO);
    assert_eq!(config.shutdown.notice, Duration::ZERO);
    assert_eq!(config.shutdown.deadline, Duration::from_secs(25));
    assert_eq!(config.seal.key_file, None);
    assert!(config.seal.previous_key_files.is_empty());
    assert_eq!(config.telemetry.otlp_endpoint, None);
    assert_eq!(config.telemetry.sample_ratio, 1.0);
}

#[test]
fn a_share_is_a_number_from_0_to_1_in_a_file_and_in_a_variable() {
    for (text, want) in [("0", 0.0), ("1", 1.0), ("0.25", 0.25), ("'0.5'", 0.5)] {
        let file = format!("[telemetry]\nsample_ratio = {text}\n");
        assert_eq!(load(&file, &[]).unwrap().telemetry.sample_ratio, want);
    }
    let variable = [("LOOKER_FEED_TELEMETRY__SAMPLE_RATIO", "0.1")];
    assert_eq!(load("", &variable).unwrap().telemetry.sample_ratio, 0.1);
    for wrong in ["2", "-0.1", "1.01", "nan", "inf", "'half'", "true"] {
        let file = format!("[telemetry]\nsample_ratio = {wrong}\n");
        let error = load(&file, &[]).unwrap_err().to_string();
        assert!(error.contains("telemetry.sample_ratio"), "{wrong}: {error}");
        assert!(error.contains("from 0 to 1"), "{wrong}: {error}");
    }
    for wrong in ["collector:4318", "http://u:p@collector", "http://c?x=1"] {
        let file = format!("[telemetry]\notlp_endpoint = '{wrong}'\n");
        assert!(load(&file, &[]).is_err(), "{wrong}");
    }
}

#[test]
fn what_looker_shows_of_the_action_is_configured() {
    let file = "[action]\nform = 'plain'\nrequire_identity_tag = false\n\
                api_key_attribute = 'mp_key'\napi_secret_attribute = 'mp_secret'\n\
                [mparticle]\nuntagged = 'event_attribute'\npivoted_measures = 'json'\n";
    let config = load(file, &[]).unwrap();
    assert_eq!(config.action.form, FormKind::Plain);
    assert!(!config.action.require_identity_tag);
    assert_eq!(config.action.api_key_attribute.as_deref(), Some("mp_key"));
    assert_eq!(config.mparticle.untagged, Untagged::EventAttribute);
    assert_eq!(config.mparticle.pivoted_measures, PivotedMeasures::Json);
    let spaced = "[action]\napi_key_attribute = 'mParticle key'\napi_secret_attribute = 'x'";
    for (file, want) in [
        ("[action]\nform = 'short'", "\"full\" or \"plain\""),
        (spaced, "action.api_key_attribute"),
        (
            "[action]\napi_key_attribute = 'k'",
            "`action.api_secret_attribute` is not set",
        ),
        (
            "[action]\napi_secret_attribute = 's'",
            "`action.api_secret_attribute` is s",
        ),
        (
            "[mparticle]\npivoted_measures = 'first'",
            "\"refuse\" or \"attributes\" or \"json\"",
        ),
    ] {
        let error = sentence(load(file, &[]));
        assert!(error.contains(want), "{error}");
    }
}

#[test]
fn every_key_of_the_shipped_file_can_be_uncommented() {
    // A commented key reads `# key = value`; prose does not.
    let mut keys = 0;
    let text: String = config::DEFAULTS
        .lines()
        .map(|line| {
            let commented = line.strip_prefix("# ").filter(|rest| {
                rest.split_once(" = ").is_some_and(|(key, _)| {
                    key.bytes().all(|b| b.is_ascii_lowercase() || b == b'_')
                })
            });
            keys += usize::from(commented.is_some());
            format!("{}\n", commented.unwrap_or(line))
        })
        // Those stand for the key before them, and both together are refused.
        .filter(|line| {
            let files = [
                "secret",
                "client_secret",
                "token",
                "webhook_url",
                "slack_url",
                "password",
            ];
            !files
                .iter()
                .any(|key| line.starts_with(&format!("{key}_file")))
        })
        .collect();
    assert_eq!(
        keys, 34,
        "url, password_file, two of action, base_url, secret, secret_file, tls_cert, tls_key, four ca_files, endpoint, plan_id, \
         plan_version, max_age, the path of changes, token, token_file, user_header, five of notify, \
         otlp_endpoint, key_file, six of looker.api"
    );
    // An embedded outbox takes no address, and a header of users needs those that may set it.
    let text = text.replace("backend = \"embedded\"", "backend = \"postgres\"");
    let proxy = [("LOOKER_FEED_ADMIN__USER_HEADER_FROM", "127.0.0.1")];
    let config = load(&text, &proxy).unwrap();
    assert_eq!(config.mparticle.base_address(), "http://127.0.0.1:9100/v2");
    assert!(config.require_secret().is_ok());
    assert!(config.mparticle.max_age.is_some() && config.seal.key_file.is_some());
}

#[test]
fn the_environment_lies_over_the_file_and_the_file_over_the_defaults() {
    let file = "[intake]\nlisten = '127.0.0.1:1'\nlabel = 'from file'\n\
                [looker]\nallowed_hosts = ['a.example.com', '[::1]:8', '::1']\n";
    let config = load(
        file,
        &[
            ("LOOKER_FEED_INTAKE__LISTEN", "0.0.0.0:8080"),
            ("LOOKER_FEED_MPARTICLE__MAX_AGE", ""),
            ("PATH", "/bin"),
        ],
    )
    .unwrap();
    assert_eq!(config.intake.listen.to_string(), "0.0.0.0:8080");
    assert_eq!(config.intake.label, "from file");
    let hosts = |config: Config| -> Vec<String> {
        let hosts = config.looker.allowed_hosts.into_iter();
        hosts
            .map(|one| format!("{} {:?}", one.host, one.port))
            .collect()
    };
    let want = ["a.example.com None", "[::1] Some(8)", "[::1] None"];
    assert_eq!(hosts(config), want);
    let of = |list: &str| {
        let config = load(file, &[("LOOKER_FEED_LOOKER__ALLOWED_HOSTS", list)]);
        hosts(config.unwrap())
    };
    let want = ["127.0.0.1 Some(9999)", "looker.example.com None"];
    assert_eq!(of("127.0.0.1:9999, LOOKER.Example.com"), want);
    assert!(of("").is_empty());
}

#[test]
fn sizes_and_durations_are_read_with_their_units() {
    for (text, bytes) in [
        ("64MiB", 64 << 20),
        ("64 mib", 64 << 20),
        ("256kB", 256_000),
        ("1GB", 1_000_000_000),
        ("70000", 70_000),
        ("70000B", 70_000),
        ("2GiB", 2 << 30),
    ] {
        let config = load("", &[("LOOKER_FEED_MEMORY__GROUP_BUDGET", text)]).unwrap();
        assert_eq!(config.memory.group_budget, bytes, "{text}");
        let config = load(&format!("[memory]\ngroup_budget = '{text}'"), &[]).unwrap();
        assert_eq!(config.memory.group_budget, bytes, "{text}");
    }
    for (text, seconds) in [("13m", 780), ("1h 30m", 5400), ("90s", 90)] {
        let config = load("", &[("LOOKER_FEED_LOOKER__IDLE_TIMEOUT", text)]).unwrap();
        assert_eq!(config.looker.idle_timeout.as_secs(), seconds, "{text}");
    }
}

#[test]
fn a_bad_value_is_named_with_its_key_its_place_and_what_would_be_right() {
    // A key, its value, and what it takes.
    for case in [
        "intake.listen | localhost | an IP address and a port",
        "intake.base_url | feed.example.com | an absolute http or https url",
        "intake.label |  | a line of text",
        "intake.keep_alive | 0s | a duration from 10ms to 1h",
        "intake.keep_alive | 30 | a duration",
        "looker.allowed_hosts | https://x.example.com | a list of host names",
        "looker.allowed_hosts | *.example.com | a list of host names",
        "looker.allowed_hosts | a.example.com,,b.example.com | a list of host names",
        "looker.allowed_hosts | a.example.com:port | a list of host names",
        "looker.max_deliveries | 0 | a whole number from 1 to 1000",
        "looker.max_deliveries | four | a whole number",
        "mparticle.pod | us3 | \"us1\" or \"us2\" or \"eu1\" or \"au1\"",
        "mparticle.endpoint | http://example.com/v2 | up to and with /v2",
        "mparticle.endpoint | https://example.com | up to and with /v2",
        "mparticle.endpoint | https://example.com/v2/bulkevents | up to and with /v2",
        "mparticle.batches_per_second | 0 | a whole number from 1",
        "mparticle.max_batches_per_request | 101 | a whole number from 1 to 100",
        "mparticle.max_request_bytes | 1MiB | a size from 256 to 262144 bytes",
        "mparticle.max_request_bytes | -1 | a size",
        "mparticle.max_request_bytes | 99999999999TiB | a size",
        "mparticle.identity_names | old | \"current\" or \"legacy\"",
        "log.level | loud | \"error\" or \"warn\"",
    ] {
        let [path, value, accepted] = case.split(" | ").collect::<Vec<_>>()[..] else {
            panic!("{case}");
        };
        let (section, key) = path.split_once('.').unwrap();
        let name = format!("LOOKER_FEED_{section}__{key}").to_ascii_uppercase();
        let message = sentence(load("", &[(&name, value)]));
        let start =
            format!("`{path}` (the environment variable {name}) is {value:?}, but it takes ");
        assert!(message.starts_with(&start), "{message}");
        assert!(message.contains(accepted), "{message}");

        let message = sentence(load(&format!("# one\n[{section}]\n{key} = '{value}'"), &[]));
        assert!(message.contains("user.toml, line 3) is "), "{message}");
        assert!(message.contains(accepted), "{message}");
    }
}

#[test]
fn a_value_of_the_wrong_kind_is_named() {
    for (line, found) in [
        ("listen = 8080", "8080"),
        ("label = true", "true"),
        ("label = 1.5", "1.5"),
        ("label = ['a']", "[\"a\"]"),
        ("label = [1]", "a list of other things than text"),
        ("label.is = 'x'", "a table"),
        ("label = 1979-05-27", "a date"),
        ("label = 99999999999999999999", "a number out of range"),
    ] {
        let message = sentence(load(&format!("[intake]\n{line}"), &[]));
        assert!(
            message.contains(&format!("line 2) is {found}, but it takes")),
            "{message}"
        );
    }
}

#[test]
fn an_unknown_key_is_named_with_the_keys_that_exist() {
    let keys = "the keys of [intake] are listen, base_url";
    let sections = "there is no section [intak]; the sections are intake, action, looker";
    for (file, start, known) in [
        ("[intake]\nlisen = 'x'", "`intake.lisen` (", keys),
        ("[intak]\nlisten = 'x'", "`intak.listen` (", sections),
        ("[intak]", "`[intak]` (", "there is no section [intak]"),
        ("listen = 'x'", "`listen` (", "a key stands in a section"),
    ] {
        let message = sentence(load(file, &[]));
        assert!(message.starts_with(start), "{message}");
        assert!(message.contains("user.toml, line "), "{message}");
        assert!(message.contains(known), "{message}");
    }
    for name in [
        "LOOKER_FEED_INTAKE__LISEN",
        "LOOKER_FEED_INTAKE_LISTEN",
        "LOOKER_FEED_LISTEN",
        "LOOKER_FEED_intake__listen",
        "LOOKER_FEED_",
        "LOOKER_FEED___",
        "LOOKER_FEED_INTAKE__",
        "LOOKER_FEED_PORT__X",
    ] {
        let message = sentence(load("", &[(name, "hunter2")]));
        assert!(message.contains(name), "{message}");
        assert!(!message.contains("hunter2"), "{message}");
    }
}

#[test]
fn variables_that_kubernetes_sets_for_a_service_of_the_same_name_are_not_keys() {
    load(
        "",
        &[
            ("LOOKER_FEED_SERVICE_HOST", "10.0.0.1"),
            ("LOOKER_FEED_SERVICE_PORT", "8080"),
            ("LOOKER_FEED_SERVICE_PORT_HTTP", "8080"),
            ("LOOKER_FEED_PORT", "tcp://10.0.0.1:8080"),
            ("LOOKER_FEED_PORT_8080_TCP_ADDR", "10.0.0.1"),
        ],
    )
    .unwrap();
}

#[test]
fn the_address_that_commands_use_is_no_key_and_nothing_else_like_it_is_let_through() {
    load("", &[("LOOKER_FEED_ADMIN_URL", "http://127.0.0.1:8081")]).unwrap();
    for name in [
        "LOOKER_FEED_ADMIN_URLS",
        "LOOKER_FEED_ADMIN",
        "LOOKER_FEED_admin_url",
        "LOOKER_FEED_ADMIN__URL",
    ] {
        let error = load("", &[(name, "http://127.0.0.1:8081")]).unwrap_err();
        let error = error.to_string();
        assert!(error.contains("is not a key"), "{name}: {error}");
    }
}

#[test]
fn relations_between_keys_are_checked_and_both_are_named() {
    for (env, keys) in [
        (
            "MPARTICLE__MAX_REQUEST_BYTES=1000",
            "`mparticle.max_batch_bytes` is 128000, `mparticle.max_request_bytes`, which is 1000",
        ),
        (
            "MPARTICLE__BACKOFF_INITIAL=2s MPARTICLE__BACKOFF_MAX=1s",
            "`mparticle.backoff_initial` is 2s, `mparticle.backoff_max`, which is 1s",
        ),
        (
            "OUTBOX__SEGMENT_BYTES=100kB",
            "`outbox.segment_bytes` is 100000, `mparticle.max_request_bytes`, which is 256000",
        ),
        (
            "ADMIN__LISTEN=127.0.0.1:8080",
            "`admin.listen` is 127.0.0.1:8080, `intake.listen`",
        ),
        (
            "INTAKE__SECRET=x INTAKE__SECRET_FILE=/y",
            "`intake.secret_file` is /y, `intake.secret` is set too",
        ),
    ] {
        let env = env.split(' ').map(|one| one.split_once('=').unwrap());
        let env = env.map(|(name, value)| (format!("LOOKER_FEED_{name}"), value.to_owned()));
        let message = sentence(config::load(None, env));
        for key in keys.split(", `") {
            assert!(message.contains(key), "{message}");
        }
    }
    let free = [
        ("LOOKER_FEED_ADMIN__LISTEN", "127.0.0.1:0"),
        ("LOOKER_FEED_INTAKE__LISTEN", "127.0.0.1:0"),
    ];
    load("", &free).unwrap();
}

#[test]
fn a_secret_comes_from_the_file_the_environment_or_a_file_of_its_own_and_is_never_shown() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("secret");
    let name = path.to_str().unwrap();
    std::fs::write(&path, "hunter2\r\n").unwrap();
    let both = vec![
        ("LOOKER_FEED_INTAKE__SECRET", ""),
        ("LOOKER_FEED_INTAKE__SECRET_FILE", name),
    ];
    for (file, env) in [
        ("[intake]\nsecret = 'hunter2'", vec![]),
        ("", vec![("LOOKER_FEED_INTAKE__SECRET", "hunter2")]),
        ("", vec![("LOOKER_FEED_INTAKE__SECRET_FILE", name)]),
        ("[intake]\nsecret = 'other'", both),
    ] {
        let config = load(file, &env).unwrap();
        assert_eq!(config.require_secret().unwrap().expose(), "hunter2");
        assert!(!format!("{config:?}").contains("hunter2"));
    }

    let config = config::load(None, std::iter::empty()).unwrap();
    let message = config.require_secret().unwrap_err().to_string();
    assert!(message.contains("openssl rand -hex 32"), "{message}");
    assert!(message.contains("LOOKER_FEED_INTAKE__SECRET"), "{message}");

    std::fs::write(&path, "\n").unwrap();
    let error = load("", &[("LOOKER_FEED_INTAKE__SECRET_FILE", name)]).unwrap_err();
    assert!(error.to_string().contains(name), "{error}");
    assert_eq!(error.source().unwrap().to_string(), "it is empty");
}

#[test]
fn errors_never_quote_a_secret() {
    for file in [
        "[intake]\nsecret = 'hunter2",
        "[intake]\nsecret = hunter2",
        "[intake]\nsecret = ['hunter2']",
        "[intake]\nlabel = 'x'\nsecret = 'hunter2'\nsecret = 'hunter2'",
        "[mparticle]\nendpoint = 'https://user:hunter2@example.com/v2'",
    ] {
        let error = load(file, &[]).map(|_| "accepted").unwrap_err();
        let mut all = error.to_string();
        let mut source = error.source();
        while let Some(error) = source {
            all.push_str(&error.to_string());
            source = error.source();
        }
        assert!(!all.contains("hunter2"), "{all}");
        assert!(!format!("{error:?}").contains("hunter2"), "{all}");
        assert!(all.contains("line "), "{all}");
    }
}

#[test]
fn what_is_in_effect_is_shown_with_its_place_and_without_its_secrets() {
    let file = "[intake]\nlabel = 'ours'\nsecret = 'hunter2'\nprevious_secrets = ['hunter2']\n\
                [admin]\ntoken = 'hunter2hunter2hunter2'\ntokens = ['leo:look:hunter2hunter2hunter2']\n\
                [notify]\nslack_url = 'https://hooks.example.com/hunter2'\n";
    let env = [("LOOKER_FEED_MPARTICLE__BATCHES_PER_SECOND", "100")];
    let found = load(file, &env).unwrap().found;
    assert!(!format!("{found:?}").contains("hunter2"), "{found:?}");
    let of = |key: &str| {
        let one = found.iter().find(|found| found.key == key);
        let one = one.unwrap_or_else(|| panic!("{key} is shown"));
        let place = one.origin.as_ref().map(ToString::to_string);
        (
            one.value.clone(),
            one.secret,
            place.unwrap_or("not set".into()),
        )
    };
    let (label, secret, place) = of("intake.label");
    assert_eq!((label.as_deref(), secret), (Some("ours"), false));
    assert!(place.ends_with("line 2"), "{place}");
    for key in [
        "intake.secret",
        "intake.previous_secrets",
        "admin.token",
        "admin.tokens",
        "notify.slack_url",
    ] {
        assert_eq!(of(key).0, None, "{key}");
        assert!(of(key).1, "{key} is set");
    }
    assert_eq!(of("notify.webhook_url"), (None, false, "not set".into()));
    let (rate, _, place) = of("mparticle.batches_per_second");
    assert_eq!(rate.as_deref(), Some("100"));
    let variable = "LOOKER_FEED_MPARTICLE__BATCHES_PER_SECOND";
    assert!(place.contains(variable), "{place}");
    let place = of("outbox.path").2;
    assert!(place.starts_with("the shipped defaults, line "));
    // Every key stands there once.
    let keys: std::collections::BTreeSet<_> = found.iter().map(|found| found.key).collect();
    assert_eq!(keys.len(), found.len());
}

#[test]
fn a_shared_outbox_needs_an_address_and_a_key_and_hides_its_password() {
    let said = |file: &str| sentence(load(file, &[]));
    let bare = said("[outbox]\nbackend = 'postgres'");
    for words in [
        "`outbox.url` must say which database",
        "`seal.key_file` must name the key",
    ] {
        assert!(bare.contains(words), "{bare}");
    }
    let idle = said("[outbox]\nurl = 'postgres://feed:word@db/feed'");
    assert!(idle.contains("outbox.backend"), "{idle}");
    assert!(!idle.contains("word"), "{idle}");
    for (key, value) in [("pool", "1"), ("lease", "'1s'"), ("backend", "'redis'")] {
        let error = said(&format!("[outbox]\n{key} = {value}"));
        assert!(error.contains(&format!("outbox.{key}")), "{error}");
    }
    let home = tempfile::tempdir().unwrap();
    let password = home.path().join("password");
    std::fs::write(&password, "the word\n").unwrap();
    let file = format!(
        "[outbox]\nbackend = 'postgres'\nurl = 'postgres://feed:word@db/feed'\n\
         password_file = '{}'\n[seal]\nkey_file = '/key'",
        password.display()
    );
    let config = load(&file, &[]).unwrap();
    let secret = config.outbox.password.as_ref().map(Secret::expose);
    assert_eq!(secret, Some("the word"));
    let shown = format!("{config:?}");
    assert!(!shown.contains("the word"), "{shown}");
    assert!(!shown.contains("feed:word"), "{shown}");
    let found = config.found.iter().find(|found| found.key == "outbox.url");
    assert!(found.unwrap().secret && found.unwrap().value.is_none());
}

#[test]
fn tokens_have_a_name_a_role_and_enough_characters() {
    let of = |tokens: &str| load("", &[("LOOKER_FEED_ADMIN__TOKENS", tokens)]);
    let tokens = of("ann:act:0123456789abcdef, leo:look:fedcba9876543:210").unwrap();
    let tokens = tokens.admin.tokens.iter();
    let tokens = tokens.map(|one| (&*one.name, one.may_act, one.token.expose()));
    let (ann, leo) = ("0123456789abcdef", "fedcba9876543:210");
    let want = [("ann", true, ann), ("leo", false, leo)];
    assert_eq!(tokens.collect::<Vec<_>>(), want);
    let wide = [
        ("LOOKER_FEED_ADMIN__LISTEN", "0.0.0.0:8081"),
        ("LOOKER_FEED_ADMIN__TOKENS", "leo:look:0123456789abcdef"),
    ];
    assert!(load("", &wide).is_ok());
    for bad in [
        "ann:act:short",
        "ann:0123456789abcdef",
        "ann:own:0123456789abcdef",
        ":act:0123456789abcdef",
        "a b:act:0123456789abcdef",
        "ann:act:0123456789abcdef,ann:look:fedcba9876543210",
    ] {
        let error = of(bad).unwrap_err().to_string();
        assert!(error.contains("admin.tokens"), "{error}");
        assert!(!error.contains("0123456789"), "{error}");
    }
}

#[test]
fn a_file_that_cannot_be_read_is_named() {
    let missing = PathBuf::from("/nonexistent/feed.toml");
    let error = config::load(Some(&missing), std::iter::empty()).unwrap_err();
    assert_eq!(
        error.to_string(),
        "the configuration file /nonexistent/feed.toml cannot be read"
    );
    assert!(error.source().is_some());
    let endless = PathBuf::from("/dev/zero");
    assert!(config::load(Some(&endless), std::iter::empty()).is_err());
}

#[test]
fn a_callback_goes_to_https_or_this_machine_and_is_never_printed() {
    let key = "LOOKER_FEED_NOTIFY__WEBHOOK_URL";
    let good = "https://hooks.example.com/services/T0/secret";
    let config = load("", &[(key, good)]).unwrap();
    assert!(!format!("{:?}", config.notify).contains("hooks"));
    assert_eq!(config.notify.webhook_url.unwrap().expose(), good);
    load("", &[(key, "http://127.0.0.1:9/x")]).unwrap();
    for bad in [
        "http://hooks.example.com/x",
        "https://a:b@c.example.com/x",
        "hooks",
    ] {
        let error = load("", &[(key, bad)]).unwrap_err().to_string();
        assert!(error.contains("notify.webhook_url"), "{error}");
        assert!(!error.contains(bad), "{error}");
    }
}
#[test]
fn what_is_sent_can_be_chosen_by_file_and_by_variable() {
    let config = load(
        "[mparticle]\ntrim_identities = true\nnull_attributes = 'delete'\nplan_id = 'p'\nhistorical_events = 'always'\n",
        &[
            ("LOOKER_FEED_MPARTICLE__LOWERCASE_EMAIL", "true"),
            ("LOOKER_FEED_MPARTICLE__PLAN_VERSION", "3"),
        ],
    )
    .unwrap()
    .mparticle;
    assert!(config.trim_identities && config.lowercase_email && !config.strip_html);
    assert_eq!(config.null_attributes, Nulls::Delete);
    assert_eq!(config.historical_events, Historical::Always);
    assert_eq!(config.plan_id.as_deref(), Some("p"));
    assert_eq!(config.plan_version, Some(3));
    let config = load(
        "[mparticle]\nearliest_event = '1999-12-31'\nlatest_event_ahead = '0s'\nattribute_types = 'typed'\n",
        &[
            ("LOOKER_FEED_MPARTICLE__PLACEHOLDER_IDENTITIES", "0, unknown"),
            ("LOOKER_FEED_MPARTICLE__MAX_EVENT_NAMES", "2000"),
        ],
    )
    .unwrap()
    .mparticle;
    assert_eq!(config.earliest_event, 946_598_400_000);
    assert_eq!(config.latest_event_ahead, Duration::ZERO);
    assert_eq!(config.attribute_types, AttributeTypes::Typed);
    assert_eq!(config.placeholder_identities, ["0", "unknown"]);
    assert_eq!(config.max_event_names, 2000);
    let none = load("[mparticle]\nplaceholder_identities = []\n", &[]).unwrap();
    assert!(none.mparticle.placeholder_identities.is_empty());

    let nulls = "it takes \"omit\" or \"null\" or \"delete\"";
    let historical = "it takes \"auto\" or \"never\" or \"always\"";
    for (file, want) in [
        ("strip_html = 'yes'", "`mparticle.strip_html` ("),
        ("attribute_types = 'real'", "\"as_is\" or \"typed\""),
        ("earliest_event = '2000'", "a day from 1970 to 2100"),
        ("earliest_event = '1969-12-31'", "a day from 1970 to 2100"),
        ("latest_event_ahead = 'soon'", "a duration from"),
        ("max_event_names = 0", "a whole number from 1 to 100000"),
        ("placeholder_identities = ['']", "a list of texts"),
        ("strip_html = 1", "is 1, but it takes true or false"),
        ("null_attributes = 'drop'", nulls),
        ("historical_events = 'old'", historical),
        ("plan_version = 2", "`mparticle.plan_id` is not set"),
        (
            "plan_id = 'p'\nplan_version = 0",
            "a whole number from 1 to",
        ),
    ] {
        let told = sentence(load(&format!("[mparticle]\n{file}\n"), &[]));
        assert!(told.contains(want), "{told}");
    }
}

#[test]
fn an_admin_side_that_others_can_reach_needs_a_token() {
    const LISTEN: &str = "LOOKER_FEED_ADMIN__LISTEN";
    const TOKEN: &str = "LOOKER_FEED_ADMIN__TOKEN";
    let wide = ["0.0.0.0:81", "192.168.1.1:81", "[::]:81"];
    for address in wide.into_iter().chain(["[::ffff:10.0.0.1]:81"]) {
        let message = sentence(load("", &[(LISTEN, address)]));
        let begin = format!("`admin.listen` is {address}");
        assert!(message.starts_with(&begin), "{message}");
        assert!(message.contains("`admin.token`"), "{message}");
        let config = load("", &[(LISTEN, address), (TOKEN, "0123456789abcdef")]).unwrap();
        assert_eq!(config.admin.token.unwrap().expose(), "0123456789abcdef");
    }
    for address in [
        "127.0.0.1:81",
        "127.9.9.9:0",
        "[::1]:81",
        "[::ffff:127.0.0.1]:81",
    ] {
        assert!(load("", &[(LISTEN, address)]).is_ok(), "{address}");
    }
}

#[test]
fn a_token_that_could_be_guessed_or_would_not_survive_a_header_is_refused_and_not_shown() {
    for token in [
        "hunter2",
        "0123456789 abcdef",
        "0123456789abcdé",
        "0123456789abcde\n!",
    ] {
        let message = sentence(load("", &[("LOOKER_FEED_ADMIN__TOKEN", token)]));
        assert!(message.starts_with("`admin.token` is"), "{message}");
        assert!(!message.contains(token), "{message}");
    }
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("token");
    std::fs::write(&path, "0123456789abcdef\n").unwrap();
    let path = path.display().to_string();
    let config = load("", &[("LOOKER_FEED_ADMIN__TOKEN_FILE", &path)]).unwrap();
    assert_eq!(config.admin.token.unwrap().expose(), "0123456789abcdef");
}

#[test]
fn admin_names_are_hosts_without_a_port() {
    const HOSTS: &str = "LOOKER_FEED_ADMIN__HOSTS";
    let config = load("", &[(HOSTS, "Feed.Example.com,10.0.0.1,::1")]).unwrap();
    let want = ["feed.example.com", "10.0.0.1", "[::1]"];
    assert_eq!(config.admin.hosts, want);
    for wrong in ["feed.example.com:81", "https://x", "*.example.com"] {
        let message = sentence(load("", &[(HOSTS, wrong)]));
        assert!(message.starts_with("`admin.hosts`"), "{message}");
    }
}

#[test]
fn previous_secrets_and_revoked_keys_are_lists_and_are_not_shown_when_they_are_wrong() {
    const PREVIOUS: &str = "LOOKER_FEED_INTAKE__PREVIOUS_SECRETS";
    const REVOKED: &str = "LOOKER_FEED_INTAKE__REVOKED_KEYS";
    let file = "[intake]\nprevious_secrets = ['a, b', 'c']\nrevoked_keys = ['nonce/digest', 'n2']";
    let config = load(file, &[]).unwrap();
    let secrets = |config: &Config| -> Vec<String> {
        let all = config.intake.previous_secrets.iter();
        all.map(|secret| secret.expose().to_owned()).collect()
    };
    assert_eq!(secrets(&config), ["a, b", "c"]);
    assert_eq!(config.intake.revoked_keys, ["nonce", "n2"]);
    let config = load("", &[(PREVIOUS, "a,b"), (REVOKED, "")]).unwrap();
    assert_eq!(secrets(&config), ["a", "b"]);
    assert!(config.intake.revoked_keys.is_empty());
    for wrong in [[(PREVIOUS, "hunter2,")], [(REVOKED, "hunter2,/x")]] {
        let message = sentence(load("", &wrong));
        assert!(message.contains("a list of"), "{message}");
        assert!(!message.contains("hunter2"), "{message}");
    }
    let message = sentence(load("[intake]\nprevious_secrets = 'hunter2,,'", &[]));
    let begin = "`intake.previous_secrets`";
    assert!(message.starts_with(begin), "{message}");
    assert!(!message.contains("hunter2"), "{message}");
}

#[test]
fn a_certificate_needs_its_key_and_a_key_its_certificate() {
    for (key, value) in [("TLS_CERT", "/a.pem"), ("TLS_KEY", "/b.pem")] {
        let name = format!("LOOKER_FEED_INTAKE__{key}");
        let message = sentence(load("", &[(&name, value)]));
        assert!(message.contains("`intake.tls_cert` is"), "{message}");
        assert!(message.contains("`intake.tls_key` is"), "{message}");
        assert!(message.contains(value), "{message}");
    }
    let both = "[intake]\ntls_cert = '/a'\ntls_key = '/b'";
    assert!(load(both, &[]).is_ok());
}

#[test]
fn what_the_configuration_takes_as_a_segments_size_the_outbox_takes_too() {
    use looker_feed::outbox::{Outbox, Settings};
    use looker_feed::seal::{Key, Keyring};

    let most = *Settings::SEGMENT_BYTES.end();
    let given = |bytes: u64| load(&format!("[outbox]\nsegment_bytes = {bytes}"), &[]);
    let config = given(most).unwrap();
    let directory = tempfile::tempdir().unwrap();
    let keys = Keyring::new(Key::new([1; 32]), Vec::new());
    let outbox = Outbox::open(Settings {
        segment_bytes: config.outbox.segment_bytes,
        ..Settings::new(directory.path(), std::sync::Arc::new(keys))
    });
    outbox.unwrap().close();
    let refused = given(most + 1).unwrap_err().to_string();
    assert!(refused.contains("`outbox.segment_bytes`"), "{refused}");
}

const TWO_LOOKERS: &str = r#"
[looker.api]
url = "https://looker.example.com"
client_id = "first"
client_secret = "the first secret"
tries = 2

[looker.api.emea]
url = "https://emea.example.com:19999"
client_id = "second"
client_secret = "the second secret"
hub_id = "5"
"#;

#[test]
fn each_looker_has_a_section_and_what_is_missing_or_unknown_in_it_is_named() {
    let config = load(TWO_LOOKERS, &[]).unwrap();
    let api = &config.looker.api;
    assert_eq!(api.tries, 2);
    let told = api.instances.iter();
    let told = told.map(|one| format!("{} {} {}", one.name, one.url, one.client_id));
    let want = [
        " https://looker.example.com/ first",
        "emea https://emea.example.com:19999/ second",
    ];
    assert_eq!(told.collect::<Vec<_>>(), want);
    assert_eq!(api.instances[1].hub_id.as_deref(), Some("5"));
    let shown = format!("{config:?}");
    assert!(!shown.contains("the first") && !shown.contains("the second"));
    // The same by variables.
    let url = "https://e.example.com";
    let variables = [("URL", url), ("CLIENT_ID", "third"), ("CLIENT_SECRET", "s")];
    let variables = variables.map(|(key, value)| {
        (
            format!("LOOKER_FEED_LOOKER__API__EMEA__{key}"),
            value.to_owned(),
        )
    });
    let config = config::load(None, variables.into_iter()).unwrap();
    assert_eq!(config.looker.api.instances[0].client_id, "third");

    let secret = "client_secret = \"the second secret\"";
    for (what, by, told) in [
        (secret, "", "[looker.api.emea]"),
        ("hub_id", "hub", "looker.api.emea.hub"),
        ("https://emea", "http://emea", "looker.api.url"),
        ("tries = 2", "tries = 0", "looker.api.tries"),
        ("tries = 2", "pause = \"3h\"", "looker.api.pause_max"),
        (secret, "client_secret = 5", "looker.api.client_secret"),
    ] {
        let said = sentence(load(&TWO_LOOKERS.replace(what, by), &[]));
        assert!(said.contains(told), "{by:?}: {said}");
        assert!(!said.contains("the second secret"), "{said}");
    }
}

#[test]
fn what_is_held_is_a_percentage_and_titles() {
    let config = load("", &[]).unwrap();
    assert_eq!(config.hold.unusual_percent, 0);
    assert!(config.hold.schedules.is_empty());
    let file = "[hold]\nunusual_percent = 50\nschedules = ['Nightly', ' Customers, EU ']";
    let config = load(file, &[]).unwrap();
    assert_eq!(config.hold.unusual_percent, 50);
    assert_eq!(config.hold.schedules, ["Nightly", "Customers, EU"]);
    let variables = [
        ("LOOKER_FEED_HOLD__UNUSUAL_PERCENT", "200"),
        ("LOOKER_FEED_HOLD__SCHEDULES", "Nightly,Weekly"),
    ];
    let config = load("", &variables).unwrap();
    assert_eq!(config.hold.unusual_percent, 200);
    assert_eq!(config.hold.schedules, ["Nightly", "Weekly"]);
    for (wrong, told) in [
        (
            "unusual_percent = -1",
            "takes a whole number from 0 to 1000000",
        ),
        ("unusual_percent = 2000000", "from 0 to 1000000"),
        ("unusual_percent = 'half'", "but it takes a whole number"),
        (
            "unusual_percent = 50\nschedules = ['Nightly', ' ']",
            "a list of titles",
        ),
        ("schedules = ['Nightly']", "`hold.unusual_percent` is 0"),
        ("percent = 50", "hold.percent"),
    ] {
        let said = sentence(load(&format!("[hold]\n{wrong}"), &[]));
        assert!(said.contains(told), "{wrong}: {said}");
    }
}

#[test]
fn a_header_that_names_users_is_believed_only_of_named_proxies() {
    let config = load("", &[]).unwrap();
    assert_eq!(config.admin.user_header, None);
    assert!(config.admin.user_header_from.is_empty() && !config.admin.user_header_may_act);
    let file = "[admin]\nuser_header = 'X-Forwarded-User'\nuser_header_role = 'act'\n\
                user_header_from = ['10.0.0.5', 'fd00::5']";
    let admin = load(file, &[]).unwrap().admin;
    let name = admin.user_header.as_ref().map(|name| name.as_str());
    assert_eq!(name, Some("x-forwarded-user"));
    let from: Vec<_> = admin
        .user_header_from
        .iter()
        .map(ToString::to_string)
        .collect();
    assert_eq!(from, ["10.0.0.5", "fd00::5"]);
    assert!(admin.user_header_may_act);
    let variables = [
        ("LOOKER_FEED_ADMIN__USER_HEADER", "Remote-User"),
        ("LOOKER_FEED_ADMIN__USER_HEADER_FROM", "10.0.0.5,10.0.0.6"),
    ];
    let admin = load("", &variables).unwrap().admin;
    assert_eq!(admin.user_header_from.len(), 2);
    assert!(!admin.user_header_may_act, "a user may look");
    for (wrong, told) in [
        (
            "user_header = 'X-Forwarded-User'",
            "`admin.user_header_from` must list the addresses of the proxy",
        ),
        ("user_header = 'Host'", "the name of a header"),
        ("user_header = 'authorization'", "the name of a header"),
        ("user_header = 'two words'", "the name of a header"),
        ("user_header = 5", "the name of a header"),
        (
            "user_header_from = ['10.0.0.0/8']",
            "a list of IP addresses",
        ),
        ("user_header_from = ['proxy']", "a list of IP addresses"),
        ("user_header_role = 'admin'", "\"look\" or \"act\""),
    ] {
        let said = sentence(load(&format!("[admin]\n{wrong}"), &[]));
        assert!(said.contains(told), "{wrong}: {said}");
    }
}
