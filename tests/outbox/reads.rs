//! A read that fails is not damage: whatever read fails, once or for a while, nothing is lost, and
//! looking changes nothing.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

use looker_feed::outbox::{self, DeadFilter, Disk, Error, Health, Op, OpenError, Outbox, Settings};

use crate::faults::{self, Ledger, is_read, wait_until_healthy};
use crate::kit::*;

const EIO: i32 = 5;
const EACCES: i32 = 13;
const EMFILE: i32 = 24;
/// A disk on which what `which` names cannot be read while the switch is on.
fn away(which: impl Fn(&Path) -> bool + Send + Sync + 'static) -> (Disk, Arc<AtomicBool>) {
    let off = Arc::new(AtomicBool::new(false));
    let switch = Arc::clone(&off);
    let disk = Disk::with_hook(move |op| match op {
        Op::Open(path) | Op::Length(path) | Op::List(path) | Op::Read { path, .. }
            if switch.load(Relaxed) && which(path) =>
        {
            Err(io::Error::from_raw_os_error(EACCES))
        }
        _ => Ok(()),
    });
    (disk, off)
}

/// What the tests of changes do, and then what only looks.
fn script(outbox: &Outbox, ledger: &mut Ledger) {
    faults::script(outbox, ledger);
    let letters = ledger.note(outbox.dead_letters(DeadFilter::default(), None, 10));
    let letters = letters.map_or_else(Vec::new, |page| page.letters);
    for letter in letters {
        ledger.note(outbox.dead_letter(letter.id));
    }
    for state in outbox.deliveries(None, 9).unwrap().deliveries {
        ledger.note(outbox.rejected(state.id, None, 9));
    }
    ledger.note(outbox.verify());
    assert_eq!(outbox.damage(), [], "taken for damage: {ledger:?}");
    wait_until_healthy(outbox);
}

fn try_all(times: usize, code: i32, first: usize, step: usize) {
    for nth in (first..).step_by(step) {
        let directory = home();
        let (disk, calls) = failing(is_read, nth, times, code);
        let mut ledger = Ledger::default();
        match Outbox::open_on(settings(directory.path()), disk) {
            Ok(outbox) => {
                script(&outbox, &mut ledger);
                outbox.close();
            }
            Err(error) => ledger.errors.push(error.to_string()),
        }
        faults::check(directory.path(), &ledger, times == 1, false);
        if calls.load(Relaxed) <= nth {
            assert!(ledger.errors.is_empty(), "{ledger:?}");
            assert!(nth > 60, "only {nth} reads were tried");
            return;
        }
    }
}

#[test]
fn a_read_that_fails_at_any_one_place_loses_nothing() {
    try_all(1, EIO, 0, 1);
}

#[test]
fn neither_do_reads_that_fail_in_other_ways_or_several_times() {
    try_all(1, EMFILE, 0, 5);
    try_all(1, EACCES, 1, 5);
    try_all(1, SHORT, 2, 5);
    try_all(3, EIO, 3, 5);
}

/// A delivery that waits, one that has settled but for dead letters, one of them replayed, and rejected
/// rows.
fn fill(outbox: &Outbox) {
    deliver(outbox, 1, 1, 6).unwrap();
    let claims = lease(outbox, 1).claim(99).unwrap();
    let mut settlements = delivered(&claims);
    settlements[2] = settlement(&claims[2], &[0, 1, 2]);
    lease(outbox, 1).settle(settlements).unwrap();
    let page = outbox.dead_letters(DeadFilter::default(), None, 9).unwrap();
    outbox.replay(&[page.letters[1].id]).unwrap();
    let mut staging = outbox.begin(new_delivery(2, 1)).unwrap();
    for ordinal in 0..20 {
        append(&mut staging, 2, ordinal).unwrap();
    }
    let rejected = outbox::RejectedRow {
        row: 1,
        reason: "reason",
        text: b"text",
    };
    staging.reject(rejected).unwrap();
    staging.commit(totals(20, 1)).unwrap();
}

/// Where the rows of all deliveries are.
fn columns(outbox: &Outbox) -> Vec<(u64, u64, u64)> {
    let states = outbox.deliveries(None, 9).unwrap().deliveries;
    let columns = states
        .iter()
        .map(|state| (state.waiting.rows, state.dead.rows, state.damaged.rows));
    columns.collect()
}

