use std::time::Duration;

use clap::Parser;

use super::screen::{escaped, indented, number, span};
use super::*;
use crate::control::tests::csv::{column, strict};
use crate::control::tests::scripted::{DELIVERY, DESTINATION, EXACT, HOSTILE, Running, TOKEN};
use crate::control::view::{DeadLetter, Delivery, Overview, RejectedRow};

#[derive(Debug, Parser)]
struct Whole {
    #[command(subcommand)]
    command: Command,
}

fn parse(line: &str) -> Result<Command, clap::Error> {
    let words = std::iter::once("looker-feed").chain(line.split_whitespace());
    Whole::try_parse_from(words).map(|whole| whole.command)
}

/// What a command writes, and how it ends.
async fn ran(admin: &Running, line: &str, terminal: bool) -> (Result<Found, Failure>, String) {
    let command = parse(line).unwrap();
    let client = Client::of(&format!("http://{}", admin.addr), None).unwrap();
    let mut out = Vec::new();
    let mut screen = Screen::new(&mut out, terminal);
    let done = execute(&command, &client, &mut screen).await;
    (done, String::from_utf8(out).unwrap())
}

async fn found(admin: &Running, line: &str, terminal: bool) -> String {
    let (done, text) = ran(admin, line, terminal).await;
    assert_eq!(done.unwrap(), Found::Something, "{line}: {text}");
    text
}

#[test]
fn command_lines_are_parsed_or_refused() {
    let good = "status; status --watch --json --admin http://127.0.0.1:9; deliveries -n 5; \
        dead-letters list --delivery x --admin http://127.0.0.1:9; \
        dead-letters --admin http://127.0.0.1:9 show 17-1; dead-letters replay 17-1 17-2; \
        dead-letters edit 17-1 --file - --replay; dead-letters discard --all --yes; \
        dead-letters export -o file; rejected x --json; pause x; cancel x; resume x; retry x";
    for good in good.split("; ") {
        let command = parse(good).unwrap();
        let admin = command.daemon().admin.as_deref();
        assert_eq!(admin.is_some(), good.contains("--admin"), "{good}");
    }
    let bad = "dead-letters replay; dead-letters replay 17-1 --all; \
        dead-letters discard --all --delivery x; dead-letters; rejected; pause; \
        deliveries -n many; deliveries --csv --json";
    for bad in bad.split("; ") {
        assert!(parse(bad).is_err(), "{bad}");
    }
}

#[tokio::test]
async fn every_command_shows_what_the_daemon_says() {
    let admin = Running::start().await;
    for terminal in [true, false] {
        let text = found(&admin, "status", terminal).await;
        let counts = "3 dead letters, 3 rejected rows, 17 cancelled rows";
        assert!(text.contains(counts), "{text}");
        let paces = ["120 of 270", "121 of 270"];
        assert!(paces.iter().any(|pace| text.contains(pace)), "{text}");
        assert!(text.contains(DESTINATION), "{text}");
        // The roll-up is that of the page's header.
        let mut lines = text.lines();
        let first = lines.next().unwrap();
        assert!(first.ends_with(": 1 thing needs you"), "{text}");
        let issue = lines.next().unwrap();
        let words = "! 3 dead letters wait for you.";
        assert!(issue.starts_with(words), "{text}");

        let text = found(&admin, "deliveries", terminal).await;
        assert!(text.contains(DELIVERY) && text.contains("1,200"), "{text}");

        // The list comes in two parts.
        let text = found(&admin, "dead-letters list", terminal).await;
        assert_eq!(text.lines().count(), 4, "{text}");
        let text = found(&admin, "dead-letters list -n 1", terminal).await;
        assert_eq!(text.lines().count(), 2);

        let text = found(&admin, "dead-letters show 17-1", terminal).await;
        assert!(text.contains("\"n\": 9007199254740993"), "{text}");
        assert!(!text.contains("Careful"), "{text}");
        let text = found(&admin, "dead-letters show 17-2", terminal).await;
        assert!(text.contains("mParticle may have taken it"), "{text}");

        let text = found(&admin, &format!("rejected {DELIVERY}"), terminal).await;
        assert!(text.contains("no identity"), "{text}");

        let text = found(&admin, "dead-letters export", terminal).await;
        assert_eq!(text.lines().count(), 3);
        assert!(text.contains(EXACT));
    }
    admin.stop().await;
}

