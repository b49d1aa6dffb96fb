//! What a transaction does with a segment, before COMMIT and after it: two types, so that nothing that is not stored
//! can be taken for stored.
//!
//! Always true: a [`Committed`] has two makers. [`Committed::confirmed`] is called once the COMMIT of a record is
//! confirmed, by its answer or, where that was lost, by the ledger. [`Committed::found_in_ledger`] is called with what
//! the ledger holds.

use std::sync::Arc;

use uuid::Uuid;

use super::ledger::RejectRow;
use crate::reason::ReasonTally;
use crate::segment::SegmentId;

/// What becomes of a segment's messages, once its transaction has committed.
///
/// received = loaded + duplicates + rejected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct SegmentRecord {
    pub(super) segment: SegmentId,
    pub(super) received: u64,
    pub(super) loaded: u64,
    pub(super) duplicates: u64,
    pub(super) rejected: u64,
    /// Of the rejected; empty in a record that the ledger holds.
    pub(super) reasons: ReasonTally,
    /// Of the rejected: those that a person gave up since.
    pub(super) dropped: u64,
    pub(super) left_in_queue: Arc<[Uuid]>,
    pub(super) rejects: Arc<[RejectRow]>,
}

/// Proof that a segment's transaction has committed, and what became of its messages.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Committed {
    record: SegmentRecord,
    was_known: bool,
}

impl Committed {
    /// The record's COMMIT is confirmed.
    pub(super) const fn confirmed(record: SegmentRecord) -> Self {
        Self { record, was_known: false }
    }

    /// The ledger holds the record, from an earlier load.
    pub(super) const fn found_in_ledger(record: SegmentRecord) -> Self {
        Self { record, was_known: true }
    }

    /// It recognised these rejects among its duplicates.
    #[must_use]
    pub(super) fn with_more_rejects(mut self, more: impl IntoIterator<Item = RejectRow>) -> Self {
        self.record.rejects = self.record.rejects.iter().cloned().chain(more).collect();
        self
    }

    /// The segment.
    #[must_use]
    pub const fn segment(&self) -> SegmentId {
        self.record.segment
    }

    /// Messages in the segment.
    #[must_use]
    pub const fn received(&self) -> u64 {
        self.record.received
    }

    /// Rows that its transaction added to the table.
    #[must_use]
    pub const fn loaded(&self) -> u64 {
        self.record.loaded
    }

    /// Messages that had been loaded or rejected before, or that were there twice.
    #[must_use]
    pub const fn duplicates(&self) -> u64 {
        self.record.duplicates
    }

    /// Messages that could not become rows.
    #[must_use]
    pub const fn rejected(&self) -> u64 {
        self.record.rejected
    }

    /// Why they could not. Of a segment that was known before, the ledger alone tells.
    #[must_use]
    pub const fn reasons(&self) -> &ReasonTally {
        &self.record.reasons
    }

    /// Messages that were rejected and not recorded: they stay in the queue, for its redrive policy.
    #[must_use]
    pub fn left_in_queue(&self) -> &[Uuid] {
        &self.record.left_in_queue
    }

    /// How many rejects the ledger has of the segment, unless somebody removed some by hand.
    #[must_use]
    pub fn recorded_rejects(&self) -> u64 {
        self.record.rejected.saturating_sub(self.record.left_in_queue.len() as u64 + self.record.dropped)
    }

    /// The rejects that it recorded, or recognised, where they are to be sent to a dead-letter queue; else none.
    #[must_use]
    pub fn rejects(&self) -> &[RejectRow] {
        &self.record.rejects
    }

    /// Whether the ledger knew the segment before, so that the counts are those of an earlier load.
    #[must_use]
    pub const fn was_known(&self) -> bool {
        self.was_known
    }
}
