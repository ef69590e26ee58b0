//! Deliveries through the real daemon until Looker hears of success, beside a plain client that writes the
//! same blocks; and what is left on the disk when they have been sent.

use std::time::{Duration, Instant};

use bytes::{BufMut, Bytes, BytesMut};
use futures::SinkExt;
use looker_feed::looker::document;
use looker_feed::sandbox::{Fault, Faults, Rule};
use tokio::task::JoinHandle;
use tokio_postgres::{Client, Config, NoTls};

use crate::kit::{self, Bound, Verdict, number};
use crate::server::{Database, Server};
use crate::world::World;
use crate::{UNPACED, fresh, start, until};

/// What a plain client sends with one statement, and how much of it is a block.
const STATEMENT: usize = 4 << 20;
const BLOCK: usize = 256 << 10;
/// Deliveries over which the space may not grow, after the first.
const DELIVERIES: u64 = 50;
const FIRST: u64 = 10;

/// What was seen of one delivery.
struct Seen {
    took: Duration,
    /// What decoding and mapping the rows alone takes, and what a plain client does to store the same
    /// blocks, or the requests as they are sent.
    parse: Duration,
    plain: Duration,
    plain_as_sent: Duration,
    memory: u64,
    /// Bytes of all tables when it was durable, and when it had been sent.
    peak: u64,
    after: u64,
}

pub fn measure(server: &Server, rows: u64, runs: usize) -> Vec<Verdict> {
    let seen: Vec<Seen> = (0..runs).map(|_| run(server, rows)).collect();
    let median = |of: fn(&Seen) -> f64| kit::median_of(seen.iter().map(of));
    let many = number(rows as f64);
    let took = median(|seen| seen.took.as_secs_f64());
    let mut verdicts = vec![
        Verdict::new(
            format!("rows/s, {many} rows, socket to durable"),
            (rows as f64 / took).round(),
            Bound::AtLeast(250_000.0),
        ),
        Verdict::new(
            format!("of a plain client's rate with the same blocks, {many} rows"),
            median(|seen| seen.plain.as_secs_f64() / seen.took.as_secs_f64()),
            Bound::AtLeast(0.5),
        ),
        Verdict::new(
            format!("of a plain client's rate with the requests as they are sent, {many} rows"),
            median(|seen| seen.plain_as_sent.as_secs_f64() / seen.took.as_secs_f64()),
            Bound::AtLeast(0.5),
        ),
        Verdict::new(
            format!("of pure parse + a plain client with the same blocks, {many} rows"),
            median(|seen| (seen.parse + seen.plain).as_secs_f64() / seen.took.as_secs_f64()),
            Bound::AtLeast(0.5),
        ),
        Verdict::new(
            format!("MB resident, {many} rows"),
            median(|seen| seen.memory as f64 / 1e6).round(),
            Bound::AtMost(80.0),
        ),
        Verdict::new(
            format!("of the space at most, once all is sent and vacuumed, {many} rows"),
            median(|seen| seen.after as f64 / seen.peak as f64),
            Bound::AtMost(0.1),
        ),
    ];
    if rows >= 10_000_000 {
        let what = format!("s until {many} rows are durable");
        verdicts.push(Verdict::new(what, took, Bound::AtMost(25.0)));
    } else {
        verdicts.push(flat(server, rows / 20));
    }
    verdicts
}

fn run(server: &Server, rows: u64) -> Seen {
    let database = fresh(server);
    let world = World::new(None);
    let home = tempfile::tempdir().expect("a directory");
    let shape = kit::shape(rows);
    // Made before the clock runs: Looker has other processors than the daemon.
    let made = document(&shape).collect();
    // Nothing is sent while it is measured.
    down(&world, true);
    let daemon = start(home.path(), &world.endpoint, &database, UNPACED);
    let begin = Instant::now();
    let answer = daemon.execute(world.publish_made(&made));
    world.runtime.block_on(answer);
    let took = begin.elapsed();
    let memory = daemon.peak_memory();
    let peak = size(&database);
    let plain_client = |statements| world.runtime.block_on(plain(&database, statements));
    let blocks = world.runtime.block_on(blocks(&database));
    let plain = plain_client(statements(&blocks));
    drop(blocks);
    let parse = kit::parse(&shape);
    down(&world, false);
    world.runtime.block_on(async {
        let delivery = daemon.delivery().await;
        let path = format!("/api/v1/destinations/{}/retry", delivery.destination);
        daemon.post(&path).await;
        daemon.sent().await;
    });
    swept(&database);
    let after = size(&database);
    let sent = world.mparticle.counts().bytes;
    let plain_as_sent = plain_client(as_sent(sent));
    println!(
        "  {} rows: durable in {took:.2?}, parse alone {parse:.2?}, plain {plain:.2?}, plain as sent ({} MB) {plain_as_sent:.2?}, {} MB resident, {} MB of tables, {} MB when sent",
        number(rows as f64),
        sent / 1_000_000,
        memory / 1_000_000,
        peak / 1_000_000,
        after / 1_000_000,
    );
    Seen {
        took,
        parse,
        plain,
        plain_as_sent,
        memory,
        peak,
        after,
    }
}

