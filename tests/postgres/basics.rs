//! One daemon: deliveries come in, go out, and can be looked at.

use looker_feed::outbox::{
    DeadFilter, Ending, Error, MAX_NOTE, RejectedRow, Tally, Totals, WebhookState,
};

use crate::generated::{
    append, check_claim, check_sums, deliver, delivered, delivery_id, destination_id, new_delivery,
    settlement, totals,
};
use crate::kit::{drain, lease, open, settings};
use crate::server::{BOTH, Database, Isolation, database};

/// Runs a test on databases of both kinds.
fn on_both(test: impl Fn(&Database)) {
    for isolation in BOTH {
        if let Some(database) = database(isolation) {
            test(&database);
        }
    }
}

#[test]
fn deliveries_come_out_in_their_order_byte_by_byte() {
    on_both(|database| {
        let outbox = open(database);
        deliver(&outbox, 1, 1, 20).unwrap();
        deliver(&outbox, 2, 1, 5).unwrap();
        deliver(&outbox, 3, 2, 3).unwrap();
        assert_eq!(outbox.destinations().unwrap().len(), 2);
        check_sums(&outbox);
        let one = lease(&outbox, 1);
        // Nothing of the second is given out before the last of the first has settled.
        let first = one.claim(100).unwrap();
        assert_eq!(first.len(), 20);
        for (ordinal, claim) in first.iter().enumerate() {
            check_claim(claim, 1, ordinal as u64);
            assert_eq!(&claim.account[..], b"sealed 2");
        }
        assert!(one.claim(100).unwrap().is_empty());
        let state = outbox.delivery(delivery_id(1)).unwrap().unwrap();
        assert_eq!(state.in_flight.batches, state.batches);
        one.settle(delivered(&first[..19])).unwrap();
        assert!(one.claim(100).unwrap().is_empty());
        let settled = one.settle(delivered(&first[19..])).unwrap();
        assert_eq!(settled.finished, [delivery_id(1)]);
        let second = drain(&one);
        assert_eq!(second.len(), 5);
        assert!(second.iter().all(|claim| claim.delivery == delivery_id(2)));
        check_sums(&outbox);
        let states = outbox.deliveries(None, 10).unwrap().deliveries;
        let ids: Vec<_> = states.iter().map(|state| state.id).collect();
        assert_eq!(ids, [3, 2, 1].map(delivery_id));
        assert_eq!(
            outbox
                .deliveries(Some(states[0].cursor), 1)
                .unwrap()
                .deliveries[0]
                .id,
            delivery_id(2)
        );
        assert!(states[1].settled && states[1].finished.is_some() && !states[0].settled);
        assert_eq!(
            outbox.ending(delivery_id(1)).unwrap(),
            Ending::Settled(vec![])
        );
        assert_eq!(outbox.ending(delivery_id(3)).unwrap(), Ending::Open);
        assert_eq!(outbox.ending(delivery_id(9)).unwrap(), Ending::Unknown);
        let left = outbox.destinations().unwrap();
        assert_eq!(left.len(), 1);
        assert_eq!((left[0].id, left[0].deliveries), (destination_id(2), 1));
        // What has settled takes no room.
        outbox.sweep().unwrap();
        assert_eq!(
            database.psql("SELECT count(*), count(DISTINCT delivery) FROM looker_feed.block"),
            "1|1"
        );
    });
}

