//! `looker-feed outbox move`: from a directory into a database, and back.

use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::keys::Keys;
use super::text::{counted, json_text, say};
use crate::cli::Failure;
use crate::cli::summary::thousands;
use crate::outbox::postgres::{Replication, Server, Settings};
use crate::outbox::{Holdings, MoveStep, MovedOutbox, give_up_move, move_back, move_outbox};

#[derive(Debug, clap::Args)]
pub(super) struct Move {
    /// The outbox's directory, or the database: postgres://user@host/database. No daemon may be running on
    /// it
    #[arg(long, value_name = "DIR or URL")]
    from: String,
    /// The database, or a directory that is not there yet
    #[arg(long, value_name = "URL or DIR")]
    to: String,
    /// A file that holds the password
    #[arg(long, value_name = "FILE")]
    password_file: Option<PathBuf>,
    #[command(flatten)]
    keys: Keys,
    /// Give up a move that was broken off: the directory is an outbox again as before
    #[arg(long)]
    give_up: bool,
    /// Answer in JSON
    #[arg(long)]
    json: bool,
}

/// Does it, and answers on standard output.
pub(super) fn run(arguments: &Move) -> Result<(), Failure> {
    let password = arguments.password_file.as_deref().map(password);
    let password = password.transpose()?;
    let server = |option: &str, address: &str| {
        Server::parse(address, password.as_deref()).map_err(|error| {
            Failure::Usage(format!("{option}: {}", crate::causes::with_causes(&error)))
        })
    };
    let (from, to) = (Path::new(&arguments.from), Path::new(&arguments.to));
    if is_address(&arguments.from) {
        if is_address(&arguments.to) || arguments.give_up {
            return Err(Failure::Usage(
                "From a database, --to is a directory, and there is nothing to give up: run the move again, or leave it.".to_owned(),
            ));
        }
        let keys = arguments.keys.require_given(to)?;
        let settings = Settings::new(server("--from", &arguments.from)?, "", keys);
        forget_changes(to).map_err(|error| Failure::of(&error))?;
        let mut told = Told::new();
        let moved = move_back(settings, to, &mut |step| told.tell(step));
        told.end();
        let moved = moved.map_err(|error| Failure::of(&error))?;
        return say(&match arguments.json {
            true => json_text(&moved_json(&moved)),
            false => back_text(to, &moved),
        });
    }
    let target = server("--to", &arguments.to)?;
    let keys = arguments.keys.require(from)?;
    let settings = Settings::new(target, "", keys);
    if arguments.give_up {
        give_up_move(from, settings).map_err(|error| Failure::of(&error))?;
        let from = from.display();
        return say(&match arguments.json {
            true => json_text(&json!({ "given_up": true })),
            false => format!(
                "The move is given up, and nothing of it is left in the database; {from} is an outbox as before.\n"
            ),
        });
    }
    let mut told = Told::new();
    let moved = move_outbox(from, settings, &mut |step| told.tell(step));
    told.end();
    let moved = moved.map_err(|error| Failure::of(&error))?;
    say(&match arguments.json {
        true => json_text(&moved_json(&moved)),
        false => moved_text(from, &moved),
    })
}

/// Removes what an outbox that was there before remembered of schedules that send only changes: much has been
/// sent since.
fn forget_changes(outbox: &Path) -> std::io::Result<()> {
    let is_free = match std::fs::read_dir(outbox) {
        Ok(mut entries) => entries.next().is_none(),
        Err(error) => error.kind() == std::io::ErrorKind::NotFound,
    };
    let mut path = outbox.as_os_str().to_owned();
    path.push(".changes");
    match is_free {
        true => match std::fs::remove_dir_all(path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        },
        // The move will say so.
        false => Ok(()),
    }
}

fn is_address(text: &str) -> bool {
    text.starts_with("postgres://") || text.starts_with("postgresql://")
}

fn password(path: &Path) -> Result<String, Failure> {
    let file = path.display();
    let failed = |error| Failure::Usage(format!("--password-file {file}: {error}"));
    let text = std::fs::read_to_string(path).map_err(failed)?;
    Ok(text.trim_end_matches(['\r', '\n']).to_owned())
}

/// One line that is written anew, for a person who waits.
struct Told {
    is_shown: bool,
}

impl Told {
    fn new() -> Self {
        Self {
            is_shown: std::io::stderr().is_terminal(),
        }
    }