/// A start on what [`fill`] left, for every read of it.
#[test]
fn a_start_with_a_read_that_fails_is_refused_or_finds_everything() {
    let home = home();
    let path = home.path().join("outbox");
    let outbox = open(&path);
    fill(&outbox);
    let before = columns(&outbox);
    outbox.close();
    for nth in 0.. {
        let again = home.path().join("again");
        copy_all(&path, &again);
        let (disk, calls) = failing(is_read, nth, 1, EIO);
        match Outbox::open_on(settings(&again), disk) {
            Ok(outbox) => {
                assert_eq!(columns(&outbox), before, "read {nth}");
                assert_eq!(outbox.damage(), [], "read {nth}");
                outbox.close();
            }
            Err(error) => {
                let said = error.to_string();
                let named = matches!(
                    error,
                    OpenError::Unreadable { .. } | OpenError::State { .. }
                );
                assert!(named, "read {nth}: {error:?}");
                assert!(said.contains(&again.display().to_string()), "{said}");
            }
        }
        let outbox = open(&again);
        assert_eq!(columns(&outbox), before, "after read {nth}");
        assert_eq!(outbox.damage(), [], "after read {nth}");
        assert!(files_below(&again.join("damaged")).is_empty());
        outbox.close();
        std::fs::remove_dir_all(&again).unwrap();
        if calls.load(Relaxed) <= nth {
            assert!(nth > 30, "only {nth} reads were tried");
            return;
        }
    }
}

#[test]
fn a_start_with_a_file_that_cannot_be_read_stops_with_a_sentence_and_changes_nothing() {
    let home = home();
    let path = home.path().join("outbox");
    let outbox = open(&path);
    fill(&outbox);
    outbox.close();
    let before = files_below(&path);
    for part in ["segments", "dead", "rejected", "state"] {
        let (disk, off) = away(move |path| path.parent().is_some_and(|one| one.ends_with(part)));
        off.store(true, Relaxed);
        let error = Outbox::open_on(settings(&path), disk).unwrap_err();
        let said = error.to_string();
        assert!(matches!(error, OpenError::Unreadable { .. }), "{error:?}");
        assert!(said.contains(&format!("{part}/")), "{said}");
        assert!(said.contains("cannot be read"), "{said}");
        assert_eq!(files_below(&path), before, "{part}: something was changed");
    }
    for part in ["segments", "dead", "rejected"] {
        let (disk, off) = away(move |path| path.ends_with(part));
        off.store(true, Relaxed);
        let error = Outbox::open_on(settings(&path), disk).unwrap_err();
        assert!(matches!(error, OpenError::Unreadable { .. }), "{error:?}");
        assert_eq!(files_below(&path), before, "{part}: something was changed");
    }
}

fn wait_for(outbox: &Outbox, health: impl Fn(&Health) -> bool) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !health(&outbox.health()) {
        assert!(Instant::now() < deadline, "{:?}", outbox.health());
        std::thread::yield_now();
    }
}

#[test]
fn what_cannot_be_read_is_an_error_that_passes_and_the_health_says_so() {
    let home = home();
    let (disk, off) = away(|path| path.display().to_string().contains("/dead/"));
    let outbox = Outbox::open_on(settings(home.path()), disk).unwrap();
    fill(&outbox);
    let page = outbox.dead_letters(DeadFilter::default(), None, 9).unwrap();
    let (before, files) = (columns(&outbox), files_below(home.path()));
    off.store(true, Relaxed);
    let id = page.letters[0].id;
    let refused = [
        outbox.dead_letters(DeadFilter::default(), None, 9).err(),
        outbox.dead_letter(id).err(),
        outbox.replay(&[id]).err(),
        outbox.discard(&[id]).err(),
        outbox.edit(id, b"mended".to_vec()).err(),
        outbox.verify().err(),
        // The replayed one stands first.
        lease(&outbox, 1).claim(9).err(),
    ];
    for error in refused {
        let error = error.expect("it cannot be read");
        assert!(matches!(error, Error::Unreadable { .. }), "{error:?}");
        assert!(error.to_string().contains("00000000.dead"), "{error}");
    }
    assert!(matches!(outbox.health(), Health::Unreadable { .. }));
    assert_eq!(columns(&outbox), before);
    assert_eq!(outbox.damage(), []);
    assert_eq!(files_below(home.path()), files, "nothing was changed");
    // Deliveries are taken meanwhile.
    deliver(&outbox, 3, 3, 2).unwrap();
    off.store(false, Relaxed);
    wait_for(&outbox, |health| *health == Health::Ok);
    let again = outbox.dead_letters(DeadFilter::default(), None, 9).unwrap();
    assert_eq!(again, page);
    assert_eq!(drain(&outbox, 1).len(), 21);
    check_sums(&outbox);
}

