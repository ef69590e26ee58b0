//! The two stand-ins over real sockets: mParticle's (`sandbox`) and Looker's (`looker`).

mod looker;
mod mparticle;

use std::future::Future;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use base64::Engine as _;
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::Method;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use looker_feed::looker::{Looker, Publisher};
use looker_feed::sandbox::{Handle, Sandbox, Settings};
use looker_feed::shutdown::{self, Trigger};
use serde_json::Value;
use tokio::task::JoinHandle;

const LOCAL: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

/// No wait in these tests is for time to pass; this only ends a test that hangs.
async fn within<T>(work: impl Future<Output = T>) -> T {
    let limited = tokio::time::timeout(Duration::from_secs(60), work);
    limited.await.expect("a test hangs")
}

/// A client that reuses connections, and a server with the means to end it.
struct Running {
    base: String,
    client: Client<HttpConnector, Full<Bytes>>,
    trigger: Trigger,
    server: JoinHandle<std::io::Result<()>>,
}

impl Running {
    async fn sandbox(settings: Settings) -> (Self, Handle) {
        let sandbox = Sandbox::bind(settings).await.unwrap();
        let (trigger, shutdown) = shutdown::channel();
        let (base, handle) = (format!("http://{}", sandbox.addr()), sandbox.handle());
        let server = tokio::spawn(sandbox.run(shutdown));
        (Self::new(base, trigger, server), handle)
    }

    async fn looker() -> (Self, Publisher) {
        let looker = Looker::bind(LOCAL).await.unwrap();
        let (trigger, shutdown) = shutdown::channel();
        let (base, publisher) = (looker.url().to_string(), looker.publisher());
        let server = tokio::spawn(looker.run(shutdown));
        (Self::new(base, trigger, server), publisher)
    }

    fn new(base: String, trigger: Trigger, server: JoinHandle<std::io::Result<()>>) -> Self {
        Self {
            base,
            client: Client::builder(TokioExecutor::new()).build_http(),
            trigger,
            server,
        }
    }

    async fn send(&self, request: hyper::Request<Full<Bytes>>) -> Option<Reply> {
        let response = within(self.client.request(request)).await.ok()?;
        let (parts, body) = response.into_parts();
        let body = within(body.collect()).await.ok()?.to_bytes();
        Some(Reply {
            status: parts.status.as_u16(),
            headers: parts.headers,
            body,
        })
    }

    async fn call(&self, method: Method, path: &str, body: impl Into<Bytes>) -> Reply {
        let request = hyper::Request::builder()
            .method(method)
            .uri(format!("{}{path}", self.base))
            .body(Full::new(body.into()))
            .unwrap();
        self.send(request).await.expect("a reply")
    }

    /// A proper request to the API; `None` when the connection broke.
    async fn post_to(&self, path: &str, body: impl Into<Bytes>) -> Option<Reply> {
        let request = hyper::Request::post(format!("{}{path}", self.base))
            .header("authorization", basic("key:secret"))
            .header("content-type", "application/json")
            .body(Full::new(body.into()))
            .unwrap();
        self.send(request).await
    }

    async fn post(&self, body: impl Into<Bytes>) -> Reply {
        self.post_to("/v2/bulkevents", body).await.expect("a reply")
    }

    async fn set_faults(&self, faults: Value) {
        let faults = faults.to_string();
        let reply = self.call(Method::PUT, "/sandbox/faults", faults).await;
        assert_eq!(reply.status, 204, "{reply:?}");
    }

    async fn end(self) {
        self.trigger.pull();
        within(self.server).await.unwrap().unwrap();
    }
}

#[derive(Debug)]
struct Reply {
    status: u16,
    headers: hyper::HeaderMap,
    body: Bytes,
}

impl Reply {
    fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }

    fn message(&self) -> String {
        let body: Value = serde_json::from_slice(&self.body).unwrap_or_default();
        let message = &body["errors"][0]["message"];
        message.as_str().unwrap_or_default().to_owned()
    }
}

fn basic(pair: &str) -> String {
    let encoded = base64::engine::general_purpose::STANDARD.encode(pair);
    format!("Basic {encoded}")
}
