//! Where an outbox is kept, and who has it open: the same for every backend.

use std::collections::HashMap;
use std::ops::Deref;
use std::path::Path;
use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, Instant};

use looker_feed::model::{DeliveryId, DestinationId};
use looker_feed::outbox::postgres::{self, Server};
use looker_feed::outbox::{Claim, DeliveryState, Error, Lease, Outbox, Settled, Settlement};

use crate::kit::{
    check_route, delivered, destination_id, files_below, home, keys, settings, size_of, state,
};
use crate::server::{Database, Isolation, database};

/// Makes each of these functions a test on every backend.
macro_rules! on_every_backend {
    ($($test:ident),+ $(,)?) => {
        mod in_a_directory {
            $(#[test]
            fn $test() {
                super::$test(&crate::place::Place::directory());
            })+
        }

        mod on_postgres {
            $(#[test]
            fn $test() {
                let place = crate::place::Place::database(crate::server::Isolation::Default);
                place.iter().for_each(super::$test);
            })+
        }

        mod on_postgres_serializable {
            $(#[test]
            fn $test() {
                let place = crate::place::Place::database(crate::server::Isolation::Serializable);
                place.iter().for_each(super::$test);
            })+
        }
    };
}

/// Where an outbox is kept that is opened again and again.
pub enum Place {
    Directory(tempfile::TempDir),
    Database(Database),
}

/// How it is kept, as far as tests say.
pub struct Kept {
    pub history: usize,
    /// How long a daemon's leases hold, where there are several daemons.
    pub lease: Duration,
    pub max_bytes: Option<u64>,
    pub rejected_rows: u64,
    /// Where there are segments.
    pub segment_bytes: u64,
    pub webhook_memory: Duration,
}

impl Place {
    pub fn directory() -> Self {
        Self::Directory(home())
    }

    /// `None` where there is no PostgreSQL.
    pub fn database(isolation: Isolation) -> Option<Self> {
        database(isolation).map(Self::Database)
    }

    pub fn open(&self) -> Daemon {
        self.open_with(|_| {})
    }

    pub fn open_with(&self, change: impl FnOnce(&mut Kept)) -> Daemon {
        let usual = settings(Path::new(""));
        let mut kept = Kept {
            history: usual.history,
            lease: Duration::from_secs(15),
            max_bytes: None,
            rejected_rows: usual.rejected_rows,
            segment_bytes: usual.segment_bytes,
            webhook_memory: usual.webhook_memory,
        };
        change(&mut kept);
        let outbox = match self {
            Self::Directory(home) => Outbox::open(looker_feed::outbox::Settings {
                history: kept.history,
                max_bytes: kept.max_bytes,
                rejected_rows: kept.rejected_rows,
                segment_bytes: kept.segment_bytes,
                webhook_memory: kept.webhook_memory,
                ..settings(home.path())
            })
            .unwrap(),
            Self::Database(database) => {
                let server = Server::parse(&database.url(), None).unwrap();
                Outbox::open_shared(postgres::Settings {
                    allow_unreplicated: true,
                    history: kept.history,
                    lease: kept.lease,
                    max_bytes: kept.max_bytes,
                    rejected_rows: kept.rejected_rows,
                    webhook_memory: kept.webhook_memory,
                    ..postgres::Settings::new(server, "daemon", keys())
                })
                .unwrap()
            }
        };
        Daemon {
            outbox,
            leases: Mutex::default(),
            whose: Mutex::default(),
        }
    }

    pub fn is_shared(&self) -> bool {
        matches!(self, Self::Database(_))
    }

    /// What others see of daemons that have been stopped for a minute: they are not heard of, and their
    /// leases are over. They themselves know nothing of it.
    pub fn freeze(&self) {
        if let Self::Database(database) = self {
            database.psql(
                "UPDATE looker_feed.daemon SET beat = beat - interval '1 hour';
                 UPDATE looker_feed.destination
                 SET lease_until = clock_timestamp() - interval '1 second' WHERE owner IS NOT NULL",
            );
        }
    }

    /// No bodies of requests are left, nor marks beside them.
    pub fn check_drained(&self, daemon: &Daemon) {
        daemon.sweep().unwrap();
        match self {
            Self::Directory(home) => {
                let left = files_below(&home.path().join("segments"));
                assert!(left.is_empty(), "{:?}", left.keys());
            }
            Self::Database(database) => {
                let blocks = database.psql("SELECT count(*) FROM looker_feed.block");
                assert_eq!(blocks, "0");
            }
        }
    }

    /// No dead letters are left.
    pub fn check_no_letters(&self) {
        match self {
            Self::Directory(home) => assert_eq!(size_of(&home.path().join("dead")), 0),
            Self::Database(database) => {
                let letters = database.psql("SELECT count(*) FROM looker_feed.letter");
                assert_eq!(letters, "0");
            }
        }
    }

