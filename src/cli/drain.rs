//! `pgsluice drain`: from the queue into sealed spool segments, and no further.
//!
//! Always true: while it runs, what it received stays invisible to others, and so does what an earlier drain left in the
//! spool. From its end on, that is for `load` and `ack` to do before the visibility timeout ends; what comes later is
//! delivered again, and recognised.

use tokio::sync::mpsc;

use super::end::End;
use super::session::{Session, runtime};
use super::{LimitFlags, SharedFlags};
use crate::drain::Proof;
use crate::error::Error;
use crate::exit_code::ExitCode;
use crate::stages::stop_after;

pub(super) fn run(flags: &SharedFlags, limits: &LimitFlags) -> Result<ExitCode, Error> {
    runtime()?.block_on(async {
        let mut session = Session::open(flags)?;
        session.find_queue().await?;
        let inventory = session.take_inventory(&session.owner(Some(session.config.queue_url()?)))?;
        let spool_key = session.spool_key().await?;
        let queue = session.connect_queue().await?;
        let stop = stop_after(&session.stop, limits.max_duration);
        session.expect_of_queue(&queue, limits, 0, true);
        let drain = session.drain(queue, spool_key, limits, Proof::Spooled, stop)?;
        inventory.inherited_by(&drain.in_flight);
        let keeper = drain.keeper();

        let (sealed, mut segments) = mpsc::channel(1);
        let spooled = async { while segments.recv().await.is_some() {} };
        let (end, ()) = tokio::select! {
            ended = async { tokio::join!(drain.run(sealed), spooled) } => ended,
            never = keeper.keep() => match never {},
        };
        keeper.release_unsealed().await;
        let title = format!("{} → spool", session.config.queue_name().unwrap_or_default());
        let told = session.told(limits);
        session.finish(&title, end.map(|end| End::of_drain(end, told, false)))
    })
}
