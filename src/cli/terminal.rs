//! The whole terminal, for a command that draws on it: the alternate screen without a cursor, and keys as they
//! are pressed. It is as it was before once this has been dropped, also by a panic.

use std::fs::File;
use std::io::{self, IsTerminal, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::termios::{
    LocalModes, OptionalActions, SpecialCodeIndex, Termios, tcgetattr, tcgetwinsize, tcsetattr,
};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

/// To the alternate screen, empty; without a cursor; what is too wide is cut off and not wrapped.
const ENTER: &[u8] = b"\x1b[?1049h\x1b[2J\x1b[?25l\x1b[?7l";
/// The reverse.
const LEAVE: &[u8] = b"\x1b[?7h\x1b[?25h\x1b[?1049l";
/// Tenths of a second that a read waits for a key before it looks whether anybody still asks.
const KEY_WAIT: u8 = 1;
/// Keys that were pressed and not looked at yet; nobody types further ahead.
const KEYS_AHEAD: usize = 16;

/// A terminal that is drawn on.
#[derive(Debug)]
pub struct Terminal {
    out: File,
    before: Arc<Before>,
}

/// How the terminal was, once.
#[derive(Debug)]
struct Before {
    out: File,
    /// Where keys come from and its modes, if that is a terminal.
    input: Option<(OwnedFd, Termios)>,
    restored: AtomicBool,
}

/// Columns and lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size {
    /// Characters in a line.
    pub columns: usize,
    /// Lines.
    pub lines: usize,
}

impl Terminal {
    /// Takes the terminal of standard output, and standard input's keys if that is one too.
    pub fn take() -> io::Result<Self> {
        let input = io::stdin();
        let input = input
            .is_terminal()
            .then(|| input.as_fd().try_clone_to_owned());
        Self::of(
            io::stdout().as_fd().try_clone_to_owned()?,
            input.transpose()?,
        )
    }

    fn of(out: OwnedFd, input: Option<OwnedFd>) -> io::Result<Self> {
        let mut out = File::from(out);
        let input = match input {
            Some(input) => {
                let modes = tcgetattr(&input)?;
                Some((input, modes))
            }
            None => None,
        };
        let before = Arc::new(Before {
            out: out.try_clone()?,
            input,
            restored: AtomicBool::new(false),
        });
        let terminal = Self {
            out: out.try_clone()?,
            before: Arc::clone(&before),
        };
        if let Some((input, modes)) = &before.input {
            let mut modes = modes.clone();
            // Each key at once and unseen. Ctrl-C stays a signal; Ctrl-Z would leave this screen behind.
            modes
                .local_modes
                .remove(LocalModes::ICANON | LocalModes::ECHO);
            modes.special_codes[SpecialCodeIndex::VMIN] = 0;
            modes.special_codes[SpecialCodeIndex::VTIME] = KEY_WAIT;
            modes.special_codes[SpecialCodeIndex::VSUSP] = 0;
            tcsetattr(input, OptionalActions::Now, &modes)?;
        }
        // A panic's message must not go with the screen that it is written on.
        let inner = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            before.restore();
            inner(panic);
        }));
        out.write_all(ENTER)?;
        Ok(terminal)
    }

    /// How large it is now.
    pub fn size(&self) -> Size {
        let size = tcgetwinsize(&self.out).ok();
        let or = |given: Option<u16>, usual: usize| match given {
            Some(given @ 1..) => usize::from(given),
            _ => usual,
        };
        Size {
            columns: or(size.map(|size| size.ws_col), 80),
            lines: or(size.map(|size| size.ws_row), 24),
        }
    }

    /// Shows these lines and no others, in one write. They must hold nothing that a terminal obeys but colours.
    pub fn draw(&mut self, lines: &[String]) -> io::Result<()> {
        let mut text = String::from("\x1b[H");
        for (at, line) in lines.iter().enumerate() {
            if at > 0 {
                text.push_str("\r\n");
            }
            text.push_str(line);
            text.push_str("\x1b[K");
        }
        text.push_str("\x1b[J");
        self.out.write_all(text.as_bytes())
    }

    /// The keys that are pressed from now on; none where standard input is no terminal.
    pub fn keys(&self) -> Keys {
        let (pressed, keys) = mpsc::channel(KEYS_AHEAD);
        let before = Arc::clone(&self.before);
        let reading = tokio::task::spawn_blocking(move || {
            let Some((input, _)) = &before.input else {
                return;
            };
            let mut bytes = [0; 16];
            while !pressed.is_closed() {
                match rustix::io::read(input, &mut bytes) {
                    Ok(length) => {
                        for byte in bytes.iter().take(length) {
                            // Whoever does not look at keys does not want them.
                            let _ = pressed.try_send(*byte);
                        }
                    }
                    Err(rustix::io::Errno::INTR) => {}
                    Err(_) => return,
                }
            }
        });
        Keys { keys, reading }
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        self.before.restore();
    }
}

