//! `pgsluice import`: NDJSON files of message bodies into the spool, to be loaded by `replay` or the next `run`.

use std::path::PathBuf;

use clap::Args;
use jiff::Timestamp;

use super::SharedFlags;
use super::output::say;
use crate::config::Config;
use crate::error::Error;
use crate::exit_code::ExitCode;
use crate::import::import;
use crate::report::grouped;
use crate::spool;
use crate::staging::Staging;

#[derive(Debug, Clone, Args)]
pub(super) struct Flags {
    /// Files with one message body a line
    #[arg(value_name = "FILE", required = true)]
    files: Vec<PathBuf>,
    /// When the messages were sent, as RFC 3339 [default: the file's modification time]
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    sent_at: Option<Timestamp>,
}

fn parse_time(text: &str) -> Result<Timestamp, String> {
    text.parse().map_err(|_| "expected a time with its offset, such as 2026-01-02T03:04:05Z".to_owned())
}

pub(super) fn run(flags: &SharedFlags, import_flags: &Flags) -> Result<ExitCode, Error> {
    let config = Config::resolve(flags.overrides())?;
    let staging = Staging::open(&config.staging_dir)?;
    let _lock = staging.lock()?;
    spool::recover(&staging)?;
    for file in &import_flags.files {
        let imported = import(&staging, &config.pipeline.name, file, import_flags.sent_at)?;
        if !flags.quiet {
            let messages = grouped(imported.sealed.iter().map(|segment| segment.messages).sum());
            say(format_args!("{}: {messages} messages in {} segments", file.display(), imported.sealed.len()));
            if !imported.known.is_empty() {
                say(format_args!("{}: {} segments were imported before", file.display(), imported.known.len()));
            }
        }
    }
    Ok(ExitCode::Done)
}
