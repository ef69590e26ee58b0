//! What a person sees of deliveries that do not go on, and of those that failed, and how they find them.

use fantoccini::Locator;
use looker_feed::model::DataType;

use crate::browser::{Browser, axe};
use crate::fixtures::{generated, send, send_to, written};
use crate::support::{Daemon, World, down};

#[tokio::test(flavor = "multi_thread")]
async fn a_held_delivery_is_found_from_the_overview_and_released_by_a_click() {
    let Some(browser) = Browser::open().await else {
        return;
    };
    let axe = axe();
    let world = World::new(None).await;
    let home = tempfile::tempdir().unwrap();
    let settings = [("HOLD__UNUSUAL_PERCENT", "50")];
    let daemon = Daemon::start(home.path(), &world.endpoint, &settings);
    for users in 100..104 {
        let usual = generated(home.path(), users, users, DataType::User);
        send(&daemon, "Newsletter audience", &usual, "user");
    }
    daemon.settled().await;
    let large = generated(home.path(), 400, 400, DataType::User);
    send(&daemon, "Newsletter audience", &large, "user");

    browser.visit(&daemon, "/").await;
    browser.shows("#sentence", "1 thing needs you").await;
    let issue = browser.text("#issues").await;
    assert!(issue.starts_with("1 delivery is held."), "{issue}");
    browser.shows("#tile-time-to-finish .big", "Waits").await;
    browser.press("#issues a.button").await;
    browser.shows("tbody [data-of=state]", "Held").await;
    let held = "return document.querySelectorAll('tbody tr').length;";
    assert_eq!(
        browser.eval(held).await,
        1,
        "those that were sent are not held"
    );
    browser.press("tbody [data-of=title]").await;
    browser.shows("[data-of=left]", "When it is released").await;
    let why = browser.text(".timeline .held").await;
    assert!(why.contains("400 rows, where 51 to 153 are usual"), "{why}");
    let done = browser.text(".timeline .later p").await;
    assert_eq!(done, "when it is released");
    for (name, width, scheme) in [
        ("held", 1280, "light"),
        ("held-dark", 1280, "dark"),
        ("held-narrow", 390, "light"),
    ] {
        browser.screenshot(name, width, scheme).await;
        browser.is_accessible(axe.as_deref(), name).await;
    }
    for (answer, state) in [("no", "Held"), ("yes", "Delivered")] {
        browser.press("[data-do=release]").await;
        browser.until("document.querySelector('#ask').open").await;
        browser.press(&format!("#ask [data-answer={answer}]")).await;
        browser.until("!document.querySelector('#ask').open").await;
        browser.shows(".head [data-of=state]", state).await;
    }
    browser.close(&daemon.admin).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn when_no_destination_answers_one_card_says_so_and_failed_deliveries_are_found_by_words() {
    let Some(browser) = Browser::open().await else {
        return;
    };
    let axe = axe();
    let world = World::new(None).await;
    world.faults([down()]);
    let home = tempfile::tempdir().unwrap();
    let daemon = Daemon::start(home.path(), &world.endpoint, &[]);
    let events = generated(home.path(), 300, 300, DataType::Event);
    for key in ["us1-3f9c2b7d41e8a605", "us1-77aa0c1d22b341c7"] {
        let (code, said) = send_to(&daemon, "Purchases of yesterday", &events, "event", key);
        assert_eq!(code, Some(0), "{said}");
    }
    let whole = std::fs::read(&events).unwrap();
    let half = written(home.path(), "half.json", &whole[..whole.len() / 2]);
    for title in ["Churn risk scores", "Loyalty tiers"] {
        let (code, said) = send_to(&daemon, title, &half, "event", "us1-3f9c2b7d41e8a605");
        assert_eq!(code, Some(1), "{said}");
    }

    browser.visit(&daemon, "/").await;
    let cards =
        "[...document.querySelectorAll('#issues h2')].map(node => node.textContent).join('|')";
    browser
        .until(&format!(
            "{cards} === '2 deliveries failed of late.|2 destinations do not answer.'"
        ))
        .await;
    let waits = browser.text("#subline").await;
    assert!(
        waits.starts_with("2 deliveries wait for 2 destinations since "),
        "{waits}"
    );
    for (name, width, scheme) in [
        ("down", 1280, "light"),
        ("down-dark", 1280, "dark"),
        ("down-narrow", 390, "light"),
    ] {
        browser.screenshot(name, width, scheme).await;
        browser.is_accessible(axe.as_deref(), name).await;
    }
    let end = browser.bottom(".tiles").await;
    assert!(end < 844.0, "on a phone the tiles end at {end}");

    browser.press("#issues a.button").await;
    let listed = |count: u32| {
        format!("document.querySelectorAll('#failed-list article').length === {count}")
    };
    browser.until(&listed(2)).await;
    let search = browser.page.find(Locator::Css("input[type=search]")).await;
    search.unwrap().send_keys("LOYALTY").await.expect("keys");
    browser.until(&listed(1)).await;
    browser
        .shows("#failed-list [data-of=title]", "Loyalty tiers")
        .await;
    let here = browser.page.current_url().await.expect("an address");
    assert_eq!(here.query(), Some("search=LOYALTY"));
    browser
        .visit(&daemon, "/failed-deliveries?schedule=Nothing")
        .await;
    browser
        .until("document.querySelector('.empty')?.textContent.includes('No failed delivery is like that')")
        .await;
    browser.close(&daemon.admin).await;
}
