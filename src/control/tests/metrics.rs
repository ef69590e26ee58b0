//! The metrics page, read by a strict checker and, where it is installed, by promtool.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use super::scripted::{DESTINATION, Running};

/// Samples by name and labels, as they stand.
fn parse(text: &str) -> BTreeMap<String, f64> {
    let mut samples = BTreeMap::new();
    let mut families = BTreeSet::new();
    let mut family = (String::new(), String::new());
    let mut lines = text.lines();
    assert!(text.ends_with('\n'));
    while let Some(line) = lines.next() {
        if let Some(help) = line.strip_prefix("# HELP ") {
            let (name, help) = help.split_once(' ').unwrap();
            assert!(!help.trim().is_empty(), "{line}");
            let kind = lines.next().unwrap();
            let kind = kind.strip_prefix(&format!("# TYPE {name} ")).unwrap();
            assert!(matches!(kind, "counter" | "gauge"), "{kind}");
            assert!(families.insert(name.to_owned()), "{name} comes twice");
            family = (name.to_owned(), kind.to_owned());
            continue;
        }
        let (series, value) = line.rsplit_once(' ').unwrap();
        let name = series.split('{').next().unwrap();
        assert_eq!(name, family.0, "{line} stands outside its family");
        assert!(name.starts_with("looker_feed_"));
        assert_eq!(name.ends_with("_total"), family.1 == "counter", "{name}");
        if let Some(labels) = series.strip_prefix(name).filter(|rest| !rest.is_empty()) {
            check_labels(labels.strip_prefix('{').unwrap().strip_suffix('}').unwrap());
        }
        let value: f64 = value.parse().unwrap();
        let before = samples.insert(series.to_owned(), value);
        assert!(before.is_none(), "{series} comes twice");
    }
    samples
}

fn check_labels(mut rest: &str) {
    loop {
        let (name, value) = rest.split_once("=\"").unwrap();
        let fine = |c: char| c.is_ascii_lowercase() || c == '_';
        assert!(!name.is_empty() && name.chars().all(fine), "{name}");
        let mut chars = value.char_indices();
        let end = loop {
            match chars.next().unwrap() {
                (_, '\\') => assert!(matches!(chars.next(), Some((_, '\\' | '"' | 'n')))),
                (at, '"') => break at,
                (_, other) => assert_ne!(other, '\n'),
            }
        };
        rest = &value[end + 1..];
        if rest.is_empty() {
            return;
        }
        rest = rest.strip_prefix(',').unwrap();
    }
}

