//! `pgsluice ack`: deletes from the queue what the ledger says is committed.

use std::sync::Arc;

use super::SharedFlags;
use super::end::End;
use super::session::{Session, runtime};
use crate::error::Error;
use crate::exit_code::ExitCode;

pub(super) fn run(flags: &SharedFlags) -> Result<ExitCode, Error> {
    runtime()?.block_on(async {
        let mut session = Session::open(flags)?;
        session.find_queue().await?;
        let owner = session.owner(Some(session.config.queue_url()?));
        let inventory = session.take_inventory(&owner)?;
        let mut loaders = session.connect_loaders(1).await?;
        let queue = session.connect_queue().await?;
        let route = session.reject_route(&queue).await?;
        let stages = Arc::clone(&session.stages);
        let parallel = session.config.queue.pollers;
        let end = stages.acknowledge_committed(inventory, Arc::new(queue), &mut loaders, parallel, route).await;
        if end.is_ok() {
            session.expire().await;
        }
        let title = format!("spool → deleted from {}", session.config.queue_name().unwrap_or_default());
        let end = end.and_then(|all_loaded_are_done| {
            let unfinished = !all_loaded_are_done || !session.staging().committed_segments()?.is_empty();
            Ok(End::without_queue(session.stop.is_cancelled(), unfinished))
        });
        session.finish(&title, end)
    })
}
