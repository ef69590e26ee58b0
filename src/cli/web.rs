//! The HTTP client of the commands that call a daemon.

use std::time::Duration;

use bytes::Bytes;

use crate::net::client::{HttpsClient, Kept, https};
use crate::tls;

/// Sends requests with bodies of type `B`.
pub type Web<B> = HttpsClient<B>;

/// A client for `http` and `https` that trusts public authorities and gives a connection
/// `connect_within` to open.
///
/// # Errors
/// rustls knows no cipher to use.
pub fn web<B>(connect_within: Duration) -> Result<Web<B>, rustls::Error>
where
    B: hyper::body::Body<Data = Bytes> + Send,
{
    // Commands make a few calls at most; each may have to wait for the one before.
    let kept = Kept {
        most: 2,
        idle: Duration::from_secs(10),
    };
    Ok(https(tls::public()?, connect_within, kept))
}
