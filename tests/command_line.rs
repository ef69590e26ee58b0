//! What the commands say to a person: mistakes all at once and with their reasons, addresses as people
//! write them, numbers and tables that fit the terminal.

mod support;

use serde_json::json;
use support::terminal::on_terminal;
use support::{Daemon, SECRET, World, run, run_line};

#[test]
fn all_mistakes_of_a_configuration_are_told_at_once_and_with_their_reasons() {
    let home = tempfile::tempdir().unwrap();
    let file = home.path().join("feed.toml");
    let missing = home.path().join("not-there").display().to_string();
    let text = format!(
        "[intake]\nlisten = 'nonsense'\nlabl = 'x'\nsecret_file = '{missing}'\n\
         [mparticle]\nbatches_per_second = 0\n[nothing]\n"
    );
    std::fs::write(&file, text).unwrap();
    let file = file.display().to_string();
    for command in ["check-config", "serve", "token"] {
        let arguments = [command, "--config", &file];
        let (code, out, err) = run(&arguments, &[("INTAKE_LABEL", "x")]);
        assert_eq!((code, &*out), (Some(64), ""), "{err}");
        for want in [
            "has 6 mistakes",
            "`intake.listen` (",
            "`intake.labl` (",
            "not-there cannot be read: No such file or directory",
            "`mparticle.batches_per_second` (",
            "`[nothing]` (",
            "`LOOKER_FEED_INTAKE_LABEL` (",
        ] {
            assert!(err.contains(want), "{want:?} in {err}");
        }
        assert_eq!(err.lines().count(), 7, "{err}");
    }
    // Two that do not go together, twice.
    let pairs = [
        ("INTAKE__SECRET", SECRET),
        ("MPARTICLE__PLAN_VERSION", "2"),
        ("MPARTICLE__BACKOFF_INITIAL", "2m"),
    ];
    let (code, _, err) = run(&["check-config"], &pairs);
    assert_eq!(code, Some(64));
    assert!(err.contains("has 2 mistakes"), "{err}");
    // One alone stands in one line, and so does a file that is not there.
    let (_, _, err) = run(&["check-config"], &pairs[..2]);
    assert_eq!(err.lines().count(), 1, "{err}");
    let (code, _, err) = run(&["check-config", "--config", "/not/there.toml"], &[]);
    assert_eq!(code, Some(64));
    let said = "/not/there.toml cannot be read: No such file";
    assert!(err.contains(said), "{err}");
}

