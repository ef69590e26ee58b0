//! What the commands write: aligned tables on a terminal, tab-separated lines in a pipe, and
//! never a control character that came from outside.

use std::io::{self, IsTerminal, Write};
use std::time::Duration;

use super::table::Table;
use crate::cli::paint::Paint;
use crate::clock::UnixMillis;
use crate::harmless::{harmless, is_harmful};

pub use crate::cli::summary::thousands as number;

/// Where a command writes.
pub struct Screen<'a> {
    out: &'a mut (dyn Write + Send),
    /// A person reads it: columns are aligned, long texts cut.
    pub terminal: bool,
    /// How wide its terminal is, in characters; `None`: as wide as a line needs.
    columns: Option<usize>,
    paint: Paint,
}

/// Longest text in a column on a terminal.
const WIDEST: usize = 48;

impl<'a> Screen<'a> {
    /// Writes to `out`, for a person or for a program.
    pub fn new(out: &'a mut (dyn Write + Send), terminal: bool) -> Self {
        Self {
            out,
            terminal,
            columns: None,
            paint: Paint::off(),
        }
    }

    /// Writes to `out`, which is standard output.
    pub fn on_stdout(out: &'a mut (dyn Write + Send)) -> Self {
        let terminal = io::stdout().is_terminal();
        let size = rustix::termios::tcgetwinsize(io::stdout()).ok();
        Self {
            columns: size
                .map(|size| usize::from(size.ws_col))
                .filter(|columns| *columns > 0),
            paint: Paint::for_stdout(),
            ..Self::new(out, terminal)
        }
    }

    /// Writes to `out`, for a terminal of so many columns.
    pub fn of_width(out: &'a mut (dyn Write + Send), columns: usize, paint: Paint) -> Self {
        Self {
            columns: Some(columns),
            paint,
            ..Self::new(out, true)
        }
    }

    /// Whether what is written has colours.
    pub fn paint(&self) -> Paint {
        self.paint
    }

    /// One line, made harmless.
    pub fn line(&mut self, text: &str) -> io::Result<()> {
        writeln!(self.out, "{}", harmless(text))
    }

    /// JSON text: what a terminal could obey is escaped, which changes no value.
    pub fn json(&mut self, text: &str) -> io::Result<()> {
        writeln!(self.out, "{}", escaped(text.trim_end()))
    }

    /// A line of CSV: as it is, or made harmless for a terminal.
    pub fn csv(&mut self, line: &str) -> io::Result<()> {
        match self.terminal {
            true => self.line(line.trim_end_matches(['\r', '\n'])),
            false => self.raw(line.as_bytes()),
        }
    }

    /// Bytes as they are, for a file or a pipe.
    pub fn raw(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.out.write_all(bytes)
    }

    /// What was written is seen now.
    pub fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }

    /// Rows under a head; `none` says that there are none, to a person. See [`Table`].
    pub fn table(&mut self, head: &[&str], rows: &[Vec<String>], none: &str) -> io::Result<()> {
        let cells = |row: &Vec<String>| row.iter().map(|cell| self.cell(cell)).collect();
        let rows: Vec<Vec<String>> = rows.iter().map(cells).collect();
        let text = match self.terminal {
            true if rows.is_empty() => format!("{none}\n"),
            true => Table::new(head, rows).for_people(self.columns, self.paint),
            false => Table::new(head, rows).for_programs(),
        };
        self.out.write_all(text.as_bytes())
    }

    fn cell(&self, text: &str) -> String {
        let text = harmless(text);
        if !self.terminal || text.chars().count() <= WIDEST {
            return text;
        }
        let mut cut: String = text.chars().take(WIDEST - 1).collect();
        cut.push('…');
        cut
    }
}

/// JSON text with `\u` escapes for each harmful character but the white space between tokens. Outside of
/// strings JSON has none of them, so the value stays the same.
pub fn escaped(json: &str) -> String {
    use std::fmt::Write as _;
    let mut out = String::with_capacity(json.len());
    for character in json.chars() {
        if !is_harmful(character) || matches!(character, '\n' | '\r' | '\t') {
            out.push(character);
            continue;
        }
        for unit in character.encode_utf16(&mut [0; 2]) {
            // Writing to a string cannot fail.
            let _ = write!(out, "\\u{unit:04x}");
        }
    }
    out
}

/// JSON text with line breaks and indents; nothing else is changed, so numbers keep their digits.
pub fn indented(json: &str) -> String {
    let mut out = String::with_capacity(json.len() * 2);
    let (mut depth, mut in_string, mut after_escape) = (0usize, false, false);
    let mut characters = json.chars().filter(|c| *c != '\r').peekable();
    let line = |out: &mut String, depth: usize| {
        out.push('\n');
        out.push_str(&"  ".repeat(depth));
    };
    while let Some(character) = characters.next() {
        if in_string {
            out.push(character);
            if after_escape {
                after_escape = false;
            } else if character == '\\' {
                after_escape = true;
            } else if character == '"' {
                in_string = false;
            }
            continue;
        }
        match character {
            ' ' | '\n' | '\t' => {}
            '{' | '[' => {
                out.push(character);
                while characters
                    .next_if(|c| matches!(c, ' ' | '\n' | '\t'))
                    .is_some()
                {}
                if let Some(end) = characters.next_if(|c| matches!(c, '}' | ']')) {
                    out.push(end);
                } else {
                    depth += 1;
                    line(&mut out, depth);
                }
            }
            '}' | ']' => {
                depth = depth.saturating_sub(1);
                line(&mut out, depth);
                out.push(character);
            }
            ',' => {
                out.push(character);
                line(&mut out, depth);
            }
            ':' => out.push_str(": "),
            other => {
                in_string = other == '"';
                out.push(other);
            }
        }
    }
    out
}

/// How long lies between, to two units.
pub fn between(earlier: UnixMillis, later: UnixMillis) -> String {
    span(Duration::from_millis(later.0.saturating_sub(earlier.0)))
}

/// The seconds that are left, if that is known.
pub fn left(seconds: Option<u64>) -> String {
    seconds.map_or_else(dash, |left| span(Duration::from_secs(left)))
}

/// Stands where there is nothing to say.
pub fn dash() -> String {
    "-".into()
}

/// A time that has passed or is to pass, to two units.
pub fn span(time: Duration) -> String {
    let seconds = time.as_secs();
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3_600 => format!("{} min {} s", seconds / 60, seconds % 60),
        3_600..172_800 => format!("{} h {} min", seconds / 3_600, seconds / 60 % 60),
        _ => format!("{} days", seconds / 86_400),
    }
}
