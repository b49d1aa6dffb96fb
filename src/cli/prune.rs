//! `pgsluice prune`: removes what was kept for long enough, here and in the ledger.

use super::SharedFlags;
use super::session::{Session, runtime};
use crate::error::Error;
use crate::exit_code::ExitCode;
use crate::load::Loader;

pub(super) fn run(flags: &SharedFlags) -> Result<ExitCode, Error> {
    runtime()?.block_on(async {
        let session = Session::open(flags)?;
        session.stages.expire()?;
        let mut loader = Loader::connect_to_ask(&session.config.database_url()?, &session.config.pipeline).await?;
        loader.prune().await?;
        Ok(ExitCode::Done)
    })
}
