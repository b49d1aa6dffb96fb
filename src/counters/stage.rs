//! Live counts of one stage.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use prometheus_client::metrics::histogram::Histogram;

use super::add;

/// Upper ends of the histogram's buckets, in seconds: from a small segment on a fast disk to one that waits for a lock.
const SEGMENT_SECONDS: [f64; 12] = [0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 120.0];

/// A stage of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RunStage {
    /// From SQS into the spool.
    Drain,
    /// Spool segments into chunks.
    Transform,
    /// Chunks into Postgres.
    Load,
    /// Deletes from SQS.
    Ack,
}

impl RunStage {
    /// All stages, in the order in which a segment passes them.
    pub const ALL: [Self; 4] = [Self::Drain, Self::Transform, Self::Load, Self::Ack];

    /// The stage's name in reports and metrics.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Drain => "drain",
            Self::Transform => "transform",
            Self::Load => "load",
            Self::Ack => "ack",
        }
    }
}

/// Live counts of one stage.
#[derive(Debug)]
pub struct StageCounters {
    busy_micros: AtomicU64,
    waiting_micros: AtomicU64,
    items: AtomicU64,
    bytes: AtomicU64,
    segment_seconds: Histogram,
}

/// The counts of one stage at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StageCounts {
    /// Time that its workers worked, or waited for an answer, added up.
    pub busy: Duration,
    /// Time that its workers waited for another stage, added up.
    pub waiting: Duration,
    /// Messages that it finished.
    pub items: u64,
    /// Bytes that it wrote.
    pub bytes: u64,
}

impl Default for StageCounters {
    fn default() -> Self {
        Self {
            busy_micros: AtomicU64::default(),
            waiting_micros: AtomicU64::default(),
            items: AtomicU64::default(),
            bytes: AtomicU64::default(),
            segment_seconds: Histogram::new(SEGMENT_SECONDS),
        }
    }
}

impl StageCounters {
    /// A worker finished this number of messages, and worked on them since `started`.
    pub fn finished(&self, started: Instant, messages: u64) {
        self.worked(started);
        self.did(messages);
    }

    /// A worker finished this number of messages, and works on.
    pub fn did(&self, messages: u64) {
        add(&self.items, messages);
    }

    /// A worker wrote this number of bytes.
    pub fn wrote(&self, bytes: u64) {
        add(&self.bytes, bytes);
    }

    /// A worker worked since `started`, and what it worked on is not finished yet.
    pub fn worked(&self, started: Instant) {
        add(&self.busy_micros, micros_since(started));
    }

    /// A worker found nothing to do since `started`.
    pub fn waited(&self, started: Instant) {
        add(&self.waiting_micros, micros_since(started));
    }

    /// Waits for another stage, and counts the time.
    pub async fn wait_for<T>(&self, other: impl Future<Output = T>) -> T {
        let started = Instant::now();
        let outcome = other.await;
        self.waited(started);
        outcome
    }

    /// A segment was in this stage for this time.
    pub(super) fn had_segment(&self, time: Duration) {
        self.segment_seconds.observe(time.as_secs_f64());
    }

    /// The seconds of each segment, which go on being counted.
    #[must_use]
    pub fn segment_seconds(&self) -> Histogram {
        self.segment_seconds.clone()
    }

    /// The counts as they are now.
    #[must_use]
    pub fn counts(&self) -> StageCounts {
        let get = |counter: &AtomicU64| counter.load(Ordering::Acquire);
        StageCounts {
            busy: Duration::from_micros(get(&self.busy_micros)),
            waiting: Duration::from_micros(get(&self.waiting_micros)),
            items: get(&self.items),
            bytes: get(&self.bytes),
        }
    }
}

fn micros_since(started: Instant) -> u64 {
    u64::try_from(started.elapsed().as_micros()).unwrap_or(u64::MAX)
}