    /// Everything that is stored, by names of files or tables. A table's bytes are hexadecimal digits.
    pub fn stored(&self) -> Vec<(String, Vec<u8>)> {
        match self {
            Self::Directory(home) => files_below(home.path())
                .into_iter()
                .map(|(path, bytes)| (path.display().to_string(), bytes))
                .collect(),
            Self::Database(database) => {
                let tables = database.psql(
                    "SELECT table_name FROM information_schema.tables
                     WHERE table_schema = 'looker_feed'",
                );
                let rows = |table: &str| database.psql(&format!("TABLE looker_feed.{table}"));
                let tables = tables.lines();
                tables
                    .map(|table| (table.to_owned(), rows(table).into_bytes()))
                    .collect()
            }
        }
    }
}

/// Who has an outbox open, with the leases that it needs.
pub struct Daemon {
    outbox: Outbox,
    leases: Mutex<HashMap<DestinationId, Lease>>,
    whose: Mutex<HashMap<DeliveryId, DestinationId>>,
}

impl Deref for Daemon {
    type Target = Outbox;

    fn deref(&self) -> &Outbox {
        &self.outbox
    }
}

impl Daemon {
    /// The next one, after this has closed.
    pub fn reopen(self, place: &Place) -> Self {
        self.close();
        drop(self);
        place.open()
    }

    /// The lease of a destination, which must be free or become so.
    fn lease(&self, destination: u8) -> Lease {
        let id = destination_id(destination);
        if let Some(lease) = self.leases().get(&id) {
            return lease.clone();
        }
        let deadline = Instant::now() + Duration::from_secs(60);
        loop {
            if let Some(lease) = self.outbox.lease(id).unwrap() {
                return self.leases().entry(id).or_insert(lease).clone();
            }
            assert!(Instant::now() < deadline, "the lease does not become free");
            std::thread::yield_now();
        }
    }

    /// Takes leases and looks at what waits under them.
    pub fn take_up(&self, destinations: &[u8]) {
        for &destination in destinations {
            assert!(self.claim(destination, 0).is_empty());
        }
    }

    /// Gives all leases back.
    pub fn give_back(&self) {
        for (_, lease) in self.leases().drain() {
            lease.give_back().unwrap();
        }
    }

    pub fn claim(&self, destination: u8, max: usize) -> Vec<Claim> {
        let claims = self.lease(destination).claim(max).unwrap();
        let whose = claims.iter().map(|claim| claim.delivery);
        let whose = whose.map(|delivery| (delivery, destination_id(destination)));
        self.whose.lock().unwrap().extend(whose);
        claims
    }

    /// Claims under a lease that may be another's by now; `None`: it has none.
    pub fn claim_late(&self, destination: u8) -> Option<Result<Vec<Claim>, Error>> {
        let lease = self.leases().get(&destination_id(destination)).cloned();
        lease.map(|lease| lease.claim(3))
    }

    /// Settles claims of any destination.
    pub fn try_settle(&self, settlements: Vec<Settlement>) -> Result<Settled, Error> {
        let leases: Vec<_> = self.leases().clone().into_iter().collect();
        let mut sum = Settled::default();
        for (at, (destination, lease)) in leases.iter().enumerate() {
            let whose = self.whose.lock().unwrap();
            // Those of nobody are the first one's.
            let own = settlements
                .iter()
                .filter(|one| match whose.get(&one.delivery) {
                    Some(whose) => whose == destination,
                    None => at == 0,
                });
            let own = own.cloned().collect();
            drop(whose);
            let settled = lease.settle(own)?;
            sum.entries += settled.entries;
            sum.unknown += settled.unknown;
            sum.finished.extend(settled.finished);
        }
        Ok(sum)
    }

    pub fn settle(&self, settlements: Vec<Settlement>) -> Settled {
        self.try_settle(settlements).unwrap()
    }

    /// Gives one claim back.
    pub fn release(&self, claim: &Claim) {
        let whose = self.whose.lock().unwrap()[&claim.delivery];
        let lease = self.leases()[&whose].clone();
        lease.release(claim.delivery, &[claim.ordinal]).unwrap();
    }

    /// Claims and delivers until nothing comes any more; returns what came, in order.
    pub fn drain(&self, destination: u8) -> Vec<Claim> {
        let mut all = Vec::new();
        loop {
            let claims = self.claim(destination, 7);
            if claims.is_empty() {
                return all;
            }
            claims.iter().for_each(check_route);
            self.settle(delivered(&claims));
            all.extend(claims);
        }
    }

    pub fn state(&self, delivery: u8) -> DeliveryState {
        state(self, delivery)
    }

    pub fn listed(&self) -> Vec<DeliveryState> {
        self.deliveries(None, usize::MAX).unwrap().deliveries
    }

    fn leases(&self) -> MutexGuard<'_, HashMap<DestinationId, Lease>> {
        self.leases.lock().unwrap()
    }
}
