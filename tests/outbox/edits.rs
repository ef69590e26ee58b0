//! Dead letters whose payload a person has mended.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};

use looker_feed::outbox::{DeadFilter, DeadLetter, Disk, Error, Outbox};

use crate::kit::*;

const MENDED: &[u8] = b"mended by a person";

/// Three slices of one entry die together; the entry has six rows.
fn fill(outbox: &Outbox) {
    deliver(outbox, 1, 1, 6).unwrap();
    let claims = lease(outbox, 1).claim(6).unwrap();
    let mut settlements = delivered(&claims);
    settlements[2] = settlement(&claims[2], &[0, 1, 2]);
    lease(outbox, 1).settle(settlements).unwrap();
}

fn letters(outbox: &Outbox) -> Vec<(DeadLetter, Vec<u8>)> {
    let page = outbox.dead_letters(DeadFilter::default(), None, 9).unwrap();
    let letters = page.letters.into_iter().map(|letter| {
        let (_, body) = outbox.dead_letter(letter.id).unwrap().unwrap();
        (letter, body.to_vec())
    });
    letters.collect()
}

#[test]
fn a_mended_dead_letter_is_what_is_shown_and_what_is_sent() {
    let directory = home();
    let outbox = open(directory.path());
    fill(&outbox);
    let before = letters(&outbox);
    let old = before[1].0.clone();
    let id = outbox.edit(old.id, MENDED.to_vec()).unwrap().unwrap();
    assert_ne!(id, old.id);
    assert_eq!(outbox.dead_letter(old.id).unwrap(), None);
    outbox.close();

    let outbox = open(directory.path());
    let (new, body) = outbox.dead_letter(id).unwrap().unwrap();
    assert_eq!(&body[..], MENDED);
    assert_eq!(new.reason, "refused: slice 1 (edited since)");
    assert_eq!((new.rows, new.attempts), (old.rows, old.attempts));
    let state = outbox.delivery(delivery_id(1)).unwrap().unwrap();
    assert_eq!((state.dead.rows, state.dead.batches), (6, 3));
    check_sum(&state);

    // Mended once more, the reason says it once.
    let id = outbox.edit(id, b"better".to_vec()).unwrap().unwrap();
    let all = letters(&outbox);
    assert_eq!(all.len(), 3);
    let (last, body) = &all[2];
    assert_eq!((last.id, &body[..]), (id, &b"better"[..]));
    assert_eq!(last.reason, "refused: slice 1 (edited since)");

    // All three are sent again; the mended one has its rows.
    let ids: Vec<_> = all.iter().map(|(letter, _)| letter.id).collect();
    let moved = outbox.replay(&ids).unwrap();
    assert_eq!((moved.letters, moved.rows), (3, 6));
    assert_eq!(outbox.edit(id, b"too late".to_vec()).unwrap(), None);
    let mut sent: Vec<_> = drain(&outbox, 1)
        .into_iter()
        .flat_map(|claim| claim.slices.into_iter().zip(claim.rows))
        .map(|(slice, rows)| (slice.to_vec(), rows))
        .collect();
    sent.sort();
    let mut want = vec![
        (payload(1, 2, 0), 1),
        (b"better".to_vec(), 2),
        (payload(1, 2, 2), 3),
    ];
    want.sort();
    assert_eq!(sent, want);
    check_sums(&outbox);
    outbox.close();
    drop(open(directory.path()));
    assert_eq!(size_of(&directory.path().join("dead")), 0);
}

#[test]
fn the_mended_one_counts_when_the_state_was_lost() {
    let directory = home();
    let path = directory.path().join("outbox");
    let outbox = open(&path);
    fill(&outbox);
    let id = letters(&outbox)[1].0.id;
    outbox.edit(id, MENDED.to_vec()).unwrap().unwrap();
    outbox.close();
    std::fs::remove_dir_all(path.join("state")).unwrap();
    let outbox = open(&path);
    let mut bodies: Vec<_> = letters(&outbox).into_iter().map(|(_, body)| body).collect();
    bodies.sort();
    let mut want = vec![payload(1, 2, 0), MENDED.to_vec(), payload(1, 2, 2)];
    want.sort();
    assert_eq!(bodies, want);
    check_sums(&outbox);
}

/// The letter that was to be mended, after the outbox has been reopened.
fn reopened(path: &Path) -> Vec<u8> {
    let outbox = open(path);
    let all = letters(&outbox);
    check_sums(&outbox);
    assert_eq!(all.len(), 3);
    assert!(outbox.damage().is_empty(), "{:?}", outbox.damage());
    let others = [payload(1, 2, 0), payload(1, 2, 2)];
    let mut bodies = all.into_iter().map(|(_, body)| body);
    bodies.find(|body| !others.contains(body)).unwrap()
}

#[test]
fn a_letter_is_the_old_or_the_mended_one_when_the_disk_fails_at_any_change() {
    let mut failures = 0;
    for nth in 0.. {
        let directory = home();
        let (armed, calls) = (
            Arc::new(AtomicBool::new(false)),
            Arc::new(AtomicUsize::new(0)),
        );
        let (armed_too, calls_too) = (Arc::clone(&armed), Arc::clone(&calls));
        let disk = Disk::with_hook(move |_| {
            if armed_too.load(Relaxed) && calls_too.fetch_add(1, Relaxed) == nth {
                return Err(io::Error::from_raw_os_error(28));
            }
            Ok(())
        });
        let outbox = Outbox::open_on(settings(directory.path()), disk).unwrap();
        fill(&outbox);
        let id = letters(&outbox)[1].0.id;
        armed.store(true, Relaxed);
        let edited = outbox.edit(id, MENDED.to_vec());
        outbox.close();
        let body = reopened(directory.path());
        match edited {
            Ok(new) => {
                assert!(new.is_some());
                assert_eq!(body, MENDED, "failure {nth}");
            }
            Err(Error::Io { .. } | Error::RefusingWrites { .. } | Error::Unreadable { .. }) => {
                failures += 1;
                assert_eq!(body, payload(1, 2, 1), "failure {nth}");
            }
            // A state that was handed over and not synced may be there after all.
            Err(Error::State { .. }) => {
                failures += 1;
                let either = [MENDED.to_vec(), payload(1, 2, 1)];
                assert!(either.contains(&body), "failure {nth}");
            }
            Err(other) => panic!("{other:?}"),
        }
        if calls.load(Relaxed) <= nth {
            break;
        }
    }
    assert!(failures >= 3, "only {failures} failures were told");
}
