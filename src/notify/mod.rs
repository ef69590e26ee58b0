//! Callbacks: Looker shows nothing after a success, so what becomes of a delivery later is told to
//! an address that the operator names.
//!
//! [`Notifier::run`] looks at the same snapshots as the status page, each second, and compares
//! (`watch`, pure); nothing of it stands in the data path. What is new becomes a message and waits
//! in a bounded queue for the one sender (`post`).
//!
//! **Best effort**: a message that is refused, or that cannot be sent in a few tries, is dropped
//! and logged. What happens while the daemon is not running, or between the last look and a crash,
//! is not told. The status page and the API always have the truth.

mod event;
mod post;
mod watch;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::{MissedTickBehavior, interval, timeout};
use url::{Host, Url};

use crate::clock::Clock;
use crate::control::Daemon;
use crate::shutdown::Shutdown;
pub use event::Event;
use event::{What, is_good};
use post::Poster;
pub use watch::Patience;
use watch::Watcher;

/// How often the snapshots are compared.
const LOOK: Duration = Duration::from_secs(1);
/// A look that takes longer is given up: the disk may be stuck.
const LOOK_WITHIN: Duration = Duration::from_secs(10);
/// Messages that may wait for the sender. Events are made at human pace; this is hours of them.
const QUEUE: usize = 256;
/// What waits when the shutdown begins may take so long.
const LAST_WORDS: Duration = Duration::from_secs(3);

/// What is told where.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The addresses; none: nothing is watched.
    pub targets: Vec<Target>,
    /// When something is told.
    pub patience: Patience,
    /// Names of events that are not told.
    pub muted: Vec<String>,
    /// Titles of schedules whose deliveries are told, one with `*` at its end for all that begin so;
    /// none: all.
    pub schedules: Vec<String>,
    /// Where people reach the status page: messages lead there.
    pub page: Option<Url>,
    /// Whom to trust on the way to them.
    pub trust: rustls::ClientConfig,
    /// What time it is.
    pub clock: Clock,
}

/// An address that is told. Its path and query are as good as a password and are never printed.
#[derive(Clone)]
pub struct Target {
    url: Url,
    form: Form,
    good: Good,
}

/// What is told of a delivery that arrived whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Good {
    /// Each one.
    Each,
    /// How many there were, now and then.
    Digest,
    /// Nothing.
    Nothing,
}

/// How a message is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// A JSON object with the event's numbers.
    Json,
    /// `{"text": "..."}`, as Slack and what follows it take it.
    Slack,
}

/// The address is not https, and not http to this machine; or it holds a user name or a fragment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "a callback goes to an https address, or to plain http on this machine, without user name and fragment"
)]
pub struct TargetError;

impl Target {
    /// Checks the address.
    ///
    /// # Errors
    /// See [`TargetError`], which does not quote it.
    pub fn new(url: &str, form: Form, good: Good) -> Result<Self, TargetError> {
        let url = Url::parse(url.trim()).map_err(|_| TargetError)?;
        let local = match url.host() {
            Some(Host::Domain(name)) => name == "localhost",
            Some(Host::Ipv4(address)) => address.is_loopback(),
            Some(Host::Ipv6(address)) => address.is_loopback(),
            None => return Err(TargetError),
        };
        let secure = url.scheme() == "https" || (url.scheme() == "http" && local);
        let bare =
            url.username().is_empty() && url.password().is_none() && url.fragment().is_none();
        (secure && bare)
            .then_some(Self { url, form, good })
            .ok_or(TargetError)
    }

    /// Whether it is told of an event.
    fn wants(&self, event: &Event) -> bool {
        match &event.what {
            What::Finished(delivery) if is_good(delivery) => self.good == Good::Each,
            What::Digest(_) => self.good == Good::Digest,
            _ => true,
        }
    }

    fn host(&self) -> &str {
        self.url.host_str().unwrap_or_default()
    }
}

impl fmt::Debug for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Target")
            .field("host", &self.host())
            .field("form", &self.form)
            .finish_non_exhaustive()
    }
}

/// Watches and tells.
pub struct Notifier {
    targets: Vec<Target>,
    wanted: Wanted,
    patience: Patience,
    poster: Poster,
    look: Duration,
    clock: Clock,
}

impl Notifier {
    /// A notifier that has not begun.
    pub fn new(settings: Settings) -> Self {
        for name in &settings.muted {
            if !Event::NAMES.contains(&name.as_str()) {
                let events = Event::NAMES.join(", ");
                tracing::warn!(name, events, "notify.muted names no event");
            }
        }
        Self {
            targets: settings.targets,
            wanted: Wanted {
                muted: settings.muted,
                schedules: settings.schedules,
            },
            patience: settings.patience,
            poster: Poster::new(settings.trust, settings.page),
            look: LOOK,
            clock: settings.clock,
        }
    }

    /// Works until the shutdown; then looks once more, and gives what waits a few seconds.
    pub async fn run(self, daemon: Arc<dyn Daemon>, shutdown: Shutdown) {
        if self.targets.is_empty() {
            return;
        }
        let (queue, messages) = mpsc::channel(QUEUE);
        let sender = self.poster.run(&self.targets, messages, shutdown.clone());
        let looking = Looking {
            every: self.look,
            patience: self.patience,
            wanted: self.wanted,
            clock: self.clock,
        };
        tokio::join!(look(daemon, queue, looking, shutdown), sender);
    }
}

