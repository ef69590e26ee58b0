//! `looker-feed demo`: the real daemon as a process of its own, between a stand-in for Looker and
//! one for mParticle, and a full comparison at the end.

mod heal;
mod server;

use std::cell::Cell;
use std::fmt;
use std::io::IsTerminal;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressState, ProgressStyle};

use crate::cli::daemon::Daemon;
use crate::cli::summary::{bytes, thousands, time};
use crate::cli::{Failure, runtime, stop_signal};
use crate::control::view;
use crate::looker::{self, Execute, Looker, Shape, Source};
use crate::sandbox::{self, Sandbox};
use crate::shutdown;
use server::Server;

/// How often the bars are brought up to date.
const TICK: Duration = Duration::from_millis(200);
/// How often a line is written where bars cannot be drawn.
const PLAIN_LINES: Duration = Duration::from_secs(5);
/// mParticle's default limit, which the stand-in enforces.
const BATCHES_PER_SECOND: u32 = 270;
/// No progress for so long means that something is wrong.
const STALLED: Duration = Duration::from_secs(60);

/// Arguments of `looker-feed demo`.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// Rows of the generated delivery
    #[arg(long, default_value_t = 100_000, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=20_000_000))]
    rows: u64,
    /// Users that the rows belong to; by default one for every 20 rows
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    users: Option<u64>,
    /// Leave everything running at the end, with its addresses printed
    #[arg(long)]
    keep: bool,
    /// What keeps what waits; with `postgres` a throwaway server is started, if one is installed
    #[arg(long, value_enum, default_value_t = Backend::Embedded)]
    outbox: Backend,
}

/// What keeps the outbox.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Backend {
    /// A directory.
    Embedded,
    /// A PostgreSQL of its own.
    Postgres,
}

/// What happened, for the summary.
struct Outcome {
    received_in: Duration,
    delivered_in: Duration,
    delivery: view::Delivery,
    counts: sandbox::Counts,
    audited: Result<u64, looker::Mismatch>,
    peak_memory: Option<u64>,
}

/// Runs the demonstration. Fails unless every row is accounted for.
pub fn run(arguments: &Arguments) -> Result<(), Failure> {
    let rows = arguments.rows;
    let users = arguments.users.unwrap_or(rows.div_ceil(20));
    let shape = Shape {
        rows,
        users: users.min(rows),
        seed: 7,
        ..Shape::default()
    };
    runtime()?.block_on(async {
        tokio::select! {
            done = play(&shape, arguments) => done,
            signal = stop_signal() => Err(Failure::Other(format!(
                "Stopped by {}.", signal.unwrap_or("a signal that could not be received")
            ))),
        }
    })
}

async fn play(shape: &Shape, arguments: &Arguments) -> Result<(), Failure> {
    let other = |what: &'static str| {
        move |error: std::io::Error| Failure::Other(format!("{what}: {error}"))
    };
    let local = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let looker = Looker::bind(local).await;
    let looker = looker.map_err(other("The stand-in for Looker"))?;
    let mparticle = Sandbox::bind(sandbox::Settings {
        listen: local,
        batches_per_second: Some(BATCHES_PER_SECOND),
        ..sandbox::Settings::default()
    });
    let mparticle = mparticle
        .await
        .map_err(other("The stand-in for mParticle"))?;
    let endpoint = format!("http://{}/v2", mparticle.addr());
    let ledger = mparticle.handle();
    let download = looker.publish(shape.clone());
    let (api, looker_at) = (looker.api(), looker.url().clone());
    let (trigger, stop) = shutdown::channel();
    let stand_ins = tokio::spawn({
        let stop = stop.clone();
        async move { tokio::join!(looker.run(stop.clone()), mparticle.run(stop)) }
    });
    let server = match arguments.outbox {
        Backend::Embedded => None,
        Backend::Postgres => {
            println!("A PostgreSQL is made and started, for the demonstration alone.");
            let started = tokio::task::spawn_blocking(Server::start).await;
            Some(started.map_err(|error| Failure::of(&error))??)
        }
    };
    let more = server.as_ref().map(Server::settings).unwrap_or_default();
    let mut daemon = Daemon::start(&endpoint, BATCHES_PER_SECOND, Some(&looker_at), more).await?;
    let (rows, users, watch) = (thousands(shape.rows), thousands(shape.users), &daemon.admin);
    println!(
        "A delivery of {rows} rows, {users} users, goes from Looker through looker-feed to mParticle,"
    );
    println!("which takes {BATCHES_PER_SECOND} batches a second. Watch: {watch}\n");

    let outcome = deliver(shape, &daemon, download, &ledger).await;
    let outcome = outcome.map_err(|failure| daemon.explain(failure))?;
    tell(shape, &outcome);
    let whole = match check(shape, &outcome) {
        Ok(()) => {
            let healed = heal::heal(&daemon, &api, &ledger).await;
            healed.map_err(|failure| daemon.explain(failure))
        }
        wrong => wrong,
    };
    if arguments.keep && whole.is_ok() {
        println!("\nLeft running until Ctrl-C:");
        println!("  status page        {}", daemon.admin);
        println!("  action hub         {}", daemon.hub);
        println!("  mParticle stand-in {endpoint}");
        if let Some(server) = &server {
            println!("  database           {}", server.url());
        }
        std::future::pending::<()>().await;
    }
    daemon.stop().await?;
    trigger.pull();
    let (looker, mparticle) = stand_ins.await.map_err(|error| Failure::of(&error))?;
    looker.and(mparticle).map_err(other("A stand-in"))?;
    whole
}

