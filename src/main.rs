//! The exit code and the final error line, nothing else.

use std::process::ExitCode;

use pgsluice::cli;

fn main() -> ExitCode {
    match cli::run() {
        Ok(code) => code.into(),
        Err(error) => {
            cli::print_error(&error);
            error.exit_code().into()
        }
    }
}
