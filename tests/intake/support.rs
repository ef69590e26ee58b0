//! The hub under test, what stands behind it, and what it downloads from.

use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Body, Frame};
use hyper::{Request, Response, body::Incoming};
use hyper_util::rt::TokioIo;
use looker_feed::config;
use looker_feed::intake::{
    Accepted, Caller, Choices, DeliveryRequest, Intake, NotReserved, Receiver, Refusal, Settings,
    Source, new_key,
};
use looker_feed::model::{DeliveryId, FailureKind};
use looker_feed::seal::Space;
use looker_feed::shutdown::{self, Trigger};
use looker_feed::tls;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, Semaphore};
use tokio::task::JoinHandle;

pub const DELIVERY: DeliveryId = DeliveryId([7; 16]);

/// What the scripted receiver does with a delivery.
#[derive(Clone, Debug, Default)]
pub enum Plan {
    /// Reads all and accepts it.
    #[default]
    Accept,
    /// Says no without reading.
    Refuse(&'static str),
    Panic,
}

/// A receiver that does what it is told and remembers what it was given.
pub struct Script {
    /// Whether a data center may be chosen.
    pub pods: bool,
    pub plan: Mutex<Plan>,
    /// What is said of every webhook id.
    pub webhook: Mutex<Option<NotReserved>>,
    pub full: Mutex<Option<&'static str>>,
    /// Each delivery takes a permit before it begins.
    pub turns: Semaphore,
    /// A delivery asks for its turn.
    pub queued: Notify,
    /// Each delivery takes a permit before it is read, and another one before its end.
    pub gate: Semaphore,
    /// A delivery has begun.
    pub begun: Notify,
    /// The first bytes of a delivery have come.
    pub bytes: Notify,
    /// A delivery has ended, or its future was dropped.
    pub ended: Notify,
    pub accepted: Mutex<Vec<(DeliveryRequest, Vec<u8>)>>,
    pub begun_count: AtomicUsize,
    pub cut: Mutex<Vec<String>>,
    /// Webhook ids that are reserved now.
    pub reserved: Arc<Mutex<Vec<Option<String>>>>,
    /// What was said to have failed: title, whether it was reserved, kind, message.
    pub failed: Mutex<Vec<(String, bool, FailureKind, String)>>,
}

/// The right to receive one delivery.
pub struct Reserved {
    webhook: Option<String>,
    all: Arc<Mutex<Vec<Option<String>>>>,
}

impl Drop for Reserved {
    fn drop(&mut self) {
        let mut all = self.all.lock().unwrap();
        let at = all.iter().position(|one| *one == self.webhook).unwrap();
        all.remove(at);
    }
}

impl Default for Script {
    fn default() -> Self {
        Self {
            pods: true,
            plan: Mutex::default(),
            webhook: Mutex::default(),
            reserved: Arc::default(),
            failed: Mutex::default(),
            full: Mutex::default(),
            turns: Semaphore::new(1_000_000),
            queued: Notify::new(),
            gate: Semaphore::new(1_000_000),
            begun: Notify::new(),
            bytes: Notify::new(),
            ended: Notify::new(),
            accepted: Mutex::default(),
            begun_count: AtomicUsize::new(0),
            cut: Mutex::default(),
        }
    }
}

impl Script {
    /// Holds every delivery until permits are added to the gate.
    pub fn held() -> Self {
        Self {
            gate: Semaphore::new(0),
            ..Self::default()
        }
    }

    pub fn accepted(&self) -> Vec<(DeliveryRequest, Vec<u8>)> {
        self.accepted.lock().unwrap().clone()
    }

    pub fn begun_count(&self) -> usize {
        self.begun_count.load(Ordering::SeqCst)
    }
}

impl Receiver for Script {
    type Reservation = Reserved;

    fn admit(&self) -> Result<(), Refusal> {
        match *self.full.lock().unwrap() {
            None => Ok(()),
            Some(message) => Err(refusal(message)),
        }
    }

    fn allows(&self, choices: &Choices) -> Result<(), Refusal> {
        if choices.pod.is_some() && !self.pods {
            return Err(refusal("It sends to one fixed address."));
        }
        Ok(())
    }

