//! What the hub says of itself, and to whom.

use super::support::*;
use bytes::Bytes;
use looker_feed::config::FormKind;
use serde_json::{Value, json};

fn action(base: &str, format: &str, icon: &Value) -> Value {
    json!({
        "name": "mparticle",
        "label": "mParticle",
        "description": "Send user or event data from Looker to mParticle.",
        "form_url": format!("{base}/actions/mparticle/form"),
        "url": format!("{base}/actions/mparticle/execute"),
        "token_url": "",
        "icon_data_uri": icon,
        "params": [
            {"name": "apiKey", "label": "API Key", "description": "API Key for mParticle", "required": true, "sensitive": false},
            {"name": "apiSecret", "label": "API Secret", "description": "API Secret for mParticle", "required": true, "sensitive": true},
        ],
        "required_fields": [{"any_tag": [
            "mp_customer_id", "mp_email", "mp_facebook", "mp_google", "mp_microsoft", "mp_twitter",
            "mp_yahoo", "mp_other", "mp_other2", "mp_other3", "mp_other4", "mp_other5", "mp_other6",
            "mp_other7", "mp_other8", "mp_other9", "mp_other10", "mp_mobile_number",
            "mp_phone_number_2", "mp_phone_number_3", "mp_alias", "mp_mpid",
        ]}],
        "supported_action_types": ["query"],
        "uses_oauth": false,
        "delegate_oauth": false,
        "supported_formats": [format],
        "supported_formattings": ["unformatted"],
        "supported_visualization_formattings": ["noapply"],
        "supported_download_settings": ["url"],
    })
}

async fn ask(feed: &Feed, method: &str, path: &str) -> Value {
    let body = json!({"type": "query", "data": {"apiKey": "x"}}).to_string();
    feed.ask(method, path, body).await
}

#[tokio::test]
async fn the_listing_and_the_action_are_as_lookers_own_hub_has_them() {
    let feed = feed(Script::default()).await;
    let base = format!("http://{}", feed.address);
    for method in ["POST", "GET"] {
        let found = ask(&feed, method, "/actions/mparticle").await;
        let icon = &found["icon_data_uri"];
        let text = icon.as_str().unwrap();
        assert!(text.starts_with("data:image/svg+xml;base64,"));
        let expect = action(&base, "json_detail_lite_stream", icon);
        assert_eq!(found, expect);
        let listing = json!({"label": "looker-feed", "integrations": [expect]});
        assert_eq!(ask(&feed, method, "/").await, listing);
    }
}

#[tokio::test]
async fn a_base_url_and_a_label_of_ones_own_are_passed_on() {
    let feed = feed_with(Script::default(), |settings| {
        settings.intake.base_url = Some("https://feed.example.com/hub/".parse().unwrap());
        settings.intake.label = "Ours".to_owned();
    })
    .await;
    let listing = ask(&feed, "POST", "/").await;
    assert_eq!(listing["label"], "Ours");
    let url = "https://feed.example.com/hub/actions/mparticle/execute";
    assert_eq!(listing["integrations"][0]["url"], url);
}

#[tokio::test]
async fn an_old_looker_is_offered_the_older_format() {
    let feed = feed(Script::default()).await;
    for (version, format) in [
        (Some("7.3.00004561"), "json_detail_lite_stream"),
        (Some("6.1.9"), "json_detail"),
        (None, "json_detail"),
    ] {
        let request = feed.request("POST", "/actions/mparticle");
        let mut request = request.body(Bytes::new()).unwrap();
        request.headers_mut().remove("user-agent");
        let agent = version.map(|version| format!("LookerOutgoingWebhook/{version}"));
        if let Some(agent) = &agent {
            let agent = agent.parse().unwrap();
            request.headers_mut().insert("user-agent", agent);
        }
        let found: Value = serde_json::from_str(&text(feed.send(request).await).await).unwrap();
        assert_eq!(found["supported_formats"], json!([format]), "{agent:?}");
    }
}

