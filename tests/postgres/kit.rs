//! What the tests of the shared outbox share.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::time::{Duration, Instant};

use looker_feed::model::{DeliveryId, DestinationId};
use looker_feed::outbox::postgres::{Server, Settings};
use looker_feed::outbox::{
    self, Claim, Damage, DeadFilter, DeadLetter, DeadPage, DeliveryState, Error, Lease, LetterId,
    Moved, NewDelivery, Receipt, Rejected, Settled, Settlement, Staging, Tally,
};

use crate::generated::keys;
pub use crate::generated::{
    append, check_route, delivered, delivery_id, destination_id, new_delivery, payload, settlement,
    shape,
};
use crate::server::{BOTH, Database, database};

/// Settings of a daemon of this name.
pub fn settings(database: &Database, name: &str) -> Settings {
    Settings {
        allow_unreplicated: true,
        ..Settings::new(Server::parse(&database.url(), None).unwrap(), name, keys())
    }
}

pub fn open(database: &Database) -> outbox::Outbox {
    outbox::Outbox::open_shared(settings(database, "daemon")).unwrap()
}

/// All deliveries that are listed.
pub fn states_of(outbox: &outbox::Outbox) -> Vec<DeliveryState> {
    crate::generated::states(outbox)
}

/// The rejected rows of a delivery that can be read, and how many are kept.
pub fn rejected_rows(outbox: &outbox::Outbox, id: DeliveryId) -> Option<(Vec<Rejected>, u64)> {
    let page = outbox.rejected(id, None, 99).unwrap();
    page.map(|page| (page.rows, page.kept))
}

/// The lease of a destination, which must be free or become so.
pub fn lease(outbox: &outbox::Outbox, destination: u8) -> Lease {
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

pub fn check_sums(outbox: &Outbox) {
    crate::generated::check_sums(&outbox.shared);
}

/// A whole generated delivery.
pub fn deliver(
    outbox: &Outbox,
    delivery: u8,
    destination: u8,
    entries: u64,
) -> Result<Receipt, Error> {
    crate::generated::deliver(&outbox.shared, delivery, destination, entries)
}

/// How many sequences of operations the model runs: each step is many calls to a server.
pub const CASES: u32 = 12;

thread_local! {
    static PLACES: Cell<usize> = const { Cell::new(0) };
}

/// Where an outbox is that one daemon opens after the other.
pub struct Place {
    database: Database,
}

/// A place for one test, on databases of both kinds by turns.
pub fn place() -> Option<Place> {
    let turn = PLACES.replace(PLACES.get() + 1);
    Some(Place {
        database: database(BOTH[turn % 2])?,
    })
}

impl Place {
    /// The next daemon.
    pub fn open(&self) -> Outbox {
        Outbox {
            shared: open(&self.database),
            leases: RefCell::default(),
            whose: RefCell::default(),
        }
    }

    /// No bodies are left.
    pub fn check_drained(&self, outbox: &Outbox) {
        outbox.shared.sweep().unwrap();
        let blocks = self.database.psql("SELECT count(*) FROM looker_feed.block");
        assert_eq!(blocks, "0");
    }
}

/// One daemon with the leases that it needs: the face of the outbox as the model knows it.
pub struct Outbox {
    shared: outbox::Outbox,
    leases: RefCell<HashMap<DestinationId, Lease>>,
    whose: RefCell<HashMap<DeliveryId, DestinationId>>,
}

impl Outbox {
    pub fn begin(&self, new: NewDelivery) -> Result<Staging, Error> {
        self.shared.begin(new)
    }

    pub fn claim(&self, destination: DestinationId, max: usize) -> Result<Vec<Claim>, Error> {
        let mut leases = self.leases.borrow_mut();
        let lease = leases
            .entry(destination)
            .or_insert_with(|| lease(&self.shared, destination.0[0]));
        let claims = lease.claim(max)?;
        let mut whose = self.whose.borrow_mut();
        for claim in &claims {
            whose.insert(claim.delivery, destination);
        }
        Ok(claims)
    }

    pub fn settle(&self, settlements: Vec<Settlement>) -> Result<Settled, Error> {
        let whose = self.whose.borrow();
        let mut sum = Settled::default();
        for (destination, lease) in self.leases.borrow().iter() {
            let own = settlements
                .iter()
                .filter(|one| whose.get(&one.delivery) == Some(destination));
            let settled = lease.settle(own.cloned().collect())?;
            sum.entries += settled.entries;
            sum.unknown += settled.unknown;
        }
        Ok(sum)
    }

    pub fn release(&self, delivery: DeliveryId, ordinals: &[u64]) {
        let whose = self.whose.borrow();
        let leases = self.leases.borrow();
        leases[&whose[&delivery]]
            .release(delivery, ordinals)
            .unwrap();
    }

    pub fn damage(&self) -> Vec<Damage> {
        self.shared.damage()
    }

    pub fn dead_letters(
        &self,
        filter: DeadFilter,
        after: Option<LetterId>,
        limit: usize,
    ) -> Result<DeadPage, Error> {
        self.shared.dead_letters(filter, after, limit)
    }

    pub fn dead_letter(&self, id: LetterId) -> Result<Option<(DeadLetter, bytes::Bytes)>, Error> {
        self.shared.dead_letter(id)
    }

    pub fn replay(&self, ids: &[LetterId]) -> Result<Moved, Error> {
        self.shared.replay(ids)
    }

    pub fn discard(&self, ids: &[LetterId]) -> Result<Moved, Error> {
        self.shared.discard(ids)
    }

    pub fn edit(&self, id: LetterId, payload: Vec<u8>) -> Result<Option<LetterId>, Error> {
        self.shared.edit(id, payload)
    }

    pub fn cancel(&self, delivery: DeliveryId) -> Result<Option<Tally>, Error> {
        self.shared.cancel(delivery)
    }

    pub fn close(&self) {
        self.shared.close();
    }
}

// What the model asks of an outbox of any backend.

/// Claims of a destination.
pub fn claim(outbox: &Outbox, destination: u8, max: usize) -> Vec<Claim> {
    outbox.claim(destination_id(destination), max).unwrap()
}

/// Settles claims of any destination.
pub fn settle(outbox: &Outbox, settlements: Vec<Settlement>) -> Settled {
    outbox.settle(settlements).unwrap()
}

/// Gives one claim back.
pub fn release(outbox: &Outbox, delivery: DeliveryId, ordinal: u64) {
    outbox.release(delivery, &[ordinal]);
}

/// All deliveries that are listed.
pub fn states(outbox: &Outbox) -> Vec<DeliveryState> {
    crate::generated::states(&outbox.shared)
}

/// One of them.
pub fn state(outbox: &Outbox, delivery: u8) -> DeliveryState {
    outbox
        .shared
        .delivery(delivery_id(delivery))
        .unwrap()
        .unwrap()
}

/// Entries that wait or fly.
pub fn entries_left(outbox: &Outbox) -> u64 {
    outbox.shared.usage().unwrap().entries
}

/// This backend does not erase yet.
pub fn erase(
    _: &Outbox,
    _: &(dyn Fn(&[u8]) -> bool + Sync),
    _: &dyn Fn(DestinationId, DeliveryId),
) -> Option<u64> {
    None
}
