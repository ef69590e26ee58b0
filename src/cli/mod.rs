//! The command line. Each command is a file; this one parses, dispatches and turns failures into
//! exit codes.
//!
//! | code | meaning |
//! |---|---|
//! | 0 | done |
//! | 1 | it failed; the message says why |
//! | 2 | `outbox check` could not look (its 1 means damage) |
//! | 3 | there is nothing of what was asked for (commands that ask a running daemon) |
//! | 64 | the command line or the configuration is wrong; nothing was started |

mod admin;
mod check_config;
mod client;
mod daemon;
mod demo;
mod document;
mod form;
mod log;
mod looker;
mod manual;
mod outbox;
mod paint;
mod preview;
mod sandbox;
mod send;
mod serve;
mod summary;
mod terminal;
mod trial;
mod web;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};

use crate::causes::with_causes;
use crate::config::{self, Config, ConfigError};
use crate::intake;

/// The command line or the configuration is wrong (`EX_USAGE` of sysexits).
const EXIT_USAGE: u8 = 64;

/// Variables that commands read and that are no configuration of a daemon; the loader knows
/// `LOOKER_FEED_ADMIN_URL` itself.
const COMMAND_VARIABLES: [&str; 1] = ["LOOKER_FEED_API_SECRET"];

/// Carries large scheduled Looker deliveries to mParticle, and does not lose or double a row.
#[derive(Debug, Parser)]
#[command(name = "looker-feed", version, about, max_term_width = 100)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the daemon
    Serve(ConfigArgument),
    /// Send a sample, or a result of yours, through a daemon of its own to a stand-in for mParticle
    Try(trial::Arguments),
    /// Show it at work, with stand-ins for Looker and mParticle
    Demo(demo::Arguments),
    /// Show what would be sent of a result, and which column goes where, without sending it
    Preview(preview::Arguments),
    /// Send a result through the running daemon, as Looker would
    Send(send::Arguments),
    #[command(flatten)]
    Admin(admin::Command),
    /// Run the stand-in for mParticle
    Sandbox(sandbox::Arguments),
    /// Print a new key for Looker, made from the hub's secret
    Token(ConfigArgument),
    /// Check the configuration and start nothing
    CheckConfig(check_config::Arguments),
    /// Ask the Lookers of the configuration who we are there
    Looker(looker::Arguments),
    /// Check, salvage or move an outbox's files while no daemon uses it, or print the tables of a shared one
    Outbox(outbox::Arguments),
    /// Print a script with which a shell completes commands and options
    Completions(manual::Completions),
    /// Print the man page
    Manual,
}

/// Where the configuration is.
#[derive(Debug, clap::Args)]
pub struct ConfigArgument {
    /// Configuration file; without it, defaults and environment variables alone
    #[arg(long, short, value_name = "FILE")]
    config: Option<PathBuf>,
}

/// A command failed.
#[derive(Debug, thiserror::Error)]
enum Failure {
    /// Nothing was started.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The arguments do not go together, or what the configuration names is of no use; nothing was
    /// started.
    #[error("{0}")]
    Usage(String),
    /// The text says what and why.
    #[error("{0}")]
    Other(String),
}

impl Failure {
    /// A failure with all its causes in one line.
    fn of(error: &dyn std::error::Error) -> Self {
        Self::Other(with_causes(error))
    }
}

/// Parses the command line and runs the command.
pub fn main() -> ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => {
            // Help and version are "errors" that go to standard output.
            let _ = error.print();
            return if error.use_stderr() {
                ExitCode::from(EXIT_USAGE)
            } else {
                ExitCode::SUCCESS
            };
        }
    };
    let ended = match arguments.command {
        Command::Serve(argument) => done(serve::run(&argument)),
        Command::Try(arguments) => done(trial::run(&arguments)),
        Command::Demo(arguments) => done(demo::run(&arguments)),
        Command::Preview(arguments) => preview::run(&arguments),
        Command::Send(arguments) => send::run(&arguments),
        Command::Admin(command) => Ok(admin::run(&command)),
        Command::Sandbox(arguments) => done(sandbox::run(&arguments)),
        Command::Token(argument) => done(token(&argument)),
        Command::CheckConfig(arguments) => check_config::run(&arguments),
        Command::Looker(arguments) => looker::run(&arguments),
        Command::Completions(arguments) => {
            done(manual::completions(&arguments, Arguments::command()))
        }
        Command::Manual => done(manual::manual(Arguments::command())),
        Command::Outbox(arguments) => outbox::run(&arguments),
    };
    match ended {
        Ok(code) => code,
        Err(failure) => {
            // It can quote a document, and the terminal must not obey it.
            let text = with_causes(&failure);
            let lines: Vec<_> = text.lines().map(crate::harmless::harmless).collect();
            eprintln!("looker-feed: {}", lines.join("\n"));
            match failure {
                Failure::Config(_) | Failure::Usage(_) => ExitCode::from(EXIT_USAGE),
                Failure::Other(_) => ExitCode::FAILURE,
            }
        }
    }
}

fn done(result: Result<(), Failure>) -> Result<ExitCode, Failure> {
    result.map(|()| ExitCode::SUCCESS)
}

/// What was written to standard output; the reader of a pipe may have seen enough.
fn written(done: std::io::Result<()>) -> Result<(), Failure> {
    match done {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            let said = format!("Standard output cannot be written: {error}");
            Err(Failure::Other(said))
        }
        _ => Ok(()),
    }
}

fn load(argument: &ConfigArgument) -> Result<Config, ConfigError> {
    config::load(argument.config.as_deref(), environment())
}

/// The environment's variables that can be configuration; one that is not UTF-8 cannot be a key
/// of ours.
fn environment() -> impl Iterator<Item = (String, String)> {
    let all = std::env::vars_os().filter_map(|(name, value)| {
        let name = name.into_string().ok()?;
        Some((name, value.to_string_lossy().into_owned()))
    });
    all.filter(|(name, _)| !COMMAND_VARIABLES.contains(&name.as_str()))
}

fn token(argument: &ConfigArgument) -> Result<(), Failure> {
    let config = load(argument)?;
    let key = intake::new_key(config.require_secret()?).map_err(|error| Failure::of(&error))?;
    println!("{key}");
    Ok(())
}

/// The runtime of every command that does anything.
fn runtime() -> Result<tokio::runtime::Runtime, Failure> {
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .thread_name("looker-feed")
        // Each delivery has one for its work; calls to the outbox and of the admin side need some too.
        .max_blocking_threads(2048)
        .build()
        .map_err(|error| Failure::Other(format!("The runtime cannot be started: {error}")))
}

/// Completes on SIGINT or SIGTERM. From the call on neither ends the process by itself.
fn stop_signal() -> impl Future<Output = std::io::Result<&'static str>> {
    use tokio::signal::unix::{SignalKind, signal};
    let signals = signal(SignalKind::interrupt())
        .and_then(|interrupt| Ok((interrupt, signal(SignalKind::terminate())?)));
    async move {
        let (mut interrupt, mut terminate) = signals?;
        Ok(tokio::select! {
            _ = interrupt.recv() => "SIGINT",
            _ = terminate.recv() => "SIGTERM",
        })
    }
}
