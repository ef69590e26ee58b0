//! The binary on a pseudo-terminal of a given width.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::process::{Child, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{LocalModes, Termios, Winsize, tcgetattr, tcsetwinsize};

/// The steering end of a new pseudo-terminal, and what opens the other.
fn pair() -> (File, impl Fn() -> OwnedFd) {
    let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).expect("a pseudo-terminal");
    grantpt(&master).expect("it is ours");
    unlockpt(&master).expect("it can be opened");
    let name = ptsname(&master, Vec::new()).expect("its name");
    let open = move || -> OwnedFd {
        let mut options = File::options();
        let path = name.to_str().expect("a path");
        options
            .read(true)
            .write(true)
            .open(path)
            .expect("its other end")
            .into()
    };
    (File::from(master), open)
}

fn size(columns: u16, lines: u16) -> Winsize {
    Winsize {
        ws_row: lines,
        ws_col: columns,
        ws_xpixel: 0,
        ws_ypixel: 0,
    }
}

/// Runs the binary to its end on a terminal that is `columns` wide; exit code and what is seen, line by
/// line and without colours.
pub fn on_terminal(
    columns: u16,
    arguments: &[&str],
    settings: &[(&str, &str)],
) -> (Option<i32>, Vec<String>) {
    let (master, open) = pair();
    let ends = [open(), open()];
    tcsetwinsize(&ends[0], size(columns, 50)).expect("a size");
    let [out, err] = ends;
    let mut child = super::command()
        .args(arguments)
        .envs(
            settings
                .iter()
                .map(|(name, value)| (format!("LOOKER_FEED_{name}"), value)),
        )
        .env("TERM", "xterm-256color")
        .stdin(Stdio::null())
        .stdout(Stdio::from(out))
        .stderr(Stdio::from(err))
        .spawn()
        .expect("the binary starts");
    let mut seen = Vec::new();
    let mut part = [0; 4096];
    let mut master = master;
    // The last end's closing is an error here, and the end.
    while let Ok(length @ 1..) = master.read(&mut part) {
        seen.extend_from_slice(&part[..length]);
    }
    let status = child.wait().expect("it ends");
    let text = plain(&String::from_utf8_lossy(&seen));
    let lines = text.lines().map(|line| line.trim_end().to_owned());
    (status.code(), lines.collect())
}

/// Without what steers a terminal.
fn plain(text: &str) -> String {
    let mut out = String::new();
    let mut letters = text.chars();
    while let Some(letter) = letters.next() {
        match letter {
            '\u{1b}' => {
                // `[`, parameters, and a letter that ends them.
                letters.find(|letter| letter.is_ascii_alphabetic());
            }
            '\r' => {}
            letter => out.push(letter),
        }
    }
    out
}

/// A command on a terminal of its own that a person sits at.
pub struct Session {
    child: Child,
    master: File,
    /// Stays open, so that the terminal can be looked at when the command has ended.
    terminal: OwnedFd,
    before: Termios,
    seen: Arc<Mutex<Vec<u8>>>,
}

/// The alternate screen without cursor and wrapping, and the reverse.
const ENTER: &str = "\u{1b}[?1049h\u{1b}[2J\u{1b}[?25l\u{1b}[?7l";
const LEAVE: &str = "\u{1b}[?7h\u{1b}[?25h\u{1b}[?1049l";
/// What each drawing begins with.
const DRAW: &str = "\u{1b}[H";

impl Session {
    /// Runs the binary on a terminal of this size, with keys.
    pub fn start(columns: u16, lines: u16, arguments: &[&str]) -> Self {
        let (master, open) = pair();
        let terminal = open();
        tcsetwinsize(&terminal, size(columns, lines)).expect("a size");
        let before = tcgetattr(&terminal).expect("its modes");
        let child = super::command()
            .args(arguments)
            .env("TERM", "xterm-256color")
            .env("NO_COLOR", "1")
            .stdin(Stdio::from(open()))
            .stdout(Stdio::from(open()))
            .stderr(Stdio::from(open()))
            .spawn()
            .expect("the binary starts");
        let seen = Arc::new(Mutex::new(Vec::new()));
        let (mut from, into) = (master.try_clone().expect("a copy"), Arc::clone(&seen));
        // Ends with the terminal: when this session and the command have let go of it.
        std::thread::spawn(move || {
            let mut part = [0; 4096];
            while let Ok(length @ 1..) = from.read(&mut part) {
                into.lock().unwrap().extend_from_slice(&part[..length]);
            }
        });
        Self {
            child,
            master,
            terminal,
            before,
            seen,
        }
    }

