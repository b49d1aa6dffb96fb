//! `pgsluice init`: creates what is missing in the database, or prints the SQL, for a DBA to run.

use clap::Args;

use super::SharedFlags;
use super::output::{DataLines, say};
use super::session::runtime;
use crate::config::{Config, TableName};
use crate::error::Error;
use crate::exit_code::ExitCode;
use crate::load::{self, Role};

#[derive(Debug, Clone, Args)]
pub(super) struct Flags {
    /// Print the SQL instead of running it
    #[arg(long)]
    print: bool,
    /// With --print: the SQL that grants a role its rights on the ledger and on this pipeline's table
    #[arg(long, value_enum, value_name = "ROLE", requires = "print")]
    role: Option<Role>,
}

pub(super) fn run(flags: &SharedFlags, init: &Flags) -> Result<ExitCode, Error> {
    let config = Config::resolve(flags.overrides())?;
    if let Some(role) = init.role {
        DataLines::new().text(&load::role_sql(role, &config.pipeline)?)?;
        return Ok(ExitCode::Done);
    }
    let with_user_logins = config.pipeline.fits_user_logins()?;
    if init.print {
        let mut lines = DataLines::new();
        for (name, sql) in load::init_sql(with_user_logins) {
            lines.line(format_args!("-- {name}"))?;
            lines.text(sql)?;
            lines.line("")?;
        }
        return Ok(ExitCode::Done);
    }
    runtime()?.block_on(load::init(&config.database_url()?, &config.pipeline))?;
    if !flags.quiet {
        say(in_place(with_user_logins, &config.pipeline.table));
    }
    Ok(ExitCode::Done)
}

fn in_place(with_user_logins: bool, table: &TableName) -> String {
    if with_user_logins {
        return "the ledger and user_logins are in place".to_owned();
    }
    format!("the ledger is in place; init does not create the table {table}")
}
