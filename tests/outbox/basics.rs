//! The outbox on a sound disk.

use std::time::Duration;

use looker_feed::clock::{Clock, UnixMillis};
use looker_feed::model::DeliveryId;
use looker_feed::outbox::{
    DeadFilter, Entry, Error, Health, MAX_NOTE, NoteKey, OpenError, Outbox, RejectedRow, Settings,
    Slice, Tally, Totals, WebhookState,
};

use crate::kit::*;

#[test]
fn a_committed_delivery_comes_out_byte_by_byte_in_order() {
    let directory = home();
    let outbox = open(directory.path());
    let receipt = deliver(&outbox, 1, 1, 50).unwrap();
    assert_eq!(receipt.requests, 50);
    let claims = drain(&outbox, 1);
    assert_eq!(claims.len(), 50);
    for (ordinal, claim) in claims.iter().enumerate() {
        check_claim(claim, 1, ordinal as u64);
        assert_eq!(&claim.account[..], b"sealed 1");
    }
    let state = outbox.delivery(delivery_id(1)).unwrap().unwrap();
    assert!(state.settled);
    assert_eq!(state.delivered.rows, receipt.rows);
    check_sum(&state);
}

#[test]
fn what_has_not_settled_is_due_again_after_a_restart() {
    let directory = home();
    let outbox = open(directory.path());
    deliver(&outbox, 1, 1, 40).unwrap();
    let claims = lease(&outbox, 1).claim(20).unwrap();
    let settled: Vec<_> = claims
        .iter()
        .filter(|claim| claim.ordinal % 3 == 0)
        .cloned()
        .collect();
    lease(&outbox, 1).settle(delivered(&settled)).unwrap();
    let before = outbox.delivery(delivery_id(1)).unwrap().unwrap();
    check_sum(&before);
    drop(outbox);

    let outbox = open(directory.path());
    let state = outbox.delivery(delivery_id(1)).unwrap().unwrap();
    assert_eq!(state.delivered, before.delivered);
    assert_eq!(state.in_flight, Tally::default());
    check_sum(&state);
    let rest: Vec<u64> = drain(&outbox, 1)
        .iter()
        .map(|claim| claim.ordinal)
        .collect();
    let want: Vec<u64> = (0..40).filter(|n| *n >= 20 || n % 3 != 0).collect();
    assert_eq!(rest, want);
    assert!(outbox.damage().is_empty());
}

#[test]
fn a_delivery_that_is_not_committed_leaves_nothing() {
    let directory = home();
    let outbox = open(directory.path());
    let empty = size_of(&directory.path().join("segments"));
    let mut staging = outbox.begin(new_delivery(1, 1)).unwrap();
    for ordinal in 0..100 {
        append(&mut staging, 1, ordinal).unwrap();
    }
    assert_eq!(
        outbox.webhook("webhook 1").unwrap(),
        WebhookState::Receiving
    );
    assert!(matches!(
        outbox.begin(new_delivery(1, 1)),
        Err(Error::Duplicate(_))
    ));
    let mut other = new_delivery(2, 1);
    other.webhook = Some("webhook 1".to_owned());
    assert!(matches!(
        outbox.begin(other),
        Err(Error::Webhook(WebhookState::Receiving))
    ));
    staging.abort();
    assert_eq!(outbox.webhook("webhook 1").unwrap(), WebhookState::Unknown);
    assert_eq!(size_of(&directory.path().join("segments")), empty);
    assert!(lease(&outbox, 1).claim(10).unwrap().is_empty());
    assert!(outbox.deliveries(None, 10).unwrap().deliveries.is_empty());
    deliver(&outbox, 1, 1, 3).unwrap();
}

#[test]
fn a_destination_is_served_first_in_first_out_and_others_do_not_wait() {
    let directory = home();
    let outbox = open(directory.path());
    deliver(&outbox, 1, 1, 3).unwrap();
    deliver(&outbox, 2, 1, 2).unwrap();
    deliver(&outbox, 3, 2, 1).unwrap();
    let first = lease(&outbox, 1).claim(10).unwrap();
    assert_eq!(first.len(), 3);
    assert!(lease(&outbox, 1).claim(10).unwrap().is_empty());
    assert_eq!(lease(&outbox, 2).claim(10).unwrap().len(), 1);
    // The newest account serves all that waits.
    assert_eq!(&first[0].account[..], b"sealed 2");

    lease(&outbox, 1).settle(delivered(&first[..2])).unwrap();
    assert!(lease(&outbox, 1).claim(10).unwrap().is_empty());
    lease(&outbox, 1)
        .release(delivery_id(1), &[first[2].ordinal])
        .unwrap();
    let again = lease(&outbox, 1).claim(10).unwrap();
    assert_eq!(again.len(), 1);
    check_claim(&again[0], 1, 2);
    let settled = lease(&outbox, 1).settle(delivered(&again)).unwrap();
    assert_eq!(settled.finished, [delivery_id(1)]);
    assert_eq!(lease(&outbox, 1).claim(10).unwrap().len(), 2);
    check_sums(&outbox);
}

