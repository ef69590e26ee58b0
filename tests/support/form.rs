//! Documents with tagged columns, and schedules with a form, as Looker sends them.

use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use looker_feed::config::Secret;
use looker_feed::intake;
use serde_json::{Map, Value, json};

use super::{Daemon, SECRET, World};

/// A document with these columns, each a name and a tag, and rows of plain values.
pub fn document(timezone: &str, columns: &[(&str, &str)], rows: &[Vec<Value>]) -> Value {
    let fields: Vec<_> = columns
        .iter()
        .map(|(name, tag)| json!({"name": name, "tags": [tag]}))
        .collect();
    let data: Vec<Value> = rows
        .iter()
        .map(|row| {
            let cells = columns.iter().zip(row);
            let cells =
                cells.map(|((name, _), value)| ((*name).to_owned(), json!({"value": value})));
            cells.collect::<Map<_, _>>().into()
        })
        .collect();
    json!({"timezone": timezone, "fields": {"dimensions": fields}, "data": data})
}

/// Has Looker execute a delivery with this form; whether Looker takes it for delivered, and the
/// message.
pub async fn execute(
    world: &World,
    daemon: &Daemon,
    document: String,
    form: Value,
) -> (bool, String) {
    let url = world.looker.publish_bytes(document);
    let body = json!({
        "type": "query",
        "scheduled_plan": {"scheduled_plan_id": 7, "title": "More", "download_url": url.as_str()},
        "attachment": null,
        "data": {"apiKey": "key-of-the-account", "apiSecret": "secret-of-it"},
        "form_params": form,
    });
    let token = intake::new_key(&Secret::new(SECRET.to_owned())).expect("random bytes");
    let request = hyper::Request::post(format!("{}actions/mparticle/execute", daemon.hub))
        .header("authorization", format!("Token token=\"{token}\""))
        .header("content-type", "application/json")
        .header(
            "x-looker-webhook-id",
            format!("{:032x}", fastrand::u128(..)),
        )
        .body(Full::new(Bytes::from(body.to_string())))
        .expect("a request");
    let client = Client::builder(TokioExecutor::new()).build_http::<Full<Bytes>>();
    let reply = client.request(request).await.expect("the hub answers");
    assert_eq!(reply.status(), 200);
    let body = reply.into_body().collect().await.expect("a whole answer");
    let answer: Value = serde_json::from_slice(&body.to_bytes()).expect("JSON");
    let message = answer["looker"]["message"].as_str().unwrap_or_default();
    (answer["looker"]["success"] == true, message.to_owned())
}

/// What Looker sends of a filled-in form.
pub fn form(data_type: &str, more: Value) -> Value {
    let mut form = json!({"data_type": data_type, "environment": "development"});
    let members = form.as_object_mut().expect("an object");
    members.extend(more.as_object().cloned().expect("an object"));
    form
}

/// What mParticle accepted, read.
pub fn arrived(world: &World) -> Vec<Value> {
    let batches = world.batches();
    let parse = |batch: &Bytes| serde_json::from_slice(batch).expect("a batch is JSON");
    batches.iter().map(parse).collect()
}
