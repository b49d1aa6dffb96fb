//! `pgsluice mask`: values as they stand in a masked column, under each key of the ring, so that SQL can find them:
//! `where masked_ip in (…)`.

use std::io::{self, BufRead};

use clap::Args;

use super::SharedFlags;
use super::output::DataLines;
use crate::config::{Column, Config, ConfigError};
use crate::error::Error;
use crate::exit_code::ExitCode;
use crate::keyring::{self, Keyring};
use crate::mask::Masker;

#[derive(Debug, Clone, Args)]
pub(super) struct Flags {
    /// The masked column, as the mapping names it
    #[arg(long, value_name = "NAME")]
    column: String,
    /// Values as they were before masking [default: one a line on stdin]
    #[arg(value_name = "VALUE")]
    values: Vec<String>,
}

pub(super) async fn run(flags: &SharedFlags, mask: &Flags) -> Result<ExitCode, Error> {
    let config = Config::resolve(flags.overrides())?;
    let found = config.pipeline.columns.iter().find(|column| column.name == mask.column);
    let not_masked = || ConfigError::InvalidColumn {
        column: mask.column.clone(),
        problem: "the mapping does not mask a column of this name".to_owned(),
    };
    let column = found.filter(|column| column.mask.is_some()).ok_or_else(not_masked)?;
    let maskers = maskers(column, &keyring::read(&config.keys).await?)?;
    let mut lines = DataLines::new();
    let print = |lines: &mut DataLines, value: &str| {
        maskers.iter().try_for_each(|masker| {
            let mut text = Vec::new();
            masker.mask(value, &mut text);
            lines.line(String::from_utf8_lossy(&text))
        })
    };
    if mask.values.is_empty() {
        for (number, line) in (1_u64..).zip(io::stdin().lock().split(b'\n')) {
            let line = line.map_err(Error::system("read stdin"))?;
            let line = line.strip_suffix(b"\r").unwrap_or(&line);
            let value = std::str::from_utf8(line).map_err(|_| Error::system("read stdin")(not_text(number)))?;
            print(&mut lines, value)?;
            if lines.is_closed() {
                break;
            }
        }
    } else {
        mask.values.iter().try_for_each(|value| print(&mut lines, value))?;
    }
    Ok(ExitCode::Done)
}

fn not_text(line: u64) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("line {line} is not UTF-8"))
}

/// One for each masking key of the ring, in its order. A column that was masked by another method before has texts of
/// both.
fn maskers(column: &Column, keys: &Keyring) -> Result<Vec<Masker>, Error> {
    if let Some(mask) = column.mask {
        Masker::new(mask, column.masked_as(), keys)?;
    }
    Ok(keys.iter().filter_map(|key| Masker::with_key(column.masked_as(), key)).collect())
}
