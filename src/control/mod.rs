//! The admin side: what an operator sees and steers. Status page, JSON API, live events, metrics
//! and probes, on one address of its own, apart from the one that Looker calls.
//!
//! It reads snapshots and never sits on the data path: [`Daemon`] is all that it knows of the
//! other rooms, and the composition root implements it.
//!
//! **Who may ask.** The address is loopback unless a token is configured. With a token, all that
//! shows data or changes something needs it, since dead letters and rejected rows hold what Looker
//! knows of people. Without one, the `Host` must be a loopback name, so that a foreign page cannot
//! get here by rebinding its name. Changing calls must come from our own page or from no page at
//! all. `guard` holds the rules.

mod again;
mod answer;
mod api;
mod audit;
mod calls;
pub mod csv;
mod daemon;
mod estimate;
mod events;
mod export;
mod filter;
pub mod groups;
mod guard;
pub mod health;
mod history;
mod issue;
mod kept;
mod lists;
mod lookups;
mod metrics;
pub mod outlook;
mod page;
pub mod people;
mod request;
mod runs;
mod schedules;
mod shared;
pub mod speeds;
#[cfg(test)]
pub(crate) mod tests;
pub mod view;

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use hyper_util::service::TowerToHyperService;
use tokio::net::TcpListener;

pub use audit::AuditLog;
pub use daemon::{Daemon, Page, Problem, Which};
pub use filter::{Filter, State};
pub use guard::{NamedToken, Proxy, Token, TokenError};

use crate::clock::Clock;
use crate::net::{self, Limits};
use crate::shutdown::Shutdown;

/// Connections at once: some browsers with six each, scrapers and scripts. A further one takes the
/// place of one that is quiet.
const CONNECTIONS: usize = 128;

/// A connection may be idle, or take to send a request's head, for so long.
const HEAD_WITHIN: Duration = Duration::from_secs(20);

/// At shutdown, requests in progress may take so long.
const CLOSE_WITHIN: Duration = Duration::from_secs(5);

/// Where the admin side listens, and to whom it answers.
#[derive(Clone, Debug)]
pub struct AdminSettings {
    /// Port 0 lets the system choose.
    pub listen: SocketAddr,
    /// Who may look and act; must not be empty when `listen` is not a loopback address.
    pub tokens: Vec<NamedToken>,
    /// More names that may stand in `Host` when there is no token: those of a proxy in front that
    /// keeps it. Without port.
    pub hosts: Vec<String>,
    /// A client that reads nothing of its answer for so long is cut off.
    pub write_timeout: Duration,
    /// The file that keeps the charts over a restart; `None`: they start over.
    pub history: Option<PathBuf>,
    /// The configuration as it is in effect, to be shown.
    pub configuration: Vec<view::Setting>,
    /// The record of changing calls; `None`: there is none.
    pub audit: Option<AuditLog>,
    /// A proxy that says who somebody is; `None`: nobody is believed.
    pub proxy: Option<Proxy>,
    /// What time it is.
    pub clock: Clock,
}

/// The admin side, bound and not yet answering.
#[derive(Debug)]
pub struct Admin {
    listener: TcpListener,
    addr: SocketAddr,
    guard: guard::Guard,
    write_timeout: Duration,
    history: Option<PathBuf>,
    configuration: Vec<view::Setting>,
    audit: Option<AuditLog>,
    clock: Clock,
}

impl Admin {
    /// Binds the address.
    ///
    /// # Errors
    /// The address is not loopback and there is no token (`InvalidInput`), or it cannot be bound.
    pub async fn bind(settings: AdminSettings) -> io::Result<Self> {
        let listen = settings.listen;
        if settings.tokens.is_empty() && !listen.ip().to_canonical().is_loopback() {
            let said = format!(
                "the admin address {listen} can be reached from other machines and there is no \
                 admin token: set `admin.token`, or listen on 127.0.0.1"
            );
            return Err(io::Error::new(io::ErrorKind::InvalidInput, said));
        }
        let listener = TcpListener::bind(listen).await.map_err(|error| {
            let said = format!("the admin address {listen} cannot be bound: {error}");
            io::Error::new(error.kind(), said)
        })?;
        Ok(Self {
            addr: listener.local_addr()?,
            listener,
            guard: guard::Guard::new(settings.tokens, settings.hosts, listen.ip(), settings.proxy),
            write_timeout: settings.write_timeout,
            history: settings.history,
            configuration: settings.configuration,
            audit: settings.audit,
            clock: settings.clock,
        })
    }

    /// Where it is bound.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Answers until `shutdown`; then ends the live pages, lets requests in progress finish within
    /// five seconds and cuts the rest. No task of it is left when this returns.
    pub async fn run(self, daemon: Arc<dyn Daemon>, shutdown: Shutdown) {
        let shared = shared::Shared::new(
            daemon,
            self.guard,
            self.configuration,
            self.audit,
            self.clock,
            shutdown.clone(),
        );
        let shared = Arc::new(shared);
        let router = TowerToHyperService::new(api::router(Arc::clone(&shared)));
        let sampler = events::sample(shared, self.history, shutdown.clone());
        let limits = Limits {
            name: "the admin side",
            connections: CONNECTIONS,
            head_within: HEAD_WITHIN,
            write_within: self.write_timeout,
            refusals_close: true,
        };
        let mut stop = shutdown;
        let server = async {
            let open = net::server::serve(self.listener, limits, None, router, &mut stop).await;
            open.close(CLOSE_WITHIN).await;
        };
        tokio::join!(sampler, server);
    }
}
