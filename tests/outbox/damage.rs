//! Each file of the directory, in several states of the outbox, with bits flipped, cut short and
//! gone: what lies outside the damage comes out, what lies inside is named.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use looker_feed::model::DeliveryId;
use looker_feed::outbox::{DeadFilter, DeliveryState, Outbox, RejectedRow, SetAside};

use crate::kit::*;

/// What is known of an outbox before it is damaged.
struct Before {
    states: Vec<DeliveryState>,
    /// Slices that are to come out of a drain.
    waiting: BTreeSet<Vec<u8>>,
    dead: BTreeSet<Vec<u8>>,
}

fn backlog(outbox: &Outbox) {
    for (delivery, entries) in [(1, 12), (2, 3)] {
        let mut staging = outbox.begin(new_delivery(delivery, 1)).unwrap();
        for ordinal in 0..entries {
            append(&mut staging, delivery, ordinal).unwrap();
        }
        let rejected = RejectedRow {
            row: 1,
            reason: "reason",
            text: b"text",
        };
        staging.reject(rejected).unwrap();
        staging.commit(totals(entries, 1)).unwrap();
    }
}

fn half_drained(outbox: &Outbox) {
    backlog(outbox);
    let claims = lease(outbox, 1).claim(6).unwrap();
    let mut settlements = delivered(&claims[..5]);
    settlements[2] = settlement(&claims[2], &[0, 2]);
    settlements[4] = settlement(&claims[4], &[1]);
    lease(outbox, 1).settle(settlements).unwrap();
    lease(outbox, 1)
        .release(delivery_id(1), &[claims[5].ordinal])
        .unwrap();
    let page = outbox.dead_letters(DeadFilter::default(), None, 9).unwrap();
    outbox.replay(&[page.letters[1].id]).unwrap();
}

/// The first delivery has settled from its end on, but for its first request.
fn drained_backwards(outbox: &Outbox) {
    backlog(outbox);
    let claims = lease(outbox, 1).claim(99).unwrap();
    for claim in claims[1..].iter().rev() {
        lease(outbox, 1)
            .settle(delivered(std::slice::from_ref(claim)))
            .unwrap();
    }
    lease(outbox, 1)
        .release(delivery_id(1), &[claims[0].ordinal])
        .unwrap();
}

fn drained(outbox: &Outbox) {
    half_drained(outbox);
    drain(outbox, 1);
}

fn before(path: &Path, fill: fn(&Outbox)) -> Before {
    let outbox = open(path);
    fill(&outbox);
    outbox.close();
    let copy = path.with_extension("copy");
    copy_all(path, &copy);
    let outbox = open(&copy);
    let dead = dead_letters(&outbox);
    let states = outbox.deliveries(None, 9).unwrap().deliveries;
    let waiting = drain(&outbox, 1)
        .iter()
        .flat_map(|claim| claim.slices.iter().map(|slice| slice.to_vec()))
        .collect();
    fs::remove_dir_all(&copy).unwrap();
    Before {
        states,
        waiting,
        dead,
    }
}

fn dead_letters(outbox: &Outbox) -> BTreeSet<Vec<u8>> {
    let page = outbox
        .dead_letters(DeadFilter::default(), None, 99)
        .unwrap();
    let ids = page.letters.iter().map(|letter| letter.id);
    ids.filter_map(|id| Some(outbox.dead_letter(id).unwrap()?.1.to_vec()))
        .collect()
}

fn paths_below(path: &Path) -> Vec<PathBuf> {
    files_below(path).into_keys().collect()
}

#[derive(Clone, Copy, Debug)]
enum Harm {
    Flip(u64),
    Cut(u64),
    Delete,
}

fn harms(length: u64) -> Vec<Harm> {
    let mut harms = vec![Harm::Delete];
    if length > 0 {
        let parts = 7;
        harms.extend((0..=parts).map(|n| Harm::Flip((length - 1) * n / parts)));
        harms.extend([0, length / 3, length - 1].map(Harm::Cut));
    }
    harms
}

