//! `pgsluice config`: the annotated default configuration, which errors about a configuration file point to.
//!
//! It reads no configuration, so it helps also where the file that is there is not valid.

use std::io::{ErrorKind, Write, stdout};

use clap::Subcommand;

use crate::error::{Error, StagingError};
use crate::exit_code::ExitCode;

/// Part of the program, because neither `cargo install` nor the container image has the file.
const EXAMPLE: &str = include_str!("../../pgsluice.toml");

#[derive(Debug, Clone, Subcommand)]
pub(super) enum Command {
    /// Print the annotated default pgsluice.toml: each setting, its range and default, and how a mapping is declared
    Example,
}

pub(super) fn run(command: &Command) -> Result<ExitCode, Error> {
    match command {
        Command::Example => print_example()?,
    }
    Ok(ExitCode::Done)
}

/// A reader that has seen enough closes the pipe, which is no failure.
fn print_example() -> Result<(), StagingError> {
    let mut stdout = stdout().lock();
    match stdout.write_all(EXAMPLE.as_bytes()).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => Err(StagingError::io("write", "stdout".as_ref())(error)),
        _ => Ok(()),
    }
}