#[tokio::test]
async fn deliveries_are_listed_by_schedule_and_time_failed_ones_too() {
    let admin = Running::start().await;
    {
        let mut script = admin.daemon.script();
        // Received 31 s after 1970; those that failed 2 s, 1 s and 0 s after it.
        script.deliveries[0].title = "Daily".into();
        script.failed[2].title = "Daily".into();
        script.failed[1].destination = Some(DESTINATION.into());
    }
    let listed = async |line: &str| -> Vec<u64> {
        let (done, text) = ran(&admin, &format!("deliveries --json {line}"), false).await;
        let all: Vec<serde_json::Value> = serde_json::from_str(&text).unwrap();
        assert_eq!(done.unwrap(), Found::of(all.len() as u64), "{line}");
        let received = all.iter().map(|one| one["received"].as_u64().unwrap());
        received.collect()
    };
    let zoned = "--since 1970-01-01T01:00:01+01:00 --until 1970-01-01T00:00:02Z";
    for (line, wanted) in [
        ("", vec![31_000, 2_000, 1_000, 0]),
        ("--schedule Daily", vec![31_000, 0]),
        ("--schedule Daily --failed", vec![0]),
        // It lies in the second part of the list.
        ("--schedule Daily --failed -n 1", vec![0]),
        ("--schedule daily", vec![]),
        ("--since 1970-01-01T00:00:01Z", vec![31_000, 2_000, 1_000]),
        (zoned, vec![1_000]),
        ("--until 24h", vec![31_000, 2_000, 1_000, 0]),
        ("--since 24h", vec![]),
        ("--until 24h -n 2", vec![31_000, 2_000]),
        ("--destination d00", vec![31_000, 1_000]),
        ("--destination mparticle --failed", vec![1_000]),
    ] {
        assert_eq!(listed(line).await, wanted, "{line}");
    }
    let (done, _) = ran(&admin, "deliveries --destination nowhere", false).await;
    let why = done.unwrap_err().to_string();
    assert!(why.contains("no destination `nowhere`"), "{why}");
    let (done, _) = ran(&admin, "deliveries --since 1h --until 2h", false).await;
    let why = done.unwrap_err().to_string();
    assert!(why.contains("--since is not before --until"), "{why}");
    let why = parse("deliveries --since yesterday").unwrap_err();
    let why = why.to_string();
    assert!(why.contains("--since") && why.contains("24h"), "{why}");
    admin.stop().await;
}

#[tokio::test]
async fn json_is_what_the_api_says() {
    let admin = Running::start().await;
    let text = found(&admin, "status --json", false).await;
    let mut overview: Overview = serde_json::from_str(&text).unwrap();
    assert_eq!(overview.health.headline, "1 thing needs you");
    overview.health = crate::control::view::Health::default();
    overview.destinations[0].seconds_left = None;
    assert_eq!(overview, admin.daemon.script().overview);
    let text = found(&admin, "dead-letters list --json", false).await;
    let letters: Vec<DeadLetter> = serde_json::from_str(&text).unwrap();
    assert_eq!(letters, admin.daemon.script().letters);
    let text = found(&admin, "dead-letters show 17-2 --json", false).await;
    let letter: DeadLetter = serde_json::from_str(&text).unwrap();
    assert_eq!(letter.batch.unwrap().0.get(), EXACT);
    let text = found(&admin, &format!("rejected {DELIVERY} --json"), false).await;
    let rows: Vec<RejectedRow> = serde_json::from_str(&text).unwrap();
    assert_eq!(rows, admin.daemon.script().rejected);
    admin.stop().await;
}

