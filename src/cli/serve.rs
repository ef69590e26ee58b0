//! `looker-feed serve`: the daemon, from start to exit code.

use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::app::{App, Reloader, StartError};
use crate::causes::with_causes;
use crate::cli::{ConfigArgument, Failure, load, log, runtime, stop_signal};
use crate::net::descriptors;
use crate::shutdown;

/// Runs until SIGINT or SIGTERM; reads the configuration again on SIGHUP.
pub fn run(argument: &ConfigArgument) -> Result<(), Failure> {
    let config = load(argument)?;
    config.require_secret()?;
    let set_level = log::init(&config.log);
    descriptors::raise();
    let deadline = config.shutdown.deadline;
    let runtime = runtime()?;
    let ran = runtime.block_on(async {
        // Before anything is printed: from then on no signal may end the daemon unheard.
        let hangups = signal(SignalKind::hangup());
        let told = stop_signal();
        let app = App::start(config).await.map_err(|error| match error {
            StartError::Tls(error) => Failure::Usage(with_causes(&error)),
            error => Failure::of(&error),
        })?;
        // Scripts read these lines to learn the ports; the log goes to standard error.
        println!("Looker is served at {}", app.hub_url());
        println!("Status page at {}", app.admin_url());
        let reloads = reload(argument, hangups, app.reloader(), set_level);
        let (trigger, stop) = shutdown::channel();
        let stopped = async {
            match told.await {
                Ok(signal) => tracing::info!(signal, "stopping"),
                Err(error) => tracing::error!(%error, "signals cannot be received; stopping"),
            }
            trigger.pull();
        };
        let mut running = std::pin::pin!(app.run(stop));
        tokio::select! {
            ended = &mut running => return ended.map_err(|error| Failure::of(&error)),
            () = stopped => {}
            () = reloads => {}
        }
        running.await.map_err(|error| Failure::of(&error))
    });
    // A worker that still computes holds nothing that a restart would miss.
    runtime.shutdown_timeout(deadline.min(std::time::Duration::from_secs(2)));
    ran
}

/// Reads the configuration again whenever it is told to; never ends. A configuration that is wrong
/// changes nothing.
async fn reload(
    argument: &ConfigArgument,
    hangups: io::Result<Signal>,
    mut reloader: Reloader,
    set_level: log::SetLevel,
) {
    let mut hangups = match hangups {
        Ok(hangups) => hangups,
        Err(error) => {
            tracing::error!(%error, "SIGHUP cannot be received; the configuration is not read again");
            return std::future::pending().await;
        }
    };
    while hangups.recv().await.is_some() {
        tracing::info!("SIGHUP: reading the configuration again");
        let taken = load(argument).and_then(|config| {
            let log = config.log;
            reloader.reload(config).map(|()| log)
        });
        match taken {
            Ok(log) => set_level(&log),
            Err(error) => {
                reloader.refused(&error);
                let error = with_causes(&error);
                tracing::error!(
                    error,
                    "the new configuration is refused, and the old one stays"
                );
            }
        }
    }
    std::future::pending().await
}
