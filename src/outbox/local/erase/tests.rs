//! Nothing of whom was erased is left in any file, in whatever state the outbox was, and whenever the
//! erasure was cut short.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};

use proptest::prelude::*;

use crate::clock::UnixMillis;
use crate::model::{DeliveryId, DestinationId};
use crate::outbox::record;
use crate::outbox::{
    Claim, Dead, DeadFilter, Disk, Entry, Matcher, NewDelivery, Op, Outbox, RejectedRow, Scan,
    Settings, Settlement, Slice, Totals,
};
use crate::seal::{Key, Keyring};

/// Whom is looked for: those whose text holds it.
struct Person;

const PERSON: &[u8] = b"ada@example.com";
const OTHER: &[u8] = b"someone@example.com";

impl Matcher for Person {
    fn batch(&self, batch: &[u8]) -> bool {
        memchr::memmem::find(batch, PERSON).is_some()
    }

    fn row(&self, text: &[u8]) -> bool {
        self.batch(text)
    }
}

fn keys() -> Arc<Keyring> {
    Arc::new(Keyring::new(Key::new([1; 32]), Vec::new()))
}

fn open(path: &Path, disk: Disk) -> Outbox {
    let settings = Settings {
        segment_bytes: 1 << 10,
        reserve_bytes: 0,
        ..Settings::new(path, keys())
    };
    Outbox::open_on(settings, disk).unwrap()
}

fn id(n: u8) -> DeliveryId {
    DeliveryId([n; 16])
}

/// A delivery: of each entry, who its batches are of; and of its rejected rows.
#[derive(Clone, Debug)]
struct Shape {
    entries: Vec<Vec<bool>>,
    rejected: Vec<bool>,
    /// Entries that are claimed, and of these: which settle, dead or delivered.
    settle: Vec<Option<u8>>,
    cancel: bool,
    replay: bool,
    discard: bool,
}

fn shape() -> impl Strategy<Value = Shape> {
    let entry = prop::collection::vec(prop::bool::weighted(0.3), 1..4);
    let entries = prop::collection::vec(entry, 0..14);
    let rejected = prop::collection::vec(any::<bool>(), 0..4);
    let settle = prop::collection::vec(prop::option::of(any::<u8>()), 0..10);
    (entries, rejected, settle, any::<(u8, u8, u8)>()).prop_map(
        |(entries, rejected, settle, (cancel, replay, discard))| Shape {
            entries,
            rejected,
            settle,
            cancel: cancel % 5 == 0,
            replay: replay % 3 == 0,
            discard: discard % 3 == 0,
        },
    )
}

fn text(who: bool, n: usize) -> Vec<u8> {
    let who = if who { PERSON } else { OTHER };
    // Not compressible, so that segments fill.
    let noise: String = (0..n as u64 % 7)
        .map(|at| {
            format!(
                "{:x}",
                (at + 1)
                    .wrapping_mul(0x9E37_79B9_7F4A_7C15)
                    .rotate_left(n as u32)
            )
        })
        .collect();
    [b"batch of ", who, format!(" {n} {noise}").as_bytes()].concat()
}

fn deliver(outbox: &Outbox, n: u8, shape: &Shape) {
    let mut staging = outbox
        .begin(NewDelivery {
            id: id(n),
            destination: DestinationId([1; 16]),
            destination_label: "destination".to_owned(),
            account: b"sealed".to_vec(),
            webhook: None,
            title: "title".to_owned(),
            link: None,
            received: UnixMillis(5),
        })
        .unwrap();
    let mut totals = Totals::default();
    for (at, entry) in shape.entries.iter().enumerate() {
        let texts: Vec<_> = entry.iter().map(|who| text(*who, at)).collect();
        let slices = texts.iter().map(|bytes| Slice { bytes, rows: 2 });
        let slices: Vec<_> = slices.collect();
        totals.batches += slices.len() as u64;
        totals.rows_in += 2 * slices.len() as u64;
        totals.requests += 1;
        staging
            .append(Entry {
                slices: &slices,
                route: 0,
            })
            .unwrap();
    }
    for (at, who) in shape.rejected.iter().enumerate() {
        totals.rows_in += 1;
        totals.rows_rejected += 1;
        let row = RejectedRow {
            row: at as u64,
            reason: "no identity",
            text: &text(*who, at),
        };
        staging.reject(row).unwrap();
    }
    staging.commit(totals).unwrap();
}

