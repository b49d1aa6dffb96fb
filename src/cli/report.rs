//! `pgsluice report`: an HTML page from reports of runs.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use clap::Args;

use super::output::DataLines;
use crate::config::ConfigError;
use crate::durable::given;
use crate::error::Error;
use crate::exit_code::ExitCode;
use crate::page::{ReadReport, page};

#[derive(Debug, Clone, Args)]
pub(super) struct Flags {
    /// Reports that runs wrote by --report
    #[arg(value_name = "REPORT.json", default_value = "report.json")]
    reports: Vec<PathBuf>,
    /// Write the page to this file instead of stdout
    #[arg(long, short, value_name = "FILE")]
    output: Option<PathBuf>,
}

pub(super) fn run(flags: &Flags) -> Result<ExitCode, Error> {
    let reports = flags.reports.iter().map(|path| read(path)).collect::<Result<Vec<_>, _>>()?;
    let page = page(reports);
    match &flags.output {
        Some(path) => given::open_to_replace(path)
            .and_then(|mut file| file.write_all(page.as_bytes()))
            .map_err(ConfigError::of_given_file("write", path, "check --output"))?,
        None => DataLines::new().text(&page)?,
    }
    Ok(ExitCode::Done)
}

fn read(path: &Path) -> Result<ReadReport, ConfigError> {
    let read = || -> io::Result<ReadReport> { Ok(serde_json::from_slice(&fs::read(path)?)?) };
    read().map_err(ConfigError::of_given_file("read", path, "name files that runs wrote by --report"))
}
