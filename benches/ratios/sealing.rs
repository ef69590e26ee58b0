//! What sealing costs: records beside records that are only compressed, and rows that are spilled
//! beside a plain temporary file.

use std::io::{Read, Seek, Write};
use std::time::Duration;

use looker_feed::seal::{Key, Keyring, Scratch, Space};

use crate::kit::made::requests_of;
use crate::kit::{self, Bound, Verdict, pairs, timed};

const ROWS: u64 = 100_000;
const ROUNDS: usize = 9;

pub fn ratios() -> Vec<Verdict> {
    let document = kit::whole(&kit::shape(ROWS));
    vec![records(&document), spilled(&document)]
}

/// As the outbox does it: a request's batches, compressed and then sealed in place.
fn records(document: &[u8]) -> Verdict {
    let requests = requests_of(document, usize::MAX);
    let bodies: Vec<Vec<u8>> = requests.iter().map(|request| request.concat()).collect();
    let keys = Keyring::new(Key::new([1; 32]), Vec::new());
    let pair = pairs(
        ROUNDS,
        || {
            let mut sealer = keys.sealer().expect("random bytes");
            timed(|| {
                for body in &bodies {
                    let mut packed = lz4_flex::block::compress(body);
                    let seal = sealer.next_piece();
                    let tag = seal.seal(&[0; 1_000], &mut packed).expect("it is short");
                    packed.extend_from_slice(&tag);
                    std::hint::black_box(&packed);
                }
            })
            .1
        },
        || {
            timed(|| {
                for body in &bodies {
                    std::hint::black_box(lz4_flex::block::compress(body));
                }
            })
            .1
        },
    );
    let each = |time: Duration| time.as_nanos() as f64 / bodies.len() as f64;
    let raw: usize = bodies.iter().map(Vec::len).sum();
    println!(
        "  a record of {} bytes: {:.0} ns compressed and sealed, {:.0} ns compressed",
        raw / bodies.len(),
        each(pair.ours),
        each(pair.theirs),
    );
    Verdict::new(
        "records compressed and sealed, of compressed alone",
        pair.speed,
        Bound::AtLeast(0.9),
    )
    .noisy(pair.noise)
}

/// Every row written to a temporary file and read back, what that costs more than a plain file,
/// beside the row's decoding and mapping.
fn spilled(document: &[u8]) -> Verdict {
    let mut rows: Vec<Vec<u8>> = Vec::new();
    kit::decode_and_map(document.chunks(kit::CHUNK), |record| {
        // The head that a run puts in front of each.
        rows.push([&[0; 32], record.bytes()].concat());
    });
    let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a directory");
    let bytes: usize = rows.iter().map(Vec::len).sum();
    let pair = pairs(
        ROUNDS,
        || timed(|| sealed(directory.path(), &rows, bytes)).1,
        || timed(|| plain(directory.path(), &rows, bytes)).1,
    );
    let mapped = timed(|| kit::decode_and_map(document.chunks(kit::CHUNK), |_| {})).1;
    let each = |time: Duration| time.as_nanos() as f64 / rows.len() as f64;
    let more = pair.ours.saturating_sub(pair.theirs);
    println!(
        "  a row of {} bytes, written and read: {:.0} ns sealed, {:.0} ns plain; decoded and mapped: {:.0} ns",
        bytes / rows.len(),
        each(pair.ours),
        each(pair.theirs),
        each(mapped),
    );
    Verdict::new(
        "sealing and opening a spilled row, of decoding and mapping it",
        more.as_secs_f64() / mapped.as_secs_f64(),
        Bound::AtMost(0.2),
    )
    .noisy(0.1)
}

fn sealed(directory: &std::path::Path, rows: &[Vec<u8>], bytes: usize) {
    let mut scratch = Scratch::create(&Space::new(directory)).expect("a file");
    for row in rows {
        scratch.write(row).expect("room");
    }
    let mut reader = scratch.into_reader().expect("room");
    let mut read = 0;
    while let Some(chunk) = reader.chunk().expect("it is there") {
        read += chunk.len();
    }
    assert_eq!(read, bytes);
}

fn plain(directory: &std::path::Path, rows: &[Vec<u8>], bytes: usize) {
    let file = tempfile::tempfile_in(directory).expect("a file");
    let mut out = std::io::BufWriter::with_capacity(256 << 10, file);
    for row in rows {
        out.write_all(row).expect("room");
    }
    let mut file = out.into_inner().expect("room");
    file.rewind().expect("it is there");
    let mut read = 0;
    loop {
        let mut chunk = vec![0; 256 << 10];
        let length = file.read(&mut chunk).expect("it is there");
        if length == 0 {
            break;
        }
        read += length;
    }
    assert_eq!(read, bytes);
}