#[test]
fn what_can_be_read_of_a_delivery_is_sent_while_a_part_of_it_cannot() {
    let home = home();
    let one = Arc::new(AtomicUsize::new(usize::MAX));
    let offset = Arc::clone(&one);
    let disk = Disk::with_hook(move |op| match op {
        Op::Read { offset: at, .. } if *at == offset.load(Relaxed) as u64 => {
            Err(io::Error::from_raw_os_error(EIO))
        }
        _ => Ok(()),
    });
    let settings = Settings {
        segment_bytes: 1 << 20,
        ..settings(home.path())
    };
    let outbox = Outbox::open_on(settings, disk).unwrap();
    let mut staging = outbox.begin(new_delivery(1, 1)).unwrap();
    let header = 0;
    let mut offsets = vec![header];
    for ordinal in 0..5 {
        let length = append(&mut staging, 1, ordinal).unwrap();
        offsets.push(offsets[ordinal as usize] + length as usize);
    }
    staging.commit(totals(5, 0)).unwrap();
    let segment = files_below(&home.path().join("segments"));
    let bytes = segment.values().next().unwrap();
    let start = memchr::memmem::find(bytes, b"LFr2").unwrap();
    one.store(start + offsets[2], Relaxed);
    let claims = lease(&outbox, 1).claim(9).unwrap();
    let ordinals: Vec<u64> = claims.iter().map(|claim| claim.ordinal).collect();
    assert_eq!(ordinals, [0, 1, 3, 4]);
    lease(&outbox, 1).settle(delivered(&claims)).unwrap();
    let error = lease(&outbox, 1).claim(9).unwrap_err();
    assert!(matches!(error, Error::Unreadable { .. }), "{error:?}");
    assert_eq!(
        outbox
            .delivery(delivery_id(1))
            .unwrap()
            .unwrap()
            .waiting
            .rows,
        6
    );
    one.store(usize::MAX, Relaxed);
    let claims = lease(&outbox, 1).claim(9).unwrap();
    assert_eq!(claims.len(), 1);
    check_claim(&claims[0], 1, 2);
    lease(&outbox, 1).settle(delivered(&claims)).unwrap();
    let state = outbox.delivery(delivery_id(1)).unwrap().unwrap();
    assert_eq!((state.settled, state.damaged.rows), (true, 0));
}

fn flip(file: &Path, at: usize) {
    let mut bytes = std::fs::read(file).unwrap();
    bytes[at] ^= 0x20;
    std::fs::write(file, bytes).unwrap();
}

