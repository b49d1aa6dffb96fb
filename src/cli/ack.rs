//! `pgsluice ack`: deletes from the queue what the ledger says is committed.

use std::sync::Arc;

use super::SharedFlags;
use super::run::reject_route;
use super::session::{End, Session, runtime};
use crate::ack;
use crate::error::Error;
use crate::exit_code::ExitCode;
use crate::load::LoadMode;
use crate::queue::Sqs;

pub(super) fn run(flags: &SharedFlags) -> Result<ExitCode, Error> {
    runtime()?.block_on(async {
        let session = Session::open(flags, LoadMode::Once)?;
        let queue_url = session.config.queue_url()?.to_owned();
        let mut loaders = session.connect_loaders(1).await?;
        let settings = session.config.queue;
        let queue = Sqs::connect(&queue_url, settings.wait_seconds).await?;
        let route = reject_route(&session, &queue).await?;
        let pipeline = Arc::clone(&session.pipeline);
        let end = pipeline.acknowledge_committed(Arc::new(queue), &mut loaders, settings.pollers, route).await;
        ack::expire_archive(&session.pipeline.staging, session.config.spool.archive_days)?;
        let title = format!("spool → deleted from {}", session.config.queue_name().unwrap_or_default());
        let end = end.map(|()| End::without_queue(&session.stop));
        session.finish(&title, end)
    })
}
