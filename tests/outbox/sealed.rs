//! What lies on the disk cannot be read or changed without the key, and a key that is missing is no
//! damage.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use looker_feed::outbox::{
    self, BatchesError, DeadFilter, Disk, KeyUse, Op, OpenError, Outbox, RejectedRow, Settings,
    needed_keys,
};
use looker_feed::seal::{Key, Keyring};

use crate::kit::*;

/// One request that is delivered to the dead letters, one that waits, one rejected row.
fn fill(outbox: &Outbox) {
    let mut staging = outbox.begin(new_delivery(1, 1)).unwrap();
    for _ in 0..2 {
        let slices = [outbox::Slice {
            bytes: b"a batch",
            rows: 1,
        }];
        staging
            .append(outbox::Entry {
                slices: &slices,
                route: 0,
            })
            .unwrap();
    }
    let row = RejectedRow {
        row: 2,
        reason: "no name",
        text: b"a row",
    };
    staging.reject(row).unwrap();
    staging
        .commit(outbox::Totals {
            rows_in: 3,
            rows_rejected: 1,
            rows_unchanged: 0,
            users: 1,
            batches: 2,
            requests: 2,
            notes: Vec::new(),
        })
        .unwrap();
    let claims = lease(outbox, 1).claim(1).unwrap();
    let dead = vec![settlement(&claims[0], &[0])];
    lease(outbox, 1).settle(dead).unwrap();
}

fn ring(current: u8, previous: &[u8]) -> Arc<Keyring> {
    let key = |byte: u8| Key::new([byte; 32]);
    let previous = previous.iter().map(|byte| key(*byte)).collect();
    Arc::new(Keyring::new(key(current), previous))
}

fn try_open(path: &Path, keys: Arc<Keyring>) -> Result<Outbox, OpenError> {
    Outbox::open(Settings {
        keys,
        ..settings(path)
    })
}

fn needs(path: &Path, keys: &[(u8, u64)]) {
    let told = needed_keys(path).unwrap();
    let want: KeyUse = keys
        .iter()
        .map(|(key, files)| (ring(*key, &[]).current(), *files))
        .collect();
    assert_eq!(told, want);
}

/// Changes a byte of what is sealed in each record of a file, with the checksum made right.
fn tamper(file: &Path) -> usize {
    const PREFIX: usize = 12;
    let mut bytes = fs::read(file).unwrap();
    let places: Vec<usize> = memchr::memmem::find_iter(&bytes, b"LFr2").collect();
    for &at in &places {
        let word = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap());
        let length = word(at + 4);
        let end = at + PREFIX + length as usize;
        // In front of the tag.
        bytes[end - 20] ^= 1;
        let payload = &bytes[at + PREFIX..end];
        let crc = crc32c::crc32c_append(crc32c::crc32c(&length.to_le_bytes()), payload);
        bytes[at + 8..at + PREFIX].copy_from_slice(&crc.to_le_bytes());
    }
    fs::write(file, bytes).unwrap();
    places.len()
}

#[test]
fn without_the_right_key_an_outbox_does_not_open_and_nothing_in_it_is_touched() {
    let home = home();
    let path = home.path().join("outbox");
    let outbox = open(&path);
    fill(&outbox);
    outbox.close();
    // The key can be told although the header of a file is damaged.
    let segment = files_below(&path.join("segments"))
        .into_keys()
        .next()
        .unwrap();
    let mut bytes = fs::read(&segment).unwrap();
    bytes[20] ^= 1;
    fs::write(&segment, bytes).unwrap();
    needs(&path, &[(1, 3)]);

    let before = files_below(&path);
    let error = try_open(&path, ring(2, &[3])).unwrap_err();
    let text = error.to_string();
    for part in [
        ring(1, &[]).current().to_string(),
        ring(2, &[]).current().to_string(),
        "under it: 3".to_owned(),
        "seal.previous_key_files".to_owned(),
    ] {
        assert!(text.contains(&part), "{part}: {text}");
    }
    assert!(matches!(error, OpenError::MissingKey { files: 3, .. }));
    for refused in [
        look(&path, Some(&ring(2, &[]))).err(),
        outbox::inspect(&path, Some(&ring(2, &[]))).err(),
        match outbox::read_batches(&path, &ring(2, &[]), |_| Ok(())) {
            Err(BatchesError::Open(error)) => Some(error),
            other => panic!("{other:?}"),
        },
    ] {
        let refused = refused.expect("it is refused");
        assert!(matches!(refused, OpenError::MissingKey { .. }), "{refused}");
    }
    let elsewhere = home.path().join("elsewhere");
    let refused = outbox::salvage_into(&path, &elsewhere, ring(2, &[])).unwrap_err();
    assert!(refused.to_string().contains("--key-file"), "{refused}");
    assert!(!elsewhere.exists());
    assert_eq!(files_below(&path), before, "nothing was changed");

    // What checksums tell can be told without any key.
    let report = look(&path, None).unwrap();
    assert!(!report.opened && report.records == 4, "{report:?}");
    assert_eq!(report.faults.len(), 1, "the header: {report:?}");

    let outbox = try_open(&path, ring(1, &[])).unwrap();
    assert_eq!(drain(&outbox, 1).len(), 1, "all is there with the key");
}

