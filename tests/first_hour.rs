//! The first hour, with the real binary: the trial without an account, a hub with a certificate of one's own,
//! the screen of `status --watch`, and the commands that the README names.

mod support;

use std::path::Path;

use looker_feed::sandbox::Fault;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use serde_json::json;
use support::terminal::Session;
use support::{Daemon, SECRET, World, refuses, run, run_line};

const SECRETS: [(&str, &str); 2] = [("INTAKE__SECRET", SECRET), ("API_SECRET", "s")];

#[test]
fn a_trial_needs_no_account_no_settings_and_leaves_nothing_running() {
    // What is set for a daemon of one's own is not the trial's.
    let others = [
        ("OUTBOX__PATH", "/proc/nowhere"),
        ("MPARTICLE__POD", "nonsense"),
    ];
    let (code, out, err) = run(&["try"], &others);
    assert_eq!(code, Some(0), "{out}{err}");
    for words in [
        "Nothing leaves this machine",
        "12 rows accepted",
        "10 of 12 rows delivered, 2 rejected.",
        "Rejected, row 7: no identity",
        "Rejected, row 10: ",
        "\"customer_id\": \"1\"",
        "\"looker_events.page\": \"/shoes\"",
    ] {
        assert!(out.contains(words), "{words}\n{out}");
    }
    assert!(!out.contains("not sent: this column has no tag"), "{out}");
}

#[test]
fn a_trial_of_a_file_of_ones_own_shows_what_arrived_or_why_nothing_did() {
    let home = tempfile::tempdir().unwrap();
    let write = |name: &str, tag: &str| {
        let document = json!({
            "fields": {"dimensions": [{"name": "u.mail", "tags": [tag]}]},
            "data": [{"u.mail": {"value": "a\u{1b}[2J@b.c"}}],
        });
        let path = home.path().join(name);
        std::fs::write(&path, document.to_string()).unwrap();
        path.display().to_string()
    };
    let good = write("good.json", "mp_email");
    let (code, out, err) = run(&["try", &good, "--data-type", "user"], &[]);
    assert_eq!(code, Some(0), "{out}{err}");
    assert!(out.contains("1 of 1 rows delivered."), "{out}");
    assert!(!out.contains('\u{1b}'), "{out:?}");
    let untagged = write("untagged.json", "mp_emial");
    let (code, out, err) = run(&["try", &untagged], &[]);
    assert_eq!(code, Some(1), "{out}{err}");
    assert!(out.contains("Looker would be told:"), "{out}");
    let (code, _, err) = run(&["try", "/no/such/file"], &[]);
    assert_eq!(code, Some(1), "{err}");
    assert!(err.contains("/no/such/file cannot be read"), "{err}");
}

