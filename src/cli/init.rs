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
    let config = Config::resolve(flags.overrides())?;
    if init.print {
        let mut lines = DataLines::new();
        for (name, sql) in load::init_sql(&config.pipeline) {
            lines.line(format_args!("-- {name}"))?;
            lines.text(sql)?;
            lines.line("")?;
        }
        return Ok(ExitCode::Done);
    }
    runtime()?.block_on(load::init(&config.database_url()?, &config.pipeline))?;
    if !flags.quiet {
        let tables: Vec<&str> = load::init_sql(&config.pipeline).map(|(name, _)| name).collect();
        let with_table = tables.iter().any(|name| name.contains("user_logins"));
        say(if with_table { "the ledger and user_logins are in place" } else { "the ledger is in place" });
    }
    Ok(ExitCode::Done)
}