#[tokio::test]
async fn the_form_asks_for_data_type_and_environment_and_offers_more() {
    let feed = feed(Script::default()).await;
    let form = ask(&feed, "POST", "/actions/mparticle/form").await;
    let option = |name: &str, label: &str| json!({"name": name, "label": label});
    assert_eq!(
        form,
        json!({"fields": [
            {"name": "data_type", "label": "Data Type", "description": "Specify data type: User Profiles or Events",
             "type": "select", "required": true, "interactive": true,
             "options": [option("user_data", "User Profiles"), option("event_data", "Events")]},
            {"name": "environment", "label": "Environment",
             "description": "Specify environment to send to: Test/Development or Production",
             "type": "select", "required": true,
             "options": [option("production", "Production"), option("development", "Test/Development")]},
            {"name": "skip_sent", "label": "Skip Events Already Sent",
             "description": "Events that an earlier delivery has brought do not arrive again, although the rows come again. Needs a column tagged mp_timestamp_unixtime_ms or mp_event_id. Sends one event a batch, which takes longer.",
             "type": "select", "required": false, "default": "no",
             "options": [option("no", "No"), option("yes", "Yes")]},
            {"name": "only_changes", "label": "Send Only Changes",
             "description": "User Profiles only: users who are as they were in the last delivery of this schedule are not sent again. Needs a schedule; its first delivery sends all.",
             "type": "select", "required": false, "default": "no", "interactive": true,
             "options": [option("no", "No"), option("yes", "Yes")]},
            {"name": "full_refresh_days", "label": "Full Refresh (Days)",
             "description": "With Send Only Changes: after so many days all users are sent again; empty: as configured",
             "type": "string", "required": false, "default": ""},
            {"name": "audience_attribute", "label": "Audience Attribute",
             "description": "With Send Only Changes: a user attribute that is true for the users of the result, and set to false for users who are not in it any more",
             "type": "string", "required": false, "default": ""},
            {"name": "audience_may_leave", "label": "Users Who May Leave",
             "description": "How many users of an audience may leave with one delivery before it is refused as a mistake",
             "type": "select", "required": false, "default": "configured",
             "options": [option("configured", "As configured"), option("any", "Any number")]},
            {"name": "more_columns", "label": "More Columns",
             "description": "Columns to send that have no tag in LookML, or another one, such as table calculations and custom fields: one \"column: tag\" a line, for example \"calculation_1: mp_user_attribute\". A column is called as in the result's JSON: view.field, a calculation by its name.",
             "type": "textarea", "required": false, "default": ""},
            {"name": "untagged", "label": "Columns Without a Tag",
             "description": "What to do with columns that have no mp_ tag in LookML",
             "type": "select", "required": false, "default": "configured",
             "options": [option("configured", "As configured"), option("ignore", "Do not send them"),
                         option("user_attribute", "Send them as user attributes (User Profiles only)"),
                         option("event_attribute", "Send them as event attributes (Events only)")]},
            {"name": "pivoted_measures", "label": "Pivoted Measures",
             "description": "What to do with a measure that is to be an attribute, in a query with pivots, where each row holds several values of it",
             "type": "select", "required": false, "default": "configured",
             "options": [option("configured", "As configured"), option("refuse", "Refuse the delivery"),
                         option("attributes", "Send an attribute for each pivot value"),
                         option("json", "Send one attribute, the text of a JSON object")]},
            {"name": "null_attributes", "label": "Null Attributes",
             "description": "What to send for an attribute that is null",
             "type": "select", "required": false, "default": "configured",
             "options": [option("configured", "As configured"), option("omit", "Leave them out"),
                         option("null", "Send null"), option("delete", "Delete the user attribute")]},
            {"name": "attribute_types", "label": "Attribute Types",
             "description": "Whether attributes are sent by the type of their column in Looker: yesno as true and false, times as ISO 8601, numbers as numbers",
             "type": "select", "required": false, "default": "configured",
             "options": [option("configured", "As configured"), option("as_is", "As Looker wrote them"),
                         option("typed", "By the type of their column")]},
            {"name": "html", "label": "HTML in Values",
             "description": "What to do with values that hold HTML",
             "type": "select", "required": false, "default": "configured",
             "options": [option("configured", "As configured"), option("keep", "Send it as it is"),
                         option("strip", "Send its text only")]},
            {"name": "historical_events", "label": "Historical Events",
             "description": "mParticle takes events older than 30 days at an address of their own",
             "type": "select", "required": false, "default": "configured",
             "options": [option("configured", "As configured"),
                         option("auto", "Events older than 30 days are sent as historical ones"),
                         option("never", "No event is"),
                         option("always", "All events are; those younger than 73 hours are rejected")]},
            {"name": "pod", "label": "Data Center", "description": "The mParticle pod to send to",
             "type": "select", "required": false, "default": "configured", "interactive": true,
             "options": [option("configured", "As configured"), option("us1", "US1"), option("us2", "US2"),
                         option("eu1", "EU1"), option("au1", "AU1")]},
            {"name": "plan_id", "label": "Data Plan ID",
             "description": "The mParticle data plan to check against", "type": "string", "required": false, "default": ""},
            {"name": "plan_version", "label": "Data Plan Version",
             "description": "A whole number; without it, the latest", "type": "string", "required": false, "default": ""},
        ]})
    );
    // Nobody has to fill in more than Looker's own action asks for.
    let required = form["fields"].as_array().unwrap().iter();
    let required: Vec<_> = required
        .filter(|field| field["required"] == true)
        .map(|field| field["name"].as_str().unwrap())
        .collect();
    assert_eq!(required, ["data_type", "environment"]);
}

