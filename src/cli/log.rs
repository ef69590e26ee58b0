//! Logs: one line an event on standard error, for people or as JSON.

use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::format::FmtSpan;

use crate::config::{LogFormat, LogSettings};

/// Changes the level of a running program's logs.
pub type SetLevel = Box<dyn Fn(&LogSettings) + Send>;

/// Installs the subscriber. A second call in one process changes nothing.
pub fn init(settings: &LogSettings) -> SetLevel {
    let builder = tracing_subscriber::fmt()
        .with_span_events(FmtSpan::NONE)
        .with_target(false)
        .with_writer(std::io::stderr);
    let (set_level, installed): (SetLevel, _) = match settings.format {
        LogFormat::Text => {
            let builder = builder
                .with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr()))
                .with_env_filter(filter(settings))
                .with_filter_reloading();
            let handle = builder.reload_handle();
            let set_level = move |settings: &LogSettings| said(handle.reload(filter(settings)));
            (Box::new(set_level), builder.try_init())
        }
        LogFormat::Json => {
            let builder = builder
                .json()
                .flatten_event(true)
                .with_env_filter(filter(settings))
                .with_filter_reloading();
            let handle = builder.reload_handle();
            let set_level = move |settings: &LogSettings| said(handle.reload(filter(settings)));
            (Box::new(set_level), builder.try_init())
        }
    };
    if let Err(error) = installed {
        eprintln!("looker-feed: logs cannot be set up: {error}");
    }
    set_level
}

/// sled and the HTTP stack tell their own story at INFO and below; it is not the operator's.
fn filter(settings: &LogSettings) -> EnvFilter {
    let level = settings.level.as_str().to_lowercase();
    EnvFilter::new(format!("warn,looker_feed={level}"))
}

fn said(reloaded: Result<(), tracing_subscriber::reload::Error>) {
    if let Err(error) = reloaded {
        tracing::error!(%error, "the level of the log could not be changed");
    }
}
