//! A start with very many small deliveries waiting: how long it takes, and how soon the daemon answers an
//! operator then.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use looker_feed::clock::UnixMillis;
use looker_feed::model::{DeliveryId, DestinationId};
use looker_feed::mparticle::client::Account;
use looker_feed::outbox::{NewDelivery, Outbox, Settings};
use looker_feed::seal::{Key, Keyring};
use url::Url;

use crate::daemon::Daemon;
use crate::kit::{commit, made::requests_of, shape, whole};
use crate::world::World;

/// Nobody listens there: what waits goes on waiting.
const NOWHERE: &str = "http://127.0.0.1:1/v2";
/// What the daemon seals credentials for.
const ACCOUNT_CONTEXT: &[u8] = b"looker-feed account v1";
/// Commits at once share syncs.
const THREADS: u64 = 8;
const ASKED: usize = 20;
/// What the first page shows, and the lists behind it.
const PAGES: [&str; 4] = [
    "/",
    "/api/v1/overview",
    "/api/v1/deliveries",
    "/api/v1/schedules",
];

/// What was seen.
#[derive(Clone, Copy, Debug)]
pub struct Backlog {
    pub deliveries: u64,
    /// From the start of the process until its ports are open.
    pub ready: Duration,
    /// The slowest of [`PAGES`], each by its median.
    pub page: Duration,
    pub metrics: Duration,
    pub memory: u64,
}

pub fn run(home: &Path, deliveries: u64) -> Backlog {
    let directory = tempfile::tempdir_in(home).expect("a directory");
    fill(directory.path(), deliveries);
    let world = World::new(None);
    let start = Instant::now();
    let daemon = Daemon::start(directory.path(), NOWHERE, 270);
    let ready = start.elapsed();
    let ask = |path: &str| {
        let times = (0..ASKED).map(|_| {
            let start = Instant::now();
            let answer = world.runtime.block_on(daemon.get(path));
            assert!(!answer.is_empty(), "{path} is answered");
            start.elapsed()
        });
        crate::kit::median(times)
    };
    let page = PAGES.iter().map(|path| ask(path)).max();
    let metrics = ask("/metrics");
    let overview = world.runtime.block_on(daemon.get("/api/v1/overview"));
    let overview: looker_feed::control::view::Overview =
        serde_json::from_slice(&overview).expect("an overview");
    assert_eq!(overview.destinations.len(), 1);
    Backlog {
        deliveries,
        ready,
        page: page.unwrap_or_default(),
        metrics,
        memory: daemon.peak_memory(),
    }
}

/// Commits as many deliveries of one request each to the outbox that a daemon in `home` will have.
fn fill(home: &Path, deliveries: u64) {
    let request = requests_of(&whole(&shape(100)), 1).remove(0);
    let (key, _) = Key::load_or_create(&home.join("outbox.key")).expect("a key file");
    let keys = Arc::new(Keyring::new(key, Vec::new()));
    let endpoint: Url = NOWHERE.parse().expect("a url");
    let account = Account::new(endpoint, "key".to_owned(), "secret".to_owned());
    let account = account.expect("a loopback address").encode();
    let account = keys.seal_text(&account, ACCOUNT_CONTEXT).expect("a cipher");
    let settings = Settings {
        reserve_bytes: 0,
        ..Settings::new(home.join("outbox"), keys)
    };
    let outbox = Outbox::open(settings).expect("the outbox opens");
    let number = AtomicU64::new(0);
    std::thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                loop {
                    let number = number.fetch_add(1, Ordering::Relaxed);
                    if number >= deliveries {
                        return;
                    }
                    let new = NewDelivery {
                        id: DeliveryId(u128::from(number).to_be_bytes()),
                        destination: DestinationId([1; 16]),
                        destination_label: "bench".to_owned(),
                        account: account.clone(),
                        webhook: Some(format!("webhook {number}")),
                        title: format!("Schedule {}", number % 200),
                        link: None,
                        received: UnixMillis::now(),
                    };
                    let staging = outbox.begin(new).expect("room");
                    commit(staging, std::slice::from_ref(&request));
                }
            });
        }
    });
    outbox.close();
}
