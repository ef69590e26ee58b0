//! What the commands write: aligned tables on a terminal, tab-separated lines in a pipe, and
//! never a control character that came from outside.

use std::io::{self, IsTerminal, Write};
use std::time::Duration;

use crate::harmless::{harmless, is_harmful};

pub use crate::cli::summary::thousands as number;

/// Where a command writes.
pub struct Screen<'a> {
    out: &'a mut (dyn Write + Send),
    /// A person reads it: columns are aligned, long texts cut.
    pub terminal: bool,
}

/// Longest text in a column on a terminal.
const WIDEST: usize = 48;

impl<'a> Screen<'a> {
    /// Writes to `out`, for a person or for a program.
    pub fn new(out: &'a mut (dyn Write + Send), terminal: bool) -> Self {
        Self { out, terminal }
    }

    /// Whether standard output is a terminal.
    pub fn stdout_is_terminal() -> bool {
        io::stdout().is_terminal()
    }

    /// One line, made harmless.
    pub fn line(&mut self, text: &str) -> io::Result<()> {
        writeln!(self.out, "{}", harmless(text))
    }

    /// JSON text: what a terminal could obey is escaped, which changes no value.
    pub fn json(&mut self, text: &str) -> io::Result<()> {
        writeln!(self.out, "{}", escaped(text.trim_end()))
    }

    /// Bytes as they are, for a file or a pipe.
    pub fn raw(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.out.write_all(bytes)
    }

    /// Empties the terminal's screen.
    pub fn clear(&mut self) -> io::Result<()> {
        self.out.write_all(b"\x1b[H\x1b[2J")
    }

    /// What was written is seen now.
    pub fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }

    /// Rows under a head. A column whose name begins with `>` is aligned to the right.
    pub fn table(&mut self, head: &[&str], rows: &[Vec<String>]) -> io::Result<()> {
        let names = head
            .iter()
            .map(|name| name.trim_start_matches('>').to_owned());
        let mut lines = vec![names.collect::<Vec<_>>()];
        for row in rows {
            let cells = row.iter().map(|cell| self.cell(cell));
            lines.push(cells.collect());
        }
        if !self.terminal {
            for line in lines {
                writeln!(self.out, "{}", line.join("\t"))?;
            }
            return Ok(());
        }
        let width = |column: usize| {
            let cells = lines.iter().filter_map(|line| line.get(column));
            cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
        };
        let widths: Vec<_> = (0..head.len()).map(width).collect();
        for line in &lines {
            let mut text = String::new();
            for ((cell, name), width) in line.iter().zip(head).zip(&widths) {
                if !text.is_empty() {
                    text.push_str("  ");
                }
                let gap = " ".repeat(width.saturating_sub(cell.chars().count()));
                if name.starts_with('>') {
                    text.push_str(&gap);
                    text.push_str(cell);
                } else {
                    text.push_str(cell);
                    text.push_str(&gap);
                }
            }
            writeln!(self.out, "{}", text.trim_end())?;
        }
        Ok(())
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
