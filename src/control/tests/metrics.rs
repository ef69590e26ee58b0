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
    // An alert, whether it is raised, in which minute, and series with their values in each minute.
    let case = |alert: &str, raised: u8, minute: u32, series: &[(&str, &str)]| {
        let series: String = series
            .iter()
            .map(|(series, values)| {
                let labelled = series.replace('}', ",label=\"here\"}");
                format!("      - series: 'looker_feed_{labelled}'\n        values: '{values}'\n")
            })
            .collect();
        format!(
            "  - interval: 1m\n    input_series:\n{series}    promql_expr_test:\n      - expr: \
             'count(ALERTS{{alertname=\"LookerFeed{alert}\",alertstate=\"firing\"}}) or \
             vector(0)'\n        eval_time: {minute}m\n        exp_samples:\n          - labels: \
             '{{}}'\n            value: {raised}\n"
        )
    };
    let one = |alert: &str, raised, minute, name: &str, values: &str| {
        let series = format!("{name}{{instance=\"i\"}}");
        case(alert, raised, minute, &[(&series, values)])
    };
    let paused = |raised, minute, state: &str, values: &str| {
        let series = format!("destination_state{{destination=\"d\",state=\"{state}\"}}");
        case("DestinationPaused", raised, minute, &[(&series, values)])
    };
    let ended = |raised, outcome: &str| {
        let series = format!("ask_again_ended_total{{instance=\"i\",outcome=\"{outcome}\"}}");
        case("DeliveryGivenUp", raised, 8, &[(&series, "0 0 1x60")])
    };
    let silent = |raised, minute, deliveries: &str| {
        let labels = "{instance=\"i\",schedule=\"A \\\"daily\\\" one\"}";
        let last = format!("schedule_last_delivery_timestamp_seconds{labels}");
        let count = format!("schedule_deliveries{labels}");
        let series = [(&*last, "0x1700"), (&*count, deliveries)];
        case("ScheduleSilent", raised, minute, &series)
    };
    let failed = |raised, minute, for_a_person: &str| {
        let series = [
            (
                "failed_deliveries_total{instance=\"i\",reason=\"busy\"}",
                "0x60",
            ),
            (
                "failed_deliveries_total{instance=\"i\",reason=\"cut\"}",
                "0 0 2x60",
            ),
            (
                "failed_deliveries_for_a_person{instance=\"i\"}",
                for_a_person,
            ),
        ];
        case("DeliveryFailed", raised, minute, &series)
    };
    let newest = "last_delivery_timestamp_seconds";
    let cases = [
        paused(0, 4, "paused", "0 0 1x30"),
        paused(1, 10, "paused", "0 0 1x30"),
        paused(0, 20, "flowing", "1x30"),
        one("DeadLetters", 0, 20, "dead_letters", "0x30"),
        one("DeadLetters", 1, 5, "dead_letters", "0 3x30"),
        one("BacklogOld", 0, 25, "backlog_age_seconds", "14000x30"),
        one("BacklogOld", 1, 25, "backlog_age_seconds", "15000x30"),
        one("RefusingWrites", 1, 5, "outbox_refusing_writes", "0 1x9"),
        one("OutboxUnreadable", 1, 9, "outbox_unreadable", "0 1x9"),
        one("DiskNearlyFull", 1, 25, "disk_free_bytes", "1e9x30"),
        one("DiskNearlyFull", 0, 25, "disk_free_bytes", "9e9x30"),
        one("NotReady", 0, 25, "ready", "1x30"),
        one("NotReady", 1, 25, "ready", "0x30"),
        one("Down", 1, 25, "dead_letters", "0x30"),
        one("Down", 0, 25, "ready", "1x30"),
        // The clock of the test begins in 1970.
        one("NoDeliveries", 0, 1500, newest, "0x1700"),
        one("NoDeliveries", 1, 1600, newest, "0x1700"),
        failed(1, 8, "0 0 1x60"),
        failed(0, 8, "0x60"),
        // Old news.
        failed(0, 40, "0 0 1x60"),
        ended(1, "given_up"),
        ended(0, "called_off"),
        one("LookerApiDown", 0, 25, "looker_api_up", "0x60"),
        one("LookerApiDown", 1, 35, "looker_api_up", "0x60"),
        silent(0, 1500, "3x1700"),
        silent(1, 1600, "3x1700"),
        // What a person sent once or twice is no schedule.
        silent(0, 1600, "2x1700"),
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
