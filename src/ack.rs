//! Deletes from SQS what a [`Committed`] names, and archives the segment.
//!
//! Always true: nothing is deleted without a [`Committed`], which only `load` can make. Deleting twice is harmless,
//! so a lost answer is tried again. A handle that SQS calls stale is no failure: the message was delivered again,
//! and that delivery, recognised as a duplicate, brings the handle that deletes it.
//!
//! A message that a segment holds twice is deleted by both handles, so the newest is among them: SQS accepts that one.
//! Messages of a FIFO group are deleted in their order, as far as they are in one segment: a group has ten in flight at
//! most, and gives no more before they are deleted, so beyond that the order does not matter.
//!
//! On failure the segment stays where it is; the next run finds it in the ledger and acknowledges it again. What SQS
//! confirmed is told answer by answer, so it counts also where a later request fails or the run does not wait for it.

mod lanes;
mod rejected;
#[cfg(test)]
mod tests;

use std::collections::HashSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use backon::{ExponentialBuilder, Retryable};
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use tokio::sync::Semaphore;
use uuid::Uuid;

pub use rejected::RejectRoute;

use crate::advice::Advised;
use crate::blocking::blocking;
use crate::crash_point::CrashPoint;
use crate::durable::Place;
use crate::error::Error;
use crate::load::{Committed, LoadError};
use crate::queue::{Queue, QueueError};
use crate::segment::SegmentId;
use crate::spool::{Receipts, SpoolError, message_uuid, sealed_segment};
use crate::staging::Staging;
use lanes::Lanes;

/// Tries of a delete that fails by SQS's fault, beyond the first. With the delays below they take about 20 s.
const RETRIES: usize = 7;

/// The deletes that may be under way at a time, of all segments together.
#[derive(Debug)]
pub struct Deletes {
    most: usize,
    free: Semaphore,
}

impl Deletes {
    /// `parallel` requests, at least one.
    #[must_use]
    pub fn at_most(parallel: usize) -> Self {
        let most = parallel.max(1);
        Self { most, free: Semaphore::new(most) }
    }
}

/// What became of deletes: of a segment's, or of those in one answer.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Acknowledged {
    /// Deletes that SQS confirmed.
    pub deleted: u64,
    /// Handles that are not valid any more; a later delivery brings the valid one.
    pub stale: u64,
    /// Deletes that failed for good.
    pub failed: u64,
    /// Requests that were tried again.
    pub retries: u64,
    /// Answers in which SQS asked for patience.
    pub throttles: u64,
}

/// Deletes the messages of a committed segment, in as many parallel batches as `deletes` allows, and archives the
/// segment if no delete failed. Rejects take their `route`. `tell` hears of each answer when it comes.
#[tracing::instrument(skip_all, fields(segment = %committed.segment(), messages = committed.received().cast_signed()))]
pub async fn acknowledge<Q: Queue>(
    queue: &Q,
    staging: &Staging,
    committed: &Committed,
    deletes: &Deletes,
    route: &RejectRoute,
    tell: &(impl Fn(Acknowledged) + Sync),
) -> Result<(), Error> {
    // Acknowledged before: it lies in the archive.
    let Some(file) = staging.find_unacknowledged(committed.segment()) else { return Ok(()) };
    check_counts(staging, committed).await?;
    route.send(&file, committed).await?;
    let left_in_queue: HashSet<Uuid> = committed.left_in_queue().iter().copied().collect();
    let failed = AtomicU64::new(0);
    let tell = |part: Acknowledged| {
        failed.fetch_add(part.failed, Ordering::AcqRel);
        tell(part);
    };
    delete_all(queue, &file, &left_in_queue, deletes, &tell).await?;
    let receives = if left_in_queue.is_empty() { 0 } else { rejected::release(queue, &file, &left_in_queue).await? };
    if failed.into_inner() == 0 {
        archive(staging, committed.segment()).await?;
    }
    Ok(route.check(receives)?)
}

/// The transaction counted each message of the file: else the file is not what was loaded.
async fn check_counts(staging: &Staging, committed: &Committed) -> Result<(), Error> {
    let (files, segment) = (staging.clone(), committed.segment());
    let sealed = blocking(move || sealed_segment(&files, segment)).await?.messages;
    let ledger = committed.received();
    if sealed == ledger { Ok(()) } else { Err(LoadError::CountsDiffer { segment, ledger, sealed }.into()) }
}

