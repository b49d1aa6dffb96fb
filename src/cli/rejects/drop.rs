//! `pgsluice rejects drop`: a person gives up the rejects of one reason.

use clap::Args;

use super::super::SharedFlags;
use super::super::output::say;
use super::super::session::{Session, runtime};
use crate::error::Error;
use crate::exit_code::ExitCode;
use crate::load::Loader;
use crate::report::grouped;
use crate::segment::SegmentId;
use crate::stages::{Dropped, drop_rejects};

#[derive(Debug, Clone, Args)]
pub(in crate::cli) struct Flags {
    /// The reason, word for word as `rejects list` prints it
    #[arg(long, value_name = "TEXT")]
    reason: String,
    /// Only rejects of this segment; may be given more than once
    #[arg(long = "segment", value_name = "SEGMENT")]
    segments: Vec<SegmentId>,
}

pub(super) fn run(flags: &SharedFlags, drop: &Flags) -> Result<ExitCode, Error> {
    let dropped = runtime()?.block_on(async {
        let session = Session::open(flags)?;
        let mut loader = Loader::connect_to_ask(&session.config.database_url()?, &session.config.pipeline).await?;
        let owner = session.owner(None);
        drop_rejects(session.staging(), &owner, &drop.reason, &drop.segments, &mut loader).await
    })?;
    if !flags.quiet {
        let Dropped { rejects, segments, bodies, elsewhere } = dropped;
        let [rejects, segments, bodies] = [rejects, segments, bodies].map(grouped);
        say(format_args!("dropped {rejects} rejects of {segments} segments, and {bodies} bodies that were kept here"));
        for (host, rejects) in elsewhere {
            let rejects = grouped(rejects);
            say(format_args!("not here: the bodies of {rejects} of them, which host {host} recorded"));
        }
    }
    Ok(ExitCode::Done)
}
