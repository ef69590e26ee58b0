//! The metrics and alerts as Prometheus sees them.

use std::io::Write;
use std::process::{Command, Stdio};

use crate::browser::{installed, missing};
use crate::fixtures::{UNLUCKY, file, send};
use crate::support::{Daemon, World, refuses};

/// `promtool check ...`, with something on its standard input.
fn promtool(arguments: &[&str], input: &[u8]) {
    if !installed("promtool") {
        missing("promtool");
        return;
    }
    let mut child = Command::new("promtool")
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("promtool starts");
    let mut stdin = child.stdin.take().expect("its input");
    stdin.write_all(input).expect("it reads");
    drop(stdin);
    let output = child.wait_with_output().expect("it ends");
    let text = [output.stdout, output.stderr].concat();
    assert!(
        output.status.success(),
        "promtool {arguments:?}: {}",
        String::from_utf8_lossy(&text)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn prometheus_takes_the_metrics_of_a_daemon_that_has_worked_and_the_alerts() {
    let world = World::new(None).await;
    world.faults([refuses(UNLUCKY)]);
    let home = tempfile::tempdir().unwrap();
    let daemon = Daemon::start(home.path(), &world.endpoint, &[]);
    let path = file(home.path(), 30);
    send(&daemon, "With \"quotes\" and \\", &path, "event");
    daemon.settled().await;
    let (status, metrics) = daemon.call("GET", "/metrics", "").await;
    assert_eq!(status, 200);
    let text = String::from_utf8(metrics.to_vec()).expect("text");
    assert!(text.contains("looker_feed_dead_letters"), "{text}");
    promtool(&["check", "metrics"], text.as_bytes());
    // When a schedule brought something last is known after a restart too.
    let of_schedules = |text: &str| -> Vec<String> {
        let lines = text
            .lines()
            .filter(|line| line.starts_with("looker_feed_schedule_"));
        lines.map(str::to_owned).collect()
    };
    let before = of_schedules(&text);
    assert_eq!(before.len(), 2, "{before:?}");
    assert!(
        before[0].contains(r#"{schedule="With \"quotes\" and \\"}"#),
        "{before:?}"
    );
    assert!(daemon.terminate().success());
    let daemon = Daemon::start(home.path(), &world.endpoint, &[]);
    let (_, metrics) = daemon.call("GET", "/metrics", "").await;
    let text = String::from_utf8(metrics.to_vec()).expect("text");
    assert_eq!(of_schedules(&text), before);
    let alerts = concat!(env!("CARGO_MANIFEST_DIR"), "/config/alerts.yml");
    promtool(&["check", "rules", alerts], b"");
}
