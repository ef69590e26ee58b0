//! The drain with the real outbox and a scripted transport, under paused time.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::future::BoxFuture;
use looker_feed::clock::UnixMillis;
use looker_feed::drain::{Drain, Handle, Reply, Request, SendState, Settings, Transport};
use looker_feed::model::{DeliveryId, DestinationId};
use looker_feed::outbox::{self, DeadFilter, Disk, Entry, NewDelivery, Op, Outbox, Slice, Totals};
use looker_feed::seal::{Key, Keyring};
use looker_feed::shutdown::{self, Trigger};
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;
use tokio::time::Instant;

const ONE: DestinationId = DestinationId([1; 16]);
const TWO: DestinationId = DestinationId([2; 16]);

/// A transport that does what a closure says, and keeps a record.
struct Script {
    play: Box<dyn Fn(Request) -> BoxFuture<'static, Reply> + Send + Sync>,
    log: Mutex<Vec<(Instant, Request)>>,
}

impl Script {
    fn new<F, R>(play: F) -> Arc<Self>
    where
        F: Fn(Request) -> R + Send + Sync + 'static,
        R: Future<Output = Reply> + Send + 'static,
    {
        Arc::new(Self {
            play: Box::new(move |request| Box::pin(play(request))),
            log: Mutex::default(),
        })
    }

    fn requests(&self) -> usize {
        self.log.lock().unwrap().len()
    }

    /// The first byte of the account of each request.
    fn accounts(&self) -> Vec<u8> {
        let log = self.log.lock().unwrap();
        log.iter().map(|(_, request)| request.account[0]).collect()
    }

    fn batches(&self) -> Vec<String> {
        let log = self.log.lock().unwrap();
        log.iter().flat_map(|(_, request)| texts(request)).collect()
    }
}

impl Transport for Script {
    fn send(&self, request: Request) -> impl Future<Output = Reply> + Send {
        let entry = (Instant::now(), request.clone());
        self.log.lock().unwrap().push(entry);
        (self.play)(request)
    }
}

fn texts(request: &Request) -> Vec<String> {
    let text = |batch: &bytes::Bytes| String::from_utf8(batch.to_vec()).unwrap();
    request.batches.iter().map(text).collect()
}

async fn latency() {
    tokio::time::sleep(Duration::from_millis(50)).await;
}

fn accepted() -> Reply {
    Reply::Accepted { percent_used: None }
}

/// A drain at work.
struct Running {
    outbox: Outbox,
    handle: Handle,
    trigger: Trigger,
    task: JoinHandle<()>,
    directory: Option<tempfile::TempDir>,
}

impl Running {
    fn start(outbox: Outbox, settings: Settings, transport: Arc<Script>) -> Self {
        let (trigger, shutdown) = shutdown::channel();
        let drain = Drain::new(settings, outbox.clone(), transport).unwrap();
        let handle = drain.handle();
        Self {
            outbox,
            handle,
            trigger,
            task: tokio::spawn(drain.run(shutdown)),
            directory: None,
        }
    }

    fn fresh(transport: &Arc<Script>) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let outbox = open(directory.path());
        let mut running = Self::start(outbox, settings(), Arc::clone(transport));
        running.directory = Some(directory);
        running
    }

    /// Shuts it down. The directory, if it is the test's own, stays until it is dropped.
    async fn stop(self) -> (Outbox, Option<tempfile::TempDir>) {
        self.trigger.pull();
        self.task.await.unwrap();
        (self.outbox, self.directory)
    }

    /// Waits until a delivery has settled whole.
    async fn settled(&self, delivery: DeliveryId) {
        let mut changes = self.outbox.subscribe();
        while !self.outbox.delivery(delivery).unwrap().unwrap().settled {
            changes.changed().await.unwrap();
        }
    }

    /// Lets virtual time pass until this holds.
    async fn until(&self, holds: impl Fn(&Self) -> bool) {
        for _ in 0..100_000 {
            if holds(self) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        panic!("it never holds");
    }

    fn standing(&self, destination: DestinationId) -> Option<SendState> {
        Some(self.handle.snapshot(destination)?.state)
    }
}

fn settings() -> Settings {
    Settings {
        seed: Some(1),
        ..Settings::default()
    }
}

