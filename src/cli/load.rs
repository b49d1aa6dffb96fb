//! `pgsluice load`: chunks into Postgres.

use std::sync::Arc;

use super::SharedFlags;
use super::session::{End, Session, runtime};
use crate::error::Error;
use crate::exit_code::ExitCode;
use crate::load::LoadMode;

pub(super) fn run(flags: &SharedFlags) -> Result<ExitCode, Error> {
    runtime()?.block_on(async {
        let session = Session::open(flags, LoadMode::Once)?;
        let loaders = session.connect_loaders(session.config.load.connections).await?;
        let segments = session.pipeline.staging.staged_segments()?;
        let end = Arc::clone(&session.pipeline).load_staged(segments, loaders).await;
        let title = format!("chunks → {}", session.config.pipeline.table);
        let end = end.map(|()| End::without_queue(&session.stop));
        session.finish(&title, end)
    })
}
