//! The `va-upgrade` executable: parses the command line and runs one verb.

use std::process::ExitCode;

fn main() -> ExitCode {
    va_upgrade::cli::run(std::env::args_os())
}