#[test]
fn what_a_previous_key_has_sealed_opens_until_nothing_needs_it() {
    let home = home();
    let path = home.path().join("outbox");
    needs(&path, &[]);
    let outbox = try_open(&path, ring(1, &[])).unwrap();
    fill(&outbox);
    outbox.close();
    needs(&path, &[(1, 3)]);

    let outbox = try_open(&path, ring(2, &[1])).unwrap();
    deliver(&outbox, 2, 1, 3).unwrap();
    let claims = lease(&outbox, 1).claim(1).unwrap();
    // Dies under the new key what was sealed under the old one.
    lease(&outbox, 1)
        .settle(vec![settlement(&claims[0], &[0])])
        .unwrap();
    needs(&path, &[(1, 2), (2, 2)]);
    let page = outbox.dead_letters(DeadFilter::default(), None, 9).unwrap();
    assert_eq!(page.letters.len(), 2);
    outbox.replay(&[page.letters[0].id]).unwrap();
    assert_eq!(drain(&outbox, 1).len(), 4);
    assert_eq!(outbox.damage(), []);
    outbox.close();

    // The rejected row stays as long as its delivery is listed.
    assert!(try_open(&path, ring(2, &[])).is_err());
    let outbox = Outbox::open(Settings {
        history: 0,
        keys: ring(2, &[1]),
        ..settings(&path)
    })
    .unwrap();
    let page = outbox.dead_letters(DeadFilter::default(), None, 9).unwrap();
    outbox.discard(&[page.letters[0].id]).unwrap();
    outbox.close();
    let outbox = Outbox::open(Settings {
        history: 0,
        keys: ring(2, &[1]),
        ..settings(&path)
    })
    .unwrap();
    outbox.close();
    needs(&path, &[]);
    let outbox = try_open(&path, ring(2, &[])).unwrap();
    assert_eq!(outbox.damage(), []);
}

#[test]
fn what_was_changed_by_hand_is_named_and_the_rest_goes_on() {
    let home = home();
    let path = home.path().join("outbox");
    let outbox = open(&path);
    fill(&outbox);
    deliver(&outbox, 2, 2, 3).unwrap();
    outbox.close();
    let before = files_below(&path);
    let changed: Vec<&PathBuf> = before
        .keys()
        .filter(|file| {
            let name = file.display().to_string();
            name.contains("/dead/") || name.contains("/rejected/") || name.contains("/0101")
        })
        .collect();
    assert_eq!(changed.len(), 3, "{changed:?}");
    for (file, records) in changed.iter().zip([1, 1, 2]) {
        assert_eq!(tamper(file), records);
    }
    // Checksums do not tell, but for the one of a whole file.
    let told = |report: &outbox::CheckReport| report.records;
    let (without, with) = (
        look(&path, None).unwrap(),
        look(&path, Some(&keys())).unwrap(),
    );
    assert_eq!(told(&without), told(&with) + 4, "{with:?}");
    for file in &changed {
        assert!(
            with.faults.iter().any(|fault| fault.file == **file),
            "{file:?}: {with:?}"
        );
    }

    let outbox = open(&path);
    assert_eq!(outbox.damage(), []);
    assert_eq!(drain(&outbox, 1).len(), 0);
    let page = outbox.dead_letters(DeadFilter::default(), None, 9).unwrap();
    assert_eq!(page.letters, []);
    let rows = outbox.rejected(delivery_id(1), None, 9).unwrap().unwrap();
    assert_eq!((rows.rows.len(), rows.kept), (0, 1));
    let damage = outbox.damage();
    assert_eq!(damage.len(), 2, "{damage:?}");
    assert!(
        damage
            .iter()
            .all(|one| one.delivery == Some(delivery_id(1)))
    );
    // Looking has named the dead letter, and changed nothing.
    let state = outbox.delivery(delivery_id(1)).unwrap().unwrap();
    assert_eq!((state.damaged.rows, state.dead.rows), (1, 1));
    outbox.verify().unwrap();
    let state = outbox.delivery(delivery_id(1)).unwrap().unwrap();
    assert_eq!((state.damaged.rows, state.dead.rows), (2, 0));
    check_sum(&state);
    assert_eq!(drain(&outbox, 2).len(), 3, "the other delivery goes on");
}

