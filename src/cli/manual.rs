//! `looker-feed manual` and `looker-feed completions`, both made from the command line's own
//! definition.

use std::io::{self, Write};

use clap::Command;
use clap_complete::Shell;
use clap_mangen::Man;

use crate::cli::{Failure, written};

/// Arguments of `looker-feed completions`.
#[derive(Debug, clap::Args)]
pub struct Completions {
    /// The shell that is to complete
    shell: Shell,
}

/// What a man page has beside what the commands say of themselves.
const SECTIONS: &str = r#".SH "EXIT STATUS"
.TP
0
Done.
.TP
1
It failed; the message says why.
.TP
3
There is nothing of what was asked for: an empty list, an unknown id, a call that changed nothing.
.TP
64
The command line or the configuration is wrong; nothing was started.
.SH ENVIRONMENT
.TP
LOOKER_FEED_<SECTION>__<KEY>
Any key of the configuration, for example LOOKER_FEED_INTAKE__LISTEN.
.TP
LOOKER_FEED_ADMIN_URL
Where commands look for a running daemon.
.TP
LOOKER_FEED_ADMIN__TOKEN
The token that a running daemon asks for.
.TP
LOOKER_FEED_API_SECRET
The mParticle account's secret, for \fBsend\fR.
.TP
NO_COLOR
No colours.
.SH EXAMPLES
.TP
Which column goes where, and what would be sent:
.B looker-feed preview result.json --data-type event
.TP
Send it, and wait until mParticle has it:
.B looker-feed send result.json --api-key KEY --wait
.TP
Batches that mParticle refused, again:
.B looker-feed dead-letters replay --all
"#;

/// Prints a script for `shell` to standard output.
pub fn completions(arguments: &Completions, mut command: Command) -> Result<(), Failure> {
    let mut script = Vec::new();
    clap_complete::generate(arguments.shell, &mut command, "looker-feed", &mut script);
    print(&script)
}

/// Prints one man page with every command to standard output.
pub fn manual(command: Command) -> Result<(), Failure> {
    let page = page(command)
        .map_err(|error| Failure::Other(format!("The manual cannot be made: {error}")))?;
    print(&page)
}

fn page(mut command: Command) -> io::Result<Vec<u8>> {
    // Options that all commands have are known only now.
    command.build();
    let mut page = Vec::new();
    let man = Man::new(command.clone());
    man.render_title(&mut page)?;
    man.render_name_section(&mut page)?;
    man.render_synopsis_section(&mut page)?;
    man.render_description_section(&mut page)?;
    page.extend_from_slice(b".SH COMMANDS\n");
    commands(&command, "looker-feed", &mut page)?;
    page.extend_from_slice(SECTIONS.as_bytes());
    man.render_version_section(&mut page)?;
    Ok(page)
}

/// Each command with its arguments, and those below it.
fn commands(parent: &Command, path: &str, page: &mut Vec<u8>) -> io::Result<()> {
    let shown = |command: &&Command| command.get_name() != "help" && !command.is_hide_set();
    for command in parent.get_subcommands().filter(shown) {
        let path = format!("{path} {}", command.get_name());
        writeln!(page, ".SS \"{}\"", roff(&path))?;
        let about = command.get_long_about().or(command.get_about());
        if let Some(about) = about {
            writeln!(page, "{}.", roff(about.to_string().trim_end_matches('.')))?;
        }
        for argument in command.get_arguments() {
            let id = argument.get_id().as_str();
            if id == "help" || id == "version" || argument.is_hide_set() {
                continue;
            }
            writeln!(page, ".TP\n\\fB{}\\fR", roff(&form(argument)))?;
            let help = argument.get_long_help().or(argument.get_help());
            let help = help.map(ToString::to_string).unwrap_or_default();
            writeln!(page, "{}", roff(&help))?;
            if !argument.get_action().takes_values() {
                continue;
            }
            let words = argument.get_possible_values();
            let words: Vec<_> = words.iter().map(|word| word.get_name()).collect();
            if !words.is_empty() {
                writeln!(page, ".br\nOne of: {}.", roff(&words.join(", ")))?;
            }
            if let Some(default) = argument.get_default_values().first() {
                writeln!(page, ".br\nDefault: {}.", roff(&default.to_string_lossy()))?;
            }
        }
        commands(command, &path, page)?;
    }
    Ok(())
}

/// An argument as it is written: `-c, --config <FILE>`.
fn form(argument: &clap::Arg) -> String {
    let mut names = Vec::new();
    names.extend(argument.get_short().map(|short| format!("-{short}")));
    names.extend(argument.get_long().map(|long| format!("--{long}")));
    let value = argument.get_value_names().and_then(|names| names.first());
    let value = value.filter(|_| argument.get_action().takes_values());
    let value = value.map_or_else(String::new, |name| format!("<{name}>"));
    let names = names.join(", ");
    match (names.is_empty(), value.is_empty()) {
        (true, _) => value,
        (false, true) => names,
        (false, false) => format!("{names} {value}"),
    }
}

/// Text that roff takes for text, whatever it begins with. An empty line ends a line.
fn roff(text: &str) -> String {
    let mut out = String::new();
    let mut broken = false;
    for line in text.lines().map(str::trim) {
        if line.is_empty() {
            broken = !out.is_empty();
            continue;
        }
        if !out.is_empty() {
            out.push('\n');
        }
        if std::mem::take(&mut broken) {
            out.push_str(".br\n");
        }
        let line = line.replace('\\', "\\e").replace('-', "\\-");
        if line.starts_with(['.', '\'']) {
            out.push_str("\\&");
        }
        out.push_str(&line);
    }
    out
}

fn print(text: &[u8]) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    written(out.write_all(text).and_then(|()| out.flush()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_cannot_become_a_request_to_roff() {
        for (text, want) in [
            ("plain", "plain"),
            (".SH x", "\\&.SH x"),
            ("'x", "\\&'x"),
            ("a\\b", "a\\eb"),
            ("--json", "\\-\\-json"),
            ("one\ntwo", "one\ntwo"),
            ("one\n\n .two", "one\n.br\n\\&.two"),
        ] {
            assert_eq!(roff(text), want);
        }
    }
}
