//! Dead letters whose payload a person has mended.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use looker_feed::outbox::{DeadFilter, DeadLetter, Error, Outbox};

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
        let armed = Arc::new(AtomicBool::new(false));
        let at = Arc::clone(&armed);
        let (disk, calls) = failing(move |_| at.load(Relaxed), nth, 1, 28);
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
