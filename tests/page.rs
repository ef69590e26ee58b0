//! The status page as a person sees it, in headless Chromium over WebDriver, on the real binary;
//! and the metrics and alerts as Prometheus sees them.
//!
//! Needs Debian's `chromium`, `chromium-driver` and `prometheus`. Without them the tests say so and
//! end, but for CI, where they fail. Screenshots are left in `target/screenshots`.

mod support;

use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use fantoccini::key::Key;
use fantoccini::wd::{Capabilities, WebDriverCompatibleCommand};
use fantoccini::{Client, ClientBuilder, Locator};
use hyper::Method;
use hyper_util::client::legacy::connect::HttpConnector;
use looker_feed::clock::UnixMillis;
use looker_feed::control::view::{Delivery, Listing, Overview};
use looker_feed::looker::{Failure, Schedule, Shape, document};
use looker_feed::model::{DataType, DeliveryId, DestinationId};
use looker_feed::outbox::{self, NewDelivery, Outbox, Totals};
use looker_feed::sandbox::{Fault, Faults, Rule};
use looker_feed::seal::{Key as SealKey, Keyring};
use serde_json::{Value, json};
use support::{Daemon, PATIENCE, SECRET, World, from_url, run, token};
use url::Url;

/// mParticle refuses what holds this.
const UNLUCKY: &str = "unlucky";

/// Says that a program is missing; CI installs it, so there it is an error.
fn missing(program: &str) {
    let ci = std::env::var("CI").is_ok_and(|ci| ci == "true");
    assert!(!ci, "{program} is not installed, and CI must have it");
    eprintln!("skipped: {program} is not installed");
}

fn installed(program: &str) -> bool {
    let version = Command::new(program)
        .arg("--version")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    version.is_ok_and(|status| status.success())
}

/// Chromium under its driver, both of which end with this.
struct Browser {
    page: Client,
    driver: Child,
    _output: BufReader<ChildStdout>,
    _profile: tempfile::TempDir,
}

impl Browser {
    /// `None` when it is not installed.
    async fn open() -> Option<Self> {
        for program in ["chromium", "chromedriver"] {
            if !installed(program) {
                missing(program);
                return None;
            }
        }
        let mut driver = Command::new("chromedriver")
            .arg("--port=0")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()
            .expect("chromedriver starts");
        let mut output = BufReader::new(driver.stdout.take().expect("its output"));
        let port = loop {
            let mut line = String::new();
            let read = output.read_line(&mut line).expect("a line of its output");
            assert!(read > 0, "chromedriver ended");
            let words = line.trim().trim_end_matches('.');
            if let Some((_, port)) = words.rsplit_once("successfully on port ") {
                break port.parse::<u16>().expect("a port");
            }
        };
        let profile = tempfile::tempdir().expect("a directory");
        let arguments = [
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-quic",
            "--no-first-run",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
            "--disable-dev-shm-usage",
            "--hide-scrollbars",
            "--lang=en",
            "--window-size=1280,900",
        ];
        let data = format!("--user-data-dir={}", profile.path().display());
        let arguments: Vec<_> = arguments.into_iter().chain([data.as_str()]).collect();
        let capabilities = json!({
            "browserName": "chrome",
            "goog:chromeOptions": {"args": arguments},
            "goog:loggingPrefs": {"browser": "ALL"},
        });
        let capabilities: Capabilities =
            serde_json::from_value(capabilities).expect("capabilities are an object");
        let page = ClientBuilder::new(HttpConnector::new())
            .capabilities(capabilities)
            .connect(&format!("http://127.0.0.1:{port}"))
            .await
            .expect("a session of Chromium");
        Some(Self {
            page,
            driver,
            _output: output,
            _profile: profile,
        })
    }

    /// What a script returns.
    async fn eval(&self, script: &str) -> Value {
        self.page
            .execute(script, Vec::new())
            .await
            .unwrap_or_else(|error| panic!("{script}: {error}"))
    }

