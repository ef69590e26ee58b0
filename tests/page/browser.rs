//! Headless Chromium over WebDriver, and axe-core in it. Beside these tests a bench has it.

use std::io::{BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use fantoccini::wd::{Capabilities, WebDriverCompatibleCommand};
use fantoccini::{Client, ClientBuilder, Locator};
use hyper::Method;
use hyper_util::client::legacy::connect::HttpConnector;
use serde_json::{Value, json};
use url::Url;

/// Everything here is local and small; what takes longer has gone wrong.
const PATIENCE: Duration = Duration::from_secs(60);

/// Says that a program is missing; CI installs it, so there it is an error.
pub fn missing(program: &str) {
    let ci = std::env::var("CI").is_ok_and(|ci| ci == "true");
    assert!(!ci, "{program} is not installed, and CI must have it");
    eprintln!("skipped: {program} is not installed");
}

pub fn installed(program: &str) -> bool {
    let version = Command::new(program)
        .arg("--version")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    version.is_ok_and(|status| status.success())
}

/// Chromium under its driver, both of which end with this.
pub struct Browser {
    pub page: Client,
    driver: Child,
    _output: BufReader<ChildStdout>,
    _profile: tempfile::TempDir,
}

impl Browser {
    /// `None` when it is not installed.
    pub async fn open() -> Option<Self> {
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
    pub async fn eval(&self, script: &str) -> Value {
        self.page
            .execute(script, Vec::new())
            .await
            .unwrap_or_else(|error| panic!("{script}: {error}"))
    }

    /// Waits until an expression is true.
    pub async fn until(&self, expression: &str) {
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

    pub async fn text(&self, selector: &str) -> String {
        let script = format!("return document.querySelector('{selector}')?.textContent ?? '';");
        self.eval(&script)
            .await
            .as_str()
            .unwrap_or_default()
            .to_owned()
    }

    /// A command of the browser's own protocol.
    pub async fn devtools(&self, cmd: &'static str, params: Value) -> Value {
        self.page
            .issue_cmd(Vendor {
                path: "goog/cdp/execute",
                body: json!({"cmd": cmd, "params": params}),
            })
            .await
            .unwrap_or_else(|error| panic!("{cmd}: {error}"))
    }

    /// Errors of scripts, of the content security policy, and of loading.
    pub async fn complaints(&self) -> Vec<String> {
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
    pub async fn screenshot(&self, name: &str, width: u32, scheme: &str) {
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
    pub async fn close(self, origin: &Url) {
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
pub struct Vendor {
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

/// The folder of axe-core, fetched once with `npm`; `None` where it cannot be had.
pub fn axe() -> Option<String> {
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
    /// Where an element ends, from the top of the page.
    pub async fn bottom(&self, selector: &str) -> f64 {
        let script = format!(
            "return document.querySelector('{selector}').getBoundingClientRect().bottom + scrollY;"
        );
        self.eval(&script).await.as_f64().expect("a length")
    }

    /// Presses the first element that a selector names, once it is there.
    pub async fn press(&self, selector: &str) {
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
    pub async fn shows(&self, selector: &str, text: &str) {
        self.until(&format!(
            "document.querySelector(`{selector}`)?.textContent === `{text}`"
        ))
        .await;
    }

    /// That axe-core, where it can be had, finds nothing in the page as it is.
    pub async fn is_accessible(&self, axe: Option<&str>, what: &str) {
        if let Some(axe) = axe {
            assert_eq!(self.violations(axe).await, json!([]), "{what}");
        }
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
