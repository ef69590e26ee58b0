//! Decode and map, beside general parsers that build their own trees.

use std::hint::black_box;
use std::time::Duration;

use criterion::{Criterion, Throughput};
use looker_feed::looker::Shape;

use crate::kit::{self, Bound, Verdict, pairs, speed, timed};

/// 8 MB: beyond the caches, as real deliveries are.
const ROWS: u64 = 20_000;
/// A document whose tree stays in the cache favours the parsers.
const FEW_ROWS: u64 = 500;
const ROUNDS: usize = 15;

pub fn bench(criterion: &mut Criterion) {
    let document = kit::whole(&kit::shape(ROWS));
    let mut group = criterion.benchmark_group("decode and map");
    group.throughput(Throughput::Bytes(document.len() as u64));
    group.bench_function("looker-feed", |b| b.iter(|| ours(&document)));
    group.bench_function("serde_json::Value", |b| b.iter(|| serde(&document)));
    group.bench_function("sonic_rs::Value", |b| b.iter(|| sonic(&document)));
    group.bench_function("simd_json::BorrowedValue", |b| b.iter(|| simd(&document)));
    group.finish();
}

pub fn ratios() -> Vec<Verdict> {
    let mut verdicts = Vec::new();
    for (what, rows, rounds, least) in [
        ("", ROWS, ROUNDS, 0.7),
        (", 200 kB", FEW_ROWS, 40 * ROUNDS, 0.85),
    ] {
        let document = kit::whole(&kit::shape(rows));
        let tree = pairs(rounds, || ours(&document), || serde(&document));
        let sonic = pairs(rounds, || ours(&document), || sonic(&document));
        let simd = pairs(rounds, || ours(&document), || simd(&document));
        println!(
            "  {:.1} MB: looker-feed {:.0} MB/s, serde_json {:.0}, sonic-rs {:.0}, simd-json {:.0}",
            document.len() as f64 / 1e6,
            speed(document.len(), tree.ours),
            speed(document.len(), tree.theirs),
            speed(document.len(), sonic.theirs),
            speed(document.len(), simd.theirs),
        );
        let fastest = if sonic.speed < simd.speed {
            sonic
        } else {
            simd
        };
        let times = Verdict::new(
            format!("times the speed of serde_json::Value{what}"),
            tree.speed,
            Bound::AtLeast(3.0),
        );
        verdicts.push(times.noisy(tree.noise));
        let share = Verdict::new(
            format!("of the faster of sonic-rs and simd-json{what}"),
            fastest.speed,
            Bound::AtLeast(least),
        );
        verdicts.push(share.noisy(fastest.noise));
    }
    let shape = Shape {
        pretty: true,
        ..kit::shape(ROWS)
    };
    let document = kit::whole(&shape);
    let tree = pairs(ROUNDS, || ours(&document), || serde(&document));
    let times = Verdict::new(
        "times the speed of serde_json::Value, pretty-printed",
        tree.speed,
        Bound::AtLeast(3.0),
    );
    verdicts.push(times.noisy(tree.noise));
    verdicts
}

fn ours(document: &[u8]) -> Duration {
    let mut bytes = 0;
    let (_, time) = timed(|| {
        kit::decode_and_map(document.chunks(kit::CHUNK), |record| {
            bytes += black_box(record).bytes().len();
        })
    });
    assert!(bytes > 0);
    time
}

// The trees are dropped after the clock has stopped: that favours the parsers.

fn serde(document: &[u8]) -> Duration {
    let (tree, time) = timed(|| serde_json::from_slice::<serde_json::Value>(document));
    black_box(tree.expect("the document is valid"));
    time
}

fn sonic(document: &[u8]) -> Duration {
    let (tree, time) = timed(|| sonic_rs::from_slice::<sonic_rs::Value>(document));
    black_box(tree.expect("the document is valid"));
    time
}

fn simd(document: &[u8]) -> Duration {
    // It works in place.
    let mut copy = document.to_vec();
    let (tree, time) = timed(|| simd_json::to_borrowed_value(&mut copy));
    black_box(tree.expect("the document is valid"));
    time
}
