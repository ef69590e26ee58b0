//! Who opens a directory, whose time it keeps, and what is known when the state in it was lost.

use std::time::Duration;

use looker_feed::clock::{Clock, UnixMillis};
use looker_feed::outbox::{Error, OpenError, Outbox, Settings, WebhookState};

use crate::kit::*;

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
fn a_lost_state_is_told() {
    let home = home();
    let outbox = open(home.path());
    deliver(&outbox, 1, 1, 3).unwrap();
    assert_eq!(outbox.state_lost(), None);
    drop(outbox);
    std::fs::remove_dir_all(home.path().join("state")).unwrap();
    let outbox = open(home.path());
    assert!(outbox.state_lost().is_some());
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
