//! The listening side: connections, their limits, and the end of them all.

use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::Request;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_io_timeout::TimeoutStream;
use tokio_rustls::TlsAcceptor;
use tower_service::Service;

use super::Settings;
use super::crowd::{Crowd, Guest};
use super::live::Handle;
use super::receiver::Receiver;
use super::routes::{Hub, router};
use crate::shutdown::Shutdown;
use crate::tls::Identity;

/// Looker opens a handful; far more than these is not Looker.
const MAX_CONNECTIONS: usize = 256;
/// For a request's head, and for the silence before the next one on the same connection.
const HEAD_TIMEOUT: Duration = Duration::from_secs(30);
const MAX_HEADERS: usize = 64;
const MAX_HEAD_BYTES: usize = 32 << 10;
const READ_BUFFER_BYTES: usize = 256 << 10;
/// After an accept that failed, mostly for want of file descriptors, which others must give back.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// When the last delivery has ended, its answer may take so long to be sent.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// The Action Hub, bound to its address and not yet serving.
pub struct Intake {
    listener: TcpListener,
    address: SocketAddr,
    settings: Settings,
    live: Handle,
}

impl Intake {
    /// Opens the port.
    ///
    /// # Errors
    /// The address is taken or not this machine's.
    pub async fn bind(settings: Settings) -> io::Result<Self> {
        let listener = TcpListener::bind(settings.intake.listen).await?;
        let address = listener.local_addr()?;
        Ok(Self {
            live: Handle::new(
                &settings.secret,
                &settings.intake,
                settings.looker.allowed_hosts.clone(),
            ),
            listener,
            address,
            settings,
        })
    }

    /// Where it listens, with the port that the system chose if none was given.
    pub fn addr(&self) -> SocketAddr {
        self.address
    }

    /// For changes while it serves.
    pub fn handle(&self) -> Handle {
        self.live.clone()
    }

    /// Serves until the shutdown. Then no connection and no delivery is begun any more, and what is
    /// under way has `settings.deadline` to finish; what has not finished by then is given up, its
    /// client told so. Returns when nothing of it runs any more.
    ///
    /// # Errors
    /// None today: what goes wrong with one connection ends that connection only.
    pub async fn run<R: Receiver>(
        self,
        receiver: Arc<R>,
        mut shutdown: Shutdown,
    ) -> io::Result<()> {
        let deadline = self.settings.deadline;
        let identity = self.settings.identity.clone();
        let write_timeout = self.settings.write_timeout;
        let hub = Hub::new(
            receiver,
            self.settings,
            self.live,
            self.address,
            shutdown.clone(),
        );
        let hub = Arc::new(hub);
        let router = router(Arc::clone(&hub));

        let mut connections = accept(
            self.listener,
            router,
            identity,
            write_timeout,
            &mut shutdown,
        )
        .await;

        hub.works.close();
        if timeout(deadline, hub.works.wait()).await.is_err() {
            tracing::warn!(
                deliveries = hub.works.len(),
                "the shutdown's deadline has passed; deliveries that are not complete are given up"
            );
            hub.give_up.cancel();
            hub.works.wait().await;
        }
        // All answers are made. What is still open after this is a client that does not read, or
        // one that never finished asking.
        let _ = timeout(LAST_WORDS, async {
            while connections.join_next().await.is_some() {}
        })
        .await;
        connections.shutdown().await;
        hub.give_up.cancel();
        hub.works.wait().await;
        Ok(())
    }
}

/// Takes connections until the shutdown; returns those that are still open.
async fn accept(
    listener: TcpListener,
    router: Router,
    identity: Option<Arc<Identity>>,
    write_timeout: Duration,
    shutdown: &mut Shutdown,
) -> JoinSet<()> {
    let crowd = Crowd::new(MAX_CONNECTIONS);
    let mut connections = JoinSet::new();
    loop {
        while connections.try_join_next().is_some() {}
        let next = async {
            let (stream, peer) = listener.accept().await?;
            Ok((stream, crowd.enter(peer.ip()).await))
        };
        let accepted: io::Result<_> = tokio::select! {
            () = shutdown.wait() => return connections,
            next = next => next,
        };
        match accepted {
            Ok((stream, seat)) => {
                // Keep-alive newlines are single bytes that must not wait for company.
                let _ = stream.set_nodelay(true);
                let mut stream = TimeoutStream::new(stream);
                stream.set_write_timeout(Some(write_timeout));
                let stream = Box::pin(stream);
                let router = router.clone();
                let shutdown = shutdown.clone();
                let identity = identity.clone();
                connections.spawn(async move {
                    let guest = Arc::clone(&seat.guest);
                    let work = async {
                        match identity {
                            None => serve(stream, router, guest, shutdown).await,
                            Some(identity) => {
                                serve_tls(stream, identity, router, guest, shutdown).await;
                            }
                        }
                    };
                    tokio::select! {
                        () = work => {}
                        () = seat.guest.sent_away() => {}
                    }
                });
            }
            Err(error) => {
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::select! {
                    () = shutdown.wait() => return connections,
                    () = sleep(ACCEPT_PAUSE) => {}
                }
            }
        }
    }
}

async fn serve_tls<S>(
    stream: S,
    identity: Arc<Identity>,
    router: Router,
    guest: Arc<Guest>,
    mut shutdown: Shutdown,
) where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let handshake = async {
        let current = tokio::task::spawn_blocking(move || identity.current()).await?;
        TlsAcceptor::from(current).accept(stream).await
    };
    let stream = tokio::select! {
        () = shutdown.wait() => return,
        stream = timeout(HEAD_TIMEOUT, handshake) => stream,
    };
    match stream {
        Ok(Ok(stream)) => serve(stream, router, guest, shutdown).await,
        Ok(Err(error)) => tracing::debug!(%error, "a TLS handshake failed"),
        Err(_) => tracing::debug!("a TLS handshake took too long"),
    }
}

async fn serve<S>(stream: S, router: Router, guest: Arc<Guest>, mut shutdown: Shutdown)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let mut builder = http1::Builder::new();
    builder
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_headers(MAX_HEADERS)
        .max_header_size(MAX_HEAD_BYTES)
        .max_buf_size(READ_BUFFER_BYTES);
    let service = hyper::service::service_fn(move |request: hyper::Request<_>| {
        let mut request: Request = request.map(axum::body::Body::new);
        request.extensions_mut().insert(Arc::clone(&guest));
        router.clone().call(request)
    });
    let mut connection = pin!(builder.serve_connection(TokioIo::new(stream), service));
    let result = tokio::select! {
        result = connection.as_mut() => result,
        () = shutdown.wait() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = result {
        tracing::debug!(%error, "a connection ended early");
    }
}
