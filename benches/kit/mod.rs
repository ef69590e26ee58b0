//! What the benches share: the shape that is measured, pairs of runs, and lines with a target.

#![allow(dead_code)] // Each bench uses its own part of this.

pub mod gate;
pub mod made;

use std::sync::Arc;
use std::time::{Duration, Instant};

use looker_feed::clock::UnixMillis;
use looker_feed::decode::{Decoder, Limits, Step};
use looker_feed::looker::{RowOrder, Shape, document};
use looker_feed::mapping::{self, Plan, Tally};
use looker_feed::model::{DataType, DeliveryId, DestinationId};
use looker_feed::outbox::{NewDelivery, Outbox, Settings, Slice, Staging, Totals};
use looker_feed::record::Record;
use looker_feed::seal::{Key, Keyring};

/// Rows of one user in the shape that is measured.
pub const ROWS_A_USER: u64 = 5;
/// Bytes that HTTP hands over at a time, about.
pub const CHUNK: usize = 64 << 10;

/// The shape that is measured: 11 columns, about 413 bytes a row, 5 rows a user.
pub fn shape(rows: u64) -> Shape {
    Shape {
        rows,
        users: rows.div_ceil(ROWS_A_USER),
        ..Shape::default()
    }
}

/// The same with the rows of a user one after the other.
pub fn sorted(rows: u64) -> Shape {
    Shape {
        order: RowOrder::Sorted,
        ..shape(rows)
    }
}

/// A document, whole.
pub fn whole(shape: &Shape) -> Vec<u8> {
    document(shape).flatten().collect()
}

/// What a mapping depends on, as the configuration's defaults have it.
pub fn mapping_settings() -> mapping::Settings {
    mapping::Settings {
        // Events are held against the time at which their delivery came in.
        now: UnixMillis::now(),
        ..mapping::Settings::new(DataType::Event)
    }
}

/// Decodes and maps a document and hands each record on, with the plan that it was made by.
pub fn decode_and_map<'a>(
    chunks: impl Iterator<Item = &'a [u8]>,
    mut visit: impl FnMut(&Record),
) -> Plan {
    let mut chunks = chunks;
    let mut decoder = Decoder::new(Limits::default());
    let mut mapper: Option<(Plan, Tally)> = None;
    let mut record = Record::default();
    loop {
        match decoder.next().expect("the document is valid") {
            Step::NeedBytes => match chunks.next() {
                Some(chunk) => decoder.push(chunk),
                None => decoder.close(),
            },
            Step::Header(header) => {
                let plan = Plan::new(header, &mapping_settings(), [7; 16]).expect("it has tags");
                let columns: Vec<_> = plan.columns().iter().map(String::as_str).collect();
                decoder.select(&columns);
                let tally = Tally::new(plan.columns().len());
                mapper = Some((plan, tally));
            }
            Step::Row(row) => {
                let (plan, tally) = mapper.as_mut().expect("the header came first");
                plan.map(&row, &mut record, tally).expect("it has a user");
                visit(&record);
            }
            Step::EarlyRow(_) => panic!("`fields` came first"),
            Step::End(_) => break,
        }
    }
    mapper.expect("there was a header").0
}

/// Two things, measured side by side.
#[derive(Clone, Copy, Debug)]
pub struct Pair {
    /// Median time of the first.
    pub ours: Duration,
    /// Median time of the second.
    pub theirs: Duration,
    /// Median of the ratios of each pair: how many times as fast the first is.
    pub speed: f64,
    /// How far the ratios of half of the pairs lie around it, as a share of it.
    pub noise: f64,
}

/// How long one core takes to decode and map such rows, from memory.
pub fn parse(shape: &Shape) -> Duration {
    const PART: u64 = 100_000;
    let rows = shape.rows.min(PART);
    let part = whole(&Shape {
        rows,
        users: shape.users.min(rows),
        ..shape.clone()
    });
    let mut time = Duration::ZERO;
    for _ in 0..shape.rows.div_ceil(PART) {
        let ((), took) = timed(|| {
            decode_and_map(part.chunks(CHUNK), |record| {
                std::hint::black_box(record);
            });
        });
        time += took;
    }
    time
}

/// What both return, run in turn, the order changing.
pub fn in_turns<T>(
    rounds: usize,
    mut ours: impl FnMut() -> T,
    mut theirs: impl FnMut() -> T,
) -> Vec<(T, T)> {
    let pair = |round| {
        if round % 2 == 0 {
            let first = ours();
            (first, theirs())
        } else {
            let second = theirs();
            (ours(), second)
        }
    };
    (0..rounds).map(pair).collect()
}

