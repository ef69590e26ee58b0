//! The HTTP transport against servers on real sockets, well-behaved and not.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{HeaderMap, Method, Response};
use hyper_util::rt::TokioIo;
use looker_feed::drain::{Exceeded, Reply, Request, Transport};
use looker_feed::model::{DeliveryId, DestinationId};
use looker_feed::mparticle::client::{Account, AccountError, Client, ClientSettings};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::AbortHandle;
use url::Url;

/// A server that counts its connections and keeps what it was sent.
struct Server {
    address: SocketAddr,
    connections: Arc<AtomicUsize>,
    seen: Arc<Mutex<Vec<Seen>>>,
    task: AbortHandle,
}

struct Seen {
    method: Method,
    path: String,
    headers: HeaderMap,
    body: Bytes,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Server {
    async fn start(reply: impl Fn(usize) -> Response<Full<Bytes>> + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let connections = Arc::new(AtomicUsize::new(0));
        let seen = Arc::new(Mutex::new(Vec::new()));
        let (counter, log, reply) = (Arc::clone(&connections), Arc::clone(&seen), Arc::new(reply));
        let task = tokio::spawn(async move {
            let mut serving = tokio::task::JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                counter.fetch_add(1, Ordering::SeqCst);
                let (log, reply) = (Arc::clone(&log), Arc::clone(&reply));
                let service = service_fn(move |request: hyper::Request<Incoming>| {
                    let (log, reply) = (Arc::clone(&log), Arc::clone(&reply));
                    async move {
                        let (head, body) = request.into_parts();
                        let body = body.collect().await.unwrap().to_bytes();
                        let mut log = log.lock().unwrap();
                        log.push(Seen {
                            method: head.method,
                            path: head.uri.to_string(),
                            headers: head.headers,
                            body,
                        });
                        Ok::<_, Infallible>(reply(log.len()))
                    }
                });
                let server = hyper::server::conn::http1::Builder::new();
                serving.spawn(server.serve_connection(TokioIo::new(stream), service));
            }
        });
        Self {
            address,
            connections,
            seen,
            task: task.abort_handle(),
        }
    }

    fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }
}

/// A server that does what a closure does with each connection.
async fn raw<F>(serve: impl Fn(TcpStream) -> F + Send + 'static) -> SocketAddr
where
    F: Future<Output = ()> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(serve(stream));
        }
    });
    address
}

/// Answers each connection with these bytes, then leaves it open or closes it.
async fn canned(answer: &'static str, close: bool) -> SocketAddr {
    raw(move |mut stream| async move {
        let mut buffer = [0; 4096];
        let _ = stream.read(&mut buffer).await;
        let _ = stream.write_all(answer.as_bytes()).await;
        if !close {
            std::future::pending::<()>().await;
        }
    })
    .await
}

fn status(code: u16) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::default());
    *response.status_mut() = code.try_into().unwrap();
    response
}

fn client_with(request_timeout: Duration) -> Client {
    let settings = ClientSettings {
        request_timeout,
        ..ClientSettings::default()
    };
    Client::new(settings, |bytes: &[u8]| Account::decode(bytes)).unwrap()
}

fn client() -> Client {
    client_with(Duration::from_secs(30))
}

fn request(address: SocketAddr) -> Request {
    request_to(&format!("http://{address}/v2"))
}

fn request_to(endpoint: &str) -> Request {
    let endpoint = Url::parse(endpoint).unwrap();
    let account = Account::new(endpoint, "key".into(), "secret".into()).unwrap();
    Request {
        destination: DestinationId([1; 16]),
        account: account.encode().as_slice().into(),
        delivery: DeliveryId([2; 16]),
        attempt: 1,
        route: 0,
        batches: vec![Bytes::from_static(b"{\"a\":1}"), Bytes::from_static(b"{}")],
    }
}

fn accepted() -> Reply {
    Reply::Accepted { percent_used: None }
}

