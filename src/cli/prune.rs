//! `pgsluice prune`: removes what was kept for long enough, here and in the ledger.

use super::SharedFlags;
use super::session::{Session, runtime};
use crate::error::Error;
use crate::exit_code::ExitCode;
use crate::staging::StagingError;

pub(super) fn run(flags: &SharedFlags) -> Result<ExitCode, Error> {
    runtime()?.block_on(async {
        let session = Session::open(flags).map_err(in_use)?;
        session.stages.expire(&session.config.database_url()?, &session.config.pipeline).await?;
        Ok(ExitCode::Done)
    })
}

fn in_use(error: Error) -> Error {
    match error {
        Error::Staging(StagingError::Locked { path }) => StagingError::LockedByRun { path }.into(),
        other => other,
    }
}
