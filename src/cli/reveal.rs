//! `pgsluice reveal`: masked values back into plain ones, a line each.

use std::io::{self, BufRead, Write};

use clap::Args;

use super::SharedFlags;
use crate::config::Config;
use crate::error::{Error, StagingError};
use crate::exit_code::ExitCode;
use crate::transform::reveal;

#[derive(Debug, Clone, Args)]
pub(super) struct Flags {
    /// Masked values as they stand in the table [default: one a line on stdin]
    #[arg(value_name = "VALUE")]
    values: Vec<String>,
}

pub(super) fn run(flags: &SharedFlags, reveal_flags: &Flags) -> Result<ExitCode, Error> {
    let config = Config::resolve(flags.overrides())?;
    let mut stdout = io::stdout().lock();
    let mut print = |masked: &str| -> Result<(), Error> {
        let plain = reveal(&config.pipeline, &config.keys, masked)?;
        writeln!(stdout, "{}", plain.value).map_err(StagingError::io("write", "stdout".as_ref()))?;
        Ok(())
    };
    if reveal_flags.values.is_empty() {
        for line in io::stdin().lock().lines() {
            print(line.map_err(StagingError::io("read", "stdin".as_ref()))?.trim())?;
        }
    } else {
        reveal_flags.values.iter().try_for_each(|value| print(value))?;
    }
    Ok(ExitCode::Done)
}