#[test]
fn a_delivery_is_known_once_and_gone_when_it_is_aborted() {
    on_both(|database| {
        let outbox = open(database);
        let webhook = |n: u8| outbox.webhook(&format!("webhook {n}")).unwrap();
        let mut staging = outbox.begin(new_delivery(1, 1)).unwrap();
        append(&mut staging, 1, 0).unwrap();
        assert_eq!(webhook(1), WebhookState::Receiving);
        assert_eq!(outbox.usage().unwrap().receiving, 1);
        assert!(matches!(
            outbox.begin(new_delivery(1, 1)),
            Err(Error::Duplicate(_))
        ));
        let mut again = new_delivery(2, 1);
        again.webhook = Some("webhook 1".to_owned());
        assert!(matches!(
            outbox.begin(again.clone()),
            Err(Error::Webhook(WebhookState::Receiving))
        ));
        assert!(outbox.destinations().unwrap().is_empty());
        staging.abort();
        assert_eq!(webhook(1), WebhookState::Unknown);
        assert!(outbox.deliveries(None, 10).unwrap().deliveries.is_empty());
        let mut staging = outbox.begin(again.clone()).unwrap();
        append(&mut staging, 2, 0).unwrap();
        staging.commit(totals(1, 0)).unwrap();
        assert_eq!(webhook(1), WebhookState::Committed(delivery_id(2), 1));
        again.id = delivery_id(3);
        assert!(matches!(
            outbox.begin(again),
            Err(Error::Webhook(WebhookState::Committed(..)))
        ));
        // One of which the totals are wrong.
        let mut staging = outbox.begin(new_delivery(4, 1)).unwrap();
        append(&mut staging, 4, 0).unwrap();
        assert!(matches!(
            staging.commit(totals(2, 0)),
            Err(Error::Unbalanced { .. })
        ));
        assert_eq!(outbox.deliveries(None, 10).unwrap().deliveries.len(), 1);
        outbox.sweep().unwrap();
        outbox.sweep().unwrap();
        let left = database.psql("SELECT count(*) FROM looker_feed.delivery WHERE state <> 1");
        assert_eq!(left, "0");
        let blocks = database.psql("SELECT count(*) FROM looker_feed.block");
        assert_eq!(blocks, "1");
    });
}

#[test]
fn dead_letters_are_listed_replayed_edited_and_discarded() {
    on_both(|database| {
        let outbox = open(database);
        deliver(&outbox, 1, 1, 6).unwrap();
        let one = lease(&outbox, 1);
        let claims = one.claim(10).unwrap();
        let settlements = claims
            .iter()
            .map(|claim| {
                let dead: Vec<usize> = (0..claim.slices.len()).collect();
                settlement(claim, &dead)
            })
            .collect();
        one.settle(settlements).unwrap();
        check_sums(&outbox);
        let all = DeadFilter::default();
        let page = outbox.dead_letters(all, None, 5).unwrap();
        assert_eq!(page.letters.len(), 5);
        let rest = outbox.dead_letters(all, page.next, 100).unwrap();
        assert_eq!((rest.letters.len(), rest.next), (7, None));
        let letter = &rest.letters[0];
        assert!(letter.reason.starts_with("refused: slice"));
        let (same, body) = outbox.dead_letter(letter.id).unwrap().unwrap();
        assert_eq!(&same, letter);
        assert!(body.starts_with(b"delivery 1, entry "));
        assert_eq!(
            outbox.deliveries_of(&[letter.id]).unwrap(),
            [delivery_id(1)]
        );
        let Ending::Settled(requests) = outbox.ending(delivery_id(1)).unwrap() else {
            panic!("it has ended");
        };
        assert_eq!(requests, [0, 1, 2, 3, 4, 5]);

        // An edit gives it another name, and its payload is what is sent.
        let name = outbox.edit(letter.id, b"mended".to_vec()).unwrap().unwrap();
        assert_eq!(outbox.edit(letter.id, b"mended".to_vec()).unwrap(), None);
        let (mended, body) = outbox.dead_letter(name).unwrap().unwrap();
        assert_eq!(&body[..], b"mended");
        assert!(mended.reason.ends_with("(edited since)"));
        let moved = outbox.replay(&[name, page.letters[0].id]).unwrap();
        assert_eq!(moved.letters, 2);
        check_sums(&outbox);
        let again = one.claim(10).unwrap();
        assert_eq!(again.len(), 2);
        assert!(again.iter().any(|claim| &claim.slices[0][..] == b"mended"));
        one.settle(vec![
            settlement(&again[0], &[0]),
            settlement(&again[1], &[]),
        ])
        .unwrap();
        check_sums(&outbox);
        let state = outbox.delivery(delivery_id(1)).unwrap().unwrap();
        assert_eq!((state.delivered.batches, state.dead.batches), (1, 11));

        let left: Vec<_> = outbox
            .dead_letters(all, None, 100)
            .unwrap()
            .letters
            .iter()
            .map(|letter| letter.id)
            .collect();
        assert_eq!(outbox.discard(&left).unwrap().letters, 11);
        assert_eq!(outbox.discard(&left).unwrap().letters, 0);
        check_sums(&outbox);
        assert_eq!(outbox.ending(delivery_id(1)).unwrap(), Ending::InDoubt);
        assert_eq!(
            database.psql("SELECT count(*) FROM looker_feed.letter"),
            "0"
        );
    });
}

