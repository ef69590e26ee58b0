//! The HTTP client of the commands that call a daemon.

use std::time::Duration;

use bytes::Bytes;
use rustls::ClientConfig;

use crate::net::client::{HttpsClient, Kept, https};

/// Sends requests with bodies of type `B`.
pub type Web<B> = HttpsClient<B>;

/// A client for `http` and `https` that gives a connection `connect_within` to open and trusts as `tls` says.
pub fn web<B>(connect_within: Duration, tls: ClientConfig) -> Web<B>
where
    B: hyper::body::Body<Data = Bytes> + Send,
{
    // Commands make a few calls at most; each may have to wait for the one before.
    let kept = Kept {
        most: 2,
        idle: Duration::from_secs(10),
    };
    https(tls, connect_within, kept)
}