fn open(path: &Path) -> Outbox {
    open_on(path, Disk::default())
}

fn open_on(path: &Path, disk: Disk) -> Outbox {
    let keys = Arc::new(Keyring::new(Key::new([1; 32]), Vec::new()));
    let settings = outbox::Settings {
        reserve_bytes: 0,
        ..outbox::Settings::new(path, keys)
    };
    Outbox::open_on(settings, disk).unwrap()
}

/// Commits a delivery of entries with so many slices; slice `s` of entry `e` is `"<id>:<e>:<s>"`.
fn commit(
    outbox: &Outbox,
    id: u8,
    destination: DestinationId,
    account: u8,
    entries: &[usize],
) -> DeliveryId {
    let delivery = DeliveryId([id; 16]);
    let mut staging = outbox
        .begin(NewDelivery {
            id: delivery,
            destination,
            destination_label: format!("destination {}", destination.0[0]),
            account: vec![account],
            webhook: None,
            title: "test".into(),
            link: None,
            received: UnixMillis::now(),
        })
        .unwrap();
    let mut rows = 0;
    for (entry, &count) in entries.iter().enumerate() {
        let text = |slice| format!("\"{id}:{entry}:{slice}\"");
        let texts: Vec<_> = (0..count).map(text).collect();
        let slices: Vec<_> = texts.iter().map(slice).collect();
        let entry = Entry {
            slices: &slices,
            route: 0,
        };
        staging.append(entry).unwrap();
        rows += count as u64;
    }
    let totals = Totals {
        rows_in: rows,
        users: rows,
        batches: rows,
        requests: entries.len() as u64,
        ..Totals::default()
    };
    let changes = outbox.subscribe();
    staging.commit(totals).unwrap();
    // The outbox's own thread tells of it a moment after the commit has returned. Paused time must
    // not run ahead of that thread, so this does not await.
    while !changes.has_changed().unwrap() {
        std::thread::yield_now();
    }
    delivery
}

fn slice(text: &String) -> Slice<'_> {
    let bytes = text.as_bytes();
    Slice { bytes, rows: 1 }
}

fn check_delivered(outbox: &Outbox, delivery: DeliveryId, rows: u64) {
    let state = outbox.delivery(delivery).unwrap().unwrap();
    assert!(state.settled);
    assert_eq!((state.delivered.rows, state.dead.rows), (rows, 0));
}

#[tokio::test(start_paused = true)]
async fn deliveries_arrive_whole_and_one_after_the_other() {
    let script = Script::new(|_| async {
        latency().await;
        accepted()
    });
    let running = Running::fresh(&script);
    let first = commit(&running.outbox, 1, ONE, 0, &[20; 40]);
    let second = commit(&running.outbox, 2, ONE, 0, &[20; 30]);
    let third = commit(&running.outbox, 3, ONE, 0, &[1]);
    for delivery in [first, second, third] {
        running.settled(delivery).await;
    }
    let sent = script.batches();
    assert_eq!(sent.len(), 40 * 20 + 30 * 20 + 1, "each batch once");
    assert_eq!(BTreeSet::from_iter(&sent).len(), sent.len());
    let order: Vec<_> = sent.iter().map(|text| text.as_bytes()[1]).collect();
    assert!(order.is_sorted(), "no delivery is overtaken");
    check_delivered(&running.outbox, first, 800);
    check_delivered(&running.outbox, second, 600);
    check_delivered(&running.outbox, third, 1);

    let snapshot = running.handle.snapshot(ONE).unwrap();
    let record = &snapshot.record;
    assert_eq!((record.requests, record.batches), (71, 1_401));
    assert_eq!(record.replies.accepted, 71);
    assert_eq!(record.accepted_batches, 1_401);
    assert_eq!(snapshot.label, "destination 1");
    assert!(snapshot.latency_p99 >= Some(Duration::from_millis(50)));
    assert!(running.outbox.destinations().unwrap().is_empty());
    running.stop().await;
}

