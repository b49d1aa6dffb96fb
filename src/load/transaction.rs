//! What one transaction of a load does, from its first statement to the one before COMMIT.
//!
//! It writes in one order: ledger messages, rows, rejects, and the segment last. Nothing counts before COMMIT except the
//! kept rejects, which the next attempt adds to.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::SystemTime;

use tokio_postgres::Transaction;
use uuid::Uuid;

use super::allowance::RejectAllowance;
use super::committed::SegmentRecord;
use super::isolate::{Isolated, RefusedRow, RejectLimit, RowCopy, Tried};
use super::ledger::{Ledger, NewReject, RejectRow};
use super::message_keys::{MessageKey, SegmentKeys};
use super::target::Target;
use super::turn::Turn;
use super::{LoadError, rejects};
use crate::blocking::blocking;
use crate::config::Dedupe;
use crate::crash_point::CrashPoint;
use crate::segment::SegmentId;
use crate::staging::Staging;

/// A segment, and what the attempts at it have learned.
pub(super) struct Work<'a> {
    pub(super) staging: &'a Staging,
    pub(super) segment: SegmentId,
    pub(super) keys: Arc<SegmentKeys>,
    /// Rejects are not recorded, because the queue's redrive policy takes care of them.
    pub(super) leave_rejects: bool,
    /// A message was in the ledger already, so messages are claimed one by one.
    pub(super) claim: bool,
    pub(super) turn: Turn,
    /// The time of the transaction whose COMMIT was sent and not answered.
    pub(super) in_doubt: Option<SystemTime>,
    /// Kept rejects that are rows once the last attempt has committed.
    pub(super) superseded: HashSet<Uuid>,
}

/// How far a transaction came.
pub(super) enum Filled {
    /// The ledger knows the segment, from an earlier load.
    SegmentKnown(SegmentRecord),
    /// The ledger holds what an earlier attempt of this load recorded: its COMMIT succeeded, and the answer was lost.
    CommittedBefore(SegmentRecord),
    /// The ledger knows a message, or the segment holds it twice: roll back, and claim.
    MessageKnown,
    /// What the ledger will hold of the segment after COMMIT, and the transaction's time, which tells this record from
    /// another process's.
    Ready(SegmentRecord, SystemTime),
}

/// Which messages of a segment are new.
enum New {
    All,
    /// By position.
    Claimed(Vec<bool>),
}

/// Where a pipeline's segments go.
pub(super) struct Destination {
    pub(super) pipeline: String,
    pub(super) ledger: Ledger,
    pub(super) target: Target,
    pub(super) dedupe: Dedupe,
}

impl Destination {
    /// Does everything between BEGIN and COMMIT.
    pub(super) async fn fill(
        &self,
        transaction: &Transaction<'_>,
        segment_no: i32,
        work: &mut Work<'_>,
        allowance: &RejectAllowance,
    ) -> Result<Filled, LoadError> {
        if let Some((found, loaded_at)) = self.ledger.find(transaction, &[work.segment]).await?.pop() {
            return Ok(if work.in_doubt == Some(loaded_at) {
                Filled::CommittedBefore(found)
            } else {
                Filled::SegmentKnown(found)
            });
        }
        let new = match (self.dedupe, work.claim) {
            (Dedupe::Segment, _) => New::All,
            (Dedupe::Message, true) => New::Claimed(self.ledger.claim(transaction, segment_no, &work.keys).await?),
            (Dedupe::Message, false) if self.ledger.record(transaction, segment_no, &work.keys).await? => New::All,
            (Dedupe::Message, false) => return Ok(Filled::MessageKnown),
        };
        CrashPoint::CopyIds.pass();
        let record = self.copy_new(transaction, segment_no, work, new, allowance).await?;
        let loaded_at = self.ledger.insert_segment(transaction, &record, segment_no, &work.keys).await?;
        Ok(Filled::Ready(record, loaded_at))
    }