    /// All that was written so far.
    pub fn seen(&self) -> String {
        String::from_utf8_lossy(&self.seen.lock().unwrap()).into_owned()
    }

    async fn until(&self, what: &str, holds: impl Fn(&Self) -> bool) {
        let wait = async {
            while !holds(self) {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        let waited = tokio::time::timeout(super::PATIENCE, wait).await;
        assert!(waited.is_ok(), "{what}\n{:?}", self.seen());
    }

    /// Waits until the screen that is shown has `words`.
    pub async fn sees(&self, words: &str) {
        let shown = |session: &Self| session.screen().join("\n").contains(words);
        self.until(words, shown).await;
    }

    /// How often it has drawn.
    pub fn draws(&self) -> usize {
        self.seen().matches(DRAW).count()
    }

    /// Waits until it has drawn more often, and to the end.
    pub async fn draws_again(&self, before: usize) {
        let again =
            |session: &Self| session.draws() > before && session.seen().ends_with("\u{1b}[J");
        self.until("it draws again", again).await;
    }

    /// The lines of the last drawing.
    pub fn screen(&self) -> Vec<String> {
        let seen = self.seen();
        let drawn = seen.rsplit(DRAW).next().unwrap_or_default();
        let drawn = drawn.split("\u{1b}[J").next().unwrap_or_default();
        let lines = drawn.replace("\u{1b}[K", "");
        let lines = lines.replace('\r', "");
        lines
            .split('\n')
            .map(|line| line.trim_end().to_owned())
            .collect()
    }

    /// What it wrote between entering and leaving the screen, without the sequences that draw.
    pub fn without_own_sequences(&self) -> String {
        let seen = self.seen();
        let inside = seen.split(ENTER).nth(1).unwrap_or_default();
        let inside = inside.split(LEAVE).next().unwrap_or_default();
        [DRAW, "\u{1b}[K", "\u{1b}[J", "\r"]
            .iter()
            .fold(inside.to_owned(), |text, own| text.replace(own, "\n"))
    }

    pub fn types(&mut self, keys: &str) {
        self.master.write_all(keys.as_bytes()).expect("a key");
    }

    pub fn resize(&self, columns: u16, lines: u16) {
        tcsetwinsize(&self.terminal, size(columns, lines)).expect("a size");
        // The system tells the terminal's own session, which this is not.
        self.signal(rustix::process::Signal::WINCH);
    }

    /// As Ctrl-C does.
    pub fn interrupt(&self) {
        self.signal(rustix::process::Signal::INT);
    }

    fn signal(&self, signal: rustix::process::Signal) {
        let pid = rustix::process::Pid::from_raw(self.child.id() as i32).expect("a pid");
        rustix::process::kill_process(pid, signal).expect("a signal");
    }

    /// Whether keys are shown as they are pressed.
    pub fn echoes(&self) -> bool {
        let modes = tcgetattr(&self.terminal).expect("its modes");
        modes.local_modes.contains(LocalModes::ECHO)
    }

    /// Waits for its end; its exit code.
    pub async fn ends(&mut self) -> Option<i32> {
        let wait = async {
            loop {
                if let Some(status) = self.child.try_wait().expect("it can be waited for") {
                    return status.code();
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        let ended = tokio::time::timeout(super::PATIENCE, wait).await;
        ended.expect("it ends")
    }

    /// Waits until the terminal has its modes again, and its screen.
    pub async fn is_as_before(&self) {
        let as_before = |session: &Self| {
            let after = tcgetattr(&session.terminal).expect("its modes");
            let seen = session.seen();
            after.local_modes == session.before.local_modes
                && after.input_modes == session.before.input_modes
                && seen.matches(ENTER).count() == 1
                && seen.matches(LEAVE).count() == 1
                && seen.ends_with(LEAVE)
        };
        self.until("the terminal is as it was", as_before).await;
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