#[test]
fn looking_at_a_damaged_dead_letter_names_it_and_changes_nothing() {
    let home = home();
    let outbox = Outbox::open(Settings {
        segment_bytes: 1 << 20,
        ..settings(home.path())
    });
    let outbox = outbox.unwrap();
    fill(&outbox);
    deliver(&outbox, 3, 3, 4).unwrap();
    let claims = lease(&outbox, 3).claim(9).unwrap();
    let dead: Vec<_> = claims.iter().map(|one| settlement(one, &[0])).collect();
    lease(&outbox, 1).settle(dead).unwrap();
    let page = outbox.dead_letters(DeadFilter::default(), None, 9).unwrap();
    let before = columns(&outbox);
    let file = home.path().join("dead/00000000.dead");
    let length = file.metadata().unwrap().len() as usize;
    flip(&file, length - 4);
    let files = files_below(home.path());
    let seen = outbox.dead_letters(DeadFilter::default(), None, 9).unwrap();
    assert_eq!(seen.letters.len() + 1, page.letters.len());
    assert_eq!(seen.damaged, 1);
    let lost = page.letters.last().unwrap();
    let error = outbox.dead_letter(lost.id).unwrap_err();
    assert!(matches!(error, Error::Damaged { .. }), "{error:?}");
    let damage = outbox.damage();
    assert_eq!(damage.len(), 1, "named once: {damage:?}");
    assert_eq!(damage[0].delivery, Some(delivery_id(3)));
    assert_eq!(columns(&outbox), before);
    assert_eq!(
        files_below(home.path()),
        files,
        "looking has changed something"
    );
    // An act gives it up, and the file is kept for a person when its last letter goes.
    let ids: Vec<_> = page.letters.iter().map(|letter| letter.id).collect();
    let moved = outbox.replay(&ids).unwrap();
    assert_eq!(moved.letters as usize, ids.len() - 1);
    assert_eq!(
        outbox
            .delivery(delivery_id(3))
            .unwrap()
            .unwrap()
            .damaged
            .rows,
        u64::from(lost.rows)
    );
    drain(&outbox, 1);
    drain(&outbox, 3);
    check_sums(&outbox);
    outbox.close();
    let kept = files_below(&home.path().join("damaged"));
    assert_eq!(kept.len(), 1, "{:?}", kept.keys());
    assert_eq!(files_below(&home.path().join("dead")).len(), 0);
}

#[test]
fn what_is_set_aside_comes_back_when_it_is_sound_and_check_and_salvage_agree() {
    let home = home();
    let path = home.path().join("outbox");
    let outbox = open(&path);
    fill(&outbox);
    outbox.close();
    // A request, and a dead letter that waits to be sent again.
    let segments = files_below(&path.join("segments"));
    let (segment, bytes) = segments.iter().next().unwrap();
    let at = memchr::memmem::find(bytes, b"LFr2").unwrap() + 130;
    flip(segment, at);
    let dead = path.join("dead/00000000.dead");
    flip(&dead, 400);
    let outbox = open(&path);
    drain(&outbox, 1);
    let lost: u64 = outbox
        .deliveries(None, 9)
        .unwrap()
        .deliveries
        .iter()
        .map(|state| state.damaged.rows)
        .sum();
    outbox.verify().unwrap();
    check_sums(&outbox);
    let all_lost: u64 = columns(&outbox).iter().map(|one| one.2).sum();
    assert!(lost > 0 && all_lost >= lost);
    outbox.close();
    let found = outbox::inspect(&path, Some(&keys())).unwrap();
    assert_eq!(found.report.salvageable_batches, 0);
    assert_eq!(found.report.faults, []);
    let said: u64 = found.deliveries.iter().map(|one| one.rows_lost).sum();
    assert_eq!(said, all_lost);

    // It was the memory, not the disk: the bytes are what they were.
    let damaged = files_below(&path.join("damaged"));
    assert_eq!(damaged.len(), 2, "{:?}", damaged.keys());
    for file in damaged.keys() {
        let name = file.file_name().unwrap().to_str().unwrap();
        flip(file, if name.contains(".seg.") { at } else { 400 });
    }
    let before = files_below(&path);
    let found = outbox::inspect(&path, Some(&keys())).unwrap();
    assert_eq!(found.report.salvageable_rows, all_lost);
    let to = home.path().join("salvaged");
    let salvaged = outbox::salvage_into(&path, &to, keys()).unwrap();
    assert_eq!(salvaged.brought_back.rows, all_lost);
    assert_eq!(salvaged.damage, []);
    assert_eq!(files_below(&path), before, "the source is as it was");
    let outbox = open(&to);
    check_sums(&outbox);
    assert_eq!(columns(&outbox).iter().map(|one| one.2).sum::<u64>(), 0);
    let sent = drain(&outbox, 1);
    let slices: Vec<_> = sent.iter().flat_map(|claim| &claim.slices).collect();
    assert!(slices.iter().any(|slice| ***slice == payload(2, 0, 0)[..]));
    check_sums(&outbox);
    outbox.close();
    let found = outbox::inspect(&to, Some(&keys())).unwrap();
    assert_eq!(
        (found.report.salvageable_rows, found.report.faults),
        (0, vec![])
    );
}

