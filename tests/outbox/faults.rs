//! Every change on the disk fails once, for the n-th of them, for every n; and every read.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use looker_feed::outbox::{DeadFilter, Error, Health, Op, Outbox, RejectedRow, Settings};

use crate::kit::*;

const ENOSPC: i32 = 28;
const EIO: i32 = 5;

/// What the callers were told.
#[derive(Debug, Default)]
pub struct Ledger {
    /// Deliveries whose commit returned `Ok`, with their entries.
    pub accepted: Vec<(u8, u64)>,
    /// Deliveries whose commit failed.
    refused: Vec<u8>,
    /// Payloads that were handed out.
    sent: BTreeSet<Vec<u8>>,
    /// Payloads whose delivery was recorded: they must not come again.
    settled: BTreeSet<Vec<u8>>,
    /// Errors met.
    pub errors: Vec<String>,
}

impl Ledger {
    pub fn note<T>(&mut self, result: Result<T, Error>) -> Option<T> {
        result
            .map_err(|error| self.errors.push(error.to_string()))
            .ok()
    }
}

/// Waits until the outbox has mended itself.
pub fn wait_until_healthy(outbox: &Outbox) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while outbox.health() != Health::Ok {
        assert!(Instant::now() < deadline, "{:?}", outbox.health());
        std::thread::yield_now();
    }
}

fn try_deliver(outbox: &Outbox, ledger: &mut Ledger, delivery: u8, entries: u64) {
    let result = (|| {
        let mut staging = outbox.begin(new_delivery(delivery, 1))?;
        for ordinal in 0..entries {
            append(&mut staging, delivery, ordinal)?;
        }
        staging.reject(RejectedRow {
            row: 0,
            reason: "reason",
            text: b"text",
        })?;
        staging.commit(totals(entries, 1))
    })();
    match ledger.note(result) {
        Some(_) => ledger.accepted.push((delivery, entries)),
        None => ledger.refused.push(delivery),
    }
    wait_until_healthy(outbox);
}

/// Claims a few and settles them, the first with its first slice dead.
fn try_send(outbox: &Outbox, ledger: &mut Ledger, max: usize, make_dead: bool) {
    let Some(claims) = ledger.note(lease(outbox, 1).claim(max)) else {
        return wait_until_healthy(outbox);
    };
    let mut settlements = delivered(&claims);
    if make_dead && let Some(first) = claims.first() {
        settlements[0] = settlement(first, &[0]);
    }
    for claim in &claims {
        ledger
            .sent
            .extend(claim.slices.iter().map(|slice| slice.to_vec()));
    }
    let mut settled = lease(outbox, 1).settle(settlements.clone());
    if settled.is_err() {
        // As the drain does: what has happened is said again.
        ledger.note(settled.clone());
        wait_until_healthy(outbox);
        settled = lease(outbox, 1).settle(settlements);
    }
    if ledger.note(settled).is_some() {
        let slices = claims.iter().flat_map(|claim| &claim.slices);
        let dead = usize::from(make_dead);
        ledger
            .settled
            .extend(slices.skip(dead).map(|slice| slice.to_vec()));
    }
    wait_until_healthy(outbox);
}

pub fn script(outbox: &Outbox, ledger: &mut Ledger) {
    try_deliver(outbox, ledger, 1, 30);
    try_send(outbox, ledger, 10, true);
    try_deliver(outbox, ledger, 2, 12);
    try_send(outbox, ledger, 25, true);
    let letters = ledger.note(outbox.dead_letters(DeadFilter::default(), None, 10));
    if let Some(letter) = letters.and_then(|page| page.letters.first().cloned()) {
        ledger.note(outbox.replay(&[letter.id]));
        wait_until_healthy(outbox);
    }
    try_deliver(outbox, ledger, 3, 0);
    try_send(outbox, ledger, 20, false);
    try_send(outbox, ledger, 20, false);
}