/// Moves a segment that is done with SQS into the archive.
pub async fn archive(staging: &Staging, segment: SegmentId) -> Result<(), Error> {
    let staging = staging.clone();
    Ok(blocking(move || staging.archive_segment(segment)).await?)
}

/// No message of the segment has a receipt handle: it was imported.
pub async fn has_nothing_to_delete(staging: &Staging, segment: SegmentId) -> Result<bool, SpoolError> {
    let Some(file) = staging.find_unacknowledged(segment) else { return Ok(true) };
    blocking(move || Ok(Receipts::open(&file)?.next().transpose()?.is_none())).await
}

/// Deletes the messages of a segment file, except those that are left in the queue. After a request that fails for good
/// no further one begins; those under way are waited for, because SQS may carry them out.
async fn delete_all<Q: Queue>(
    queue: &Q,
    segment: &Place,
    left_in_queue: &HashSet<Uuid>,
    deletes: &Deletes,
    tell: &(impl Fn(Acknowledged) + Sync),
) -> Result<(), Error> {
    let mut receipts = Receipts::open(segment)?;
    let mut lanes = Lanes::new(deletes.most);
    let mut running = FuturesUnordered::new();
    let (mut outcome, mut all_read) = (Ok(()), false);
    loop {
        while outcome.is_ok() && !all_read && lanes.has_room() {
            match receipts.next().transpose() {
                Ok(Some(receipt)) if left_in_queue.contains(&message_uuid(&receipt.message_id)) => {}
                Ok(Some(receipt)) => lanes.push(receipt),
                Ok(None) => all_read = true,
                Err(error) => outcome = Err(error.into()),
            }
        }
        while outcome.is_ok()
            && let Some((lane, handles)) = lanes.take(all_read)
        {
            running.push(async move {
                // The semaphore is never closed, so waiting cannot fail.
                let _turn = deletes.free.acquire().await;
                (lane, delete_batch(queue, handles, tell).await)
            });
        }
        let Some((lane, batch)) = running.next().await else { return outcome };
        lanes.done(lane);
        outcome = outcome.and(batch.map_err(Error::from));
    }
}

/// Deletes up to ten messages.
///
/// A request whose answer is lost is sent again: a delete that was carried out before succeeds again. Entries that
/// failed by SQS's fault are tried again by themselves. A request that fails for good is the caller's error; until the
/// next run deletes these messages, they may be delivered again, and are recognised.
async fn delete_batch<Q: Queue>(
    queue: &Q,
    handles: Vec<String>,
    tell: &impl Fn(Acknowledged),
) -> Result<(), QueueError> {
    let mut remaining = handles;
    for (retry, delay) in (0..).zip(std::iter::once(Duration::ZERO).chain(backoff())) {
        tokio::time::sleep(delay).await;
        let failed = (|| queue.delete(&remaining))
            .retry(retry_policy())
            .when(QueueError::is_transient)
            .notify(|error, _| {
                let throttles = u64::from(error.is_throttling());
                tell(Acknowledged { retries: 1, throttles, ..Acknowledged::default() });
            })
            .await?;
        CrashPoint::Delete.pass();
        let deleted = (remaining.len() - failed.len().min(remaining.len())) as u64;
        let mut answer = Acknowledged { deleted, retries: u64::from(retry > 0), ..Acknowledged::default() };
        let mut again = Vec::new();
        for entry in failed {
            match remaining.get(entry.index) {
                _ if entry.is_stale_handle() => answer.stale += 1,
                Some(handle) if entry.is_transient() => again.push(handle.clone()),
                _ => {
                    tracing::warn!(code = entry.code, "SQS refused to delete a message");
                    answer.failed += 1;
                }
            }
        }
        tell(answer);
        if again.is_empty() {
            return Ok(());
        }
        remaining = again;
    }
    tracing::warn!(messages = remaining.len(), "SQS failed to delete messages again and again");
    tell(Acknowledged { failed: remaining.len() as u64, ..Acknowledged::default() });
    Ok(())
}

/// Patient, because a delete that is given up costs a redelivery; limited, because a stopping run waits for it.
fn retry_policy() -> ExponentialBuilder {
    ExponentialBuilder::default()
        .with_min_delay(Duration::from_millis(100))
        .with_max_delay(Duration::from_secs(8))
        .with_max_times(RETRIES)
        .with_jitter()
}

fn backoff() -> impl Iterator<Item = Duration> {
    use backon::BackoffBuilder;
    retry_policy().build()
}
