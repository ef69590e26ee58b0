//! Dead letters: listed, shown, sent again, thrown away, mended.

use looker_feed::outbox::{DeadFilter, DeadLetter, Outbox, Tally};

use crate::kit::*;
use crate::place::Place;

on_every_backend![
    dead_letters_are_listed_shown_replayed_and_discarded,
    a_replay_queues_behind_what_waits,
    a_mended_dead_letter_is_what_is_shown_and_what_is_sent,
];

fn dead_letters_are_listed_shown_replayed_and_discarded(place: &Place) {
    let outbox = place.open();
    deliver(&outbox, 1, 1, 6).unwrap();
    let claims = outbox.claim(1, 6);
    let mut settlements = delivered(&claims);
    // Entries 2 and 5 have three slices of one, two and three rows.
    settlements[2] = settlement(&claims[2], &[0, 2]);
    settlements[5] = settlement(&claims[5], &[1]);
    outbox.settle(settlements);
    let state = outbox.state(1);
    let dead = Tally {
        rows: 1 + 3 + 2,
        batches: 3,
    };
    assert_eq!(state.dead, dead);
    assert!(state.settled);
    check_sum(&state);

    let all = |outbox: &Outbox| {
        let page = outbox.dead_letters(DeadFilter::default(), None, 2).unwrap();
        assert_eq!(page.letters.len(), 2);
        assert_eq!(page.letters[1].reason, "refused: slice 2");
        let rest = outbox.dead_letters(DeadFilter::default(), page.next, 2);
        let rest = rest.unwrap();
        assert_eq!((rest.letters.len(), rest.next), (1, None));
        let (letter, body) = outbox.dead_letter(page.letters[1].id).unwrap().unwrap();
        assert_eq!(letter, page.letters[1]);
        assert_eq!(&body[..], payload(1, 2, 2));
        letter.id
    };
    let before = all(&outbox);
    let outbox = outbox.reopen(place);
    let id = all(&outbox);
    assert_eq!(id, before);

    let moved = outbox.replay(&[id, id]).unwrap();
    assert_eq!((moved.letters, moved.rows), (1, 3));
    let moved = outbox.replay(&[id]).unwrap();
    assert_eq!(moved.letters, 0, "it is no longer dead");
    let state = outbox.state(1);
    let waiting = Tally {
        rows: 3,
        batches: 1,
    };
    assert_eq!(state.waiting, waiting);
    check_sum(&state);
    let sent = || {
        let claims = outbox.claim(1, 9);
        assert_eq!(claims.len(), 1);
        assert_eq!(&claims[0].slices[0][..], payload(1, 2, 2));
        check_route(&claims[0]);
        assert_eq!(claims[0].rows, [3]);
        assert_eq!(outbox.state(1).in_flight.rows, 3);
        claims
    };
    // It dies again, is replayed again, and arrives.
    outbox.settle(vec![settlement(&sent()[0], &[0])]);
    assert_eq!(outbox.state(1).dead.rows, 6);
    let filter = DeadFilter {
        delivery: Some(delivery_id(1)),
        destination: Some(destination_id(1)),
    };
    let page = outbox.dead_letters(filter, None, 100).unwrap();
    assert_eq!(page.letters.len(), 3);
    outbox.replay(&[page.letters[2].id]).unwrap();
    outbox.settle(delivered(&sent()));
    let ids = [page.letters[0].id, page.letters[1].id];
    let moved = outbox.discard(&ids).unwrap();
    assert_eq!((moved.letters, moved.rows), (2, 3));
    assert_eq!(outbox.discard(&ids).unwrap().letters, 0);
    let state = outbox.state(1);
    assert_eq!(state.dead, Tally::default());
    assert_eq!(state.discarded.rows, 3);
    assert!(state.settled);
    check_sum(&state);
    let page = outbox.dead_letters(DeadFilter::default(), None, 9).unwrap();
    assert!(page.letters.is_empty());
    drop(outbox.reopen(place));
    place.check_no_letters();
}

fn a_replay_queues_behind_what_waits(place: &Place) {
    let outbox = place.open();
    deliver(&outbox, 1, 1, 1).unwrap();
    let claims = outbox.claim(1, 1);
    outbox.settle(vec![settlement(&claims[0], &[0])]);
    deliver(&outbox, 2, 1, 1).unwrap();
    let page = outbox.dead_letters(DeadFilter::default(), None, 9).unwrap();
    outbox.replay(&[page.letters[0].id]).unwrap();
    let outbox = outbox.reopen(place);
    let order: Vec<_> = outbox.drain(1).iter().map(|claim| claim.delivery).collect();
    assert_eq!(order, [2, 1].map(delivery_id));
    check_sums(&outbox);
}

fn a_mended_dead_letter_is_what_is_shown_and_what_is_sent(place: &Place) {
    const MENDED: &[u8] = b"mended by a person";
    let letters = |outbox: &Outbox| -> Vec<(DeadLetter, Vec<u8>)> {
        let page = outbox.dead_letters(DeadFilter::default(), None, 9).unwrap();
        let letters = page.letters.into_iter().map(|letter| {
            let (_, body) = outbox.dead_letter(letter.id).unwrap().unwrap();
            (letter, body.to_vec())
        });
        letters.collect()
    };
    // Three slices of one entry die together; the entry has six rows.
    let outbox = place.open();
    deliver(&outbox, 1, 1, 6).unwrap();
    let claims = outbox.claim(1, 6);
    let mut settlements = delivered(&claims);
    settlements[2] = settlement(&claims[2], &[0, 1, 2]);
    outbox.settle(settlements);
    let old = letters(&outbox)[1].0.clone();
    let id = outbox.edit(old.id, MENDED.to_vec()).unwrap().unwrap();
    assert_ne!(id, old.id);
    assert_eq!(outbox.dead_letter(old.id).unwrap(), None);
    assert_eq!(outbox.edit(old.id, MENDED.to_vec()).unwrap(), None);

    let outbox = outbox.reopen(place);
    let (new, body) = outbox.dead_letter(id).unwrap().unwrap();
    assert_eq!(&body[..], MENDED);
    assert_eq!(new.reason, "refused: slice 1 (edited since)");
    assert_eq!((new.rows, new.attempts), (old.rows, old.attempts));
    let state = outbox.state(1);
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
    let mut sent: Vec<_> = outbox
        .drain(1)
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
    drop(outbox.reopen(place));
    place.check_no_letters();
}
