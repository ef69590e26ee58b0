//! `dead-letters edit`: the batch of a dead letter in the operator's editor, and back.

use std::ffi::OsString;
use std::fs;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};

use clap::Args;
use serde_json::json;
use serde_json::value::RawValue;

use super::outcome::{Failure, Found, tell};
use super::screen::{Screen, indented};
use crate::cli::client::Client;
use crate::control::view::{DeadLetter, Done, Edited};

/// Largest text that is read: the daemon takes no more.
const LARGEST: u64 = 1 << 20;

/// `dead-letters edit`
#[derive(Debug, Args)]
pub struct Edit {
    /// Id of the dead letter
    id: String,
    /// Take the edited batch from this file instead of an editor; `-`: from standard input
    #[arg(long, short, value_name = "FILE")]
    file: Option<PathBuf>,
    /// Send it again at once
    #[arg(long)]
    replay: bool,
    /// Needed where mParticle may have taken the old batch: its events may be there twice then
    #[arg(long)]
    may_double: bool,
    /// Print JSON: what was done, with --replay a line each
    #[arg(long)]
    json: bool,
}

/// Reads the batch, has it edited, and hands it back. Nothing is sent unless that is asked for.
pub(super) async fn edit(
    arguments: &Edit,
    client: &Client,
    screen: &mut Screen<'_>,
) -> Result<Found, Failure> {
    let letter: DeadLetter = client.get(&["dead-letters", &arguments.id], &[]).await?;
    let Some(batch) = letter.batch else {
        return Err(Failure::Usage(
            "the batch of this dead letter is no JSON and cannot be edited: export it".into(),
        ));
    };
    let edited = match &arguments.file {
        Some(path) => hand_in(arguments, client, &read(path)?).await?,
        None => {
            let draft = Draft::new(&arguments.id, batch.0.get())?;
            let (draft, status) = on_own_thread(draft).await?;
            if !status.success() {
                return Err(Failure::Usage(format!(
                    "the editor ended with {status}; nothing was changed"
                )));
            }
            let handed = async { hand_in(arguments, client, &read(draft.path())?).await };
            match handed.await {
                Ok(edited) => edited,
                // An hour's work is not thrown away for a comma.
                Err(failure) => {
                    let kept = draft.keep()?;
                    eprintln!(
                        "looker-feed: what you wrote is kept in {0}: mend it there, and hand it in \
                         with `--file {0}`. It holds what Looker knows of people: remove it then.",
                        kept.display()
                    );
                    return Err(failure);
                }
            }
        }
    };
    if arguments.json {
        screen.json(&json!(edited).to_string())?;
    } else {
        screen.line(&edited.message)?;
    }
    if arguments.replay && edited.changed > 0 {
        let body = json!({ "ids": [edited.id] });
        let done: Done = client.post(&["dead-letters", "replay"], &body).await?;
        tell(screen, &done, arguments.json)?;
        return Ok(Found::of(done.changed));
    }
    Ok(Found::of(edited.changed))
}

async fn hand_in(arguments: &Edit, client: &Client, text: &str) -> Result<Edited, Failure> {
    let batch: &RawValue = serde_json::from_str(text)
        .map_err(|error| Failure::Usage(format!("the edited batch is not JSON: {error}")))?;
    let (batch, may_double) = (batch.get(), arguments.may_double);
    let body = format!("{{\"batch\":{batch},\"may_double\":{may_double}}}");
    let path = ["dead-letters", &arguments.id];
    Ok(client.put(&path, body).await?)
}

fn read(path: &Path) -> Result<String, Failure> {
    let mut text = String::new();
    let (name, read) = if path == Path::new("-") {
        let read = io::stdin().take(LARGEST + 1).read_to_string(&mut text);
        ("standard input".to_owned(), read)
    } else {
        let file = fs::File::open(path);
        let read = file.and_then(|file| file.take(LARGEST + 1).read_to_string(&mut text));
        (path.display().to_string(), read)
    };
    read.map_err(|error| Failure::Input(name.clone(), error))?;
    if text.len() as u64 > LARGEST {
        return Err(Failure::Usage(format!("{name} is larger than a batch")));
    }
    Ok(text)
}

/// The batch in a file of its own that only its owner can read; it goes with this.
struct Draft {
    file: tempfile::TempPath,
    editor: OsString,
}

impl Draft {
    fn new(id: &str, batch: &str) -> Result<Self, Failure> {
        let set = |name| std::env::var_os(name).filter(|value| !value.is_empty());
        let editor = set("VISUAL").or_else(|| set("EDITOR")).ok_or_else(|| {
            Failure::Usage(
                "no editor is set: set VISUAL or EDITOR, or hand the batch in with --file".into(),
            )
        })?;
        let failed = |error| Failure::Output("a file for the editor".into(), error);
        let mut file = tempfile::Builder::new()
            .prefix(&format!("dead-letter-{}-", harmless_name(id)))
            .suffix(".json")
            .tempfile()
            .map_err(failed)?;
        file.write_all(indented(batch).as_bytes())
            .and_then(|()| file.write_all(b"\n"))
            .map_err(failed)?;
        Ok(Self {
            file: file.into_temp_path(),
            editor,
        })
    }

    fn path(&self) -> &Path {
        &self.file
    }

    /// As git and others do it: the setting may have arguments, so the shell reads it.
    fn edit(&self) -> io::Result<ExitStatus> {
        let mut script = self.editor.clone();
        script.push(" \"$@\"");
        Command::new("sh")
            .arg("-c")
            .arg(script)
            .arg("editor")
            .arg(self.path())
            .status()
    }

    fn keep(self) -> Result<PathBuf, Failure> {
        self.file
            .keep()
            .map_err(|error| Failure::Output("the edited batch".into(), error.error))
    }
}

/// The editor holds a thread; the connection to the daemon is looked after meanwhile.
async fn on_own_thread(draft: Draft) -> Result<(Draft, ExitStatus), Failure> {
    let edited = tokio::task::spawn_blocking(move || {
        let status = draft.edit();
        (draft, status)
    });
    let lost = |_| Failure::Usage("the editor could not be waited for".into());
    let (draft, status) = edited.await.map_err(lost)?;
    let status = status.map_err(|error| Failure::Input("the editor".into(), error))?;
    Ok((draft, status))
}

/// Ids are numbers and a dash; whatever else was typed must not become a path.
fn harmless_name(id: &str) -> String {
    id.chars()
        .filter(|character| character.is_ascii_digit() || *character == '-')
        .take(40)
        .collect()
}
