//! What sending only changes costs and spares: a million users of whom a thousand have changed, from
//! the document's bytes to the durable delivery, beside the same delivery in full.
//!
//! `cargo bench --bench changes` or `cargo bench --bench changes -- 200000` for another number of users.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::stream;
use looker_feed::changes::{self, Audience, Changes, ScheduleKey};
use looker_feed::clock::UnixMillis;
use looker_feed::ingest::{self, Ingested, Progress};
use looker_feed::model::{DataType, DeliveryId, DestinationId, Environment};
use looker_feed::outbox::{NewDelivery, Outbox, Settlement};
use looker_feed::seal::Keyring;
use looker_feed::{config, mapping, outbox};

const CHANGED: u64 = 1_000;
const ROWS_A_CHUNK: u64 = 200;

/// A night's document: users in an order of its own, the first of them with another value.
fn document(users: u64, night: u64) -> impl Iterator<Item = Bytes> + Send {
    // Coprime to any number of users that is not a multiple of it, so every user comes once.
    const STRIDE: u64 = 7_368_787;
    let head = r#"{"fields":{"dimensions":[{"name":"u.id","tags":["mp_customer_id"]},{"name":"u.mail","tags":["mp_email"]},{"name":"u.city","tags":["mp_user_attribute"]},{"name":"u.spent","tags":["mp_user_attribute"]},{"name":"u.plan","tags":["mp_user_attribute"]}],"measures":[],"table_calculations":[]},"data":["#;
    let rows = (0..users.div_ceil(ROWS_A_CHUNK)).map(move |chunk| {
        let mut text = String::new();
        for row in chunk * ROWS_A_CHUNK..((chunk + 1) * ROWS_A_CHUNK).min(users) {
            let user = (row + night * 31) % users * STRIDE % users;
            let spent = match user < CHANGED {
                true => user + night,
                false => user,
            };
            let comma = if row == 0 { "" } else { "," };
            text.push_str(&format!(
                r#"{comma}{{"u.id":{{"value":"{user}"}},"u.mail":{{"value":"user{user}@example.com"}},"u.city":{{"value":"City {}"}},"u.spent":{{"value":{spent}}},"u.plan":{{"value":"premium"}}}}"#,
                user % 977
            ));
        }
        Bytes::from(text)
    });
    std::iter::once(Bytes::from(head))
        .chain(rows)
        .chain([Bytes::from("]}")])
}

struct Bench {
    runtime: tokio::runtime::Runtime,
    outbox: Outbox,
    changes: Changes,
    settings: ingest::Settings,
    users: u64,
}

impl Bench {
    fn new(home: &Path, users: u64) -> Self {
        let keys = Arc::new(Keyring::ephemeral().expect("random bytes"));
        let path = home.join("outbox");
        let mut config =
            config::load(None, std::iter::empty::<(String, String)>()).expect("defaults");
        config.outbox.path.clone_from(&path);
        let settings = outbox::Settings::new(&path, Arc::clone(&keys));
        Self {
            runtime: tokio::runtime::Runtime::new().expect("a runtime"),
            outbox: Outbox::open(settings).expect("an outbox"),
            changes: Changes::new(
                changes::Settings {
                    directory: home.join("changes"),
                    max_bytes: 1 << 40,
                    forget_after: Duration::from_secs(86_400),
                    max_drop_percent: 50,
                },
                keys,
            ),
            settings: looker_feed::app::ingest_settings(&config),
            users,
        }
    }

    /// One night: what it took to be durable, the most memory meanwhile, and what it came to.
    fn night(&self, night: u64, order: Option<changes::Comparison>) -> (Duration, u64, Ingested) {
        let order = ingest::Incoming {
            usual: None,
            delivery: NewDelivery {
                id: DeliveryId(u128::from(night + 1).to_be_bytes()),
                destination: DestinationId([1; 16]),
                destination_label: String::new(),
                account: Vec::new(),
                webhook: None,
                title: String::new(),
                link: None,
                received: UnixMillis::now(),
            },
            mapping: mapping::Settings::new(DataType::User),
            more_columns: mapping::MoreColumns::default(),
            environment: Environment::Development,
            data_plan: None,
            changes: order.map(|order| (self.changes.clone(), order)),
        };
        let document = document(self.users, night).map(Ok);
        // Resets VmHWM.
        std::fs::write("/proc/self/clear_refs", "5").expect("Linux");
        let start = Instant::now();
        let received = self.runtime.block_on(ingest::receive(
            order,
            stream::iter(document),
            self.outbox.clone(),
            self.settings.clone(),
            Arc::new(Progress::default()),
        ));
        let took = start.elapsed();
        let receipt = received.expect("it is taken");
        assert_eq!(receipt.rows, self.users);
        (took, peak(), receipt)
    }

    /// All of it arrives.
    fn send(&self) {
        let lease = self.outbox.lease(DestinationId([1; 16]));
        let lease = lease.expect("an answer").expect("nobody else has it");
        loop {
            let claims = lease.claim(100).expect("claims");
            if claims.is_empty() {
                return;
            }
            let settled = claims.iter().map(|claim| Settlement {
                delivery: claim.delivery,
                ordinal: claim.ordinal,
                dead: Vec::new(),
            });
            lease.settle(settled.collect()).expect("settled");
        }
    }
}

/// `VmHWM`, in MB.
fn peak() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("Linux");
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kilobytes = line.and_then(|line| line.trim().strip_suffix(" kB"));
    kilobytes
        .and_then(|text| text.parse::<u64>().ok())
        .expect("a number")
        / 1000
}

fn main() {
    let arguments = std::env::args().skip(1);
    let users = arguments
        .filter_map(|text| text.parse().ok())
        .next()
        .unwrap_or(1_000_000);
    let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    println!(
        "Sending only changes: {users} users, {CHANGED} changed; load {}",
        load.trim()
    );
    println!("  {:36} {:>9} {:>9} {:>12}", "", "s", "MB", "batches");
    let show = |what: &str, (took, memory, receipt): &(Duration, u64, Ingested)| {
        let seconds = took.as_secs_f64();
        println!(
            "  {what:36} {seconds:9.2} {memory:9} {:12}",
            receipt.made.batches
        );
    };
    for (what, order) in [
        ("all users, nothing compared", None),
        ("only changes", Some(None)),
        ("only changes, an audience", Some(Some("member"))),
    ] {
        let home = tempfile::tempdir().expect("a directory");
        let bench = Bench::new(home.path(), users);
        let order = order.map(|attribute: Option<&str>| changes::Comparison {
            schedule: ScheduleKey([1; 16]),
            full_refresh: Duration::from_secs(86_400),
            audience: attribute.map(|attribute| Audience {
                attribute: attribute.to_owned(),
                may_shrink: false,
            }),
        });
        let first = bench.night(0, order.clone());
        show(&format!("{what}, first night"), &first);
        bench.send();
        let second = bench.night(1, order.clone());
        show(&format!("{what}, second night"), &second);
        let want = if order.is_some() {
            CHANGED.min(users)
        } else {
            users
        };
        assert_eq!(second.2.made.batches, want, "what changed is sent");
    }
}
