//! `pgsluice transform`: sealed segments into chunks; needs neither AWS nor Postgres.

use std::sync::Arc;

use super::SharedFlags;
use super::end::End;
use super::session::{Session, runtime};
use crate::error::Error;
use crate::exit_code::ExitCode;

pub(super) fn run(flags: &SharedFlags) -> Result<ExitCode, Error> {
    runtime()?.block_on(async {
        let session = Session::open(flags)?;
        let inventory = session.take_inventory(&session.owner(None))?;
        let end = Arc::clone(&session.stages).transform_sealed(inventory.sealed, session.plan().await?).await;
        let end = end.and_then(|()| {
            let staged = session.staging().staged_segments()?;
            let unfinished = session.staging().sealed_segments()?.iter().any(|id| staged.binary_search(id).is_err());
            Ok(End::without_queue(session.stop.is_cancelled(), unfinished))
        });
        session.finish("spool → chunks", end)
    })
}
