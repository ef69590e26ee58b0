//! The HTTP client of the commands that call a daemon.

use std::time::Duration;

use bytes::Bytes;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;

/// Sends requests with bodies of type `B`.
pub type Web<B> = legacy::Client<HttpsConnector<HttpConnector>, B>;

/// A client for `http` and `https` that trusts public authorities and gives a connection
/// `connect_within` to open.
pub fn web<B>(connect_within: Duration) -> Web<B>
where
    B: hyper::body::Body<Data = Bytes> + Send,
{
    let mut connector = HttpConnector::new();
    connector.set_connect_timeout(Some(connect_within));
    connector.enforce_http(false);
    let connector = HttpsConnectorBuilder::new()
        .with_webpki_roots()
        .https_or_http()
        .enable_http1()
        .wrap_connector(connector);
    legacy::Client::builder(TokioExecutor::new()).build(connector)
}