    async fn reserve(
        &self,
        caller: &Caller,
        _: Option<&DeliveryRequest>,
    ) -> Result<Reserved, NotReserved> {
        if let Some(known) = self.webhook.lock().unwrap().clone() {
            return Err(known);
        }
        self.admit().map_err(NotReserved::Refused)?;
        let mut all = self.reserved.lock().unwrap();
        if caller.webhook_id.is_some() && all.contains(&caller.webhook_id) {
            return Err(NotReserved::Receiving);
        }
        all.push(caller.webhook_id.clone());
        Ok(Reserved {
            webhook: caller.webhook_id.clone(),
            all: Arc::clone(&self.reserved),
        })
    }

    async fn turn(&self) -> Result<(), Refusal> {
        self.queued.notify_one();
        // Closed by a test whose patience is over.
        let turn = self.turns.acquire().await;
        let turn = turn.map_err(|_| refusal("No place became free."))?;
        turn.forget();
        Ok(())
    }

    fn failed(
        &self,
        reservation: Option<Reserved>,
        caller: &Caller,
        kind: FailureKind,
        message: &str,
    ) {
        let (title, message) = (caller.title.clone(), message.to_owned());
        let failed = (title, reservation.is_some(), kind, message);
        self.failed.lock().unwrap().push(failed);
    }

    async fn receive(
        &self,
        _reserved: Reserved,
        request: DeliveryRequest,
        mut source: Source,
    ) -> Result<Accepted, Refusal> {
        struct Ended<'a>(&'a Notify);
        impl Drop for Ended<'_> {
            fn drop(&mut self) {
                self.0.notify_one();
            }
        }
        let _ended = Ended(&self.ended);
        self.begun_count.fetch_add(1, Ordering::SeqCst);
        self.begun.notify_one();
        self.gate.acquire().await.unwrap().forget();
        let plan = self.plan.lock().unwrap().clone();
        match plan {
            Plan::Accept => {}
            Plan::Panic => panic!("the script says so"),
            Plan::Refuse(message) => return Err(refusal(message)),
        }
        let mut document = Vec::new();
        while let Some(chunk) = source.next().await {
            match chunk {
                Ok(bytes) => {
                    document.extend_from_slice(&bytes);
                    self.bytes.notify_one();
                }
                Err(error) => {
                    self.cut.lock().unwrap().push(error.to_string());
                    let message = format!("{error} {} bytes had come.", document.len());
                    return Err(refusal(&message));
                }
            }
        }
        self.gate.acquire().await.unwrap().forget();
        let rows = document.iter().filter(|byte| **byte == b'{').count() as u64;
        self.accepted.lock().unwrap().push((request, document));
        Ok(Accepted {
            delivery: DELIVERY,
            rows,
            rejected: 0,
        })
    }
}

fn refusal(message: &str) -> Refusal {
    Refusal {
        kind: FailureKind::Rows,
        message: message.to_owned(),
    }
}

/// A hub that runs.
pub struct Feed {
    pub address: SocketAddr,
    pub script: Arc<Script>,
    pub key: String,
    pub trigger: Trigger,
    pub run: JoinHandle<io::Result<()>>,
    pub spool: tempfile::TempDir,
}

/// Starts a hub with the shipped settings, changed by `change`, which may fetch from loopback.
pub async fn feed_with(script: Script, change: impl FnOnce(&mut Settings)) -> Feed {
    let env = [
        ("INTAKE__LISTEN", "127.0.0.1:0"),
        ("INTAKE__SECRET", "hub secret"),
        ("LOOKER__ALLOWED_HOSTS", "127.0.0.1,localhost"),
    ];
    let env = env.map(|(name, value)| (format!("LOOKER_FEED_{name}"), value.to_owned()));
    let config = config::load(None, env.into_iter()).unwrap();
    let secret = config.require_secret().unwrap().clone();
    let spool = tempfile::tempdir().unwrap();
    let key = new_key(&secret).unwrap();
    let mut settings = Settings {
        secret,
        trust: tls::client("looker.ca_file", None).unwrap(),
        identity: None,
        intake: config.intake,
        action: config.action,
        looker: config.looker,
        spool: Space::new(spool.path()),
        deadline: Duration::from_secs(30),
        connections: 256,
        write_timeout: Duration::from_secs(30),
    };
    change(&mut settings);
    let intake = Intake::bind(settings).await.unwrap();
    let script = Arc::new(script);
    let (trigger, shutdown) = shutdown::channel();
    Feed {
        address: intake.addr(),
        script: Arc::clone(&script),
        key,
        trigger,
        run: tokio::spawn(intake.run(script, shutdown)),
        spool,
    }
}

