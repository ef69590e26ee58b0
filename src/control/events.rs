//! The live page's events, and the sampler behind the charts: one task looks at the daemon for
//! all who watch, each second while somebody does, and every ten seconds for the history.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::http::{Response, StatusCode};
use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, watch};
use tokio::time::MissedTickBehavior;

use super::answer::{Failure, content};
use super::daemon::Page;
use super::history;
use super::shared::{LISTENERS, Shared};
use super::view::Pulse;
use crate::shutdown::Shutdown;

/// How often a live page hears.
const PULSE: Duration = Duration::from_secs(1);

/// Deliveries in an event: what fits a page.
const RECENT: usize = 25;

/// Samples and feeds the live pages until `shutdown`.
pub(super) async fn sample(shared: Arc<Shared>, mut shutdown: Shutdown) {
    let mut pulse = tokio::time::interval(PULSE);
    let mut long = tokio::time::interval(history::EVERY);
    pulse.set_missed_tick_behavior(MissedTickBehavior::Delay);
    long.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = shutdown.wait() => return,
            _ = pulse.tick() => {
                if shared.pulses.receiver_count() > 0 {
                    let event = tokio::select! {
                        () = shutdown.wait() => return,
                        event = event(&shared) => event,
                    };
                    shared.pulses.send_replace(event);
                }
            }
            _ = long.tick() => {
                let overview = tokio::select! {
                    () = shutdown.wait() => return,
                    overview = shared.calls.ask(|daemon| Ok(daemon.overview())) => overview,
                };
                match overview {
                    Ok(overview) => shared.recorder().take(&overview),
                    Err(error) => tracing::warn!(%error, "no sample for the history"),
                }
            }
        }
    }
}

/// `GET /api/v1/events`.
pub(super) async fn listen(shared: Arc<Shared>) -> Result<Response<Body>, Failure> {
    let place = Arc::clone(&shared.listeners).try_acquire_owned();
    let place = place.map_err(|_| {
        Failure::new(
            StatusCode::SERVICE_UNAVAILABLE,
            format!("{LISTENERS} live pages are open already; close one and try again."),
        )
    })?;
    // Subscribed before the first look, so that no event falls between.
    let receiver = shared.pulses.subscribe();
    let listener = Listener {
        first: Some(event(&shared).await),
        receiver,
        shutdown: shared.shutdown.clone(),
        _place: place,
    };
    let stream = futures::stream::unfold(listener, |mut listener| async move {
        let event = listener.next().await?;
        Some((Ok::<_, Infallible>(event), listener))
    });
    Ok(content("text/event-stream", Body::from_stream(stream)))
}

/// One live page.
struct Listener {
    first: Option<Bytes>,
    receiver: watch::Receiver<Bytes>,
    shutdown: Shutdown,
    _place: OwnedSemaphorePermit,
}

impl Listener {
    /// A page that is slow misses events; it never queues them.
    async fn next(&mut self) -> Option<Bytes> {
        if let Some(first) = self.first.take() {
            return Some(first);
        }
        tokio::select! {
            () = self.shutdown.wait() => None,
            changed = self.receiver.changed() => {
                changed.ok()?;
                Some(self.receiver.borrow_and_update().clone())
            }
        }
    }
}

/// What is now, as one event. JSON text holds no line break, so it is one `data` line.
async fn event(shared: &Shared) -> Bytes {
    let pulse = pulse(shared).await;
    match serde_json::to_string(&pulse) {
        Ok(json) => Bytes::from(format!("event: pulse\ndata: {json}\n\n")),
        Err(error) => {
            tracing::warn!(%error, "a live event could not be written");
            Bytes::from_static(b": no event\n\n")
        }
    }
}

async fn pulse(shared: &Shared) -> Pulse {
    let page = Page {
        after: None,
        limit: RECENT,
    };
    let looked = shared
        .calls
        .ask(move |daemon| Ok((daemon.overview(), daemon.deliveries(&page))))
        .await;
    let (mut overview, deliveries) = match looked {
        Ok(looked) => looked,
        Err(problem) => {
            return Pulse {
                problem: Some(problem.to_string()),
                ..Pulse::default()
            };
        }
    };
    shared.complete(&mut overview);
    let (mut deliveries, problem) = match deliveries {
        Ok(listing) => (listing.items, None),
        Err(problem) => (Vec::new(), Some(problem.to_string())),
    };
    super::estimate::deliveries(&overview, &mut deliveries);
    Pulse {
        overview,
        deliveries,
        problem,
    }
}
