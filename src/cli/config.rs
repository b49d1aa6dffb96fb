//! `pgsluice config`: the annotated default configuration, which errors about a configuration file point to.
//!
//! It reads no configuration, so it helps also where the file that is there is not valid.

use clap::Subcommand;

use super::output::DataLines;
use crate::config::ANNOTATED_FILE;
use crate::error::Error;
use crate::exit_code::ExitCode;

#[derive(Debug, Clone, Subcommand)]
pub(super) enum Command {
    /// Print the annotated default pgsluice.toml: each setting, its range and default, and how a mapping is declared
    Example,
}

pub(super) fn run(command: &Command) -> Result<ExitCode, Error> {
    match command {
        Command::Example => DataLines::new().text(ANNOTATED_FILE)?,
    }
    Ok(ExitCode::Done)
}
