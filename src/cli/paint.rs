//! Colours, where a person sees them.

use std::io::IsTerminal;

use clap::builder::styling::{AnsiColor, Style};

/// Colours text, or leaves it.
#[derive(Clone, Copy, Debug)]
pub struct Paint {
    on: bool,
}

impl Paint {
    /// Colours only if standard output is a terminal and nobody asked for none
    /// (<https://no-color.org>).
    pub fn for_stdout() -> Self {
        let unwanted = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        let dumb = std::env::var_os("TERM").is_some_and(|value| value == "dumb");
        Self {
            on: std::io::stdout().is_terminal() && !unwanted && !dumb,
        }
    }

    /// No colours.
    pub fn off() -> Self {
        Self { on: false }
    }

    /// A heading.
    pub fn bold(self, text: &str) -> String {
        self.with(Style::new().bold(), text)
    }

    /// What is of less interest.
    pub fn dim(self, text: &str) -> String {
        self.with(Style::new().dimmed(), text)
    }

    /// What is as it should be.
    pub fn good(self, text: &str) -> String {
        self.with(AnsiColor::Green.on_default(), text)
    }

    /// What somebody should look at.
    pub fn warn(self, text: &str) -> String {
        self.with(AnsiColor::Yellow.on_default(), text)
    }

    /// What needs somebody.
    pub fn bad(self, text: &str) -> String {
        self.with(AnsiColor::Red.on_default(), text)
    }

    fn with(self, style: Style, text: &str) -> String {
        if !self.on || text.is_empty() {
            return text.to_owned();
        }
        format!("{}{text}{}", style.render(), style.render_reset())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colours_end_where_the_text_ends_and_can_be_left_out() {
        let (on, off) = (Paint { on: true }, Paint { on: false });
        for style in [
            Paint::bold,
            Paint::dim,
            Paint::good,
            Paint::warn,
            Paint::bad,
        ] {
            let coloured = style(on, "text");
            assert!(coloured.starts_with("\u{1b}[") && coloured.ends_with("text\u{1b}[0m"));
            assert_eq!(style(off, "text"), "text");
            assert_eq!(style(on, ""), "");
        }
    }
}