/// Brings a delivery into the state that its shape says; returns the claims that are left.
fn use_up(outbox: &Outbox, n: u8, shape: &Shape) -> Vec<Claim> {
    let lease = outbox.lease(DestinationId([1; 16])).unwrap().unwrap();
    let claims = lease.claim(shape.settle.len()).unwrap();
    let mut held = Vec::new();
    for (claim, fate) in claims.into_iter().zip(&shape.settle) {
        let Some(bits) = fate else {
            held.push(claim);
            continue;
        };
        let dead = (0..claim.slices.len()).filter(|slice| bits & (1 << slice) != 0);
        let dead = dead.map(|slice| Dead {
            slice,
            reason: "refused".to_owned(),
            attempts: 1,
            first_try: UnixMillis(1),
            last_try: UnixMillis(2),
        });
        let settlement = Settlement {
            delivery: claim.delivery,
            ordinal: claim.ordinal,
            dead: dead.collect(),
        };
        lease.settle(vec![settlement]).unwrap();
    }
    let letters = outbox
        .dead_letters(DeadFilter::default(), None, 500)
        .unwrap();
    let of = letters
        .letters
        .iter()
        .filter(|letter| letter.delivery == id(n));
    let of: Vec<_> = of.map(|letter| letter.id).collect();
    let (first, second) = of.split_at(of.len() / 2);
    if shape.discard {
        outbox.discard(first).unwrap();
    }
    if shape.replay {
        outbox.replay(second).unwrap();
    }
    if shape.cancel {
        outbox.cancel(id(n)).unwrap();
    }
    held
}

/// Records of any file that are of the person once they are opened, and files that hold the text as it is.
fn left(path: &Path) -> u64 {
    let mut found = 0;
    for entry in std::fs::read_dir(path).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found += left(&path);
            continue;
        }
        let bytes = std::fs::read(&path).unwrap();
        found += u64::from(memchr::memmem::find(&bytes, PERSON).is_some());
        for (_, _, frame) in record::scan(&bytes) {
            let record = frame.open(&keys()).unwrap();
            let meant = record.slices.iter().filter(|slice| Person.batch(slice));
            found += meant.count() as u64;
        }
    }
    found
}

fn check_sums(outbox: &Outbox) {
    for state in outbox.deliveries(None, 500).unwrap().deliveries {
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
        let rows: u64 = columns.iter().map(|column| column.rows).sum();
        let batches: u64 = columns.iter().map(|column| column.batches).sum();
        assert_eq!(
            rows + state.rejected + state.unchanged,
            state.rows_in,
            "{state:?}"
        );
        assert_eq!(batches, state.batches, "{state:?}");
    }
}

fn erase(outbox: &Outbox, held: Vec<Claim>) -> Result<crate::outbox::Erased, crate::outbox::Error> {
    let held = std::cell::RefCell::new(held);
    let lease = outbox.lease(DestinationId([1; 16])).unwrap().unwrap();
    outbox.erase(&Person, &Scan::default(), &|_, delivery| {
        let mut held = held.borrow_mut();
        for claim in held.iter().filter(|claim| claim.delivery == delivery) {
            lease.release(delivery, &[claim.ordinal]).unwrap();
        }
        held.retain(|claim| claim.delivery != delivery);
    })
}

/// All that comes out still, checked to be nobody's who was erased.
fn drain(outbox: &Outbox) -> u64 {
    let lease = outbox.lease(DestinationId([1; 16])).unwrap().unwrap();
    let mut batches = 0;
    loop {
        let claims = lease.claim(5).unwrap();
        if claims.is_empty() {
            return batches;
        }
        assert!(
            claims
                .iter()
                .flat_map(|claim| &claim.slices)
                .all(|slice| !Person.batch(slice))
        );
        batches += claims
            .iter()
            .map(|claim| claim.slices.len() as u64)
            .sum::<u64>();
        let settlements = claims.iter().map(|claim| Settlement {
            delivery: claim.delivery,
            ordinal: claim.ordinal,
            dead: Vec::new(),
        });
        lease.settle(settlements.collect()).unwrap();
    }
}

