//! The task that sends spans to the collector.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use fastrand::Rng;
use http_body_util::{BodyExt, Full, Limited};
use hyper::header::{CONTENT_TYPE, USER_AGENT};
use hyper::{Method, Request};
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};
use url::Url;

use super::span::Span;
use super::wire;
use super::{Counters, Settings};
use crate::backoff::Backoff;
use crate::net::client::{self, HttpsClient, Kept};
use crate::shutdown::Shutdown;

/// Spans of one request: well below the 4 MiB that collectors take.
const MOST: usize = 512;
/// How long a span may wait for others to travel with.
const GATHER: Duration = Duration::from_secs(1);
/// One export, from connecting to the end of the answer.
const WITHIN: Duration = Duration::from_secs(5);
/// For all that is left when the shutdown begins.
const LAST_WORDS: Duration = Duration::from_secs(3);
/// Waits after failures in a row.
const BACKOFF: Backoff = Backoff {
    base: Duration::from_secs(1),
    cap: Duration::from_secs(60),
};
/// What is read of an answer.
const MAX_ANSWER: usize = 64 << 10;
const AGENT: &str = concat!("looker-feed/", env!("CARGO_PKG_VERSION"));

/// Sends what is handed over, until the shutdown.
#[derive(Debug)]
pub struct Exporter {
    spans: mpsc::Receiver<Span>,
    counts: Arc<Counters>,
    endpoint: Url,
    http: HttpsClient<Full<Bytes>>,
    /// Exports that failed in a row.
    failures: u32,
    backoff: Backoff,
    rng: Rng,
}

impl Exporter {
    pub(super) fn new(
        settings: Settings,
        spans: mpsc::Receiver<Span>,
        counts: Arc<Counters>,
    ) -> Self {
        let kept = Kept {
            most: 1,
            idle: Duration::from_secs(30),
        };
        Self {
            spans,
            counts,
            endpoint: traces(settings.endpoint),
            http: client::https(settings.trust, WITHIN, kept),
            failures: 0,
            backoff: BACKOFF,
            rng: Rng::new(),
        }
    }

    /// Works until the shutdown, then sends what is left, for three seconds at most. What is under way
    /// when the shutdown begins may take five more.
    pub async fn run(mut self, mut shutdown: Shutdown) {
        let mut batch = Vec::with_capacity(MOST);
        loop {
            tokio::select! {
                biased;
                () = shutdown.wait() => break,
                taken = self.spans.recv_many(&mut batch, MOST) => if taken == 0 { return },
            }
            if batch.len() < MOST {
                tokio::select! {
                    () = shutdown.wait() => break,
                    () = sleep(GATHER) => self.fill(&mut batch),
                }
            }
            self.send(&mut batch).await;
            if self.failures > 0 {
                // Meanwhile the queue fills, and what does not fit is dropped.
                let wait = self.backoff.probe(self.failures, &mut self.rng);
                tokio::select! {
                    () = shutdown.wait() => break,
                    () = sleep(wait) => {}
                }
            }
        }
        let left = async {
            loop {
                self.fill(&mut batch);
                if batch.is_empty() {
                    return;
                }
                self.send(&mut batch).await;
            }
        };
        if timeout(LAST_WORDS, left).await.is_err() {
            tracing::warn!("spans were still waiting at the shutdown and are dropped");
        }
    }

    fn fill(&mut self, batch: &mut Vec<Span>) {
        while batch.len() < MOST
            && let Ok(span) = self.spans.try_recv()
        {
            batch.push(span);
        }
    }

    /// Sends a batch or drops it. A collector that takes nothing is told of once, and once again when
    /// it does.
    async fn send(&mut self, batch: &mut Vec<Span>) {
        let count = batch.len() as u64;
        let sent = timeout(WITHIN, self.post(wire::body(batch))).await;
        batch.clear();
        let failed = match sent {
            Ok(Ok(())) => None,
            Ok(Err(why)) => Some(why),
            Err(_) => Some(format!("no answer within {WITHIN:?}")),
        };
        let Some(why) = failed else {
            self.counts.exported.fetch_add(count, Ordering::Relaxed);
            if std::mem::take(&mut self.failures) > 0 {
                tracing::info!("traces are exported again");
            }
            return;
        };
        self.counts.dropped.fetch_add(count, Ordering::Relaxed);
        if self.failures == 0 {
            tracing::warn!(
                why,
                "traces cannot be exported ([telemetry] otlp_endpoint); it is tried again at \
                 intervals. Deliveries are not affected."
            );
        }
        self.failures = self.failures.saturating_add(1);
    }

    async fn post(&self, body: Vec<u8>) -> Result<(), String> {
        let request = Request::builder()
            .method(Method::POST)
            .uri(self.endpoint.as_str())
            .header(CONTENT_TYPE, "application/x-protobuf")
            .header(USER_AGENT, AGENT)
            .body(Full::new(Bytes::from(body)))
            .map_err(|_| "the address cannot be called".to_owned())?;
        let answer = self.http.request(request).await.map_err(|error| {
            let what = if error.is_connect() {
                "no connection"
            } else {
                "it broke off"
            };
            what.to_owned()
        })?;
        let status = answer.status();
        // Read, so that the connection can be used again.
        let read = Limited::new(answer.into_body(), MAX_ANSWER).collect().await;
        if !status.is_success() {
            return Err(format!("status {}", status.as_u16()));
        }
        read.map(drop)
            .map_err(|_| "its answer broke off".to_owned())
    }
}

