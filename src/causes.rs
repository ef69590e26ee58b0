//! An error with what caused it, printed: one way for all rooms.

use std::error::Error;
use std::iter::successors;

/// An error and its causes, outermost first, as one line: `error: cause: cause of that`. A cause whose
/// text stands there already is left out: some errors print their cause themselves. The full stop of a
/// sentence that goes on is, too.
pub fn with_causes(error: &dyn Error) -> String {
    let mut text = String::new();
    for error in chain(error) {
        let more = error.to_string();
        if text.is_empty() {
            text = more;
        } else if !text.contains(more.trim_end_matches('.')) {
            text.truncate(text.trim_end_matches('.').len());
            text.push_str(": ");
            text.push_str(&more);
        }
    }
    text
}

/// The innermost cause, or the error itself if it has none.
pub fn innermost(error: &dyn Error) -> &dyn Error {
    chain(error).last().unwrap_or(error)
}

fn chain<'a>(error: &'a (dyn Error + 'a)) -> impl Iterator<Item = &'a (dyn Error + 'a)> {
    successors(Some(error), |&error| error.source())
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    #[derive(Debug, thiserror::Error)]
    enum Outer {
        #[error("it cannot be opened")]
        Plain(#[source] io::Error),
        #[error("it cannot be opened: {0}")]
        Printed(#[source] io::Error),
        #[error("deep")]
        Deep(#[source] Box<Outer>),
        #[error("It failed. Try again.")]
        Sentence(#[source] io::Error),
    }

    #[test]
    fn an_error_is_printed_with_each_cause_once() {
        let cause = || io::Error::other("no such disk");
        for (error, want) in [
            (Outer::Plain(cause()), "it cannot be opened: no such disk"),
            (Outer::Printed(cause()), "it cannot be opened: no such disk"),
            (
                Outer::Sentence(cause()),
                "It failed. Try again: no such disk",
            ),
            (
                Outer::Deep(Box::new(Outer::Plain(cause()))),
                "deep: it cannot be opened: no such disk",
            ),
        ] {
            assert_eq!(with_causes(&error), want);
            assert_eq!(innermost(&error).to_string(), "no such disk");
        }
        assert_eq!(with_causes(&cause()), "no such disk");
        assert_eq!(innermost(&cause()).to_string(), "no such disk");
    }
}
