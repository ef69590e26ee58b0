//! The one way to serve: connections are accepted, bounded in number and in the time for a head, and
//! ended in order.

use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use hyper::body::{Body, Frame, Incoming, SizeHint};
use hyper::header::{CONNECTION, HeaderValue, TRANSFER_ENCODING};
use hyper::server::conn::http1;
use hyper::service::{Service, service_fn};
use hyper::{Request, Response};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_io_timeout::TimeoutStream;
use tokio_rustls::TlsAcceptor;

use super::admission::{self, Admission, Peer};
use crate::shutdown::Shutdown;
use crate::tls::Identity;

/// More lines than browsers, proxies and Looker send together.
const MAX_HEADERS: usize = 64;
const MAX_HEAD_BYTES: usize = 32 << 10;
/// What is read at once, of bodies too.
const READ_BUFFER_BYTES: usize = 256 << 10;
/// After an accept that failed, mostly for want of file descriptors, which others must give back.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// No file descriptor is left, to the process or to the system.
const EMFILE: i32 = 24;
const ENFILE: i32 = 23;

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// What a server takes.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Whose connections they are, for the log.
    pub name: &'static str,
    /// Connections at once; see [`admission`] for who gives up its place to a further one.
    pub connections: usize,
    /// For the TLS handshake, for a request's head, and for the silence before the next one on the
    /// same connection.
    pub head_within: Duration,
    /// A client that reads nothing of its answer for so long is cut off.
    pub write_within: Duration,
    /// After a refusal (status 4xx) of a request that has a body, the connection is closed: the body
    /// may not have been read, and what stands behind it is not to be taken for a request.
    pub refusals_close: bool,
}

/// Connections that are still open when the server accepts no more.
#[derive(Debug)]
pub struct Open {
    name: &'static str,
    connections: JoinSet<()>,
}

impl Open {
    /// Lets them end for so long, then cuts what is left. None is left when this returns.
    pub async fn close(mut self, within: Duration) {
        let ended = async { while self.connections.join_next().await.is_some() {} };
        if timeout(within, ended).await.is_err() {
            let open = self.connections.len();
            tracing::debug!(server = self.name, open, "connections are cut");
        }
        self.connections.shutdown().await;
    }
}

/// Takes connections until the shutdown, over TLS if there is an `identity`. From then on, those
/// that are open begin no further request; they are returned. Each request has its [`Peer`] among its
/// extensions.
///
/// A service that fails has its connection closed without an answer.
pub async fn serve<S, B>(
    listener: TcpListener,
    limits: Limits,
    identity: Option<Arc<Identity>>,
    service: S,
    shutdown: &mut Shutdown,
) -> Open
where
    S: Service<Request<Incoming>, Response = Response<B>> + Clone + Send + 'static,
    S::Future: Send,
    S::Error: Into<BoxError>,
    B: Body + Unpin + Send + 'static,
    B::Data: Send,
    B::Error: Into<BoxError>,
{
    let admission = Admission::new(limits.connections);
    let mut connections = JoinSet::new();
    loop {
        while let Some(ended) = connections.try_join_next() {
            if ended.is_err() {
                tracing::error!(server = limits.name, "a request ended in a panic");
            }
        }
        let next = async {
            let (stream, address) = listener.accept().await?;
            Ok((stream, admission.enter(address.ip()).await))
        };
        let accepted: io::Result<_> = tokio::select! {
            () = shutdown.wait() => break,
            next = next => next,
        };
        match accepted {
            Ok((stream, place)) => {
                // Without it a small answer waits for the client's next packet.
                let _ = stream.set_nodelay(true);
                let mut stream = TimeoutStream::new(stream);
                stream.set_write_timeout(Some(limits.write_within));
                let connection = Connection {
                    limits,
                    peer: Arc::clone(&place.peer),
                    service: service.clone(),
                    shutdown: shutdown.clone(),
                };
                let identity = identity.clone();
                connections.spawn(async move {
                    let stream = Box::pin(stream);
                    let work = async {
                        match identity {
                            None => connection.serve(stream).await,
                            Some(identity) => connection.serve_tls(stream, identity).await,
                        }
                    };
                    tokio::select! {
                        () = work => {}
                        () = place.peer.told_to_leave() => tracing::debug!(
                            source = %place.peer.address,
                            "a quiet connection gives up its place"
                        ),
                    }
                });
            }
            Err(error) => {
                tracing::warn!(server = limits.name, %error, "a connection could not be accepted");
                if matches!(error.raw_os_error(), Some(EMFILE | ENFILE)) {
                    admission.evict();
                }
                tokio::select! {
                    () = shutdown.wait() => break,
                    () = sleep(ACCEPT_PAUSE) => {}
                }
            }
        }
    }
    Open {
        name: limits.name,
        connections,
    }
}