/// Where traces go under a collector's base address.
fn traces(mut endpoint: Url) -> Url {
    let path = endpoint.path().trim_end_matches('/');
    if !path.ends_with("/v1/traces") {
        let path = format!("{path}/v1/traces");
        endpoint.set_path(&path);
    }
    endpoint
}

#[cfg(test)]
pub(super) mod tests {
    use axum::Router;
    use axum::extract::State;
    use axum::http::StatusCode;
    use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
    use prost::Message;
    use tokio::net::TcpListener;

    use super::super::span::{TraceId, now};
    use super::super::{Counts, Telemetry};
    use super::*;
    use crate::shutdown;

    /// Nobody is called over TLS here.
    pub fn trust() -> rustls::ClientConfig {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(rustls::RootCertStore::empty())
            .with_no_client_auth()
    }

    type Heard = mpsc::Sender<usize>;

    /// A collector that says how many spans came, and answers with a status.
    async fn collector(status: StatusCode) -> (Url, mpsc::Receiver<usize>) {
        let (sender, receiver) = mpsc::channel(1_000);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/base/", listener.local_addr().unwrap());
        let take = move |State(heard): State<Heard>, body: Bytes| async move {
            let request = ExportTraceServiceRequest::decode(body).unwrap();
            let spans = request.resource_spans[0].scope_spans[0].spans.len();
            heard.send(spans).await.unwrap();
            status
        };
        let router = Router::new()
            .route("/base/v1/traces", axum::routing::post(take))
            .with_state(sender);
        tokio::spawn(async move { axum::serve(listener, router).await });
        (url.parse().unwrap(), receiver)
    }

    fn started(endpoint: Url) -> (Telemetry, Exporter) {
        Telemetry::new(Settings {
            endpoint,
            ratio: 1.0,
            trust: trust(),
        })
    }

    fn record(telemetry: &Telemetry, count: usize) {
        for _ in 0..count {
            telemetry.record(Span::new("test", TraceId::random(), now()));
        }
    }

    #[test]
    fn the_path_of_traces_is_put_behind_the_base_address_once() {
        for (given, want) in [
            ("http://c:4318", "http://c:4318/v1/traces"),
            ("http://c:4318/", "http://c:4318/v1/traces"),
            ("https://c/otlp/", "https://c/otlp/v1/traces"),
            ("https://c/otlp/v1/traces", "https://c/otlp/v1/traces"),
        ] {
            assert_eq!(traces(Url::parse(given).unwrap()).as_str(), want);
        }
    }

    #[tokio::test]
    async fn what_waits_at_the_shutdown_is_sent_in_parts() {
        let (url, mut heard) = collector(StatusCode::OK).await;
        let (telemetry, exporter) = started(url);
        record(&telemetry, MOST + 10);
        let (trigger, stop) = shutdown::channel();
        trigger.pull();
        exporter.run(stop).await;
        assert_eq!(
            (heard.recv().await, heard.recv().await),
            (Some(MOST), Some(10))
        );
        let want = Counts {
            exported: MOST as u64 + 10,
            dropped: 0,
        };
        assert_eq!(telemetry.counts(), Some(want));
    }

    #[tokio::test]
    async fn spans_travel_together_while_the_daemon_works() {
        let (url, mut heard) = collector(StatusCode::OK).await;
        let (telemetry, exporter) = started(url);
        let (trigger, stop) = shutdown::channel();
        let task = tokio::spawn(exporter.run(stop));
        record(&telemetry, 7);
        assert_eq!(heard.recv().await, Some(7));
        trigger.pull();
        task.await.unwrap();
    }

    #[tokio::test]
    async fn a_collector_that_refuses_costs_its_spans_and_nothing_else() {
        let (url, mut heard) = collector(StatusCode::SERVICE_UNAVAILABLE).await;
        let (telemetry, mut exporter) = started(url);
        exporter.backoff.base = Duration::from_millis(1);
        let (trigger, stop) = shutdown::channel();
        let task = tokio::spawn(exporter.run(stop));
        for _ in 0..2 {
            record(&telemetry, 3);
            assert_eq!(heard.recv().await, Some(3));
        }
        trigger.pull();
        task.await.unwrap();
        let counts = telemetry.counts().unwrap();
        assert_eq!((counts.exported, counts.dropped), (0, 6));
    }

    // The clock runs ahead when nothing else can be done.
    #[tokio::test(start_paused = true)]
    async fn a_collector_that_never_answers_does_not_hold_the_shutdown_up() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let (telemetry, exporter) = started(url.parse().unwrap());
        record(&telemetry, 1);
        let (trigger, stop) = shutdown::channel();
        trigger.pull();
        let ended = timeout(4 * LAST_WORDS, exporter.run(stop)).await;
        assert!(ended.is_ok());
    }
}
