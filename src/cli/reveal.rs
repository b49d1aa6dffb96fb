//! `pgsluice reveal`: masked values back into plain ones, as a filter: one record in, one record out.
//!
//! What cannot be revealed stays as it is, is named on stderr by its line, and makes the exit code 1 at the end. Null
//! stays null: an empty line, an empty unquoted field of CSV, a null of JSON. On a terminal, control characters are
//! escaped, so that no value can forge what is seen.

mod csv;
mod json;

use std::io::{self, BufRead};

use clap::Args;

use super::SharedFlags;
use super::output::{DataLines, say};
use crate::advice::Advised;
use crate::config::{Column, Config, ConfigError, Pipeline};
use crate::error::Error;
use crate::exit_code::ExitCode;
use crate::keyring::{self, Keyring};
use crate::mask::{RevealError, reveal, reveal_of};

#[derive(Debug, Clone, Args)]
pub(super) struct Flags {
    /// Masked values as they stand in the table [default: one a line on stdin]
    #[arg(value_name = "VALUE", conflicts_with = "columns")]
    values: Vec<String>,
    /// Reveal these columns of the records on stdin, and leave the others as they are
    #[arg(long, value_name = "NAME,…", value_delimiter = ',', requires = "records")]
    columns: Vec<String>,
    /// Read and write CSV with a header, as `psql --csv` prints it
    #[arg(long, requires = "columns", group = "records")]
    csv: bool,
    /// Write JSON strings, a line each; with --columns read and write JSON objects, a line each
    #[arg(long, group = "records")]
    json: bool,
}

/// Reveals, and keeps account of what could not be revealed.
struct Filter<'a> {
    pipeline: &'a Pipeline,
    keys: &'a Keyring,
    lines: DataLines,
    has_failed: bool,
    /// What a person can do about the first value that could not be revealed.
    hint: Option<&'static str>,
}

pub(super) async fn run(flags: &SharedFlags, reveal: &Flags) -> Result<ExitCode, Error> {
    let config = Config::resolve(flags.overrides())?;
    let keys = keyring::read(&config.keys).await?;
    let mut filter =
        Filter { pipeline: &config.pipeline, keys: &keys, lines: DataLines::new(), has_failed: false, hint: None };
    if reveal.csv {
        csv::reveal(&mut filter, &reveal.columns)?;
    } else if !reveal.columns.is_empty() {
        json::reveal(&mut filter, &reveal.columns)?;
    } else if reveal.values.is_empty() {
        filter.each_line(|filter, number, line| filter.value(format!("line {number}"), line, reveal.json))?;
    } else {
        for (index, value) in reveal.values.iter().enumerate() {
            filter.value(format!("value {}", index + 1), value.as_bytes(), reveal.json)?;
        }
    }
    Ok(filter.end())
}

impl Filter<'_> {
    /// Reads stdin line by line, each with its number, until nobody reads the output any more.
    fn each_line(&mut self, mut each: impl FnMut(&mut Self, u64, &[u8]) -> Result<(), Error>) -> Result<(), Error> {
        for (number, line) in (1..).zip(io::stdin().lock().split(b'\n')) {
            let line = line.map_err(Error::system("read stdin"))?;
            each(self, number, line.strip_suffix(b"\r").unwrap_or(&line))?;
            if self.lines.is_closed() {
                break;
            }
        }
        Ok(())
    }

    /// A value of any column.
    fn value(&mut self, place: String, masked: &[u8], as_json: bool) -> Result<(), Error> {
        if masked.is_empty() && place.starts_with("line") {
            return self.lines.line(if as_json { "null" } else { "" });
        }
        let text = String::from_utf8_lossy(masked);
        let known = std::str::from_utf8(masked).map_err(|_| RevealError::NotText);
        let revealed = known.and_then(|text| Ok(reveal(self.pipeline, self.keys, text.trim())?.value));
        let shown = self.or_as_it_is(place, revealed).unwrap_or_else(|| text.into_owned());
        let shown = if as_json { json::string(&shown) } else { shown };
        self.lines.value(&shown)
    }

    /// A value of this column.
    fn field(&mut self, column: &Column, line: u64, masked: &str) -> Option<String> {
        self.or_as_it_is(format!("column {} of line {line}", column.name), reveal_of(column, self.keys, masked))
    }

    /// The value; or nothing, after saying why.
    fn or_as_it_is(&mut self, place: String, revealed: Result<String, RevealError>) -> Option<String> {
        let source = match revealed {
            Ok(value) => return Some(value),
            Err(source) => source,
        };
        self.has_failed = true;
        self.hint = self.hint.or(source.advice().hint);
        say(format_args!("error: {}", Error::Reveal { place, source }.one_line()));
        None
    }

    /// The columns of these names, as the mapping has them.
    fn columns(&self, names: &[String]) -> Result<Vec<Column>, Error> {
        let find = |name: &String| {
            let found = self.pipeline.columns.iter().find(|column| column.mask.is_some() && column.name == *name);
            let problem = || "the mapping does not mask a column of this name".to_owned();
            Ok(found.ok_or_else(|| ConfigError::InvalidColumn { column: name.clone(), problem: problem() })?.clone())
        };
        names.iter().map(find).collect()
    }

    fn end(self) -> ExitCode {
        if let Some(hint) = self.hint {
            say(format_args!("hint: {hint}"));
        }
        if self.has_failed { ExitCode::Failed } else { ExitCode::Done }
    }
}
