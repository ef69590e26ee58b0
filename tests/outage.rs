//! mParticle is away, refuses credentials, or refuses single batches; or the outbox is full. The
//! real binary between the stand-ins, and what its operator sees.

mod support;

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::Duration;

use looker_feed::control::view::{DeadLetter, Delivery, Done, Listing, Overview};
use looker_feed::looker::{Looker, Publisher, Shape, audit};
use looker_feed::model::DataType;
use looker_feed::sandbox::{self, Accepted, Fault, Faults, Handle, Rule, Sandbox};
use looker_feed::shutdown::{self, Trigger};
use serde_json::json;
use support::{Daemon, World, down, from_url, refuses};
use tokio::net::TcpSocket;

fn shape(rows: u64, seed: u64) -> Shape {
    Shape {
        rows,
        users: rows / 5,
        seed,
        ..Shape::default()
    }
}

/// The delivery in the `source_request_id` of a batch.
fn delivery_of(accepted: &Accepted) -> &str {
    let id = accepted.id.as_deref().unwrap_or_default();
    id.split_at_checked(32).map_or("", |(delivery, _)| delivery)
}

/// Checks that each of `shapes` has arrived whole, and one after the other.
fn arrived_in_order(mparticle: &Handle, shapes: &[Shape]) {
    let ledger = mparticle.ledger();
    let order: Vec<&str> = ledger.iter().map(delivery_of).collect();
    // Ids sort by the time of receipt.
    assert!(order.is_sorted(), "deliveries overtook each other");
    let mut parts: Vec<&[Accepted]> = ledger
        .chunk_by(|a, b| delivery_of(a) == delivery_of(b))
        .collect();
    assert_eq!(parts.len(), shapes.len());
    for (shape, part) in shapes.iter().zip(parts.drain(..)) {
        let rows = audit(shape, part.iter().map(|accepted| &accepted.batch[..]))
            .unwrap_or_else(|mismatch| panic!("{mismatch}"));
        assert_eq!(rows, shape.rows);
    }
    assert_eq!(mparticle.counts().conflicts, 0);
}

/// Reads the overview until it is as wanted.
async fn overview(daemon: &Daemon, wanted: impl Fn(&Overview) -> bool) -> Overview {
    let look = async || Some(daemon.overview().await).filter(&wanted);
    daemon.until("it comes to that", look).await
}

async fn accepted(daemon: &Daemon, looker: &Publisher, shape: &Shape) {
    let url = looker.publish(shape.clone());
    daemon.accepts(url, DataType::Event).await;
}

/// An mParticle that can begin to exist later, at an address that is kept for it.
struct Late {
    looker: Publisher,
    address: SocketAddr,
    /// Bound and not listening: connections are refused, and nobody else gets the port.
    _place: TcpSocket,
    trigger: Trigger,
    stop: shutdown::Shutdown,
}

impl Late {
    async fn new() -> Self {
        let place = TcpSocket::new_v4().expect("a socket");
        place.set_reuseaddr(true).expect("an option");
        let local = ([127, 0, 0, 1], 0).into();
        place.bind(local).expect("a port for mParticle");
        let (trigger, stop) = shutdown::channel();
        let looker = Looker::bind(local).await.expect("a port for Looker");
        let late = Self {
            looker: looker.publisher(),
            address: place.local_addr().expect("an address"),
            _place: place,
            trigger,
            stop: stop.clone(),
        };
        tokio::spawn(looker.run(stop));
        late
    }

    fn endpoint(&self) -> String {
        format!("http://{}/v2", self.address)
    }

