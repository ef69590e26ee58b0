//! The listening side: connections, their limits, and the end of them all.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use hyper_util::service::TowerToHyperService;
use tokio::net::TcpListener;
use tokio::time::timeout;

use super::Settings;
use super::live::Handle;
use super::receiver::Receiver;
use super::routes::{Hub, router};
use crate::net::{self, Limits};
use crate::shutdown::Shutdown;

/// For a request's head, and for the silence before the next one on the same connection.
const HEAD_TIMEOUT: Duration = Duration::from_secs(30);
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
    pub async fn run<R: Receiver>(
        self,
        receiver: Arc<R>,
        mut shutdown: Shutdown,
    ) -> io::Result<()> {
        let deadline = self.settings.deadline;
        let identity = self.settings.identity.clone();
        let limits = Limits {
            name: "the Action Hub",
            connections: self.settings.connections,
            head_within: HEAD_TIMEOUT,
            write_within: self.settings.write_timeout,
            refusals_close: true,
        };
        let hub = Hub::new(
            receiver,
            self.settings,
            self.live,
            self.address,
            shutdown.clone(),
        );
        let hub = Arc::new(hub);
        let router = TowerToHyperService::new(router(Arc::clone(&hub)));
        let open = net::server::serve(self.listener, limits, identity, router, &mut shutdown).await;

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
        open.close(LAST_WORDS).await;
        hub.give_up.cancel();
        hub.works.wait().await;
        Ok(())
    }
}
