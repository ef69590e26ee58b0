//! Logs: one line an event on standard error, for people or as JSON.

use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::format::FmtSpan;

use crate::config::{LogFormat, LogSettings};

/// Installs the subscriber. A second call in one process changes nothing.
pub fn init(settings: &LogSettings) {
    // sled and the HTTP stack tell their own story at INFO and below; it is not the operator's.
    let filter = EnvFilter::new(format!(
        "warn,looker_feed={}",
        settings.level.as_str().to_lowercase()
    ));
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_span_events(FmtSpan::NONE)
        .with_target(false)
        .with_writer(std::io::stderr);
    let installed = match settings.format {
        LogFormat::Text => builder
            .with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr()))
            .try_init(),
        LogFormat::Json => builder.json().flatten_event(true).try_init(),
    };
    if let Err(error) = installed {
        eprintln!("looker-feed: logs cannot be set up: {error}");
    }
}