/// The form as Looker asks for it when these fields are filled in.
async fn filled(feed: &Feed, form_params: Value) -> Value {
    let body = json!({"type": "query", "data": {"apiKey": "k", "apiSecret": "s"}, "form_params": form_params});
    feed.ask("POST", FORM, body.to_string()).await
}

const FORM: &str = "/actions/mparticle/form";

fn names(form: &Value) -> Vec<&str> {
    let fields = form["fields"].as_array().unwrap().iter();
    fields
        .map(|field| field["name"].as_str().unwrap())
        .collect()
}

fn field<'a>(form: &'a Value, name: &str) -> &'a Value {
    let mut fields = form["fields"].as_array().unwrap().iter();
    fields.find(|field| field["name"] == name).unwrap()
}

#[tokio::test]
async fn the_form_shows_what_matters_for_the_choices_made() {
    let feed = feed(Script::default()).await;
    let before = ["data_type", "environment"];
    let after = "more_columns untagged pivoted_measures null_attributes attribute_types html";
    let last = "pod plan_id plan_version";
    let changes = "only_changes full_refresh_days audience_attribute audience_may_leave";
    let users = format!("only_changes {after} {last}");
    for (form_params, want) in [
        (json!({"data_type": "user_data"}), &users),
        (
            json!({"data_type": "user_data", "only_changes": "yes"}),
            &format!("{changes} {after} {last}"),
        ),
        (
            json!({"data_type": "event_data", "environment": "production", "plan_id": "p"}),
            &format!("skip_sent {after} historical_events {last}"),
        ),
        // What is hidden and does no harm stays hidden.
        (
            json!({"data_type": "user_data", "skip_sent": "yes", "historical_events": "never"}),
            &users,
        ),
        (
            json!({"data_type": "", "environment": null}),
            &format!("skip_sent {changes} {after} historical_events {last}"),
        ),
    ] {
        let form = filled(&feed, form_params.clone()).await;
        let want = format!("{} {want}", before.join(" "));
        assert_eq!(names(&form).join(" "), want, "{form_params}");
        assert_eq!(form.get("error"), None, "{form}");
        for field in form["fields"].as_array().unwrap() {
            let name = field["name"].as_str().unwrap();
            let description = field["description"].as_str().unwrap();
            assert!(!description.is_empty(), "{field}");
            // What was filled in so far stays; where nothing was, nothing is guessed of the first two.
            let given = form_params[name].as_str().filter(|text| !text.is_empty());
            let is_set = field["default"].is_string();
            match given {
                Some(given) => assert_eq!(field["default"], given, "{field}"),
                None => assert_eq!(is_set, !before.contains(&name), "{field}"),
            }
        }
    }
    // Each type of data has its own choices.
    for (data_type, other) in [
        ("user_data", "event_attribute"),
        ("event_data", "user_attribute"),
    ] {
        let form = filled(&feed, json!({"data_type": data_type, "untagged": other})).await;
        let untagged = field(&form, "untagged");
        let options = untagged["options"].as_array().unwrap();
        assert_eq!(options.len(), 3);
        let offered = options.iter().any(|option| option["name"] == other);
        assert!(!offered, "{untagged}");
        assert_eq!(untagged["default"], "configured");
    }
}

