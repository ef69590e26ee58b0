//! A result document on the command line: a file, or standard input.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::cli::Failure;

/// Bytes that are read at once. A multiple of 3, so that whole parts make base64 without padding.
const PART: usize = 3 * 16 * 1024;

/// Looker's result as a file
#[derive(Clone, Debug, clap::Args)]
pub struct DocumentArgument {
    /// A result that Looker made as json_detail or json_detail_lite_stream; - is standard input
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
}

/// A document that is being read, with a bar on a terminal.
pub struct Document {
    name: String,
    from: Box<dyn Read + Send>,
    bar: ProgressBar,
    ended: bool,
}

impl DocumentArgument {
    /// Whether it is standard input.
    pub fn is_stdin(&self) -> bool {
        self.file == Path::new("-")
    }

    /// A document that is there already.
    pub fn held(name: String, bytes: Bytes) -> Document {
        Document::of(&name, Box::new(io::Cursor::new(bytes)))
    }

    /// Opens it. `verb` says what is being done with it: `read`.
    pub fn open(&self, verb: &'static str) -> Result<Document, Failure> {
        if self.is_stdin() {
            return Ok(Document {
                name: "standard input".to_owned(),
                from: Box::new(io::stdin()),
                bar: bar(verb, None),
                ended: false,
            });
        }
        let failed = |error: io::Error| {
            Failure::Other(format!("{} cannot be read: {error}", self.file.display()))
        };
        let file = File::open(&self.file).map_err(failed)?;
        let length = file.metadata().map_err(failed)?;
        if length.is_dir() {
            return Err(failed(io::ErrorKind::IsADirectory.into()));
        }
        // A pipe or a device has a length of 0 and still something in it.
        let length = length.is_file().then_some(length.len());
        Ok(Document {
            name: self.file.display().to_string(),
            from: Box::new(file),
            bar: bar(verb, length),
            ended: false,
        })
    }
}

impl Document {
    /// What `from` holds, without a bar.
    pub fn of(name: &str, from: Box<dyn Read + Send>) -> Self {
        Self {
            name: name.to_owned(),
            from,
            bar: ProgressBar::hidden(),
            ended: false,
        }
    }

    /// What a person calls it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The next bytes; `None` at the end. Every part but the last has the same length, a multiple
    /// of 3.
    pub fn next(&mut self) -> io::Result<Option<Bytes>> {
        if self.ended {
            return Ok(None);
        }
        let mut part = vec![0; PART];
        let mut filled = 0;
        while filled < PART {
            match self.from.read(part.get_mut(filled..).unwrap_or_default()) {
                Ok(0) => {
                    self.ended = true;
                    break;
                }
                Ok(length) => filled += length,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        part.truncate(filled);
        self.bar.inc(filled as u64);
        Ok((filled > 0).then(|| Bytes::from(part)))
    }
}

impl Drop for Document {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

/// Hidden where standard error is no terminal.
fn bar(verb: &'static str, length: Option<u64>) -> ProgressBar {
    let template = match length {
        Some(_) => {
            "{msg:9} {bar:36.cyan/dim} {percent:>3}%  {decimal_bytes:>10}  {decimal_bytes_per_sec:>12}  {elapsed:>4}"
        }
        None => "{msg:9} {spinner}  {decimal_bytes:>10}  {decimal_bytes_per_sec:>12}  {elapsed:>4}",
    };
    let style =
        ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
    ProgressBar::with_draw_target(length, ProgressDrawTarget::stderr())
        .with_style(style)
        .with_message(verb)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Gives a few bytes at a time, and is interrupted now and then.
    struct Trickle(Vec<u8>, bool);

    impl Read for Trickle {
        fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
            self.1 = !self.1;
            if self.1 {
                return Err(io::ErrorKind::Interrupted.into());
            }
            let length = into.len().min(self.0.len()).min(1000);
            into[..length].copy_from_slice(&self.0[..length]);
            self.0.drain(..length);
            Ok(length)
        }
    }

    #[test]
    fn parts_are_full_however_the_bytes_come() {
        for length in [0, 1, PART - 1, PART, PART + 1, 3 * PART] {
            let bytes: Vec<u8> = (0..length).map(|at| at as u8).collect();
            let mut document = Document::of("test", Box::new(Trickle(bytes.clone(), false)));
            let mut parts = Vec::new();
            while let Some(part) = document.next().unwrap() {
                parts.push(part);
            }
            assert_eq!(parts.concat(), bytes);
            let full = parts.split_last().map_or(&[][..], |(_, full)| full);
            assert!(full.iter().all(|part| part.len() == PART));
            assert_eq!(document.next().unwrap(), None);
        }
    }
}