/// One connection.
struct Connection<S> {
    limits: Limits,
    peer: Arc<Peer>,
    service: S,
    shutdown: Shutdown,
}

impl<S, B> Connection<S>
where
    S: Service<Request<Incoming>, Response = Response<B>>,
    S::Error: Into<BoxError>,
    B: Body + Unpin + 'static,
    B::Error: Into<BoxError>,
{
    async fn serve_tls<I>(mut self, stream: I, identity: Arc<Identity>)
    where
        I: AsyncRead + AsyncWrite + Unpin,
    {
        let handshake = async {
            let current = tokio::task::spawn_blocking(move || identity.current()).await?;
            TlsAcceptor::from(current).accept(stream).await
        };
        let stream = tokio::select! {
            () = self.shutdown.wait() => return,
            stream = timeout(self.limits.head_within, handshake) => stream,
        };
        match stream {
            Ok(Ok(stream)) => self.serve(stream).await,
            Ok(Err(error)) => tracing::debug!(%error, "a TLS handshake failed"),
            Err(_) => tracing::debug!("a TLS handshake took too long"),
        }
    }

    async fn serve<I>(self, stream: I)
    where
        I: AsyncRead + AsyncWrite + Unpin,
    {
        let Self {
            limits,
            peer,
            service,
            mut shutdown,
        } = self;
        let service = service_fn(move |mut request: Request<Incoming>| {
            request.extensions_mut().insert(Arc::clone(&peer));
            let under_way = peer.begin();
            let body = BodyKind::of(&request);
            // Not called before it is known that the connection stays.
            let answer = under_way.is_some().then(|| service.call(request));
            async move {
                let Some(answer) = answer else {
                    // The connection is being closed.
                    return std::future::pending().await;
                };
                let mut response = answer.await?;
                let refused = limits.refusals_close && response.status().is_client_error();
                if body == BodyKind::Chunked || (refused && body != BodyKind::None) {
                    let close = HeaderValue::from_static("close");
                    response.headers_mut().insert(CONNECTION, close);
                }
                Ok::<_, S::Error>(response.map(|body| Answer {
                    body,
                    _under_way: under_way,
                }))
            }
        });
        let mut connection = pin!(
            http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(limits.head_within)
                .max_headers(MAX_HEADERS)
                .max_header_size(MAX_HEAD_BYTES)
                .max_buf_size(READ_BUFFER_BYTES)
                .serve_connection(TokioIo::new(stream), service)
        );
        let result = tokio::select! {
            result = connection.as_mut() => result,
            () = shutdown.wait() => {
                connection.as_mut().graceful_shutdown();
                connection.await
            }
        };
        // How a connection ends is the client's affair.
        if let Err(error) = result {
            tracing::debug!(server = limits.name, %error, "a connection ended early");
        }
    }
}

/// How a request says where its body ends.
#[derive(Clone, Copy, PartialEq, Eq)]
enum BodyKind {
    None,
    Sized,
    /// A proxy in front that does not see where a chunked body ends would take what a stranger wrote
    /// behind it for the next request. So nothing behind such a body is read.
    Chunked,
}

impl BodyKind {
    fn of(request: &Request<Incoming>) -> Self {
        if request.headers().contains_key(TRANSFER_ENCODING) {
            Self::Chunked
        } else if request.body().is_end_stream() {
            Self::None
        } else {
            Self::Sized
        }
    }
}

/// An answer's body: until it has been handed over, the request is under way.
struct Answer<B> {
    body: B,
    _under_way: Option<admission::Request>,
}

impl<B: Body + Unpin> Body for Answer<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
