//! Every field of Looker's form can be tried from the command line, with the same effect.

mod support;

use serde_json::{Value, json};
use support::form::{arrived, document};
use support::{Daemon, SECRET, World, run};

const COLUMNS: [(&str, &str); 4] = [
    ("e.user", "mp_customer_id"),
    ("e.at", "mp_timestamp_unixtime_ms"),
    ("e.note", "mp_custom_attribute"),
    ("e.none", "mp_custom_attribute"),
];

/// Two old events and one of the far future, which stays young.
fn written(home: &std::path::Path) -> String {
    let row = |user: &str, at: i64| vec![json!(user), json!(at), json!("<b>x</b>"), Value::Null];
    let rows = [
        row("a", 1_500_000_000_000),
        row("a", 1_500_000_000_001),
        row("a", 4_000_000_000_000),
    ];
    let path = home.join("document.json");
    let text = document("UTC", &COLUMNS, &rows).to_string();
    std::fs::write(&path, text).expect("a file");
    path.display().to_string()
}

/// Fields that only a schedule can use.
const OF_A_SCHEDULE: [&str; 4] = [
    "only_changes",
    "full_refresh_days",
    "audience_attribute",
    "audience_may_leave",
];

fn preview(file: &str, arguments: &[&str]) -> Value {
    let all = [&["preview", file, "--json"], arguments].concat();
    let (code, out, err) = run(&all, &[]);
    assert_eq!(code, Some(0), "{err}");
    serde_json::from_str(&out).expect("one JSON object")
}

#[tokio::test(flavor = "multi_thread")]
async fn each_field_of_the_form_is_an_argument_of_preview_and_of_send() {
    let world = World::new(None).await;
    let home = tempfile::tempdir().unwrap();
    let daemon = Daemon::start(home.path(), &world.endpoint, &[]);
    let token = looker_feed::intake::new_key(&looker_feed::config::Secret::new(SECRET.to_owned()));
    let client = hyper_util::client::legacy::Client::builder(hyper_util::rt::TokioExecutor::new())
        .build_http::<http_body_util::Full<hyper::body::Bytes>>();
    let request = hyper::Request::post(format!("{}actions/mparticle/form", daemon.hub))
        .header(
            "authorization",
            format!("Token token=\"{}\"", token.unwrap()),
        )
        .body(http_body_util::Full::default())
        .unwrap();
    let reply = client.request(request).await.unwrap();
    let body = http_body_util::BodyExt::collect(reply.into_body())
        .await
        .unwrap();
    let form: Value = serde_json::from_slice(&body.to_bytes()).unwrap();
    let fields = form["fields"].as_array().unwrap();
    assert!(fields.len() >= 10, "{form}");
    for command in ["preview", "send"] {
        let (_, help, _) = run(&[command, "--help"], &[]);
        for field in fields {
            let name = field["name"].as_str().unwrap();
            // What a schedule delivered before is nothing that a file could have.
            if OF_A_SCHEDULE.contains(&name) {
                continue;
            }
            let argument = format!("--{}", name.replace('_', "-"));
            assert!(help.contains(&argument), "{command} {argument}");
            // And each of its options, but for those that mean "not given".
            let options = field["options"].as_array().into_iter().flatten();
            for option in options.filter(|_| !["skip_sent", "data_type"].contains(&name)) {
                let option = option["name"].as_str().unwrap();
                assert!(
                    option == "configured" || help.contains(option),
                    "{name} {option}"
                );
            }
        }
    }
}

#[test]
fn a_preview_shows_what_each_choice_does() {
    let home = tempfile::tempdir().unwrap();
    let file = written(home.path());
    let plain = preview(&file, &[]);
    let counts = &plain["counts"];
    assert_eq!(
        (&counts["events"], &counts["batches"]),
        (&json!(3), &json!(2))
    );
    assert_eq!(counts["historical_events"], 2);
    assert_eq!(counts["historical_batches"], 1);
    assert_eq!(counts["historical_requests"], 1);
    let shown = plain["first_batches"].as_array().unwrap();
    let old: Vec<_> = shown
        .iter()
        .map(|batch| batch["historical"] == true)
        .collect();
    assert_eq!(old, [true, false]);
    let (_, text, _) = run(&["preview", &file], &[]);
    assert!(
        text.contains("historical: to an address of their own, in 1 batches"),
        "{text}"
    );

    let never = preview(&file, &["--historical-events", "never", "--html", "strip"]);
    assert_eq!(never["counts"]["batches"], 1);
    assert_eq!(never["counts"]["historical_events"], 0);
    let attributes = |report: &Value| {
        report["first_batches"][0]["batch"]["events"][0]["data"]["custom_attributes"].clone()
    };
    assert_eq!(attributes(&plain), json!({"looker_e.note": "<b>x</b>"}));
    assert_eq!(attributes(&never), json!({"looker_e.note": "x"}));
    let nulls = preview(
        &file,
        &[
            "--null-attributes",
            "null",
            "--plan-id",
            "p",
            "--plan-version",
            "2",
        ],
    );
    assert_eq!(attributes(&nulls)["looker_e.none"], Value::Null);
    assert_eq!(attributes(&nulls).as_object().unwrap().len(), 2);
    let plan = &nulls["first_batches"][0]["batch"]["context"]["data_plan"];
    assert_eq!(*plan, json!({"plan_id": "p", "plan_version": 2}));
    let skip = preview(&file, &["--skip-sent"]);
    assert_eq!(skip["counts"]["batches"], 3);
    assert_eq!(skip["first_batches"].as_array().unwrap().len(), 3);
    assert_eq!(skip["first_batches"][0]["first_row"], Value::Null);

    // What the hub refuses is refused here, in its words.
    let (code, _, err) = run(&["preview", &file, "--plan-version", "2"], &[]);
    assert_eq!(code, Some(64));
    assert!(err.contains("without a data plan id"), "{err}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_sent_by_hand_is_sent_with_the_choices() {
    let world = World::new(None).await;
    let home = tempfile::tempdir().unwrap();
    let daemon = Daemon::start(home.path(), &world.endpoint, &[]);
    let file = written(home.path());
    let settings = [("INTAKE__SECRET", SECRET), ("API_SECRET", "account-secret")];
    let send = [
        "send",
        &file,
        "--api-key",
        "k",
        "--hub",
        daemon.hub.as_str(),
    ];
    let chosen = [
        "--historical-events",
        "never",
        "--html",
        "strip",
        "--null-attributes",
        "null",
    ];
    let (code, _, err) = run(&[&send[..], &chosen].concat(), &settings);
    assert_eq!(code, Some(0), "{err}");
    daemon.settled().await;
    let batches = arrived(&world);
    assert_eq!(batches.len(), 1);
    assert_eq!(
        batches[0]["events"][2]["data"]["custom_attributes"],
        json!({"looker_e.note": "x", "looker_e.none": null})
    );
    assert_eq!(world.mparticle.counts().historical_events, 0);
    // An address of one's own is never left: the daemon says so.
    let (code, _, err) = run(&[&send[..], &["--pod", "eu1"]].concat(), &settings);
    assert_eq!(code, Some(1));
    assert!(err.contains("one fixed address"), "{err}");
}
