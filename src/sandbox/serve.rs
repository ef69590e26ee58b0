//! The HTTP server below the stand-ins: no framework, since a handler must be able to close its
//! connection without a reply.

use std::future::Future;
use std::io;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Request, Response};
use tokio::net::TcpListener;

use crate::net::{self, Limits};
use crate::shutdown::Shutdown;

/// A connection may be idle, or take to send a request's head, for so long; then it is closed, as
/// real servers do.
const HEAD_WITHIN: Duration = Duration::from_secs(75);

/// Connections at once: far more than a daemon opens.
const CONNECTIONS: usize = 4096;

/// A daemon that reads slowly is a matter of the daemon; one that is gone is cut off.
const WRITE_WITHIN: Duration = Duration::from_secs(1200);

/// Body of a reply.
pub(crate) type Body = UnsyncBoxBody<Bytes, io::Error>;

/// The handler wants its connection closed without a reply.
#[derive(Debug, thiserror::Error)]
#[error("the connection is closed on purpose")]
pub(crate) struct HangUp;

/// A body that is there already.
pub(crate) fn whole(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into())
        .map_err(|never| match never {})
        .boxed_unsync()
}

/// Serves until `shutdown`, gives requests in progress `close_within` to finish, cuts the rest.
/// When it returns, no connection and no task is left.
pub(crate) async fn serve<H, R>(
    listener: TcpListener,
    mut shutdown: Shutdown,
    close_within: Duration,
    handler: H,
) where
    H: Fn(Request<Incoming>) -> R + Clone + Send + 'static,
    R: Future<Output = Result<Response<Body>, HangUp>> + Send + 'static,
{
    let limits = Limits {
        name: "a stand-in",
        connections: CONNECTIONS,
        head_within: HEAD_WITHIN,
        write_within: WRITE_WITHIN,
        // As real servers do, who read what they refuse.
        refusals_close: false,
    };
    let service = service_fn(handler);
    let open = net::server::serve(listener, limits, None, service, &mut shutdown).await;
    open.close(close_within).await;
}