#[test]
fn check_config_succeeds_only_if_a_daemon_could_start() {
    let home = tempfile::tempdir().unwrap();
    let path = |name: &str| home.path().join(name).display().to_string();
    let (good, file) = (path("a/b/outbox"), path("file"));
    std::fs::write(&file, "").unwrap();
    let beside = format!("{file}/outbox");
    let secret = ("INTAKE__SECRET", SECRET);
    let check = |settings: &[(&str, &str)]| run(&["check-config"], settings);
    let (code, out, err) = check(&[secret, ("OUTBOX__PATH", &good)]);
    assert_eq!((code, &*err), (Some(0), ""));
    assert!(out.contains("is valid"), "{out}");
    assert!(!home.path().join("a").exists(), "to look changes nothing");

    let (code, out, err) = check(&[("OUTBOX__PATH", &good)]);
    assert_eq!((code, &*out), (Some(64), ""));
    assert!(err.contains("`intake.secret` is not set"), "{err}");
    for outbox in [
        "/proc/looker-feed",
        "/sys/outbox",
        "/proc/1/fd/x",
        &file,
        &beside,
    ] {
        let (code, _, err) = check(&[secret, ("OUTBOX__PATH", outbox)]);
        assert_eq!(code, Some(64), "{outbox}");
        assert!(err.contains("nothing can be kept there"), "{err}");
    }
    let wrong = [
        ("OUTBOX__PATH", "/proc/x"),
        ("LOOKER__CA_FILE", "/not/there"),
    ];
    let (code, _, err) = check(&wrong);
    assert_eq!(code, Some(64));
    let file = "/not/there cannot be read: No such file";
    for words in ["intake.secret", "/proc/x", file] {
        assert!(err.contains(words), "{words}: {err}");
    }

    for (base_url, allowed) in [
        ("http://feed.example.com", false),
        ("http://203.0.113.7:8080", false),
        ("http://[2001:db8::1]", false),
        ("https://feed.example.com", true),
        ("http://localhost:8080", true),
        ("http://feed:8080", true),
        ("http://10.1.2.3", true),
        ("http://[fd00::1]:8080", true),
        ("http://feed.corp.internal", true),
    ] {
        let base_url = ("INTAKE__BASE_URL", base_url);
        let (code, _, err) = check(&[secret, ("OUTBOX__PATH", &good), base_url]);
        let want = if allowed { 0 } else { 64 };
        assert_eq!(code, Some(want), "{base_url:?}: {err}");
        let is_told = err.contains("plain http only for a host");
        assert_eq!(is_told, !allowed, "{err}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_is_found_by_its_address_without_a_scheme_and_short_keys_are_told_apart() {
    let world = World::new(None).await;
    let home = tempfile::tempdir().unwrap();
    let daemon = Daemon::start(home.path(), &world.endpoint, &[]);
    let document = json!({
        "fields": {"dimensions": [{"name": "u.mail", "tags": ["mp_email"]}]},
        "data": [{"u.mail": {"value": "a@b.c"}}],
    });
    let file = home.path().join("a.json");
    std::fs::write(&file, document.to_string()).unwrap();
    let file = file.display().to_string();
    let hub = format!("localhost:{}", daemon.hub.port().unwrap());
    let admin = format!("localhost:{}", daemon.admin.port().unwrap());
    let secrets = [("INTAKE__SECRET", SECRET), ("API_SECRET", "s")];
    for key in ["k", "l"] {
        let to = format!("--api-key {key} --hub {hub} --admin {admin}");
        let (code, _, err) = run_line(
            &format!("send {file} {to} --wait --data-type user"),
            &secrets,
        );
        assert_eq!(code, Some(0), "{err}");
    }
    let (code, out, err) = run(&["status", "--json", "--admin", &admin], &[]);
    assert_eq!(code, Some(0), "{err}");
    let overview: serde_json::Value = serde_json::from_str(&out).unwrap();
    let destinations = overview["destinations"].as_array().unwrap();
    assert_eq!(destinations.len(), 2, "{overview}");
    for destination in destinations {
        let id = destination["id"].as_str().unwrap();
        let label = destination["label"].as_str().unwrap();
        let end = format!("a short key, destination {}…", &id[..4]);
        assert!(label.ends_with(&end), "{label}");
    }
    for nonsense in ["ftp://x", "http://", "a b"] {
        let (code, _, err) = run(&["status", "--admin", nonsense], &[]);
        assert_eq!(code, Some(1));
        assert!(err.contains("is not an address such as"), "{err}");
    }
}

#[test]
fn the_demo_shows_whole_numbers_and_fits_the_terminal() {
    for columns in [80, 200] {
        let arguments = ["demo", "--rows", "3000", "--users", "300"];
        let (code, lines) = on_terminal(columns, &arguments, &[]);
        assert_eq!(code, Some(0), "{lines:#?}");
        let bars = lines.iter().filter(|line| line.contains("/s"));
        let mut seen = 0;
        for bar in bars.filter(|line| line.contains("rows  ")) {
            let mut words = bar.split_whitespace();
            let rate = words.find(|word| word.ends_with("/s")).unwrap();
            let digits = rate.trim_end_matches("/s").replace(',', "");
            assert!(digits.parse::<u64>().is_ok(), "{bar}");
            seen += 1;
        }
        assert!(seen > 0, "{lines:#?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn tables_fit_the_terminal_and_the_shown_beginning_of_an_id_is_enough() {
    let world = World::new(None).await;
    let home = tempfile::tempdir().unwrap();
    let daemon = Daemon::start(home.path(), &world.endpoint, &[]);
    let admin = daemon.admin.to_string();
    let (code, lines) = on_terminal(80, &["deliveries", "--admin", &admin], &[]);
    assert_eq!(code, Some(3));
    assert_eq!(lines, ["There are no deliveries."]);
    let document = json!({
        "fields": {"dimensions": [{"name": "u.mail", "tags": ["mp_email"]}]},
        "data": [{"u.mail": {"value": "a@b.c"}}, {"u.mail": {"value": null}}],
    });
    let file = home.path().join("a.json");
    std::fs::write(&file, document.to_string()).unwrap();
    let file = file.display().to_string();
    let title = "All users of the last ninety days, with everything that is known of them and more";
    let secrets = [("INTAKE__SECRET", SECRET), ("API_SECRET", "s")];
    for _ in 0..3 {
        let hub = daemon.hub.as_str();
        let send = ["send", &file, "--api-key", "k", "--hub", hub];
        let more = ["--data-type", "user", "--title", title];
        let (code, _, err) = run(&[&send[..], &more].concat(), &secrets);
        assert_eq!(code, Some(0), "{err}");
    }
    let deliveries = daemon.settled().await;
    for columns in [80, 120, 200] {
        for command in ["deliveries", "status"] {
            let (code, lines) = on_terminal(columns, &[command, "--admin", &admin], &[]);
            assert_eq!(code, Some(0), "{lines:#?}");
            let widest = lines.iter().map(|line| line.chars().count()).max();
            assert!(widest <= Some(columns.into()), "{columns} {lines:#?}");
        }
        let (_, lines) = on_terminal(columns, &["deliveries", "--admin", &admin], &[]);
        assert_eq!(lines.len(), 4, "{lines:#?}");
        assert!(!lines[0].contains("CANCELLED"), "{lines:#?}");
        for line in &lines[1..] {
            let id = line.split(' ').next().unwrap();
            let whole = deliveries.iter().filter(|one| one.id.starts_with(id));
            assert_eq!(whole.count(), 1, "{lines:#?}");
            let (code, out, err) = run(&["rejected", id, "--admin", &admin], &[]);
            assert_eq!(code, Some(0), "{err}");
            assert!(out.contains("no identity"), "{out}");
        }
    }
    let same = &deliveries[0].id[..2];
    let (code, _, err) = run(&["cancel", same, "--admin", &admin], &[]);
    assert_eq!(code, Some(1));
    assert!(err.contains("begins the ids of 3 deliveries"), "{err}");
    assert!(daemon.terminate().success());

    // Offline, what is over is counted, and listed on demand.
    let outbox = home.path().join("outbox").display().to_string();
    let (code, out, err) = run(&["outbox", "check", "--path", &outbox], &[]);
    assert_eq!(code, Some(0), "{err}");
    let listed = |text: &str| {
        text.lines()
            .filter(|line| line.starts_with("Delivery "))
            .count()
    };
    assert_eq!(listed(&out), 0, "{out}");
    let (_, all, _) = run(&["outbox", "check", "--path", &outbox, "--all"], &[]);
    let listed = listed(&all);
    let over = format!("{listed} deliveries are settled and sound");
    assert!(listed == 0 || out.contains(&over), "{out}{all}");
}
