//! Nothing that a delivery says of people can be read where it is stored.

use data_encoding::HEXLOWER;

use looker_feed::outbox::{DeadFilter, Entry, RejectedRow, Slice, Totals};

use crate::kit::*;
use crate::place::{Daemon, Place};

on_every_backend![nothing_that_a_delivery_says_of_people_is_stored_in_the_clear];

/// What must not be found. Nothing of it repeats, so lz4 alone would leave it as it is.
const EMAIL: &[u8] = b"ada.lovelace@example.com";
const ATTRIBUTE: &[u8] = b"Kx7-plum-Qz";
const REJECTED: &[u8] = b"bernoulli@example.org";
const QUOTED: &[u8] = b"gauss@example.net";
const MENDED: &[u8] = b"euler@example.ch";
const SECRETS: [&[u8]; 5] = [EMAIL, ATTRIBUTE, REJECTED, QUOTED, MENDED];
/// Nor what is known of deliveries that failed.
const FAILED: [&[u8]; 4] = [b"title 9", b"about 9", b"a sentence", b"the journal"];

/// One request that is delivered to the dead letters with words that quote it, one that is mended there,
/// one that waits, one rejected row, and a delivery that failed.
fn fill(outbox: &Daemon) {
    let mut staging = outbox.begin(new_delivery(1, 1)).unwrap();
    let batch = [EMAIL, b" has ", ATTRIBUTE, b" and more of this".as_slice()].concat();
    let slices = [Slice {
        bytes: &batch,
        rows: 1,
    }];
    let entry = Entry {
        slices: &slices,
        route: 0,
    };
    for _ in 0..3 {
        staging.append(entry).unwrap();
    }
    let row = RejectedRow {
        row: 2,
        reason: &format!("{} has no name", String::from_utf8_lossy(REJECTED)),
        text: REJECTED,
    };
    staging.reject(row).unwrap();
    staging
        .commit(Totals {
            rows_in: 4,
            rows_rejected: 1,
            rows_unchanged: 0,
            users: 1,
            batches: 3,
            requests: 3,
            notes: Vec::new(),
        })
        .unwrap();
    for claim in outbox.claim(1, 2) {
        let mut dead = settlement(&claim, &[0]);
        dead.dead[0].reason = format!("refused: {}", String::from_utf8_lossy(QUOTED));
        outbox.settle(vec![dead]);
    }
    let page = outbox.dead_letters(DeadFilter::default(), None, 9).unwrap();
    outbox.edit(page.letters[1].id, MENDED.to_vec()).unwrap();
    outbox.record_failure(&attempt(9), end(3)).unwrap();
    let journal = outbox.put_journal(delivery_id(9), b"", b"the journal");
    assert!(journal.unwrap());
}

fn holds(bytes: &[u8], what: &[u8]) -> bool {
    let digits = HEXLOWER.encode(what);
    [what, digits.as_bytes()]
        .iter()
        .any(|what| memchr::memmem::find(bytes, what).is_some())
}

fn nothing_that_a_delivery_says_of_people_is_stored_in_the_clear(place: &Place) {
    let outbox = place.open();
    fill(&outbox);
    let look = |when: &str| {
        let stored = place.stored();
        for kind in match place.is_shared() {
            true => ["block", "letter", "reject", "attempt"],
            false => ["/segments/", "/dead/", "/rejected/", "/state/"],
        } {
            let some = |(name, bytes): &(String, Vec<u8>)| name.contains(kind) && bytes.len() > 50;
            assert!(
                stored.iter().any(some),
                "{when}: there is something in {kind}"
            );
        }
        for (name, bytes) in &stored {
            for secret in SECRETS.iter().chain(&FAILED) {
                let text = String::from_utf8_lossy(secret);
                assert!(!holds(bytes, secret), "{when}: {text} in {name}");
            }
        }
        // The search finds what is there: the title is not sealed, nor is an id.
        for there in [&b"delivery 1"[..], &delivery_id(1).0] {
            assert!(
                stored.iter().any(|(_, bytes)| holds(bytes, there)),
                "{when}"
            );
        }
    };
    look("open");
    // Nor would it be hidden by compression alone.
    let body = [EMAIL, ATTRIBUTE, b" ".repeat(200).as_slice()].concat();
    let packed = lz4_flex::block::compress(&body);
    assert!(packed.len() < body.len() && holds(&packed, EMAIL) && holds(&packed, ATTRIBUTE));

    let page = outbox.dead_letters(DeadFilter::default(), None, 9).unwrap();
    assert!(holds(page.letters[0].reason.as_bytes(), QUOTED));
    let (_, payload) = outbox.dead_letter(page.letters[0].id).unwrap().unwrap();
    assert!(holds(&payload, EMAIL), "the key opens it");
    let rows = outbox.rejected(delivery_id(1), None, 9).unwrap().unwrap();
    assert_eq!(rows.rows[0].text, REJECTED);
    outbox.close();
    look("closed");
    drop(outbox);
    let outbox = place.open();
    look("open again");
    assert_eq!(outbox.drain(1).len(), 1);
}
