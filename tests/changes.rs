//! Schedules that send only changes, night after night, through the real binary between the
//! stand-ins; what mParticle has in the end is compared with the last result.

#[path = "postgres/server.rs"]
#[allow(dead_code)] // Each test program uses its own part of this.
mod server;
#[path = "support/shared.rs"]
mod shared;
mod support;

use std::collections::{BTreeMap, BTreeSet};

use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use looker_feed::config::Secret;
use looker_feed::control::view;
use looker_feed::intake;
use serde_json::{Value, json};
use shared::Shared;
use support::{Daemon, SECRET, World, refuses};

/// Users and what they spent.
type Night = BTreeMap<u32, u32>;

fn night(users: std::ops::Range<u32>) -> Night {
    users.map(|user| (user, 10)).collect()
}

fn document(night: &Night, order: &mut fastrand::Rng) -> String {
    let cell = |value: Value| json!({"value": value});
    let mut rows: Vec<Value> = night
        .iter()
        .map(|(user, spent)| {
            json!({
                "u.id": cell(json!(user)),
                "u.mail": cell(json!(format!("user{user}@example.com"))),
                "u.spent": cell(json!(spent)),
            })
        })
        .collect();
    order.shuffle(&mut rows);
    let fields = [
        ("u.id", "mp_customer_id"),
        ("u.mail", "mp_email"),
        ("u.spent", "mp_user_attribute"),
    ]
    .map(|(name, tag)| json!({"name": name, "tags": [tag]}));
    json!({"fields": {"dimensions": fields}, "data": rows}).to_string()
}

/// A schedule with its stand-ins and its daemon.
struct Schedule {
    world: World,
    home: tempfile::TempDir,
    daemon: Option<Daemon>,
    order: fastrand::Rng,
    form: Value,
    plan: Value,
    settings: Vec<(&'static str, &'static str)>,
    /// The outbox that each daemon shares with the one before, which it follows.
    shared: Option<Shared>,
    daemons: usize,
    /// Batches that had arrived before the last night.
    before: usize,
}

impl Schedule {
    async fn new(form: Value) -> Self {
        Self::on(None, form).await
    }

    async fn on(shared: Option<Shared>, form: Value) -> Self {
        let seed = fastrand::u64(..);
        println!("seed {seed}");
        let mut all =
            json!({"data_type": "user_data", "environment": "development", "only_changes": "yes"});
        let members = all.as_object_mut().expect("an object");
        members.extend(form.as_object().cloned().expect("an object"));
        let mut schedule = Self {
            world: World::new(None).await,
            home: tempfile::tempdir().expect("a directory"),
            daemon: None,
            order: fastrand::Rng::with_seed(seed),
            form: all,
            plan: json!("7"),
            settings: vec![("MEMORY__GROUP_BUDGET", "64KiB")],
            shared,
            daemons: 0,
            before: 0,
        };
        schedule.start();
        schedule
    }

    fn start(&mut self) {
        let mut settings = self.settings.clone();
        let mut home = self.home.path().to_owned();
        if let Some(shared) = &self.shared {
            settings.extend(shared.settings());
            // Another machine.
            self.daemons += 1;
            home.push(self.daemons.to_string());
            std::fs::create_dir(&home).expect("a directory");
        }
        let daemon = Daemon::start(&home, &self.world.endpoint, &settings);
        self.daemon = Some(daemon);
    }

    fn daemon(&self) -> &Daemon {
        self.daemon.as_ref().expect("a daemon")
    }

    fn kill(&mut self) {
        self.daemon.take().expect("a daemon").kill();
    }

    fn restart(&mut self) {
        assert!(self.daemon.take().expect("a daemon").terminate().success());
        self.start();
    }