fn do_harm(path: &Path, harm: Harm) {
    match harm {
        Harm::Delete => fs::remove_file(path).unwrap(),
        Harm::Cut(length) => {
            let file = fs::File::options().write(true).open(path).unwrap();
            file.set_len(length).unwrap();
        }
        Harm::Flip(at) => {
            let mut bytes = fs::read(path).unwrap();
            bytes[at as usize] ^= 0x20;
            fs::write(path, bytes).unwrap();
        }
    }
}

/// Rows by payload of everything the tests deliver.
fn rows_of() -> BTreeMap<Vec<u8>, (DeliveryId, u64)> {
    let mut rows = BTreeMap::new();
    for (delivery, entries) in [(1, 12), (2, 3)] {
        for ordinal in 0..entries {
            for (slice, weight) in shape(ordinal).into_iter().enumerate() {
                let name = payload(delivery, ordinal, slice);
                rows.insert(name, (delivery_id(delivery), u64::from(weight)));
            }
        }
    }
    rows
}

fn check(path: &Path, file: &Path, before: &Before, what: &str) {
    let outbox = Outbox::open(settings(path)).unwrap_or_else(|error| panic!("{what}: {error}"));
    check_sums(&outbox);
    // Rows that are neither handed out nor kept must be named.
    let dead = dead_letters(&outbox);
    let mut came = BTreeSet::new();
    for claim in drain(&outbox, 1) {
        came.extend(claim.slices.iter().map(|slice| slice.to_vec()));
    }
    check_sums(&outbox);
    let rows = rows_of();
    let mut missing: BTreeMap<DeliveryId, u64> = BTreeMap::new();
    for name in before.waiting.iter().chain(&before.dead) {
        if !came.contains(name) && !dead.contains(name) {
            let (delivery, weight) = rows[name];
            *missing.entry(delivery).or_default() += weight;
        }
    }
    assert!(
        came.iter().all(|name| rows.contains_key(name)),
        "{what}: made up"
    );
    let damage = outbox.damage();
    for (delivery, lost) in &missing {
        let named: u64 = damage
            .iter()
            .filter(|damage| damage.delivery == Some(*delivery))
            .map(|damage| damage.rows)
            .sum();
        assert!(
            named >= *lost,
            "{what}: {lost} rows of {delivery} are lost, named: {damage:?}"
        );
    }
    let kind = file
        .parent()
        .unwrap()
        .file_name()
        .unwrap()
        .to_str()
        .unwrap();
    match kind {
        // The records are all there: what a lost state costs is sending some again.
        "state" => assert_eq!(missing, BTreeMap::new(), "{what}: {damage:?}"),
        "segments" | "dead" => {
            for state in &before.states {
                let after = outbox.delivery(state.id).unwrap().unwrap();
                assert_eq!(after.rows_in, state.rows_in, "{what}");
                assert!(after.settled, "{what}");
            }
        }
        "rejected" => assert_eq!(missing, BTreeMap::new(), "{what}"),
        _ => {
            assert_eq!(missing, BTreeMap::new(), "{what}");
            assert_eq!(damage, [], "{what}");
        }
    }
    // One damaged record costs itself, not its neighbours.
    if what.contains("Flip") && kind == "segments" {
        let lost: u64 = missing.values().sum();
        assert!(lost <= 6, "{what}: {lost} rows lost to one bit");
    }
    // The outbox is as good as new.
    deliver(&outbox, 77, 1, 5).unwrap();
    assert_eq!(drain(&outbox, 1).len(), 5, "{what}");
    outbox.close();
    let again = open(path);
    check_sums(&again);
    assert_eq!(again.damage(), [], "{what}: named twice");
    assert!(lease(&again, 1).claim(9).unwrap().is_empty(), "{what}");
}

