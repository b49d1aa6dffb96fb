//! How many rejects a run may still find: `max_rejects`, counted over all its loaders.
//!
//! Always true: a segment's rejects are counted before its COMMIT, so one that brings the run beyond the limit is
//! rolled back; what did not commit is not counted. While rows are still being isolated, a segment is asked for with what
//! it has so far, so that one with far too many is given up early.

use std::sync::{Mutex, MutexGuard, PoisonError};

use super::LoadError;
use super::committed::SegmentRecord;
use crate::config::MaxRejects;
use crate::segment::SegmentId;

/// What a run has counted so far.
#[derive(Debug, Default)]
pub struct RejectAllowance {
    max_rejects: Option<MaxRejects>,
    counts: Mutex<Counts>,
}

#[derive(Debug, Clone, Copy, Default)]
struct Counts {
    messages: u64,
    rejects: u64,
}

/// A segment that was counted. Dropped without [`Admission::committed`], it does not count any more.
#[derive(Debug)]
pub(super) struct Admission<'a> {
    allowance: &'a RejectAllowance,
    counts: Counts,
}

impl RejectAllowance {
    /// Without a limit all are admitted.
    #[must_use]
    pub fn new(max_rejects: Option<MaxRejects>) -> Self {
        Self { max_rejects, counts: Mutex::default() }
    }

    /// Counts a segment that is about to commit, or refuses it.
    pub(super) fn admit(&self, segment: &SegmentRecord) -> Result<Admission<'_>, LoadError> {
        let added = Counts { messages: segment.received, rejects: segment.rejected };
        let mut counts = self.lock();
        *counts = self.sum(*counts, segment.segment, added)?;
        Ok(Admission { allowance: self, counts: added })
    }

    /// Refuses a segment that could not be admitted with the rejects that it has so far. Counts nothing.
    pub(super) fn ask(&self, segment: SegmentId, messages: u64, rejects: u64) -> Result<(), LoadError> {
        let counts = *self.lock();
        self.sum(counts, segment, Counts { messages, rejects }).map(|_| ())
    }

    fn sum(&self, counts: Counts, segment: SegmentId, added: Counts) -> Result<Counts, LoadError> {
        let sum = Counts { messages: counts.messages + added.messages, rejects: counts.rejects + added.rejects };
        match self.max_rejects {
            // A segment without rejects of its own breaks no limit.
            Some(limit) if added.rejects > 0 && sum.rejects > limit.of(sum.messages) => {
                let Counts { messages, rejects } = sum;
                Err(LoadError::TooManyRejects { segment, rejects, messages, limit })
            }
            _ => Ok(sum),
        }
    }

    /// Counts a segment that turned out to be committed.
    pub(super) fn count(&self, segment: &SegmentRecord) {
        let mut counts = self.lock();
        counts.messages += segment.received;
        counts.rejects += segment.rejected;
    }

    /// A thread that panicked while holding the lock left whole counts.
    fn lock(&self) -> MutexGuard<'_, Counts> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Admission<'_> {
    /// The segment has committed.
    pub(super) fn committed(mut self) {
        self.counts = Counts::default();
    }
}

impl Drop for Admission<'_> {
    fn drop(&mut self) {
        let mut counts = self.allowance.lock();
        counts.messages -= self.counts.messages;
        counts.rejects -= self.counts.rejects;
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::reason::ReasonTally;

    fn segment(received: u64, rejected: u64) -> SegmentRecord {
        SegmentRecord {
            segment: SegmentId::now(),
            received,
            loaded: received - rejected,
            duplicates: 0,
            rejected,
            reasons: ReasonTally::default(),
            dropped: 0,
            left_in_queue: Arc::default(),
            rejects: Arc::default(),
        }
    }

    #[test]
    fn only_what_committed_counts() {
        let allowance = RejectAllowance::new(Some(MaxRejects::Count(3)));
        drop(allowance.admit(&segment(10, 3)).unwrap());
        allowance.admit(&segment(10, 2)).unwrap().committed();
        assert!(allowance.admit(&segment(10, 2)).is_err());
        allowance.admit(&segment(10, 1)).unwrap().committed();
        assert!(allowance.admit(&segment(1, 1)).is_err());
    }

    #[test]
    fn a_segment_is_asked_for_with_what_it_has_so_far_and_not_counted() {
        let allowance = RejectAllowance::new(Some(MaxRejects::Count(3)));
        allowance.admit(&segment(10, 1)).unwrap().committed();
        for _ in 0..2 {
            assert!(allowance.ask(SegmentId::now(), 10, 2).is_ok());
            assert!(allowance.ask(SegmentId::now(), 10, 3).is_err());
        }
        assert!(RejectAllowance::new(None).ask(SegmentId::now(), 10, 10).is_ok());
    }

    #[test]
    fn a_segment_without_rejects_is_never_one_too_many() {
        let allowance = RejectAllowance::new(Some(MaxRejects::Count(0)));
        // Its answer was lost, and the ledger had it.
        allowance.count(&segment(10, 5));
        assert!(allowance.admit(&segment(10, 0)).is_ok());
        assert!(allowance.admit(&segment(10, 1)).is_err());
    }
}