/// After the disk works again: everything accepted is there, all of it, and nothing refused.
pub fn check(path: &Path, ledger: &Ledger, withdrawn: bool, forgets: bool) {
    let outbox = open(path);
    assert_eq!(outbox.damage(), [], "{ledger:?}");
    check_sums(&outbox);
    let mut sent = ledger.sent.clone();
    loop {
        let claims = lease(&outbox, 1).claim(10).unwrap();
        if claims.is_empty() {
            break;
        }
        for claim in &claims {
            for slice in &claim.slices {
                assert!(
                    !ledger.settled.contains(&slice[..]),
                    "sent again: {ledger:?}"
                );
                sent.insert(slice.to_vec());
            }
        }
        lease(&outbox, 1).settle(delivered(&claims)).unwrap();
    }
    check_sums(&outbox);
    for &(delivery, entries) in &ledger.accepted {
        let state = outbox.delivery(delivery_id(delivery)).unwrap();
        assert!(
            state.is_some() || forgets,
            "delivery {delivery} is lost: {ledger:?}"
        );
        if let Some(state) = state {
            let want = totals(entries, 1);
            assert_eq!((state.rows_in, state.batches), (want.rows_in, want.batches));
            assert_eq!(state.delivered.rows + state.dead.rows + 1, want.rows_in);
            let page = outbox.rejected(state.id, None, 9).unwrap().unwrap();
            assert_eq!(page.kept, 1);
        }
        for ordinal in 0..entries {
            for slice in 0..shape(ordinal).len() {
                assert!(
                    sent.contains(&payload(delivery, ordinal, slice)),
                    "delivery {delivery}, entry {ordinal}, slice {slice} is lost: {ledger:?}"
                );
            }
        }
    }
    if withdrawn {
        for &delivery in &ledger.refused {
            let state = outbox.delivery(delivery_id(delivery)).unwrap();
            assert_eq!(state, None, "refused and there all the same: {ledger:?}");
        }
    }
    assert_eq!(size_of(&path.join("segments")), 0);
}

/// Whether a call changes nothing.
pub fn is_read(op: &Op<'_>) -> bool {
    matches!(
        op,
        Op::Open(_) | Op::Length(_) | Op::List(_) | Op::Read { .. } | Op::StateOpen(_)
    )
}

fn try_all(times: usize, code: i32, step: usize, history: usize) {
    let mut nth = 0;
    loop {
        let directory = home();
        let (disk, calls) = failing(|op| !is_read(op), nth, times, code);
        let mut ledger = Ledger::default();
        let settings = Settings {
            history,
            // With the smallest limit sled's file is copied at the start.
            state_bytes: if history == 0 { 1 } else { 1 << 20 },
            ..settings(directory.path())
        };
        match Outbox::open_on(settings, disk) {
            Ok(outbox) => {
                script(&outbox, &mut ledger);
                outbox.close();
            }
            Err(error) => ledger.errors.push(error.to_string()),
        }
        check(directory.path(), &ledger, times == 1, history == 0);
        if calls.load(Relaxed) <= nth {
            assert!(ledger.errors.is_empty(), "{ledger:?}");
            assert_eq!(ledger.accepted.len(), 3);
            assert!(nth > 60, "only {nth} changes were tried");
            return;
        }
        nth += step;
    }
}

#[test]
fn a_full_disk_at_any_one_change_loses_nothing_and_is_mended() {
    try_all(1, ENOSPC, 1, 100);
}

#[test]
fn an_error_of_the_disk_at_any_one_change_loses_nothing_and_is_mended() {
    try_all(1, EIO, 1, 100);
}

#[test]
fn an_error_of_the_disk_where_deliveries_are_forgotten_brings_none_of_them_back() {
    try_all(1, EIO, 1, 0);
    try_all(2, EIO, 3, 0);
}

#[test]
fn a_disk_that_fails_for_a_while_loses_nothing_that_was_accepted() {
    for times in [2, 3] {
        try_all(times, EIO, 3, 100);
    }
}

#[test]
fn a_disk_that_fails_for_good_is_said_and_what_was_accepted_is_there_after_it() {
    for nth in (0..).step_by(11) {
        let directory = home();
        let (disk, calls) = failing(|op| !is_read(op), nth, usize::MAX, EIO);
        let Ok(outbox) = Outbox::open_on(settings(directory.path()), disk) else {
            continue;
        };
        let mut ledger = Ledger::default();
        for delivery in 1..4 {
            match deliver(&outbox, delivery, 1, 10) {
                Ok(_) => ledger.accepted.push(delivery),
                Err(_) => break,
            }
        }
        let failed = calls.load(Relaxed) > nth;
        if failed && let Ok(claims) = lease(&outbox, 1).claim(5) {
            assert!(claims.is_empty() || lease(&outbox, 1).settle(delivered(&claims)).is_err());
        }
        outbox.close();
        let outbox = open(directory.path());
        let drained = drain(&outbox, 1).len();
        assert!(drained >= ledger.accepted.len() * 10);
        check_sums(&outbox);
        if !failed {
            assert_eq!(ledger.accepted.len(), 3);
            return;
        }
    }

    #[derive(Default)]
    struct Ledger {
        accepted: Vec<u8>,
    }
}
