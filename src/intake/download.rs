//! Fetches a result document from Looker. A download url can be used once, so there is no second
//! try, no redirect, no range: what fails here fails the delivery, with a sentence that says how.
//! The url is as good as a password and stands in no message and no log line; its host does.

use std::future::poll_fn;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures::{FutureExt, stream};
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper::header::{ACCEPT_ENCODING, CONTENT_ENCODING, HOST, USER_AGENT};
use hyper::{Request, Response, StatusCode, Uri};
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::connect::dns::Name;
use rustls::ClientConfig;
use tokio::time::{Instant, timeout, timeout_at};
use tower_service::Service;
use url::{Host, Url};

use super::address::Reach;
use super::live::Handle;
use super::receiver::Source;
use crate::config::{AllowedHost, LookerSettings};
use crate::model::FailureKind;
use crate::net::client::connector;

/// What all downloads may read at once, together, and each of them at most and at least. That is also
/// the longest head of a response.
const READ_BYTES: usize = 4 << 20;
const READ_BUFFER_BYTES: (usize, usize) = (32 << 10, 256 << 10);

/// Why rows could not be fetched. Each is a sentence for the schedule's owner.
#[derive(Debug, thiserror::Error)]
pub(super) enum DownloadError {
    /// `download_url` is not a URL with a host.
    #[error("Looker's download address is not a valid url.")]
    Url,
    /// Another scheme than https, or plain http to a host that is not loopback and listed.
    #[error(
        "Looker's download address at {host} is not https. Plain http is accepted only for a loopback \
         host that stands in `looker.allowed_hosts`."
    )]
    Scheme { host: String },
    /// `looker.allowed_hosts` has entries, and none covers the host.
    #[error(
        "The feed may not fetch rows from {host}: it is not listed in `looker.allowed_hosts` of the \
         feed's configuration."
    )]
    Host { host: String },
    /// The host's addresses are all out of reach; see [`Reach`].
    #[error(
        "The feed may not fetch rows from {host}: its network address is private, link-local or \
         reserved. A private host must stand in `looker.allowed_hosts` of the feed's configuration."
    )]
    Address { host: String },
    /// The name does not resolve, or nothing answers, or TLS fails.
    #[error("The feed could not connect to Looker at {host}.")]
    Connect {
        host: String,
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// Connecting took longer than `looker.connect_timeout`.
    #[error("The feed could not connect to Looker at {host} within {limit}.", limit = humantime::format_duration(*limit))]
    ConnectTimeout { host: String, limit: Duration },
    /// The connection ended before a whole response's head came, or what came is not HTTP.
    #[error("Looker gave no valid answer when its download address was asked for rows.")]
    NoResponse { source: hyper::Error },
    /// Any status but 200: the url has expired, was used before, or the query failed.
    #[error("There was an error with Action Hub calling back to Looker, status code: {}", .0.as_u16())]
    Status(StatusCode),
    /// The body is compressed although that was not asked for.
    #[error("Looker sent its rows in an encoding that was not asked for.")]
    Encoding,
    /// Nothing came for `looker.idle_timeout`.
    #[error("Looker sent nothing for {}.", humantime::format_duration(*.0))]
    Silent(Duration),
    /// The connection was cut within the body, or its framing is wrong.
    #[error("The connection to Looker was cut before all rows had arrived.")]
    Cut { source: hyper::Error },
}

impl DownloadError {
    /// Whether another try may help, and if not, what is wrong.
    pub(super) fn kind(&self) -> FailureKind {
        match self {
            Self::Url | Self::Scheme { .. } | Self::Host { .. } | Self::Address { .. } => {
                FailureKind::Address
            }
            Self::Connect { .. }
            | Self::ConnectTimeout { .. }
            | Self::NoResponse { .. }
            | Self::Silent(_) => FailureKind::Looker,
            // A url that has expired or is spent; another execution has another one.
            Self::Status(status) => match status.as_u16() {
                404 | 408 | 410 | 429 | 500.. => FailureKind::Looker,
                _ => FailureKind::Address,
            },
            Self::Encoding => FailureKind::Document,
            Self::Cut { .. } => FailureKind::Cut,
        }
    }
}

