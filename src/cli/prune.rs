//! `pgsluice prune`: removes what was kept for long enough, here and in the ledger.

use super::SharedFlags;
use super::session::{Session, runtime};
use crate::error::Error;
use crate::exit_code::ExitCode;
use crate::load::Loader;

pub(super) fn run(flags: &SharedFlags) -> Result<ExitCode, Error> {
    runtime()?.block_on(async {
        let session = Session::open(flags)?;
        let (database, pipeline) = (session.config.database_url()?, &session.config.pipeline);
        session.stages.expire(&database, pipeline).await?;
        let mut loader = Loader::connect_to_ask(&database, pipeline).await?;
        loader.prune().await?;
        Ok(ExitCode::Done)
    })
}