#[tokio::test]
async fn the_form_says_what_cannot_work_and_keeps_the_fields_to_mend_it() {
    let feed = feed(Script {
        pods: false,
        ..Script::default()
    })
    .await;
    // What was filled in, the field that is kept, and what is said.
    for case in [
        r#"{"data_type": "event_data", "only_changes": "yes"} only_changes: works for User Profiles only"#,
        r#"{"data_type": "user_data", "audience_attribute": "VIP"} audience_attribute: needs "Send Only Changes""#,
        r#"{"data_type": "user_data", "only_changes": "yes", "full_refresh_days": "weekly"} full_refresh_days: not a whole number from 1"#,
        r#"{"data_type": "user_data", "more_columns": "calc: mp_event_name"} more_columns: which is for Events, and the data type is User Profiles"#,
        r#"{"more_columns": "calc: mp_user_atribute"} more_columns: Did you mean mp_user_attribute?"#,
        r#"{"more_columns": "calc"} more_columns: Line 1 of "More Columns""#,
        r#"{"plan_version": "2"} plan_version: without a data plan id"#,
        r#"{"html": "shout"} html: Unknown choice "shout" for HTML in Values"#,
        r#"{"environment": "Production"} environment: Unknown environment"#,
        r#"{"data_type": "rows"} data_type: Unknown data type"#,
        // Said by what stands behind the hub.
        r#"{"data_type": "user_data", "pod": "eu1"} pod: one fixed address"#,
        r#"{"html": 5} html: is not what an action hub expects"#,
        r#"["user_data"] data_type: is not what an action hub expects"#,
    ] {
        let end = case.rfind(['}', ']']).unwrap() + 1;
        let form_params: Value = serde_json::from_str(&case[..end]).unwrap();
        let (kept, error) = case[end + 1..].split_once(": ").unwrap();
        let form = filled(&feed, form_params.clone()).await;
        let told = form["error"].as_str().unwrap_or_default();
        assert!(told.contains(error), "{form_params}: {form}");
        let mended = field(&form, kept);
        if mended["type"] != "select" {
            assert_eq!(mended["default"], form_params[kept]);
        }
    }
    // A field that could only be wrong is not there.
    let form = filled(&feed, json!({"data_type": "user_data"})).await;
    assert!(!names(&form).contains(&"pod"));
    for body in ["[]", "{", "nonsense", "{\"form_params\": "] {
        let form = feed.ask("POST", FORM, body).await;
        let told = form["error"].as_str().unwrap();
        assert!(told.contains("request for the form"), "{form}");
        assert!(names(&form).len() > 10);
    }
    for body in ["", " \n", "{}", "{\"form_params\": null}"] {
        let form = feed.ask("POST", FORM, body).await;
        assert_eq!(form.get("error"), None, "{body}");
    }
}