fn try_all(fill: fn(&Outbox), name: &str) {
    let home = home();
    let path = home.path().join("outbox");
    let before = before(&path, fill);
    let files = paths_below(&path);
    assert!(files.len() > 5, "{files:?}");
    for file in files {
        let length = file.metadata().unwrap().len();
        for harm in harms(length) {
            let copy = home.path().join("harmed");
            copy_all(&path, &copy);
            let harmed = copy.join(file.strip_prefix(&path).unwrap());
            do_harm(&harmed, harm);
            check(
                &copy,
                &harmed,
                &before,
                &format!("{name}: {harm:?} of {}", harmed.display()),
            );
            fs::remove_dir_all(&copy).unwrap();
        }
    }
}

#[test]
fn damage_to_a_backlog_costs_what_is_damaged_and_is_named() {
    try_all(backlog, "backlog");
}

#[test]
fn damage_while_draining_costs_what_is_damaged_and_is_named() {
    try_all(half_drained, "half drained");
}

#[test]
fn damage_after_draining_costs_what_is_damaged_and_is_named() {
    try_all(drained, "drained");
}

#[test]
fn the_whole_state_may_be_gone() {
    for fill in [backlog, half_drained, drained_backwards, drained] {
        let home = home();
        let path = home.path().join("outbox");
        let before = before(&path, fill);
        fs::remove_dir_all(path.join("state")).unwrap();
        let file = path.join("state").join("db");
        check(&path, &file, &before, "no state");
    }
}