    /// Has Looker deliver a result; the message if it is refused.
    async fn deliver(&mut self, night: &Night) -> Result<(), String> {
        self.before = self.world.batches().len();
        let document = document(night, &mut self.order);
        let url = self.world.looker.publish_bytes(document);
        let plan = json!({"scheduled_plan_id": self.plan, "title": "Nightly", "download_url": url.as_str()});
        let body = json!({
            "type": "query",
            "scheduled_plan": plan,
            "attachment": null,
            "data": {"apiKey": "key-of-the-account", "apiSecret": "secret-of-it"},
            "form_params": self.form,
        });
        let token = intake::new_key(&Secret::new(SECRET.to_owned())).expect("random bytes");
        let path = format!("{}actions/mparticle/execute", self.daemon().hub);
        let request = hyper::Request::post(path)
            .header("authorization", format!("Token token=\"{token}\""))
            .header("content-type", "application/json")
            .body(Full::new(Bytes::from(body.to_string())))
            .expect("a request");
        let client = Client::builder(TokioExecutor::new()).build_http::<Full<Bytes>>();
        let reply = client.request(request).await.expect("the hub answers");
        let body = reply.into_body().collect().await.expect("a whole answer");
        let answer: Value = serde_json::from_slice(&body.to_bytes()).expect("JSON");
        let message = answer["looker"]["message"].as_str().unwrap_or_default();
        match answer["looker"]["success"] == true {
            true => Ok(()),
            false => Err(message.to_owned()),
        }
    }

    /// A night that goes well up to mParticle: the delivery once it has settled.
    async fn night(&mut self, night: &Night) -> view::Delivery {
        self.deliver(night).await.expect("it is taken");
        let delivery = self.daemon().settled().await.remove(0);
        let rows = delivery.rows;
        assert_eq!(rows.total(), delivery.rows_in, "{rows:?}");
        let sent = delivery.rows_in - rows.unchanged;
        assert_eq!(rows.delivered + rows.dead, sent, "{rows:?}");
        delivery
    }

    /// Users who were told something in the last night.
    fn told(&self) -> BTreeSet<u32> {
        let batches = self.world.batches().into_iter().skip(self.before);
        batches.map(|batch| user(&parse(&batch))).collect()
    }

    /// What mParticle has, from all batches in the order in which they came.
    fn profiles(&self) -> BTreeMap<u32, Value> {
        let mut profiles: BTreeMap<u32, Value> = BTreeMap::new();
        for batch in self.world.batches() {
            let batch = parse(&batch);
            let profile = profiles.entry(user(&batch)).or_insert_with(|| json!({}));
            let set = batch["user_attributes"].as_object().expect("attributes");
            profile
                .as_object_mut()
                .expect("an object")
                .extend(set.clone());
        }
        profiles
    }

    fn check(&self, night: &Night, audience: Option<&str>) {
        let profiles = self.profiles();
        for (user, spent) in night {
            assert_eq!(profiles[user]["looker_u.spent"], *spent, "user {user}");
        }
        for (user, profile) in &profiles {
            if let Some(audience) = audience {
                assert_eq!(profile[audience], night.contains_key(user), "user {user}");
            }
        }
        assert_eq!(self.world.mparticle.counts().conflicts, 0);
    }

    fn refuse(&self, user: Option<u32>) {
        self.world
            .faults(user.map(|user| refuses(format!("\"user{user}@example.com\""))));
    }
}

fn parse(batch: &Bytes) -> Value {
    serde_json::from_slice(batch).expect("a batch is JSON")
}

fn user(batch: &Value) -> u32 {
    let id = batch["user_identities"]["customer_id"].as_str();
    id.expect("an id").parse().expect("a number")
}