    fn tell(&mut self, step: MoveStep) {
        let line = match step {
            MoveStep::Checking => "Reading everything, to see that it is sound".to_owned(),
            MoveStep::Copied(at, of) => format!("Copied {at} of {}", counted(of, "delivery")),
            MoveStep::Ending => "Making it visible".to_owned(),
            MoveStep::Visible => "Comparing".to_owned(),
        };
        if self.is_shown {
            eprint!("\r\x1b[K{line}");
            // Nobody is harmed if it is not shown.
            let _ = std::io::stderr().flush();
        }
    }

    fn end(&self) {
        if self.is_shown {
            eprint!("\r\x1b[K");
        }
    }
}

fn moved_text(from: &Path, moved: &MovedOutbox) -> String {
    let mut text = format!("Moved {} to {}.\n", from.display(), moved.to);
    if moved.earlier {
        text += "All of it was there already: an earlier run ended before it could say so.\n";
    } else {
        text += &table(moved, "in the directory", "in the database");
        if moved.in_use {
            text += "Daemons are working on the database: some of what waited may have been sent already.\n";
        }
    }
    if moved.letters_from > 0 && moved.before.letters > 0 {
        text += &format!(
            "Dead letters have new numbers, since the database had some: {} were added, so that 1-0 is {}-0 now.\n",
            thousands(moved.letters_from),
            moved.letters_from + 1
        );
    }
    let waits = match &moved.server.replication {
        Replication::Synchronous(standbys) => format!("its standbys ({standbys})"),
        Replication::None => "no standby, so what it holds is as safe as its disk".to_owned(),
    };
    let version = &moved.server.version;
    text += &format!("The server is PostgreSQL {version}; a commit waits for {waits}.\n");
    text + &format!(
        "Daemons with outbox.backend = \"postgres\", this outbox.url and the same seal.key_file go on with it. {} is marked as moved: no daemon starts on it any more, and it can be removed.\n",
        from.display()
    )
}

fn back_text(to: &Path, moved: &MovedOutbox) -> String {
    format!(
        "Moved the database's outbox to {}.\n{}Start the daemon with outbox.backend = \"embedded\", this outbox.path and the same seal.key_file. No daemon starts on the database any more; to use it anew, or to have its room back: DROP SCHEMA looker_feed CASCADE.\n",
        to.display(),
        table(moved, "in the database", "in the directory")
    )
}

fn table(moved: &MovedOutbox, from: &str, to: &str) -> String {
    let mut text = format!("{:24}{from:>18}{to:>18}\n", "");
    for (what, before, after) in lines(&moved.before, &moved.after) {
        let (before, after) = (thousands(before), thousands(after));
        text += &format!("{what:24}{before:>18}{after:>18}\n");
    }
    text
}

type Line = (&'static str, u64, u64);

fn lines(before: &Holdings, after: &Holdings) -> [Line; 10] {
    let of = |what, part: fn(&Holdings) -> u64| (what, part(before), part(after));
    [
        of("deliveries", |all| all.deliveries),
        of("rows from Looker", |all| all.rows_in),
        of("rows waiting", |all| all.waiting.rows),
        of("batches waiting", |all| all.waiting.batches),
        of("rows in dead letters", |all| all.dead.rows),
        of("dead letters", |all| all.dead.batches),
        of("rejected rows kept", |all| all.rejected),
        of("webhook ids", |all| all.webhooks),
        of("notes", |all| all.notes),
        of("failed deliveries", |all| all.failed),
    ]
}

fn moved_json(moved: &MovedOutbox) -> Value {
    let holdings = |all: &Holdings| {
        json!({
            "deliveries": all.deliveries,
            "rows": all.rows_in,
            "rows_waiting": all.waiting.rows,
            "batches_waiting": all.waiting.batches,
            "rows_dead": all.dead.rows,
            "dead_letters": all.dead.batches,
            "rejected_rows": all.rejected,
            "webhook_ids": all.webhooks,
            "notes": all.notes,
            "failed_deliveries": all.failed,
        })
    };
    json!({
        "to": moved.to,
        "finished_earlier": moved.earlier,
        "in_use": moved.in_use,
        "before": holdings(&moved.before),
        "after": holdings(&moved.after),
        "letter_numbers_added": moved.letters_from,
    })
}
