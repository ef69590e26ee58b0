//! Settling: many destinations, a few requests a second each, two daemons.

use std::io::Write;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use looker_feed::clock::UnixMillis;
use looker_feed::model::{DeliveryId, DestinationId};
use looker_feed::outbox::postgres::{Server, Settings};
use looker_feed::outbox::{Entry, NewDelivery, Outbox, Settlement, Slice, Totals};
use looker_feed::seal::{Key, Keyring};

use crate::kit::{Bound, Verdict};
use crate::server::{Database, bin};

/// Requests a second of each destination.
const RATE: u32 = 3;

/// Settles for `time`: how long a settlement takes. `pinned`: with an old snapshot held open.
pub fn measure(
    database: &Database,
    destinations: u16,
    time: Duration,
    pinned: bool,
) -> Vec<Verdict> {
    let outboxes = [open(database, "one"), open(database, "two")];
    let requests = u64::from(RATE) * (time.as_secs() + 5);
    for n in 0..destinations {
        deliver(&outboxes[usize::from(n) % 2], n, requests);
    }
    let pin = pinned.then(|| Pin::new(database));
    let (times, taken) = channel();
    std::thread::scope(|scope| {
        for n in 0..destinations {
            let (outbox, times) = (&outboxes[usize::from(n) % 2], times.clone());
            scope.spawn(move || {
                let lease = loop {
                    match outbox.lease(destination(n)).expect("it answers") {
                        Some(lease) => break lease,
                        None => std::thread::yield_now(),
                    }
                };
                let begin = Instant::now();
                let every = Duration::from_secs(1) / RATE;
                let mut at = begin + every.mul_f64(f64::from(n % 97) / 97.0);
                while at < begin + time {
                    std::thread::sleep(at.saturating_duration_since(Instant::now()));
                    at += every;
                    let claims = lease.claim(1).expect("the lease holds");
                    let settlements = claims.iter().map(|claim| Settlement {
                        delivery: claim.delivery,
                        ordinal: claim.ordinal,
                        dead: Vec::new(),
                    });
                    let settlements: Vec<Settlement> = settlements.collect();
                    let before = Instant::now();
                    lease.settle(settlements).expect("the lease holds");
                    // The list is read at the end.
                    let _ = times.send(before.elapsed());
                }
            });
        }
    });
    drop((times, pin));
    let mut all: Vec<Duration> = taken.iter().collect();
    all.sort();
    let at = |share: f64| all[((all.len() - 1) as f64 * share) as usize];
    let (what, most) = match pinned {
        true => ("with a snapshot pinned", 200.0),
        false => ("two daemons", 50.0),
    };
    println!("  {} settlements, p50 {:.0?}", all.len(), at(0.5));
    outboxes.iter().for_each(Outbox::close);
    vec![Verdict::new(
        format!(
            "ms of a settlement, p99, {destinations} destinations × {RATE}/s for {} s, {what}",
            time.as_secs()
        ),
        at(0.99).as_secs_f64() * 1e3,
        Bound::AtMost(most),
    )]
}

fn open(database: &Database, name: &str) -> Outbox {
    let keys = Arc::new(Keyring::new(Key::new([1; 32]), Vec::new()));
    let server = Server::parse(&database.url(), None).expect("an address");
    let settings = Settings {
        allow_unreplicated: true,
        ..Settings::new(server, name, keys)
    };
    Outbox::open_shared(settings).expect("it opens")
}

fn destination(n: u16) -> DestinationId {
    let mut id = [0; 16];
    id[..2].copy_from_slice(&n.to_be_bytes());
    DestinationId(id)
}

fn deliver(outbox: &Outbox, n: u16, requests: u64) {
    let mut staging = outbox
        .begin(NewDelivery {
            id: DeliveryId(destination(n).0),
            destination: destination(n),
            destination_label: format!("destination {n}"),
            account: b"account".to_vec(),
            webhook: None,
            title: "bench".to_owned(),
            link: None,
            received: UnixMillis(1),
        })
        .expect("it takes deliveries");
    let body = vec![b'x'; 6_000];
    for _ in 0..requests {
        let slices = [Slice {
            bytes: &body,
            rows: 5,
        }];
        staging
            .append(Entry {
                slices: &slices,
                route: 0,
            })
            .expect("it is stored");
    }
    staging
        .commit(Totals {
            rows_in: requests * 5,
            rows_rejected: 0,
            rows_unchanged: 0,
            users: requests,
            batches: requests,
            requests,
            notes: Vec::new(),
        })
        .expect("it is committed");
}

/// A session that sees the database as it was.
struct Pin(Child);

impl Pin {
    fn new(database: &Database) -> Self {
        let mut child = Command::new(bin().expect("psql").join("psql"))
            .args(["-X", "-q", "-U", "postgres", "-d", &database.name, "-h"])
            .arg(&database.directory)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .expect("psql");
        let text =
            b"BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM looker_feed.progress;\n";
        let input = child.stdin.as_mut().expect("its input");
        input.write_all(text).expect("it reads");
        Self(child)
    }
}

impl Drop for Pin {
    fn drop(&mut self) {
        drop(self.0.stdin.take());
        let _ = self.0.wait();
    }
}
