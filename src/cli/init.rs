//! `pgsluice init`: creates what is missing in the database, or shows the SQL for whoever may.

use clap::Args;

use super::SharedFlags;
use super::output::{DataLines, say};
use super::session::runtime;
use crate::config::Config;
use crate::error::Error;
use crate::exit_code::ExitCode;
use crate::load;

#[derive(Debug, Clone, Args)]
pub(super) struct Flags {
    /// Print the SQL instead of running it
    #[arg(long)]
    print: bool,
}

pub(super) fn run(flags: &SharedFlags, init: &Flags) -> Result<ExitCode, Error> {
    if init.print {
        let mut lines = DataLines::new();
        for (name, sql) in load::init_sql() {
            lines.line(format_args!("-- {name}"))?;
            lines.text(sql)?;
            lines.line("")?;
        }
        return Ok(ExitCode::Done);
    }
    let database = Config::resolve(flags.overrides())?.database_url()?;
    runtime()?.block_on(load::init(&database))?;
    if !flags.quiet {
        say("the ledger and user_logins are in place");
    }
    Ok(ExitCode::Done)
}