/// An authority and a certificate of it for `localhost`, as files: authority, certificate, key.
fn certificates(directory: &Path) -> [String; 3] {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let ca = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    let key = KeyPair::generate().unwrap();
    let params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    let certificate = params.signed_by(&key, &ca).unwrap();
    let write = |name: &str, text: String| {
        let path = directory.join(name);
        std::fs::write(&path, text).unwrap();
        path.display().to_string()
    };
    [
        write("ca.pem", ca.pem()),
        write("cert.pem", certificate.pem()),
        write("key.pem", key.serialize_pem()),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn send_trusts_an_authority_of_ones_own_and_finds_a_hub_that_serves_tls() {
    let world = World::new(None).await;
    let home = tempfile::tempdir().unwrap();
    let [ca, cert, key] = certificates(home.path());
    let tls = [("INTAKE__TLS_CERT", &*cert), ("INTAKE__TLS_KEY", &*key)];
    let daemon = Daemon::start(home.path(), &world.endpoint, &tls);
    let port = daemon.hub.port().unwrap();
    let named = format!("https://localhost:{port}");
    let listen = format!("127.0.0.1:{port}");
    let sample = format!("{}/config/sample.json", env!("CARGO_MANIFEST_DIR"));
    let send = |more: &[&str], settings: &[(&str, &str)]| {
        let arguments = ["send", &sample, "--api-key", "k"];
        let arguments: Vec<_> = arguments.iter().chain(more).copied().collect();
        let settings: Vec<_> = SECRETS.iter().chain(settings).copied().collect();
        run(&arguments, &settings)
    };

    let (code, _, err) = send(&["--hub", &named], &[]);
    assert_eq!(code, Some(1), "{err}");
    assert!(err.contains("--ca"), "{err}");
    let (code, out, err) = send(&["--hub", &named, "--ca", &ca], &[]);
    assert_eq!(code, Some(0), "{out}{err}");
    // Of a file that is no use nothing was sent.
    let (code, _, err) = send(&["--hub", &named, "--ca", &key], &[]);
    assert_eq!(code, Some(64), "{err}");
    assert!(err.contains(&key), "{err}");

    // By the configuration that the daemon has: its own address, or the name that the certificate is for.
    let own = [tls[0], tls[1], ("INTAKE__LISTEN", &*listen)];
    let (code, _, err) = send(&["--ca", &ca], &own);
    assert_eq!(code, Some(1), "{err}");
    assert!(err.contains(&format!("https://{listen}/")), "{err}");
    let own = [own[0], own[1], own[2], ("INTAKE__BASE_URL", &*named)];
    let (code, out, err) = send(&["--ca", &ca], &own);
    assert_eq!(code, Some(0), "{out}{err}");
    assert_eq!(daemon.settled().await.len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_watched_screen_fits_shows_the_work_and_leaves_the_terminal_as_it_was() {
    let world = World::new(None).await;
    world.faults([Fault::Delay { ms: 50 }]);
    let daemon = world.daemon(&[]);
    let admin = daemon.admin.to_string();
    let sample = format!("{}/config/sample.json", env!("CARGO_MANIFEST_DIR"));
    let hub = daemon.hub.to_string();
    let title = "Daily\u{1b}[2J\u{9b}5mevil\u{202e}, a title that is longer than a line of eighty characters is";
    let sent = ["send", &sample, "--api-key", "k", "--hub", &hub];
    let (code, _, err) = run(&[&sent[..], &["--title", title]].concat(), &SECRETS);
    assert_eq!(code, Some(0), "{err}");
    daemon.settled().await;
    for columns in [80, 200] {
        let arguments = ["status", "--watch", "--admin", &admin];
        let mut session = Session::start(columns, 24, &arguments);
        session.sees("q: quit").await;
        let screen = session.screen();
        assert_eq!(screen.len(), 24, "{screen:#?}");
        for line in &screen {
            assert!(line.chars().count() <= columns.into(), "{columns} {line}");
        }
        let text = screen.join("\n");
        for words in [
            "looker-feed ",
            "Everything is sent",
            "DESTINATION",
            "Daily",
            "2 rejected",
        ] {
            assert!(text.contains(words), "{columns} {words}\n{text}");
        }
        assert!(!session.echoes(), "keys are not shown");
        // A smaller terminal gets a smaller screen.
        let before = session.draws();
        session.resize(60, 10);
        session.draws_again(before).await;
        assert_eq!(session.screen().len(), 10);
        session.types("xq");
        assert_eq!(session.ends().await, Some(0));
        session.is_as_before().await;
        // Nothing but the screen's own sequences.
        let allowed = session.without_own_sequences();
        let harmful = ['\u{1b}', '\u{9b}', '\u{202e}'];
        assert!(!allowed.contains(harmful), "{allowed:?}");
    }

    // An interrupt ends it as well as `q`.
    let mut session = Session::start(80, 24, &["status", "--watch", "--admin", &admin]);
    session.sees("q: quit").await;
    session.interrupt();
    assert_eq!(session.ends().await, Some(0));
    session.is_as_before().await;

    // A daemon that goes is said to be gone, with what was known of it; one that is not there ends it.
    let mut session = Session::start(80, 24, &["status", "--watch", "--admin", &admin]);
    session.sees("q: quit").await;
    assert!(daemon.terminate().success());
    session.sees("The daemon does not answer").await;
    assert!(session.screen().join("\n").contains("Daily"));
    session.types("q");
    assert_eq!(session.ends().await, Some(0));
    let mut session = Session::start(80, 24, &["status", "--watch", "--admin", &admin]);
    assert_eq!(session.ends().await, Some(1));
    let seen = session.seen();
    assert!(seen.contains("no daemon answers"), "{seen}");
    assert!(!seen.contains("\u{1b}[?1049h"));
}

/// Commands in the blocks of a page that a shell is to run.
fn commands(page: &str) -> Vec<String> {
    let mut found = Vec::new();
    for block in page.split("```sh\n").skip(1) {
        let block = block.split("```").next().unwrap().replace("\\\n", " ");
        for line in block.lines() {
            let ends = [" #", " < ", " | "].iter().filter_map(|end| line.find(end));
            let line = &line[..ends.min().unwrap_or(line.len())];
            if let Some(rest) = line.split("looker-feed ").nth(1)
                && (line.starts_with("looker-feed ") || line.contains(" looker-feed "))
            {
                found.push(rest.trim().to_owned());
            }
        }
    }
    found
}

#[test]
fn the_commands_that_the_pages_name_are_commands() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut seen = 0;
    for page in [
        "README.md",
        "docs/operate.md",
        "docs/security.md",
        "docs/moving-over.md",
    ] {
        let text = std::fs::read_to_string(root.join(page)).unwrap();
        for line in commands(&text) {
            // Help is printed only if what stands before it is understood so far.
            let mut words: Vec<_> = line.split_whitespace().collect();
            words.push("--help");
            let (code, _, err) = run(&words, &[]);
            assert_eq!(code, Some(0), "{page}: looker-feed {line}\n{err}");
            seen += 1;
        }
    }
    assert!(seen > 10, "{seen}");
}

#[tokio::test(flavor = "multi_thread")]
async fn dead_letters_are_found_by_the_beginning_of_their_deliverys_id() {
    let world = World::new(None).await;
    let daemon = world.daemon(&[]);
    world.faults([refuses("environment")]);
    let sample = concat!(env!("CARGO_MANIFEST_DIR"), "/config/sample.json");
    let (hub, admin) = (daemon.hub.as_str(), &daemon.admin);
    let (code, _, err) = run(&["send", sample, "--api-key", "k", "--hub", hub], &SECRETS);
    assert_eq!(code, Some(0), "{err}");
    let delivery = daemon.settled().await.remove(0);
    let begin = &delivery.id[..12];
    for verb in ["list", "export", "replay"] {
        let line = format!("dead-letters {verb} --delivery {begin} --admin {admin}");
        let (code, out, err) = run_line(&line, &[]);
        assert_eq!(code, Some(0), "{line} {out}{err}");
        assert!(!out.trim().is_empty(), "{line}");
    }
}