#[test]
fn records_that_were_put_in_anothers_place_are_not_sent() {
    let home = home();
    let path = home.path().join("outbox");
    let outbox = open(&path);
    deliver(&outbox, 1, 1, 1).unwrap();
    deliver(&outbox, 2, 2, 1).unwrap();
    outbox.close();
    let segments: Vec<_> = files_below(&path.join("segments")).into_iter().collect();
    let [(first, one), (second, other)] = &segments[..] else {
        panic!("two segments: {segments:?}");
    };
    assert_eq!(one.len(), other.len(), "the state cannot tell them apart");
    fs::write(first, other).unwrap();
    fs::write(second, one).unwrap();
    let outbox = open(&path);
    for destination in [1, 2] {
        assert_eq!(drain(&outbox, destination).len(), 0);
        let state = outbox.delivery(delivery_id(destination)).unwrap().unwrap();
        assert_eq!(state.damaged.batches, 1);
    }
}

/// Stamp and sealed part of every record in what was written.
fn stamped(bytes: &[u8]) -> Vec<(Vec<u8>, Vec<u8>)> {
    memchr::memmem::find_iter(bytes, b"LFr2")
        .filter_map(|at| {
            let word = |at: usize| Some(u32::from_le_bytes(*bytes.get(at..)?.first_chunk()?));
            let length = word(at + 4)?;
            let payload = bytes.get(at + 12..)?.get(..length as usize)?;
            let crc = crc32c::crc32c_append(crc32c::crc32c(&length.to_le_bytes()), payload);
            // Else it is a marker by chance.
            (word(at + 8)? == crc).then_some(())?;
            let stamp = 36 + 8 * word(at + 40)? as usize;
            let (stamp, sealed) = payload.get(stamp..)?.split_at_checked(48)?;
            Some((stamp.to_vec(), sealed.to_vec()))
        })
        .collect()
}

#[test]
fn no_key_and_count_seals_two_things_whatever_fails_and_is_written_again() {
    let home = home();
    let mut seen: BTreeMap<Vec<u8>, Vec<u8>> = BTreeMap::new();
    let (mut failed, mut cut) = (0, 0);
    for fail_at in 0..40 {
        let path = home.path().join(format!("outbox-{fail_at}"));
        let written = Arc::new(Mutex::new((Vec::new(), 0, 0)));
        let shown = Arc::clone(&written);
        let disk = Disk::with_hook(move |op| {
            let mut written = shown.lock().unwrap();
            match op {
                Op::Write { bytes, .. } => written.0.push(bytes.to_vec()),
                Op::Cut { .. } => written.2 += 1,
                Op::Sync(_) => {
                    written.1 += 1;
                    if written.1 == fail_at {
                        return Err(std::io::Error::other("the test says so"));
                    }
                }
                _ => {}
            }
            Ok(())
        });
        // Two processes, one after the other, and after a failure the same work again.
        for _ in 0..2 {
            let Ok(outbox) = Outbox::open_on(settings(&path), disk.clone()) else {
                continue;
            };
            for delivery in 1..4 {
                let _ = deliver(&outbox, delivery, 1, 3);
            }
            for _ in 0..6 {
                let claims = lease(&outbox, 1).claim(1).unwrap_or_default();
                let dead = claims.iter().map(|claim| settlement(claim, &[0]));
                failed += usize::from(lease(&outbox, 1).settle(dead.collect()).is_err());
            }
            outbox.close();
        }
        let written = written.lock().unwrap();
        cut += written.2;
        for (stamp, sealed) in written.0.iter().flat_map(|bytes| stamped(bytes)) {
            let before = seen.insert(stamp, sealed.clone());
            assert!(before.is_none_or(|before| before == sealed), "{fail_at}");
        }
    }
    assert!(seen.len() > 500, "{}", seen.len());
    assert!(failed > 0 && cut > 0, "failures {failed}, cuts {cut}");
}