#[test]
fn settling_twice_or_what_is_unknown_changes_nothing() {
    let directory = home();
    let outbox = open(directory.path());
    deliver(&outbox, 1, 1, 3).unwrap();
    let claims = lease(&outbox, 1).claim(2).unwrap();
    let twice = [delivered(&claims), delivered(&claims)].concat();
    let settled = lease(&outbox, 1).settle(twice).unwrap();
    assert_eq!((settled.entries, settled.unknown), (2, 2));
    let mut strange = delivered(&claims);
    strange[0].delivery = delivery_id(99);
    strange[1].ordinal = u64::MAX;
    let settled = lease(&outbox, 1).settle(strange).unwrap();
    assert_eq!((settled.entries, settled.unknown), (0, 2));
    let claim = lease(&outbox, 1).claim(1).unwrap();
    let wrong = lease(&outbox, 1).settle(vec![settlement(&claim[0], &[0, 3])]);
    assert!(
        matches!(wrong, Err(Error::NoSuchSlice { slice: 3, .. })),
        "{wrong:?}"
    );
    let state = outbox.delivery(delivery_id(1)).unwrap().unwrap();
    assert_eq!(state.in_flight.rows, 6);
    check_sum(&state);
}

#[test]
fn totals_that_do_not_add_up_abort_the_delivery() {
    let directory = home();
    let outbox = open(directory.path());
    let wrong: [fn(&mut Totals); 4] = [
        |totals| totals.rows_in += 1,
        |totals| totals.rows_rejected += 1,
        |totals| totals.batches += 1,
        |totals| totals.requests -= 1,
    ];
    for spoil in wrong {
        let mut staging = outbox.begin(new_delivery(1, 1)).unwrap();
        append(&mut staging, 1, 0).unwrap();
        let mut totals = totals(1, 0);
        spoil(&mut totals);
        assert!(matches!(
            staging.commit(totals),
            Err(Error::Unbalanced { .. })
        ));
        assert!(outbox.deliveries(None, 10).unwrap().deliveries.is_empty());
    }
    deliver(&outbox, 1, 1, 1).unwrap();
}

#[test]
fn webhook_ids_are_remembered_across_restarts_and_forgotten_in_time() {
    let directory = home();
    let outbox = open(directory.path());
    let receipt = deliver(&outbox, 1, 1, 5).unwrap();
    let known = WebhookState::Committed(delivery_id(1), receipt.rows);
    assert_eq!(outbox.webhook("webhook 1").unwrap(), known);
    drop(outbox);
    let outbox = open(directory.path());
    assert_eq!(outbox.webhook("webhook 1").unwrap(), known);
    let mut again = new_delivery(2, 1);
    again.webhook = Some("webhook 1".to_owned());
    assert!(matches!(outbox.begin(again), Err(Error::Webhook(state)) if state == known));
    drop(outbox);
    let forgetful = Settings {
        webhook_memory: Duration::ZERO,
        ..settings(directory.path())
    };
    let outbox = Outbox::open(forgetful).unwrap();
    assert_eq!(outbox.webhook("webhook 1").unwrap(), WebhookState::Unknown);
}

#[test]
fn all_times_are_those_of_the_clock_that_the_outbox_was_given() {
    let directory = home();
    let clock = Clock::stopped(UnixMillis(1_800_000_000_000));
    let settings = Settings {
        clock: clock.clone(),
        ..settings(directory.path())
    };
    let memory = settings.webhook_memory;
    let outbox = Outbox::open(settings).unwrap();
    let receipt = deliver(&outbox, 1, 1, 2).unwrap();
    assert_eq!(receipt.committed, UnixMillis(1_800_000_000_000));
    clock.advance(Duration::from_secs(60));
    drain(&outbox, 1);
    let state = outbox.delivery(delivery_id(1)).unwrap().unwrap();
    assert_eq!(state.finished, Some(UnixMillis(1_800_000_060_000)));
    // The last millisecond in which the webhook id is known, and the first in which it is not.
    clock.advance(memory - Duration::from_millis(60_001));
    let known = WebhookState::Committed(delivery_id(1), receipt.rows);
    assert_eq!(outbox.webhook("webhook 1").unwrap(), known);
    clock.advance(Duration::from_millis(1));
    assert_eq!(outbox.webhook("webhook 1").unwrap(), WebhookState::Unknown);
}

