//! The HTTP server below the routes: bounded in connections, in time for a head, and at shutdown.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio_io_timeout::TimeoutStream;

use crate::shutdown::Shutdown;

/// Connections at once: some browsers with six each, scrapers and scripts. Further ones wait.
const CONNECTIONS: usize = 128;

/// A connection may be idle, or take to send a request's head, for so long.
const HEAD_WITHIN: Duration = Duration::from_secs(20);

/// Pause after a failed accept (no descriptors left), which would otherwise be a busy loop.
const ACCEPT_AGAIN: Duration = Duration::from_millis(50);

/// At shutdown, requests in progress may take so long.
const CLOSE_WITHIN: Duration = Duration::from_secs(5);

/// Serves until `shutdown`. When it returns, no connection and no task is left.
pub(super) async fn serve(
    listener: TcpListener,
    router: Router,
    write_timeout: Duration,
    mut shutdown: Shutdown,
) {
    let graceful = GracefulShutdown::new();
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    let mut connections = JoinSet::new();
    loop {
        // The place is taken before the connection.
        let accept = async {
            let place = Arc::clone(&places).acquire_owned().await.ok();
            listener.accept().await.map(|(stream, _)| (stream, place))
        };
        tokio::select! {
            () = shutdown.wait() => break,
            Some(_) = connections.join_next() => {}
            accepted = accept => match accepted {
                Ok((stream, place)) => {
                    // Without it a small answer waits for the next packet of the client.
                    let _ = stream.set_nodelay(true);
                    let mut stream = TimeoutStream::new(stream);
                    stream.set_write_timeout(Some(write_timeout));
                    let service = TowerToHyperService::new(router.clone());
                    let connection = http1::Builder::new()
                        .timer(TokioTimer::new())
                        .header_read_timeout(HEAD_WITHIN)
                        .serve_connection(TokioIo::new(Box::pin(stream)), service);
                    let connection = graceful.watch(connection);
                    connections.spawn(async move {
                        // How a connection ends is the client's affair.
                        drop(connection.await);
                        drop(place);
                    });
                }
                Err(error) => {
                    tracing::warn!(%error, "an admin connection could not be accepted");
                    tokio::select! {
                        () = shutdown.wait() => break,
                        () = tokio::time::sleep(ACCEPT_AGAIN) => {}
                    }
                }
            },
        }
    }
    drop(listener);
    if tokio::time::timeout(CLOSE_WITHIN, graceful.shutdown())
        .await
        .is_err()
    {
        tracing::debug!(open = connections.len(), "admin connections are cut");
    }
    connections.shutdown().await;
}