    /// Copies the rows of new messages, and records rejects, after their bodies are kept.
    async fn copy_new(
        &self,
        transaction: &Transaction<'_>,
        segment_no: i32,
        work: &mut Work<'_>,
        new: New,
        allowance: &RejectAllowance,
    ) -> Result<SegmentRecord, LoadError> {
        let (segment, keys) = (work.segment, Arc::clone(&work.keys));
        let (selected, new_rejects) = match new {
            New::All => (None, vec![true; keys.rejects]),
            New::Claimed(mut claimed) => {
                let rejects = claimed.split_off(keys.rows);
                let rows = claimed.iter().enumerate().filter_map(|(row, &new)| new.then_some(row));
                (Some(rows.collect::<Vec<_>>()), rejects)
            }
        };
        let new_rows = selected.as_ref().map_or(keys.rows, Vec::len);
        let limit = RejectLimit {
            allowance,
            messages: keys.total() as u64,
            rejects: new_rejects.iter().filter(|&&new| new).count() as u64,
            repeats: if self.dedupe == Dedupe::Segment { keys.repeats_at_most() as u64 } else { 0 },
        };
        let chunk = work.staging.chunk(segment);
        let copy = RowCopy { transaction, target: &self.target, segment, chunk, tried: Tried::First(limit) };
        let Isolated { refused: refusals, too_many } = copy.run(keys.rows, selected.clone()).await?;
        CrashPoint::CopyRows.pass();
        let loaded = (new_rows - refusals.len()) as u64;

        let (staging, pipeline) = (work.staging.clone(), self.pipeline.clone());
        let received = keys.total() as u64;
        let (rejects, superseded) = blocking(move || {
            let mut rejects = rejects::of_transform(&staging, segment, |index| new_rejects[index])?;
            let refused: HashSet<usize> = refusals.iter().map(|refusal| refusal.row).collect();
            let refused_keys = keys.at(refusals.iter().map(|refusal| refusal.row))?;
            rejects.extend(
                refused_keys
                    .into_iter()
                    .zip(refusals)
                    .map(|(key, RefusedRow { reason, .. })| NewReject { key, reason }),
            );
            let is_selected =
                |row: usize| selected.as_ref().is_none_or(|selected| selected.binary_search(&row).is_ok());
            let is_loaded = |row: usize| is_selected(row) && !refused.contains(&row);
            let superseded = rejects::keep(&staging, segment, &pipeline, &rejects, &keys, is_loaded)?;
            // Sorted, as the keys are: two loaders with the same rejects wait for each other and never deadlock.
            rejects.sort_unstable_by_key(|reject| reject.key.message_id);
            Ok::<_, LoadError>((rejects, superseded))
        })
        .await?;
        work.superseded = superseded;
        // Not before their reasons are in the reject file.
        too_many.map_or(Ok(()), Err)?;
        self.record_rejects(transaction, segment_no, work, received, loaded, rejects).await
    }

    /// Adds the rejects to the counts, and to the ledger unless they are left to the queue.
    async fn record_rejects(
        &self,
        transaction: &Transaction<'_>,
        segment_no: i32,
        work: &Work<'_>,
        received: u64,
        loaded: u64,
        rejects: Vec<NewReject>,
    ) -> Result<SegmentRecord, LoadError> {
        let mut record = SegmentRecord {
            segment: work.segment,
            received,
            loaded,
            // Of a message that is there twice, and rejected, one is a reject.
            duplicates: received - loaded - rejects.len() as u64,
            rejected: rejects.len() as u64,
            reasons: rejects.iter().map(|reject| &reject.reason).collect(),
            dropped: 0,
            left_in_queue: Arc::default(),
            rejects: Arc::default(),
        };
        if work.leave_rejects {
            let keys: Vec<MessageKey> = rejects.iter().map(|reject| reject.key).collect();
            self.ledger.take_back(transaction, &keys).await?;
            record.left_in_queue = keys.iter().map(|key| key.message_id).collect();
            return Ok(record);
        }
        let mut recorded = self.ledger.insert_rejects(transaction, segment_no, &rejects).await?;
        // The same message twice in one segment, by `dedupe = "segment"`.
        record.duplicates += record.rejected - recorded.len() as u64;
        record.rejected = recorded.len() as u64;
        let counted = rejects.iter().filter(|reject| recorded.remove(&reject.key.message_id));
        record.reasons = counted.map(|reject| &reject.reason).collect();
        if self.ledger.with_rejects {
            record.rejects = rejects.into_iter().map(RejectRow::from).collect();
        }
        Ok(record)
    }
}
