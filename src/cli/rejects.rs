//! `pgsluice rejects`: what could not become rows. `list` and `retry` are here.

mod drop;
mod show;

use clap::{Args, Subcommand};
use futures::{Stream, TryStreamExt};

use super::end::End;
use super::output::DataLines;
use super::session::{Session, runtime};
use super::{KeyFlags, SharedFlags};
use crate::config::Config;
use crate::error::Error;
use crate::exit_code::ExitCode;
use crate::load::{LoadError, Selection};
use crate::postgres::connect;
use crate::segment::SegmentId;
use crate::stages::retry_rejects;
use crate::staging::StagingError;

#[derive(Debug, Clone, Subcommand)]
pub(super) enum Command {
    /// List the ledger's rejects, a JSON object a line: counted by reason, or one by one; bodies are never listed
    List(ListFlags),
    /// Print one reject: its record to stderr, its body to stdout
    Show(show::Flags),
    /// Load those rejects that fit by now, after the mapping or the table was corrected; needs no AWS
    Retry(RetryFlags),
    /// Give up the rejects of one reason, here and in the ledger: nobody can load them any more
    Drop(drop::Flags),
}

#[derive(Debug, Clone, Args)]
pub(super) struct ListFlags {
    /// One by one, the newest first, instead of counted by reason
    #[arg(long)]
    entries: bool,
    /// Only rejects of this segment; may be given more than once
    #[arg(long = "segment", value_name = "SEGMENT")]
    segments: Vec<SegmentId>,
    /// The number of lines, at most
    #[arg(long, value_name = "N")]
    limit: Option<u32>,
}

#[derive(Debug, Clone, Args)]
pub(super) struct RetryFlags {
    /// The segments, by name [default: all that have a reject file]
    #[arg(value_name = "SEGMENT")]
    segments: Vec<SegmentId>,
    #[command(flatten)]
    keys: KeyFlags,
}

pub(super) fn run(flags: &SharedFlags, command: &Command) -> Result<ExitCode, Error> {
    match command {
        Command::List(list) => runtime()?.block_on(print_list(flags, list)),
        Command::Show(show) => show::run(flags, show),
        Command::Drop(drop) => drop::run(flags, drop),
        Command::Retry(retry) => runtime()?.block_on(retry_all(flags, retry)),
    }
}

async fn print_list(flags: &SharedFlags, list: &ListFlags) -> Result<ExitCode, Error> {
    let config = Config::resolve(flags.overrides())?;
    let client = connect(&config.database_url()?).await?;
    let selection = Selection { pipeline: &config.pipeline.name, segments: &list.segments, limit: list.limit };
    if list.entries {
        print_lines(selection.entries(&client).await?).await?;
    } else {
        print_lines(selection.groups(&client).await?).await?;
    }
    Ok(ExitCode::Done)
}

async fn print_lines<T: serde::Serialize>(items: impl Stream<Item = Result<T, LoadError>>) -> Result<(), Error> {
    let mut items = std::pin::pin!(items);
    let mut lines = DataLines::new();
    while !lines.is_closed()
        && let Some(item) = items.try_next().await?
    {
        lines.line(serde_json::to_string(&item).unwrap_or_default())?;
    }
    Ok(())
}

async fn retry_all(flags: &SharedFlags, retry: &RetryFlags) -> Result<ExitCode, Error> {
    let session = Session::open(flags)?;
    let named = &retry.segments;
    let staging = session.staging();
    let mut segments = if named.is_empty() { staging.rejected_segments()? } else { named.clone() };
    segments.sort_unstable();
    segments.dedup();
    let end = retry_each(&session, segments, retry.keys).await;
    let end = end.map(|remaining| End::without_queue(session.stop.is_cancelled(), remaining));
    let title = format!("rejects → {}", session.config.pipeline.table);
    session.finish(&title, end)
}

/// Whether it was stopped before the last one.
async fn retry_each(session: &Session, segments: Vec<SegmentId>, keys: KeyFlags) -> Result<bool, Error> {
    let plan = session.plan().await?;
    let mut loader = session.connect_loaders_for(&plan, 1, keys).await?.remove(0);
    for (host, rejects) in loader.rejects_not_among(&session.staging().rejected_segments()?).await? {
        tracing::warn!(rejects, host, "rejects have no file here; their bodies are on the host that recorded them");
    }
    for segment in segments {
        if session.stop.is_cancelled() {
            return Ok(true);
        }
        let retried = retry_rejects(session.staging(), segment, &plan, &mut loader).await?;
        let staging = session.staging();
        let exists = || staging.rejects(segment).is_taken() || staging.find_segment(segment).is_some();
        match retried {
            Some(retried) => session.stages.counters().readmit(retried.tried, retried.loaded, &retried.reasons),
            None if exists() => tracing::warn!(%segment, "not in the ledger yet, skipped; run or replay it first"),
            None => return Err(StagingError::NoSuchSegment { segment }.into()),
        }
    }
    Ok(false)
}
