//! `pgsluice run`: the main job.

use std::sync::Arc;

use super::end::End;
use super::session::{Session, runtime};
use super::{LimitFlags, SharedFlags};
use crate::ack::RejectRoute;
use crate::drain::Proof;
use crate::error::Error;
use crate::exit_code::ExitCode;
use crate::stages::stop_after;

pub(super) fn run(flags: &SharedFlags, limits: &LimitFlags) -> Result<ExitCode, Error> {
    let runtime = runtime()?;
    let code = runtime.block_on(async {
        let mut session = Session::open(flags)?;
        session.keep_report();
        session.find_queue().await?;
        let owner = session.owner(Some(session.config.queue_url()?));
        let inventory = session.take_inventory(&owner)?;
        let plan = session.plan()?;
        let loaders = session.connect_loaders(session.config.load.connections).await?;
        let queue = session.connect_queue().await?;
        let route = RejectRoute::find(&session.config.pipeline.rejects, &queue).await?;
        let stop = stop_after(&session.stop, limits.max_duration);
        // The drain cancels its own token at its end, which is no reason to hurry.
        let drain = session.drain(queue, limits, Proof::Acknowledged, stop.child_token())?;
        let end = Arc::clone(&session.stages).run(drain, inventory, plan, loaders, route, stop).await;
        if end.is_ok() {
            session.expire().await;
        }
        let queue = session.config.queue_name().unwrap_or_default();
        let title = format!("{queue} → {}", session.config.pipeline.table);
        let (told, unfinished) = (session.told(limits), session.stages.is_unfinished()?);
        session.finish(&title, end.map(|end| End::of_drain(end, told, unfinished)))
    });
    // A transform that outlives the grace is not waited for: its files have no name yet.
    runtime.shutdown_background();
    code
}
