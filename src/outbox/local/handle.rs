//! What a handle of the embedded backend holds: what it shares with the owner, and the way to it.

use std::sync::mpsc::{SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use crate::outbox::error::Error;
use crate::outbox::local::files::read::Unreadable;
use crate::outbox::local::owner::command::{Command, Reply};
use crate::outbox::local::shared::Shared;

/// An open outbox of this process. Cloning gives another handle to the same one.
#[derive(Clone, Debug)]
pub(in crate::outbox) struct Local {
    pub shared: Arc<Shared>,
    line: Arc<Line>,
}

/// Ends the owner with the last handle.
#[derive(Debug)]
struct Line {
    commands: SyncSender<Command>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Local {
    pub fn new(shared: Arc<Shared>, commands: SyncSender<Command>, thread: JoinHandle<()>) -> Self {
        let thread = Mutex::new(Some(thread));
        Self {
            shared,
            line: Arc::new(Line { commands, thread }),
        }
    }

    /// Sends a command to the owner and waits for the answer.
    pub fn ask<T>(&self, command: impl FnOnce(Reply<T>) -> Command) -> Result<T, Error> {
        let (reply, answer) = sync_channel(1);
        self.send(command(reply))?;
        answer.recv().map_err(|_| Error::Closed)?
    }

    /// Sends a command that has no answer.
    pub fn send(&self, command: Command) -> Result<(), Error> {
        self.line.commands.send(command).map_err(|_| Error::Closed)
    }

    /// Takes note of what cannot be read, so that the health says it, and the owner tries it again.
    pub fn unreadable(&self, error: Unreadable) -> Error {
        let said = Error::from(error.clone());
        if self.shared.unreadables.note(error) {
            // A queue that is full wakes the owner as well.
            let _ = self.line.commands.try_send(Command::Wake);
        }
        said
    }

    /// Tells the owner that there is something to save. One that has so much to do that it cannot
    /// be told looks by itself.
    pub fn nudge(&self) {
        let _ = self.line.commands.try_send(Command::Wake);
    }

    /// Ends the owner's thread when it has done what it was asked before.
    pub fn close(&self) {
        self.line.close();
    }
}

impl Line {
    fn close(&self) {
        let mut thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(thread) = thread.take() {
            // An owner that has ended already needs no telling.
            let _ = self.commands.send(Command::Close);
            if thread.join().is_err() {
                tracing::error!("the outbox's thread has panicked");
            }
        }
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        self.close();
    }
}