#[test]
fn what_is_damaged_is_kept() {
    let home = home();
    let path = home.path().join("outbox");
    let outbox = open(&path);
    backlog(&outbox);
    outbox.close();
    let segment = paths_below(&path.join("segments")).remove(0);
    do_harm(&segment, Harm::Flip(300));
    do_harm(&path.join("state").join("conf"), Harm::Flip(3));
    let outbox = open(&path);
    drain(&outbox, 1);
    let kept: Vec<String> = fs::read_dir(path.join("damaged"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    let segment = segment.file_name().unwrap().to_str().unwrap();
    assert!(
        kept.iter().any(|name| name.starts_with(segment)),
        "{kept:?}"
    );
    assert!(
        kept.iter().any(|name| name.starts_with("state")),
        "{kept:?}"
    );
    // Counted, when it is set aside and at the next opening, until a person removes it.
    let files = paths_below(&path.join("damaged"));
    let bytes = files.iter().map(|file| file.metadata().unwrap().len());
    let sum = SetAside {
        files: files.len() as u64,
        bytes: bytes.sum(),
    };
    assert!(sum.files > 1 && sum.bytes > 300, "{sum:?}");
    assert_eq!(outbox.usage().unwrap().set_aside, sum);
    outbox.close();
    let outbox = open(&path);
    assert_eq!(outbox.usage().unwrap().set_aside, sum);
    outbox.close();
    files.iter().for_each(|file| fs::remove_file(file).unwrap());
    let outbox = open(&path);
    assert_eq!(outbox.usage().unwrap().set_aside, SetAside::default());
    assert_eq!(outbox.damage(), []);
}

#[test]
fn a_check_changes_nothing_and_names_what_is_damaged() {
    for fill in [backlog, half_drained, drained] {
        let home = home();
        let path = home.path().join("outbox");
        let outbox = open(&path);
        fill(&outbox);
        let error = look(&path, Some(&keys())).unwrap_err();
        assert!(error.to_string().contains("another process"), "{error}");
        outbox.close();
        let files = |path: &Path| -> Vec<(PathBuf, Vec<u8>)> {
            let all = paths_below(path).into_iter();
            all.map(|file| (file.clone(), fs::read(file).unwrap()))
                .collect()
        };
        let before = files(&path);
        let report = look(&path, Some(&keys())).unwrap();
        assert_eq!(report.faults, []);
        assert!(report.records > 2, "{report:?}");
        assert_eq!(files(&path), before);

        for (file, bytes) in &before {
            let kind = file
                .parent()
                .unwrap()
                .file_name()
                .unwrap()
                .to_str()
                .unwrap();
            if !["segments", "dead", "rejected"].contains(&kind) {
                continue;
            }
            for harm in harms(bytes.len() as u64) {
                let unread = kind == "rejected" && matches!(harm, Harm::Delete);
                // The header of a dead-letter file is never read.
                let unseen = kind == "dead" && matches!(harm, Harm::Flip(at) if at < 40);
                if unread || unseen {
                    continue;
                }
                do_harm(file, harm);
                let report = look(&path, Some(&keys())).unwrap();
                assert!(
                    report.faults.iter().any(|fault| fault.file == *file),
                    "{harm:?} of {}: {report:?}",
                    file.display()
                );
                fs::write(file, bytes).unwrap();
            }
        }
    }
}

#[test]
fn a_check_of_what_is_no_outbox_is_refused_and_makes_nothing() {
    let home = home();
    let path = home.path().join("nothing");
    look(&path, Some(&keys())).unwrap_err();
    assert!(!path.exists());
    fs::create_dir(&path).unwrap();
    look(&path, Some(&keys())).unwrap_err();
    assert_eq!(paths_below(&path), Vec::<PathBuf>::new());
}

#[test]
fn a_salvage_finds_beforehand_what_the_drain_would_have_met() {
    let home = home();
    let path = home.path().join("outbox");
    let outbox = open(&path);
    half_drained(&outbox);
    outbox.close();
    let segments = paths_below(&path.join("segments"));
    do_harm(&segments[1], Harm::Flip(600));
    do_harm(&paths_below(&path.join("dead"))[0], Harm::Flip(60));
    let damage = {
        let outbox = open(&path);
        outbox.verify().unwrap();
        outbox.close();
        outbox.damage()
    };
    let named: u64 = damage.iter().map(|damage| damage.rows).sum();
    assert!(named > 0, "{damage:?}");
    let outbox = open(&path);
    assert_eq!(outbox.damage(), []);
    outbox.verify().unwrap();
    drain(&outbox, 1);
    dead_letters(&outbox);
    assert_eq!(outbox.damage(), [], "met only later");
    let lost: u64 = outbox
        .deliveries(None, 9)
        .unwrap()
        .deliveries
        .iter()
        .map(|state| state.damaged.rows)
        .sum();
    assert_eq!(lost, named);
    check_sums(&outbox);
}

#[test]
fn a_loss_is_named_once_and_not_again_at_the_next_open() {
    let home = home();
    let path = home.path().join("outbox");
    let outbox = open(&path);
    backlog(&outbox);
    outbox.close();
    let segment = &paths_below(&path.join("segments"))[0];
    let length = segment.metadata().unwrap().len();
    do_harm(segment, Harm::Cut(length / 2));
    for (opened, named) in [(1, true), (2, false), (3, false)] {
        let outbox = open(&path);
        let damage = outbox.damage();
        assert_eq!(!damage.is_empty(), named, "open {opened}: {damage:?}");
        outbox.close();
    }
}

/// Rows of counters in the state of a closed outbox.
fn counters(path: &Path) -> (sled::Db, Vec<sled::IVec>) {
    let db = sled::open(path.join("state")).unwrap();
    let keys = db.scan_prefix(b"c").keys().map(Result::unwrap).collect();
    (db, keys)
}

#[test]
fn counters_are_written_with_the_first_that_settles_and_are_missed_from_then_on() {
    let home = home();
    let path = home.path().join("outbox");
    let outbox = open(&path);
    backlog(&outbox);
    outbox.close();
    assert_eq!(counters(&path).1.len(), 0);
    let outbox = open(&path);
    let claims = lease(&outbox, 1).claim(1).unwrap();
    lease(&outbox, 1).settle(delivered(&claims)).unwrap();
    outbox.close();
    let (db, keys) = counters(&path);
    assert_eq!(keys.len(), 1);
    db.remove(&keys[0]).unwrap();
    db.flush().unwrap();
    drop(db);
    // The state says less than the segments have settled: it is made anew from the files.
    let outbox = open(&path);
    check_sums(&outbox);
    assert_eq!(drain(&outbox, 1).len(), 15);
}