#[tokio::test(start_paused = true)]
async fn small_deliveries_wait_for_no_settlement_and_a_busy_line_shares_its_syncs() {
    const SMALL: u8 = 100;
    let syncs = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&syncs);
    let disk = Disk::with_hook(move |op| {
        if matches!(op, Op::Sync(_)) {
            counted.fetch_add(1, Ordering::Relaxed);
        }
        Ok(())
    });
    let directory = tempfile::tempdir().unwrap();
    let outbox = open_on(directory.path(), disk);
    let small = |id| commit(&outbox, id, ONE, 0, &[1]);
    let deliveries: Vec<_> = (1..=SMALL).map(small).collect();
    let before = syncs.load(Ordering::Relaxed);
    let begun = Instant::now();
    let script = Script::new(|_| async {
        tokio::time::sleep(Duration::from_millis(1)).await;
        accepted()
    });
    let mut unpaced = settings();
    unpaced.lane.pace.batches_per_second = 0;
    let running = Running::start(outbox, unpaced, script);
    for delivery in deliveries {
        running.settled(delivery).await;
    }
    // It is the replies' time, and not that of a rest after each.
    let (waited, most) = (begun.elapsed(), 5 * Duration::from_millis(SMALL.into()));
    assert!(waited < most, "{waited:?}");
    let small = syncs.load(Ordering::Relaxed) - before;
    assert!(small <= 2 * usize::from(SMALL), "{small} syncs");

    let before = syncs.load(Ordering::Relaxed);
    let busy = commit(&running.outbox, SMALL + 1, ONE, 0, &[1; 400]);
    running.settled(busy).await;
    let busy = syncs.load(Ordering::Relaxed) - before;
    assert!(busy <= 400 / 8, "{busy} syncs");
    running.stop().await;
}

