//! Commands that talk to a running daemon over its admin API.
//!
//! | code | meaning |
//! |---|---|
//! | 0 | done |
//! | 1 | it failed; the message says why |
//! | 3 | there is nothing: an empty list, an unknown id, a call that changed nothing |

mod deliveries;
mod edit;
mod frame;
mod list;
mod meant;
mod outcome;
mod people;
mod print;
pub(super) mod screen;
mod status;
mod table;
#[cfg(test)]
mod tests;
mod watch;
mod when;

use std::fs::File;
use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Subcommand};
use serde_json::json;

use super::client::{Client, ClientError, DaemonArgument};
use crate::causes::with_causes;
use crate::control::view::Done;
use crate::harmless::harmless;
use list::{ListArguments, show};
use meant::{destination_of, id_of, whole_id, whole_ids};
use outcome::{Failure, Found, tell};
use screen::{Screen, escaped};

/// Exit code when there is nothing of what was asked for.
const EXIT_NOTHING: u8 = 3;

/// Ids in one call; the API takes no more.
const AT_ONCE: usize = 1000;

/// Commands for a running daemon.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Show what a running daemon receives, keeps and sends
    Status(Status),
    /// List deliveries, also those that failed, newest first
    Deliveries(deliveries::Deliveries),
    /// List, show, edit, replay, discard or export batches that mParticle refused for good
    DeadLetters(DeadLetters),
    /// List the rows of a delivery that could not be mapped
    Rejected(Rejected),
    /// Say in which deliveries a person is, of all that is still here
    Find(people::Find),
    /// Erase a person from all that is still here, durably
    Erase(people::Erase),
    /// Do not send what is left of a delivery: it will never reach mParticle
    Cancel(Cancel),
    /// Have Looker asked at once to run a failed delivery again
    AskAgain(AskAgain),
    /// Send a delivery that is held for its unusual size
    Release(Cancel),
    /// Send nothing more to a destination until it is resumed
    Pause(Steer),
    /// Go on sending to a destination
    Resume(Steer),
    /// Try a destination that waits now
    Retry(Steer),
}

/// `status`
#[derive(Debug, Args)]
pub struct Status {
    #[command(flatten)]
    daemon: DaemonArgument,
    /// Look again every two seconds; on a terminal, a screen that `q` ends
    #[arg(long, short)]
    watch: bool,
    /// Print JSON, with --watch a line each time
    #[arg(long)]
    json: bool,
}

/// `rejected`
#[derive(Debug, Args)]
pub struct Rejected {
    #[command(flatten)]
    daemon: DaemonArgument,
    /// Id of the delivery, or the beginning of it
    delivery: String,
    #[command(flatten)]
    list: ListArguments,
}

/// `cancel`, `release`
#[derive(Debug, Args)]
pub struct Cancel {
    #[command(flatten)]
    daemon: DaemonArgument,
    /// Id of the delivery, or the beginning of it
    delivery: String,
    /// Print JSON: what was done
    #[arg(long)]
    json: bool,
}

/// `ask-again`
#[derive(Debug, Args)]
pub struct AskAgain {
    #[command(flatten)]
    daemon: DaemonArgument,
    /// Id of the failed delivery, or the beginning of it, as `deliveries --failed` lists it
    delivery: String,
    /// Do not ask for it; one that is not asked for is taken out of what needs a person
    #[arg(long)]
    stop: bool,
    /// Print JSON: what was done
    #[arg(long)]
    json: bool,
}

/// `pause`, `resume`, `retry`
#[derive(Debug, Args)]
pub struct Steer {
    #[command(flatten)]
    daemon: DaemonArgument,
    /// Id of the destination, the beginning of it, or a part of its label
    destination: String,
    /// Print JSON: what was done
    #[arg(long)]
    json: bool,
}

/// `dead-letters`
#[derive(Debug, Args)]
pub struct DeadLetters {
    #[command(flatten)]
    daemon: DaemonArgument,
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// List them
    List {
        /// Only those of this delivery: its id, or the beginning of it
        #[arg(long, value_name = "ID")]
        delivery: Option<String>,
        #[command(flatten)]
        list: ListArguments,
    },
    /// Show one, with its batch
    Show {
        /// Id of the dead letter
        id: String,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Edit the batch of one in $VISUAL or $EDITOR; it is not sent before it is replayed
    Edit(edit::Edit),
    /// Send them again, with the ids that they had
    Replay(Change),
    /// Give them up for good
    Discard {
        #[command(flatten)]
        change: Change,
        /// Needed with --delivery and --all: their rows will never reach mParticle
        #[arg(long)]
        yes: bool,
    },
    /// Write them all with their batches, one JSON object a line
    Export {
        /// Only those of this delivery: its id, or the beginning of it
        #[arg(long, value_name = "ID")]
        delivery: Option<String>,
        /// File to write; must not be there yet. Without it: standard output
        #[arg(long, short, value_name = "FILE")]
        output: Option<PathBuf>,
    },
}

#[derive(Clone, Debug, Args)]
struct Change {
    #[command(flatten)]
    choice: Choice,
    /// Print JSON: what was done, a line each thousand ids
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Debug, Args)]
#[group(required = true, multiple = false)]
struct Choice {
    /// Ids of dead letters
    ids: Vec<String>,
    /// Those of this delivery: its id, or the beginning of it
    #[arg(long, value_name = "ID")]
    delivery: Option<String>,
    /// Every one
    #[arg(long)]
    all: bool,
}

