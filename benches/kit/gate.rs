//! A run beside the committed report: what has become worse by more than its noise.

use std::collections::BTreeMap;

use super::{Bound, Verdict, number};

const REPORT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/benches/REPORT.md");
/// What is counted may differ by rounding.
const COUNTED: f64 = 0.02;
/// What is timed differs by so much between two good runs on one machine at least, whatever the pairs
/// within a run say.
const TIMED: f64 = 0.15;

/// Prints what has become worse than the committed report says; returns how many.
pub fn compare(verdicts: &[Verdict]) -> usize {
    let Ok(report) = std::fs::read_to_string(REPORT) else {
        println!("Not compared: there is no report at {REPORT}");
        return 0;
    };
    let committed = values(&report);
    let fallen: Vec<_> = verdicts
        .iter()
        .filter_map(|verdict| {
            let before = *committed.get(verdict.what.as_str())?;
            has_fallen(verdict, before).then(|| {
                format!(
                    "  {}: {} where the report has {}",
                    verdict.what,
                    number(verdict.value),
                    number(before)
                )
            })
        })
        .collect();
    let found = verdicts
        .iter()
        .filter(|verdict| committed.contains_key(verdict.what.as_str()));
    let found = found.count();
    match fallen.len() {
        0 => println!(
            "{found} values beside the committed report: none is worse by more than its noise"
        ),
        worse => println!(
            "{found} values beside the committed report: {worse} worse by more than its noise"
        ),
    }
    fallen.iter().for_each(|line| println!("{line}"));
    fallen.len()
}

fn has_fallen(verdict: &Verdict, before: f64) -> bool {
    let timed = verdict.noise > 0.0;
    let room = if timed {
        TIMED.max(3.0 * verdict.noise)
    } else {
        COUNTED
    };
    match verdict.bound {
        Bound::AtLeast(_) => verdict.value < before * (1.0 - room),
        // Far below its bound, a few kilobytes more or less say nothing.
        Bound::AtMost(bound) => verdict.value > (before * (1.0 + room)).max(bound / 10.0),
    }
}

/// The values in the report's tables of targets, by what they measure.
fn values(report: &str) -> BTreeMap<&str, f64> {
    let rows = report.lines().filter_map(|line| {
        let cells: Vec<_> = line.strip_prefix('|')?.split('|').map(str::trim).collect();
        let [what, value, target, _, ""] = cells[..] else {
            return None;
        };
        let is_target = target.starts_with("at least ") || target.starts_with("at most ");
        let value = value.replace(',', "").parse().ok()?;
        is_target.then_some((what, value))
    });
    rows.collect()
}
