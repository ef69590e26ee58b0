//! What a person does on the pages, and what they see of what goes on.

use fantoccini::Locator;
use fantoccini::key::Key;
use looker_feed::control::view::{Listing, Overview};
use looker_feed::looker::{Failure, Schedule, Shape};
use looker_feed::model::DataType;
use serde_json::Value;

use crate::browser::{Browser, axe};
use crate::fixtures::{UNLUCKY, file, generated, send};
use crate::support::{Daemon, PATIENCE, World, down, from_url, refuses, token};

#[tokio::test(flavor = "multi_thread")]
async fn a_delivery_moves_on_the_page_without_a_reload_and_a_dead_letter_is_replayed_by_a_click() {
    let Some(browser) = Browser::open().await else {
        return;
    };
    let world = World::new(None).await;
    world.faults([refuses(UNLUCKY)]);
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
    world.faults([]);
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
    world.faults([refuses(UNLUCKY)]);
    let home = tempfile::tempdir().unwrap();
    let settings = [("MPARTICLE__BATCHES_PER_SECOND", "1000")];
    let daemon = Daemon::start(home.path(), &world.endpoint, &settings);
    let path = file(home.path(), 300);
    send(&daemon, "Churn risk scores", &path, "user");
    daemon.settled().await;
    world.faults([down()]);
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
    // What is blocked stands on top, and says why; what did not arrive whole is not green.
    browser.shows("tbody tr [data-of=state]", "Blocked").await;
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
    world.faults([]);
    browser.shows("#destinations [data-of=state]", "Idle").await;
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
        browser.is_accessible(axe.as_deref(), &name).await;
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

#[tokio::test(flavor = "multi_thread")]
async fn a_person_is_looked_for_and_erased_on_the_page_once_somebody_has_agreed() {
    let Some(browser) = Browser::open().await else {
        return;
    };
    let world = World::new(None).await;
    world.faults([refuses(UNLUCKY)]);
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
