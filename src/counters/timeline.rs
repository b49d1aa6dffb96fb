//! When each segment was in each stage, of as many segments as a page can show.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::{RunStage, Thinned};
use crate::segment::SegmentId;

/// Of a run with more segments, every second, fourth, … one is kept.
pub const TIMED_SEGMENTS: usize = 300;

/// When a segment was in each stage.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SegmentTimes {
    /// Which one.
    pub segment: SegmentId,
    /// Its messages.
    pub messages: u64,
    /// For each of [`RunStage::ALL`], from when to when it was there, since the start of the run.
    pub stages: [Option<(Duration, Duration)>; 4],
}

/// The times of a run's segments.
#[derive(Debug)]
pub(super) struct Timeline(Mutex<Thinned<SegmentTimes>>);

impl Default for Timeline {
    fn default() -> Self {
        Self(Mutex::new(Thinned::of_twice(TIMED_SEGMENTS / 2)))
    }
}

impl Timeline {
    /// A segment entered the run.
    pub(super) fn enter(&self, segment: SegmentId, messages: u64) {
        self.lock().push(SegmentTimes { segment, messages, stages: [None; 4] });
    }

    /// A segment was in this stage.
    pub(super) fn was_in(&self, stage: RunStage, segment: SegmentId, from: Duration, to: Duration) {
        // A segment that entered lately stands at the end.
        if let Some(times) = self.lock().kept_mut().iter_mut().rev().find(|times| times.segment == segment) {
            times.stages[stage as usize] = Some((from, to));
        }
    }

    pub(super) fn segments(&self) -> Vec<SegmentTimes> {
        self.lock().kept().to_vec()
    }

    fn lock(&self) -> MutexGuard<'_, Thinned<SegmentTimes>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