#[test]
fn dead_letters_are_listed_shown_replayed_and_discarded() {
    let directory = home();
    let outbox = open(directory.path());
    deliver(&outbox, 1, 1, 6).unwrap();
    let claims = lease(&outbox, 1).claim(6).unwrap();
    let mut settlements = delivered(&claims);
    // Entries 2 and 5 have three slices of one, two and three rows.
    settlements[2] = settlement(&claims[2], &[0, 2]);
    settlements[5] = settlement(&claims[5], &[1]);
    lease(&outbox, 1).settle(settlements).unwrap();
    let state = outbox.delivery(delivery_id(1)).unwrap().unwrap();
    assert_eq!(
        state.dead,
        Tally {
            rows: 1 + 3 + 2,
            batches: 3
        }
    );
    assert!(state.settled);
    check_sum(&state);

    for reopened in [false, true] {
        let outbox = if reopened {
            outbox.close();
            open(directory.path())
        } else {
            outbox.clone()
        };
        let page = outbox.dead_letters(DeadFilter::default(), None, 2).unwrap();
        assert_eq!(page.letters.len(), 2);
        assert_eq!(page.letters[1].reason, "refused: slice 2");
        let rest = outbox
            .dead_letters(DeadFilter::default(), page.next, 2)
            .unwrap();
        assert_eq!((rest.letters.len(), rest.next), (1, None));
        let (letter, body) = outbox.dead_letter(page.letters[1].id).unwrap().unwrap();
        assert_eq!(letter, page.letters[1]);
        assert_eq!(&body[..], payload(1, 2, 2));
        if !reopened {
            continue;
        }

        let moved = outbox
            .replay(&[page.letters[1].id, page.letters[1].id])
            .unwrap();
        assert_eq!((moved.letters, moved.rows), (1, 3));
        let moved = outbox.replay(&[page.letters[1].id]).unwrap();
        assert_eq!(moved.letters, 0, "it is no longer dead");
        let state = outbox.delivery(delivery_id(1)).unwrap().unwrap();
        assert_eq!(
            state.waiting,
            Tally {
                rows: 3,
                batches: 1
            }
        );
        check_sum(&state);
        let claims = lease(&outbox, 1).claim(9).unwrap();
        assert_eq!(claims.len(), 1);
        assert_eq!(&claims[0].slices[0][..], payload(1, 2, 2));
        check_route(&claims[0]);
        assert_eq!(claims[0].rows, [3]);
        assert_eq!(
            outbox
                .delivery(delivery_id(1))
                .unwrap()
                .unwrap()
                .in_flight
                .rows,
            3
        );

        // It dies again, is replayed again, and arrives.
        lease(&outbox, 1)
            .settle(vec![settlement(&claims[0], &[0])])
            .unwrap();
        assert_eq!(
            outbox.delivery(delivery_id(1)).unwrap().unwrap().dead.rows,
            6
        );
        let filter = DeadFilter {
            delivery: Some(delivery_id(1)),
            destination: Some(destination_id(1)),
        };
        let page = outbox.dead_letters(filter, None, 100).unwrap();
        assert_eq!(page.letters.len(), 3);
        outbox.replay(&[page.letters[2].id]).unwrap();
        let claims = lease(&outbox, 1).claim(9).unwrap();
        assert_eq!(&claims[0].slices[0][..], payload(1, 2, 2));
        check_route(&claims[0]);
        lease(&outbox, 1).settle(delivered(&claims)).unwrap();
        let moved = outbox
            .discard(&[page.letters[0].id, page.letters[1].id])
            .unwrap();
        assert_eq!((moved.letters, moved.rows), (2, 3));
        let state = outbox.delivery(delivery_id(1)).unwrap().unwrap();
        assert_eq!(state.dead, Tally::default());
        assert_eq!(state.discarded.rows, 3);
        assert!(state.settled);
        check_sum(&state);
        let page = outbox.dead_letters(DeadFilter::default(), None, 9).unwrap();
        assert!(page.letters.is_empty());
        outbox.close();
    }
    drop(open(directory.path()));
    assert_eq!(
        size_of(&directory.path().join("dead")),
        0,
        "files without letters go"
    );
}

