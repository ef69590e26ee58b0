//! The outbox beside a plain file, and how fast entries leave it.

use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::time::Duration;

use looker_feed::model::DestinationId;
use looker_feed::outbox::{Outbox, Settlement};

use crate::kit::made::requests_of;
use crate::kit::{self, Bound, Verdict, commit, new_delivery, pairs, speed, timed};

const ROWS: u64 = 100_000;
const ROUNDS: usize = 7;
/// Entries that are claimed, and settled, together: what eight requests in flight come to.
const TOGETHER: usize = 16;
/// Callers at once: their settlements share a sync, as those of several destinations do.
const CALLERS: usize = 4;

/// The noise of what is not measured beside something else.
const UNPAIRED: f64 = 0.1;

pub fn ratios() -> Vec<Verdict> {
    let requests = requests_of(&kit::whole(&kit::shape(ROWS)), usize::MAX);
    let raw: usize = requests.iter().flatten().map(Vec::len).sum();
    let packed: Vec<Vec<u8>> = requests
        .iter()
        .map(|request| lz4_flex::block::compress(&request.concat()))
        .collect();
    let payload: usize = packed.iter().map(Vec::len).sum();
    let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a directory");
    let mut number = 0;
    let mut append = || {
        number += 1;
        let home = directory.path().join(format!("outbox-{number}"));
        let outbox = kit::outbox(&home);
        let staging = outbox.begin(new_delivery(1, Vec::new())).expect("room");
        let ((), time) = timed(|| commit(staging, &requests));
        outbox.close();
        time
    };
    let plain = |bodies: &mut dyn Iterator<Item = &Vec<u8>>| plain(directory.path(), bodies);
    let whole = pairs(ROUNDS, &mut append, || {
        plain(&mut requests.iter().flatten())
    });
    let compressed = pairs(ROUNDS, &mut append, || plain(&mut packed.iter()));
    println!(
        "  {:.0} MB in {} entries: append and commit {:.0} MB/s, a plain file {:.0} MB/s; \
         {:.2} times as fast as a plain file of the {:.0} MB that they compress to",
        raw as f64 / 1e6,
        requests.len(),
        speed(raw, whole.ours),
        speed(raw, whole.theirs),
        compressed.speed,
        payload as f64 / 1e6,
    );

    let home = directory.path().join("drained");
    let outbox = kit::outbox(&home);
    let staging = outbox.begin(new_delivery(1, Vec::new())).expect("room");
    commit(staging, &requests);
    let full = on_disk(&home);
    let drained = settle_all(&outbox, requests.len());
    outbox.close();
    vec![
        Verdict::new(
            "append and commit, of a plain write and fdatasync",
            whole.speed,
            Bound::AtLeast(0.6),
        )
        .noisy(whole.noise),
        Verdict::new(
            "bytes on the disk, of the compressed payload",
            full as f64 / payload as f64,
            Bound::AtMost(1.1),
        ),
        Verdict::new(
            "MB on the disk once all has settled",
            on_disk(&home) as f64 / 1e6,
            Bound::AtMost(16.0),
        ),
        Verdict::new(
            format!("entries a second, claimed and settled by {CALLERS} callers"),
            requests.len() as f64 / drained.as_secs_f64(),
            Bound::AtLeast(5_000.0),
        )
        .noisy(UNPAIRED),
    ]
}

fn settle_all(outbox: &Outbox, entries: usize) -> Duration {
    let (settled, time) = timed(|| {
        std::thread::scope(|scope| {
            let callers: Vec<_> = (0..CALLERS)
                .map(|_| scope.spawn(|| settle_on(outbox)))
                .collect();
            let settled = callers.into_iter().map(|caller| caller.join());
            settled
                .map(|settled| settled.expect("it settles"))
                .sum::<usize>()
        })
    });
    assert_eq!(entries, settled, "every entry has settled");
    time
}

/// Claims and settles until nothing is left; returns how many entries.
fn settle_on(outbox: &Outbox) -> usize {
    let mut settled = 0;
    let lease = outbox
        .lease(DestinationId([1; 16]))
        .expect("the outbox is well");
    let lease = lease.expect("nobody else holds it");
    loop {
        let claims = lease.claim(TOGETHER).expect("the outbox is well");
        if claims.is_empty() {
            return settled;
        }
        let settlements = claims.iter().map(|claim| Settlement {
            delivery: claim.delivery,
            ordinal: claim.ordinal,
            dead: Vec::new(),
        });
        let done = lease.settle(settlements.collect()).expect("it is durable");
        settled += done.entries as usize;
    }
}

fn plain(directory: &Path, bodies: &mut dyn Iterator<Item = &Vec<u8>>) -> Duration {
    let path = directory.join("plain");
    let bodies: Vec<_> = bodies.collect();
    let ((), time) = timed(|| {
        let file = File::create(&path).expect("a file");
        let mut out = std::io::BufWriter::with_capacity(256 << 10, file);
        for body in bodies {
            out.write_all(body).expect("room");
        }
        let file = out.into_inner().expect("room");
        file.sync_data().expect("it is durable");
    });
    std::fs::remove_file(&path).expect("it was there");
    time
}

/// Bytes that the files below a directory take up.
pub fn on_disk(directory: &Path) -> u64 {
    let entries = std::fs::read_dir(directory).expect("a directory");
    let sizes = entries.map(|entry| {
        let entry = entry.expect("an entry");
        let meta = entry.metadata().expect("it is there");
        if meta.is_dir() {
            on_disk(&entry.path())
        } else {
            meta.len()
        }
    });
    sizes.sum()
}