#[tokio::test]
async fn the_plain_form_and_the_listing_of_lookers_own_action_are_one_key_away_each() {
    let feed = feed_with(Script::default(), |settings| {
        settings.action.form = FormKind::Plain;
        settings.action.require_identity_tag = false;
        settings.action.api_key_attribute = Some("mp_key".to_owned());
        settings.action.api_secret_attribute = Some("mp_secret".to_owned());
    })
    .await;
    let option = |name: &str, label: &str| json!({"name": name, "label": label});
    let plain = json!({"fields": [
        {"name": "data_type", "label": "Data Type", "description": "Specify data type: User Profiles or Events",
         "type": "select", "required": true,
         "options": [option("user_data", "User Profiles"), option("event_data", "Events")]},
        {"name": "environment", "label": "Environment",
         "description": "Specify environment to send to: Test/Development or Production",
         "type": "select", "required": true,
         "options": [option("production", "Production"), option("development", "Test/Development")]},
    ]});
    let changes = json!({"data_type": "event_data", "only_changes": "yes"});
    assert_eq!(filled(&feed, changes).await, plain);
    let action = ask(&feed, "POST", "/actions/mparticle").await;
    assert_eq!(action["required_fields"], json!([]));
    let params = action["params"].as_array().unwrap().iter();
    let of =
        |param: &Value| ["name", "user_attribute_name", "required"].map(|key| param[key].clone());
    assert_eq!(
        json!(params.map(of).collect::<Vec<_>>()),
        json!([["apiKey", "mp_key", true], ["apiSecret", "mp_secret", true]])
    );
}

#[tokio::test]
async fn the_status_needs_no_key_and_tells_whether_deliveries_are_taken() {
    let feed = feed(Script::default()).await;
    for full in [None, Some("The outbox is full.")] {
        *feed.script.full.lock().unwrap() = full;
        let mut request = feed.request("GET", "/status").body(Bytes::new()).unwrap();
        request.headers_mut().remove("authorization");
        let status: Value = serde_json::from_str(&text(feed.send(request).await).await).unwrap();
        let version = env!("CARGO_PKG_VERSION");
        let want = json!({"name": "looker-feed", "version": version, "ready": full.is_none()});
        assert_eq!(status, want);
    }
}

#[tokio::test]
async fn every_other_path_needs_a_valid_key() {
    for path in [
        "/",
        "/actions/mparticle",
        "/actions/mparticle/form",
        "/actions/mparticle/execute",
    ] {
        // A hub for each path: who fails too often is answered differently.
        let feed = feed(Script::default()).await;
        let garbage = [
            None,
            Some(String::new()),
            Some("Token".to_owned()),
            Some("Token token=\"\"".to_owned()),
            Some("Token token=\"a/b\"".to_owned()),
            Some(feed.authorization().replace("Token ", "Bearer ")),
            Some(format!("{}x", feed.authorization())),
            Some("x".repeat(20_000)),
        ];
        for value in &garbage {
            let mut request = feed.request("POST", path).body(Bytes::from("{}")).unwrap();
            request.headers_mut().remove("authorization");
            if let Some(value) = value {
                let value = value.parse().unwrap();
                request.headers_mut().insert("authorization", value);
            }
            let response = feed.send(request).await;
            assert_eq!(response.status(), 403, "{path} {value:?}");
            let want = r#"{"error":"Invalid 'Authorization' header.","success":false}"#;
            assert_eq!(text(response).await, want);
        }
    }
    let feed = feed(Script::default()).await;
    // Two of them: a proxy may look at one and the hub at the other.
    for second in [&b"Token token=\"a/b\""[..], b"Token \xff"] {
        let two = feed.request("POST", "/").header("authorization", second);
        let two = two.body(Bytes::new()).unwrap();
        assert_eq!(feed.send(two).await.status(), 403);
    }
}

#[tokio::test]
async fn the_key_is_checked_before_the_body_is_read() {
    let mut feed = feed(Script::default()).await;
    feed.key = "wrong/key".to_owned();
    let headers = "transfer-encoding: chunked\r\nexpect: 100-continue\r\n";
    let answer = rest(&mut feed.raw_execute(headers).await).await;
    assert!(answer.starts_with("HTTP/1.1 403 Forbidden\r\n"), "{answer}");
}

#[tokio::test]
async fn other_paths_and_methods_are_not_there() {
    let feed = feed(Script::default()).await;
    for (method, path, status) in [
        ("POST", "/actions/other", 404),
        ("GET", "/nothing", 404),
        ("GET", "/actions/mparticle/execute", 405),
        ("DELETE", "/", 405),
    ] {
        let request = feed.request(method, path).body(Bytes::new()).unwrap();
        assert_eq!(feed.send(request).await.status(), status, "{method} {path}");
    }
}