#[test]
fn a_cancelled_delivery_sends_no_more_and_counts_what_it_did_not_send() {
    on_both(|database| {
        let outbox = open(database);
        deliver(&outbox, 1, 1, 30).unwrap();
        deliver(&outbox, 2, 1, 2).unwrap();
        let one = lease(&outbox, 1);
        let claims = one.claim(4).unwrap();
        let before = outbox.delivery(delivery_id(1)).unwrap().unwrap();
        assert_eq!(outbox.cancel(delivery_id(9)).unwrap(), None);
        assert_eq!(outbox.cancel(delivery_id(1)).unwrap(), Some(before.waiting));
        check_sums(&outbox);
        // What flies ends as it ends, what is given back is cancelled.
        one.settle(delivered(&claims[..3])).unwrap();
        assert!(one.claim(10).unwrap().is_empty());
        one.release(claims[3].delivery, &[claims[3].ordinal])
            .unwrap();
        let next = one.claim(10).unwrap();
        assert!(next.iter().all(|claim| claim.delivery == delivery_id(2)));
        let state = outbox.delivery(delivery_id(1)).unwrap().unwrap();
        check_sums(&outbox);
        assert!(state.settled && state.cancelled_at.is_some());
        let delivered: u64 = claims[..3]
            .iter()
            .map(|claim| claim.slices.len() as u64)
            .sum();
        assert_eq!(state.delivered.batches, delivered);
        assert_eq!(
            outbox.cancel(delivery_id(1)).unwrap(),
            Some(Tally::default())
        );
        assert_eq!(outbox.usage().unwrap().cancelled, state.cancelled);
    });
}

#[test]
fn rejected_rows_notes_and_titles_are_kept() {
    on_both(|database| {
        let outbox = open(database);
        let mut staging = outbox.begin(new_delivery(1, 1)).unwrap();
        for row in 0..5u64 {
            let text = format!("row {row}");
            staging
                .reject(RejectedRow {
                    row,
                    reason: "no identity",
                    text: text.as_bytes(),
                })
                .unwrap();
        }
        append(&mut staging, 1, 0).unwrap();
        staging.commit(totals(1, 5)).unwrap();
        let page = outbox
            .rejected(delivery_id(1), Some(1), 3)
            .unwrap()
            .unwrap();
        assert_eq!((page.total, page.kept, page.rows.len()), (5, 5, 3));
        assert_eq!(
            (page.rows[0].row, &page.rows[0].text[..]),
            (1, &b"row 1"[..])
        );
        assert_eq!(outbox.rejected(delivery_id(9), None, 3).unwrap(), None);
        let titles = outbox.titles().unwrap();
        assert_eq!((titles.len(), titles[0].deliveries), (1, 1));
        assert_eq!(outbox.usage().unwrap().rejected_rows, 5);

        // All rows rejected: it is listed, and there is nothing to send.
        let mut staging = outbox.begin(new_delivery(2, 2)).unwrap();
        let row = RejectedRow {
            row: 0,
            reason: "no identity",
            text: b"row",
        };
        staging.reject(row).unwrap();
        staging
            .commit(Totals {
                rows_in: 1,
                rows_rejected: 1,
                ..Totals::default()
            })
            .unwrap();
        let state = outbox.delivery(delivery_id(2)).unwrap().unwrap();
        assert!(state.settled && state.finished.is_some());
        assert_eq!(outbox.destinations().unwrap().len(), 1);

        let key = (destination_id(1), 1);
        outbox.note(key, Some(b"paused")).unwrap();
        outbox.note(key, Some(b"paused by hand")).unwrap();
        outbox.note((destination_id(1), 2), Some(b"other")).unwrap();
        let notes = outbox.notes().unwrap();
        assert_eq!(notes.len(), 2);
        assert_eq!((notes[0].0, &notes[0].1[..]), (key, &b"paused by hand"[..]));
        outbox.note(key, None).unwrap();
        assert_eq!(outbox.notes().unwrap().len(), 1);
        let long = vec![0; MAX_NOTE + 1];
        assert!(matches!(
            outbox.note(key, Some(&long)),
            Err(Error::TooLarge { .. })
        ));
        let replaced = outbox
            .reseal_accounts(|_, before| Some([before, b" anew"].concat()))
            .unwrap();
        assert_eq!(replaced, 2);
        assert_eq!(
            &lease(&outbox, 1).claim(1).unwrap()[0].account[..],
            b"sealed 1 anew"
        );
    });
}