/// Has the delivery executed as Looker does, and waits until all of it is settled.
async fn deliver(
    shape: &Shape,
    daemon: &Daemon,
    download: url::Url,
    ledger: &sandbox::Handle,
) -> Result<Outcome, Failure> {
    let bars = Bars::new(shape.rows);
    let begin = Instant::now();
    let mut execute = Execute::new(Source::Url(download), "demo-key", "demo-secret");
    execute.data_type = shape.data_type;
    let call = looker::execute(&daemon.hub, &daemon.token, execute);
    let mut call = std::pin::pin!(call);
    let mut ticks = tokio::time::interval(TICK);
    let answer = loop {
        tokio::select! {
            answer = &mut call => break answer.map_err(|error| Failure::of(&error))?,
            _ = ticks.tick() => {
                let overview: view::Overview = daemon.get("/api/v1/overview").await?;
                let rows = overview.receiving.first().map_or(0, |receiving| receiving.rows);
                bars.show(&bars.received, rows);
            }
        }
    };
    let received_in = begin.elapsed();
    if !answer.is_success() {
        let message = answer.message().unwrap_or_default();
        let said = format!("The delivery was refused: {message}");
        return Err(Failure::Other(said));
    }
    bars.show(&bars.received, shape.rows);
    bars.received.finish();
    let mut last = (0, Instant::now());
    let delivery = loop {
        ticks.tick().await;
        let deliveries: view::Listing<view::Delivery> = daemon.get("/api/v1/deliveries").await?;
        let Some(delivery) = deliveries.items.into_iter().next() else {
            return Err(Failure::Other("The delivery is not listed.".to_owned()));
        };
        let settled = delivery.rows.delivered + delivery.rows.dead + delivery.rows.rejected;
        bars.show(&bars.sent, settled);
        if settled != last.0 {
            last = (settled, Instant::now());
        }
        if delivery.rows.waiting + delivery.rows.in_flight == 0 {
            break delivery;
        }
        if last.1.elapsed() > STALLED {
            let (long, all) = (time(STALLED), shape.rows);
            let said = format!("Nothing was sent for {long}; {settled} of {all} rows are settled.");
            return Err(Failure::Other(said));
        }
    };
    bars.sent.finish();
    let delivered_in = begin.elapsed();
    let batches = ledger.ledger();
    let audited = looker::audit(shape, batches.iter().map(|accepted| &accepted.batch[..]));
    Ok(Outcome {
        received_in,
        delivered_in,
        delivery,
        counts: ledger.counts(),
        audited,
        peak_memory: daemon.peak_memory(),
    })
}

/// The two bars; plain lines now and then where standard error is no terminal.
struct Bars {
    _all: MultiProgress,
    received: ProgressBar,
    sent: ProgressBar,
    said: Option<Cell<Instant>>,
}

