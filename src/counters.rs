//! Live counts of a run, shared by its stages.
//!
//! Always true at the end of a run: received = loaded + duplicates + rejected + pending. `received` counts what the
//! spool sealed, `pending` what of it did not commit, the others what Postgres says it committed; so a message that
//! got lost on the way shows.

mod stage;
mod thinned;
mod timeline;

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

pub use stage::{RunStage, StageCounters, StageCounts};
pub use thinned::Thinned;
pub use timeline::{SegmentTimes, TIMED_SEGMENTS};

use crate::in_flight::InFlight;
use crate::load::Committed;
use crate::reason::ReasonTally;
use crate::segment::SegmentId;
use crate::spool::SealedSegment;
use timeline::Timeline;

/// Live counts of a run, shared by its stages.
#[derive(Debug)]
pub struct Counters {
    started: Instant,
    received: AtomicU64,
    loaded: AtomicU64,
    duplicates: AtomicU64,
    rejected: AtomicU64,
    acknowledged: AtomicU64,
    ack_failed: AtomicU64,
    segments: AtomicU64,
    bytes: AtomicU64,
    retries: AtomicU64,
    throttles: AtomicU64,
    /// Messages by segment that entered and did not commit yet.
    pending: Mutex<HashMap<SegmentId, u64>>,
    reasons: Mutex<ReasonTally>,
    timeline: Timeline,
    expected: OnceLock<Expected>,
    /// What is in flight, where a queue is drained.
    pub in_flight: OnceLock<Arc<InFlight>>,
    /// SQS calls and the writing of spool segments.
    pub drain: StageCounters,
    /// Spool segments into chunks.
    pub transform: StageCounters,
    /// Chunks into Postgres.
    pub load: StageCounters,
    /// Deletes.
    pub ack: StageCounters,
}

/// How much a run has to do, as far as that is known at its beginning.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Expected {
    /// Messages.
    pub messages: u64,
    /// SQS counted them, which is about right, and more may be sent.
    pub is_estimate: bool,
    /// They are done when they are received; otherwise when they are rows, duplicates or rejects.
    pub are_received: bool,
}

/// The counts of a run at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Counts {
    /// Messages that entered this run: from the queue, or from the unfinished segments of an earlier run.
    pub received: u64,
    /// Rows committed.
    pub loaded: u64,
    /// Messages that the ledger knew.
    pub duplicates: u64,
    /// Messages that could not become rows.
    pub rejected: u64,
    /// Messages in the spool that did not commit yet.
    pub pending: u64,
    /// Deletes that SQS confirmed.
    pub acknowledged: u64,
    /// Deletes that failed for good.
    pub ack_failed: u64,
    /// Segments committed.
    pub segments: u64,
    /// Spool bytes that entered.
    pub bytes: u64,
    /// Calls of SQS, and transactions, that were tried again.
    pub retries: u64,
    /// Answers in which SQS asked for patience.
    pub throttles: u64,
    /// Time since the run began.
    pub elapsed: Duration,
}

impl Default for Counters {
    fn default() -> Self {
        Self {
            started: Instant::now(),
            received: AtomicU64::default(),
            loaded: AtomicU64::default(),
            duplicates: AtomicU64::default(),
            rejected: AtomicU64::default(),
            acknowledged: AtomicU64::default(),
            ack_failed: AtomicU64::default(),
            segments: AtomicU64::default(),
            bytes: AtomicU64::default(),
            retries: AtomicU64::default(),
            throttles: AtomicU64::default(),
            pending: Mutex::default(),
            reasons: Mutex::default(),
            timeline: Timeline::default(),
            expected: OnceLock::new(),
            in_flight: OnceLock::new(),
            drain: StageCounters::default(),
            transform: StageCounters::default(),
            load: StageCounters::default(),
            ack: StageCounters::default(),
        }
    }
}

impl Counters {
    /// The run has this to do. The first that is said counts.
    pub fn expect(&self, expected: Expected) {
        _ = self.expected.set(expected);
    }

    /// What the run has to do.
    #[must_use]
    pub fn expected(&self) -> Option<Expected> {
        self.expected.get().copied()
    }

    /// A sealed segment entered: what it holds is pending until it commits.
    pub fn enter(&self, segment: &SealedSegment) {
        add(&self.received, segment.messages);
        add(&self.bytes, segment.bytes);
        self.pending.lock().unwrap_or_else(PoisonError::into_inner).insert(segment.id, segment.messages);
        self.timeline.enter(segment.id, segment.messages);
    }

