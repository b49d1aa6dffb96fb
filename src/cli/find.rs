//! `pgsluice find`: what became of one message, and where it lies.

use clap::Args;

use super::SharedFlags;
use super::output::{print_line, say};
use super::session::runtime;
use crate::config::Config;
use crate::error::Error;
use crate::exit_code::ExitCode;
use crate::find::{Delivery, Found, Verdict, deliveries};
use crate::host::host_name;
use crate::load::{Fate, Loader};
use crate::spool::message_uuid;
use crate::staging::Staging;

#[derive(Debug, Clone, Args)]
pub(super) struct Flags {
    /// The message's id, as SQS gave it
    #[arg(value_name = "MESSAGE_ID")]
    message_id: String,
}

pub(super) fn run(flags: &SharedFlags, find: &Flags) -> Result<ExitCode, Error> {
    let config = Config::resolve(flags.overrides())?;
    let staging = Staging::existing(&config.staging_dir)?;
    let lines = deliveries(&staging, &find.message_id)?;
    let fate = runtime()?.block_on(fate(&config, &find.message_id, &lines));
    let found = Found::of(&lines, fate.as_ref().ok());
    print_line(&found)?;
    if !flags.quiet && found.verdict == Verdict::Unknown {
        say(format_args!(
            "not in the files of {} on {}; a queue cannot be asked for one message, nor can other hosts' files",
            staging.root().display(),
            host_name()
        ));
    }
    if let Err(error) = fate {
        say(format_args!("the ledger could not be asked: {}", error.one_line()));
        return Ok(ExitCode::Failed);
    }
    Ok(ExitCode::Done)
}

async fn fate(config: &Config, message_id: &str, lines: &[Delivery]) -> Result<Fate, Error> {
    let mut loader = Loader::connect_to_ask(&config.database_url()?, &config.pipeline).await?;
    let times: Vec<_> = lines.iter().map(Delivery::identity_time).collect();
    let segments: Vec<_> = lines.iter().map(|line| line.segment).collect();
    Ok(loader.fate(message_uuid(message_id), &times, &segments).await?)
}
