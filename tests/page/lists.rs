//! Every page, wide and narrow, empty and with ten thousand deliveries behind it.

use fantoccini::Locator;
use fantoccini::key::Key;
use looker_feed::control::view::{Delivery, Listing};
use looker_feed::model::DataType;
use serde_json::json;

use crate::browser::{Browser, axe};
use crate::fixtures::{UNLUCKY, file, generated, send};
use crate::history::history;
use crate::support::{Daemon, World, refuses};

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
        assert!(
            browser.bottom("footer").await < 5_000.0,
            "{path} is too long"
        );
        let name = path.trim_start_matches('/').replace('/', "-");
        browser
            .screenshot(&format!("history-{name}"), 1280, "light")
            .await;
        browser.is_accessible(axe.as_deref(), path).await;
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
        browser.is_accessible(axe.as_deref(), path).await;
    }
    browser.close(&daemon.admin).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_pages_fit_wide_and_narrow_in_light_and_dark_and_axe_finds_nothing() {
    let Some(browser) = Browser::open().await else {
        return;
    };
    let axe = axe();
    let world = World::new(None).await;
    world.faults([refuses(UNLUCKY)]);
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
            let what = format!("{name} at {width}, {scheme}");
            browser.is_accessible(axe.as_deref(), &what).await;
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
    // Is everything fine, what is stuck, when will it be done, what must I do: in one screen, on a phone too.
    browser.visit(&daemon, "/").await;
    browser.until("document.querySelector('.tiles')").await;
    for (width, screen) in [(390, 844.0), (1280, 900.0)] {
        browser.screenshot("one-screen", width, "light").await;
        let bottom = browser.bottom(".tiles").await;
        assert!(bottom < screen, "{width}: the tiles end at {bottom}");
    }
    assert!(
        browser.bottom("footer").await < 5_000.0,
        "the overview is too long"
    );
    // A chart tells its values to whoever points at it, and to the keyboard.
    browser
        .until("document.querySelector('#charts .line')?.getAttribute('d').includes('L')")
        .await;
    browser
        .eval("document.querySelector('#charts .field').focus();")
        .await;
    let field = browser.page.active_element().await.expect("a focus");
    let left = char::from(Key::Left).to_string();
    // The newest moment may have no values yet, the one before it has.
    let mut about = String::new();
    for _ in 0..5 {
        field.send_keys(&left).await.expect("a key");
        browser
            .until("document.querySelector('#charts .cursor')")
            .await;
        about = browser.text("#charts .about").await;
        if about.contains("limit") {
            break;
        }
    }
    assert!(about.contains("limit 270 batches/s"), "{about}");
    browser
        .press("#charts [aria-pressed=false], [aria-label='Time range'] [aria-pressed=false]")
        .await;
    browser
        .until("document.querySelectorAll('[aria-label=\"Time range\"] [aria-pressed=true]')[0].textContent === '24 hours'")
        .await;
    browser.close(&daemon.admin).await;
}
