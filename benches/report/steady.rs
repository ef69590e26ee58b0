//! The drain against a stand-in that enforces mParticle's limit, and a start with a full outbox.

use std::net::TcpListener;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::daemon::Daemon;
use crate::kit;
use crate::world::World;

/// mParticle's default limit.
const LIMIT: u32 = 270;
const SECOND: Duration = Duration::from_secs(1);

/// The rate over a while, after the ramp.
#[derive(Clone, Debug)]
pub struct Steady {
    /// Length of the windows that are judged.
    pub window: Duration,
    /// Share of the allowed batches that was used in the worst window.
    pub worst_share: f64,
    /// Share of replies that were 429, over all windows together.
    pub throttled: f64,
    /// Share of the allowed batches, second by second, from the start.
    pub curve: Vec<f64>,
}

/// Sends at the limit for `ramp` and two windows.
pub fn run(home: &Path, ramp: Duration, window: Duration) -> Steady {
    let world = World::new(Some(LIMIT));
    let directory = tempfile::tempdir_in(home).expect("a directory");
    let daemon = Daemon::start(directory.path(), &world.endpoint, LIMIT);
    let seconds = (ramp + 2 * window).as_secs();
    let batches = u64::from(LIMIT) * (seconds + 20);
    let url = world.publish(&kit::shape(batches * kit::ROWS_A_USER));
    world.runtime.block_on(daemon.execute(url));

    let start = Instant::now();
    let mut samples = Vec::new();
    for second in 0..=seconds {
        let until = SECOND * u32::try_from(second).expect("few");
        std::thread::sleep(until.saturating_sub(start.elapsed()));
        let counts = world.mparticle.counts();
        let throttled = counts.statuses.get(&429).copied().unwrap_or(0);
        samples.push((start.elapsed(), counts.batches, counts.requests, throttled));
    }
    let share = |from: usize, to: usize| {
        let (a, b) = (samples[from], samples[to]);
        (b.1 - a.1) as f64 / (f64::from(LIMIT) * (b.0 - a.0).as_secs_f64())
    };
    let (from, length) = (ramp.as_secs() as usize, window.as_secs() as usize);
    let windows = (from..samples.len() - length).map(|at| share(at, at + length));
    let (first, last) = (samples[from], samples[samples.len() - 1]);
    Steady {
        window,
        worst_share: windows.fold(f64::MAX, f64::min),
        throttled: (last.3 - first.3) as f64 / (last.2 - first.2).max(1) as f64,
        curve: (1..samples.len()).map(|at| share(at - 1, at)).collect(),
    }
}

/// A start with a backlog.
#[derive(Clone, Copy, Debug)]
pub struct Restart {
    pub batches: u64,
    /// From the start of the process to its first request.
    pub first_request: Duration,
    pub memory: u64,
}

/// Fills an outbox with as many batches, kills the daemon, starts it again and waits for its first
/// request.
pub fn restart(home: &Path, batches: u64) -> Restart {
    let directory = tempfile::tempdir_in(home).expect("a directory");
    let world = World::new(None);
    // Taken, and let go: nobody listens there while the outbox is filled.
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let addr = listener.local_addr().expect("its address");
    drop(listener);
    let endpoint = format!("http://{addr}/v2");
    let daemon = Daemon::start(directory.path(), &endpoint, LIMIT);
    let mut shape = kit::shape(batches);
    shape.users = batches;
    let url = world.publish(&shape);
    world.runtime.block_on(daemon.execute(url));
    let delivery = world.runtime.block_on(daemon.delivery());
    assert_eq!(delivery.batches, batches);
    daemon.kill();

    let listener = TcpListener::bind(addr).expect("the port is still free");
    let start = Instant::now();
    let waiter = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("a connection");
        let mut first = [0; 4];
        std::io::Read::read_exact(&mut stream, &mut first).expect("a request");
        assert_eq!(&first, b"POST");
        start.elapsed()
    });
    let daemon = Daemon::start(directory.path(), &endpoint, LIMIT);
    let first_request = waiter.join().expect("a first request");
    Restart {
        batches,
        first_request,
        memory: daemon.peak_memory(),
    }
}
