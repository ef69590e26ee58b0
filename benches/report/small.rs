//! A backlog of many deliveries of one request each, and one of as many requests: what a request costs
//! in syncs of the disk, and how many deliveries are sent a second.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use looker_feed::clock::UnixMillis;
use looker_feed::drain::{self, Drain};
use looker_feed::model::{DeliveryId, DestinationId};
use looker_feed::mparticle::client::{Account, Client, ClientSettings};
use looker_feed::outbox::{Disk, NewDelivery, Op, Outbox, Settings};
use looker_feed::seal::{Key, Keyring};
use looker_feed::shutdown;
use url::Url;

use crate::kit::{commit, made::requests_of, shape, whole};
use crate::world::World;

/// What was seen.
#[derive(Clone, Copy, Debug)]
pub struct Small {
    pub deliveries: u64,
    /// Until all of them were settled.
    pub sent: Duration,
    pub syncs: u64,
    /// Of one delivery of as many requests.
    pub busy_syncs: u64,
}

impl Small {
    pub fn deliveries_a_second(&self) -> f64 {
        self.deliveries as f64 / self.sent.as_secs_f64()
    }
}

pub fn run(home: &Path, deliveries: u64) -> Small {
    let requests = requests_of(&whole(&shape(100 * deliveries)), usize::MAX);
    let requests = &requests[..deliveries as usize];
    let (sent, syncs) = drained(home, requests.iter().map(std::slice::from_ref));
    let (_, busy_syncs) = drained(home, [requests].into_iter());
    Small {
        deliveries,
        sent,
        syncs,
        busy_syncs,
    }
}

/// Commits the deliveries, then drains them: how long it took, and how often a file was synced.
fn drained<'a>(
    home: &Path,
    deliveries: impl Iterator<Item = &'a [Vec<Vec<u8>>]>,
) -> (Duration, u64) {
    let world = World::new(None);
    let directory = tempfile::tempdir_in(home).expect("a directory");
    let syncs = Arc::new(AtomicU64::new(0));
    let counted = Arc::clone(&syncs);
    let disk = Disk::with_hook(move |op| {
        // A settlement is a row of the state; dead letters have files of their own.
        if matches!(op, Op::StateSync(_) | Op::Sync(_)) {
            counted.fetch_add(1, Ordering::Relaxed);
        }
        Ok(())
    });
    let keys = Arc::new(Keyring::new(Key::new([1; 32]), Vec::new()));
    let settings = Settings {
        reserve_bytes: 0,
        ..Settings::new(directory.path(), keys)
    };
    let outbox = Outbox::open_on(settings, disk).expect("the outbox opens");
    let endpoint: Url = world.endpoint.parse().expect("a url");
    let account = Account::new(endpoint, "key".to_owned(), "secret".to_owned());
    let account = account.expect("a loopback address").encode().to_vec();
    let mut count = 0_u64;
    for requests in deliveries {
        count += 1;
        let mut id = [0; 16];
        id[8..].copy_from_slice(&count.to_be_bytes());
        let new = NewDelivery {
            id: DeliveryId(id),
            destination: DestinationId([1; 16]),
            destination_label: "bench".to_owned(),
            account: account.clone(),
            webhook: None,
            title: "bench".to_owned(),
            link: None,
            received: UnixMillis::now(),
        };
        commit(outbox.begin(new).expect("room"), requests);
    }
    let client = Client::new(ClientSettings::default(), Account::decode).expect("TLS");
    let mut settings = drain::Settings::default();
    settings.lane.pace.batches_per_second = 0;
    let drain = Drain::new(settings, outbox.clone(), Arc::new(client)).expect("the outbox answers");
    let (trigger, stop) = shutdown::channel();
    let mut changes = outbox.subscribe();
    let before = syncs.load(Ordering::Relaxed);
    let start = Instant::now();
    let running = world.runtime.spawn(drain.run(stop));
    world.runtime.block_on(async {
        while !outbox
            .destinations()
            .expect("the outbox answers")
            .is_empty()
        {
            // Settling announces itself; the timeout is for what does not.
            let _ = tokio::time::timeout(Duration::from_millis(5), changes.changed()).await;
            changes.mark_unchanged();
        }
    });
    let (sent, syncs) = (start.elapsed(), syncs.load(Ordering::Relaxed) - before);
    trigger.pull();
    world.runtime.block_on(running).expect("the drain ends");
    outbox.close();
    (sent, syncs)
}