/// Runs promtool when it is there; the strict checker above has spoken either way.
fn promtool(arguments: &[&str], input: &str) {
    let child = Command::new("promtool")
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let Ok(mut child) = child else {
        let ci = std::env::var("CI").is_ok_and(|ci| ci == "true");
        assert!(!ci, "promtool is not installed, and CI must have it");
        eprintln!("promtool is not installed: {arguments:?} was not tried");
        return;
    };
    child
        .stdin
        .take()
        .unwrap()
        .write_all(input.as_bytes())
        .unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(
        output.status.success(),
        "promtool {arguments:?}: {}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
}

#[tokio::test]
async fn metrics_are_well_formed_and_hold_the_numbers() {
    let admin = Running::start().await;
    let (status, text) = admin.get("/metrics").await;
    assert_eq!(status, 200);
    let samples = parse(&text);
    let label = r#"s2s.mparticle.com \"…1234\" \\ \n"#;
    let of = |name: &str, more: &str| {
        samples[&format!(
            "looker_feed_{name}{{destination=\"{DESTINATION}\",label=\"{label}\"{more}}}"
        )]
    };
    assert_eq!(of("replies_total", ",reply=\"throttled\""), 2.0);
    assert_eq!(of("destination_state", ",state=\"flowing\""), 1.0);
    assert_eq!(of("destination_state", ",state=\"paused\""), 0.0);
    assert_eq!(of("backlog_age_seconds", ""), 30.0);
    assert_eq!(of("latency_p99_seconds", ""), 0.25);
    assert_eq!(of("pace_batches_per_second", ""), 120.5);
    assert_eq!(samples["looker_feed_rows_received_total"], 1_200.0);
    assert_eq!(samples["looker_feed_dead_letters"], 3.0);
    assert_eq!(samples["looker_feed_cancelled_rows"], 17.0);
    assert_eq!(samples["looker_feed_outbox_set_aside_bytes"], 77.0);
    assert_eq!(samples["looker_feed_last_delivery_timestamp_seconds"], 31.0);
    assert_eq!(samples["looker_feed_ready"], 1.0);
    // The hostile title, without what would end its label or its line.
    let schedule: Vec<_> = samples
        .iter()
        .filter(|(series, _)| series.starts_with("looker_feed_schedule_last"))
        .collect();
    let [(series, at)] = schedule[..] else {
        panic!("{schedule:?}");
    };
    assert_eq!(*at, 31.0);
    assert!(series.contains("onerror=alert(1)>\\\"'&"), "{series}");
    assert!(!series.contains(['\u{1b}', '\u{202e}', '\r']), "{series}");
    assert_eq!(samples["looker_feed_schedules_left_out"], 0.0);
    assert_eq!(samples["looker_feed_spans_total{outcome=\"dropped\"}"], 2.0);
    assert!(!samples.contains_key("looker_feed_outbox_max_bytes"));
    promtool(&["check", "metrics"], &text);

    // A daemon whose list cannot be read still has metrics.
    let problem = crate::control::Problem::Failed("The disk failed.".into());
    admin.daemon.script().problem = Some(problem);
    let (status, text) = admin.get("/metrics").await;
    assert_eq!(status, 200);
    assert!(!text.contains("\nlooker_feed_last_delivery_timestamp_seconds"));
    assert!(!text.contains("\nlooker_feed_schedule_last"));
    parse(&text);
    admin.stop().await;
}

/// Names of our series in a text.
fn names(text: &str) -> BTreeSet<String> {
    text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'))
        .filter(|word| word.starts_with("looker_feed_"))
        .map(str::to_owned)
        .collect()
}

#[tokio::test]
async fn alerts_and_dashboard_use_only_series_that_exist() {
    let admin = Running::start().await;
    {
        let outbox = &mut admin.daemon.script().overview.outbox;
        outbox.max_bytes = Some(1 << 30);
    }
    admin.daemon.script().overview.destinations[0].last_success = Some(crate::clock::UnixMillis(5));
    let (_, text) = admin.get("/metrics").await;
    admin.stop().await;
    let known: BTreeSet<String> = parse(&text)
        .keys()
        .map(|series| series.split('{').next().unwrap().to_owned())
        .collect();
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("config");
    for file in ["alerts.yml", "grafana-dashboard.json"] {
        let path = directory.join(file);
        let text = std::fs::read_to_string(&path).unwrap();
        let used = names(&text);
        assert!(used.len() > 5, "{file}");
        let unknown: Vec<_> = used.difference(&known).collect();
        assert!(unknown.is_empty(), "{file}: {unknown:?}");
    }
    let alerts = directory.join("alerts.yml");
    promtool(&["check", "rules", alerts.to_str().unwrap()], "");
    let dashboard = std::fs::read_to_string(directory.join("grafana-dashboard.json")).unwrap();
    let dashboard: serde_json::Value = serde_json::from_str(&dashboard).unwrap();
    assert!(
        dashboard["panels"]
            .as_array()
            .is_some_and(|panels| panels.len() > 8)
    );
}

/// What each alert is for, tried out: series over time, and whether it is raised at a moment.
#[test]
fn alerts_are_raised_when_they_should_be_and_not_before() {
    let alerts = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/alerts.yml");
    let all_at = |alert: &str, series: &[(&str, &str)], minute: u32, raised: bool| {
        let expect = match raised {
            true => "1",
            false => "0",
        };
        let series: String = series
            .iter()
            .map(|(series, values)| {
                let labelled = series.replace('}', ",label=\"here\"}");
                format!("      - series: '{labelled}'\n        values: '{values}'\n")
            })
            .collect();
        format!(
            "  - interval: 1m\n    input_series:\n{series}    promql_expr_test:\n      - expr: \
             'count(ALERTS{{alertname=\"{alert}\",alertstate=\"firing\"}}) or vector(0)'\n        \
             eval_time: {minute}m\n        exp_samples:\n          - labels: '{{}}'\n            \
             value: {expect}\n"
        )
    };
    let at = |alert: &str, series: &str, values: &str, minute: u32, raised: bool| {
        all_at(alert, &[(series, values)], minute, raised)
    };
    let scheduled = |deliveries: &str, minute: u32, raised: bool| {
        let of = |name: &str| {
            format!(
                "looker_feed_schedule_{name}{{instance=\"i\",schedule=\"A \\\"daily\\\" one\"}}"
            )
        };
        let series = [
            (&*of("last_delivery_timestamp_seconds"), "0x1700"),
            (&*of("deliveries"), deliveries),
        ];
        all_at("LookerFeedScheduleSilent", &series, minute, raised)
    };
    let state = |state: &str| {
        format!("looker_feed_destination_state{{destination=\"d\",state=\"{state}\"}}")
    };
    let plain = |name: &str| format!("looker_feed_{name}{{instance=\"i\"}}");
    let ended = |outcome: &str| {
        format!("looker_feed_ask_again_ended_total{{instance=\"i\",outcome=\"{outcome}\"}}")
    };
    let failed = |busy: &str, cut: &str, alone: &str, minute: u32, raised: bool| {
        let of = |reason: &str| {
            format!("looker_feed_failed_deliveries_total{{instance=\"i\",reason=\"{reason}\"}}")
        };
        let series = [
            (&*of("busy"), busy),
            (&*of("cut"), cut),
            (&*plain("failed_deliveries_for_a_person"), alone),
        ];
        all_at("LookerFeedDeliveryFailed", &series, minute, raised)
    };
    let cases = [
        at(
            "LookerFeedDestinationPaused",
            &state("paused"),
            "0 0 1x30",
            4,
            false,
        ),
        at(
            "LookerFeedDestinationPaused",
            &state("paused"),
            "0 0 1x30",
            10,
            true,
        ),
        at(
            "LookerFeedDestinationPaused",
            &state("flowing"),
            "1x30",
            20,
            false,
        ),
        at(
            "LookerFeedDeadLetters",
            &plain("dead_letters"),
            "0x30",
            20,
            false,
        ),
        at(
            "LookerFeedDeadLetters",
            &plain("dead_letters"),
            "0 3x30",
            5,
            true,
        ),
        at(
            "LookerFeedBacklogOld",
            &plain("backlog_age_seconds"),
            "14000x30",
            25,
            false,
        ),
        at(
            "LookerFeedBacklogOld",
            &plain("backlog_age_seconds"),
            "15000x30",
            25,
            true,
        ),
        at(
            "LookerFeedRefusingWrites",
            &plain("outbox_refusing_writes"),
            "0 1x9",
            5,
            true,
        ),
        at(
            "LookerFeedOutboxUnreadable",
            &plain("outbox_unreadable"),
            "0 1x9",
            9,
            true,
        ),
        at(
            "LookerFeedDiskNearlyFull",
            &plain("disk_free_bytes"),
            "1e9x30",
            25,
            true,
        ),
        at(
            "LookerFeedDiskNearlyFull",
            &plain("disk_free_bytes"),
            "9e9x30",
            25,
            false,
        ),
        at("LookerFeedNotReady", &plain("ready"), "1x30", 25, false),
        at("LookerFeedNotReady", &plain("ready"), "0x30", 25, true),
        at("LookerFeedDown", &plain("dead_letters"), "0x30", 25, true),
        at("LookerFeedDown", &plain("ready"), "1x30", 25, false),
        // The clock of the test begins in 1970.
        at(
            "LookerFeedNoDeliveries",
            &plain("last_delivery_timestamp_seconds"),
            "0x1700",
            1500,
            false,
        ),
        at(
            "LookerFeedNoDeliveries",
            &plain("last_delivery_timestamp_seconds"),
            "0x1700",
            1600,
            true,
        ),
        failed("0x60", "0 0 2x60", "0 0 1x60", 8, true),
        failed("0x60", "0 0 2x60", "0x60", 8, false),
        // Old news.
        failed("0x60", "0 0 2x60", "0 0 1x60", 40, false),
        at(
            "LookerFeedDeliveryGivenUp",
            &ended("given_up"),
            "0 0 1x60",
            8,
            true,
        ),
        at(
            "LookerFeedDeliveryGivenUp",
            &ended("called_off"),
            "0 0 1x60",
            8,
            false,
        ),
        at(
            "LookerFeedLookerApiDown",
            &plain("looker_api_up"),
            "0x60",
            25,
            false,
        ),
        at(
            "LookerFeedLookerApiDown",
            &plain("looker_api_up"),
            "0x60",
            35,
            true,
        ),
        scheduled("3x1700", 1500, false),
        scheduled("3x1700", 1600, true),
        // What a person sent once or twice is no schedule.
        scheduled("2x1700", 1600, false),
    ];
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("tests.yml");
    let text = format!(
        "rule_files:\n  - {}\nevaluation_interval: 1m\ntests:\n{}",
        alerts.display(),
        cases.concat()
    );
    assert_eq!(text.matches("interval: 1m").count(), cases.len() + 1);
    std::fs::write(&file, text).unwrap();
    promtool(&["test", "rules", file.to_str().unwrap()], "");
}