/// Runs a command to its exit code. Must not be called from within a runtime.
pub fn run(command: &Command) -> ExitCode {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("looker-feed: the runtime cannot be started: {error}");
            return ExitCode::FAILURE;
        }
    };
    let mut out = io::stdout();
    let mut screen = Screen::on_stdout(&mut out);
    let done = runtime.block_on(async {
        let client = Client::new(command.daemon())?;
        let found = execute(command, &client, &mut screen).await?;
        screen.flush()?;
        Ok::<_, Failure>(found)
    });
    let failure = match done {
        Ok(Found::Something) => return ExitCode::SUCCESS,
        Ok(Found::Nothing) => return ExitCode::from(EXIT_NOTHING),
        Err(failure) => failure,
    };
    // The reader of a pipe has seen enough.
    if let Failure::Output(_, error) = &failure
        && error.kind() == io::ErrorKind::BrokenPipe
    {
        return ExitCode::SUCCESS;
    }
    // The daemon's words can hold a title.
    eprintln!("looker-feed: {}", harmless(&with_causes(&failure)));
    match failure {
        Failure::Client(ClientError::NotFound(_)) => ExitCode::from(EXIT_NOTHING),
        _ => ExitCode::FAILURE,
    }
}

impl Command {
    fn daemon(&self) -> &DaemonArgument {
        match self {
            Self::Status(arguments) => &arguments.daemon,
            Self::Deliveries(arguments) => &arguments.daemon,
            Self::DeadLetters(arguments) => &arguments.daemon,
            Self::Rejected(arguments) => &arguments.daemon,
            Self::Find(arguments) => &arguments.daemon,
            Self::Erase(arguments) => &arguments.daemon,
            Self::Cancel(arguments) | Self::Release(arguments) => &arguments.daemon,
            Self::AskAgain(arguments) => &arguments.daemon,
            Self::Pause(arguments) | Self::Resume(arguments) | Self::Retry(arguments) => {
                &arguments.daemon
            }
        }
    }
}

async fn execute(
    command: &Command,
    client: &Client,
    screen: &mut Screen<'_>,
) -> Result<Found, Failure> {
    match command {
        Command::Status(arguments) if arguments.watch => {
            watch::watch(client, screen, arguments.json).await
        }
        Command::Status(arguments) => status(client, screen, arguments.json).await,
        Command::Deliveries(arguments) => deliveries::deliveries(client, screen, arguments).await,
        Command::DeadLetters(arguments) => dead_letters(&arguments.action, client, screen).await,
        Command::Rejected(arguments) => {
            let delivery = whole_id(client, &arguments.delivery).await?;
            let path = ["deliveries", &delivery, "rejected"];
            show(client, screen, &path, &[], arguments.list, print::rejected).await
        }
        Command::Find(arguments) => people::find(client, screen, arguments).await,
        Command::Erase(arguments) => people::erase(client, screen, arguments).await,
        Command::Cancel(arguments) => end(client, screen, arguments, "cancel").await,
        Command::AskAgain(arguments) => {
            let verb = match arguments.stop {
                true => "do-not-ask",
                false => "ask-again",
            };
            let list = "failed-deliveries";
            let delivery = id_of(client, list, &arguments.delivery).await?;
            act(client, screen, &[list, &delivery, verb], arguments.json).await
        }
        Command::Release(arguments) => end(client, screen, arguments, "release").await,
        Command::Pause(arguments) => steer(client, screen, arguments, "pause").await,
        Command::Resume(arguments) => steer(client, screen, arguments, "resume").await,
        Command::Retry(arguments) => steer(client, screen, arguments, "retry").await,
    }
}

