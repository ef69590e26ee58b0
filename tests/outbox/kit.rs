//! What the tests of the outbox share.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use looker_feed::clock::UnixMillis;
use looker_feed::model::{DeliveryId, DestinationId};
use looker_feed::outbox::{
    self, Attempt, AttemptEnd, CheckReport, Claim, Dead, DeliveryState, Disk, Entry, Error, Lease,
    Matcher, NewAttempt, NewDelivery, Op, OpenError, Receipt, Settings, Settlement, Slice, Staging,
    Totals,
};
use looker_feed::seal::{Key, Keyring};

/// A directory for one test; in memory where the system has that, since the tests sync a lot.
pub fn home() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm").unwrap_or_else(|_| tempfile::tempdir().unwrap())
}

pub use looker_feed::outbox::Outbox;

/// Settings for a small disk and small segments.
pub fn settings(path: &Path) -> Settings {
    Settings {
        segment_bytes: 1 << 10,
        reserve_bytes: 0,
        ..Settings::new(path, keys())
    }
}

/// The same whenever it is asked for: as a daemon has it after a restart.
pub fn keys() -> Arc<Keyring> {
    Arc::new(Keyring::new(Key::new([1; 32]), Vec::new()))
}

pub fn open(path: &Path) -> Outbox {
    Outbox::open(settings(path)).unwrap()
}

/// What a look through an outbox that nobody uses finds.
pub fn look(path: &Path, keys: Option<&Keyring>) -> Result<CheckReport, OpenError> {
    outbox::inspect(path, keys).map(|found| found.report)
}

pub fn delivery_id(n: u8) -> DeliveryId {
    DeliveryId([n; 16])
}

pub fn destination_id(n: u8) -> DestinationId {
    DestinationId([n; 16])
}

pub fn new_delivery(delivery: u8, destination: u8) -> NewDelivery {
    NewDelivery {
        id: delivery_id(delivery),
        destination: destination_id(destination),
        destination_label: format!("destination {destination}"),
        account: format!("sealed {delivery}").into_bytes(),
        webhook: Some(format!("webhook {delivery}")),
        title: format!("delivery {delivery}"),
        link: Some("https://looker.example.com/looks/1".to_owned()),
        received: UnixMillis(1_700_000_000_000 + u64::from(delivery)),
    }
}

/// The payload of one slice: text that says where it belongs, of a length that varies.
pub fn payload(delivery: u8, ordinal: u64, slice: usize) -> Vec<u8> {
    let mut text = format!("delivery {delivery}, entry {ordinal}, slice {slice};");
    // Not compressible, so that segments fill.
    let mut seed = u64::from(delivery) << 32 | ordinal << 8 | slice as u64;
    for _ in 0..(ordinal * 7 + slice as u64 * 3) % 40 {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        text.push_str(&format!("{seed:x}"));
    }
    text.into_bytes()
}

/// Slices and rows of entry `ordinal` of a generated delivery.
pub fn shape(ordinal: u64) -> Vec<u32> {
    (0..=ordinal % 3).map(|slice| slice as u32 + 1).collect()
}

/// The route of entry `ordinal` of a generated delivery.
pub fn route(ordinal: u64) -> u8 {
    (ordinal % 4) as u8
}

/// Checks that a claim, also of a replayed dead letter, has the route of its entry, if that is one
/// of a generated delivery.
pub fn check_route(claim: &Claim) {
    let text = claim
        .slices
        .first()
        .map(|slice| String::from_utf8_lossy(slice));
    let entry = text.as_ref().and_then(|text| {
        let (_, behind) = text.split_once("entry ")?;
        behind.split_once(',')?.0.parse().ok()
    });
    if let Some(entry) = entry {
        assert_eq!(route(entry), claim.route, "{text:?}");
    }
}

/// Appends entry `ordinal` of a generated delivery.
pub fn append(staging: &mut Staging, delivery: u8, ordinal: u64) -> Result<u64, Error> {
    let rows = shape(ordinal);
    let bodies: Vec<Vec<u8>> = (0..rows.len())
        .map(|slice| payload(delivery, ordinal, slice))
        .collect();
    let slices: Vec<Slice<'_>> = bodies
        .iter()
        .zip(&rows)
        .map(|(bytes, &rows)| Slice { bytes, rows })
        .collect();
    let appended = staging.append(Entry {
        slices: &slices,
        route: route(ordinal),
    })?;
    assert_eq!(appended.ordinal, ordinal);
    Ok(appended.bytes)
}

/// The totals of a generated delivery of so many entries.
pub fn totals(entries: u64, rejected: u64) -> Totals {
    let shapes: Vec<Vec<u32>> = (0..entries).map(shape).collect();
    let rows: u64 = shapes.iter().flatten().map(|rows| u64::from(*rows)).sum();
    Totals {
        rows_in: rows + rejected,
        rows_rejected: rejected,
        rows_unchanged: 0,
        users: entries,
        batches: shapes.iter().map(|shape| shape.len() as u64).sum(),
        requests: entries,
        notes: vec!["a note".to_owned()],
    }
}