#[tokio::test]
async fn lists_are_csv_too_and_whole() {
    let admin = Running::start().await;
    {
        let mut script = admin.daemon.script();
        let letter = script.letters[0].clone();
        for n in 3..60 {
            script.letters.push(DeadLetter {
                id: format!("17-{n}"),
                reason: "-1 is no age, \"sorry\"".into(),
                ..letter.clone()
            });
        }
        script.failed[0].title = "Daily".into();
    }
    let read = async |line: &str| strict(&found(&admin, line, false).await);
    let deliveries = read("deliveries --csv").await;
    assert_eq!(column(&deliveries, "id"), [DELIVERY]);
    assert_eq!(column(&deliveries, "title"), [HOSTILE]);
    assert_eq!(column(&deliveries, "rows_delivered"), ["185"]);
    let failed = read("deliveries --failed --csv").await;
    assert_eq!(column(&failed, "rows").len(), 3);
    let failed = read("deliveries --failed --csv --schedule Daily").await;
    assert_eq!(column(&failed, "title"), ["Daily"]);
    // More than a screen has.
    let letters = read("dead-letters list --csv").await;
    assert_eq!(column(&letters, "id").len(), 60);
    assert_eq!(column(&letters, "reason")[59], "'-1 is no age, \"sorry\"");
    let letters = read("dead-letters list --csv -n 3").await;
    assert_eq!(column(&letters, "id"), ["17-0", "17-1", "17-2"]);
    let rejected = read(&format!("rejected {DELIVERY} --csv")).await;
    assert_eq!(column(&rejected, "row"), ["1", "2", "3"]);

    let text = found(&admin, "dead-letters list --csv", true).await;
    assert_eq!(text.lines().count(), 61);
    assert!(!text.contains('\u{1b}') && !text.contains('\r'), "{text}");

    // What fails on the way is said, and the exit code with it.
    admin.daemon.script().breaks_at = Some("2".to_owned());
    let (done, text) = ran(&admin, "dead-letters list --csv", false).await;
    let why = done.unwrap_err().to_string();
    assert!(why.contains("The disk failed."), "{why}");
    assert_eq!(strict(&text).len(), 3, "whole lines: {text}");
    admin.daemon.script().breaks_at = None;

    admin.daemon.script().letters.clear();
    let (done, text) = ran(&admin, "dead-letters list --csv", false).await;
    assert_eq!(done.unwrap(), Found::Nothing);
    assert_eq!(strict(&text).len(), 1, "the head is there: {text}");
    admin.stop().await;
}

#[tokio::test]
async fn a_title_cannot_command_the_terminal() {
    let admin = Running::start().await;
    admin.daemon.script().letters[0].title = format!("{HOSTILE}\u{9b}2J\u{7}");
    for line in [
        "status",
        "status --json",
        "deliveries",
        "deliveries --json",
        "dead-letters list",
        "dead-letters list --json",
        "dead-letters show 17-0",
        "dead-letters export",
        &format!("rejected {DELIVERY}"),
    ] {
        let text = found(&admin, line, true).await;
        let bad = text
            .chars()
            .find(|c| (c.is_control() && *c != '\n') || *c == '\u{202e}');
        assert_eq!(bad, None, "{line}: {text:?}");
    }
    // In a pipe a title cannot make a line or a column of its own either.
    let text = found(&admin, "dead-letters list", false).await;
    assert_eq!(text.lines().count(), 4);
    assert!(
        text.lines().all(|line| line.matches('\t').count() == 6),
        "{text:?}"
    );
    admin.stop().await;
}

#[tokio::test]
async fn changing_commands_reach_the_daemon() {
    let admin = Running::start().await;
    let last = || admin.daemon.script().calls.last().cloned().unwrap();
    for wanted in [DESTINATION, "d000", "mparticle"] {
        found(&admin, &format!("pause {wanted}"), true).await;
        assert_eq!(last(), format!("pause {DESTINATION}"));
    }
    found(&admin, &format!("cancel {DELIVERY}"), true).await;
    assert_eq!(last(), format!("cancel {DELIVERY}"));
    found(&admin, "resume d0", true).await;
    assert_eq!(last(), format!("resume {DESTINATION}"));
    found(&admin, "retry d0", true).await;
    assert_eq!(last(), format!("retry {DESTINATION}"));
    found(&admin, "dead-letters replay 17-0 gone", true).await;
    assert_eq!(last(), "replay Ids([\"17-0\", \"gone\"])");

    // The same for scripts.
    for (line, changed) in [
        (format!("cancel {DELIVERY} --json"), 0),
        ("pause d0 --json".to_owned(), 1),
        ("dead-letters replay gone --json".to_owned(), 0),
    ] {
        let (done, text) = ran(&admin, &line, false).await;
        assert_eq!(done.unwrap(), Found::of(changed), "{line}");
        let done: Done = serde_json::from_str(&text).unwrap();
        assert_eq!(done.changed, changed, "{line}");
    }

    let (done, _) = ran(&admin, "dead-letters discard --all", true).await;
    assert!(matches!(done, Err(Failure::Usage(_))), "{done:?}");
    assert_eq!(admin.daemon.script().letters.len(), 2);
    found(&admin, "dead-letters discard --all --yes", true).await;
    assert_eq!(admin.daemon.script().letters.len(), 0);
    admin.stop().await;
}