/// Fetches from the hosts that the settings allow. One for all deliveries.
pub(super) struct Downloader {
    settings: LookerSettings,
    live: Handle,
    tls: ClientConfig,
    /// Downloads that are open.
    open: Arc<()>,
}

impl Downloader {
    /// `tls` says whom to trust.
    pub(super) fn new(settings: LookerSettings, live: Handle, tls: ClientConfig) -> Self {
        Self {
            settings,
            live,
            tls,
            open: Arc::default(),
        }
    }

    /// Spends the url. Returns when the response's head says 200; the rest comes with the source.
    pub(super) async fn fetch(&self, download_url: &str) -> Result<Source, DownloadError> {
        let target = Target::checked(download_url, &self.live.now().allowed_hosts)?;
        let limit = self.settings.connect_timeout;
        let deadline = Instant::now() + limit;
        let mut connection = timeout_at(deadline, self.connect(&target))
            .await
            .unwrap_or_else(|_| {
                Err(DownloadError::ConnectTimeout {
                    host: target.host.clone(),
                    limit,
                })
            })?;

        let idle = self.settings.idle_timeout;
        let response = timeout(idle, connection.request(&target))
            .await
            .map_err(|_| DownloadError::Silent(idle))??;
        if response.status() != StatusCode::OK {
            return Err(DownloadError::Status(response.status()));
        }
        if let Some(encoding) = response.headers().get(CONTENT_ENCODING)
            && encoding != "identity"
        {
            return Err(DownloadError::Encoding);
        }
        Ok(body(response.into_body(), connection, idle))
    }

    async fn connect(&self, target: &Target) -> Result<Connection, DownloadError> {
        let connect_error = |source| DownloadError::Connect {
            host: target.host.clone(),
            source,
        };
        let addresses = target
            .resolve()
            .await
            .map_err(|error| connect_error(error.into()))?;
        let addresses: Vec<_> = addresses
            .into_iter()
            .filter(|address| target.reach.covers(address.ip()))
            .collect();
        if addresses.is_empty() {
            return Err(DownloadError::Address {
                host: target.host.clone(),
            });
        }
        let tcp = HttpConnector::new_with_resolver(Resolved(addresses));
        let stream = connector(tcp, self.tls.clone())
            .call(target.uri.clone())
            .await
            .map_err(connect_error)?;
        let open = Arc::clone(&self.open);
        let (least, most) = READ_BUFFER_BYTES;
        let read_at_once = READ_BYTES / Arc::strong_count(&open);
        let (sender, driver) = http1::Builder::new()
            .max_buf_size(read_at_once.clamp(least, most))
            .handshake(stream)
            .await
            .map_err(|error| connect_error(error.into()))?;
        // Its errors are seen by the request or the body that it drives.
        let driver = Some(Box::pin(driver.map(drop)) as Pin<Box<_>>);
        Ok(Connection {
            sender,
            driver,
            _open: open,
        })
    }
}

/// A download url that may be fetched, if its addresses are within reach.
#[derive(Debug)]
struct Target {
    uri: Uri,
    /// Host and port as they stand in the url, for the `Host` header and for messages.
    host: String,
    name: Host<String>,
    port: u16,
    reach: Reach,
}

