//! The live page's events, and the sampler behind speeds and charts: one task looks at the daemon
//! for all who watch, each second, and every ten seconds for the history.

use std::collections::HashSet;
use std::convert::Infallible;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::http::{Response, StatusCode};
use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, watch};
use tokio::time::{Instant, MissedTickBehavior};

use super::answer::{Failure, content};
use super::daemon::{Daemon, Page, Problem};
use super::filter::{Filter, State};
use super::issue::Standing;
use super::shared::{LISTENERS, Shared};
use super::view::{Delivery, Overview, Pulse};
use super::{history, kept};
use crate::shutdown::Shutdown;

/// How often a live page hears.
const PULSE: Duration = Duration::from_secs(1);

/// Deliveries in an event: what fits a page.
const RECENT: usize = 25;

/// How often the history is written to its file.
const KEEP: Duration = Duration::from_secs(300);

/// Of them at least so many are over, if there are.
const OVER: usize = 8;

/// Open deliveries in an event.
const OPEN: usize = 50;

/// Open deliveries that are looked through for these, and how many at once. Behind more than this many the
/// oldest are not known.
const OPEN_READ: usize = 2_000;
const AT_ONCE: usize = 500;

/// Looks at the daemon each second and feeds the live pages until `shutdown`; keeps the history in
/// `file`.
pub(super) async fn sample(shared: Arc<Shared>, file: Option<PathBuf>, mut shutdown: Shutdown) {
    if let Some(file) = &file {
        remember(&shared, file).await;
    }
    let mut pulse = tokio::time::interval(PULSE);
    let mut long = tokio::time::interval(history::EVERY);
    let mut keep = tokio::time::interval_at(Instant::now() + KEEP, KEEP);
    for interval in [&mut pulse, &mut long, &mut keep] {
        interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
    }
    loop {
        let look = tokio::select! {
            () = shutdown.wait() => break,
            _ = pulse.tick() => Look::Second,
            _ = long.tick() => Look::Sample,
            _ = keep.tick() => Look::Keep,
        };
        let look = async {
            match look {
                Look::Second => second(&shared).await,
                Look::Sample => match shared.calls.ask(|daemon| Ok(daemon.overview())).await {
                    Ok(overview) => shared.recorder().take(&overview),
                    Err(error) => tracing::warn!(%error, "no sample for the history"),
                },
                Look::Keep => keep_history(&shared, file.as_deref()).await,
            }
        };
        tokio::select! {
            () = shutdown.wait() => break,
            () = look => {}
        }
    }
    keep_history(&shared, file.as_deref()).await;
}

enum Look {
    Second,
    Sample,
    Keep,
}

/// One look for all who watch; without any, for the speeds alone.
async fn second(shared: &Shared) {
    if shared.pulses.receiver_count() > 0 {
        let event = event(shared).await;
        shared.pulses.send_replace(event);
    } else if let Ok((now, all)) = shared.calls.ask(|daemon| Ok(daemon.destinations())).await {
        shared.speeds().take(now, &all);
    }
}

async fn remember(shared: &Shared, file: &Path) {
    let path = file.to_owned();
    let read = tokio::task::spawn_blocking(move || kept::read(&path)).await;
    match read {
        Ok(Ok(Some(kept))) => shared.recorder().go_on(kept, shared.clock.now()),
        Ok(Ok(None)) => {}
        Ok(Err(error)) => {
            tracing::warn!(file = %file.display(), %error, "the charts start over: their file cannot be read");
        }
        Err(error) => tracing::warn!(%error, "the charts start over"),
    }
}

async fn keep_history(shared: &Shared, file: Option<&Path>) {
    let Some(file) = file else { return };
    let (path, kept) = (file.to_owned(), shared.recorder().kept());
    let written = tokio::task::spawn_blocking(move || kept::write(&path, &kept)).await;
    if let Ok(Err(error)) = written {
        tracing::warn!(file = %file.display(), %error, "the charts could not be kept for a restart");
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
    let looked = shared.calls.ask(move |daemon| {
        let overview = daemon.overview();
        let newest = daemon.deliveries(&Filter::default(), &Page::first(RECENT));
        let open = open(daemon, &overview);
        let newest = newest.and_then(|newest| with_over(daemon, newest.items, &open));
        Ok((overview, newest, open))
    });
    let (mut overview, deliveries, open) = match looked.await {
        Ok(looked) => looked,
        Err(problem) => {
            return Pulse {
                problem: Some(problem.to_string()),
                ..Pulse::default()
            };
        }
    };
    shared.speeds().take(overview.now, &overview.destinations);
    shared.complete(&mut overview);
    let mut problem = None;
    let mut completed = |listed: Result<Vec<Delivery>, Problem>| match listed {
        Ok(mut listed) => {
            shared.complete_deliveries(&overview, &mut listed, true);
            listed
        }
        Err(error) => {
            problem = Some(error.to_string());
            Vec::new()
        }
    };
    let deliveries = completed(deliveries);
    let mut open = completed(open);
    let is_stuck = |one: &Delivery| matches!(one.standing, Standing::Blocked | Standing::Held);
    open.sort_by_key(|one| (!is_stuck(one), one.received));
    open.truncate(OPEN);
    Pulse {
        overview,
        deliveries,
        open,
        problem,
    }
}

/// The open deliveries, newest first; when nothing is open, nothing is looked through.
fn open(daemon: &dyn Daemon, overview: &Overview) -> Result<Vec<Delivery>, Problem> {
    let mut all = Vec::new();
    if overview.destinations.iter().all(|one| one.batches == 0) {
        return Ok(all);
    }
    let filter = Filter {
        state: Some(State::Open),
        ..Filter::default()
    };
    let mut after = None;
    while all.len() < OPEN_READ {
        let limit = AT_ONCE;
        let part = daemon.deliveries(&filter, &Page { after, limit })?;
        all.extend(part.items);
        after = part.next;
        if after.is_none() {
            break;
        }
    }
    Ok(all)
}

/// The newest deliveries with some that are over, when those that are open push them out.
fn with_over(
    daemon: &dyn Daemon,
    newest: Vec<Delivery>,
    open: &Result<Vec<Delivery>, Problem>,
) -> Result<Vec<Delivery>, Problem> {
    let is_over = |one: &&Delivery| !matches!(one.state.as_str(), "waiting" | "sending");
    let few = newest.iter().filter(is_over).count() < OVER;
    let many_open = open.as_ref().is_ok_and(|open| open.len() >= OPEN_READ);
    if newest.len() < RECENT || !few || many_open {
        return Ok(newest);
    }
    let filter = Filter {
        state: Some(State::Done),
        ..Filter::default()
    };
    let over = daemon.deliveries(&filter, &Page::first(OVER))?.items;
    let mut all = newest;
    let known: HashSet<String> = all.iter().map(|one| one.id.clone()).collect();
    all.extend(over.into_iter().filter(|one| !known.contains(&one.id)));
    Ok(all)
}
