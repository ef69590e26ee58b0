//! The ratios that the feed is held to, at small sizes: each measured in pairs with what it is
//! compared to, in one run, and printed beside its target. `cargo bench --bench ratios`.
//!
//! criterion's own numbers come first (times of each side alone); the ratios below them are from
//! runs in turn, since two benches that run one after the other meet another machine each. At the end
//! they are held against the committed report; what is worse by more than its noise is named, and the
//! bench fails.

#[path = "../kit/mod.rs"]
mod kit;

mod stages;

use std::time::Duration;

use criterion::Criterion;
use kit::Verdict;
use stages::decode_map;

fn main() {
    let mut criterion = Criterion::default()
        .sample_size(10)
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(1))
        .configure_from_args();
    decode_map::bench(&mut criterion);
    criterion.final_summary();

    // The same word that chooses among criterion's benches: `cargo bench --bench ratios -- drain`.
    let wanted = std::env::args().skip(1).find(|word| !word.starts_with('-'));
    let is_wanted = |title: &str| {
        let title = title.to_lowercase();
        wanted.as_ref().is_none_or(|word| title.contains(word))
    };
    let mut verdicts: Vec<Verdict> = Vec::new();
    for (title, stage) in stages::ALL {
        if !is_wanted(title) {
            continue;
        }
        println!("\n{title}");
        let found = stage();
        found.iter().for_each(Verdict::print);
        verdicts.extend(found);
    }
    let missed = verdicts.iter().filter(|verdict| !verdict.holds()).count();
    println!("\n{} targets, {missed} missed", verdicts.len());
    if kit::gate::compare(&verdicts) > 0 {
        std::process::exit(1);
    }
}
