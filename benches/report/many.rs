//! Midnight: many large deliveries at once, and as many as Looker may keep silent beside them.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use looker_feed::looker::{Failure, document};

use crate::daemon::Daemon;
use crate::kit;
use crate::world::World;

/// `looker.max_deliveries` by default.
pub const LARGE: usize = 64;
pub const SILENT: usize = 200;

/// What was seen.
#[derive(Clone, Copy, Debug)]
pub struct Midnight {
    /// Of each large delivery.
    pub rows: u64,
    /// Until the last of them was durable.
    pub received: Duration,
    pub memory: u64,
}

impl Midnight {
    pub fn rows_a_second(&self) -> f64 {
        (self.rows * LARGE as u64) as f64 / self.received.as_secs_f64()
    }
}

/// Has them executed at the same moment, when the silent ones are there already.
pub fn run(home: &Path, rows: u64) -> Midnight {
    let world = World::new(None);
    let directory = tempfile::tempdir_in(home).expect("a directory");
    // Nobody listens there: what is received waits.
    let daemon = Arc::new(Daemon::start(
        directory.path(),
        "http://127.0.0.1:1/v2",
        270,
    ));
    let document: Arc<[Bytes]> = document(&kit::shape(rows)).collect();
    let silent: Vec<_> = (0..SILENT)
        .map(|_| world.publish_failing(Failure::StallAfter(0)))
        .collect();
    for url in &silent {
        let (daemon, url) = (Arc::clone(&daemon), url.clone());
        // They are still silent at the end.
        world
            .runtime
            .spawn(async move { drop(daemon.try_execute(url).await) });
    }
    let until = Instant::now() + Duration::from_secs(60);
    while silent.iter().any(|url| world.is_unspent(url)) {
        assert!(Instant::now() < until, "the silent ones do not begin");
        std::thread::sleep(Duration::from_millis(20));
    }
    let start = Instant::now();
    let large: Vec<_> = (0..LARGE)
        .map(|_| {
            let (daemon, url) = (Arc::clone(&daemon), world.publish_made(&document));
            world
                .runtime
                .spawn(async move { daemon.execute(url).await })
        })
        .collect();
    for delivery in large {
        world.runtime.block_on(delivery).expect("a success");
    }
    Midnight {
        rows,
        received: start.elapsed(),
        memory: daemon.peak_memory(),
    }
}