#[tokio::test(start_paused = true)]
async fn requests_of_a_delivery_fly_in_parallel_up_to_the_limit() {
    let gate = Arc::new(Semaphore::new(0));
    let inside = Arc::clone(&gate);
    let script = Script::new(move |_| {
        let gate = Arc::clone(&inside);
        async move {
            gate.acquire().await.unwrap().forget();
            accepted()
        }
    });
    let running = Running::fresh(&script);
    let delivery = commit(&running.outbox, 1, ONE, 0, &[1; 30]);
    running.until(|_| script.requests() == 8).await;
    // A minute later there are still no more than eight, and none has been settled.
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(script.requests(), 8);
    assert_eq!(running.handle.snapshot(ONE).unwrap().in_flight, 8);
    let state = running.outbox.delivery(delivery).unwrap().unwrap();
    assert_eq!(state.delivered.rows, 0);
    assert!(state.in_flight.rows <= 16, "claimed ahead just enough");
    gate.add_permits(30);
    running.settled(delivery).await;
    check_delivered(&running.outbox, delivery, 30);
    running.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_destination_that_is_down_does_not_hold_up_another() {
    let script = Script::new(|request| async move {
        latency().await;
        match request.destination {
            ONE => Reply::unavailable("status 503"),
            _ => accepted(),
        }
    });
    let running = Running::fresh(&script);
    let stuck = commit(&running.outbox, 1, ONE, 0, &[20; 40]);
    let free = commit(&running.outbox, 2, TWO, 0, &[20; 40]);
    running.settled(free).await;
    // Down, and between two probes.
    let rests = |running: &Running| {
        let snapshot = running.handle.snapshot(ONE).unwrap();
        matches!(snapshot.state, SendState::Down { .. }) && snapshot.in_flight == 0
    };
    running.until(rests).await;
    assert!(!running.outbox.delivery(stuck).unwrap().unwrap().settled);

    let before = script.requests();
    let asked = Instant::now();
    assert!(running.handle.retry_now(ONE).unwrap());
    running.until(|_| script.requests() > before).await;
    let waited = asked.elapsed();
    assert!(waited < Duration::from_secs(8), "the pace, and no more");
    running.stop().await;
}

#[tokio::test(start_paused = true)]
async fn bad_batches_become_dead_letters_and_a_replay_sends_the_same_bytes() {
    let mended = Arc::new(Mutex::new(false));
    let state = Arc::clone(&mended);
    let script = Script::new(move |request| {
        let mended = *state.lock().unwrap();
        async move {
            latency().await;
            let bad = |text: &String| text.ends_with(":7\"") || text.ends_with(":11\"");
            if !mended && texts(&request).iter().any(bad) {
                let words = "BAD_REQUEST: no such event type".to_owned();
                return Reply::Rejected { status: 400, words };
            }
            accepted()
        }
    });
    let running = Running::fresh(&script);
    let delivery = commit(&running.outbox, 1, ONE, 0, &[20; 5]);
    running.settled(delivery).await;
    let state = running.outbox.delivery(delivery).unwrap().unwrap();
    assert_eq!((state.delivered.rows, state.dead.rows), (90, 10));
    let filter = DeadFilter::default();
    let page = running.outbox.dead_letters(filter, None, 100).unwrap();
    assert_eq!(page.letters.len(), 10);
    for letter in &page.letters {
        let reason = "rejected with status 400: BAD_REQUEST: no such event type";
        assert_eq!(letter.reason, reason);
        assert!(letter.attempts >= 5 && letter.first_try <= letter.last_try);
    }
    let record = running.handle.snapshot(ONE).unwrap().record;
    assert_eq!(record.dead_letters, 10);

    *mended.lock().unwrap() = true;
    let before = script.requests();
    let letters: Vec<_> = page.letters.iter().map(|letter| letter.id).collect();
    running.outbox.replay(&letters).unwrap();
    running.settled(delivery).await;
    check_delivered(&running.outbox, delivery, 100);
    let log = script.log.lock().unwrap().clone();
    let mut replayed: Vec<_> = log[before..].iter().flat_map(|(_, p)| texts(p)).collect();
    replayed.sort();
    let mut want: Vec<_> = (0..5)
        .flat_map(|entry| [11, 7].map(|slice| format!("\"1:{entry}:{slice}\"")))
        .collect();
    want.sort();
    assert_eq!(replayed, want);
    running.stop().await;
}

#[tokio::test(start_paused = true)]
async fn refused_credentials_pause_it_and_a_delivery_with_new_ones_resumes_it() {
    let script = Script::new(|request| async move {
        latency().await;
        if request.account[0] == 0 {
            let words = "bad key".to_owned();
            return Reply::Unauthorized { status: 401, words };
        }
        accepted()
    });
    let running = Running::fresh(&script);
    let old = commit(&running.outbox, 1, ONE, 0, &[20; 10]);
    let paused =
        |running: &Running| matches!(running.standing(ONE), Some(SendState::Paused { .. }));
    running.until(paused).await;
    let snapshot = running.handle.snapshot(ONE).unwrap();
    assert!(snapshot.record.last_error.unwrap().contains("bad key"));
    let begun = Instant::now();
    let new = commit(&running.outbox, 2, ONE, 1, &[20; 10]);
    running.settled(old).await;
    running.settled(new).await;
    let waited = begun.elapsed();
    assert!(waited < Duration::from_secs(60), "{waited:?}");
    let accounts = script.accounts();
    assert!(accounts.is_sorted(), "the old account is not used again");
    check_delivered(&running.outbox, old, 200);
    check_delivered(&running.outbox, new, 200);
    running.stop().await;
}

#[tokio::test(start_paused = true)]
async fn an_operators_pause_works_before_there_is_work() {
    let script = Script::new(|_| async { accepted() });
    let running = Running::fresh(&script);
    assert!(!running.handle.retry_now(ONE).unwrap(), "not known");
    running.handle.pause(ONE).unwrap();
    let held = commit(&running.outbox, 1, ONE, 0, &[1; 3]);
    let free = commit(&running.outbox, 2, TWO, 0, &[1; 3]);
    running.settled(free).await;
    tokio::time::sleep(Duration::from_secs(3_600)).await;
    assert_eq!(script.requests(), 3, "only those of the other");
    assert!(matches!(
        running.standing(ONE),
        Some(SendState::Paused { probe_at: None, .. })
    ));
    assert!(running.handle.resume(ONE).unwrap());
    running.settled(held).await;
    running.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_transport_that_panics_or_hangs_loses_nothing() {
    let calls = AtomicUsize::new(0);
    let script = Script::new(move |_| {
        let call = calls.fetch_add(1, Ordering::Relaxed);
        async move {
            latency().await;
            match call {
                0 => panic!("on purpose"),
                1 => std::future::pending().await,
                _ => accepted(),
            }
        }
    });
    let running = Running::fresh(&script);
    let delivery = commit(&running.outbox, 1, ONE, 0, &[1; 20]);
    running.settled(delivery).await;
    check_delivered(&running.outbox, delivery, 20);
    let replies = running.handle.snapshot(ONE).unwrap().record.replies;
    assert_eq!((replies.unavailable, replies.accepted), (2, 20));
    running.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_shutdown_lets_requests_land_and_gives_the_rest_back() {
    let script = Script::new(|_| async {
        tokio::time::sleep(Duration::from_secs(5)).await;
        accepted()
    });
    let running = Running::fresh(&script);
    let delivery = commit(&running.outbox, 1, ONE, 0, &[1; 100]);
    running.until(|_| script.requests() >= 8).await;
    let begun = Instant::now();
    let sent = script.requests() as u64;
    let (outbox, _directory) = running.stop().await;
    assert!(begun.elapsed() <= Duration::from_secs(6));
    assert_eq!(script.requests() as u64, sent, "nothing more was sent");
    let state = outbox.delivery(delivery).unwrap().unwrap();
    assert_eq!(state.delivered.rows, sent, "what landed is settled");
    assert_eq!((state.waiting.rows, state.in_flight.rows), (100 - sent, 0));
}

#[tokio::test(start_paused = true)]
async fn a_shutdown_does_not_wait_longer_than_its_deadline() {
    let script = Script::new(|_| std::future::pending());
    let running = Running::fresh(&script);
    let delivery = commit(&running.outbox, 1, ONE, 0, &[1; 100]);
    running.until(|_| script.requests() == 8).await;
    let begun = Instant::now();
    let (outbox, _directory) = running.stop().await;
    let deadline = settings().deadline;
    assert!(begun.elapsed() >= deadline && begun.elapsed() < deadline * 2);
    let state = outbox.delivery(delivery).unwrap().unwrap();
    assert_eq!((state.waiting.rows, state.in_flight.rows), (100, 0));

    // The next drain sends all of it.
    let script = Script::new(|_| async { accepted() });
    let again = Running::start(outbox, settings(), Arc::clone(&script));
    again.settled(delivery).await;
    check_delivered(&again.outbox, delivery, 100);
    again.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_random_server_and_restarts_lose_and_double_nothing() {
    for seed in 0..10 {
        let directory = tempfile::tempdir().unwrap();
        let rng = Arc::new(Mutex::new(fastrand::Rng::with_seed(seed)));
        let taken = Arc::new(Mutex::new(BTreeMap::<String, usize>::new()));
        let (server_rng, server_taken) = (Arc::clone(&rng), Arc::clone(&taken));
        let script = Script::new(move |request| {
            let (latency, mood) = {
                let mut rng = server_rng.lock().unwrap();
                (Duration::from_millis(rng.u64(1..2_000)), rng.u8(0..20))
            };
            let taken = Arc::clone(&server_taken);
            async move {
                let take = || {
                    let mut taken = taken.lock().unwrap();
                    for text in texts(&request) {
                        *taken.entry(text).or_default() += 1;
                    }
                };
                tokio::time::sleep(latency).await;
                match mood {
                    0 => Reply::unavailable("status 500"),
                    // Taken, but the reply is lost.
                    1 => {
                        take();
                        Reply::unavailable("connection reset")
                    }
                    2 => Reply::Throttled {
                        retry_after: Some(Duration::from_secs(1)),
                        exceeded: None,
                    },
                    _ => {
                        take();
                        accepted()
                    }
                }
            }
        });
        let mut outbox = open(directory.path());
        let deliveries = [
            commit(&outbox, 1, ONE, 0, &[5; 60]),
            commit(&outbox, 2, TWO, 0, &[5; 60]),
            commit(&outbox, 3, ONE, 0, &[5; 60]),
        ];
        for _ in 0..4 {
            let running = Running::start(outbox, settings(), Arc::clone(&script));
            let pause = Duration::from_millis(rng.lock().unwrap().u64(0..6_000));
            tokio::time::sleep(pause).await;
            running.stop().await.0.close();
            outbox = open(directory.path());
        }
        let running = Running::start(outbox, settings(), Arc::clone(&script));
        for delivery in deliveries {
            running.settled(delivery).await;
            check_delivered(&running.outbox, delivery, 300);
        }
        running.stop().await;
        let arrived = taken.lock().unwrap().len();
        assert_eq!(arrived, 900, "seed {seed}: each batch arrived");
    }
}
