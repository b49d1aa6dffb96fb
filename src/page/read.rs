//! A report as the page reads it: of this version or an earlier one, which has fewer keys.

use jiff::Timestamp;
use serde::Deserialize;

/// A run's `report.json`.
#[derive(Debug, Clone, Deserialize)]
#[allow(missing_docs, reason = "the report's keys, which `report` documents")]
pub struct ReadReport {
    pub run_id: Option<String>,
    pub version: Option<String>,
    pub host: Option<String>,
    pub pipeline: Option<String>,
    pub queue: Option<String>,
    pub started_at: Option<Timestamp>,
    pub ended_by: Option<String>,
    pub error: Option<ReadError>,
    pub received: u64,
    pub loaded: u64,
    pub duplicates: u64,
    pub rejected: u64,
    #[serde(default)]
    pub rejects_by_reason: Vec<ReadRejects>,
    pub pending: u64,
    pub acknowledged: u64,
    #[serde(default)]
    pub ack_failed: u64,
    pub segments: u64,
    pub seconds: f64,
    #[serde(default)]
    pub bytes: u64,
    #[serde(default)]
    pub retries: u64,
    #[serde(default)]
    pub throttles: u64,
    pub stages: ReadStages,
    pub in_flight: Option<ReadInFlight>,
    pub exit_code: Option<u8>,
    #[serde(default)]
    pub samples: Vec<ReadSample>,
    #[serde(default)]
    pub segment_times: Vec<ReadSegment>,
}

#[derive(Debug, Clone, Deserialize)]
#[allow(missing_docs, reason = "the report's keys, which `report` documents")]
pub struct ReadError {
    pub message: String,
    pub hint: Option<String>,
}

#[derive(Debug, Clone, Deserialize)]
#[allow(missing_docs, reason = "the report's keys, which `report` documents")]
pub struct ReadRejects {
    pub stage: String,
    pub field: Option<String>,
    pub reason: String,
    pub count: u64,
}

#[derive(Debug, Clone, Deserialize)]
#[allow(missing_docs, reason = "the report's keys, which `report` documents")]
pub struct ReadStages {
    pub drain: ReadStage,
    pub transform: ReadStage,
    pub load: ReadStage,
    pub ack: ReadStage,
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[allow(missing_docs, reason = "the report's keys, which `report` documents")]
pub struct ReadStage {
    pub seconds_busy: f64,
    pub seconds_waiting: f64,
    pub items: u64,
    #[serde(default)]
    pub bytes: u64,
}

#[derive(Debug, Clone, Deserialize)]
#[allow(missing_docs, reason = "the report's keys, which `report` documents")]
pub struct ReadInFlight {
    pub cap: u64,
    #[serde(default)]
    pub seconds_at_cap: f64,
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[allow(missing_docs, reason = "the report's keys, which `report` documents")]
pub struct ReadSample {
    pub at: Timestamp,
    pub received: u64,
    pub loaded: u64,
    pub acknowledged: u64,
    pub in_flight: Option<u64>,
}

#[derive(Debug, Clone, Deserialize)]
#[allow(missing_docs, reason = "the report's keys, which `report` documents")]
pub struct ReadSegment {
    pub segment: String,
    pub messages: u64,
    pub drain: Option<[f64; 2]>,
    pub transform: Option<[f64; 2]>,
    pub load: Option<[f64; 2]>,
    pub ack: Option<[f64; 2]>,
}

impl ReadStages {
    /// Each with its name, in the order in which a segment passes them.
    pub(super) const fn named(&self) -> [(&'static str, ReadStage); 4] {
        [("drain", self.drain), ("transform", self.transform), ("load", self.load), ("ack", self.ack)]
    }
}

impl ReadStage {
    /// Of its workers' time.
    pub(super) fn share_busy(&self) -> f64 {
        self.seconds_busy / (self.seconds_busy + self.seconds_waiting).max(f64::MIN_POSITIVE)
    }
}

impl ReadSegment {
    /// Each stage that it passed, in order.
    pub(super) fn stages(&self) -> impl Iterator<Item = (&'static str, [f64; 2])> {
        let stages = [("drain", self.drain), ("transform", self.transform), ("load", self.load), ("ack", self.ack)];
        stages.into_iter().filter_map(|(name, times)| Some((name, times?)))
    }
}

impl ReadReport {
    /// Messages a second over the whole run.
    pub(super) fn rate(&self) -> f64 {
        #[allow(clippy::cast_precision_loss, reason = "a rate for people")]
        let received = self.received as f64;
        if self.seconds > 0.0 { received / self.seconds } else { 0.0 }
    }
}
