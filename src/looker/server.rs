//! The stand-in's server: downloads and the API, at one address.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::net::TcpListener;
use url::Url;

use super::api::Api;
use super::publish::Publisher;
use super::schedules::Schedules;
use super::shape::Shape;
use crate::sandbox::serve::serve;
use crate::shutdown::Shutdown;

/// At shutdown a download in progress may take so long to end; then it is cut.
const CLOSE_WITHIN: Duration = Duration::from_secs(2);

const API: &str = "/api/";

/// The server, bound to its address and not yet serving.
#[derive(Debug)]
pub struct Looker {
    listener: TcpListener,
    publisher: Publisher,
    api: Api,
}

impl Looker {
    /// Opens the port (0 picks a free one). Must be called inside a tokio runtime.
    pub async fn bind(addr: SocketAddr) -> io::Result<Self> {
        let listener = TcpListener::bind(addr).await?;
        let addr = listener.local_addr()?;
        let base = Url::parse(&format!("http://{addr}/")).map_err(io::Error::other)?;
        let publisher = Publisher::new(base);
        let schedules = Schedules::new(publisher.clone());
        Ok(Self {
            listener,
            publisher,
            api: Api::new(schedules),
        })
    }

    /// Where it listens, as a url with the path `/`.
    pub fn url(&self) -> &Url {
        self.publisher.base()
    }

    /// Publishes documents, also while the server runs.
    pub fn publisher(&self) -> Publisher {
        self.publisher.clone()
    }

    /// Its API, and the schedules behind it, also while the server runs.
    pub fn api(&self) -> Api {
        self.api.clone()
    }

    /// A download url for a generated document. See [`Publisher::publish`].
    pub fn publish(&self, shape: Shape) -> Url {
        self.publisher.publish(shape)
    }

    /// Serves until `shutdown`; downloads in progress then have 2 seconds to end. No connection
    /// is left open when it returns.
    pub async fn run(self, shutdown: Shutdown) -> io::Result<()> {
        let (publisher, api) = (self.publisher, self.api);
        serve(self.listener, shutdown, CLOSE_WITHIN, move |request| {
            let (publisher, api) = (publisher.clone(), api.clone());
            async move {
                match request.uri().path().starts_with(API) {
                    true => api.answer(request).await,
                    false => publisher.answer(&request),
                }
            }
        })
        .await;
        Ok(())
    }
}