    /// A segment passed a stage, in which it was since `began`.
    pub fn passed(&self, stage: RunStage, segment: SegmentId, began: Instant) {
        let (from, to) = (began.saturating_duration_since(self.started), self.started.elapsed());
        self.timeline.was_in(stage, segment, from, to);
        self.stage(stage).had_segment(to.saturating_sub(from));
    }

    /// When segments were in each stage: of all, or of every second, fourth, … one.
    #[must_use]
    pub fn segment_times(&self) -> Vec<SegmentTimes> {
        self.timeline.segments()
    }

    /// The counts of a stage.
    #[must_use]
    pub const fn stage(&self, stage: RunStage) -> &StageCounters {
        match stage {
            RunStage::Drain => &self.drain,
            RunStage::Transform => &self.transform,
            RunStage::Load => &self.load,
            RunStage::Ack => &self.ack,
        }
    }

    /// A segment that entered committed.
    pub fn commit(&self, committed: &Committed) {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner).remove(&committed.segment());
        if committed.was_known() {
            add(&self.duplicates, committed.received());
        } else {
            add(&self.loaded, committed.loaded());
            add(&self.duplicates, committed.duplicates());
            add(&self.rejected, committed.rejected());
            add(&self.segments, 1);
            self.lock_reasons().merge(committed.reasons());
        }
    }

    /// A segment that the ledger knows entered: it needs no load, and holds nothing but duplicates.
    pub fn enter_known(&self, committed: &Committed) {
        add(&self.received, committed.received());
        add(&self.duplicates, committed.received());
        self.timeline.enter(committed.segment(), committed.received());
    }

    /// Rejects were tried again, and some of them loaded; the others are rejects for these reasons.
    pub fn readmit(&self, tried: u64, loaded: u64, reasons: &ReasonTally) {
        add(&self.received, tried);
        add(&self.loaded, loaded);
        add(&self.rejected, tried.saturating_sub(loaded));
        self.lock_reasons().merge(reasons);
    }

    /// Why messages could not become rows.
    #[must_use]
    pub fn reasons(&self) -> ReasonTally {
        self.lock_reasons().clone()
    }

    /// Deletes of this number were confirmed, and of that number failed for good.
    pub fn acknowledge(&self, acknowledged: u64, failed: u64) {
        add(&self.acknowledged, acknowledged);
        add(&self.ack_failed, failed);
    }

    /// This number of calls of SQS, or of transactions, were tried again.
    pub fn add_retries(&self, retries: u64) {
        add(&self.retries, retries);
    }

    /// SQS asked for patience this number of times.
    pub fn add_throttles(&self, throttles: u64) {
        add(&self.throttles, throttles);
    }

    /// Whether one of these segments entered and did not commit.
    #[must_use]
    pub fn is_any_pending(&self, segments: &[SegmentId]) -> bool {
        let pending = self.pending.lock().unwrap_or_else(PoisonError::into_inner);
        segments.iter().any(|segment| pending.contains_key(segment))
    }

    fn lock_reasons(&self) -> MutexGuard<'_, ReasonTally> {
        self.reasons.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The counts as they are now.
    #[must_use]
    pub fn counts(&self) -> Counts {
        let get = |counter: &AtomicU64| counter.load(Ordering::Acquire);
        Counts {
            received: get(&self.received),
            loaded: get(&self.loaded),
            duplicates: get(&self.duplicates),
            rejected: get(&self.rejected),
            pending: self.pending.lock().unwrap_or_else(PoisonError::into_inner).values().sum(),
            acknowledged: get(&self.acknowledged),
            ack_failed: get(&self.ack_failed),
            segments: get(&self.segments),
            bytes: get(&self.bytes),
            retries: get(&self.retries),
            throttles: get(&self.throttles),
            elapsed: self.started.elapsed(),
        }
    }
}

fn add(counter: &AtomicU64, amount: u64) {
    counter.fetch_add(amount, Ordering::AcqRel);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_entered_and_did_not_commit_is_pending() {
        let counters = Counters::default();
        counters.enter(&SealedSegment { id: SegmentId::now(), messages: 5, bytes: 100, seal: None });
        let counts = counters.counts();
        assert_eq!((counts.received, counts.pending), (5, 5));
    }
}
