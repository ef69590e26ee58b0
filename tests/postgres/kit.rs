//! What the tests of the shared outbox share.

use std::time::{Duration, Instant};

use looker_feed::outbox::postgres::{Server, Settings};
use looker_feed::outbox::{Claim, Lease, Outbox};

use crate::generated::{check_route, delivered, destination_id, keys};
use crate::server::{BOTH, Database, database};

/// Runs a test on databases of both kinds.
pub fn on_both(test: impl Fn(&Database)) {
    for isolation in BOTH {
        if let Some(database) = database(isolation) {
            test(&database);
        }
    }
}

/// Settings of a daemon of this name.
pub fn settings(database: &Database, name: &str) -> Settings {
    Settings {
        allow_unreplicated: true,
        ..Settings::new(Server::parse(&database.url(), None).unwrap(), name, keys())
    }
}

pub fn open(database: &Database) -> Outbox {
    Outbox::open_shared(settings(database, "daemon")).unwrap()
}

/// The lease of a destination, which must be free or become so.
pub fn lease(outbox: &Outbox, destination: u8) -> Lease {
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        if let Some(lease) = outbox.lease(destination_id(destination)).unwrap() {
            return lease;
        }
        assert!(Instant::now() < deadline, "the lease does not become free");
        std::thread::yield_now();
    }
}

/// Gives all leases an end in the past, as if nobody had renewed them.
pub fn expire(database: &Database) {
    database.psql(
        "UPDATE looker_feed.destination SET lease_until = clock_timestamp() - interval '1 second'
         WHERE owner IS NOT NULL",
    );
}

/// Claims and delivers until nothing comes any more; returns what came, in order.
pub fn drain(lease: &Lease) -> Vec<Claim> {
    let mut all = Vec::new();
    loop {
        let claims = lease.claim(7).unwrap();
        if claims.is_empty() {
            return all;
        }
        claims.iter().for_each(check_route);
        lease.settle(delivered(&claims)).unwrap();
        all.extend(claims);
    }
}