fn unavailable(reply: Reply) -> String {
    match reply {
        Reply::Unavailable { what, .. } => what,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn requests_are_as_documented_and_share_a_connection() {
    let server = Server::start(|_| status(202)).await;
    let client = client();
    for _ in 0..20 {
        assert_eq!(client.send(request(server.address)).await, accepted());
    }
    assert_eq!(server.connections(), 1);
    let seen = server.seen.lock().unwrap();
    assert_eq!(seen.len(), 20);
    for request in seen.iter() {
        assert_eq!(request.method, Method::POST);
        assert_eq!(request.path, "/v2/bulkevents");
        assert_eq!(request.body, "[{\"a\":1},{}]");
        let header = |name: &str| request.headers[name].to_str().unwrap();
        assert_eq!(header("content-type"), "application/json");
        assert_eq!(header("authorization"), "Basic a2V5OnNlY3JldA==");
        assert!(header("user-agent").starts_with("looker-feed/"));
        assert_eq!(header("host"), server.address.to_string());
        assert_eq!(header("content-length"), "12");
    }
}

#[tokio::test]
async fn headers_of_the_reply_are_read() {
    let server = Server::start(|count| {
        let mut response = status(if count == 1 { 202 } else { 429 });
        let headers = response.headers_mut();
        if count == 1 {
            headers.insert("X-mp-rate-limit-percentage-used", 63.into());
        } else {
            headers.insert("Retry-After", 7.into());
            let limit = "acceleration".parse().unwrap();
            headers.insert("X-mp-rate-limit-exceeded", limit);
        }
        response
    })
    .await;
    let client = client();
    let percent_used = Some(63);
    let reply = client.send(request(server.address)).await;
    assert_eq!(reply, Reply::Accepted { percent_used });
    let throttled = Reply::Throttled {
        retry_after: Some(Duration::from_secs(7)),
        exceeded: Some(Exceeded::Acceleration),
    };
    assert_eq!(client.send(request(server.address)).await, throttled);
}

#[tokio::test]
async fn a_connection_that_the_server_closed_is_replaced() {
    let server = Server::start(|_| {
        let mut response = status(202);
        let close = "close".parse().unwrap();
        response.headers_mut().insert("Connection", close);
        response
    })
    .await;
    let client = client();
    for _ in 0..5 {
        assert_eq!(client.send(request(server.address)).await, accepted());
    }
    assert_eq!(server.connections(), 5);
}

#[tokio::test]
async fn a_redirect_is_not_followed() {
    let server = Server::start(|_| {
        let mut response = status(307);
        let elsewhere = "/elsewhere".parse().unwrap();
        response.headers_mut().insert("Location", elsewhere);
        response
    })
    .await;
    let reply = client().send(request(server.address)).await;
    let is_refused = matches!(reply, Reply::Unexpected { status: 307, .. });
    assert!(is_refused, "{reply:?}");
    assert_eq!(server.seen.lock().unwrap().len(), 1);
}

#[tokio::test]
async fn a_server_that_does_not_answer_is_unavailable_after_the_timeout() {
    let address = canned("", false).await;
    let client = client_with(Duration::from_millis(200));
    let what = unavailable(client.send(request(address)).await);
    assert_eq!(what, "no answer within 200ms");
}

#[tokio::test]
async fn a_refused_connection_is_unavailable() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let what = unavailable(client().send(request(address)).await);
    let begin = "connecting failed: Connection refused";
    assert!(what.starts_with(begin), "{what}");
}

#[tokio::test]
async fn a_connection_that_breaks_before_the_status_is_unavailable() {
    for answer in ["", "HTTP/1.1 202 Acc", "HTTP/1.1 202 Accepted\r\nX: y"] {
        let address = canned(answer, true).await;
        let what = unavailable(client().send(request(address)).await);
        assert!(what.starts_with("the connection broke: "), "{what}");
    }
}

#[tokio::test]
async fn what_is_not_http_is_unavailable() {
    let address = canned("220 smtp.example ESMTP\r\n", false).await;
    let what = unavailable(client().send(request(address)).await);
    assert!(what.starts_with("the connection broke: "), "{what}");

    // A server without TLS where TLS was expected.
    let address = canned("HTTP/1.1 400 Bad Request\r\n\r\n", true).await;
    let endpoint = format!("https://localhost:{}/v2", address.port());
    let what = unavailable(client().send(request_to(&endpoint)).await);
    assert!(what.starts_with("connecting failed: "), "{what}");
}

#[tokio::test]
async fn an_accepted_request_is_accepted_even_if_the_body_never_ends_or_breaks() {
    let head = "HTTP/1.1 202 Accepted\r\nContent-Length: 100\r\n\r\npart";
    for close in [true, false] {
        let address = canned(head, close).await;
        let client = client_with(Duration::from_millis(300));
        assert_eq!(client.send(request(address)).await, accepted(), "{close}");
    }
}

#[tokio::test]
async fn an_oversized_body_is_cut() {
    let server = Server::start(|_| {
        let mut response = status(400);
        *response.body_mut() = Full::from("x".repeat(64 << 20));
        response
    })
    .await;
    let reply = client().send(request(server.address)).await;
    let Reply::Rejected { status: 400, words } = reply else {
        panic!("{reply:?}");
    };
    assert!(words.chars().count() <= 500 && words.starts_with("xxx"));
}

#[tokio::test]
async fn an_account_that_cannot_be_opened_is_unauthorized_without_a_request() {
    let server = Server::start(|_| status(202)).await;
    let damaged = |_: &[u8]| Err::<Account, _>(AccountError::Damaged);
    let client = Client::new(ClientSettings::default(), damaged).unwrap();
    let reply = client.send(request(server.address)).await;
    let words = "the stored account is damaged".to_owned();
    assert_eq!(reply, Reply::Unauthorized { status: 0, words });
    assert_eq!(server.connections(), 0);
}

#[tokio::test]
async fn an_account_is_opened_once_and_a_new_one_counts_from_the_next_request_on() {
    let server = Server::start(|_| status(202)).await;
    let opened = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&opened);
    let client = Client::new(ClientSettings::default(), move |bytes: &[u8]| {
        counter.fetch_add(1, Ordering::SeqCst);
        Account::decode(bytes)
    })
    .unwrap();
    let first = request(server.address);
    let endpoint = Url::parse(&format!("http://{}/v2", server.address)).unwrap();
    let account = Account::new(endpoint, "key".into(), "another".into()).unwrap();
    let corrected = Request {
        account: account.encode().as_slice().into(),
        ..first.clone()
    };
    let elsewhere = Request {
        destination: DestinationId([9; 16]),
        ..corrected.clone()
    };
    // Two requests each; the account that was there before counts again when it comes again.
    for request in [&first, &corrected, &elsewhere, &first] {
        for _ in 0..2 {
            assert_eq!(client.send(request.clone()).await, accepted());
        }
    }
    assert_eq!(opened.load(Ordering::SeqCst), 4);
    let seen = server.seen.lock().unwrap();
    let sent = seen.iter().map(|seen| &seen.headers["authorization"]);
    let sent: Vec<_> = sent.collect();
    // "key:secret" and "key:another"
    let (old, new) = ("Basic a2V5OnNlY3JldA==", "Basic a2V5OmFub3RoZXI=");
    assert_eq!(sent, [old, old, new, new, new, new, old, old]);
}
