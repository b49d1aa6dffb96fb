//! `pgsluice report`: an HTML page from reports of runs.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use clap::Args;

use super::SharedFlags;
use super::output::DataLines;
use super::session::runtime;
use crate::config::{Config, ConfigError};
use crate::durable::given;
use crate::error::Error;
use crate::exit_code::ExitCode;
use crate::load::{LedgerDay, Loader};
use crate::page::{ReadReport, page};

#[derive(Debug, Clone, Args)]
pub(super) struct Flags {
    /// Reports that runs wrote by --report
    ///
    /// Default: report.json, unless --ledger is given.
    #[arg(value_name = "REPORT.json")]
    reports: Vec<PathBuf>,
    /// Add what the ledger has of the last 60 days with loads
    #[arg(long)]
    ledger: bool,
    /// Write the page to this file instead of stdout
    #[arg(long, short, value_name = "FILE")]
    output: Option<PathBuf>,
}

pub(super) fn run(shared: &SharedFlags, flags: &Flags) -> Result<ExitCode, Error> {
    let named =
        if flags.reports.is_empty() && !flags.ledger { &[PathBuf::from("report.json")] } else { &flags.reports[..] };
    let reports = named.iter().map(|path| read(path)).collect::<Result<Vec<_>, _>>()?;
    let page = if flags.ledger {
        let config = Config::resolve(shared.overrides())?;
        let days = runtime()?.block_on(days(&config))?;
        page(reports, Some((&config.pipeline.name, &days)))
    } else {
        page(reports, None)
    };
    match &flags.output {
        Some(path) => given::open_to_replace(path)
            .and_then(|mut file| file.write_all(page.as_bytes()))
            .map_err(ConfigError::of_given_file("write", path, "check --output"))?,
        None => DataLines::new().text(&page)?,
    }
    Ok(ExitCode::Done)
}

async fn days(config: &Config) -> Result<Vec<LedgerDay>, Error> {
    let mut loader = Loader::connect_to_ask(&config.database_url()?, &config.pipeline).await?;
    Ok(loader.days().await?)
}

fn read(path: &Path) -> Result<ReadReport, ConfigError> {
    let read = || -> io::Result<ReadReport> { Ok(serde_json::from_slice(&fs::read(path)?)?) };
    read().map_err(ConfigError::of_given_file("read", path, "name files that runs wrote by --report"))
}