#[test]
fn a_replay_queues_behind_what_waits() {
    let directory = home();
    let outbox = open(directory.path());
    deliver(&outbox, 1, 1, 1).unwrap();
    let claims = lease(&outbox, 1).claim(1).unwrap();
    lease(&outbox, 1)
        .settle(vec![settlement(&claims[0], &[0])])
        .unwrap();
    deliver(&outbox, 2, 1, 1).unwrap();
    let page = outbox.dead_letters(DeadFilter::default(), None, 9).unwrap();
    outbox.replay(&[page.letters[0].id]).unwrap();
    drop(outbox);
    let outbox = open(directory.path());
    let order: Vec<DeliveryId> = drain(&outbox, 1)
        .iter()
        .map(|claim| claim.delivery)
        .collect();
    assert_eq!(order, [delivery_id(2), delivery_id(1)]);
    check_sums(&outbox);
}

#[test]
fn rejected_rows_are_kept_up_to_a_bound_and_counted_beyond() {
    let directory = home();
    let settings = Settings {
        rejected_rows: 3,
        ..settings(directory.path())
    };
    let outbox = Outbox::open(settings.clone()).unwrap();
    let mut staging = outbox.begin(new_delivery(1, 1)).unwrap();
    append(&mut staging, 1, 0).unwrap();
    for row in 0..5 {
        let text = format!("row {row}");
        let rejected = RejectedRow {
            row,
            reason: "no identity",
            text: text.as_bytes(),
        };
        staging.reject(rejected).unwrap();
    }
    staging.commit(totals(1, 5)).unwrap();
    drop(outbox);
    let outbox = Outbox::open(settings).unwrap();
    let page = outbox
        .rejected(delivery_id(1), Some(1), 10)
        .unwrap()
        .unwrap();
    assert_eq!((page.total, page.kept, page.rows.len()), (5, 3, 2));
    assert_eq!(page.rows[0].text, b"row 1");
    assert_eq!(page.rows[0].reason, "no identity");
    assert_eq!(outbox.rejected(delivery_id(2), None, 1).unwrap(), None);
    let state = outbox.delivery(delivery_id(1)).unwrap().unwrap();
    assert_eq!(state.rejected, 5);
    check_sum(&state);
}

#[test]
fn a_delivery_without_entries_is_settled_at_once() {
    let directory = home();
    let outbox = open(directory.path());
    let receipt = deliver(&outbox, 1, 1, 0).unwrap();
    assert_eq!(receipt.requests, 0);
    assert_eq!(size_of(&directory.path().join("segments")), 0);
    for _ in 0..2 {
        let outbox = if outbox.health() == Health::Ok {
            outbox.clone()
        } else {
            continue;
        };
        assert!(outbox.delivery(delivery_id(1)).unwrap().unwrap().settled);
    }
    outbox.close();
    let outbox = open(directory.path());
    assert!(outbox.delivery(delivery_id(1)).unwrap().unwrap().settled);
    deliver(&outbox, 2, 1, 1).unwrap();
    assert_eq!(drain(&outbox, 1).len(), 1);
}

#[test]
fn the_history_is_bounded_and_keeps_what_has_dead_letters() {
    let directory = home();
    let settings = Settings {
        history: 2,
        ..settings(directory.path())
    };
    let outbox = Outbox::open(settings.clone()).unwrap();
    for n in 1..=6 {
        deliver(&outbox, n, 1, 1).unwrap();
        let claims = lease(&outbox, 1).claim(1).unwrap();
        let dead: &[usize] = if n == 2 { &[0] } else { &[] };
        lease(&outbox, 1)
            .settle(vec![settlement(&claims[0], dead)])
            .unwrap();
    }
    outbox.close();
    let outbox = Outbox::open(settings).unwrap();
    let listed: Vec<DeliveryId> = outbox
        .deliveries(None, 9)
        .unwrap()
        .deliveries
        .iter()
        .map(|one| one.id)
        .collect();
    assert_eq!(listed, [delivery_id(6), delivery_id(5), delivery_id(2)]);
}