pub async fn feed(script: Script) -> Feed {
    feed_with(script, |_| {}).await
}

impl Feed {
    pub fn authorization(&self) -> String {
        format!("Token token=\"{}\"", self.key)
    }

    /// A request with a valid key.
    pub fn request(&self, method: &str, path: &str) -> hyper::http::request::Builder {
        Request::builder()
            .method(method)
            .uri(path)
            .header("host", "feed.test")
            .header("authorization", self.authorization())
            .header("user-agent", "LookerOutgoingWebhook/7.3.0")
    }

    pub async fn send(&self, request: Request<Bytes>) -> Response<Incoming> {
        self.send_body(request.map(Full::new)).await
    }

    async fn send_body<B>(&self, request: Request<B>) -> Response<Incoming>
    where
        B: Body<Data = Bytes, Error: std::error::Error + Send + Sync> + Send + 'static,
    {
        let stream = TcpStream::connect(self.address).await.unwrap();
        let made = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await;
        let (mut sender, driver) = made.unwrap();
        tokio::spawn(driver);
        sender.send_request(request).await.unwrap()
    }

    /// Sends a body with a valid key; the answer is JSON.
    pub async fn ask(&self, method: &str, path: &str, body: impl Into<Bytes>) -> Value {
        let request = self.request(method, path).body(body.into()).unwrap();
        let response = self.send(request).await;
        assert_eq!(response.status(), 200);
        assert_eq!(response.headers()["content-type"], "application/json");
        serde_json::from_str(&text(response).await).unwrap()
    }

    /// Posts an execute request in chunks of `chunk` bytes and returns the answer's body.
    pub async fn execute_chunked(
        &self,
        webhook: Option<&str>,
        body: impl AsRef<[u8]>,
        chunk: usize,
    ) -> String {
        let chunks = body.as_ref().chunks(chunk).map(Bytes::copy_from_slice);
        let frames: Vec<_> = chunks
            .map(|chunk| io::Result::Ok(Frame::data(chunk)))
            .collect();
        let mut request = self.request("POST", "/actions/mparticle/execute");
        if let Some(webhook) = webhook {
            request = request.header("x-looker-webhook-id", webhook);
        }
        let request = request
            .header("x-looker-instance", "instance-1")
            .body(StreamBody::new(futures::stream::iter(frames)))
            .unwrap();
        let response = self.send_body(request).await;
        assert_eq!(response.status(), 200);
        assert_eq!(response.headers()["content-type"], "application/json");
        text(response).await
    }

    /// Posts an execute request and returns `looker` out of the answer.
    pub async fn execute(&self, body: &Value) -> Value {
        let body = body.to_string();
        looker(&self.execute_chunked(None, &body, 64 << 10).await)
    }

    /// Posts an execute request that must fail, and returns its message.
    pub async fn refusal(&self, body: &Value) -> String {
        message(&self.execute(body).await, false)
    }

    /// The same with a body and a webhook id, whether it fails or not.
    pub async fn told(&self, webhook: Option<&str>, body: &str, success: bool) -> String {
        let answer = self.execute_chunked(webhook, body, 1000).await;
        message(&looker(&answer), success)
    }

    /// Ends the hub and waits until nothing of it runs.
    pub async fn stop(self) -> Arc<Script> {
        self.trigger.pull();
        self.run.await.unwrap().unwrap();
        self.script
    }

    /// The beginning of an execute request on a connection of its own; the body is to follow.
    pub async fn raw_execute(&self, more_headers: &str) -> TcpStream {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        let head = format!(
            "POST /actions/mparticle/execute HTTP/1.1\r\nhost: feed.test\r\nauthorization: {}\r\n{more_headers}\r\n",
            self.authorization()
        );
        stream.write_all(head.as_bytes()).await.unwrap();
        stream
    }

