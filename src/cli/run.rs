//! `pgsluice run`: the main job.

use std::sync::Arc;
use std::time::Duration;

use clap::Args;

use super::end::End;
use super::session::{Session, runtime};
use super::{KeyFlags, LimitFlags, SharedFlags};
use crate::drain::Proof;
use crate::error::Error;
use crate::exit_code::ExitCode;
use crate::stages::{beside, stop_after};

/// How often a run that follows removes what was kept for long enough. Retention counts in days; each time costs one
/// connection and a few statements.
const EXPIRE_EVERY: Duration = Duration::from_hours(1);

#[derive(Debug, Clone, Args)]
pub(super) struct Flags {
    #[command(flatten)]
    limits: LimitFlags,
    #[command(flatten)]
    keys: KeyFlags,
}

pub(super) fn run(flags: &SharedFlags, run: &Flags) -> Result<ExitCode, Error> {
    let (limits, keys) = (&run.limits, run.keys);
    let runtime = runtime()?;
    let code = runtime.block_on(async {
        let mut session = Session::open(flags)?;
        session.keep_report();
        session.find_queue().await?;
        let owner = session.owner(Some(session.config.queue_url()?));
        let inventory = session.take_inventory(&owner)?;
        let plan = session.plan().await?;
        let spool_key = session.spool_key().await?;
        let loaders = session.connect_loaders_for(&plan, session.config.load.connections, keys).await?;
        let queue = session.connect_queue().await?;
        let route = session.reject_route(&queue).await?;
        let stop = stop_after(&session.stop, limits.max_duration);
        session.expect_of_queue(&queue, limits, inventory.messages(), false);
        // The drain cancels its own token at its end, which is no reason to hurry.
        let drain = session.drain(queue, spool_key, limits, Proof::Acknowledged, stop.child_token())?;
        let ran = Arc::clone(&session.stages).run(drain, inventory, plan, loaders, route, stop);
        let end = if limits.follow {
            Box::pin(beside(ran, EXPIRE_EVERY, async || session.expire().await)).await
        } else {
            let end = ran.await;
            if end.is_ok() {
                session.expire().await;
            }
            end
        };
        let queue = session.config.queue_name().unwrap_or_default();
        let title = format!("{queue} → {}", session.config.pipeline.table);
        let told = session.told(limits);
        let end = end.and_then(|end| Ok(End::of_drain(end, told, session.stages.is_unfinished()?)));
        session.finish(&title, end)
    });
    // A transform that outlives the grace is not waited for: its files have no name yet.
    runtime.shutdown_background();
    code
}
