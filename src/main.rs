//! The `looker-feed` program: arguments, configuration, logs, runtime and exit code. All else is
//! in the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    looker_feed::cli::main()
}
