//! How many batches and requests a delivery needs, beside the least possible, in several orders
//! of its rows and with little memory.

use looker_feed::record::Record;

use crate::kit::made::{Kept, requests};
use crate::kit::{self, Bound, ROWS_A_USER, Verdict};

const ROWS: u64 = 50_000;
/// Makes the whole delivery spill, over and over.
const SMALL: usize = 256 << 10;
const LARGE: usize = 1 << 30;

pub fn ratios() -> Vec<Verdict> {
    let mut verdicts = Vec::new();
    // One batch a user is the least: there are fewer events a user than a batch may hold.
    let users = ROWS / ROWS_A_USER;
    for (order, shape) in [
        ("users spread", kit::shape(ROWS)),
        ("users in a row", kit::sorted(ROWS)),
        ("shuffled", kit::shape(ROWS)),
        ("backwards", kit::shape(ROWS)),
    ] {
        let document = kit::whole(&shape);
        let mut records: Vec<Record> = Vec::new();
        let plan = kit::decode_and_map(document.chunks(kit::CHUNK), |record| {
            records.push(record.clone());
        });
        match order {
            "shuffled" => fastrand::Rng::with_seed(1).shuffle(&mut records),
            "backwards" => records.reverse(),
            _ => {}
        }
        // The number of a row says where it stands.
        for (number, record) in records.iter_mut().enumerate() {
            record.row = number as u64;
        }
        for (memory, budget) in [("in memory", LARGE), ("256 KiB of memory", SMALL)] {
            let directory = tempfile::tempdir().expect("a directory");
            let made = requests(
                directory.path(),
                budget,
                plan.names(),
                &mut Kept::default(),
                |push| records.iter().for_each(push),
            );
            assert_eq!(made.events, ROWS, "every row is an event");
            verdicts.push(Verdict::new(
                format!("times the least batches, {order}, {memory}"),
                made.batches as f64 / users as f64,
                Bound::AtMost(1.02),
            ));
            verdicts.push(Verdict::new(
                format!("events a request, {order}, {memory}"),
                made.events as f64 / made.requests as f64,
                Bound::AtLeast(95.0),
            ));
        }
    }
    verdicts
}
