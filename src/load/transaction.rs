//! What one transaction of a load does, from its first statement to the one before COMMIT.
//!
//! It writes in one order: ledger messages, rows, rejects, and the segment last. Nothing counts before COMMIT but the
//! reject file, which the next attempt replaces.

use std::sync::Arc;
use std::time::SystemTime;

use tokio_postgres::Transaction;

use super::allowance::RejectAllowance;
use super::committed::SegmentRecord;
use super::isolate::{Isolated, RejectLimit, RowCopy, Tried};
use super::ledger::{Ledger, NewReject, RejectRow};
use super::message_keys::SegmentKeys;
use super::target::Target;
use super::turn::Turn;
use super::{LoadError, LoadMode, rejects};
use crate::blocking::blocking;
use crate::config::Dedupe;
use crate::crash_point::CrashPoint;
use crate::segment::SegmentId;
use crate::staging::Staging;

/// A segment, and what the attempts at it have learned.
pub(super) struct Work<'a> {
    pub(super) staging: &'a Staging,
    pub(super) segment: SegmentId,
    pub(super) mode: LoadMode,
    pub(super) keys: Arc<SegmentKeys>,
    /// Rejects are not recorded, because the queue's redrive policy takes care of them.
    pub(super) leave_rejects: bool,
    /// A message was in the ledger already, so messages are claimed one by one.
    pub(super) claim: bool,
    pub(super) turn: Turn,
    /// The time of the transaction whose COMMIT was sent and not answered.
    pub(super) in_doubt: Option<SystemTime>,
}

/// How far a transaction came.
pub(super) enum Filled {
    /// The ledger knows the segment, from an earlier load.
    SegmentKnown(SegmentRecord),
    /// The ledger holds what an earlier attempt of this load recorded: its COMMIT succeeded, and the answer was lost.
    CommittedBefore(SegmentRecord),
    /// The ledger knows a message, or the segment holds it twice: roll back, and claim.
    MessageKnown,
    /// This is so after COMMIT. With the transaction's time, by which its record can be told from another's.
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
    pub(super) ledger: Ledger,
    pub(super) target: Target,
    pub(super) dedupe: Dedupe,
}

impl Destination {
    /// Does everything between BEGIN and COMMIT.
    pub(super) async fn fill(
        &self,
        transaction: &Transaction<'_>,
        work: &Work<'_>,
        allowance: &RejectAllowance,
    ) -> Result<Filled, LoadError> {
        if let Some((found, loaded_at)) = self.ledger.find(transaction, &[work.segment]).await?.pop() {
            if work.in_doubt == Some(loaded_at) {
                return Ok(Filled::CommittedBefore(found));
            }
            match work.mode {
                LoadMode::Once => return Ok(Filled::SegmentKnown(found)),
                LoadMode::Again => self.ledger.forget(transaction, work.segment, &work.keys).await?,
            }
        }
        let new = match (self.dedupe, work.claim) {
            (Dedupe::Segment, _) => New::All,
            (Dedupe::Message, true) => New::Claimed(self.ledger.claim(transaction, &work.keys).await?),
            (Dedupe::Message, false) if self.ledger.record(transaction, &work.keys).await? => New::All,
            (Dedupe::Message, false) => return Ok(Filled::MessageKnown),
        };
        CrashPoint::CopyIds.pass();
        let record = self.copy_new(transaction, work, new, allowance).await?;
        let loaded_at = self.ledger.insert_segment(transaction, &record, &work.keys).await?;
        Ok(Filled::Ready(record, loaded_at))
    }

    /// Copies the rows of new messages, and records rejects, in the ledger and in the reject file.
    async fn copy_new(
        &self,
        transaction: &Transaction<'_>,
        work: &Work<'_>,
        new: New,
        allowance: &RejectAllowance,
    ) -> Result<SegmentRecord, LoadError> {
        let (segment, keys) = (work.segment, &work.keys);
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
            // Otherwise only the ledger tells which of them were rejected before.
            allowance: (self.dedupe == Dedupe::Message).then_some(allowance),
            messages: keys.total() as u64,
            rejects: new_rejects.iter().filter(|&&new| new).count() as u64,
        };
        let path = work.staging.chunk(segment).into();
        let copy = RowCopy { transaction, target: &self.target, segment, path, tried: Tried::First(limit) };
        let Isolated { refused, too_many } = copy.run(keys.rows, selected).await?;
        CrashPoint::CopyRows.pass();
        let loaded = (new_rows - refused.len()) as u64;

        let (staging, keys) = (work.staging.clone(), Arc::clone(keys));
        let received = keys.total() as u64;
        let rejects: Vec<NewReject> = blocking(move || {
            let mut rejects = rejects::of_transform(&staging, segment, |index| new_rejects[index])?;
            rejects.extend(rejects::add_refusals(&staging, segment, &keys, refused)?);
            // In one order everywhere, as the keys: two loaders with the same rejects wait for each other at most.
            rejects.sort_unstable_by_key(|reject| reject.key.message_id);
            Ok::<_, LoadError>(rejects)
        })
        .await?;
        // Not before their reasons are in the reject file.
        too_many.map_or(Ok(()), Err)?;
        self.record_rejects(transaction, work, received, loaded, rejects).await
    }

    /// Adds the rejects to the counts, and to the ledger unless they are left to the queue.
    async fn record_rejects(
        &self,
        transaction: &Transaction<'_>,
        work: &Work<'_>,
        received: u64,
        loaded: u64,
        mut rejects: Vec<NewReject>,
    ) -> Result<SegmentRecord, LoadError> {
        let mut recorded = self.ledger.insert_rejects(transaction, work.segment, &rejects).await?;
        if self.dedupe == Dedupe::Segment {
            // Nothing but the reject itself tells that a message was rejected before.
            rejects.retain(|reject| recorded.remove(&reject.key.message_id));
        }
        let rejected = rejects.len() as u64;
        let mut record = SegmentRecord {
            segment: work.segment,
            received,
            loaded,
            duplicates: received - loaded - rejected,
            rejected,
            left_in_queue: Arc::default(),
            rejects: Arc::default(),
        };
        if work.leave_rejects {
            self.ledger.take_back(transaction, work.segment, &rejects).await?;
            record.left_in_queue = rejects.iter().map(|reject| reject.key.message_id).collect();
        } else if self.ledger.with_rejects {
            record.rejects = rejects.into_iter().map(RejectRow::from).collect();
        }
        Ok(record)
    }
}
