//! `pgsluice replay`: loads segments of the spool and the archive; one that the ledger knows is skipped.

use std::sync::Arc;

use clap::Args;

use super::end::End;
use super::output::say;
use super::session::{Session, runtime};
use super::{KeyFlags, SharedFlags};
use crate::error::Error;
use crate::exit_code::ExitCode;
use crate::load::{Forgotten, Loader, NotHere};
use crate::report::grouped;
use crate::segment::SegmentId;
use crate::spool::{self, SealedSegment};
use crate::stages::Owner;
use crate::staging::{Staging, StagingError};

#[derive(Debug, Clone, Args)]
pub(super) struct Flags {
    /// The segments, by name [default: all in the spool and the archive]
    #[arg(value_name = "SEGMENT")]
    segments: Vec<SegmentId>,
    /// Load segments that were spooled for this pipeline into this configuration's table
    #[arg(long, value_name = "PIPELINE")]
    from: Option<String>,
    /// Forget in the ledger that these segments were loaded: for a table that was emptied
    #[arg(long)]
    again: bool,
    /// With --again: the table may hold rows that are not of these segments
    #[arg(long, requires = "again")]
    keep_rows: bool,
    #[command(flatten)]
    keys: KeyFlags,
}

pub(super) fn run(flags: &SharedFlags, replay: &Flags) -> Result<ExitCode, Error> {
    runtime()?.block_on(async {
        let session = Session::open(flags)?;
        spool::recover(session.staging())?;
        let own = &session.config.pipeline.name;
        let owner = Owner { pipeline: replay.from.as_ref().unwrap_or(own).clone(), queue_url: None };
        let which = if owner.pipeline == *own { Chosen::All } else { Chosen::Archived };
        let segments = chosen(session.staging(), &owner, &replay.segments, which)?;
        let plan = Arc::new(session.plan().await?.accepting(&owner.pipeline));
        let connections = session.config.load.connections;
        let mut loaders = session.connect_loaders_for(&plan, connections, replay.keys).await?;
        let ids: Vec<SegmentId> = segments.iter().map(|segment| segment.id).collect();
        if replay.again {
            let forgotten = first(&mut loaders)?.forget(&ids, replay.keep_rows).await?;
            let elsewhere = first(&mut loaders)?.not_among(&ids).await?;
            tell(&session, forgotten, &elsewhere);
        }
        session.expect_segments(&segments);
        let mut end = Arc::clone(&session.stages).replay(segments, plan, loaders).await;
        let unfinished = session.stages.has_unfinished(&ids);
        let whole = session.stages.set_aside_by().is_none();
        if end.is_ok() && replay.again && whole && !unfinished {
            end = end_again(&session).await;
        }
        if end.is_ok() {
            session.expire().await;
        }
        let title = format!("spool → {}", session.config.pipeline.table);
        let end = end.map(|()| End::without_queue(session.stop.is_cancelled(), unfinished));
        session.finish(&title, end)
    })
}

/// Each segment that was forgotten is loaded again.
async fn end_again(session: &Session) -> Result<(), Error> {
    let database = session.config.database_url()?;
    Ok(Loader::connect_to_ask(&database, &session.config.pipeline).await?.end_again().await?)
}

fn first(loaders: &mut [Loader]) -> Result<&mut Loader, Error> {
    loaders.first_mut().ok_or_else(|| Error::system("connect")(std::io::ErrorKind::NotConnected.into()))
}

fn tell(session: &Session, forgotten: Forgotten, elsewhere: &[NotHere]) {
    if session.is_quiet() {
        return;
    }
    if forgotten.goes_on {
        say("an earlier `replay --again` had not ended; this one goes on with it");
    } else {
        say(format_args!("the ledger has forgotten {} segments", grouped(forgotten.segments)));
    }
    for NotHere { host, segments, loaded } in elsewhere {
        let (segments, loaded) = (grouped(*segments), grouped(*loaded));
        say(format_args!("not here: {segments} segments with {loaded} rows that host {host} loaded"));
    }
}

/// Which segments a replay may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Chosen {
    All,
    /// Of another pipeline: what that one has not acknowledged yet is left to it, because a load would take it out of that
    /// one's spool.
    Archived,
}

/// The named segments, or all; each must be the owner's. One that cannot be read stays where it is.
fn chosen(staging: &Staging, owner: &Owner, named: &[SegmentId], which: Chosen) -> Result<Vec<SealedSegment>, Error> {
    let mut ids = named.to_vec();
    if ids.is_empty() {
        ids = staging.archived_segments()?;
        ids.extend(staging.committed_segments()?);
        ids.extend(staging.sealed_segments()?);
    }
    ids.sort_unstable();
    ids.dedup();
    if which == Chosen::Archived {
        let all = ids.len();
        ids.retain(|&segment| staging.find_unacknowledged(segment).is_none());
        let segments = all - ids.len();
        if segments > 0 {
            let pipeline = &owner.pipeline;
            tracing::warn!(segments, %pipeline, "left alone until that pipeline has loaded and acknowledged them");
        }
    }
    let mut segments = Vec::new();
    for segment in ids {
        if staging.find_segment(segment).is_none() {
            return Err(StagingError::NoSuchSegment { segment }.into());
        }
        match owner.check(staging, segment).and_then(|()| spool::sealed_segment(staging, segment)) {
            // Its transform tells where.
            Err(error) if error.is_damage() || error.stops_its_segment_alone() => {
                segments.push(SealedSegment { id: segment, messages: 0, bytes: 0, seal: None });
            }
            sealed => segments.push(sealed?),
        }
    }
    Ok(segments)
}