/// Which events are told at all.
struct Wanted {
    muted: Vec<String>,
    schedules: Vec<String>,
}

impl Wanted {
    fn admits(&self, event: &Event) -> bool {
        let muted = self.muted.iter().any(|name| name == event.name());
        let told = event.schedule().is_none_or(|title| {
            let fits = |wanted: &String| match wanted.strip_suffix('*') {
                Some(begin) => title.starts_with(begin),
                None => title == wanted,
            };
            self.schedules.is_empty() || self.schedules.iter().any(fits)
        });
        !muted && told
    }
}

struct Looking {
    every: Duration,
    patience: Patience,
    wanted: Wanted,
    clock: Clock,
}

async fn look(
    daemon: Arc<dyn Daemon>,
    queue: mpsc::Sender<Event>,
    looking: Looking,
    mut shutdown: Shutdown,
) {
    let mut ticks = interval(looking.every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut watcher = Some(Watcher::new(looking.patience));
    let mut dropped = 0_u64;
    loop {
        let last = tokio::select! {
            () = shutdown.wait() => true,
            _ = ticks.tick() => false,
        };
        // A look that hangs keeps the watcher; the next one starts over, without old news.
        let at_work = watcher.take();
        let mut at_work = at_work.unwrap_or_else(|| Watcher::new(looking.patience));
        let (daemon, now) = (Arc::clone(&daemon), looking.clock.now());
        let looked = tokio::task::spawn_blocking(move || {
            let mut events = at_work.look(&*daemon);
            if last {
                events.extend(at_work.rest(now));
            }
            (at_work, events)
        });
        let within = if last { LAST_WORDS } else { LOOK_WITHIN };
        match timeout(within, looked).await {
            Ok(Ok((at_work, events))) => {
                watcher = Some(at_work);
                let wanted = |event: &Event| looking.wanted.admits(event);
                for event in events.into_iter().filter(wanted) {
                    if queue.try_send(event).is_err() {
                        dropped += 1;
                        tracing::warn!(dropped, "callbacks cannot keep up; one was dropped");
                    }
                }
            }
            Ok(Err(error)) => tracing::error!(%error, "looking for news has failed"),
            Err(_) => tracing::warn!("the daemon did not answer; callbacks look again"),
        }
        if last {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::UnixMillis;

    #[test]
    fn only_https_and_this_machine_are_told_and_no_address_is_printed() {
        let target = |url| Target::new(url, Form::Json, Good::Each);
        for good in [
            "https://hooks.slack.com/services/T0/B0/secret",
            "http://127.0.0.1:9/x?key=secret",
            "http://[::1]:9/",
            "http://localhost/secret",
        ] {
            let printed = format!("{:?}", target(good).unwrap());
            assert!(!printed.contains("secret"), "{printed}");
        }
        for bad in [
            "",
            "hooks.slack.com",
            "http://hooks.slack.com/services/x",
            "http://10.0.0.1/",
            "http://localhost.example.com/",
            "https://user:secret@example.com/",
            "https://example.com/#x",
            "file:///etc/passwd",
        ] {
            let error = target(bad).unwrap_err();
            assert!(!error.to_string().contains("example"), "{bad}");
        }
    }

    #[test]
    fn what_nobody_wants_is_not_told() {
        let delivery = |title: &str, dead: u64| Event {
            at: UnixMillis(1),
            what: What::Finished(Box::new(crate::control::view::Delivery {
                title: title.to_owned(),
                state: "done".to_owned(),
                rows: crate::control::view::Rows {
                    dead,
                    ..Default::default()
                },
                ..Default::default()
            })),
        };
        let digest = Event {
            at: UnixMillis(1),
            what: What::Digest(event::Digest::default()),
        };
        let (good, bad) = (delivery("Daily, EU", 0), delivery("Daily, EU", 5));
        for (choice, wanted) in [
            (Good::Each, [true, true, false]),
            (Good::Digest, [false, true, true]),
            (Good::Nothing, [false, true, false]),
        ] {
            let target = Target::new("https://example.com/", Form::Slack, choice).unwrap();
            let told = [&good, &bad, &digest].map(|event| target.wants(event));
            assert_eq!(told, wanted, "{choice:?}");
        }
        let wanted = |muted: &[&str], schedules: &[&str]| Wanted {
            muted: muted.iter().map(|name| (*name).to_owned()).collect(),
            schedules: schedules.iter().map(|name| (*name).to_owned()).collect(),
        };
        assert!(wanted(&[], &[]).admits(&bad));
        assert!(wanted(&[], &["Daily*"]).admits(&bad));
        assert!(!wanted(&[], &["Daily"]).admits(&bad));
        assert!(
            wanted(&[], &["Daily"]).admits(&digest),
            "it is of no schedule"
        );
        assert!(!wanted(&["delivery_finished"], &[]).admits(&bad));
    }
}