    /// The same for a body of so many bytes; the connection ends with the answer.
    pub async fn raw_sized(&self, length: usize) -> TcpStream {
        let headers = format!("connection: close\r\ncontent-length: {length}\r\n");
        self.raw_execute(&headers).await
    }

    /// A whole execute request on a connection of its own, and its answer is to follow.
    pub async fn raw_whole(&self, body: &str) -> TcpStream {
        let mut stream = self.raw_sized(body.len()).await;
        stream.write_all(body.as_bytes()).await.unwrap();
        stream
    }
}

/// What is left of an answer whose connection ends with it.
pub async fn rest(stream: &mut TcpStream) -> String {
    let mut rest = String::new();
    stream.read_to_string(&mut rest).await.unwrap();
    rest
}

pub async fn text(response: Response<Incoming>) -> String {
    let body = response.into_body().collect().await.unwrap().to_bytes();
    String::from_utf8(body.to_vec()).unwrap()
}

/// `looker` out of an execute answer, whose other members are always the same.
pub fn looker(text: &str) -> Value {
    let answer: Value = serde_json::from_str(text).unwrap();
    let looker = answer["looker"].clone();
    assert_eq!(answer, json!({"looker": looker}));
    assert_eq!(looker["refresh_query"], json!(false));
    assert_eq!(looker["validation_errors"], json!({}));
    assert_eq!(looker.as_object().unwrap().len(), 4);
    looker
}

pub fn message(looker: &Value, success: bool) -> String {
    assert_eq!(looker["success"], json!(success), "{looker}");
    looker["message"].as_str().unwrap().to_owned()
}

/// An execute request as Looker makes it, in url mode.
pub fn order_with(download_url: &str) -> Value {
    json!({
        "type": "query",
        "scheduled_plan": {
            "scheduled_plan_id": 12, "title": "Daily users", "type": "Look",
            "url": "https://looker.test/looks/3", "query_id": 99, "query": {"fields": ["a.b"]},
            "filters_differ_from_look": false, "download_url": download_url,
            "async_callback_url": null,
        },
        "attachment": null,
        "data": {"apiKey": "key", "apiSecret": "hunter2"},
        "form_params": {"data_type": "event_data", "environment": "development"},
    })
}

/// A Looker that answers every connection with the same bytes.
pub struct Looker {
    pub address: SocketAddr,
    pub heads: Arc<Mutex<Vec<String>>>,
    server: JoinHandle<()>,
}

impl Drop for Looker {
    fn drop(&mut self) {
        self.server.abort();
    }
}

impl Looker {
    /// `response` is sent as it is; then the connection is closed, or held open with `hold`.
    pub async fn raw(response: impl Into<Vec<u8>>, hold: bool) -> Self {
        let response: Vec<u8> = response.into();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let heads = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&heads);
        let server = tokio::spawn(async move {
            let mut open = Vec::new();
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                let head = read_until(&mut stream, "\r\n\r\n").await;
                seen.lock().unwrap().push(head);
                stream.write_all(&response).await.unwrap();
                if hold {
                    open.push(stream);
                } else {
                    stream.shutdown().await.unwrap();
                }
            }
        });
        Self {
            address,
            heads,
            server,
        }
    }

    pub async fn with(document: &str) -> Self {
        Self::raw(ok(document), false).await
    }

    pub fn url(&self) -> String {
        format!("http://{}/downloads/{}", self.address, "d".repeat(40))
    }

    pub fn hits(&self) -> usize {
        self.heads.lock().unwrap().len()
    }
}

pub fn ok(document: &str) -> String {
    format!(
        "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{document}",
        document.len()
    )
}

/// Reads until `end` has come; everything so far.
pub async fn read_until(stream: &mut TcpStream, end: &str) -> String {
    let mut read = Vec::new();
    while !String::from_utf8_lossy(&read).contains(end) {
        let mut byte = [0];
        let length = stream.read(&mut byte).await.unwrap();
        assert_ne!(length, 0, "ended: {}", String::from_utf8_lossy(&read));
        read.extend_from_slice(&byte);
    }
    String::from_utf8(read).unwrap()
}

pub fn is_empty(directory: &Path) -> bool {
    std::fs::read_dir(directory).unwrap().next().is_none()
}
