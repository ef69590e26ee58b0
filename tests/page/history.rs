//! A long history, made in the outbox itself. Beside these tests a bench has it.

use std::path::Path;
use std::sync::Arc;

use looker_feed::clock::UnixMillis;
use looker_feed::model::{DeliveryId, DestinationId};
use looker_feed::outbox::{self, NewDelivery, Outbox, Totals};
use looker_feed::seal::{Key, Keyring};

/// A history of deliveries that are over, made in the outbox itself: through the hub it would take
/// minutes. Titles are `Schedule <n % 40>, run <n>`.
pub fn history(home: &Path, count: u64) {
    const AT_ONCE: u64 = 64;
    let (key, _) = Key::load_or_create(&home.join("outbox.key")).expect("a key");
    let keys = Arc::new(Keyring::new(key, Vec::new()));
    let outbox = Outbox::open(outbox::Settings {
        history: count as usize,
        reserve_bytes: 0,
        ..outbox::Settings::new(home.join("outbox"), keys)
    })
    .expect("an outbox");
    let now = UnixMillis::now().0;
    let deliver = |n: u64| {
        let received = UnixMillis(now - (count - n) * 60_000);
        let mut id = [0; 16];
        id[..6].copy_from_slice(&received.0.to_be_bytes()[2..]);
        id[8..].copy_from_slice(&n.to_be_bytes());
        let staging = outbox.begin(NewDelivery {
            id: DeliveryId(id),
            destination: DestinationId([(n % 6) as u8; 16]),
            destination_label: format!("us{}, key …000{}", n % 6, n % 6),
            account: b"sealed".to_vec(),
            webhook: None,
            title: format!("Schedule {}, run {n}", n % 40),
            link: None,
            received,
        });
        let totals = Totals {
            rows_in: n % 500,
            rows_unchanged: n % 500,
            ..Totals::default()
        };
        staging
            .expect("it begins")
            .commit(totals)
            .expect("it is durable");
    };
    // Those that are committed at once share a sync of the disk.
    std::thread::scope(|scope| {
        for part in 0..AT_ONCE {
            let deliver = &deliver;
            scope.spawn(move || {
                (part..count).step_by(AT_ONCE as usize).for_each(deliver);
            });
        }
    });
    outbox.close();
}