#[test]
fn settled_deliveries_beyond_the_history_are_forgotten() {
    let Some(database) = database(Isolation::Default) else {
        return;
    };
    let mut settings = settings(&database, "daemon");
    settings.history = 2;
    let outbox = looker_feed::outbox::Outbox::open_shared(settings).unwrap();
    let one = lease(&outbox, 1);
    for delivery in 1..=5 {
        deliver(&outbox, delivery, 1, 2).unwrap();
        let claims = one.claim(10).unwrap();
        // The first one keeps a dead letter.
        let dead: &[usize] = if delivery == 1 { &[0] } else { &[] };
        let settlements = claims.iter().map(|claim| settlement(claim, dead));
        one.settle(settlements.collect()).unwrap();
    }
    outbox.sweep().unwrap();
    let states = outbox.deliveries(None, 10).unwrap().deliveries;
    let ids: Vec<_> = states.iter().map(|state| state.id).collect();
    assert_eq!(ids, [5, 4, 1].map(delivery_id));
    assert_eq!(
        database.psql("SELECT count(*) FROM looker_feed.progress"),
        "3"
    );
    assert_eq!(database.psql("SELECT count(*) FROM looker_feed.block"), "0");
}

#[test]
fn nothing_of_a_payload_can_be_read_in_any_column() {
    let Some(database) = database(Isolation::Default) else {
        return;
    };
    let outbox = open(&database);
    let mut staging = outbox.begin(new_delivery(1, 1)).unwrap();
    for ordinal in 0..3 {
        append(&mut staging, 1, ordinal).unwrap();
    }
    let row = RejectedRow {
        row: 0,
        reason: "no identity: ada@example.com",
        text: b"ada@example.com",
    };
    staging.reject(row).unwrap();
    staging.commit(totals(3, 1)).unwrap();
    let one = lease(&outbox, 1);
    let claims = one.claim(1).unwrap();
    one.settle(vec![settlement(&claims[0], &[0])]).unwrap();
    let letter = outbox
        .dead_letters(DeadFilter::default(), None, 1)
        .unwrap()
        .letters[0]
        .id;
    outbox.edit(letter, b"ada@example.com".to_vec()).unwrap();
    let tables = database.psql(
        "SELECT table_name FROM information_schema.tables WHERE table_schema = 'looker_feed'",
    );
    let mut seen = 0;
    for table in tables.lines() {
        let text = database.psql(&format!("SELECT t.* FROM looker_feed.{table} t"));
        for secret in ["ada@example.com", "delivery 1, entry", "refused: slice"] {
            let hex: String = secret.bytes().map(|byte| format!("{byte:02x}")).collect();
            assert!(
                !text.contains(secret) && !text.contains(&hex),
                "{table}: {secret}"
            );
        }
        seen += text.len();
    }
    assert!(seen > 1_000, "there was something to look at");
}
