//! What the hub says of itself, and to whom.

use bytes::Bytes;
use serde_json::{Value, json};
use tokio::io::AsyncReadExt;

use super::support::*;

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
        "required_fields": [],
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
    let request = feed.request(method, path).body(body.into()).unwrap();
    let response = feed.send(request).await;
    assert_eq!(response.status(), 200);
    assert_eq!(response.headers()["content-type"], "application/json");
    serde_json::from_str(&text(response).await).unwrap()
}

#[tokio::test]
async fn the_listing_and_the_action_are_as_lookers_own_hub_has_them() {
    let feed = feed(Script::default()).await;
    let base = format!("http://{}", feed.address);
    for method in ["POST", "GET"] {
        let found = ask(&feed, method, "/actions/mparticle").await;
        let icon = &found["icon_data_uri"];
        assert!(
            icon.as_str()
                .unwrap()
                .starts_with("data:image/svg+xml;base64,")
        );
        let expect = action(&base, "json_detail_lite_stream", icon);
        assert_eq!(found, expect);
        let listing = ask(&feed, method, "/").await;
        assert_eq!(
            listing,
            json!({"label": "looker-feed", "integrations": [expect]})
        );
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
    assert_eq!(
        listing["integrations"][0]["url"],
        "https://feed.example.com/hub/actions/mparticle/execute"
    );
}

#[tokio::test]
async fn an_old_looker_is_offered_the_older_format() {
    let feed = feed(Script::default()).await;
    for (agent, format) in [
        (
            Some("LookerOutgoingWebhook/7.3.00004561"),
            "json_detail_lite_stream",
        ),
        (Some("LookerOutgoingWebhook/6.1.9"), "json_detail"),
        (None, "json_detail"),
    ] {
        let mut request = feed
            .request("POST", "/actions/mparticle")
            .body(Bytes::new())
            .unwrap();
        request.headers_mut().remove("user-agent");
        if let Some(agent) = agent {
            request
                .headers_mut()
                .insert("user-agent", agent.parse().unwrap());
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
             "type": "select", "required": true,
             "options": [option("user_data", "User Profiles"), option("event_data", "Events")]},
            {"name": "environment", "label": "Environment",
             "description": "Specify environment to send to: Test/Development or Production",
             "type": "select", "required": true,
             "options": [option("production", "Production"), option("development", "Test/Development")]},
            {"name": "skip_sent", "label": "Skip Events Already Sent",
             "description": "Events that an earlier delivery has brought do not arrive again, although the rows come again. Needs a column tagged mp_timestamp_unixtime_ms or mp_event_id. Sends one event a batch, which takes longer.",
             "type": "select", "required": false, "default": "no",
             "options": [option("no", "No"), option("yes", "Yes")]},
            {"name": "null_attributes", "label": "Null Attributes",
             "description": "What to send for an attribute that is null",
             "type": "select", "required": false, "default": "configured",
             "options": [option("configured", "As configured"), option("omit", "Leave them out"),
                         option("null", "Send null"), option("delete", "Delete the user attribute")]},
            {"name": "untagged", "label": "Columns Without a Tag",
             "description": "What to do with columns that have no mp_ tag in LookML",
             "type": "select", "required": false, "default": "configured",
             "options": [option("configured", "As configured"), option("ignore", "Do not send them"),
                         option("user_attribute", "Send them as user attributes (User Profiles only)")]},
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
             "type": "select", "required": false, "default": "configured",
             "options": [option("configured", "As configured"), option("us1", "US1"), option("us2", "US2"),
                         option("eu1", "EU1"), option("au1", "AU1")]},
            {"name": "plan_id", "label": "Data Plan ID",
             "description": "The mParticle data plan to check against", "type": "string", "required": false},
            {"name": "plan_version", "label": "Data Plan Version",
             "description": "A whole number; without it, the latest", "type": "string", "required": false},
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

#[tokio::test]
async fn the_status_needs_no_key_and_tells_whether_deliveries_are_taken() {
    let feed = feed(Script::default()).await;
    for full in [None, Some("The outbox is full.")] {
        *feed.script.full.lock().unwrap() = full;
        let mut request = feed.request("GET", "/status").body(Bytes::new()).unwrap();
        request.headers_mut().remove("authorization");
        let status: Value = serde_json::from_str(&text(feed.send(request).await).await).unwrap();
        let version = env!("CARGO_PKG_VERSION");
        assert_eq!(
            status,
            json!({"name": "looker-feed", "version": version, "ready": full.is_none()})
        );
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
                request
                    .headers_mut()
                    .insert("authorization", value.parse().unwrap());
            }
            let response = feed.send(request).await;
            assert_eq!(response.status(), 403, "{path} {value:?}");
            assert_eq!(
                text(response).await,
                r#"{"error":"Invalid 'Authorization' header.","success":false}"#
            );
        }
    }
    let feed = feed(Script::default()).await;
    // Two of them: a proxy may look at one and the hub at the other.
    let two = feed
        .request("POST", "/")
        .header("authorization", "Token token=\"a/b\"")
        .body(Bytes::new())
        .unwrap();
    assert_eq!(feed.send(two).await.status(), 403);
    let bytes = feed
        .request("POST", "/")
        .header("authorization", &b"Token \xff"[..])
        .body(Bytes::new())
        .unwrap();
    assert_eq!(feed.send(bytes).await.status(), 403);
}

#[tokio::test]
async fn the_key_is_checked_before_the_body_is_read() {
    let mut feed = feed(Script::default()).await;
    feed.key = "wrong/key".to_owned();
    let mut stream = feed
        .raw_execute("transfer-encoding: chunked\r\nexpect: 100-continue\r\n")
        .await;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
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