/// Runs both in turn, the order changing, so that what else runs on the machine hits both. Each
/// returns what it took.
pub fn pairs(
    rounds: usize,
    ours: impl FnMut() -> Duration,
    theirs: impl FnMut() -> Duration,
) -> Pair {
    let times = in_turns(rounds, ours, theirs);
    let ratio = |(ours, theirs): &(Duration, Duration)| theirs.as_secs_f64() / ours.as_secs_f64();
    let speed = median_of(times.iter().map(ratio));
    Pair {
        ours: median(times.iter().map(|(ours, _)| *ours)),
        theirs: median(times.iter().map(|(_, theirs)| *theirs)),
        speed,
        noise: median_of(times.iter().map(|pair| (ratio(pair) / speed - 1.0).abs())),
    }
}

/// What a call takes.
pub fn timed<T>(call: impl FnOnce() -> T) -> (T, Duration) {
    let start = Instant::now();
    let result = call();
    (result, start.elapsed())
}

/// The middle one.
pub fn median(times: impl Iterator<Item = Duration>) -> Duration {
    Duration::from_secs_f64(median_of(times.map(|time| time.as_secs_f64())))
}

/// The middle one; 0 of none.
pub fn median_of(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or_default()
}

/// Megabytes (10^6) a second.
pub fn speed(bytes: usize, time: Duration) -> f64 {
    bytes as f64 / 1e6 / time.as_secs_f64()
}

/// What a measured value must be.
#[derive(Clone, Copy, Debug)]
pub enum Bound {
    AtLeast(f64),
    AtMost(f64),
}

/// A measured value beside its target.
#[derive(Clone, Debug)]
pub struct Verdict {
    pub what: String,
    pub value: f64,
    pub bound: Bound,
    /// How far a run lies from the next one, as a share of the value; nothing for what is counted.
    pub noise: f64,
}

impl Verdict {
    pub fn new(what: impl Into<String>, value: f64, bound: Bound) -> Self {
        Self {
            what: what.into(),
            value,
            bound,
            noise: 0.0,
        }
    }

    /// The same of something that is timed.
    pub fn noisy(self, noise: f64) -> Self {
        Self { noise, ..self }
    }

    /// Whether the target is reached.
    pub fn holds(&self) -> bool {
        match self.bound {
            Bound::AtLeast(bound) => self.value >= bound,
            Bound::AtMost(bound) => self.value <= bound,
        }
    }

    pub fn target(&self) -> String {
        match self.bound {
            Bound::AtLeast(bound) => format!("at least {}", number(bound)),
            Bound::AtMost(bound) => format!("at most {}", number(bound)),
        }
    }

    /// One line: what, value, target, pass or miss.
    pub fn print(&self) {
        let verdict = if self.holds() { "pass" } else { "MISS" };
        println!(
            "  {:62} {:>11}   target {:16} {verdict}",
            self.what,
            number(self.value),
            self.target()
        );
    }
}

/// A number with as many digits as say something.
pub fn number(value: f64) -> String {
    if value.fract() == 0.0 || value.abs() >= 1000.0 {
        return thousands(value.round() as i64);
    }
    match value.abs() {
        100.0.. => format!("{value:.0}"),
        10.0.. => format!("{value:.1}"),
        _ => format!("{value:.3}"),
    }
}

fn thousands(value: i64) -> String {
    let digits = value.unsigned_abs().to_string();
    let mut out = String::from(if value < 0 { "-" } else { "" });
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// A delivery for the outbox.
pub fn new_delivery(number: u8, account: Vec<u8>) -> NewDelivery {
    NewDelivery {
        id: DeliveryId([number; 16]),
        destination: DestinationId([1; 16]),
        destination_label: "bench".to_owned(),
        account,
        webhook: None,
        title: "bench".to_owned(),
        link: None,
        received: UnixMillis::now(),
    }
}

/// An outbox in `path` with the defaults, whatever else the disk holds.
pub fn outbox(path: &std::path::Path) -> Outbox {
    let keys = Arc::new(Keyring::new(Key::new([1; 32]), Vec::new()));
    let settings = Settings {
        reserve_bytes: 0,
        ..Settings::new(path, keys)
    };
    Outbox::open(settings).expect("the outbox opens")
}

/// Appends requests, each a list of batches that hold one row each, and commits them.
pub fn commit(mut staging: Staging, requests: &[Vec<Vec<u8>>]) {
    let mut batches = 0;
    for request in requests {
        let slices: Vec<_> = request
            .iter()
            .map(|bytes| Slice { bytes, rows: 1 })
            .collect();
        batches += slices.len() as u64;
        staging
            .append(looker_feed::outbox::Entry {
                slices: &slices,
                route: 0,
            })
            .expect("an entry");
    }
    let totals = Totals {
        rows_in: batches,
        batches,
        requests: requests.len() as u64,
        ..Totals::default()
    };
    staging.commit(totals).expect("the delivery is committed");
}
