//! `pgsluice run`: the main job.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::session::{End, Session, runtime};
use super::{LimitFlags, SharedFlags};
use crate::ack::{self, RejectRoute};
use crate::config::OnReject;
use crate::drain::{Drain, DrainEnd, Proof};
use crate::error::Error;
use crate::exit_code::ExitCode;
use crate::load::LoadMode;
use crate::queue::{DeadLetterQueue, Depth, InFlight, Sqs};

/// SQS allows 20 s.
const LONGEST_POLL: Duration = Duration::from_secs(21);

pub(super) fn run(flags: &SharedFlags, limits: &LimitFlags) -> Result<ExitCode, Error> {
    let runtime = runtime()?;
    let code = runtime.block_on(async {
        let session = Session::open(flags, LoadMode::Once)?;
        let queue_url = session.config.queue_url()?.to_owned();
        let plan = session.plan()?;
        let loaders = session.connect_loaders(session.config.load.connections).await?;
        let queue = Sqs::connect(&queue_url, session.config.queue.wait_seconds).await?;
        let route = reject_route(&session, &queue).await?;
        let told_to_stop = stop_after(&session.stop, limits.max_duration);
        // The drain cancels its own token at its end, which is no reason to hurry.
        let drain = drain(&session, queue, limits, Proof::Acknowledged, told_to_stop.child_token());
        let (keeper, all_sealed) = (drain.keeper(), drain.all_sealed.clone());
        let grace = session.config.queue.shutdown_grace;
        let staging = session.pipeline.staging.clone();

        let stages = Arc::clone(&session.pipeline).run(drain, plan, loaders, route);
        let end = tokio::select! {
            end = stages => end.map(end_of_drain),
            () = grace_is_over(&told_to_stop, grace, &all_sealed) => Ok(end_of_drain(DrainEnd::Stopped)),
        };
        // Others need not wait for its visibility timeout. It stays in the spool, too; whoever loads it first wins, and
        // the ledger tells the other.
        keeper.release().await;
        let expired = ack::expire_archive(&staging, session.config.spool.archive_days);
        let end = end.and_then(|end| expired.map(|_| end).map_err(Error::from));
        let queue = session.config.queue_name().unwrap_or_default();
        let title = format!("{queue} → {}", session.config.pipeline.table);
        session.finish(&title, end)
    });
    // A transform that outlives the grace is not waited for: its files have no name yet.
    runtime.shutdown_background();
    code
}

/// Finds what rejected messages need: a dead-letter queue that is there, or a redrive policy.
pub(super) async fn reject_route(session: &Session, queue: &Sqs) -> Result<RejectRoute, Error> {
    Ok(match &session.config.pipeline.rejects.on_reject {
        OnReject::Keep => RejectRoute::default(),
        OnReject::Leave => RejectRoute { max_receives: Some(queue.max_receives().await?), ..RejectRoute::default() },
        OnReject::Send { dlq_url } => {
            RejectRoute { dead_letters: Some(DeadLetterQueue::connect(dlq_url).await?), ..RejectRoute::default() }
        }
    })
}

/// A drain with the session's settings.
pub(super) fn drain(
    session: &Session,
    queue: Sqs,
    limits: &LimitFlags,
    proof: Proof,
    stop: CancellationToken,
) -> Drain<Sqs> {
    let counters = Arc::clone(&session.pipeline.counters);
    let in_flight = counters.in_flight.get_or_init(|| Arc::new(InFlight::with_cap(session.config.queue.max_in_flight)));
    Drain {
        queue: Arc::new(queue),
        staging: session.pipeline.staging.clone(),
        settings: session.config.queue,
        spool: session.config.spool,
        limits: limits.drain_limits(),
        proof,
        in_flight: Arc::clone(in_flight),
        counters: Arc::clone(&counters),
        stop,
        all_sealed: CancellationToken::new(),
    }
}

/// Cancelled with `stop`, and by itself after `max_duration`.
pub(super) fn stop_after(stop: &CancellationToken, max_duration: Option<Duration>) -> CancellationToken {
    let stop = stop.child_token();
    if let Some(max_duration) = max_duration {
        let timer = stop.clone();
        tokio::spawn(async move {
            tokio::time::sleep(max_duration).await;
            timer.cancel();
        });
    }
    stop
}

/// What the end of a drain means for the exit code and the summary.
pub(super) fn end_of_drain(end: DrainEnd) -> End {
    let remark = match end {
        DrainEnd::Empty => "the queue is empty".to_owned(),
        DrainEnd::NotEmpty(Depth { visible, in_flight, delayed }) => format!(
            "the queue is not empty: {visible} visible, {in_flight} in flight with other consumers, {delayed} delayed"
        ),
        DrainEnd::Stopped => "stopped before the queue was empty; what was received is safe".to_owned(),
        DrainEnd::DiskFull => "the staging directory's disk is full, so receiving stopped; what was received is safe; \
             make room, or lower spool.segment_max_bytes, and run again"
            .to_owned(),
    };
    let empty = end == DrainEnd::Empty;
    End { queue_empty: Some(empty), work_left: !empty, remark: Some(remark) }
}

/// A grace shorter than a long poll still waits for the receives under way: they would get what is released.
async fn grace_is_over(stop: &CancellationToken, grace: Duration, all_sealed: &CancellationToken) {
    stop.cancelled().await;
    tokio::time::sleep(grace).await;
    _ = tokio::time::timeout(LONGEST_POLL, all_sealed.cancelled()).await;
}