#[tokio::test]
async fn an_edited_batch_is_handed_in_from_a_file_and_replayed_under_its_new_id() {
    let admin = Running::start().await;
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("batch.json");
    let line = format!("dead-letters edit 17-1 --replay --file {}", path.display());
    let (done, _) = ran(&admin, &line, false).await;
    assert!(matches!(done, Err(Failure::Input(..))), "{done:?}");
    for wrong in ["not JSON", "{} {}", &" ".repeat(2 << 20)] {
        std::fs::write(&path, wrong).unwrap();
        let (done, _) = ran(&admin, &line, false).await;
        assert!(matches!(done, Err(Failure::Usage(_))), "{done:?}");
    }
    let calls = |what: &str| {
        let calls = &admin.daemon.script().calls;
        calls.iter().filter(|call| call.starts_with(what)).count()
    };
    assert_eq!(calls("edit"), 0);

    std::fs::write(&path, " {\"x\": 1.10}\n").unwrap();
    let text = found(&admin, &line, false).await;
    assert_eq!(text, "Now it is 18-17-1.\n1 batches: replay.\n");
    let script = admin.daemon.script().calls.clone();
    let call = "edit 17-1 {\"x\": 1.10} false".to_owned();
    assert!(script.contains(&call), "{script:?}");
    assert_eq!(script.last().unwrap(), "replay Ids([\"18-17-1\"])");

    std::fs::write(&path, "{}").unwrap();
    let in_json = line.replace("17-1", "17-0").replace("--replay", "--json");
    let text = found(&admin, &in_json, false).await;
    let edited: crate::control::view::Edited = serde_json::from_str(&text).unwrap();
    assert_eq!((edited.changed, &*edited.id), (1, "18-17-0"));

    // Nothing changed, nothing is replayed.
    std::fs::write(&path, EXACT).unwrap();
    let line = line.replace("17-1", "17-2");
    let (done, text) = ran(&admin, &format!("{line} --may-double"), false).await;
    assert_eq!(done.unwrap(), Found::Nothing);
    assert_eq!(text, "Nothing has changed.\n");
    assert_eq!(calls("replay"), 1);
    admin.stop().await;
}

#[tokio::test]
async fn nothing_is_told_apart_from_a_failure() {
    let admin = Running::start().await;
    admin.daemon.script().letters.clear();
    for line in [
        "dead-letters list",
        "dead-letters export",
        "dead-letters replay --all",
    ] {
        let (done, _) = ran(&admin, line, false).await;
        assert_eq!(done.unwrap(), Found::Nothing, "{line}");
    }
    for line in [
        "dead-letters show 17-0",
        "dead-letters show ..",
        "rejected nobody",
        "pause nobody",
    ] {
        let (done, _) = ran(&admin, line, false).await;
        let not_found = matches!(done, Err(Failure::Client(ClientError::NotFound(_))));
        assert!(not_found, "{line}: {done:?}");
    }
    let problem = crate::control::Problem::Failed("The disk failed.".into());
    admin.daemon.script().problem = Some(problem);
    let (done, _) = ran(&admin, "deliveries", false).await;
    assert_eq!(done.unwrap_err().to_string(), "The disk failed.");
    admin.stop().await;
}

#[tokio::test]
async fn an_export_goes_into_a_new_file_of_its_owner() {
    use std::os::unix::fs::PermissionsExt;
    let admin = Running::start().await;
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("letters.jsonl");
    let line = format!("dead-letters export --output {}", path.display());
    found(&admin, &line, true).await;
    assert_eq!(std::fs::read_to_string(&path).unwrap().lines().count(), 3);
    let mode = std::fs::metadata(&path).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let (done, _) = ran(&admin, &line, true).await;
    assert!(matches!(done, Err(Failure::Output(..))), "{done:?}");
    admin.stop().await;
}