    /// Waits until an expression is true.
    async fn until(&self, expression: &str) {
        let script = format!("return Boolean({expression});");
        let met = async {
            while self.eval(&script).await != true {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        if tokio::time::timeout(PATIENCE, met).await.is_err() {
            let body = self.eval("return document.body.innerText;").await;
            panic!("never came true: {expression}\n{body}");
        }
    }

    async fn text(&self, selector: &str) -> String {
        let script = format!("return document.querySelector('{selector}')?.textContent ?? '';");
        self.eval(&script)
            .await
            .as_str()
            .unwrap_or_default()
            .to_owned()
    }

    /// A command of the browser's own protocol.
    async fn devtools(&self, cmd: &'static str, params: Value) -> Value {
        self.page
            .issue_cmd(Vendor {
                path: "goog/cdp/execute",
                body: json!({"cmd": cmd, "params": params}),
            })
            .await
            .unwrap_or_else(|error| panic!("{cmd}: {error}"))
    }

    /// Errors of scripts, of the content security policy, and of loading.
    async fn complaints(&self) -> Vec<String> {
        let log = self
            .page
            .issue_cmd(Vendor {
                path: "se/log",
                body: json!({"type": "browser"}),
            })
            .await
            .expect("the browser's log");
        let entries = log.as_array().cloned().unwrap_or_default();
        entries
            .iter()
            .filter(|entry| matches!(entry["level"].as_str(), Some("SEVERE" | "WARNING")))
            .map(|entry| entry["message"].to_string())
            // A refusal is an answer, and the page says it.
            .filter(|message| !message.contains("status of 409"))
            .collect()
    }

    /// The whole page, at a width and with a colour scheme, as `target/screenshots/<name>.png`.
    async fn screenshot(&self, name: &str, width: u32, scheme: &str) {
        self.devtools(
            "Emulation.setDeviceMetricsOverride",
            json!({"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 600}),
        )
        .await;
        let feature = json!({"name": "prefers-color-scheme", "value": scheme});
        let features = json!({"features": [feature]});
        self.devtools("Emulation.setEmulatedMedia", features).await;
        let dark = self
            .eval("return matchMedia('(prefers-color-scheme: dark)').matches;")
            .await;
        assert_eq!(dark, scheme == "dark");
        // Nothing may stick out to the side.
        let overflow = self
            .eval("return document.documentElement.scrollWidth - document.documentElement.clientWidth;")
            .await;
        assert_eq!(overflow, 0, "{name}: the page is wider than the window");
        let shot = self
            .devtools(
                "Page.captureScreenshot",
                json!({"format": "png", "captureBeyondViewport": true}),
            )
            .await;
        let png = BASE64
            .decode(shot["data"].as_str().expect("a picture"))
            .expect("base64");
        assert!(png.starts_with(b"\x89PNG"));
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).with_file_name("screenshots");
        std::fs::create_dir_all(&folder).expect("the folder for screenshots");
        std::fs::write(folder.join(format!("{name}.png")), png).expect("a file");
    }

    /// Nothing was loaded from anywhere else, and nothing went wrong in the browser.
    async fn close(self, origin: &Url) {
        let loaded = self
            .eval("return performance.getEntriesByType('resource').map(entry => entry.name);")
            .await;
        let loaded = loaded.as_array().cloned().unwrap_or_default();
        assert!(!loaded.is_empty());
        for address in loaded {
            let address = address.as_str().unwrap_or_default();
            assert!(address.starts_with(origin.as_str()), "{address}");
        }
        let complaints = self.complaints().await;
        assert!(complaints.is_empty(), "{complaints:#?}");
        self.page.clone().close().await.expect("the session ends");
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // Chromium is in the driver's process group; after a panic there was no goodbye.
        if let Some(group) = rustix::process::Pid::from_raw(self.driver.id() as i32) {
            let _ = rustix::process::kill_process_group(group, rustix::process::Signal::KILL);
        }
        let _ = self.driver.wait();
    }
}

/// A command that only this driver has.
#[derive(Debug)]
struct Vendor {
    path: &'static str,
    body: Value,
}

impl WebDriverCompatibleCommand for Vendor {
    fn endpoint(&self, base: &Url, session: Option<&str>) -> Result<Url, url::ParseError> {
        base.join(&format!(
            "session/{}/{}",
            session.unwrap_or_default(),
            self.path
        ))
    }

    fn method_and_body(&self, _: &Url) -> (Method, Option<String>) {
        (Method::POST, Some(self.body.to_string()))
    }
}

fn unlucky() -> Faults {
    Faults {
        seed: 1,
        rules: vec![Rule::always(Fault::RejectMarker {
            marker: UNLUCKY.to_owned(),
            status: 400,
        })],
    }
}

/// `looker-feed send`, so that a delivery has a title.
fn send(daemon: &Daemon, title: &str, file: &Path, data_type: &str) {
    let arguments = [
        "send",
        file.to_str().expect("a path"),
        "--title",
        title,
        "--api-key",
        "us1-3f9c2b7d41e8a605",
        "--hub",
        daemon.hub.as_str(),
        "--data-type",
        data_type,
    ];
    let settings = [("INTAKE__SECRET", SECRET), ("API_SECRET", "account-secret")];
    let (code, out, err) = run(&arguments, &settings);
    assert_eq!(code, Some(0), "{out}\n{err}");
}

/// `users` rows, each of a user of its own; the one in the middle is unlucky, the last has no
/// identity.
fn file(directory: &Path, users: u64) -> PathBuf {
    let rows: Vec<_> = (0..users)
        .map(|user| {
            let id = match user {
                user if user == users / 2 => json!(UNLUCKY),
                user if user + 1 == users => Value::Null,
                user => json!(user),
            };
            json!({"u.id": {"value": id}})
        })
        .collect();
    let document = json!({
        "fields": {"dimensions": [{"name": "u.id", "tags": ["mp_customer_id"]}]},
        "data": rows,
    });
    written(directory, "marked.json", document.to_string().as_bytes())
}

fn generated(directory: &Path, rows: u64, users: u64, data_type: DataType) -> PathBuf {
    let shape = Shape {
        rows,
        users,
        data_type,
        ..Shape::default()
    };
    let bytes: Vec<u8> = document(&shape).flatten().collect();
    written(directory, &format!("{rows}-{users}.json"), &bytes)
}

fn written(directory: &Path, name: &str, bytes: &[u8]) -> PathBuf {
    let path = directory.join(name);
    std::fs::write(&path, bytes).expect("a file");
    path
}

/// The folder of axe-core, fetched once with `npm`; `None` where it cannot be had.
fn axe() -> Option<String> {
    const VERSION: &str = "4.14.1";
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("axe-{VERSION}"));
    let script = folder.join("package/axe.min.js");
    if !script.exists() {
        std::fs::create_dir_all(&folder).expect("a folder");
        let quiet = |command: &mut Command| {
            let status = command
                .current_dir(&folder)
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .status();
            status.is_ok_and(|status| status.success())
        };
        let package = format!("axe-core@{VERSION}");
        let fetched = quiet(Command::new("npm").args(["pack", &package]))
            && quiet(Command::new("tar").args(["xzf", &format!("axe-core-{VERSION}.tgz")]));
        if !fetched {
            eprintln!("axe-core cannot be had: accessibility was not checked by it");
            return None;
        }
    }
    Some(std::fs::read_to_string(script).expect("axe-core"))
}

impl Browser {
    /// To an address of the daemon.
    async fn visit(&self, daemon: &Daemon, path: &str) {
        let address = daemon.admin.join(path).expect("an address");
        self.page.goto(address.as_str()).await.expect("the page");
    }

    /// Presses the first element that a selector names, once it is there.
    async fn press(&self, selector: &str) {
        self.until(&format!("document.querySelector(`{selector}`)"))
            .await;
        let found = self.page.find(Locator::Css(selector)).await;
        let found = found.unwrap_or_else(|error| panic!("{selector}: {error}"));
        found
            .click()
            .await
            .unwrap_or_else(|error| panic!("{selector}: {error}"));
    }

    /// Waits until the text of an element is this.
    async fn shows(&self, selector: &str, text: &str) {
        self.until(&format!(
            "document.querySelector(`{selector}`)?.textContent === `{text}`"
        ))
        .await;
    }

    /// What axe-core finds in the page as it is.
    async fn violations(&self, axe: &str) -> Value {
        self.eval(&format!("{axe}; window.axe = axe;")).await;
        let script = "const done = arguments[0];
             axe.run(document).then(
                 found => done(found.violations.map(one => [one.id, one.nodes.map(node => node.html)])),
                 error => done(String(error)));";
        let found = self.page.execute_async(script, Vec::new()).await;
        found.expect("axe-core runs")
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_delivery_moves_on_the_page_without_a_reload_and_a_dead_letter_is_replayed_by_a_click() {
    let Some(browser) = Browser::open().await else {
        return;
    };
    let world = World::new(None).await;
    world.mparticle.set_faults(unlucky()).expect("good faults");
    let home = tempfile::tempdir().unwrap();
    // Slow enough to be watched.
    let settings = [
        ("MPARTICLE__BATCHES_PER_SECOND", "100"),
        ("MPARTICLE__MAX_BATCHES_PER_REQUEST", "10"),
    ];
    let daemon = Daemon::start(home.path(), &world.endpoint, &settings);
    browser.visit(&daemon, "/").await;
    browser.until("document.querySelector('#state.ok')").await;
    browser.shows("#sentence", "Ready for deliveries").await;
    let first = browser.text(".first").await;
    assert!(first.contains("What to do first"), "{first}");
    browser.screenshot("empty", 1280, "light").await;
    browser.screenshot("empty-narrow", 390, "dark").await;
    // A reload would lose these.
    browser
        .eval(
            "window.seen = new Set();
             new MutationObserver(() => {
                 const node = document.querySelector('[data-of=delivered]');
                 if (node) window.seen.add(node.textContent);
             }).observe(document.body, {subtree: true, childList: true, characterData: true});",
        )
        .await;

    let path = file(home.path(), 802);
    send(&daemon, "Daily <b>users</b>", &path, "event");
    browser.shows("#sentence", "Sending").await;
    browser.press("td [data-of=title]").await;
    browser.shows(".head [data-of=state]", "Incomplete").await;
    assert_eq!(
        browser.text("h1").await,
        "Daily <b>users</b>",
        "a title is text, never markup"
    );
    for (name, want) in [
        ("rows_in", "802"),
        ("delivered", "800"),
        ("rejected", "1"),
        ("dead", "1"),
        ("batches", "800 of 801"),
    ] {
        let shown = browser.text(&format!("[data-of={name}]")).await;
        assert_eq!(shown, want, "{name}");
    }
    let seen = browser.eval("return [...window.seen];").await;
    let seen: Vec<u64> = seen
        .as_array()
        .expect("a list")
        .iter()
        .filter_map(|text| text.as_str()?.parse().ok())
        .collect();
    let between = seen.iter().filter(|n| (1..800).contains(*n)).count();
    assert!(between >= 2, "the number moved on its way: {seen:?}");
    // The rejected row.
    browser
        .until("document.querySelector('#rows-list summary')?.textContent.includes('Row 802')")
        .await;
    // The address leads here too.
    let here = browser.page.current_url().await.expect("an address");
    let id = &daemon.deliveries().await[0].id;
    assert_eq!(here.path(), format!("/deliveries/{id}"));

    // The roll-up says the same in header and tile.
    browser.press("#nav [data-page='/']").await;
    browser.shows("#sentence", "1 thing needs you").await;
    assert_eq!(
        browser.text("#tile-needs-you").await,
        "Needs you1 thing1 dead letter, 1 rejected row"
    );
    let issue = browser.text("#issues").await;
    assert!(issue.starts_with("1 dead letter waits for you."), "{issue}");

    // The dead letter, with its batch, replayed once mParticle takes it.
    browser.press("#issues a").await;
    browser
        .until("document.querySelectorAll('#letters article').length === 1")
        .await;
    browser.press("#letters [data-do=show]").await;
    browser
        .until("document.querySelector('#letters pre')?.textContent.includes('unlucky')")
        .await;
    // Edited: what is not JSON and what mParticle would not take is said, and the text stays.
    browser.press("#letters [data-do=edit]").await;
    browser.until("document.querySelector('#edit').open").await;
    let write = async |from: &str, to: &str| {
        let script = format!(
            "const text = document.querySelector('#edit-text');
             text.value = text.value.replace('{from}', '{to}');"
        );
        browser.eval(&script).await;
    };
    for (from, to, why) in [
        ("{", "", "This is not JSON"),
        ("", "{", ""),
        (UNLUCKY, "mended", ""),
        (
            "customer_id",
            "customer_idd",
            "user_identities.customer_idd",
        ),
    ] {
        write(from, to).await;
        if !why.is_empty() {
            browser.press("#edit [type=submit]").await;
            let said =
                format!("document.querySelector('#edit-problem').textContent.includes('{why}')");
            browser.until(&said).await;
        }
    }
    browser.screenshot("edit", 1280, "light").await;
    browser.screenshot("edit-dark", 1280, "dark").await;
    browser.screenshot("edit-narrow", 390, "light").await;
    write("customer_idd", "customer_id").await;
    browser.press("#edit [type=submit]:not([value])").await;
    browser.until("!document.querySelector('#edit').open").await;
    browser
        .until("document.querySelector('#letters [data-of=reason]').textContent.includes('edited since')")
        .await;
    world
        .mparticle
        .set_faults(Faults::default())
        .expect("no faults");
    browser.press("#letters [data-do=replay]").await;
    browser.until("document.querySelector('#no-dead')").await;
    browser.shows("#sentence", "Everything is sent").await;
    let batches = world.batches();
    assert_eq!(batches.len(), 801);
    assert!(
        batches
            .iter()
            .any(|batch| String::from_utf8_lossy(batch).contains("mended"))
    );

    // By keyboard: the focused button, and the one that takes its place.
    browser.press("#nav [data-page='/destinations']").await;
    browser
        .until("document.querySelector('#destinations [data-do=pause]')")
        .await;
    // A destination that has nothing to send has no speed.
    let meters = "return document.querySelectorAll('#destinations .meter').length;";
    assert_eq!(browser.eval(meters).await, 0);
    assert_eq!(browser.text("#destinations [data-of=accepted]").await, "–");
    browser
        .eval("document.querySelector('#destinations [data-do=pause]').focus();")
        .await;
    for (state, then) in [("Paused", "resume"), ("Idle", "pause")] {
        let focused = browser.page.active_element().await.expect("a focus");
        let enter = char::from(Key::Enter).to_string();
        focused.send_keys(&enter).await.expect("a key");
        browser.shows("#destinations [data-of=state]", state).await;
        browser
            .until(&format!("document.activeElement.dataset.do === '{then}'"))
            .await;
    }
    let same = browser.eval("return window.seen instanceof Set;").await;
    assert_eq!(same, true, "the page was not loaded again");
    browser.close(&daemon.admin).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_allowed_is_that_of_destinations_with_something_to_send_and_a_list_is_saved_as_csv()
{
    let Some(browser) = Browser::open().await else {
        return;
    };
    let world = World::new(None).await;
    let home = tempfile::tempdir().unwrap();
    let settings = [
        ("MPARTICLE__BATCHES_PER_SECOND", "2"),
        ("MPARTICLE__MAX_BATCHES_PER_REQUEST", "1"),
    ];
    let daemon = Daemon::start(home.path(), &world.endpoint, &settings);
    // An account that is through with its only batch.
    let small = world.looker.publish(Shape {
        rows: 1,
        users: 1,
        ..Shape::default()
    });
    let answer = daemon.execute(from_url(small, DataType::Event)).await;
    assert!(answer.is_success(), "{answer:?}");
    daemon.settled().await;
    // Another, whose delivery takes minutes.
    let path = generated(home.path(), 1_000, 1_000, DataType::Event);
    send(&daemon, "=1+1, \"twice\"", &path, "event");
    let both_have_a_limit = async {
        loop {
            let overview: Overview = daemon.get("/api/v1/overview").await;
            let destinations = overview.destinations.iter();
            if destinations.map(|one| one.limit).eq([2.0, 2.0]) {
                break;
            }
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, both_have_a_limit)
        .await
        .expect("both have a limit");

    browser.visit(&daemon, "/").await;
    browser
        .shows("#tile-sending p:last-child", "of 2 allowed")
        .await;

    // What the button saves is caught, not written to a disk.
    browser.visit(&daemon, "/deliveries?search=twice").await;
    browser
        .eval("URL.createObjectURL = blob => { blob.text().then(text => { window.saved = text; }); return '#'; };")
        .await;
    browser.press("[data-do=csv]").await;
    browser.until("window.saved !== undefined").await;
    let saved = browser.eval("return window.saved;").await;
    let lines: Vec<_> = saved.as_str().expect("text").split("\r\n").collect();
    assert_eq!(lines.len(), 3, "a head, one delivery, the end: {lines:?}");
    assert!(lines[0].starts_with("id,title,state,"), "{lines:?}");
    assert!(lines[1].contains(",\"'=1+1, \"\"twice\"\"\","), "{lines:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_left_of_a_delivery_is_cancelled_by_a_click_once_a_person_has_agreed() {
    let Some(browser) = Browser::open().await else {
        return;
    };
    let world = World::new(None).await;
    let home = tempfile::tempdir().unwrap();
    // Two batches a second: the rest would take minutes.
    let settings = [
        ("MPARTICLE__BATCHES_PER_SECOND", "2"),
        ("MPARTICLE__MAX_BATCHES_PER_REQUEST", "1"),
        ("MPARTICLE__MAX_IN_FLIGHT", "1"),
    ];
    let daemon = Daemon::start(home.path(), &world.endpoint, &settings);
    let path = generated(home.path(), 1_000, 1_000, DataType::Event);
    send(&daemon, "Sent by mistake", &path, "event");
    // The address alone leads there.
    let id = daemon.deliveries().await.remove(0).id;
    browser.visit(&daemon, &format!("/deliveries/{id}")).await;
    for answer in ["no", "yes"] {
        browser.press("[data-do=cancel]").await;
        browser.until("document.querySelector('#ask').open").await;
        let asked = browser.text("#ask-text").await;
        assert!(asked.contains("Sent by mistake"), "{asked}");
        browser.press(&format!("#ask [data-answer={answer}]")).await;
        browser.until("!document.querySelector('#ask').open").await;
        if answer == "no" {
            let kept = daemon.deliveries().await;
            assert_eq!(kept[0].rows.cancelled, 0, "{kept:?}");
        }
    }
    browser.shows(".head [data-of=state]", "Cancelled").await;
    let rows = daemon.settled().await[0].rows;
    assert!(
        rows.cancelled > 900 && rows.cancelled + rows.delivered == 1_000,
        "{rows:?}"
    );
    let shown = rows.cancelled.to_string();
    browser.shows("[data-of=cancelled]", &shown).await;
    // Its part of the bar, in a colour of its own.
    let bar = browser
        .eval(
            "const bar = document.querySelector('.stack');
             const probe = kind => {
                 const part = bar.appendChild(document.createElement('span'));
                 part.className = kind;
                 const colour = getComputedStyle(part).backgroundColor;
                 part.remove();
                 return colour;
             };
             const names = ['delivered', 'flying', 'dead', 'rejected', 'cancelled', 'unchanged'];
             const part = bar.querySelector('.cancelled').getBoundingClientRect();
             return [part.width / bar.getBoundingClientRect().width, new Set(names.map(probe)).size];",
        )
        .await;
    let share = bar[0].as_f64().expect("a share");
    assert!(
        (share - rows.cancelled as f64 / 1_000.0).abs() < 0.01,
        "{bar}"
    );
    assert_eq!(bar[1], 6);
    let left = "return document.querySelectorAll('[data-do=cancel]').length;";
    assert_eq!(
        browser.eval(left).await,
        0,
        "there is nothing left to cancel"
    );
    browser
        .eval("window.scrollTo(0, 0); document.querySelector('#said').hidden = true;")
        .await;
    browser.until("document.getAnimations().length === 0").await;
    browser.screenshot("cancelled", 1280, "light").await;
    browser.screenshot("cancelled-dark", 1280, "dark").await;
    browser.screenshot("cancelled-narrow", 390, "light").await;
    browser.close(&daemon.admin).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn header_tiles_and_deliveries_tell_the_truth_while_a_destination_is_down() {
    let Some(browser) = Browser::open().await else {
        return;
    };
    let world = World::new(None).await;
    world.mparticle.set_faults(unlucky()).expect("good faults");
    let home = tempfile::tempdir().unwrap();
    let settings = [("MPARTICLE__BATCHES_PER_SECOND", "1000")];
    let daemon = Daemon::start(home.path(), &world.endpoint, &settings);
    let path = file(home.path(), 300);
    send(&daemon, "Churn risk scores", &path, "user");
    daemon.settled().await;
    let away = Fault::Status {
        status: 503,
        retry_after: None,
        exceeded: None,
        body: None,
    };
    let away = Faults {
        seed: 1,
        rules: vec![Rule::always(away)],
    };
    world.mparticle.set_faults(away).expect("good faults");
    let events = generated(home.path(), 500, 500, DataType::Event);
    send(&daemon, "Purchases of yesterday", &events, "event");
    browser.visit(&daemon, "/").await;
    // A dead letter is never quiet, and an outage that passes by itself needs nobody.
    browser.shows("#sentence", "1 thing needs you").await;
    browser
        .until("document.querySelectorAll('#issues article').length === 2")
        .await;
    let issues = browser.text("#issues").await;
    for part in [
        "1 dead letter waits for you.",
        "does not answer.",
        "Nothing is lost, and there is nothing to do: it is tried again by itself.",
        "Since ",
        "Try now",
    ] {
        assert!(issues.contains(part), "{part}: {issues}");
    }
    assert!(
        browser
            .text("#tile-needs-you")
            .await
            .starts_with("Needs you1 thing")
    );
    assert!(browser.text("#tile-time-to-finish").await.contains("Waits"));
    // What is held up stands on top, and says why; what did not arrive whole is not green.
    browser.shows("tbody tr [data-of=state]", "Held up").await;
    let why = "return document.querySelector('tbody tr [data-of=state]').title;";
    let why = browser.eval(why).await;
    assert!(
        why.as_str()
            .is_some_and(|why| why.contains("does not answer")),
        "{why}"
    );
    browser.visit(&daemon, "/deliveries?state=incomplete").await;
    browser
        .shows("tbody tr [data-of=state]", "Incomplete")
        .await;
    let good = "return document.querySelectorAll('tbody .badge.good').length;";
    assert_eq!(browser.eval(good).await, 0);
    // Since when, and when it is tried again; then it comes back by itself.
    browser.visit(&daemon, "/destinations").await;
    browser
        .until("document.querySelector('#destinations .why')?.textContent.startsWith('Status 503. Since ')")
        .await;
    browser
        .until("document.querySelector('[data-do=retry]')")
        .await;
    world
        .mparticle
        .set_faults(Faults::default())
        .expect("no faults");
    browser.shows("#destinations [data-of=state]", "Idle").await;
    browser.close(&daemon.admin).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_pages_fit_wide_and_narrow_in_light_and_dark_and_axe_finds_nothing() {
    let Some(browser) = Browser::open().await else {
        return;
    };
    let axe = axe();
    let world = World::new(None).await;
    world.mparticle.set_faults(unlucky()).expect("good faults");
    let home = tempfile::tempdir().unwrap();
    let settings = [("MPARTICLE__BATCHES_PER_SECOND", "270")];
    let daemon = Daemon::start(home.path(), &world.endpoint, &settings);
    let marked = file(home.path(), 1_200);
    let events = generated(home.path(), 60_000, 13_000, DataType::Event);
    for _ in 0..5 {
        send(
            &daemon,
            "Newsletter audience",
            &file(home.path(), 60),
            "user",
        );
    }
    send(&daemon, "Customers, EU (daily)", &marked, "user");
    send(&daemon, "Purchases of yesterday", &events, "event");
    browser.visit(&daemon, "/").await;
    // Enough of a history for the charts to have a form.
    browser
        .until("(document.querySelector('#charts .line')?.getAttribute('d').match(/L/g) ?? []).length >= 3")
        .await;
    let busy = daemon.deliveries().await.remove(0).id;
    for (path, name, ready) in [
        ("/", "overview", "#charts figure:nth-of-type(4)"),
        ("/deliveries", "deliveries", "tbody tr:nth-child(6)"),
        (&*format!("/deliveries/{busy}"), "delivery", ".timeline"),
        ("/schedules", "schedules", "tbody .runs"),
        ("/destinations", "destinations", "#destinations article"),
        ("/dead-letters", "dead-letters", "#letters article"),
        ("/rejected-rows", "rejected-rows", "#groups article"),
        ("/configuration", "configuration", "tbody tr"),
        ("/audit", "audit", ".empty, tbody tr"),
        ("/people", "people", "main [data-do=find]"),
    ] {
        browser.visit(&daemon, path).await;
        browser
            .until(&format!("document.querySelector(`{ready}`)"))
            .await;
        for (width, scheme) in [
            (1280, "light"),
            (1280, "dark"),
            (390, "light"),
            (390, "dark"),
        ] {
            let narrow = if width < 600 { "-narrow" } else { "" };
            browser
                .screenshot(&format!("{name}{narrow}-{scheme}"), width, scheme)
                .await;
            if let Some(axe) = &axe {
                let found = browser.violations(axe).await;
                assert_eq!(found, json!([]), "{name} at {width}, {scheme}");
            }
        }
        // What a person may press is large enough to be met.
        let small = browser
            .eval(
                "return [...document.querySelectorAll('button, .button, select, input')]
                    .filter(node => node.offsetParent && node.getBoundingClientRect().height < 40)
                    .map(node => node.textContent);",
            )
            .await;
        assert_eq!(small, json!([]), "{name}");
    }
    // A chart tells its values to whoever points at it, and to the keyboard.
    browser.visit(&daemon, "/").await;
    browser
        .until("document.querySelector('#charts .line')?.getAttribute('d').includes('L')")
        .await;
    browser
        .eval("document.querySelector('#charts .field').focus();")
        .await;
    let field = browser.page.active_element().await.expect("a focus");
    let left = char::from(Key::Left).to_string();
    field.send_keys(&left).await.expect("a key");
    browser
        .until("document.querySelector('#charts .cursor')")
        .await;
    let about = browser.text("#charts .about").await;
    assert!(about.contains("limit 270 batches/s"), "{about}");
    browser
        .press("#charts [aria-pressed=false], [aria-label='Time range'] [aria-pressed=false]")
        .await;
    browser
        .until("document.querySelectorAll('[aria-label=\"Time range\"] [aria-pressed=true]')[0].textContent === '24 hours'")
        .await;
    browser.close(&daemon.admin).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_delivery_is_called_off_and_asked_for_again_by_a_click() {
    let Some(browser) = Browser::open().await else {
        return;
    };
    let axe = axe();
    let world = World::new(None).await;
    let home = tempfile::tempdir().unwrap();
    let looker = world.looker.base().to_string();
    let settings = [
        ("LOOKER__API__URL", looker.as_str()),
        ("LOOKER__API__CLIENT_ID", "client-of-the-feed"),
        ("LOOKER__API__CLIENT_SECRET", "secret-of-the-client"),
        // A person is quicker.
        ("LOOKER__API__PAUSE", "1h"),
        ("LOOKER__API__PAUSE_MAX", "1h"),
        ("LOOKER__API__MISSED_BACK", "0s"),
    ];
    let daemon = Daemon::start(home.path(), &world.endpoint, &settings);
    let schedules = world.api.schedules();
    schedules.point_at(&daemon.hub, &token());
    let mut schedule = Schedule::new("Orders <i>of</i> the night", Shape::default(), 7);
    schedule.shape.rows = 400;
    schedule.failures = [Some(Failure::CutAfter(20_000)), Some(Failure::Html)].into();
    let id = schedules.add(schedule);
    assert!(!schedules.run(id).await);

    browser.visit(&daemon, "/").await;
    let waits = "1 delivery failed and is asked for again";
    browser.shows("#sentence", waits).await;
    browser.press("#issues a.button").await;
    let article = "#failed-list article";
    browser
        .shows(
            &format!("{article} [data-of=title]"),
            "Orders <i>of</i> the night",
        )
        .await;
    let state = format!("{article} [data-of=state]");
    browser.shows(&state, "Will be asked for again").await;
    let next = browser.text(&format!("{article} [data-of=next]")).await;
    assert!(next.contains("try 1 of 4"), "{next}");
    let reason = browser.text(&format!("{article} [data-of=reason]")).await;
    assert!(reason.starts_with("The stream broke off: "), "{reason}");
    for (width, scheme) in [(1280, "light"), (390, "dark")] {
        let name = format!("failed-{scheme}");
        browser.screenshot(&name, width, scheme).await;
        if let Some(axe) = &axe {
            assert_eq!(browser.violations(axe).await, json!([]), "{name}");
        }
    }
    browser.press(&format!("{article} [data-do=stop]")).await;
    browser.shows(&state, "Not needed any more").await;
    browser.shows("#sentence", "Ready for deliveries").await;
    assert_eq!(schedules.copies(id), 0);

    // The first try fails too, and has a card of its own that leads to this one.
    browser.press(&format!("{article} [data-do=ask]")).await;
    browser
        .until("document.querySelectorAll('#failed-list article').length === 2")
        .await;
    let first = format!("{article}:first-of-type [data-of=next]");
    let of_try = browser.text(&first).await;
    assert!(
        of_try.starts_with("This was try 1 for a delivery"),
        "{of_try}"
    );
    browser.press(&format!("{first} a")).await;
    browser
        .until("document.querySelectorAll('#failed-list article').length === 1")
        .await;
    browser.shows(&state, "Will be asked for again").await;
    browser.press(&format!("{article} [data-do=ask]")).await;
    browser.shows(&state, "Came in after all").await;
    assert_eq!(schedules.copies(id), 2);

    // From there to what came of it, and back.
    browser.press(&format!("{article} li:last-of-type a")).await;
    browser.shows(".head [data-of=state]", "Delivered").await;
    let repeat = browser.text("#repeat").await;
    assert!(repeat.contains("try 2 for a delivery"), "{repeat}");
    browser.press("#repeat a").await;
    browser.shows(&state, "Came in after all").await;
    browser.press("#nav [data-page='/audit']").await;
    browser
        .until("document.querySelector('main').textContent.includes('ask-again')")
        .await;
    browser.close(&daemon.admin).await;
}

/// A history of deliveries that are over, made in the outbox itself: through the hub it would take
/// minutes. Titles are `Schedule <n % 40>, run <n>`.
fn history(home: &Path, count: u64) {
    const AT_ONCE: u64 = 64;
    let (key, _) = SealKey::load_or_create(&home.join("outbox.key")).expect("a key");
    let keys = Arc::new(Keyring::new(key, Vec::new()));
    let outbox = Outbox::open(outbox::Settings {
        history: count as usize,
        reserve_bytes: 0,
        ..outbox::Settings::new(home.join("outbox"), keys)
    })
    .expect("an outbox");
    let now = UnixMillis::now().0;
    let deliver = |n: u64| {
        let received = UnixMillis(now - (count - n) * 60_000);
        let mut id = [0; 16];
        id[..6].copy_from_slice(&received.0.to_be_bytes()[2..]);
        id[8..].copy_from_slice(&n.to_be_bytes());
        let staging = outbox.begin(NewDelivery {
            id: DeliveryId(id),
            destination: DestinationId([(n % 6) as u8; 16]),
            destination_label: format!("us{}, key …000{}", n % 6, n % 6),
            account: b"sealed".to_vec(),
            webhook: None,
            title: format!("Schedule {}, run {n}", n % 40),
            link: None,
            received,
        });
        let totals = Totals {
            rows_in: n % 500,
            rows_unchanged: n % 500,
            ..Totals::default()
        };
        staging
            .expect("it begins")
            .commit(totals)
            .expect("it is durable");
    };
    // Those that are committed at once share a sync of the disk.
    std::thread::scope(|scope| {
        for part in 0..AT_ONCE {
            let deliver = &deliver;
            scope.spawn(move || {
                (part..count).step_by(AT_ONCE as usize).for_each(deliver);
            });
        }
    });
    outbox.close();
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_deliveries_are_found_by_filter_and_read_page_by_page() {
    const ALL: u64 = 10_000;
    let Some(browser) = Browser::open().await else {
        return;
    };
    let world = World::new(None).await;
    // In memory where the system has that, since the disk is not what is tried here.
    let home = tempfile::tempdir_in("/dev/shm").unwrap_or_else(|_| tempfile::tempdir().unwrap());
    history(home.path(), ALL);
    let settings = [
        ("OUTBOX__HISTORY", "20000"),
        ("OUTBOX__RESERVE_BYTES", "0B"),
    ];
    let daemon = Daemon::start(home.path(), &world.endpoint, &settings);
    // The whole history, each delivery once.
    let mut ids = std::collections::BTreeSet::new();
    let mut after = String::new();
    loop {
        let path = format!("/api/v1/deliveries?limit=500{after}");
        let part: Listing<Delivery> = daemon.get(&path).await;
        ids.extend(part.items.into_iter().map(|one| one.id));
        let Some(next) = part.next else { break };
        after = format!("&after={next}");
    }
    assert_eq!(ids.len() as u64, ALL);

    browser.visit(&daemon, "/deliveries").await;
    browser
        .until("document.querySelectorAll('tbody tr').length === 50")
        .await;
    let ready = browser.eval("return Math.round(performance.now());").await;
    println!("the list of {ALL} deliveries stood after {ready} ms");
    let newest = browser.text("tbody tr [data-of=title]").await;
    browser.press("#older").await;
    browser
        .until(&format!(
            "document.querySelector('tbody tr [data-of=title]')?.textContent !== `{newest}`"
        ))
        .await;
    browser
        .until("document.querySelectorAll('tbody tr').length === 50")
        .await;
    browser.page.back().await.expect("back");
    browser.shows("tbody tr [data-of=title]", &newest).await;

    // One of them, by a word of its title; the address says so.
    let search = browser.page.find(Locator::Css("input[type=search]")).await;
    let search = search.expect("a search box");
    search.send_keys("RUN 4711").await.expect("keys");
    browser
        .until("document.querySelectorAll('tbody tr').length === 1")
        .await;
    browser
        .shows("tbody tr [data-of=title]", "Schedule 31, run 4711")
        .await;
    let here = browser.page.current_url().await.expect("an address");
    assert_eq!(here.query(), Some("search=RUN+4711"));
    browser.press("tbody tr [data-of=title]").await;
    browser.shows("h1", "Schedule 31, run 4711").await;
    browser.shows("[data-of=rows_in]", "211").await;

    // By state and destination, at an address that a colleague was sent.
    let of = "05".repeat(16);
    browser
        .visit(
            &daemon,
            &format!("/deliveries?state=delivered&destination={of}&within=360000"),
        )
        .await;
    browser
        .until("document.querySelectorAll('tbody tr').length === 50")
        .await;
    let labels = browser
        .eval("return [...new Set([...document.querySelectorAll('.name .under')].map(node => node.textContent))];")
        .await;
    assert_eq!(labels, json!(["us5, key …0005"]));
    browser.visit(&daemon, "/deliveries?state=incomplete").await;
    browser
        .until("document.querySelector('.empty')?.textContent.includes('No delivery is like that')")
        .await;
    browser.screenshot("history", 1280, "light").await;

    // Every page stands with so much behind it, and axe finds nothing.
    let axe = axe();
    for (path, ready) in [
        ("/", "#charts figure"),
        ("/deliveries", "tbody tr:nth-child(50)"),
        ("/schedules", "tbody .runs"),
        ("/destinations", ".empty, #destinations article"),
        ("/dead-letters", ".empty"),
        ("/rejected-rows", ".empty"),
        ("/failed-deliveries", ".empty"),
        ("/configuration", "tbody tr"),
        ("/people", "[data-do=find]"),
        ("/audit", ".empty"),
    ] {
        browser.visit(&daemon, path).await;
        browser
            .until(&format!("document.querySelector(`main {ready}`)"))
            .await;
        let stood = browser.eval("return Math.round(performance.now());").await;
        println!("{path} stood after {stood} ms with {ALL} deliveries");
        let name = path.trim_start_matches('/').replace('/', "-");
        browser
            .screenshot(&format!("history-{name}"), 1280, "light")
            .await;
        if let Some(axe) = &axe {
            assert_eq!(browser.violations(axe).await, json!([]), "{path}");
        }
    }
    browser.close(&daemon.admin).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_empty_daemon_says_on_each_page_what_there_is_not() {
    let Some(browser) = Browser::open().await else {
        return;
    };
    let axe = axe();
    let world = World::new(None).await;
    let home = tempfile::tempdir().unwrap();
    let daemon = Daemon::start(home.path(), &world.endpoint, &[]);
    for path in [
        "/",
        "/deliveries",
        "/schedules",
        "/destinations",
        "/dead-letters",
        "/rejected-rows",
        "/failed-deliveries",
        "/people",
        "/audit",
    ] {
        browser.visit(&daemon, path).await;
        browser
            .until("document.querySelector('main h1, main h2') && !document.querySelector('main').textContent.includes('Loading…')")
            .await;
        let name = format!("empty-{}", path.trim_start_matches('/'));
        browser.screenshot(&name, 1280, "light").await;
        browser
            .screenshot(&format!("{name}-narrow"), 390, "dark")
            .await;
        if let Some(axe) = &axe {
            assert_eq!(browser.violations(axe).await, json!([]), "{path}");
        }
    }
    browser.close(&daemon.admin).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_person_is_looked_for_and_erased_on_the_page_once_somebody_has_agreed() {
    let Some(browser) = Browser::open().await else {
        return;
    };
    let world = World::new(None).await;
    world.mparticle.set_faults(unlucky()).expect("good faults");
    let home = tempfile::tempdir().unwrap();
    let daemon = Daemon::start(home.path(), &world.endpoint, &[]);
    send(&daemon, "Newsletter", &file(home.path(), 40), "user");
    daemon.settled().await;
    let letters: Listing<Value> = daemon.get("/api/v1/dead-letters?limit=1").await;
    let id = letters.items[0]["id"].as_str().unwrap().to_owned();

    browser.visit(&daemon, "/people").await;
    browser.press("main [data-do=find]").await;
    browser.shows("#said", "Enter whom to look for.").await;
    let value = browser.page.find(Locator::Css("#person-value")).await;
    value.expect("a field").send_keys(UNLUCKY).await.unwrap();
    browser
        .eval("document.querySelector('#person-name').value = 'customer_id';")
        .await;
    browser.press("main [data-do=find]").await;
    browser
        .shows("main [data-of=message]", "Found in one delivery.")
        .await;
    browser.screenshot("people-found", 1280, "light").await;
    browser.press("main [data-do=erase]").await;
    browser.press("#ask [data-answer=no]").await;
    assert_eq!(
        browser
            .eval("return document.querySelectorAll('[data-lookup]').length;")
            .await,
        1
    );
    browser.press("main [data-do=erase]").await;
    browser.press("#ask [data-answer=yes]").await;
    browser
        .until("document.querySelector('main [data-of=message]')?.textContent.startsWith('Erased: 0 rows that waited, 1 in dead letters')")
        .await;
    let (status, _) = daemon
        .call("GET", &format!("/api/v1/dead-letters/{id}"), "")
        .await;
    assert_eq!(status, 404);
    let here = browser.page.current_url().await.expect("an address");
    assert!(!here.as_str().contains(UNLUCKY));
    browser.visit(&daemon, "/audit").await;
    browser
        .until("[...document.querySelectorAll('[data-of=call]')].some(node => node.textContent.startsWith('Erasure '))")
        .await;
    let text = browser.text("main").await;
    assert!(!text.contains(UNLUCKY), "{text}");
    browser.close(&daemon.admin).await;
}

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
    world.mparticle.set_faults(unlucky()).expect("good faults");
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
