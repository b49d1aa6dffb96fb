//! `pgsluice replay`: loads segments of the spool and the archive; one that the ledger has is skipped.

use std::sync::Arc;

use clap::Args;

use super::SharedFlags;
use super::session::{Session, runtime};
use crate::error::Error;
use crate::exit_code::ExitCode;
use crate::load::LoadMode;
use crate::segment::SegmentId;
use crate::spool;
use crate::staging::{Staging, StagingError};

#[derive(Debug, Clone, Args)]
pub(super) struct Flags {
    /// The segments, by name [default: all in the spool and the archive]
    #[arg(value_name = "SEGMENT")]
    segments: Vec<SegmentId>,
    /// Forget in the ledger that these segments were loaded: for a table that was emptied
    #[arg(long)]
    again: bool,
}

pub(super) fn run(flags: &SharedFlags, replay: &Flags) -> Result<ExitCode, Error> {
    let mode = if replay.again { LoadMode::Again } else { LoadMode::Once };
    runtime()?.block_on(async {
        let session = Session::open(flags)?;
        spool::recover(session.staging())?;
        let segments = chosen(session.staging(), &replay.segments)?;
        let plan = session.plan()?;
        let loaders = session.connect_loaders(session.config.load.connections).await?;
        let end = Arc::clone(&session.stages).replay(segments, plan, loaders, mode).await;
        let title = format!("spool → {}", session.config.pipeline.table);
        let end = end.map(|()| session.end_without_queue());
        session.finish(&title, end)
    })
}

fn chosen(staging: &Staging, named: &[SegmentId]) -> Result<Vec<SegmentId>, StagingError> {
    let mut segments = named.to_vec();
    if segments.is_empty() {
        segments = staging.archived_segments()?;
        segments.extend(staging.sealed_segments()?);
    }
    segments.sort_unstable();
    segments.dedup();
    match segments.iter().find(|segment| staging.find_segment(**segment).is_none()) {
        Some(&segment) => Err(StagingError::NoSuchSegment { segment }),
        None => Ok(segments),
    }
}
