//! The whole way of a delivery: Looker's url to a durable outbox, and from there to mParticle.

use std::ffi::OsStr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use http_body_util::{BodyExt, Empty};
use hyper::body::Bytes;
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use looker_feed::looker::Shape;

use crate::daemon::{self, Daemon};
use crate::kit;
use crate::world::World;

/// The daemon's limit from which on it has none.
const UNPACED: u32 = 100_000;
const LOOK: Duration = Duration::from_millis(20);

/// One run.
#[derive(Clone, Debug)]
pub struct Intake {
    pub rows: u64,
    pub users: u64,
    /// Bytes of the document.
    pub bytes: u64,
    /// From Looker's call to the answer: everything is durable.
    pub received: Duration,
    /// Processor time of the daemon for it.
    pub processor: Duration,
    /// From then until mParticle, without a limit, has taken all of it.
    pub sent: Option<Duration>,
    pub memory_received: u64,
    pub memory_sent: u64,
    pub disk_peak: u64,
    /// Segments and state once received.
    pub disk_received: u64,
    pub disk_sent: u64,
    pub batches: u64,
    pub requests: u64,
}

impl Intake {
    pub fn rows_a_second(&self) -> f64 {
        self.rows as f64 / self.received.as_secs_f64()
    }

    /// Microseconds until durable, for each row.
    pub fn micros_a_row(&self) -> f64 {
        self.received.as_secs_f64() * 1e6 / self.rows as f64
    }

    /// Microseconds of a processor, for each row; as many seconds for a million rows.
    pub fn processor_micros_a_row(&self) -> f64 {
        self.processor.as_secs_f64() * 1e6 / self.rows as f64
    }

    /// Fewest batches that could hold the delivery: as many as users, or as their events need.
    pub fn least_batches(&self) -> u64 {
        let rows_a_user = self.rows.div_ceil(self.users);
        self.users * rows_a_user.div_ceil(100)
    }
}

/// Takes one delivery in and, if it is to be, sends it. `document` is that of `shape`; without one it is
/// made while it is sent, and its bytes are not counted.
pub fn run(home: &Path, shape: &Shape, document: Option<&Arc<[Bytes]>>, send: bool) -> Intake {
    run_of(&daemon::binary(), home, shape, document, send)
}

/// The same by any binary.
pub fn run_of(
    binary: &OsStr,
    home: &Path,
    shape: &Shape,
    document: Option<&Arc<[Bytes]>>,
    send: bool,
) -> Intake {
    let world = World::new(None);
    let directory = tempfile::tempdir_in(home).expect("a directory");
    // Nobody listens on port 1: what is not to be sent waits.
    let nowhere = "http://127.0.0.1:1/v2".to_owned();
    let endpoint = if send { &world.endpoint } else { &nowhere };
    let daemon = Daemon::start_of(binary, directory.path(), endpoint, UNPACED, &[]);
    let chunks = document.iter().flat_map(|document| document.iter());
    let bytes = chunks.map(|chunk| chunk.len() as u64).sum();

    let watching = Arc::new(AtomicBool::new(true));
    let watcher = std::thread::spawn({
        let (watching, disk) = (Arc::clone(&watching), daemon.disk_watcher());
        move || {
            let mut peak = 0;
            while watching.load(Ordering::Relaxed) {
                peak = peak.max(disk());
                std::thread::sleep(LOOK);
            }
            peak
        }
    });
    let url = match document {
        Some(document) => world.publish_made(document),
        None => world.publish(shape),
    };
    let start = Instant::now();
    world.runtime.block_on(daemon.execute(url));
    let received = start.elapsed();
    let processor = daemon.processor();
    let (memory_received, disk_received) = (daemon.peak_memory(), daemon.disk());
    let (delivery, sent) = if send {
        let delivery = world.runtime.block_on(daemon.sent());
        (delivery, Some(start.elapsed() - received))
    } else {
        (world.runtime.block_on(daemon.delivery()), None)
    };
    watching.store(false, Ordering::Relaxed);
    let disk_peak = watcher.join().expect("it only looks");
    assert_eq!(delivery.rows_in, shape.rows, "all rows came");
    if send {
        assert_eq!(delivery.rows.delivered, shape.rows, "all rows were sent");
        assert_eq!(world.mparticle.counts().events, shape.rows, "and arrived");
    }
    Intake {
        rows: shape.rows,
        users: shape.users,
        bytes,
        received,
        processor,
        sent,
        memory_received,
        memory_sent: daemon.peak_memory(),
        disk_peak,
        disk_received,
        disk_sent: daemon.disk(),
        batches: delivery.batches,
        requests: delivery.requests,
    }
}

/// What bounds an intake from below, each measured alone.
#[derive(Clone, Copy, Debug)]
pub struct Floor {
    /// Decode and map, one core, from memory.
    pub parse: Duration,
    /// Write and fdatasync of the bytes that the outbox came to.
    pub write: Duration,
    /// The stand-in to a client that throws all away.
    pub download: Duration,
}

impl Floor {
    pub fn measure(home: &Path, shape: &Shape, document: &Arc<[Bytes]>, outbox_bytes: u64) -> Self {
        Self {
            parse: kit::parse(shape),
            write: write(home, outbox_bytes),
            download: download(document),
        }
    }
}

/// The document is generated beside the clock, in parts.
fn write(home: &Path, bytes: u64) -> Duration {
    use std::io::Write;
    let mut noise = vec![0; 1 << 20];
    fastrand::Rng::with_seed(1).fill(&mut noise);
    let mut file = tempfile::tempfile_in(home).expect("a file");
    let ((), time) = kit::timed(|| {
        let mut left = usize::try_from(bytes).expect("it fits");
        while left > 0 {
            let part = left.min(noise.len());
            file.write_all(&noise[..part]).expect("room");
            left -= part;
        }
        file.sync_data().expect("it is durable");
    });
    time
}

fn download(document: &Arc<[Bytes]>) -> Duration {
    let world = World::new(None);
    let url = world.publish_made(document);
    let download = async {
        let client: Client<_, Empty<Bytes>> = Client::builder(TokioExecutor::new()).build_http();
        let reply = client.get(url.as_str().parse().expect("a uri")).await;
        let mut body = reply.expect("the stand-in answers").into_body();
        while let Some(frame) = body.frame().await {
            frame.expect("a whole document");
        }
    };
    kit::timed(|| world.runtime.block_on(download)).1
}
