//! Looker's stand-in.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::Request;
use base64::Engine as _;
use http_body_util::{BodyExt, Full};
use looker_feed::looker::{
    Execute, ExecuteError, Failure, PushStyle, Shape, Source, document, execute,
};
use serde_json::{Value, json};
use tokio::task::JoinHandle;
use url::Url;

use crate::{LOCAL, Running, within};

#[tokio::test]
async fn a_download_url_gives_the_document_once() {
    let (running, publisher) = Running::looker().await;
    let shape = Shape {
        rows: 2_000,
        users: 300,
        ..Shape::default()
    };
    let url = publisher.publish(shape.clone());
    assert_eq!(url.path().len(), "/downloads/".len() + 40);
    assert!(publisher.is_unspent(&url));
    let reply = running.send(get(&url)).await.unwrap();
    assert_eq!(reply.status, 200);
    let whole: Vec<u8> = document(&shape).flatten().collect();
    assert!(reply.body == whole);
    assert!(!publisher.is_unspent(&url));
    assert_eq!(running.send(get(&url)).await.unwrap().status, 404);

    let url = publisher.publish_bytes("{\"data\":[]}");
    assert_eq!(running.send(get(&url)).await.unwrap().body, "{\"data\":[]}");
    running.end().await;
}

#[tokio::test]
async fn downloads_go_wrong_as_asked() {
    let (running, publisher) = Running::looker().await;
    let whole = "0123456789".repeat(10);
    let (bytes, pause) = (30, Duration::from_millis(1));
    let slow = Failure::Slow { bytes, pause };
    // What the client sees: status, the bytes that came, and whether the body came to its end.
    for (failure, status, body, ends) in [
        (Failure::CutAfter(15), 200, &whole[..15], false),
        (Failure::CutAfter(0), 200, "", false),
        (Failure::EndAfter(15), 200, &whole[..15], true),
        (Failure::EndAfter(1_000), 200, &whole[..], true),
        (Failure::Empty, 200, "", true),
        (Failure::Status(500), 500, "The query failed.\n", true),
        (slow, 200, &whole[..], true),
    ] {
        let url = publisher.publish_failing(whole.clone(), failure.clone());
        let response = within(running.client.request(get(&url))).await.unwrap();
        assert_eq!(response.status().as_u16(), status, "{failure:?}");
        let (received, ended) = within(read(response.into_body())).await;
        let want = (body.as_bytes(), ends);
        assert_eq!((&received[..], ended), want, "{failure:?}");
    }
    let url = publisher.publish_failing("", Failure::Html);
    let reply = running.send(get(&url)).await.unwrap();
    assert_eq!((reply.status, &reply.body[..9]), (200, &b"<!DOCTYPE"[..]));
    running.end().await;
}

fn get(url: &Url) -> hyper::Request<Full<Bytes>> {
    hyper::Request::get(url.as_str())
        .body(Full::default())
        .unwrap()
}

async fn read(mut body: hyper::body::Incoming) -> (Vec<u8>, bool) {
    let mut received = Vec::new();
    while let Some(frame) = body.frame().await {
        match frame {
            Ok(frame) => received.extend_from_slice(&frame.into_data().unwrap_or_default()),
            Err(_) => return (received, false),
        }
    }
    (received, true)
}

#[tokio::test]
async fn a_stalled_download_says_no_more_and_is_cut_at_shutdown() {
    let (running, publisher) = Running::looker().await;
    let url = publisher.publish_failing("0123456789", Failure::StallAfter(4));
    let response = within(running.client.request(get(&url))).await;
    let mut body = response.unwrap().into_body();
    let first = within(body.frame()).await.unwrap().unwrap();
    assert_eq!(first.into_data().unwrap(), "0123");
    let (_, last) = tokio::join!(running.end(), within(body.frame()));
    assert!(last.is_some_and(|frame| frame.is_err()));
}

/// What a hub got to see of a call.
#[derive(Clone, Debug, Default)]
struct Seen {
    headers: axum::http::HeaderMap,
    path: String,
    body: Bytes,
}

/// A hub that notes the call and answers with this body.
async fn hub(status: u16, answer: &'static str) -> (Url, Arc<Mutex<Seen>>, JoinHandle<()>) {
    let seen = Arc::<Mutex<Seen>>::default();
    let noted = Arc::clone(&seen);
    let app = axum::Router::new().fallback(move |request: Request| async move {
        let (parts, body) = request.into_parts();
        let body = axum::body::to_bytes(body, usize::MAX).await.unwrap();
        *noted.lock().unwrap() = Seen {
            headers: parts.headers,
            path: parts.uri.path().to_owned(),
            body,
        };
        let answer = Body::new(Full::from(answer));
        axum::http::Response::builder()
            .status(status)
            .body(answer)
            .unwrap()
    });
    let listener = tokio::net::TcpListener::bind(LOCAL).await.unwrap();
    let url = format!("http://{}/base/", listener.local_addr().unwrap());
    let server = tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
    (Url::parse(&url).unwrap(), seen, server)
}