impl Bars {
    fn new(rows: u64) -> Self {
        let all = MultiProgress::with_draw_target(ProgressDrawTarget::stderr());
        let style = ProgressStyle::with_template(
            "{msg:9} {bar:36.cyan/dim} {percent:>3}%  {human_pos:>11} rows  {rate:>12}  {elapsed:>4}",
        )
        .unwrap_or_else(|_| ProgressStyle::default_bar())
        .with_key("rate", |state: &ProgressState, out: &mut dyn fmt::Write| {
            // A number that cannot be written is a bar without it.
            let _ = write!(out, "{}/s", thousands(state.per_sec().round() as u64));
        });
        let bar = |name: &'static str| {
            let bar = all.add(ProgressBar::new(rows).with_style(style.clone()));
            bar.set_message(name);
            bar.tick();
            bar
        };
        Self {
            received: bar("received"),
            sent: bar("sent"),
            _all: all,
            said: (!std::io::stderr().is_terminal()).then(|| Cell::new(Instant::now())),
        }
    }

    /// Brings one of the bars up to date.
    fn show(&self, bar: &ProgressBar, position: u64) {
        bar.set_position(position);
        let Some(said) = &self.said else {
            return;
        };
        let ended = bar.length() == Some(position);
        if ended || said.get().elapsed() >= PLAIN_LINES {
            said.set(Instant::now());
            eprintln!("{} {} rows", bar.message(), thousands(position));
        }
    }
}

fn tell(shape: &Shape, outcome: &Outcome) {
    let delivery = &outcome.delivery;
    let rate = shape.rows as f64 / outcome.received_in.as_secs_f64().max(0.001);
    let throttled = outcome.counts.statuses.get(&429).copied().unwrap_or(0);
    let alone = Duration::from_secs_f64(shape.rows as f64 / f64::from(BATCHES_PER_SECOND));
    let batches = format!(
        "{}  ({:.1} rows in each; one row a batch would take {})",
        thousands(delivery.batches),
        shape.rows as f64 / delivery.batches.max(1) as f64,
        time(alone)
    );
    let safe = format!(
        "{}  ({} rows/s; Looker hears \"success\" now)",
        time(outcome.received_in),
        thousands(rate as u64)
    );
    let sending = (outcome.delivered_in - outcome.received_in).as_secs_f64();
    let sent = format!(
        "{}  ({:.0} batches/s of {BATCHES_PER_SECOND}, {throttled} refused as too fast)",
        time(outcome.delivered_in),
        delivery.batches as f64 / sending.max(0.001),
    );
    let memory = outcome.peak_memory.map_or("unknown".to_owned(), bytes);
    let lines = [
        ("rows in", thousands(delivery.rows_in)),
        ("users", thousands(delivery.users)),
        ("batches", batches),
        ("requests", thousands(delivery.requests)),
        ("delivered", thousands(delivery.rows.delivered)),
        ("rejected", thousands(delivery.rows.rejected)),
        ("dead letters", thousands(delivery.rows.dead)),
        ("safe on disk in", safe),
        ("all sent in", sent),
        ("peak memory", memory),
    ];
    println!();
    for (name, value) in lines {
        println!("  {name:15} {value}");
    }
}

/// Whether every row is accounted for, by the daemon's books and by what arrived.
fn check(shape: &Shape, outcome: &Outcome) -> Result<(), Failure> {
    let delivery = &outcome.delivery;
    let audited = outcome.audited.as_ref();
    let audited = audited.map_err(|mismatch| Failure::Other(mismatch.what.clone()))?;
    let books = delivery.rows_in == shape.rows
        && delivery.rows.total() == shape.rows
        && delivery.rows.delivered == *audited;
    if !books || outcome.counts.conflicts > 0 {
        return Err(Failure::Other(format!(
            "The books do not balance: {} rows were sent in, {} arrived, and the daemon counts {:?}.",
            shape.rows, audited, delivery.rows
        )));
    }
    println!(
        "\nEvery row arrived exactly once: {} of {} compared, value by value.",
        thousands(*audited),
        thousands(shape.rows)
    );
    Ok(())
}
