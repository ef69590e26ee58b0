//! Every field of Looker's form can be tried from the command line, with the same effect.

mod support;

use looker_feed::clock::UnixMillis;
use serde_json::{Value, json};
use support::form::{arrived, document};
use support::{Daemon, SECRET, World, run};

const COLUMNS: [(&str, &str); 4] = [
    ("e.user", "mp_customer_id"),
    ("e.at", "mp_timestamp_unixtime_ms"),
    ("e.note", "mp_custom_attribute"),
    ("e.none", "mp_custom_attribute"),
];

/// Two old events and one of this moment.
fn written(home: &std::path::Path) -> String {
    let row = |user: &str, at: i64| vec![json!(user), json!(at), json!("<b>x</b>"), Value::Null];
    let rows = [
        row("a", 1_500_000_000_000),
        row("a", 1_500_000_000_001),
        row("a", UnixMillis::now().0 as i64),
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
    let daemon = world.daemon(&[]);
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

#[test]
fn a_result_without_any_tag_is_sent_by_more_columns() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../shared/data/looker");
    let file = format!("{folder}/lite_stream_183_rows.json");
    if !std::path::Path::new(&file).exists() {
        return eprintln!("skipped: no captured stream at {file}");
    }
    let (code, _, err) = run(&["preview", &file], &[]);
    assert_eq!(code, Some(1));
    assert!(err.contains("\"More Columns\""), "{err}");
    let columns = [
        "--more-columns",
        "order_items.created_week: mp_customer_id",
        "--more-columns",
        "order_items.total_sale_price: mp_custom_attribute",
    ];
    let report = preview(&file, &columns);
    assert_eq!(report["counts"]["events"], 183);
    assert_eq!(report["counts"]["rejected_rows"], 0);
    assert_eq!(
        report["columns"][1]["goes_to"],
        "events[].data.custom_attributes.\"looker_order_items.total_sale_price\""
    );
    let batch = &report["first_batches"][0]["batch"];
    assert_eq!(batch["user_identities"]["customer_id"], "2022-12-26");

    let first = ["--more-columns", columns[1]];
    let untagged = preview(
        &file,
        &[&first[..], &["--untagged", "event_attribute"]].concat(),
    );
    assert_eq!(untagged["first_batches"], report["first_batches"]);

    for (columns, want, code) in [
        (
            "order_items.created_wek: mp_customer_id",
            "Did you mean order_items.created_week?",
            1,
        ),
        (
            "order_items.created_week: mp_customerid",
            "Did you mean mp_customer_id?",
            64,
        ),
        (
            "order_items.created_week",
            "is not a column and its tag",
            64,
        ),
    ] {
        let (ended, _, err) = run(&["preview", &file, "--more-columns", columns], &[]);
        assert_eq!(ended, Some(code), "{err}");
        assert!(err.contains(want), "{err}");
    }
    let arguments = [
        "preview",
        &file,
        "--data-type",
        "user",
        "--more-columns",
        columns[3],
    ];
    let (ended, _, err) = run(&arguments, &[]);
    assert_eq!(ended, Some(64));
    assert!(err.contains("which is for Events"), "{err}");
}

#[test]
fn a_preview_shows_where_pivoted_measures_go() {
    let home = tempfile::tempdir().unwrap();
    let file = home.path().join("pivoted.json");
    let document = json!({
        "fields": {
            "dimensions": [{"name": "u.id", "tags": ["mp_customer_id"]}],
            "measures": [{"name": "o.count", "tags": ["mp_user_attribute"]}],
            "pivots": [{"name": "o.month"}],
        },
        "data": [
            {"u.id": {"value": 1}, "o.count": {"2026-01": {"value": 3}, "2026-02": {"value": null}}},
            {"u.id": {"value": 2}, "o.count": {"2026-01": {"value": 1}, "2026-02": {"value": 2.5}}},
        ],
    });
    std::fs::write(&file, document.to_string()).unwrap();
    let file = file.display().to_string();
    let (code, _, err) = run(&["preview", &file], &[]);
    assert_eq!(code, Some(1));
    assert!(
        err.contains("pivots on o.month") && err.contains("Pivoted Measures"),
        "{err}"
    );
    let attributes = |choice| {
        let arguments = ["--data-type", "user", "--pivoted-measures", choice];
        let report = preview(&file, &arguments);
        let mut all: Vec<_> = report["first_batches"]
            .as_array()
            .unwrap()
            .iter()
            .map(|first| {
                (
                    first["batch"]["user_identities"]["customer_id"].to_string(),
                    first["batch"]["user_attributes"].clone(),
                )
            })
            .collect();
        all.sort_by(|(a, _), (b, _)| a.cmp(b));
        (
            all,
            report["columns"][1]["goes_to"].as_str().unwrap().to_owned(),
        )
    };
    let (all, goes_to) = attributes("attributes");
    assert_eq!(goes_to, "user_attributes.\"looker_o.count.<pivot value>\"");
    assert_eq!(all[0].1, json!({"looker_o.count.2026-01": 3}));
    assert_eq!(
        all[1].1,
        json!({"looker_o.count.2026-01": 1, "looker_o.count.2026-02": 2.5})
    );
    let (all, goes_to) = attributes("json");
    assert_eq!(goes_to, "user_attributes.\"looker_o.count\"");
    assert_eq!(all[0].1, json!({"looker_o.count": "{\"2026-01\":3}"}));
    assert_eq!(
        all[1].1,
        json!({"looker_o.count": "{\"2026-01\":1,\"2026-02\":2.5}"})
    );
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
