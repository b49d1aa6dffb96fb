//! `pgsluice transform`: sealed segments into chunks; needs neither AWS nor Postgres.

use std::sync::Arc;

use super::SharedFlags;
use super::session::{Session, runtime};
use crate::error::Error;
use crate::exit_code::ExitCode;
use crate::spool;

pub(super) fn run(flags: &SharedFlags) -> Result<ExitCode, Error> {
    runtime()?.block_on(async {
        let session = Session::open(flags)?;
        let staging = session.staging();
        spool::recover(staging)?;
        let staged = staging.staged_segments()?;
        let mut segments = staging.sealed_segments()?;
        segments.retain(|segment| staged.binary_search(segment).is_err());
        let end = Arc::clone(&session.stages).transform_sealed(segments, session.plan()?).await;
        let end = end.map(|()| session.end_without_queue());
        session.finish("spool → chunks", end)
    })
}
