//! `looker-feed try`: one document through a daemon of its own to a stand-in for mParticle, for people
//! without an account. Nothing leaves the machine, and nothing is left on it.

use std::io::Cursor;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use crate::cli::admin::screen::{escaped, indented};
use crate::cli::client::DaemonArgument;
use crate::cli::daemon::Daemon;
use crate::cli::document::{Document, DocumentArgument};
use crate::cli::form::FormArguments;
use crate::cli::send::follow;
use crate::cli::send::hub::{Hub, Request};
use crate::cli::{Failure, runtime, stop_signal};
use crate::config::Secret;
use crate::control::view::{Delivery, Listing, RejectedRow};
use crate::harmless::harmless;
use crate::sandbox::{Handle, Sandbox, Settings};
use crate::shutdown;

/// What is sent when no file is named.
const SAMPLE: &str = include_str!("../../config/sample.json");
/// mParticle's default limit, which the stand-in enforces.
const BATCHES_PER_SECOND: u32 = 270;
/// Rejected rows that are printed.
const REJECTED: usize = 5;
/// How often the daemon writes a newline while it works; the default, which it runs with.
const KEEP_ALIVE: std::time::Duration = std::time::Duration::from_secs(30);

/// Arguments of `looker-feed try`.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// A result that Looker made as json_detail or json_detail_lite_stream; - is standard input; without
    /// it, a sample of twelve events
    #[arg(value_name = "FILE")]
    file: Option<PathBuf>,
    #[command(flatten)]
    form: FormArguments,
    /// Leave everything running at the end, with its addresses printed
    #[arg(long)]
    keep: bool,
}

/// Sends the document and shows what arrived. Fails unless each row arrived or was rejected.
pub fn run(arguments: &Arguments) -> Result<(), Failure> {
    // What the daemon would refuse is known here already.
    arguments.form.choices()?;
    let (title, document) = match &arguments.file {
        Some(file) => {
            let document = DocumentArgument { file: file.clone() }.open("sent")?;
            (document.name().to_owned(), document)
        }
        None => {
            let document = Document::of("The sample", Box::new(Cursor::new(SAMPLE)));
            ("Sample".to_owned(), document)
        }
    };
    let runtime = runtime()?;
    let tried = runtime.block_on(async {
        tokio::select! {
            tried = play(arguments, &title, document) => tried,
            signal = stop_signal() => Err(Failure::Other(format!(
                "Stopped by {}.", signal.unwrap_or("a signal that could not be received")
            ))),
        }
    });
    // Whoever writes to standard input may take its time, and nobody waits for it any more.
    runtime.shutdown_background();
    tried
}

async fn play(arguments: &Arguments, title: &str, document: Document) -> Result<(), Failure> {
    let mparticle = Sandbox::bind(Settings {
        listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
        batches_per_second: Some(BATCHES_PER_SECOND),
        ..Settings::default()
    });
    let mparticle = mparticle
        .await
        .map_err(|error| Failure::Other(format!("The stand-in for mParticle: {error}")))?;
    let endpoint = format!("http://{}/v2", mparticle.addr());
    let arrived = mparticle.handle();
    let (trigger, stop) = shutdown::channel();
    let stand_in = tokio::spawn(mparticle.run(stop));
    let mut daemon = Daemon::start(&endpoint, BATCHES_PER_SECOND, None, Vec::new()).await?;
    println!(
        "{} goes through a looker-feed of its own to a stand-in for mParticle. Nothing leaves this machine.\n",
        harmless(document.name())
    );
    let tried = deliver(arguments, title, document, &daemon, &arrived).await;
    if arguments.keep && tried.is_ok() {
        println!("\nLeft running until Ctrl-C:");
        println!("  status page        {}", daemon.admin);
        println!("  action hub         {}", daemon.hub);
        println!("  mParticle stand-in {endpoint}");
        std::future::pending::<()>().await;
    }
    let stopped = daemon.stop().await;
    trigger.pull();
    let stand_in = stand_in.await;
    tried?;
    stopped?;
    match stand_in {
        Ok(Ok(())) => Ok(()),
        Ok(Err(error)) => Err(Failure::Other(format!("The stand-in failed: {error}"))),
        Err(error) => Err(Failure::Other(format!("The stand-in failed: {error}"))),
    }
}

async fn deliver(
    arguments: &Arguments,
    title: &str,
    document: Document,
    daemon: &Daemon,
    arrived: &Handle,
) -> Result<(), Failure> {
    let hub = Hub::new(daemon.hub.clone(), &daemon.token, KEEP_ALIVE, None)
        .map_err(|error| Failure::of(&error))?;
    let secret = Secret::new("trial-secret".to_owned());
    let request = Request {
        title,
        api_key: "trial-key",
        api_secret: &secret,
        form: arguments.form.params(),
    };
    let answer = hub.execute(&request, document).await;
    let answer = answer.map_err(|error| daemon.explain(Failure::of(&error)))?;
    println!("Looker would be told:  {}", harmless(&answer.message));
    let Some(id) = answer.delivery().filter(|_| answer.success) else {
        return Err(Failure::Other("Nothing was sent.".to_owned()));
    };
    let asked = DaemonArgument {
        admin: Some(daemon.admin.to_string()),
    };
    let delivery = follow::until_done(&asked, &id).await?;
    println!("Then:                  {}", follow::summary(&delivery));
    rejected(daemon, &delivery).await?;
    let batches = arrived.ledger();
    // The one that tells most.
    if let Some(largest) = batches.iter().max_by_key(|one| one.batch.len()) {
        let text = String::from_utf8_lossy(&largest.batch);
        let all = batches.len();
        println!("\nThe largest of {all} batches, as it arrived at mParticle:\n");
        println!("{}", escaped(&indented(&text)));
    }
    let rows = &delivery.rows;
    match rows.delivered + rows.rejected == delivery.rows_in {
        true => Ok(()),
        false => Err(Failure::Other(
            "Not every row arrived or was rejected.".to_owned(),
        )),
    }
}

async fn rejected(daemon: &Daemon, delivery: &Delivery) -> Result<(), Failure> {
    if delivery.rows.rejected == 0 {
        return Ok(());
    }
    let path = format!(
        "/api/v1/deliveries/{}/rejected?limit={REJECTED}",
        delivery.id
    );
    let rows: Listing<RejectedRow> = daemon.get(&path).await?;
    println!();
    for row in &rows.items {
        println!("Rejected, row {}: {}", row.row, harmless(&row.reason));
    }
    let more = delivery
        .rows
        .rejected
        .saturating_sub(rows.items.len() as u64);
    if more > 0 {
        println!("Rejected as well: {more} more");
    }
    Ok(())
}
