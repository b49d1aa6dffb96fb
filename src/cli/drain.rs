//! `pgsluice drain`: from the queue into sealed spool segments, and no further.

use tokio::sync::mpsc;

use super::run::{drain, end_of_drain, stop_after};
use super::session::{Session, runtime};
use super::{LimitFlags, SharedFlags};
use crate::drain::Proof;
use crate::error::Error;
use crate::exit_code::ExitCode;
use crate::load::LoadMode;
use crate::queue::Sqs;
use crate::spool;

pub(super) fn run(flags: &SharedFlags, limits: &LimitFlags) -> Result<ExitCode, Error> {
    runtime()?.block_on(async {
        let session = Session::open(flags, LoadMode::Once)?;
        let queue_url = session.config.queue_url()?.to_owned();
        let queue = Sqs::connect(&queue_url, session.config.queue.wait_seconds).await?;
        spool::recover(&session.pipeline.staging)?;
        let stop = stop_after(&session.stop, limits.max_duration);
        let drain = drain(&session, queue, limits, Proof::Spooled, stop);

        let (sealed, mut segments) = mpsc::channel(1);
        let (end, ()) = tokio::join!(drain.run(sealed), async { while segments.recv().await.is_some() {} });
        let title = format!("{} → spool", session.config.queue_name().unwrap_or_default());
        session.finish(&title, end.map(end_of_drain))
    })
}
