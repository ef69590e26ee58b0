//! What a person who schedules a Look sees in Looker's own dialog, and that what was filled in there
//! is what is sent: the stand-in for Looker holds the daemon to the documented Action API.

mod support;

use std::collections::BTreeMap;

use looker_feed::config::Secret;
use looker_feed::intake;
use looker_feed::looker::{Dialog, DialogError, Execute, Person, Source};
use serde_json::{Value, json};
use support::form::arrived;
use support::{Daemon, PATIENCE, SECRET, World};

fn map(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    let pairs = pairs.iter();
    pairs
        .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
        .collect()
}

/// Somebody with a query of one column that has these tags.
fn person(tags: &[&str]) -> Person {
    Person {
        columns: vec![
            tags.iter().map(|tag| (*tag).to_owned()).collect(),
            Vec::new(),
        ],
        settings: map(&[("apiKey", "key"), ("apiSecret", "secret")]),
        ..Person::default()
    }
}

async fn open(daemon: &Daemon, person: &Person) -> Result<Dialog, DialogError> {
    let token = intake::new_key(&Secret::new(SECRET.to_owned())).expect("random bytes");
    Dialog::open(&daemon.hub, &token, person).await
}

fn names(dialog: &Dialog) -> Vec<&str> {
    dialog.fields().map(|field| &*field.name).collect()
}

/// Has Looker deliver this document with what was filled in.
async fn deliver(
    world: &World,
    daemon: &Daemon,
    dialog: &Dialog,
    document: &Value,
) -> (bool, String) {
    let url = world.looker.publish_bytes(document.to_string());
    let settings = dialog.settings();
    let mut execute = Execute::new(
        Source::Url(url),
        &settings["apiKey"],
        &settings["apiSecret"],
    );
    execute.form = Some(dialog.save().expect("the form is filled in"));
    execute.timeout = PATIENCE;
    let answer = daemon.execute(execute).await;
    (answer.is_success(), answer.message().unwrap_or_default())
}

