//! The one way to make an HTTP client: HTTP/1.1 with TLS by rustls; the caller says whom to trust,
//! and plain HTTP for addresses that have been allowed before.

use std::time::Duration;

use bytes::Bytes;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::connect::dns::GaiResolver;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use rustls::ClientConfig;

/// Sends requests with bodies of type `B`.
pub type HttpsClient<B> = legacy::Client<HttpsConnector<HttpConnector>, B>;

/// Connections that are kept open for the next request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kept {
    /// For each host at most.
    pub most: usize,
    /// So long; less than what servers and balancers allow.
    pub idle: Duration,
}

impl Kept {
    /// None: what is asked for rarely would find each of them dead.
    pub const NONE: Self = Self {
        most: 0,
        idle: Duration::ZERO,
    };
}

/// A client that trusts whom `trust` says and gives the TCP connection `connect_within` to open.
pub fn https<B>(trust: ClientConfig, connect_within: Duration, kept: Kept) -> HttpsClient<B>
where
    B: hyper::body::Body<Data = Bytes> + Send,
{
    let mut tcp = HttpConnector::new_with_resolver(GaiResolver::new());
    tcp.set_connect_timeout(Some(connect_within));
    legacy::Client::builder(TokioExecutor::new())
        .pool_timer(TokioTimer::new())
        .pool_idle_timeout(kept.idle)
        .pool_max_idle_per_host(kept.most)
        .build(connector(tcp, trust))
}

/// Opens connections, over TLS where the address says https. `tcp` says how names are resolved and how
/// long that may take.
pub fn connector<R>(
    mut tcp: HttpConnector<R>,
    trust: ClientConfig,
) -> HttpsConnector<HttpConnector<R>> {
    // Addresses with https come here too.
    tcp.enforce_http(false);
    // A request must not wait for the acknowledgement of the one before.
    tcp.set_nodelay(true);
    HttpsConnectorBuilder::new()
        .with_tls_config(trust)
        .https_or_http()
        .enable_http1()
        .wrap_connector(tcp)
}