#[tokio::test(flavor = "multi_thread")]
async fn the_second_night_sends_what_changed_and_tells_who_left_also_after_a_restart() {
    the_second_night_sends_what_changed(None).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_second_night_may_come_to_another_daemon_of_a_shared_outbox() {
    if let Some(shared) = Shared::new() {
        the_second_night_sends_what_changed(Some(shared)).await;
    }
}

async fn the_second_night_sends_what_changed(shared: Option<Shared>) {
    let form = json!({"audience_attribute": "Big Spender"});
    let mut schedule = Schedule::on(shared, form).await;
    let first = night(0..2_000);
    let view::Delivery { rows, notes, .. } = schedule.night(&first).await;
    assert_eq!((rows.delivered, rows.unchanged), (2_000, 0));
    assert!(notes[0].contains("nothing is known"), "{notes:?}");
    schedule.check(&first, Some("Big Spender"));

    schedule.restart();
    let mut second = first.clone();
    second.insert(17, 99);
    second.insert(9_999, 10);
    second.remove(&500);
    second.remove(&501);
    let delivery = schedule.night(&second).await;
    let rows = delivery.rows;
    assert_eq!((rows.delivered, rows.unchanged), (2, 1_997));
    assert_eq!(delivery.users, 1_999);
    assert!(delivery.notes.is_empty(), "{:?}", delivery.notes);
    assert_eq!(schedule.told(), BTreeSet::from([17, 500, 501, 9_999]));
    schedule.check(&second, Some("Big Spender"));

    // A night in which nothing has changed sends nothing, and is delivered.
    schedule.restart();
    let requests = schedule.world.mparticle.counts().requests;
    let delivery = schedule.night(&second).await;
    let rows = delivery.rows;
    assert_eq!((rows.delivered, rows.unchanged), (0, 1_999));
    assert_eq!((delivery.state.as_str(), delivery.requests), ("done", 0));
    assert!(delivery.finished.is_some());
    assert_eq!(schedule.world.mparticle.counts().requests, requests);
    let (_, metrics) = schedule.daemon().call("GET", "/metrics", "").await;
    let metrics = String::from_utf8_lossy(&metrics).into_owned();
    let series = "looker_feed_rows_unchanged_total 1999";
    assert!(metrics.contains(series), "{metrics}");

    // Who comes back is in again.
    let delivery = schedule.night(&first).await;
    assert_eq!(delivery.rows.delivered, 3, "17 as before, 500 and 501");
    schedule.check(&first, Some("Big Spender"));
    // Nothing of a user can be read in what is kept.
    if let Some(shared) = &schedule.shared {
        let database = &shared.database;
        let clear: String = b"example.com".map(|byte| format!("{byte:02x}")).concat();
        let blocks = "SELECT count(*), count(*) FILTER
            (WHERE position(decode('CLEAR', 'hex') in body) > 0) FROM looker_feed.snapshot_block";
        let found = database.psql(&blocks.replace("CLEAR", &clear));
        assert!(!found.starts_with("0|") && found.ends_with("|0"), "{found}");
        return;
    }
    let directory = schedule.home.path().join("outbox.changes");
    let mut files = 0;
    for entry in walk(&directory) {
        let bytes = std::fs::read(&entry).expect("a file");
        let found = memchr::memmem::find(&bytes, b"example.com");
        assert_eq!(found, None, "{entry:?}");
        files += 1;
    }
    assert!(files > 0);
}

fn walk(directory: &std::path::Path) -> Vec<std::path::PathBuf> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(directory).expect("a directory") {
        let path = entry.expect("an entry").path();
        match path.is_dir() {
            true => files.extend(walk(&path)),
            false => files.push(path),
        }
    }
    files
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_refused_in_one_night_is_sent_again_in_the_next_and_a_replay_sends_all() {
    let mut schedule = Schedule::new(json!({})).await;
    let first = night(0..300);
    schedule.night(&first).await;
    // In the second night one of those who changed is refused.
    schedule.refuse(Some(17));
    let mut second = first.clone();
    second.extend((10..20).map(|user| (user, 50)));
    let delivery = schedule.night(&second).await;
    assert_eq!((delivery.rows.delivered, delivery.rows.dead), (9, 1));
    schedule.refuse(None);
    schedule.restart();
    // In the third nothing has changed, and the request that was refused is sent again.
    let delivery = schedule.night(&second).await;
    assert!(schedule.told().contains(&17), "{:?}", schedule.told());
    assert!(delivery.rows.delivered <= 10, "{:?}", delivery.rows);
    schedule.check(&second, None);
    assert_eq!(schedule.night(&second).await.rows.delivered, 0);

    // The dead letter arrives again, behind newer values: nothing is certain any more.
    let mut third = second.clone();
    third.insert(17, 51);
    assert_eq!(schedule.night(&third).await.rows.delivered, 1);
    let replay = "/api/v1/dead-letters/replay";
    let daemon = schedule.daemon();
    let (code, answer) = daemon.call("POST", replay, "{\"all\": true}").await;
    assert_eq!(code, 200, "{answer:?}");
    daemon.settled().await;
    let profile = &schedule.profiles()[&17];
    assert_eq!(profile["looker_u.spent"], 50, "the old value came last");
    let delivery = schedule.night(&third).await;
    assert_eq!(delivery.rows.delivered, 300);
    schedule.check(&third, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kill_in_any_night_costs_nobody_a_change() {
    let mut schedule = Schedule::new(json!({"audience_attribute": "member"})).await;
    let mut users = night(0..400);
    schedule.night(&users).await;
    for round in 0..4u32 {
        users.insert(round, 20 + round);
        users.remove(&(100 + round));
        // mParticle is slow, so that the night is cut off in the middle.
        schedule.world.mparticle.set_rate(Some(1));
        schedule.deliver(&users).await.expect("it is taken");
        schedule.kill();
        schedule.start();
        if round % 2 == 0 {
            // The next one comes while the last one waits, and takes it back.
            users.insert(round, 10);
            schedule.deliver(&users).await.expect("it is taken");
            schedule.kill();
            schedule.start();
        }
        schedule.world.mparticle.set_rate(None);
        schedule.daemon().settled().await;
        schedule.check(&users, Some("member"));
    }
    let delivery = schedule.night(&users).await;
    assert_eq!(delivery.rows.delivered, 0, "{:?}", delivery.notes);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancelled_night_is_made_good_by_the_next() {
    let mut schedule = Schedule::new(json!({})).await;
    let first = night(0..200);
    schedule.night(&first).await;
    // Slow enough for the cancel, and a request that is refused is not told to wait for long.
    schedule.world.mparticle.set_rate(Some(20));
    let second = first.iter().map(|(user, spent)| (*user, spent + 1));
    let second: Night = second.collect();
    schedule.deliver(&second).await.expect("it is taken");
    let delivery = schedule.daemon().deliveries().await.remove(0);
    let path = format!("/api/v1/deliveries/{}/cancel", delivery.id);
    let (code, answer) = schedule.daemon().call("POST", &path, "").await;
    assert_eq!(code, 200, "{answer:?}");
    schedule.world.mparticle.set_rate(None);
    schedule.daemon().settled().await;
    let delivery = schedule.night(&second).await;
    assert_eq!(delivery.rows.unchanged, 0, "nobody knows what had arrived");
    schedule.check(&second, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_would_empty_an_audience_is_refused_unless_the_schedule_allows_it() {
    let mut schedule = Schedule::new(json!({"audience_attribute": "member"})).await;
    schedule.night(&night(0..100)).await;
    for users in [Night::new(), night(0..49)] {
        let message = schedule.deliver(&users).await.expect_err("it is refused");
        let words = "of 100 users would leave the audience";
        assert!(message.contains(words), "{message}");
        assert_eq!(schedule.told(), BTreeSet::new());
    }
    assert_eq!(schedule.daemon().deliveries().await.len(), 1);
    schedule.form["audience_may_leave"] = json!("any");
    let few = night(0..10);
    let delivery = schedule.night(&few).await;
    assert_eq!((delivery.rows.unchanged, delivery.batches), (10, 90));
    schedule.check(&few, Some("member"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_delivery_past_the_snapshots_or_under_another_key_is_followed_by_a_full_one() {
    let mut schedule = Schedule::new(json!({})).await;
    let users = night(0..50);
    schedule.night(&users).await;
    assert_eq!(schedule.night(&users).await.rows.delivered, 0);
    // Another place is another matter.
    schedule.form["environment"] = json!("production");
    assert_eq!(schedule.night(&users).await.rows.delivered, 50);
    schedule.form["environment"] = json!("development");
    assert_eq!(schedule.night(&users).await.rows.delivered, 0);
    schedule.form["only_changes"] = json!("no");
    assert_eq!(schedule.night(&users).await.rows.delivered, 50);
    schedule.form["only_changes"] = json!("yes");
    assert_eq!(schedule.night(&users).await.rows.delivered, 50);
    assert_eq!(schedule.night(&users).await.rows.delivered, 0);
    // Damage costs a full delivery and nothing else.
    for path in walk(&schedule.home.path().join("outbox.changes")) {
        let mut bytes = std::fs::read(&path).expect("a file");
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        std::fs::write(&path, bytes).expect("a file");
    }
    assert_eq!(schedule.night(&users).await.rows.delivered, 50);
    assert!(schedule.daemon().log().contains("all users are sent"));
    // What cannot be done is said.
    schedule.plan = Value::Null;
    let message = schedule.deliver(&users).await.expect_err("sent by hand");
    assert!(message.contains("the same schedule"), "{message}");
    schedule.form["data_type"] = json!("event_data");
    let message = schedule.deliver(&users).await.expect_err("events");
    assert!(message.contains("User Profiles only"), "{message}");
}
