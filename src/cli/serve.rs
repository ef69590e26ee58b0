//! `looker-feed serve`: the daemon, from start to exit code.

use crate::app::App;
use crate::cli::{ConfigArgument, Failure, load, log, runtime, stop_signal};
use crate::shutdown;

/// Runs until SIGINT or SIGTERM.
pub fn run(argument: &ConfigArgument) -> Result<(), Failure> {
    let config = load(argument)?;
    config.require_secret()?;
    log::init(&config.log);
    let deadline = config.shutdown.deadline;
    let runtime = runtime()?;
    let ran = runtime.block_on(async {
        let app = App::start(config)
            .await
            .map_err(|error| Failure::of(&error))?;
        // Scripts read these lines to learn the ports; the log goes to standard error.
        println!("Looker is served at {}", app.hub_url());
        println!("Status page at {}", app.admin_url());
        let (trigger, stop) = shutdown::channel();
        let signal = async {
            match stop_signal().await {
                Ok(signal) => tracing::info!(signal, "stopping"),
                Err(error) => tracing::error!(%error, "signals cannot be received; stopping"),
            }
            trigger.pull();
        };
        let mut running = std::pin::pin!(app.run(stop));
        tokio::select! {
            ended = &mut running => return ended.map_err(|error| Failure::of(&error)),
            () = signal => {}
        }
        running.await.map_err(|error| Failure::of(&error))
    });
    // A worker that still computes holds nothing that a restart would miss.
    runtime.shutdown_timeout(deadline.min(std::time::Duration::from_secs(2)));
    ran
}
