//! `looker-feed sandbox`: the stand-in for mParticle, for people without an account.

use std::net::SocketAddr;

use crate::cli::{Failure, runtime, stop_signal};
use crate::sandbox::{LedgerMode, Sandbox, Settings};
use crate::shutdown;

/// Arguments of `looker-feed sandbox`.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// Address to listen at
    #[arg(long, default_value = "127.0.0.1:8082", value_name = "ADDR")]
    listen: SocketAddr,
    /// Batches a second that an API key may send; 0 for no limit
    #[arg(long, default_value_t = 270, value_name = "N")]
    batches_per_second: u32,
    /// Count what arrives and keep nothing of it but its ids (for large trials)
    #[arg(long)]
    counts_only: bool,
}

/// Runs until SIGINT or SIGTERM.
pub fn run(arguments: &Arguments) -> Result<(), Failure> {
    let rate = arguments.batches_per_second;
    let settings = Settings {
        listen: arguments.listen,
        batches_per_second: (rate > 0).then_some(rate),
        ledger: match arguments.counts_only {
            true => LedgerMode::Counts,
            false => LedgerMode::Full,
        },
        ..Settings::default()
    };
    runtime()?.block_on(async {
        let at = arguments.listen;
        let failed = |error| Failure::Other(format!("Cannot listen at {at}: {error}"));
        let sandbox = Sandbox::bind(settings).await.map_err(failed)?;
        let address = sandbox.addr();
        println!("A stand-in for mParticle listens at http://{address}/v2");
        println!(
            "What has arrived: http://{address}/sandbox/counts and http://{address}/sandbox/ledger"
        );
        println!("Point the feed at it with: LOOKER_FEED_MPARTICLE__ENDPOINT=http://{address}/v2");
        let (trigger, stop) = shutdown::channel();
        let mut running = std::pin::pin!(sandbox.run(stop));
        let ran = tokio::select! {
            ended = &mut running => ended,
            told = stop_signal() => {
                told.map_err(|error| Failure::Other(format!("Signals cannot be received: {error}")))?;
                trigger.pull();
                running.await
            }
        };
        ran.map_err(|error| Failure::Other(format!("The sandbox failed: {error}")))
    })
}
