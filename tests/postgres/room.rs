//! What nobody needs any more takes no room.

use looker_feed::outbox::{Error, Outbox};

use crate::generated::{append, deliver, delivered, new_delivery, settlement, totals};
use crate::kit::{drain, lease, on_both, open, settings};
use crate::server::{Isolation, database};

#[test]
fn blocks_go_as_what_is_in_them_settles_and_what_was_aborted_goes_whole() {
    on_both(|database| {
        let outbox = open(database);
        let blocks = || {
            outbox.sweep().unwrap();
            database.psql("SELECT count(*) FROM looker_feed.block")
        };
        // Two blocks and a bit.
        let mut staging = outbox.begin(new_delivery(1, 1)).unwrap();
        for ordinal in 0..90 {
            append(&mut staging, 1, ordinal).unwrap();
        }
        staging.commit(totals(90, 0)).unwrap();
        let before: u64 = blocks().parse().unwrap();
        let one = lease(&outbox, 1);
        let first = one.claim(89).unwrap();
        one.settle(delivered(&first)).unwrap();
        assert_eq!(blocks(), "1", "of {before}");
        drain(&one);
        assert_eq!(blocks(), "0");
        let mut staging = outbox.begin(new_delivery(2, 1)).unwrap();
        append(&mut staging, 2, 0).unwrap();
        let wrong = staging.commit(totals(2, 0));
        assert!(matches!(wrong, Err(Error::Unbalanced { .. })));
        let mut staging = outbox.begin(new_delivery(3, 1)).unwrap();
        append(&mut staging, 3, 0).unwrap();
        staging.abort();
        assert_eq!(blocks(), "0");
        let left = database.psql("SELECT count(*) FROM looker_feed.delivery WHERE state <> 1");
        assert_eq!(left, "0");
    });
}

#[test]
fn nothing_is_left_of_deliveries_beyond_the_history() {
    let Some(database) = database(Isolation::Default) else {
        return;
    };
    let mut settings = settings(&database, "daemon");
    settings.history = 2;
    let outbox = Outbox::open_shared(settings).unwrap();
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
    let count = |table: &str| database.psql(&format!("SELECT count(*) FROM looker_feed.{table}"));
    let counts = ["delivery", "progress", "letter", "block"].map(count);
    assert_eq!(counts, ["3", "3", "2", "0"]);
}
