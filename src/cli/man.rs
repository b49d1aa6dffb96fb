//! `pgsluice man`: a man page, made of the command's help.

use clap::Args;
use clap::error::ErrorKind;
use clap_mangen::Man;

use super::output::DataLines;
use crate::error::Error;
use crate::exit_code::ExitCode;

#[derive(Debug, Clone, Args)]
pub(super) struct Flags {
    /// The command, such as `rejects list`; the page of pgsluice itself without
    command: Vec<String>,
}

pub(super) fn run(flags: &Flags) -> Result<ExitCode, Error> {
    let mut all = super::command_line();
    // Names below are whole only once all is built: pgsluice-rejects-list.
    all.build();
    let mut command = &all;
    for name in &flags.command {
        command = command.find_subcommand(name).unwrap_or_else(|| {
            let problem = format!("there is no command `{}`", flags.command.join(" "));
            super::command_line().error(ErrorKind::InvalidSubcommand, problem).exit()
        });
    }
    let mut page = Vec::new();
    let source = concat!("pgsluice ", env!("CARGO_PKG_VERSION"));
    Man::new(command.clone())
        .manual("pgsluice")
        .source(source)
        .render(&mut page)
        .map_err(Error::system("write a man page"))?;
    DataLines::new().text(&String::from_utf8_lossy(&page))?;
    Ok(ExitCode::Done)
}
