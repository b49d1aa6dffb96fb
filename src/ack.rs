//! Deletes from SQS what a [`Committed`] names, and archives the segment.
//!
//! Always true: nothing is deleted without a [`Committed`], which only `load` can make. Deleting twice is harmless,
//! so a lost answer is tried again. A handle that SQS calls stale is no failure: the message was delivered again,
//! and that delivery, recognised as a duplicate, brings the handle that deletes it.
//!
//! On failure the segment stays in the spool; the next run finds it in the ledger and acknowledges it again.

mod rejected;

use std::borrow::Cow;
use std::collections::VecDeque;
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use backon::{ExponentialBuilder, Retryable};
use futures::{StreamExt, TryStreamExt, stream};

pub use rejected::RejectRoute;

use crate::crash_point::CrashPoint;
use crate::error::{Error, QueueError, SpoolError, StagingError};
use crate::load::Committed;
use crate::queue::{BATCH_MESSAGES, Queue};
use crate::spool::SegmentReader;
use crate::staging::{Staging, remove_if_present, rename_durably};
use rejected::Left;

/// Tries of a delete that fails by SQS's fault, beyond the first. Together they take a few seconds.
const RETRIES: usize = 5;

/// What became of a segment's deletes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Acknowledged {
    /// Deletes that SQS confirmed.
    pub deleted: u64,
    /// Handles that are not valid any more; a later delivery brings the valid one.
    pub stale: u64,
    /// Deletes that failed for good.
    pub failed: u64,
}

impl Acknowledged {
    fn and(self, other: Self) -> Self {
        Self {
            deleted: self.deleted + other.deleted,
            stale: self.stale + other.stale,
            failed: self.failed + other.failed,
        }
    }
}

/// Deletes the messages of a committed segment, `parallel` batches at a time, and archives it if none failed. Rejects
/// go their `route`.
pub async fn acknowledge<Q: Queue>(
    queue: &Q,
    staging: &Staging,
    committed: &Committed,
    parallel: usize,
    route: &RejectRoute,
) -> Result<Acknowledged, Error> {
    route.send(staging, committed).await?;
    let left: Left = Arc::new(committed.left().iter().copied().collect());
    let batches = ReceiptBatches::open(&staging.spool(committed.segment()), Arc::clone(&left))?;
    let outcome = stream::iter(batches)
        .map(|handles| async move { Ok::<_, Error>(delete_batch(queue, handles?).await?) })
        .buffer_unordered(parallel)
        .try_fold(Acknowledged::default(), |sum, batch| async move { Ok(sum.and(batch)) })
        .await?;
    let receives = if left.is_empty() { 0 } else { rejected::release(queue, staging, committed, &left).await? };
    if outcome.failed == 0 {
        archive(staging, committed)?;
    }
    route.check(receives)?;
    Ok(outcome)
}

/// Moves a segment that is done with SQS into the archive.
pub fn archive(staging: &Staging, committed: &Committed) -> Result<(), StagingError> {
    rename_durably(&staging.spool(committed.segment()), &staging.archive(committed.segment()))?;
    CrashPoint::Archive.pass();
    Ok(())
}

/// No message of the segment has a receipt handle: it was imported.
pub fn nothing_to_acknowledge(staging: &Staging, committed: &Committed) -> Result<bool, SpoolError> {
    Ok(ReceiptBatches::open(&staging.spool(committed.segment()), Left::default())?.next().transpose()?.is_none())
}

/// Removes archived segments that are older than `archive_days`.
pub fn expire_archive(staging: &Staging, archive_days: u32) -> Result<usize, StagingError> {
    let keep = Duration::from_hours(24 * u64::from(archive_days));
    let mut removed = 0;
    for segment in staging.archived_segments()? {
        let path = staging.archive(segment);
        let modified = fs::metadata(&path).and_then(|metadata| metadata.modified());
        let modified = modified.map_err(StagingError::io("inspect", &path))?;
        if SystemTime::now().duration_since(modified).unwrap_or_default() >= keep {
            remove_if_present(&path)?;
            removed += 1;
        }
    }
    Ok(removed)
}

async fn delete_batch<Q: Queue>(queue: &Q, handles: Vec<String>) -> Result<Acknowledged, QueueError> {
    let mut left = handles;
    let mut outcome = Acknowledged::default();
    for delay in std::iter::once(Duration::ZERO).chain(backoff()) {
        tokio::time::sleep(delay).await;
        // An answer that got lost is asked for again: a delete that was carried out before succeeds again.
        let failed = (|| queue.delete(&left)).retry(retry_policy()).when(QueueError::is_transient).await?;
        CrashPoint::Delete.pass();
        outcome.deleted += (left.len() - failed.len().min(left.len())) as u64;
        let mut again = Vec::new();
        for entry in failed {
            if entry.is_stale_handle() {
                outcome.stale += 1;
            } else if entry.sender_fault {
                tracing::warn!(code = entry.code, "SQS refused to delete a message");
                outcome.failed += 1;
            } else {
                again.extend(left.get(entry.index).cloned());
            }
        }
        if again.is_empty() {
            return Ok(outcome);
        }
        left = again;
    }
    tracing::warn!(messages = left.len(), "SQS failed to delete messages again and again");
    outcome.failed += left.len() as u64;
    Ok(outcome)
}

fn retry_policy() -> ExponentialBuilder {
    ExponentialBuilder::default().with_min_delay(Duration::from_millis(100)).with_max_times(RETRIES).with_jitter()
}

fn backoff() -> impl Iterator<Item = Duration> {
    use backon::BackoffBuilder;
    retry_policy().build()
}

/// The receipt handles of a segment in batches for SQS, read as they are needed; not of messages that are left.
struct ReceiptBatches {
    reader: SegmentReader,
    left: Left,
    handles: VecDeque<String>,
}

impl ReceiptBatches {
    fn open(path: &Path, left: Left) -> Result<Self, SpoolError> {
        Ok(Self { reader: SegmentReader::open(path)?, left, handles: VecDeque::new() })
    }

    fn fill(&mut self) -> Result<(), SpoolError> {
        while self.handles.len() < BATCH_MESSAGES {
            let Some(block) = self.reader.next_block()? else { break };
            let handles: Vec<String> = if self.left.is_empty() {
                block.receipt_handles().map(|handle| handle.map(Cow::into_owned)).collect::<Result<_, _>>()?
            } else {
                rejected::handles_without(&self.left, &block).collect::<Result<_, _>>()?
            };
            // An imported message has no handle: no queue holds it.
            self.handles.extend(handles.into_iter().filter(|handle| !handle.is_empty()));
        }
        Ok(())
    }
}

impl Iterator for ReceiptBatches {
    type Item = Result<Vec<String>, SpoolError>;

    fn next(&mut self) -> Option<Self::Item> {
        if let Err(error) = self.fill() {
            return Some(Err(error));
        }
        let batch: Vec<String> = self.handles.drain(..self.handles.len().min(BATCH_MESSAGES)).collect();
        (!batch.is_empty()).then_some(Ok(batch))
    }
}