#[test]
fn a_full_outbox_refuses_new_deliveries_and_goes_on_draining() {
    let directory = home();
    let bounded = Settings {
        max_bytes: Some(600 << 10),
        ..settings(directory.path())
    };
    let outbox = Outbox::open(bounded).unwrap();
    let noise: Vec<u8> = (0..200_000u32)
        .map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8)
        .collect();
    let mut staging = outbox.begin(new_delivery(1, 1)).unwrap();
    let slices = [Slice {
        bytes: &noise,
        rows: 1,
    }];
    let mut entries = 0;
    let full = loop {
        match staging.append(Entry {
            slices: &slices,
            route: 0,
        }) {
            Ok(_) => entries += 1,
            Err(error) => break error,
        }
        assert!(entries < 100, "it is never full");
    };
    assert!(matches!(full, Error::Full { .. }), "{full}");
    assert!(matches!(
        outbox.begin(new_delivery(2, 1)),
        Err(Error::Full { .. })
    ));
    drop(staging);
    deliver(&outbox, 2, 1, 5).unwrap();
    assert_eq!(drain(&outbox, 1).len(), 5);
}

#[test]
fn a_second_process_is_refused_with_the_directory_named() {
    let directory = home();
    let outbox = open(directory.path());
    let error = Outbox::open(settings(directory.path())).unwrap_err();
    assert!(matches!(error, OpenError::InUse(_)), "{error}");
    outbox.close();
    open(directory.path());
    assert!(matches!(
        outbox.begin(new_delivery(1, 1)),
        Ok(_) | Err(Error::Closed)
    ));
    assert!(matches!(
        lease(&outbox, 1).settle(Vec::new()),
        Err(Error::Closed)
    ));
}

#[test]
fn a_subscriber_hears_of_every_commit() {
    let directory = home();
    let outbox = open(directory.path());
    let mut changes = outbox.subscribe();
    changes.mark_unchanged();
    deliver(&outbox, 1, 1, 1).unwrap();
    assert!(changes.has_changed().unwrap());
}

#[test]
fn concurrent_deliveries_and_drains_lose_nothing() {
    let directory = home();
    let outbox = open(directory.path());
    std::thread::scope(|scope| {
        for thread in 0..4u8 {
            let outbox = &outbox;
            scope.spawn(move || {
                for n in 0..5 {
                    deliver(outbox, 1 + thread * 5 + n, thread % 2, 20).unwrap();
                }
            });
        }
        for destination in 0..2u8 {
            let outbox = &outbox;
            scope.spawn(move || {
                let mut seen = std::collections::HashSet::new();
                let mut changes = outbox.subscribe();
                while seen.len() < 200 {
                    let claims = drain(outbox, destination);
                    for claim in &claims {
                        assert!(seen.insert((claim.delivery, claim.ordinal)));
                    }
                    if claims.is_empty() && changes.has_changed().unwrap() {
                        changes.mark_unchanged();
                    }
                    std::thread::yield_now();
                }
            });
        }
    });
    assert_eq!(outbox.usage().unwrap().entries, 0);
    assert_eq!(outbox.deliveries(None, 100).unwrap().deliveries.len(), 20);
    check_sums(&outbox);
}

#[test]
fn what_has_settled_is_known_across_restarts_beyond_one_row_of_bits() {
    const ENTRIES: u64 = 3_000;
    let directory = home();
    let settings = Settings {
        segment_bytes: 64 << 20,
        ..settings(directory.path())
    };
    let outbox = Outbox::open(settings.clone()).unwrap();
    deliver(&outbox, 1, 1, ENTRIES).unwrap();
    let claims = lease(&outbox, 1).claim(usize::MAX).unwrap();
    assert_eq!(claims.len() as u64, ENTRIES);
    let settles = |ordinal: u64| ordinal.is_multiple_of(7) || ordinal == 1_023 || ordinal > 2_950;
    let some: Vec<_> = claims
        .into_iter()
        .filter(|claim| settles(claim.ordinal))
        .collect();
    for part in some.chunks(50) {
        lease(&outbox, 1).settle(delivered(part)).unwrap();
    }
    outbox.close();
    let outbox = Outbox::open(settings).unwrap();
    assert_eq!(outbox.damage(), []);
    let rest: Vec<u64> = drain(&outbox, 1)
        .iter()
        .map(|claim| claim.ordinal)
        .collect();
    let want: Vec<u64> = (0..ENTRIES).filter(|ordinal| !settles(*ordinal)).collect();
    assert_eq!(rest, want);
    check_sums(&outbox);
}