#[tokio::test(flavor = "multi_thread")]
async fn looker_offers_the_destination_where_an_identity_is_tagged() {
    let world = World::new(None).await;
    let home = tempfile::tempdir().unwrap();
    let daemon = Daemon::start(home.path(), &world.endpoint, &[]);
    for tag in ["mp_customer_id", "mp_email", "mp_alias", "mp_mpid"] {
        open(&daemon, &person(&["primary_key", tag])).await.unwrap();
    }
    for tags in [&[][..], &["mp_user_attribute"], &["email"]] {
        let refused = open(&daemon, &person(tags)).await.unwrap_err();
        assert!(matches!(refused, DialogError::NotOffered(_)), "{refused}");
    }
    drop(daemon);
    let home = tempfile::tempdir().unwrap();
    let anywhere = [("ACTION__REQUIRE_IDENTITY_TAG", "false")];
    let daemon = Daemon::start(home.path(), &world.endpoint, &anywhere);
    open(&daemon, &person(&[])).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_query_without_tags_is_sent_as_the_form_says() {
    let world = World::new(None).await;
    let anywhere = [("ACTION__REQUIRE_IDENTITY_TAG", "false")];
    let daemon = world.daemon(&anywhere);
    let mut dialog = open(&daemon, &person(&[])).await.unwrap();
    assert!(dialog.save().is_err(), "two fields are required");
    dialog.fill("data_type", "event_data").await.unwrap();
    dialog.fill("environment", "development").await.unwrap();
    assert!(!names(&dialog).contains(&"only_changes"));
    assert!(!names(&dialog).contains(&"pod"), "the address is fixed");
    assert!(dialog.fill("untagged", "user_attribute").await.is_err());
    dialog.fill("untagged", "event_attribute").await.unwrap();
    dialog.fill("pivoted_measures", "attributes").await.unwrap();
    dialog
        .fill(
            "more_columns",
            "u.id: mp_customer_id\nrank: mp_user_attribute\n",
        )
        .await
        .unwrap();
    let document = json!({
        "fields": {
            "dimensions": [{"name": "u.id", "tags": ["mp_other"]}, {"name": "u.city"}],
            "measures": [{"name": "o.count"}],
            "table_calculations": [{"name": "rank"}],
            "pivots": [{"name": "o.month"}],
        },
        "data": [{
            "u.id": {"value": 7}, "u.city": {"value": "Graz"}, "rank": {"value": 1},
            "o.count": {"2026-01": {"value": 3}, "2026-02": {"value": 4}},
        }],
    });
    let (done, message) = deliver(&world, &daemon, &dialog, &document).await;
    assert!(done, "{message}");
    daemon.settled().await;
    let batches = arrived(&world);
    assert_eq!(batches.len(), 1);
    assert_eq!(batches[0]["user_identities"], json!({"customer_id": "7"}));
    assert_eq!(batches[0]["user_attributes"], json!({"looker_rank": 1}));
    assert_eq!(
        batches[0]["events"][0]["data"]["custom_attributes"],
        json!({"looker_u.city": "Graz", "looker_o.count.2026-01": 3, "looker_o.count.2026-02": 4})
    );

    // What only the result can tell is told with the delivery.
    dialog
        .fill("more_columns", "u.ident: mp_customer_id")
        .await
        .unwrap();
    let (done, message) = deliver(&world, &daemon, &dialog, &document).await;
    assert!(!done);
    assert!(
        message.contains("\"u.ident\", which the result does not have.")
            && message.contains("u.id, u.city, o.count, rank."),
        "{message}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_form_says_at_once_what_cannot_work_and_lets_a_person_mend_it() {
    let world = World::new(None).await;
    let daemon = world.daemon(&[]);
    let mut dialog = open(&daemon, &person(&["mp_email"])).await.unwrap();
    dialog.fill("environment", "development").await.unwrap();
    dialog.fill("data_type", "user_data").await.unwrap();
    assert!(!names(&dialog).contains(&"audience_attribute"));
    dialog.fill("only_changes", "yes").await.unwrap();
    dialog.fill("audience_attribute", "VIP").await.unwrap();
    assert_eq!(dialog.error(), None);
    let saved = dialog.save().unwrap();

    dialog.fill("data_type", "event_data").await.unwrap();
    let said = dialog.error().unwrap();
    assert!(said.contains("works for User Profiles only"), "{said}");
    assert!(matches!(dialog.save(), Err(DialogError::Said(_))));
    dialog.fill("only_changes", "no").await.unwrap();
    let said = dialog.error().unwrap();
    assert!(said.contains("needs \"Send Only Changes\""), "{said}");
    dialog.fill("audience_attribute", "").await.unwrap();
    // Text is looked at when the form is asked for again.
    dialog.fill("data_type", "event_data").await.unwrap();
    assert_eq!(dialog.error(), None);
    assert!(!names(&dialog).contains(&"only_changes"));
    dialog.save().unwrap();

    // A schedule that is opened again is as it was saved.
    let again = Person {
        saved: saved.clone(),
        ..person(&["mp_email"])
    };
    let dialog = open(&daemon, &again).await.unwrap();
    assert_eq!(dialog.save().unwrap(), saved);
}

#[tokio::test(flavor = "multi_thread")]
async fn each_team_brings_its_own_account_by_user_attributes() {
    let world = World::new(None).await;
    let settings = [
        ("ACTION__API_KEY_ATTRIBUTE", "mp_key"),
        ("ACTION__API_SECRET_ATTRIBUTE", "mp_secret"),
        ("ACTION__FORM", "plain"),
    ];
    let daemon = world.daemon(&settings);
    let with = |attributes: &[(&str, &str)]| Person {
        user_attributes: map(attributes),
        ..person(&["mp_email"])
    };
    let half = open(&daemon, &with(&[("mp_key", "theirs")]))
        .await
        .unwrap_err();
    assert!(matches!(half, DialogError::NotOffered(_)), "{half}");
    let document = json!({
        "fields": {"dimensions": [{"name": "u.mail", "tags": ["mp_email"]}]},
        "data": [{"u.mail": {"value": "a@b.c"}}],
    });
    for team in ["north", "south"] {
        let attributes = [("mp_key", team), ("mp_secret", "s")];
        let mut dialog = open(&daemon, &with(&attributes)).await.unwrap();
        assert_eq!(names(&dialog), ["data_type", "environment"]);
        dialog.fill("data_type", "user_data").await.unwrap();
        dialog.fill("environment", "development").await.unwrap();
        let (done, message) = deliver(&world, &daemon, &dialog, &document).await;
        assert!(done, "{message}");
    }
    let deliveries = daemon.settled().await;
    let mut destinations: Vec<_> = deliveries
        .iter()
        .map(|delivery| &delivery.destination)
        .collect();
    destinations.sort();
    destinations.dedup();
    assert_eq!(destinations.len(), 2, "{deliveries:?}");
}
