//! How soon each page can be used with a long history behind it, in headless Chromium: from the start of
//! the navigation until what the page is for stands there, is painted, and the page would hear a click.

use std::path::Path;
use std::time::Duration;

use serde_json::json;

use crate::browser::Browser;
use crate::daemon::Daemon;
use crate::history::history;
use crate::kit::{Bound, Verdict, median, number};
use crate::world::World;

pub const DELIVERIES: u64 = 10_000;
/// Visits of each page; the middle one counts.
const VISITS: usize = 5;
/// The page, and what it is for.
const PAGES: [(&str, &str); 7] = [
    ("/", "#charts figure"),
    ("/deliveries", "tbody tr:nth-child(50)"),
    ("/schedules", "tbody .runs"),
    ("/destinations", "#h-outbox"),
    ("/failed-deliveries", ".empty"),
    ("/dead-letters", ".empty"),
    ("/configuration", "tbody tr"),
];

/// Each page with its time; `None`: there is no browser here.
pub type Pages = Option<Vec<(&'static str, Duration)>>;

/// A line for each page.
pub fn verdicts(pages: &Pages) -> Vec<Verdict> {
    let verdict = |(path, time): &(&str, Duration)| {
        let what = format!(
            "ms until {path} can be used, {} deliveries before",
            number(DELIVERIES as f64)
        );
        Verdict::new(
            what,
            (time.as_secs_f64() * 1e3).round(),
            Bound::AtMost(1000.0),
        )
    };
    pages.iter().flatten().map(verdict).collect()
}

/// What stands in the place of these lines where there is no browser.
pub const NOT_MEASURED: &str = "NOT MEASURED: how soon the pages can be used; there is no Chromium here (Debian: chromium, chromium-driver)";

pub fn run(home: &Path) -> Pages {
    let world = World::new(None);
    world.runtime.block_on(measure(home, &world.endpoint))
}

async fn measure(home: &Path, endpoint: &str) -> Pages {
    let browser = Browser::open().await?;
    let directory = tempfile::tempdir_in(home).expect("a directory");
    history(directory.path(), DELIVERIES);
    let settings = [("OUTBOX__HISTORY", (2 * DELIVERIES).to_string())];
    let daemon = Daemon::start_with(directory.path(), endpoint, 270, &settings);
    let watch = format!(
        "const wanted = {}[location.pathname];
         new MutationObserver((_, me) => {{
             if (!wanted || !document.querySelector('main ' + wanted)) return;
             me.disconnect();
             requestAnimationFrame(() => setTimeout(() => {{ window.stood = performance.now(); }}));
         }}).observe(document, {{subtree: true, childList: true}});",
        json!(std::collections::BTreeMap::from(PAGES))
    );
    browser
        .devtools(
            "Page.addScriptToEvaluateOnNewDocument",
            json!({"source": watch}),
        )
        .await;
    let mut pages = Vec::new();
    for (path, _) in PAGES {
        let mut times = Vec::new();
        for _ in 0..VISITS {
            let address = daemon.admin().join(path).expect("an address");
            browser.page.goto(address.as_str()).await.expect("the page");
            browser.until("window.stood").await;
            let stood = browser.eval("return window.stood;").await;
            let stood = stood.as_f64().expect("milliseconds");
            times.push(Duration::from_secs_f64(stood / 1e3));
        }
        pages.push((path, median(times.into_iter())));
    }
    browser.close(daemon.admin()).await;
    Some(pages)
}