#[test]
fn a_cancelled_delivery_gives_nothing_out_and_the_next_one_has_its_turn() {
    let directory = home();
    let outbox = open(directory.path());
    deliver(&outbox, 1, 0, 30).unwrap();
    deliver(&outbox, 2, 0, 3).unwrap();
    let flying = lease(&outbox, 0).claim(2).unwrap();
    let back = lease(&outbox, 0).claim(1).unwrap();
    let before = outbox.delivery(delivery_id(1)).unwrap().unwrap();
    let cancelled = outbox.cancel(delivery_id(1)).unwrap();
    assert_eq!(cancelled, Some(before.waiting));
    assert_eq!(outbox.cancel(delivery_id(9)).unwrap(), None);
    // Its turn lasts as long as something of it is in flight.
    assert!(lease(&outbox, 0).claim(9).unwrap().is_empty());
    lease(&outbox, 1)
        .release(delivery_id(1), &[back[0].ordinal])
        .unwrap();
    let dead = settlement(&flying[1], &[0]);
    let settled = lease(&outbox, 1).settle(vec![settlement(&flying[0], &[]), dead]);
    assert_eq!(settled.unwrap().entries, 2);
    let state = outbox.delivery(delivery_id(1)).unwrap().unwrap();
    assert!(state.settled && state.finished.is_some(), "{state:?}");
    assert_eq!((state.delivered.batches, state.dead.batches), (2, 1));
    assert_eq!(state.cancelled.batches, state.batches - 3);
    // The dead letter can be thrown away and not sent.
    let page = outbox.dead_letters(DeadFilter::default(), None, 9).unwrap();
    let ids: Vec<_> = page.letters.iter().map(|letter| letter.id).collect();
    assert_eq!(outbox.replay(&ids).unwrap().letters, 0);
    assert_eq!(outbox.discard(&ids).unwrap().letters, 1);
    assert_eq!(drain(&outbox, 0).len(), 3);
    check_sums(&outbox);
    let files = std::fs::read_dir(directory.path().join("segments")).unwrap();
    assert_eq!(files.count(), 0, "the mark goes with the segments");
}

#[test]
fn a_cancelling_is_known_when_the_state_was_lost() {
    let directory = home();
    let outbox = open(directory.path());
    deliver(&outbox, 1, 0, 30).unwrap();
    let flying = lease(&outbox, 0).claim(2).unwrap();
    outbox.cancel(delivery_id(1)).unwrap();
    drop(flying);
    outbox.close();
    std::fs::remove_dir_all(directory.path().join("state")).unwrap();
    let outbox = open(directory.path());
    assert!(lease(&outbox, 0).claim(9).unwrap().is_empty());
    let state = outbox.delivery(delivery_id(1)).unwrap().unwrap();
    assert!(state.settled && state.cancelled_at.is_some(), "{state:?}");
    assert_eq!(
        state.delivered.batches + state.cancelled.batches,
        state.batches
    );
    check_sums(&outbox);
}

#[test]
fn notes_outlive_a_restart_until_they_are_replaced_or_removed() {
    let home = home();
    let outbox = open(home.path());
    let (one, two) = ((destination_id(1), 1), (destination_id(1), 2));
    outbox.note(two, Some(b"second")).unwrap();
    outbox.note(one, Some(b"first")).unwrap();
    outbox.note((destination_id(2), 1), None).unwrap();
    drop(outbox);
    let outbox = open(home.path());
    let notes = |outbox: &Outbox| -> Vec<(NoteKey, Vec<u8>)> {
        let notes = outbox.notes().unwrap().into_iter();
        notes.map(|(key, text)| (key, text.to_vec())).collect()
    };
    let both = [(one, b"first".to_vec()), (two, b"second".to_vec())];
    assert_eq!(notes(&outbox), both);
    outbox.note(one, Some(b"another")).unwrap();
    outbox.note(two, None).unwrap();
    let longest = vec![7; MAX_NOTE];
    let key = (destination_id(3), 0);
    outbox.note(key, Some(&longest)).unwrap();
    let error = outbox.note(key, Some(&vec![7; MAX_NOTE + 1])).unwrap_err();
    assert!(matches!(error, Error::TooLarge { .. }), "{error}");
    drop(outbox);
    let left = [(one, b"another".to_vec()), (key, longest)];
    assert_eq!(notes(&open(home.path())), left);
}