/// A whole generated delivery.
pub fn deliver(
    outbox: &Outbox,
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

/// The right to send to a destination, which an outbox of one process always grants.
pub fn lease(outbox: &Outbox, destination: u8) -> Lease {
    let lease = outbox.lease(destination_id(destination)).unwrap();
    lease.expect("nobody else holds it")
}

/// Settles claims as delivered.
pub fn delivered(claims: &[Claim]) -> Vec<Settlement> {
    claims.iter().map(|claim| settlement(claim, &[])).collect()
}

/// Settles one claim with these slices dead.
pub fn settlement(claim: &Claim, dead: &[usize]) -> Settlement {
    Settlement {
        delivery: claim.delivery,
        ordinal: claim.ordinal,
        dead: dead.iter().map(|&slice| given_up(slice)).collect(),
    }
}

pub fn given_up(slice: usize) -> Dead {
    Dead {
        slice,
        reason: format!("refused: slice {slice}"),
        attempts: 3,
        first_try: UnixMillis(1),
        last_try: UnixMillis(2),
    }
}

/// Claims and delivers until nothing comes any more; returns what came, in order.
pub fn drain(outbox: &Outbox, destination: u8) -> Vec<Claim> {
    let mut all = Vec::new();
    loop {
        let claims = lease(outbox, destination).claim(7).unwrap();
        if claims.is_empty() {
            return all;
        }
        claims.iter().for_each(check_route);
        lease(outbox, 1).settle(delivered(&claims)).unwrap();
        all.extend(claims);
    }
}

/// Checks that a claim is entry `ordinal` of the generated delivery, byte by byte.
pub fn check_claim(claim: &Claim, delivery: u8, ordinal: u64) {
    assert_eq!(claim.delivery, delivery_id(delivery));
    assert_eq!(claim.ordinal, ordinal);
    assert_eq!(claim.rows, shape(ordinal));
    check_route(claim);
    for (slice, bytes) in claim.slices.iter().enumerate() {
        assert_eq!(&bytes[..], payload(delivery, ordinal, slice));
    }
    assert_eq!(claim.slices.len(), claim.rows.len());
}

/// One delivery, which is listed.
pub fn state(outbox: &Outbox, delivery: u8) -> DeliveryState {
    outbox.delivery(delivery_id(delivery)).unwrap().unwrap()
}

/// Every row of a delivery is in exactly one column.
pub fn check_sum(state: &DeliveryState) {
    let columns = [
        state.waiting,
        state.in_flight,
        state.delivered,
        state.dead,
        state.discarded,
        state.damaged,
        state.cancelled,
        state.erased,
    ];
    let rows: u64 = columns.iter().map(|tally| tally.rows).sum();
    let batches: u64 = columns.iter().map(|tally| tally.batches).sum();
    let unsent = state.rejected + state.unchanged;
    assert_eq!(rows + unsent, state.rows_in, "{state:?}");
    assert_eq!(batches, state.batches, "{state:?}");
}

pub fn check_sums(outbox: &Outbox) {
    outbox
        .deliveries(None, usize::MAX)
        .unwrap()
        .deliveries
        .iter()
        .for_each(check_sum);
}

/// Size of everything below a directory, in bytes.
pub fn size_of(path: &Path) -> u64 {
    std::fs::read_dir(path)
        .unwrap()
        .map(|entry| {
            let entry = entry.unwrap();
            let meta = entry.metadata().unwrap();
            if meta.is_dir() {
                size_of(&entry.path())
            } else {
                meta.len()
            }
        })
        .sum()
}

/// Every file below a directory, with its bytes.
pub fn files_below(path: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut files = BTreeMap::new();
    for entry in std::fs::read_dir(path).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(files_below(&path));
        } else {
            let bytes = std::fs::read(&path).unwrap();
            files.insert(path, bytes);
        }
    }
    files
}

/// No code of the system: the read brings less than it should.
pub const SHORT: i32 = 0;

/// A disk on which the steps that are meant fail, from the `nth` on, as many as `times`; and how many of them
/// there have been.
pub fn failing(
    meant: impl Fn(&Op<'_>) -> bool + Send + Sync + 'static,
    nth: usize,
    times: usize,
    code: i32,
) -> (Disk, Arc<AtomicUsize>) {
    let calls = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&calls);
    let disk = Disk::with_hook(move |op| {
        let fails = nth..nth.saturating_add(times);
        match meant(op) && fails.contains(&counter.fetch_add(1, Relaxed)) {
            true if code == SHORT => Err(io::ErrorKind::UnexpectedEof.into()),
            true => Err(io::Error::from_raw_os_error(code)),
            false => Ok(()),
        }
    });
    (disk, calls)
}

/// Copies a directory with all that is in it.
pub fn copy_all(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let target = to.join(path.file_name().unwrap());
        if path.is_dir() {
            copy_all(&path, &target);
        } else {
            std::fs::copy(&path, &target).unwrap();
        }
    }
}

/// A delivery that begins.
pub fn attempt(n: u8) -> NewAttempt {
    NewAttempt {
        id: delivery_id(n),
        webhook: Some(format!("webhook {n}")),
        title: format!("title {n}"),
        about: format!("about {n}").into_bytes(),
        received: UnixMillis(1_700_000_000_000 + u64::from(n)),
    }
}

/// How one failed.
pub fn end(kind: u8) -> AttemptEnd {
    AttemptEnd {
        at: UnixMillis(1_700_000_009_000),
        kind,
        rows: 1,
        bytes: 2,
        message: "a sentence".to_owned(),
    }
}

/// What failed, newest first.
pub fn failed(outbox: &Outbox) -> Vec<Attempt> {
    outbox.failed(None, 1_000).unwrap()
}

/// The ids and kinds of what failed, newest first.
pub fn kinds(outbox: &Outbox) -> Vec<(u8, u8)> {
    let kind = |one: &Attempt| (one.id.0[0], one.end.as_ref().map_or(0, |end| end.kind));
    failed(outbox).iter().map(kind).collect()
}

/// Means batches, and rejected rows.
pub struct Meant<'a>(pub &'a (dyn Fn(&[u8]) -> bool + Sync));

impl Matcher for Meant<'_> {
    fn batch(&self, batch: &[u8]) -> bool {
        (self.0)(batch)
    }

    fn row(&self, text: &[u8]) -> bool {
        (self.0)(text)
    }
}