#[tokio::test]
async fn execute_calls_a_hub_as_looker_does() {
    let answer = "\n\n{\"looker\":{\"success\":false,\"message\":\"No rows.\"}}";
    let (url, seen, server) = hub(200, answer).await;
    let download = Url::parse("http://127.0.0.1:9/downloads/x").unwrap();
    let call = Execute::new(Source::Url(download.clone()), "key", "secret");
    let id = call.webhook_id.clone();
    let answer = within(execute(&url, "nonce/hash", call)).await.unwrap();
    assert_eq!((answer.status, answer.newlines), (200, 2));
    assert!(!answer.is_success());
    assert_eq!(answer.message().as_deref(), Some("No rows."));

    let seen = seen.lock().unwrap().clone();
    assert_eq!(seen.path, "/base/actions/mparticle/execute");
    for (name, value) in [
        ("authorization", "Token token=\"nonce/hash\""),
        ("user-agent", "LookerOutgoingWebhook/7.3.0"),
        ("transfer-encoding", "chunked"),
        ("x-looker-webhook-id", &*id),
        ("content-type", "application/json"),
    ] {
        assert_eq!(seen.headers[name], value);
    }
    let body: Value = serde_json::from_slice(&seen.body).unwrap();
    assert_eq!(body["scheduled_plan"]["download_url"], download.as_str());
    let data = json!({"apiKey": "key", "apiSecret": "secret"});
    assert_eq!(body["data"], data);
    let form = json!({"data_type": "event_data", "environment": "development"});
    assert_eq!(body["form_params"], form);
    server.abort();
}

#[tokio::test]
async fn execute_pushes_large_documents_in_all_three_styles() {
    let shape = Shape {
        rows: 3_000,
        ..Shape::default()
    };
    let whole: Vec<u8> = document(&shape).flatten().collect();
    let whole = String::from_utf8(whole).unwrap();
    let (url, seen, server) = hub(200, "{\"looker\":{\"success\":true}}").await;
    use PushStyle::{Base64, EscapedString, InlineJson};
    for style in [EscapedString, InlineJson, Base64] {
        let source = Source::Push(style, Box::new(document(&shape)));
        let call = Execute::new(source, "k", "s");
        let answer = within(execute(&url, "t", call)).await.unwrap();
        assert!(answer.is_success(), "{answer:?}");
        let body = seen.lock().unwrap().body.clone();
        if style == PushStyle::InlineJson {
            assert!(std::str::from_utf8(&body).unwrap().contains(&whole));
        }
        let body: Value = serde_json::from_slice(&body).unwrap();
        let data = &body["attachment"]["data"];
        match style {
            PushStyle::EscapedString => assert!(data == &whole),
            PushStyle::InlineJson => assert_eq!(data["data"].as_array().unwrap().len(), 3_000),
            PushStyle::Base64 => {
                let joined: String = data.as_str().unwrap().lines().collect();
                let engine = base64::engine::general_purpose::STANDARD;
                assert!(engine.decode(joined).unwrap() == whole.as_bytes());
            }
        }
    }
    server.abort();
}

#[tokio::test]
async fn execute_tells_a_failure_from_no_answer() {
    let (url, _, server) = hub(403, "{\"success\":false}").await;
    let call = || Execute::new(Source::Nothing, "k", "s");
    let answer = within(execute(&url, "t", call())).await.unwrap();
    assert_eq!(answer.status, 403);
    assert!(!answer.is_success());
    server.abort();

    // A port that was free a moment ago and that nobody listens on.
    let gone = tokio::net::TcpListener::bind(LOCAL).await.unwrap();
    let url = Url::parse(&format!("http://{}/", gone.local_addr().unwrap())).unwrap();
    drop(gone);
    let error = within(execute(&url, "t", call())).await.unwrap_err();
    assert!(matches!(error, ExecuteError::Connect(_)), "{error:?}");

    let error = within(execute(&url, "a\nb", call())).await.unwrap_err();
    assert!(matches!(error, ExecuteError::Request(_)), "{error:?}");
    let silent = tokio::net::TcpListener::bind(LOCAL).await.unwrap();
    let url = Url::parse(&format!("http://{}/", silent.local_addr().unwrap())).unwrap();
    let mut call = call();
    call.timeout = Duration::from_millis(20);
    let error = within(execute(&url, "t", call)).await.unwrap_err();
    assert!(matches!(error, ExecuteError::Timeout), "{error:?}");
}
