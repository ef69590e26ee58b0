//! The binary on a pseudo-terminal of a given width.

use std::io::Read;
use std::os::fd::OwnedFd;
use std::process::Stdio;

use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};

/// Runs the binary to its end on a terminal that is `columns` wide; exit code and what is seen, line by
/// line and without colours.
pub fn on_terminal(
    columns: u16,
    arguments: &[&str],
    settings: &[(&str, &str)],
) -> (Option<i32>, Vec<String>) {
    let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).expect("a pseudo-terminal");
    grantpt(&master).expect("it is ours");
    unlockpt(&master).expect("it can be opened");
    let size = Winsize {
        ws_row: 50,
        ws_col: columns,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    let name = ptsname(&master, Vec::new()).expect("its name");
    let open = || -> OwnedFd {
        let mut options = std::fs::OpenOptions::new();
        let path = name.to_str().expect("a path");
        options
            .read(true)
            .write(true)
            .open(path)
            .expect("its other end")
            .into()
    };
    let ends = [open(), open()];
    tcsetwinsize(&ends[0], size).expect("a size");
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
    let mut master = std::fs::File::from(master);
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