/// `told`: it is known when each delivery was over, which the loss of the state forgets.
fn all_settled(outbox: &Outbox, told: bool) -> bool {
    let states = outbox.deliveries(None, 500).unwrap().deliveries;
    let mut over = states
        .iter()
        .map(|state| state.settled && (!told || state.finished.is_some()));
    over.all(|over| over)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn nothing_is_left_in_any_file(shapes in prop::collection::vec(shape(), 1..4)) {
        let home = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
        let outbox = open(home.path(), Disk::default());
        let mut held = Vec::new();
        for (n, shape) in (1u8..).zip(&shapes) {
            deliver(&outbox, n, shape);
            held.extend(use_up(&outbox, n, shape));
        }
        let before = left(home.path());
        let erased = erase(&outbox, held).unwrap();
        check_sums(&outbox);
        assert_eq!(left(home.path()), 0);
        let gone = erased.waiting.batches + erased.dead.batches + erased.rejected;
        assert!(gone <= before, "{erased:?} of {before}");
        assert_eq!(outbox.find(&Person, &Scan::default()).unwrap(), []);
        assert_eq!(erase(&outbox, Vec::new()).unwrap(), crate::outbox::Erased::default());
        let states = outbox.deliveries(None, 500).unwrap();
        outbox.close();
        assert_eq!(crate::outbox::inspect(home.path(), Some(&keys())).unwrap().report.faults, []);
        let outbox = open(home.path(), Disk::default());
        assert_eq!(outbox.damage(), []);
        // What is in flight waits again after a restart.
        for (after, before) in outbox.deliveries(None, 500).unwrap().deliveries.iter().zip(&states.deliveries) {
            assert_eq!((after.erased, after.dead, after.rejected), (before.erased, before.dead, before.rejected));
        }
        drain(&outbox);
        check_sums(&outbox);
        assert!(all_settled(&outbox, true));
    }

    #[test]
    fn an_erasure_that_is_cut_short_anywhere_goes_on(shapes in prop::collection::vec(shape(), 1..3), cut in 0..60u64, lost in any::<bool>()) {
        goes_on(&shapes, cut, lost);
    }
}

/// An erasure whose disk refuses all changes but the first `cut`, and then an open, perhaps without the state.
fn goes_on(shapes: &[Shape], cut: u64, lost: bool) {
    let home = tempfile::tempdir_in("/dev/shm")
        .or_else(|_| tempfile::tempdir())
        .unwrap();
    // From the change of this number on the disk refuses all: a crash, as far as the disk can tell.
    let left_over = Arc::new(AtomicU64::new(u64::MAX));
    let count = Arc::clone(&left_over);
    let disk = Disk::with_hook(move |op| {
        if matches!(
            op,
            Op::Open(_) | Op::Length(_) | Op::List(_) | Op::Read { .. }
        ) {
            return Ok(());
        }
        match count.fetch_update(SeqCst, SeqCst, |left| {
            if left == u64::MAX {
                Some(left)
            } else {
                left.checked_sub(1)
            }
        }) {
            Ok(_) => Ok(()),
            Err(_) => Err(std::io::Error::other("cut")),
        }
    });
    let outbox = open(home.path(), disk);
    let mut held = Vec::new();
    for (n, shape) in (1u8..).zip(shapes) {
        deliver(&outbox, n, shape);
        held.extend(use_up(&outbox, n, shape));
    }
    outbox.begin_erasure(b"whom").unwrap();
    left_over.store(cut, SeqCst);
    let whole = erase(&outbox, held).is_ok();
    outbox.close();
    drop(outbox);
    if lost {
        std::fs::remove_dir_all(home.path().join("state")).unwrap();
    }
    let outbox = open(home.path(), Disk::default());
    assert_eq!(
        outbox.pending_erasure().unwrap().as_deref(),
        Some(&b"whom"[..])
    );
    if !lost {
        assert_eq!(outbox.damage(), []);
    }
    check_sums(&outbox);
    erase(&outbox, Vec::new()).unwrap();
    outbox.end_erasure().unwrap();
    assert_eq!(outbox.pending_erasure().unwrap(), None);
    assert_eq!(left(home.path()), 0, "whole: {whole}");
    check_sums(&outbox);
    drain(&outbox);
    assert!(all_settled(&outbox, !lost));
    outbox.close();
    assert_eq!(
        crate::outbox::inspect(home.path(), Some(&keys()))
            .unwrap()
            .report
            .faults,
        []
    );
}

#[test]
fn an_erasure_that_is_cut_short_and_loses_the_state_counts_nothing_twice() {
    let shape = Shape {
        entries: [
            &[false][..],
            &[false, true],
            &[true, true],
            &[false],
            &[false; 3],
            &[false],
            &[false, false, true],
        ]
        .map(<[bool]>::to_vec)
        .into(),
        rejected: vec![true],
        settle: vec![
            Some(166),
            Some(229),
            Some(219),
            None,
            None,
            Some(55),
            Some(41),
            Some(117),
        ],
        cancel: true,
        replay: true,
        discard: false,
    };
    for cut in 0..40 {
        goes_on(std::slice::from_ref(&shape), cut, true);
    }
}