impl Before {
    fn restore(&self) {
        if self.restored.swap(true, Ordering::SeqCst) {
            return;
        }
        // Where the terminal is gone there is nothing to restore.
        let _ = (&self.out).write_all(LEAVE);
        if let Some((input, modes)) = &self.input {
            let _ = tcsetattr(input, OptionalActions::Flush, modes);
        }
    }
}

/// Keys, byte by byte.
#[derive(Debug)]
pub struct Keys {
    keys: mpsc::Receiver<u8>,
    reading: JoinHandle<()>,
}

impl Keys {
    /// The next key; never, when there are none to come.
    pub async fn next(&mut self) -> u8 {
        match self.keys.recv().await {
            Some(key) => key,
            None => std::future::pending().await,
        }
    }

    /// Ends the reading, within a tenth of a second.
    pub async fn end(mut self) {
        self.keys.close();
        // If it panicked, there are no keys, which is what is asked for.
        let _ = self.reading.await;
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};

    use super::*;

    fn pair() -> (File, OwnedFd) {
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
        grantpt(&master).unwrap();
        unlockpt(&master).unwrap();
        let name = ptsname(&master, Vec::new()).unwrap();
        let mut options = File::options();
        let slave = options.read(true).write(true).open(name.to_str().unwrap());
        (File::from(master), slave.unwrap().into())
    }

    #[test]
    fn a_panic_leaves_the_terminal_as_it_was() {
        let (mut master, slave) = pair();
        let before = tcgetattr(&slave).unwrap();
        let (out, input) = (slave.try_clone().unwrap(), slave.try_clone().unwrap());
        let panicked = std::thread::spawn(move || {
            let mut terminal = Terminal::of(out, Some(input)).unwrap();
            let during = tcgetattr(terminal.out.as_fd()).unwrap();
            assert!(!during.local_modes.contains(LocalModes::ECHO));
            terminal.draw(&["one line".to_owned()]).unwrap();
            panic!("as is wanted here");
        });
        assert!(panicked.join().is_err());
        let after = tcgetattr(&slave).unwrap();
        assert_eq!(after.local_modes, before.local_modes);
        assert_eq!(
            after.special_codes[SpecialCodeIndex::VSUSP],
            before.special_codes[SpecialCodeIndex::VSUSP]
        );
        // The hook of panics keeps the terminal open, so a mark says where all of it has been read.
        const MARK: &[u8] = b"END";
        File::from(slave).write_all(MARK).unwrap();
        let mut seen = Vec::new();
        let mut part = [0; 256];
        while !seen.ends_with(MARK) {
            let length = master.read(&mut part).unwrap();
            seen.extend_from_slice(&part[..length]);
        }
        seen.truncate(seen.len() - MARK.len());
        assert!(seen.starts_with(ENTER), "{seen:?}");
        assert!(seen.ends_with(LEAVE), "{seen:?}");
        let leaves = seen.windows(LEAVE.len()).filter(|part| *part == LEAVE);
        assert_eq!(leaves.count(), 1);
    }
}