#[tokio::test]
async fn an_export_that_is_cut_short_is_a_failure() {
    let admin = Running::start().await;
    let failed = crate::control::Problem::Failed("The disk failed.".into());
    admin.daemon.script().unreadable = Some(("17-2".into(), failed));
    let (done, _) = ran(&admin, "dead-letters export", false).await;
    let broken = matches!(done, Err(Failure::Client(ClientError::Broken { .. })));
    assert!(broken, "{done:?}");
    admin.stop().await;
}

#[tokio::test]
async fn a_client_says_why_it_got_no_answer() {
    let admin = Running::with(Some(TOKEN)).await;
    let address = format!("http://{}", admin.addr);
    let get = async |token| {
        let client = Client::of(&address, token).unwrap();
        client.get::<Overview>(&["overview"], &[]).await
    };
    for wrong in [None, Some("another-token-of-length")] {
        assert!(matches!(get(wrong).await, Err(ClientError::Unauthorized)));
    }
    assert!(get(Some(TOKEN)).await.is_ok());
    admin.stop().await;
    let error = get(Some(TOKEN)).await.unwrap_err();
    assert!(matches!(error, ClientError::NoDaemon { .. }), "{error:?}");
    assert!(error.to_string().contains("looker-feed serve"), "{error}");
    for bad in ["", "ftp://127.0.0.1", "http://a:b@127.0.0.1", "unix:/x"] {
        let client = Client::of(bad, None);
        assert!(matches!(client, Err(ClientError::Address(_))), "{bad}");
    }
    let good = "127.0.0.1:8081 localhost:8081 [::1]:8081 feed https://feed.test/x";
    for good in good.split(' ') {
        assert!(Client::of(good, None).is_ok(), "{good}");
    }
}

#[test]
fn figures_are_for_people() {
    let numbers = [0, 999, 1_000, 1_234_567].map(number);
    assert_eq!(numbers, ["0", "999", "1,000", "1,234,567"]);
    let spans = [59, 61, 7_260, 200_000].map(|seconds| span(Duration::from_secs(seconds)));
    assert_eq!(spans, ["59 s", "1 min 1 s", "2 h 1 min", "2 days"]);
}

#[test]
fn indenting_and_escaping_change_no_value() {
    let raw = "{\"a\\\"{\":[1,2.50, {}],\"b\":[ ],\"c\":\"x:,\u{9b}\u{e0001}\\\\\"}";
    let text = escaped(&indented(raw));
    let value = |text: &str| serde_json::from_str::<serde_json::Value>(text).unwrap();
    assert_eq!(value(&text), value(raw));
    assert!(text.contains("2.50") && text.lines().count() > 5, "{text}");
    assert!(text.is_ascii(), "{text}");
}

#[test]
fn an_idle_destination_has_no_speed_and_one_delivery_is_one() {
    use crate::control::view::{Destination, Rows};
    let mut overview = Overview {
        destinations: vec![Destination {
            label: "idle one".into(),
            state: "idle".into(),
            rate: 161.0,
            limit: 270.0,
            accepted_rate: 161.0,
            ..Destination::default()
        }],
        ..Overview::default()
    };
    overview.totals.deliveries_accepted = 1;
    overview.totals.rows_in = 1_234;
    let mut out = Vec::new();
    status::overview(&mut Screen::new(&mut out, true), &overview).unwrap();
    let delivery = Delivery {
        title: "Daily".into(),
        rows_in: 300,
        rows: Rows {
            delivered: 238,
            dead: 62,
            ..Rows::default()
        },
        standing: crate::control::view::Standing::Incomplete,
        level: crate::control::view::Level::Attention,
        ..Delivery::default()
    };
    let look = frame::Look {
        now: &overview,
        deliveries: &[delivery],
        rates: &[],
        silent: None,
        clock: crate::clock::UnixMillis(0),
    };
    let size = crate::cli::terminal::Size {
        columns: 80,
        lines: 24,
    };
    let shown = frame::frame(&look, size, crate::cli::paint::Paint::off());
    let text = String::from_utf8(out).unwrap() + &shown.join("\n");
    assert!(!text.contains("161") && !text.contains("of 270"), "{text}");
    for words in [
        "1 delivery with 1,234 rows accepted, 0 deliveries refused",
        "Daily     incomplete!   300  100 %  62 dead",
    ] {
        assert!(text.contains(words), "{text}");
    }
}
