//! The HTTP server below the stand-ins: hyper itself rather than a framework, since a handler must
//! be able to close its connection without a reply.

use std::future::Future;
use std::io;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use crate::shutdown::Shutdown;

/// A connection may be idle, or take to send a request's head, for so long; then it is closed, as
/// real servers do.
const HEAD_WITHIN: Duration = Duration::from_secs(75);

/// Pause after a failed accept (no descriptors left), which would otherwise be a busy loop.
const ACCEPT_AGAIN: Duration = Duration::from_millis(50);

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
    let graceful = GracefulShutdown::new();
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            () = shutdown.wait() => break,
            Some(_) = connections.join_next() => {}
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => {
                    // Without it a small reply waits for the next packet of the client.
                    let _ = stream.set_nodelay(true);
                    let connection = http1::Builder::new()
                        .timer(TokioTimer::new())
                        .header_read_timeout(HEAD_WITHIN)
                        .serve_connection(TokioIo::new(stream), service_fn(handler.clone()));
                    // How a connection ends is the client's affair.
                    let connection = graceful.watch(connection);
                    connections.spawn(async move { drop(connection.await) });
                }
                Err(error) => {
                    tracing::warn!(%error, "a connection could not be accepted");
                    tokio::time::sleep(ACCEPT_AGAIN).await;
                }
            },
        }
    }
    drop(listener);
    if tokio::time::timeout(close_within, graceful.shutdown())
        .await
        .is_err()
    {
        tracing::debug!(open = connections.len(), "connections are cut at shutdown");
    }
    connections.shutdown().await;
}
