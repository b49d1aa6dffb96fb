//! `pgsluice completions`: the script by which a shell completes commands and flags.

use clap::Args;
use clap_complete::Shell;

use super::output::DataLines;
use crate::error::Error;
use crate::exit_code::ExitCode;

#[derive(Debug, Clone, Args)]
pub(super) struct Flags {
    /// The shell that reads the script
    shell: Shell,
}

pub(super) fn run(flags: &Flags) -> Result<ExitCode, Error> {
    let mut script = Vec::new();
    clap_complete::generate(flags.shell, &mut super::command_line(), "pgsluice", &mut script);
    DataLines::new().text(&String::from_utf8_lossy(&script))?;
    Ok(ExitCode::Done)
}
