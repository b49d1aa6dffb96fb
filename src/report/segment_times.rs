//! When segments were in each stage, as the report has it.

use std::time::Duration;

use serde::Serialize;

use super::seconds;
use crate::counters::SegmentTimes;
use crate::segment::SegmentId;

/// When a segment was in each stage: from and to, in seconds since the run began; null for a stage that it did not pass
/// in this run.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[allow(missing_docs, reason = "the stages of the design")]
pub struct SegmentTimesReport {
    /// The segment.
    pub segment: SegmentId,
    /// Its messages.
    pub messages: u64,
    pub drain: Option<[f64; 2]>,
    pub transform: Option<[f64; 2]>,
    pub load: Option<[f64; 2]>,
    pub ack: Option<[f64; 2]>,
}

impl From<SegmentTimes> for SegmentTimesReport {
    fn from(times: SegmentTimes) -> Self {
        let in_seconds = |(from, to): (Duration, Duration)| [seconds(from), seconds(to)];
        let [drain, transform, load, ack] = times.stages.map(|stage| stage.map(in_seconds));
        Self { segment: times.segment, messages: times.messages, drain, transform, load, ack }
    }
}