/// What deliveries leave behind when they have been sent: of fifty, since the tables, their indexes
/// included, have a size of their own that they come to with the first.
fn flat(server: &Server, rows: u64) -> Verdict {
    let database = fresh(server);
    let world = World::new(None);
    let home = tempfile::tempdir().expect("a directory");
    let daemon = start(home.path(), &world.endpoint, &database, UNPACED);
    let mut first = 0;
    for number in 1..=DELIVERIES {
        let shape = kit::shape(rows);
        let answer = daemon.execute(world.publish(&shape));
        world.runtime.block_on(answer);
        // As often as the server would by itself, over as much time as such deliveries take.
        if number % FIRST == 0 {
            swept(&database);
            println!("  after {number}: {}", tables(&database));
        }
        if number == FIRST {
            first = size(&database);
        }
    }
    let took: u64 = database
        .psql("SELECT max(bytes) FROM looker_feed.delivery")
        .parse()
        .expect("a number");
    let more = DELIVERIES - FIRST;
    let left = size(&database).saturating_sub(first);
    Verdict::new(
        format!(
            "of the space that {more} deliveries of {} rows took, not given back",
            number(rows as f64)
        ),
        left as f64 / (more * took) as f64,
        Bound::AtMost(0.01),
    )
}

/// mParticle refuses everything, or nothing.
pub fn down(world: &World, is_down: bool) {
    let status = Fault::Status {
        status: 503,
        retry_after: None,
        exceeded: None,
        body: None,
    };
    let rules = match is_down {
        true => vec![Rule::always(status)],
        false => Vec::new(),
    };
    let faults = Faults { seed: 1, rules };
    world.mparticle.set_faults(faults).expect("good faults");
}

/// Waits until what was sent has been deleted, and has the server give its room back.
fn swept(database: &Database) {
    let none = || database.psql("SELECT count(*) FROM looker_feed.block") == "0";
    until("nothing is left", none);
    database.psql("VACUUM");
}

/// Bytes of the outbox's tables, with their indexes.
fn size(database: &Database) -> u64 {
    let sql = "SELECT sum(pg_total_relation_size(c.oid)) FROM pg_class c
         JOIN pg_namespace n ON n.oid = c.relnamespace
         WHERE n.nspname = 'looker_feed' AND c.relkind = 'r'";
    database.psql(sql).parse().expect("a number")
}

/// Kilobytes of each table that has more than a page of rows and one of its index.
fn tables(database: &Database) -> String {
    let sql = "SELECT string_agg(name || ' ' || kilobytes || ' kB', ', ' ORDER BY kilobytes DESC) FROM
         (SELECT c.relname AS name, pg_total_relation_size(c.oid) / 1024 AS kilobytes FROM pg_class c
          JOIN pg_namespace n ON n.oid = c.relnamespace
          WHERE n.nspname = 'looker_feed' AND c.relkind = 'r') t WHERE kilobytes > 32";
    database.psql(sql)
}

/// The blocks that there are.
async fn blocks(database: &Database) -> Vec<Bytes> {
    let (client, driver) = connect(database).await;
    let rows = client.query("SELECT body FROM looker_feed.block", &[]);
    let rows = rows.await.expect("the blocks");
    let bodies = rows.iter().map(|row| row.get::<_, &[u8]>(0));
    let blocks = bodies.map(Bytes::copy_from_slice).collect();
    drop(client);
    // It has ended with its client.
    let _ = driver.await;
    blocks
}

/// What stores blocks, some 4 MB with each statement.
fn statements(blocks: &[Bytes]) -> Vec<Bytes> {
    let mut left = blocks;
    let mut statements = Vec::new();
    while !left.is_empty() {
        let mut bytes = 0;
        let count = left.iter().take_while(|block| {
            let fits = bytes < STATEMENT;
            bytes += block.len();
            fits
        });
        let (now, later) = left.split_at(count.count());
        let mut text = BytesMut::from(&b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0"[..]);
        for block in now {
            text.put_i16(1);
            text.put_i32(block.len() as i32);
            text.put_slice(block);
        }
        text.put_i16(-1);
        statements.push(text.freeze());
        left = later;
    }
    statements
}

/// As many bytes as there are in the requests that were sent, in blocks that do not get smaller.
fn as_sent(bytes: u64) -> Vec<Bytes> {
    let mut block = vec![0; BLOCK];
    fastrand::Rng::with_seed(1).fill(&mut block);
    let blocks = vec![Bytes::from(block); STATEMENT / BLOCK];
    let one = statements(&blocks).remove(0);
    vec![one; bytes.div_ceil(STATEMENT as u64) as usize]
}

/// Stores blocks as fast as a client can that does nothing else.
async fn plain(database: &Database, statements: Vec<Bytes>) -> Duration {
    let (client, driver) = connect(database).await;
    client
        .batch_execute(
            "CREATE TABLE plain (body bytea); ALTER TABLE plain ALTER COLUMN body SET STORAGE EXTERNAL",
        )
        .await
        .expect("a table");
    let begin = Instant::now();
    for text in statements {
        let copy = client.copy_in("COPY plain FROM STDIN (FORMAT binary)");
        let mut sink = Box::pin(copy.await.expect("it takes rows"));
        sink.send(text).await.expect("it takes rows");
        sink.close().await.expect("they are stored");
    }
    let took = begin.elapsed();
    client
        .batch_execute("DROP TABLE plain")
        .await
        .expect("gone");
    drop(client);
    // It has ended with its client.
    let _ = driver.await;
    took
}

async fn connect(database: &Database) -> (Client, JoinHandle<Result<(), tokio_postgres::Error>>) {
    let (client, connection) = Config::new()
        .host_path(&database.directory)
        .user("postgres")
        .dbname(&database.name)
        .connect(NoTls)
        .await
        .expect("it takes connections");
    (client, tokio::spawn(connection))
}
