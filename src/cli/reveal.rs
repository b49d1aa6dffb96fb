//! `pgsluice reveal`: masked values back into plain ones, a line each.

use std::io::{self, BufRead};

use clap::Args;

use super::SharedFlags;
use super::output::DataLines;
use crate::config::Config;
use crate::error::Error;
use crate::exit_code::ExitCode;
use crate::keyring;
use crate::mask::reveal;

#[derive(Debug, Clone, Args)]
pub(super) struct Flags {
    /// Masked values as they stand in the table [default: one a line on stdin]
    #[arg(value_name = "VALUE")]
    values: Vec<String>,
}

pub(super) async fn run(flags: &SharedFlags, reveal_flags: &Flags) -> Result<ExitCode, Error> {
    let config = Config::resolve(flags.overrides())?;
    let keys = keyring::read(&config.keys).await?;
    let mut lines = DataLines::new();
    let mut number = 0;
    let mut print = |masked: &str| {
        number += 1;
        let revealed = reveal(&config.pipeline, &keys, masked);
        lines.line(revealed.map_err(|source| Error::Reveal { number, source })?.value)
    };
    if reveal_flags.values.is_empty() {
        for line in io::stdin().lock().split(b'\n') {
            let line = line.map_err(Error::system("read stdin"))?;
            print(String::from_utf8_lossy(&line).trim())?;
        }
    } else {
        reveal_flags.values.iter().try_for_each(|value| print(value))?;
    }
    Ok(ExitCode::Done)
}