#[test]
fn a_look_and_a_salvage_with_a_read_that_fails_say_so_or_find_everything() {
    let home = home();
    let path = home.path().join("outbox");
    let outbox = open(&path);
    fill(&outbox);
    let want = columns(&outbox);
    outbox.close();
    let before = files_below(&path);
    for code in [EIO, EMFILE] {
        for nth in 0.. {
            let (disk, calls) = failing(is_read, nth, 1, code);
            if let Ok(found) = outbox::inspect_on(&disk, &path, Some(&keys())) {
                assert_eq!(found.report.faults, [], "read {nth}");
            }
            let (disk, more) = failing(is_read, nth, 1, code);
            let to = home.path().join("to");
            if let Ok(salvaged) = outbox::salvage_into_on(&disk, &path, &to, keys()) {
                assert_eq!(
                    (salvaged.unreadable, salvaged.damage),
                    (0, vec![]),
                    "read {nth}"
                );
                let outbox = open(&to);
                assert_eq!(columns(&outbox), want, "read {nth}");
                outbox.close();
            }
            let _ = std::fs::remove_dir_all(&to);
            if calls.load(Relaxed) <= nth && more.load(Relaxed) <= nth {
                assert!(nth > 30, "only {nth} reads were tried");
                break;
            }
        }
    }
    assert_eq!(files_below(&path), before, "the source is as it was");
}

#[test]
fn deleted_and_damaged_files_of_rejected_rows_are_named() {
    let home = home();
    let path = home.path().join("outbox");
    let outbox = open(&path);
    fill(&outbox);
    outbox.close();
    let file = path.join(format!("rejected/{}.rejected", delivery_id(2)));
    let bytes = std::fs::read(&file).unwrap();
    for harm in [None, Some(60)] {
        match harm {
            None => std::fs::remove_file(&file).unwrap(),
            Some(at) => flip(&file, at),
        }
        let found = look(&path, Some(&keys())).unwrap();
        let faults: Vec<_> = found.faults.iter().map(|fault| &fault.file).collect();
        assert_eq!(faults, [&file], "{harm:?}");
        let to = home.path().join("to");
        let salvaged = outbox::salvage_into(&path, &to, keys()).unwrap();
        assert_eq!(salvaged.rejected.len(), 1, "{harm:?}");
        std::fs::remove_dir_all(&to).unwrap();
        std::fs::write(&file, &bytes).unwrap();
    }
    assert_eq!(look(&path, Some(&keys())).unwrap().faults, []);
}

#[test]
fn whether_the_disk_takes_a_delivery_is_found_out_by_trying() {
    let directory = home();
    let full = Arc::new(AtomicBool::new(false));
    let tries = Arc::new(AtomicUsize::new(0));
    let (switch, counter) = (Arc::clone(&full), Arc::clone(&tries));
    let disk = Disk::with_hook(move |op| match op {
        Op::Create(path) if path.ends_with("probe") => {
            counter.fetch_add(1, Relaxed);
            match switch.load(Relaxed) {
                true => Err(io::Error::from_raw_os_error(28)),
                false => Ok(()),
            }
        }
        _ => Ok(()),
    });
    let path = directory.path().join("outbox");
    let outbox = Outbox::open_on(settings(&path), disk.clone()).unwrap();
    for _ in 0..50 {
        outbox.try_writing().unwrap();
    }
    assert!(tries.load(Relaxed) < 5, "probes are cheap");
    assert_eq!(size_of(&path.join("segments")), 0, "nothing is left");
    outbox.close();
    full.store(true, Relaxed);
    let outbox = Outbox::open_on(settings(&path), disk).unwrap();
    let error = outbox.try_writing().unwrap_err();
    assert!(
        error.to_string().contains("does not take a file"),
        "{error}"
    );
    outbox.close();
    let outbox = open(&path);
    std::fs::remove_dir_all(path.join("segments")).unwrap();
    outbox.try_writing().unwrap_err();
    outbox.close();
    assert!(matches!(outbox.try_writing(), Err(Error::Closed)));
}

#[test]
fn a_probe_that_was_interrupted_is_removed_at_the_next_start() {
    let directory = home();
    let path = directory.path().join("outbox");
    drop(open(&path));
    std::fs::write(path.join("segments/probe"), b"probe").unwrap();
    drop(open(&path));
    assert_eq!(size_of(&path.join("segments")), 0);
    assert_eq!(size_of(&path.join("damaged")), 0);
}