async fn dead_letters(
    action: &Action,
    client: &Client,
    screen: &mut Screen<'_>,
) -> Result<Found, Failure> {
    match action {
        Action::List {
            delivery,
            list: arguments,
        } => {
            let delivery = whole_ids(client, delivery.as_deref()).await?;
            let query: Vec<_> = delivery.iter().map(|id| ("delivery", &**id)).collect();
            let path = ["dead-letters"];
            show(client, screen, &path, &query, *arguments, print::letters).await
        }
        Action::Show { id, json } => {
            let text = client.text(&["dead-letters", id], &[]).await?;
            if *json {
                screen.json(&text)?;
            } else {
                print::letter(screen, &client.read(&text)?)?;
            }
            Ok(Found::Something)
        }
        Action::Edit(arguments) => edit::edit(arguments, client, screen).await,
        Action::Replay(arguments) => change(client, screen, "replay", arguments).await,
        Action::Discard {
            change: arguments,
            yes,
        } => {
            if arguments.choice.ids.is_empty() && !yes {
                return Err(Failure::Usage(
                    "the rows of what is discarded will never reach mParticle: add --yes".into(),
                ));
            }
            change(client, screen, "discard", arguments).await
        }
        Action::Export { delivery, output } => {
            let delivery = whole_ids(client, delivery.as_deref()).await?;
            export(client, screen, delivery.as_deref(), output.as_ref()).await
        }
    }
}

async fn status(client: &Client, screen: &mut Screen<'_>, as_json: bool) -> Result<Found, Failure> {
    let text = client.text(&["overview"], &[]).await?;
    if as_json {
        screen.json(&text)?;
    } else {
        status::overview(screen, &client.read(&text)?)?;
    }
    Ok(Found::Something)
}

async fn change(
    client: &Client,
    screen: &mut Screen<'_>,
    verb: &str,
    arguments: &Change,
) -> Result<Found, Failure> {
    let choice = &arguments.choice;
    let delivery = whole_ids(client, choice.delivery.as_deref()).await?;
    let bodies: Vec<_> = match &delivery {
        Some(delivery) => vec![json!({ "delivery": delivery })],
        None if choice.all => vec![json!({ "all": true })],
        None => {
            let parts = choice.ids.chunks(AT_ONCE);
            parts.map(|ids| json!({ "ids": ids })).collect()
        }
    };
    let mut changed = 0;
    for body in bodies {
        let done: Done = client.post(&["dead-letters", verb], &body).await?;
        tell(screen, &done, arguments.json)?;
        changed += done.changed;
    }
    Ok(Found::of(changed))
}

async fn export(
    client: &Client,
    screen: &mut Screen<'_>,
    delivery: Option<&str>,
    output: Option<&PathBuf>,
) -> Result<Found, Failure> {
    let query: Vec<_> = delivery.iter().map(|id| ("delivery", *id)).collect();
    let path = ["dead-letters", "export"];
    let mut bytes = 0;
    if let Some(output) = output {
        let failed = |error| Failure::Output(output.display().to_string(), error);
        // It holds what Looker knows of people: for its owner only, and never over another file.
        let mut options = File::options();
        options.write(true).create_new(true);
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let mut file = options.open(output).map_err(failed)?;
        let take = |part: bytes::Bytes| {
            bytes += part.len() as u64;
            file.write_all(&part).map_err(failed)
        };
        client.download(&path, &query, take).await?;
        file.sync_all().map_err(failed)?;
    } else if screen.terminal {
        let mut lines = Vec::new();
        let take = |part: bytes::Bytes| {
            bytes += part.len() as u64;
            lines.extend_from_slice(&part);
            let Some(end) = memchr::memrchr(b'\n', &lines) else {
                return Ok(());
            };
            let whole: Vec<u8> = lines.drain(..=end).collect();
            screen.raw(escaped(&String::from_utf8_lossy(&whole)).as_bytes())?;
            Ok::<_, Failure>(())
        };
        client.download(&path, &query, take).await?;
    } else {
        let take = |part: bytes::Bytes| {
            bytes += part.len() as u64;
            Ok::<_, Failure>(screen.raw(&part)?)
        };
        client.download(&path, &query, take).await?;
    }
    Ok(Found::of(bytes))
}

async fn steer(
    client: &Client,
    screen: &mut Screen<'_>,
    arguments: &Steer,
    verb: &str,
) -> Result<Found, Failure> {
    let destination = destination_of(client, &arguments.destination).await?;
    let path = ["destinations", &destination, verb];
    act(client, screen, &path, arguments.json).await
}

/// Cancels or releases a delivery.
async fn end(
    client: &Client,
    screen: &mut Screen<'_>,
    arguments: &Cancel,
    verb: &str,
) -> Result<Found, Failure> {
    let delivery = whole_id(client, &arguments.delivery).await?;
    let path = ["deliveries", &delivery, verb];
    act(client, screen, &path, arguments.json).await
}

/// A changing call without more to say, and what it did.
async fn act(
    client: &Client,
    screen: &mut Screen<'_>,
    path: &[&str],
    as_json: bool,
) -> Result<Found, Failure> {
    let done: Done = client.post(path, &json!({})).await?;
    tell(screen, &done, as_json)?;
    Ok(Found::of(done.changed))
}