    async fn open(&self, credentials: Option<Vec<(String, String)>>) -> Handle {
        let mparticle = Sandbox::bind(sandbox::Settings {
            listen: self.address,
            batches_per_second: None,
            credentials,
            ..sandbox::Settings::default()
        })
        .await
        .expect("the port that was kept");
        let handle = mparticle.handle();
        tokio::spawn(mparticle.run(self.stop.clone()));
        handle
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn while_mparticle_is_away_intake_goes_on_and_at_its_return_all_arrives_in_order() {
    let world = Late::new().await;
    let home = tempfile::tempdir().unwrap();
    let settings = [
        ("MPARTICLE__BACKOFF_INITIAL", "50ms"),
        ("MPARTICLE__BACKOFF_MAX", "1s"),
    ];
    let daemon = Daemon::start(home.path(), &world.endpoint(), &settings);
    let shapes: Vec<Shape> = (1..=4).map(|n| shape(1_000 + 100 * n, n)).collect();
    accepted(&daemon, &world.looker, &shapes[0]).await;
    let is_down = |seen: &Overview| seen.destinations.iter().any(|one| one.state == "down");
    let seen = overview(&daemon, is_down).await;
    let one = &seen.destinations[0];
    let why = one.why.clone().unwrap_or_default();
    assert!(why.contains("efused"), "{why}");
    assert!(one.next_try.is_some());
    assert!(seen.ready, "{:?}", seen.not_ready);

    // The outage lasts for a while.
    let before = one.requests_sent;
    for shape in &shapes[1..3] {
        accepted(&daemon, &world.looker, shape).await;
    }
    tokio::time::sleep(Duration::from_secs(4)).await;
    let later = overview(&daemon, |_| true).await;
    let probes = later.destinations[0].requests_sent - before;
    assert!((1..=40).contains(&probes), "{probes} probes");
    assert_eq!(later.destinations[0].state, "down");
    assert_eq!(later.destinations[0].deliveries, 3);
    assert_eq!(later.destinations[0].batches_accepted, 0);

    // Something answers, but only to say that it cannot.
    let mparticle = world.open(None).await;
    let rules = vec![Rule::always(down())];
    mparticle.set_faults(Faults { seed: 1, rules }).unwrap();
    accepted(&daemon, &world.looker, &shapes[3]).await;
    let told = overview(&daemon, |seen| {
        let why = seen.destinations[0].why.as_deref();
        why.is_some_and(|why| why.contains("503"))
    });
    assert_eq!(told.await.destinations[0].state, "down");
    assert!(mparticle.counts().requests < 40);

    mparticle.set_faults(Faults::default()).unwrap();
    for delivery in daemon.settled().await {
        assert_eq!(delivery.rows.delivered, delivery.rows_in);
    }
    arrived_in_order(&mparticle, &shapes);
    let log = daemon.log();
    let count = |text| log.lines().filter(|line| line.contains(text)).count();
    assert_eq!(count("is not available"), 1, "{log}");
    assert_eq!(count("takes requests again"), 1, "{log}");
    assert_eq!(count("ERROR"), 0, "{log}");
    assert!(daemon.terminate().success());
    world.trigger.pull();
}

#[tokio::test(flavor = "multi_thread")]
async fn refused_credentials_pause_the_destination_until_a_delivery_brings_new_ones() {
    const OLD: &str = "a secret that was revoked";
    const NEW: &str = "a secret that is good";
    let world = Late::new().await;
    let key = "key-of-the-account";
    let credentials = vec![(key.to_owned(), NEW.to_owned())];
    let mparticle = world.open(Some(credentials)).await;
    let home = tempfile::tempdir().unwrap();
    let shapes = [shape(1_000, 1), shape(500, 2)];
    let send = async |daemon: &Daemon, shape: &Shape, secret: &str| {
        let mut execute = from_url(world.looker.publish(shape.clone()), DataType::Event);
        execute.api_key = key.to_owned();
        execute.api_secret = secret.to_owned();
        let answer = daemon.execute(execute).await;
        assert!(answer.is_success(), "{answer:?}");
    };
    let paused = |seen: &Overview| seen.destinations.iter().any(|one| one.state == "paused");

    // It is probed, and each time refused; a person is told once.
    let settings = [("MPARTICLE__PAUSED_PROBE", "50ms")];
    let daemon = Daemon::start(home.path(), &world.endpoint(), &settings);
    send(&daemon, &shapes[0], OLD).await;
    let seen = overview(&daemon, |seen| {
        let replies = seen.destinations.first().map(|one| &one.replies);
        paused(seen) && replies.is_some_and(|replies| replies["unauthorized"] >= 12)
    })
    .await;
    let one = &seen.destinations[0];
    let why = one.why.clone().unwrap_or_default();
    assert!(why.contains("credentials"), "{why}");
    assert_eq!((one.rows, one.batches_accepted), (1_000, 0));
    let (code, metrics) = daemon.call("GET", "/metrics", "").await;
    assert_eq!(code, 200);
    let metrics = String::from_utf8_lossy(&metrics).into_owned();
    let is_gauge = |line: &str| line.contains("paused") && line.ends_with(" 1");
    assert!(metrics.lines().any(is_gauge), "{metrics}");
    let log = daemon.log();
    let errors: Vec<_> = log.lines().filter(|line| line.contains("ERROR")).collect();
    assert_eq!(errors.len(), 1, "{log}");
    assert!(errors[0].contains("paused"), "{}", errors[0]);
    assert!(daemon.terminate().success());

    // Without probes it is the new secret that ends the pause.
    let settings = [("MPARTICLE__PAUSED_PROBE", "24h")];
    let daemon = Daemon::start(home.path(), &world.endpoint(), &settings);
    overview(&daemon, paused).await;
    assert_eq!(mparticle.counts().batches, 0);
    send(&daemon, &shapes[1], NEW).await;
    daemon.settled().await;
    arrived_in_order(&mparticle, &shapes);
    let log = daemon.log();
    for secret in [OLD, NEW, key] {
        assert!(!log.contains(secret), "{secret:?} stands in the log");
    }
    world.trigger.pull();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_that_is_refused_stands_alone_among_the_dead_letters_until_a_person_acts() {
    let world = World::new(None).await;
    let home = tempfile::tempdir().unwrap();
    let shape = shape(1_000, 3);
    // Two users whose batches mParticle will not have.
    let (mended, given_up) = (shape.row(17).customer_id, shape.row(92).customer_id);
    world.faults([refuses(&mended), refuses(&given_up)]);
    let daemon = Daemon::start(home.path(), &world.endpoint, &[]);
    accepted(&daemon, &world.looker, &shape).await;
    let delivery = daemon.settled().await.remove(0);
    assert_eq!((delivery.rows.dead, delivery.rows.delivered), (10, 990));
    let neighbours = world.mparticle.ledger();
    assert_eq!(neighbours.len(), 198);
    let holds = |text: &[u8], what: &str| memchr::memmem::find(text, what.as_bytes()).is_some();
    for accepted in &neighbours {
        let refused = holds(&accepted.batch, &mended) || holds(&accepted.batch, &given_up);
        assert!(!refused, "{:?}", accepted.id);
    }

    // They are listed, with the server's words, also after a restart.
    assert!(daemon.terminate().success());
    let daemon = Daemon::start(home.path(), &world.endpoint, &[]);
    let letters = async || {
        let path = format!("/api/v1/dead-letters?delivery={}", delivery.id);
        daemon.get::<Listing<DeadLetter>>(&path).await.items
    };
    let listed = letters().await;
    assert_eq!(listed.len(), 2);
    let mut ids = Vec::new();
    for letter in &listed {
        assert_eq!((letter.rows, &letter.delivery), (5, &delivery.id));
        assert!(letter.attempts > 1, "{letter:?}");
        assert!(letter.reason.contains("status 400"), "{letter:?}");
        assert!(letter.first_try <= letter.last_try, "{letter:?}");
        let path = format!("/api/v1/dead-letters/{}", letter.id);
        let one: DeadLetter = daemon.get(&path).await;
        let batch = one.batch.expect("the batch itself");
        let text = batch.0.get();
        let mut both = [&mended, &given_up].into_iter();
        let whose = both.find(|user| holds(text.as_bytes(), user));
        let batch: serde_json::Value = serde_json::from_str(text).unwrap();
        let request = batch["source_request_id"].as_str().unwrap().to_owned();
        ids.push((whose.unwrap().clone(), letter.id.clone(), request));
    }
    ids.sort_by_key(|(user, ..)| *user != mended);
    let [(_, first, request), (_, second, _)] = &ids[..] else {
        panic!("{ids:?}");
    };
    let act = async |what: &str, id: &str| {
        let body = json!({ "ids": [id] }).to_string();
        let path = format!("/api/v1/dead-letters/{what}");
        let (code, answer) = daemon.call("POST", &path, &body).await;
        assert_eq!(code, 200, "{answer:?}");
        serde_json::from_slice::<Done>(&answer).unwrap()
    };

    // Replayed too early, it dies again and is kept again.
    assert_eq!(act("replay", first).await.changed, 1);
    let delivery = daemon.settled().await.remove(0);
    assert_eq!((delivery.rows.dead, letters().await.len()), (10, 2));
    // It has a new name in the list.
    let again = letters().await.into_iter().find(|one| one.id != *second);
    let again = again.expect("the one that died again").id;

    // One is mended and replayed, the other discarded.
    world.faults([refuses(&given_up)]);
    assert_eq!(act("replay", &again).await.changed, 1);
    assert_eq!(act("discard", second).await.changed, 1);
    let delivery = daemon.settled().await.remove(0);
    assert_eq!((delivery.rows.delivered, delivery.rows.dead), (995, 5));
    assert!(letters().await.is_empty());
    assert_eq!(act("replay", second).await.changed, 0, "it is gone");
    let ledger = world.mparticle.ledger();
    assert_eq!(ledger.len(), 199);
    let last = ledger.last().unwrap();
    assert_eq!(last.id.as_ref(), Some(request), "the id that it had");
    assert!(holds(&last.batch, &mended));
    assert_eq!(world.mparticle.counts().conflicts, 0);
}

/// What `looker-feed` prints when it is told `arguments`; fails if it fails.
fn told(daemon: &Daemon, arguments: &[&str]) -> String {
    let (code, out, err) = support::run(arguments, &[("ADMIN_URL", daemon.admin.as_str())]);
    assert_eq!(code, Some(0), "{arguments:?}: {err}");
    out
}

#[tokio::test(flavor = "multi_thread")]
async fn an_mparticle_that_rejects_everything_pauses_itself_and_no_backlog_dies_of_it() {
    let world = World::new(None).await;
    world.faults([Fault::Status {
        status: 400,
        retry_after: None,
        exceeded: None,
        body: Some("something on the way is broken".to_owned()),
    }]);
    let settings = [
        ("MPARTICLE__PAUSE_AFTER_REJECTED", "7"),
        ("MPARTICLE__BACKOFF_INITIAL", "20ms"),
        ("MPARTICLE__PAUSED_PROBE", "100ms"),
    ];
    let daemon = world.daemon(&settings);
    let shapes = [shape(2_000, 1), shape(1_000, 2)];
    for shape in &shapes {
        accepted(&daemon, &world.looker, shape).await;
    }
    let seen = overview(&daemon, |seen| {
        let one = seen.destinations.first();
        one.is_some_and(|one| one.state == "paused" && one.replies["rejected"] > 40)
    })
    .await;
    let one = &seen.destinations[0];
    let why = one.why.clone().unwrap_or_default();
    for words in ["7 batches in a row", "is broken", "cancel", "resume"] {
        assert!(why.contains(words), "{why}");
    }
    assert!(one.next_try.is_some(), "it is probed");
    let dead = |deliveries: &[Delivery]| -> u64 {
        deliveries.iter().map(|delivery| delivery.rows.dead).sum()
    };
    // A request's dead letters are written when all of it is decided.
    assert!(dead(&daemon.deliveries().await) <= 7 * 5);
    assert!(told(&daemon, &["status"]).contains("7 batches in a row"));
    let log = daemon.log();
    let told_once = |line: &&str| line.contains("ERROR") && line.contains("in a row");
    assert_eq!(log.lines().filter(told_once).count(), 1, "{log}");
    assert!(!log.contains("is broken"), "the server's words: {log}");

    // The incident ends, and it goes on by itself; what had died of it is replayed.
    world.faults([]);
    let settled = daemon.settled().await;
    assert_eq!(dead(&settled), 7 * 5);
    told(&daemon, &["dead-letters", "replay", "--all"]);
    let settled = daemon.settled().await;
    assert_eq!(dead(&settled), 0);
    for delivery in settled {
        assert_eq!(delivery.rows.delivered, delivery.rows_in);
    }
    let ledger = world.mparticle.ledger();
    let ids: BTreeSet<&str> = ledger.iter().map(delivery_of).collect();
    assert_eq!(ids.len(), shapes.len());
    for (shape, id) in shapes.iter().zip(ids) {
        let own = ledger.iter().filter(|one| delivery_of(one) == id);
        let rows = audit(shape, own.map(|accepted| &accepted.batch[..]));
        assert_eq!(rows.unwrap(), shape.rows);
    }
    assert_eq!(world.mparticle.counts().conflicts, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_delivery_that_is_wrong_as_a_whole_waits_to_be_resumed_or_cancelled() {
    let world = World::new(None).await;
    let (wrong, good) = (shape(2_000, 1), shape(1_000, 2));
    // The mark that all customer ids of this shape begin with.
    let user = wrong.row(0).customer_id;
    let mark = user.split('-').next().unwrap();
    world.faults([refuses(format!("\"{mark}-"))]);
    let settings = [
        ("MPARTICLE__PAUSE_AFTER_REJECTED", "10"),
        ("MPARTICLE__PAUSED_PROBE", "24h"),
        ("MPARTICLE__BACKOFF_INITIAL", "24h"),
        ("MPARTICLE__BACKOFF_MAX", "24h"),
    ];
    let daemon = world.daemon(&settings);
    accepted(&daemon, &world.looker, &wrong).await;
    accepted(&daemon, &world.looker, &good).await;
    let paused = async || {
        let seen = overview(&daemon, |seen| {
            let one = seen.destinations.first();
            one.is_some_and(|one| one.state == "paused" && one.in_flight == 0)
        })
        .await;
        seen.destinations[0].clone()
    };
    let before = paused().await;
    told(&daemon, &["resume", &before.id]);
    let after = paused().await;
    assert!(after.requests_sent >= before.requests_sent + 10);
    let log = daemon.log();
    let pauses = log.lines().filter(|line| line.contains("in a row"));
    assert_eq!(pauses.count(), 2, "{log}");
    assert_eq!(world.mparticle.counts().batches, 0);

    let deliveries = daemon.deliveries().await;
    let first = deliveries.iter().find(|one| one.rows_in == wrong.rows);
    let first = first.expect("the wrong one").id.clone();
    told(&daemon, &["cancel", &first]);
    let settled = daemon.settled().await;
    let rows = |rows_in: u64| {
        let one = settled.iter().find(|one| one.rows_in == rows_in);
        one.unwrap().rows
    };
    let left = rows(wrong.rows);
    assert!(left.dead <= 20 * 5, "{left:?}");
    assert_eq!(left.dead + left.cancelled, wrong.rows);
    assert_eq!(rows(good.rows).delivered, good.rows);
    arrived_in_order(&world.mparticle, &[good]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operators_pause_outlives_a_restart_and_a_crash_and_resuming_does_too() {
    let world = World::new(None).await;
    let home = tempfile::tempdir().unwrap();
    let shapes = [shape(500, 1), shape(500, 2)];
    let start = || Daemon::start(home.path(), &world.endpoint, &[]);
    let daemon = start();
    accepted(&daemon, &world.looker, &shapes[0]).await;
    daemon.settled().await;
    let id = overview(&daemon, |_| true).await.destinations[0].id.clone();
    assert!(told(&daemon, &["pause", &id]).contains("until it is resumed"));
    let before = overview(&daemon, |_| true).await.destinations[0].clone();

    // It has nothing to send, and is listed all the same, by its name.
    daemon.kill();
    let daemon = start();
    let seen = overview(&daemon, |_| true).await.destinations;
    assert_eq!(seen.len(), 1);
    assert_eq!((&seen[0].id, &seen[0].label), (&id, &before.label));
    assert_eq!(seen[0].state, "paused");
    assert_eq!(seen[0].why, before.why);
    assert!(told(&daemon, &["status"]).contains("operator"));
    accepted(&daemon, &world.looker, &shapes[1]).await;
    assert!(daemon.terminate().success());
    let daemon = start();
    overview(&daemon, |seen| seen.destinations[0].rows == 500).await;
    let sent = world.mparticle.counts().batches;
    assert_eq!(sent, 100, "nothing of what came while it was paused");

    told(&daemon, &["resume", &id]);
    daemon.settled().await;
    arrived_in_order(&world.mparticle, &shapes);
    daemon.kill();
    let daemon = start();
    let seen = overview(&daemon, |_| true).await.destinations;
    assert!(seen.iter().all(|one| one.state != "paused"), "{seen:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_outbox_refuses_before_the_url_is_spent_and_goes_on_sending() {
    let world = World::new(None).await;
    world.faults([down()]);
    let home = tempfile::tempdir().unwrap();
    let shapes = [shape(40_000, 1), shape(1_000, 2)];
    let daemon = Daemon::start(home.path(), &world.endpoint, &[]);
    accepted(&daemon, &world.looker, &shapes[0]).await;
    let bytes = overview(&daemon, |_| true).await.outbox.bytes;
    assert!(bytes > 2_000_000, "{bytes}");
    assert!(daemon.terminate().success());

    // There is room for some of the next delivery, and not for all: it is taken back whole. (The
    // state's file grows a little with each start.)
    let bound = bytes + 1_200_000;
    let settings = [("OUTBOX__MAX_BYTES", &bound.to_string()[..])];
    let daemon = Daemon::start(home.path(), &world.endpoint, &settings);
    let url = world.looker.publish(shape(40_000, 3));
    let answer = daemon.execute(from_url(url, DataType::Event)).await;
    assert!(!answer.is_success(), "{answer:?}");
    let message = answer.message().unwrap_or_default();
    assert!(message.contains("may hold"), "{message}");
    assert_eq!(daemon.deliveries().await.len(), 1);
    let seen = overview(&daemon, |_| true).await;
    assert!(seen.ready && seen.outbox.bytes < bound, "{seen:?}");
    assert!(daemon.terminate().success());

    // There is no room at all: nothing is fetched.
    let settings = [("OUTBOX__MAX_BYTES", &bytes.to_string()[..])];
    let daemon = Daemon::start(home.path(), &world.endpoint, &settings);
    let url = world.looker.publish(shapes[1].clone());
    let answer = daemon.execute(from_url(url.clone(), DataType::Event)).await;
    assert_eq!(answer.status, 200);
    assert!(!answer.is_success(), "{answer:?}");
    let message = answer.message().unwrap_or_default();
    assert!(message.contains("may hold"), "{message}");
    assert!(
        message.contains("when some of it has been sent"),
        "the way out: {message}"
    );
    assert!(world.looker.is_unspent(&url), "the url can be used again");
    let seen = overview(&daemon, |_| true).await;
    assert!(!seen.ready && seen.not_ready.is_some(), "{seen:?}");
    let (code, _) = daemon.call("GET", "/readyz", "").await;
    assert_eq!(code, 503);

    // What is there is sent all the same, and makes room.
    world.faults([]);
    daemon.settled().await;
    overview(&daemon, |seen| seen.ready).await;
    daemon.accepts(url, DataType::Event).await;
    daemon.settled().await;
    arrived_in_order(&world.mparticle, &shapes);
}
