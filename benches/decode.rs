//! Decoding next to `serde_json`, on one core: bytes a second, their ratio.
//!
//! The document has the shape of a usual delivery: 11 columns, 413 bytes a row, 5 rows a user.

use std::fmt::Write as _;
use std::hint::black_box;
use std::time::{Duration, Instant};

use criterion::{Criterion, Throughput};
use looker_feed::decode::{Decoder, Envelope, EnvelopeLimits, Limits, Part, Step};

const ROWS: u64 = 50_000;
const CHUNK: usize = 64 << 10;
/// `serde_json::Value` is to be beaten by this factor.
const TARGET: f64 = 3.0;

const COLUMNS: [&str; 11] = [
    "users.id",
    "users.email",
    "events.name",
    "events.type",
    "events.time_ms",
    "events.category",
    "events.brand",
    "events.price",
    "users.city",
    "users.ltv",
    "events.device",
];

fn main() {
    let whole = document(0, ROWS);
    let pretty = whole.replace("{\"value\":", "{\n        \"value\": ");
    let pretty = pretty.replace("},\"", "\n      },\n      \"");
    let bytes = whole.as_bytes();
    println!(
        "{ROWS} rows, {:.1} MB, {:.0} bytes a row",
        bytes.len() as f64 / 1e6,
        bytes.len() as f64 / ROWS as f64
    );

    let mut criterion = Criterion::default()
        .sample_size(10)
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(2))
        .configure_from_args();
    let mut group = criterion.benchmark_group("decode");
    group.throughput(Throughput::Bytes(bytes.len() as u64));
    group.bench_function("serde_json::Value", |b| b.iter(|| tree(bytes)));
    group.bench_function("64 KiB chunks", |b| {
        b.iter(|| decode(bytes, CHUNK, &COLUMNS))
    });
    group.bench_function("1460 byte chunks", |b| {
        b.iter(|| decode(bytes, 1_460, &COLUMNS))
    });
    group.bench_function("2 of 11 columns", |b| {
        b.iter(|| decode(bytes, CHUNK, &["users.id", "users.ltv"]));
    });
    group.bench_function("rows walked, not predicted", |b| {
        let shuffled = document(1, ROWS);
        b.iter(|| decode(shuffled.as_bytes(), CHUNK, &COLUMNS));
    });
    group.throughput(Throughput::Bytes(pretty.len() as u64));
    group.bench_function("pretty-printed", |b| {
        b.iter(|| decode(pretty.as_bytes(), CHUNK, &COLUMNS));
    });
    let request = format!(
        "{{\"attachment\":{{\"data\":{}}}}}",
        serde_json::Value::from(whole.as_str())
    );
    group.throughput(Throughput::Bytes(request.len() as u64));
    group.bench_function("envelope, escaped string", |b| {
        b.iter(|| envelope(request.as_bytes()));
    });
    group.finish();

    // A tree of the small document stays in the cache; one of the large measures page faults too.
    ratio(document(0, ROWS / 100).as_bytes(), ROWS / 100, 200);
    ratio(bytes, ROWS, 5);
}

/// The two side by side, alternately, so that what else runs on the machine hits both.
fn ratio(bytes: &[u8], rows: u64, rounds: usize) {
    let mut tree_time = Duration::MAX;
    let mut decode_time = Duration::MAX;
    for _ in 0..rounds {
        let start = Instant::now();
        tree(bytes);
        tree_time = tree_time.min(start.elapsed());
        let start = Instant::now();
        decode(bytes, CHUNK, &COLUMNS);
        decode_time = decode_time.min(start.elapsed());
    }
    let speed = |time: Duration| bytes.len() as f64 / 1e6 / time.as_secs_f64();
    println!(
        "{rows} rows: serde_json::Value {:.0} MB/s, decoder {:.0} MB/s: {:.1} times as fast (target {TARGET})",
        speed(tree_time),
        speed(decode_time),
        speed(decode_time) / speed(tree_time)
    );
}

fn tree(bytes: &[u8]) {
    let value: serde_json::Value = serde_json::from_slice(bytes).expect("the document is valid");
    black_box(value);
}

/// Decodes all and looks at each selected value.
fn decode(bytes: &[u8], chunk: usize, columns: &[&str]) {
    let mut decoder = Decoder::new(Limits::default());
    let mut chunks = bytes.chunks(chunk);
    let mut rows = 0;
    loop {
        match decoder.next().expect("the document is valid") {
            Step::NeedBytes => match chunks.next() {
                Some(chunk) => decoder.push(chunk),
                None => decoder.close(),
            },
            Step::Header(_) => decoder.select(columns),
            Step::Row(row) => {
                rows += 1;
                for slot in 0..columns.len() {
                    black_box(row.value(slot));
                }
            }
            Step::EarlyRow(_) => {}
            Step::End(_) => break,
        }
    }
    assert!(rows > 0);
}

fn envelope(bytes: &[u8]) {
    let mut envelope = Envelope::new(EnvelopeLimits::default());
    let mut chunks = bytes.chunks(CHUNK);
    loop {
        match envelope.next().expect("the request is valid") {
            Part::NeedBytes => match chunks.next() {
                Some(chunk) => envelope.push(chunk),
                None => envelope.close(),
            },
            Part::End => break,
            part => {
                black_box(part);
            }
        }
    }
}

/// Row `n` begins with column `n * rotate`: with 1 no layout fits the next row.
fn document(rotate: u64, rows: u64) -> String {
    let mut out = String::from("{\"applied_filters\":{},\"fields\":{\"dimensions\":[");
    for (index, name) in COLUMNS.iter().enumerate() {
        let comma = if index > 0 { "," } else { "" };
        let _ = write!(out, "{comma}{{\"name\":\"{name}\",\"tags\":[\"mp_x\"]}}");
    }
    out.push_str("]},\"timezone\":\"UTC\",\"data\":[");
    for row in 0..rows {
        let user = row / 5;
        let brand = ["Calvin Klein", "Levi's", "Carhartt"][row as usize % 3];
        let values = [
            format!("{}", 100_000 + user),
            format!("\"user{user}@example.com\""),
            format!(
                "\"{}\"",
                ["Product Viewed", "Cart \\\"Opened\\\""][(row % 10 == 9) as usize]
            ),
            "\"navigation\"".to_owned(),
            format!("{}", 1_760_000_000_000 + row * 977),
            "\"Outerwear & Coats\"".to_owned(),
            format!("\"{brand}\""),
            format!("{}.{:02}", 10 + row % 190, row % 100),
            ["\"San Francisco\"", "\"Zürich\""][(user % 20 == 0) as usize].to_owned(),
            if user % 7 == 0 {
                "null".to_owned()
            } else {
                format!("{}.5", user * 13)
            },
            "\"Apple\"".to_owned(),
        ];
        out.push_str(if row > 0 { ",{" } else { "{" });
        for index in 0..COLUMNS.len() {
            let column = (index + (row * rotate) as usize) % COLUMNS.len();
            let comma = if index > 0 { "," } else { "" };
            let (name, value) = (COLUMNS[column], &values[column]);
            let _ = write!(out, "{comma}\"{name}\":{{\"value\":{value}}}");
        }
        out.push('}');
    }
    out.push_str("]}");
    out
}