impl Target {
    fn checked(download_url: &str, allowed_hosts: &[AllowedHost]) -> Result<Self, DownloadError> {
        let mut url = Url::parse(download_url.trim()).map_err(|_| DownloadError::Url)?;
        url.set_fragment(None);
        let (Some(name), Some(port)) = (url.host(), url.port_or_known_default()) else {
            return Err(DownloadError::Url);
        };
        let host = match url.port() {
            Some(port) => format!("{name}:{port}"),
            None => name.to_string(),
        };
        // Credentials in front of a host are a way to make one host look like another.
        if !url.username().is_empty() || url.password().is_some() {
            return Err(DownloadError::Url);
        }
        let entry = allowed_hosts.iter().find(|entry| entry.covers(&name, port));
        let reach = match (url.scheme(), entry) {
            ("http", Some(entry)) if entry.is_loopback() => Reach::Loopback,
            ("https", Some(_)) => Reach::Listed,
            ("https", None) if allowed_hosts.is_empty() => Reach::Public,
            ("https", None) => return Err(DownloadError::Host { host }),
            _ => return Err(DownloadError::Scheme { host }),
        };
        let uri = url.as_str().parse().map_err(|_| DownloadError::Url)?;
        Ok(Self {
            uri,
            host,
            name: name.to_owned(),
            port,
            reach,
        })
    }

    async fn resolve(&self) -> io::Result<Vec<SocketAddr>> {
        match &self.name {
            Host::Domain(name) => {
                let addresses = tokio::net::lookup_host((name.as_str(), self.port)).await?;
                Ok(addresses.collect())
            }
            Host::Ipv4(address) => Ok(vec![(IpAddr::from(*address), self.port).into()]),
            Host::Ipv6(address) => Ok(vec![(IpAddr::from(*address), self.port).into()]),
        }
    }
}

/// Hands the addresses that were checked to the connector, which would look the name up again.
#[derive(Clone)]
struct Resolved(Vec<SocketAddr>);

impl Service<Name> for Resolved {
    type Response = std::vec::IntoIter<SocketAddr>;
    type Error = io::Error;
    type Future = std::future::Ready<Result<Self::Response, io::Error>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), io::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Name) -> Self::Future {
        std::future::ready(Ok(self.0.clone().into_iter()))
    }
}

/// One connection for one request.
struct Connection {
    sender: http1::SendRequest<Empty<Bytes>>,
    driver: Option<Driver>,
    /// One of those that are counted.
    _open: Arc<()>,
}

/// What moves a connection's bytes; `None` once the connection has ended.
type Driver = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Waits for something that comes over the connection. In a task of its own the driver would wake
/// another thread for each part of a body, which takes longer than reading it.
async fn driven<T>(driver: &mut Option<Driver>, wanted: impl Future<Output = T>) -> T {
    let mut wanted = pin!(wanted);
    poll_fn(|context| {
        if let Poll::Ready(came) = wanted.as_mut().poll(context) {
            return Poll::Ready(came);
        }
        if let Some(running) = driver
            && running.as_mut().poll(context).is_ready()
        {
            *driver = None;
        }
        wanted.as_mut().poll(context)
    })
    .await
}

impl Connection {
    async fn request(&mut self, target: &Target) -> Result<Response<Incoming>, DownloadError> {
        let path = target
            .uri
            .path_and_query()
            .map_or("/", |path| path.as_str());
        let request = Request::get(path)
            .header(HOST, &target.host)
            .header(
                USER_AGENT,
                concat!("looker-feed/", env!("CARGO_PKG_VERSION")),
            )
            .header(ACCEPT_ENCODING, "identity")
            .body(Empty::new())
            .map_err(|_| DownloadError::Url)?;
        driven(&mut self.driver, self.sender.send_request(request))
            .await
            .map_err(|source| DownloadError::NoResponse { source })
    }
}

/// The response's body. It ends only where its framing says that it ends.
fn body(body: Incoming, connection: Connection, idle: Duration) -> Source {
    let state = Some((body, connection));
    Box::pin(stream::unfold(state, move |state| async move {
        let (mut body, mut connection) = state?;
        loop {
            let frame = driven(&mut connection.driver, body.frame());
            let error = match timeout(idle, frame).await {
                Ok(None) => return None,
                Ok(Some(Ok(frame))) => match frame.into_data() {
                    Ok(data) => return Some((Ok(data), Some((body, connection)))),
                    Err(_trailers) => continue,
                },
                Ok(Some(Err(source))) => DownloadError::Cut { source },
                Err(_) => DownloadError::Silent(idle),
            };
            return Some((Err(io::Error::other(error)), None));
        }
    }))
}
