//! What the tests of the shared outbox share.

use std::time::Duration;

use looker_feed::outbox::postgres::{Lease, Server, Settings, SharedOutbox};
use looker_feed::outbox::{Claim, Error, Receipt};

use crate::generated::*;
use crate::server::Database;

/// Settings of a daemon of this name.
pub fn settings(database: &Database, name: &str) -> Settings {
    Settings {
        allow_unreplicated: true,
        ..Settings::new(Server::parse(&database.url(), None).unwrap(), name, keys())
    }
}

pub fn open(database: &Database) -> SharedOutbox {
    SharedOutbox::open(settings(database, "daemon")).unwrap()
}

/// A whole generated delivery.
pub fn deliver(
    outbox: &SharedOutbox,
    delivery: u8,
    destination: u8,
    entries: u64,
) -> Result<Receipt, Error> {
    let mut staging = outbox.begin(new_delivery(delivery, destination))?;
    for ordinal in 0..entries {
        append(&mut staging, delivery, ordinal)?;
    }
    staging.commit(totals(entries, 0))
}

/// Appends entry `ordinal` of a generated delivery.
pub fn append(
    staging: &mut looker_feed::outbox::postgres::Staging,
    delivery: u8,
    ordinal: u64,
) -> Result<u64, Error> {
    let rows = shape(ordinal);
    let bodies: Vec<Vec<u8>> = (0..rows.len())
        .map(|slice| payload(delivery, ordinal, slice))
        .collect();
    let slices: Vec<looker_feed::outbox::Slice<'_>> = bodies
        .iter()
        .zip(&rows)
        .map(|(bytes, &rows)| looker_feed::outbox::Slice { bytes, rows })
        .collect();
    let appended = staging.append(looker_feed::outbox::Entry {
        slices: &slices,
        route: route(ordinal),
    })?;
    assert_eq!(appended.ordinal, ordinal);
    Ok(appended.bytes)
}

/// The lease of a destination, which must be free or become so.
pub fn lease(outbox: &SharedOutbox, destination: u8) -> Lease {
    let mut changes = outbox.subscribe();
    let deadline = std::time::Instant::now() + Duration::from_secs(60);
    loop {
        if let Some(lease) = outbox.lease(destination_id(destination)).unwrap() {
            return lease;
        }
        assert!(
            std::time::Instant::now() < deadline,
            "the lease does not become free"
        );
        // Something happens at least at the next look.
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build()
            .unwrap();
        let _ = runtime.block_on(async {
            tokio::time::timeout(Duration::from_secs(1), changes.changed()).await
        });
    }
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

pub fn check_sums(outbox: &SharedOutbox) {
    let states = outbox.deliveries(None, usize::MAX).unwrap();
    states.iter().for_each(check_sum);
}
