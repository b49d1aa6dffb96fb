//! What a run did: live counters, the sum that must hold, the summary for people and `report.json`.
//!
//! Always true at the end of a run: received = loaded + duplicates + rejected + pending. `received` counts what the
//! spool sealed, `pending` what of it did not commit, the others what Postgres says it committed; so a message that
//! got lost on the way shows.

mod in_flight;

use std::collections::HashMap;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use serde::Serialize;

use crate::error::StagingError;
use crate::exit_code::ExitCode;
use crate::load::Committed;
use crate::queue::InFlight;
use crate::spool::SealedSegment;
use crate::staging::SegmentId;

pub use in_flight::InFlightReport;

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
    /// Messages by segment that entered and did not commit yet.
    pending: Mutex<HashMap<SegmentId, u64>>,
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

/// Live counts of one stage.
#[derive(Debug, Default)]
pub struct StageCounters {
    busy_micros: AtomicU64,
    waiting_micros: AtomicU64,
    items: AtomicU64,
    bytes: AtomicU64,
}

/// `report.json`: the names are a contract.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Report {
    /// Messages that entered this run: from the queue, or from segments that an earlier one left.
    pub received: u64,
    /// Rows committed.
    pub loaded: u64,
    /// Messages recognised as loaded or rejected before.
    pub duplicates: u64,
    /// Messages that could not become rows; kept with their reason.
    pub rejected: u64,
    /// Messages safe in the spool and not yet committed.
    pub pending: u64,
    /// Deletes that SQS confirmed.
    pub acknowledged: u64,
    /// Deletes that failed for good; those messages will be delivered again, and recognised.
    pub ack_failed: u64,
    /// Segments committed.
    pub segments: u64,
    /// Wall-clock time.
    pub seconds: f64,
    /// Spool bytes that entered.
    pub bytes: u64,
    /// Where the time went.
    pub stages: StageReports,
    /// What the cap on messages in flight meant; null where no queue was drained.
    pub in_flight: Option<InFlightReport>,
    /// The queue was proven empty; null where no queue was asked.
    pub queue_empty: Option<bool>,
    /// How the process ends.
    pub exit_code: u8,
}

/// Where the time went, by stage.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[allow(missing_docs, reason = "the stages of the design")]
pub struct StageReports {
    pub drain: StageReport,
    pub transform: StageReport,
    pub load: StageReport,
    pub ack: StageReport,
}

/// One stage's share.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct StageReport {
    /// Time its workers worked or waited for an answer, added up: two workers busy for a second make two.
    pub seconds_busy: f64,
    /// Time its workers waited for the stage before (the queue, for drain) to bring something, or for the one behind to
    /// take it, added up. The stage that waits least sets the pace.
    pub seconds_waiting: f64,
    /// Messages that it finished.
    pub items: u64,
    /// Bytes that it wrote: spool for drain, chunks for transform and load; 0 for ack.
    pub bytes: u64,
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
            pending: Mutex::default(),
            in_flight: OnceLock::new(),
            drain: StageCounters::default(),
            transform: StageCounters::default(),
            load: StageCounters::default(),
            ack: StageCounters::default(),
        }
    }
}

impl Counters {
    /// A sealed segment entered: what it holds is pending until it commits.
    pub fn enter(&self, segment: &SealedSegment) {
        add(&self.received, segment.messages);
        add(&self.bytes, segment.bytes);
        self.pending.lock().unwrap_or_else(PoisonError::into_inner).insert(segment.id, segment.messages);
    }

    /// A segment that entered committed.
    pub fn commit(&self, committed: &Committed) {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner).remove(&committed.segment());
        if committed.recognised() {
            add(&self.duplicates, committed.received());
        } else {
            add(&self.loaded, committed.loaded());
            add(&self.duplicates, committed.duplicates());
            add(&self.rejected, committed.rejected());
            add(&self.segments, 1);
        }
    }

    /// A segment that the ledger has already needs no load: it entered, and holds nothing but duplicates.
    pub fn recognise(&self, committed: &Committed) {
        add(&self.received, committed.received());
        add(&self.duplicates, committed.received());
    }

    /// Rejects were tried again, and some of them loaded.
    pub fn readmit(&self, tried: u64, loaded: u64) {
        add(&self.received, tried);
        add(&self.loaded, loaded);
        add(&self.rejected, tried.saturating_sub(loaded));
    }

    /// Deletes were confirmed, or failed for good.
    pub fn add_acknowledged(&self, acknowledged: u64, failed: u64) {
        add(&self.acknowledged, acknowledged);
        add(&self.ack_failed, failed);
    }

    /// One line for people who watch: what went through so far.
    #[must_use]
    pub fn line(&self) -> String {
        let [received, loaded, duplicates, rejected, acknowledged] =
            [&self.drain.items, &self.loaded, &self.duplicates, &self.rejected, &self.acknowledged]
                .map(|counter| grouped(counter.load(Ordering::Relaxed)));
        format!(
            "received {received} · loaded {loaded} · duplicates {duplicates} · rejected {rejected} · \
             acknowledged {acknowledged}"
        )
    }

    /// The counts as they are now, as a report.
    #[must_use]
    pub fn report(&self, queue_empty: Option<bool>) -> Report {
        let get = |counter: &AtomicU64| counter.load(Ordering::Acquire);
        Report {
            received: get(&self.received),
            loaded: get(&self.loaded),
            duplicates: get(&self.duplicates),
            rejected: get(&self.rejected),
            pending: self.pending.lock().unwrap_or_else(PoisonError::into_inner).values().sum(),
            acknowledged: get(&self.acknowledged),
            ack_failed: get(&self.ack_failed),
            segments: get(&self.segments),
            seconds: seconds(self.started.elapsed()),
            bytes: get(&self.bytes),
            stages: StageReports {
                drain: self.drain.report(),
                transform: self.transform.report(),
                load: self.load.report(),
                ack: self.ack.report(),
            },
            in_flight: self.in_flight.get().map(|in_flight| InFlightReport::from(&**in_flight)),
            queue_empty,
            exit_code: ExitCode::Done.number(),
        }
    }
}

impl StageCounters {
    /// A worker finished `items` messages, and wrote `bytes`, since `started`.
    pub fn add(&self, started: Instant, items: u64, bytes: u64) {
        add(&self.busy_micros, micros_since(started));
        add(&self.items, items);
        add(&self.bytes, bytes);
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

    fn report(&self) -> StageReport {
        let added_up = |micros: &AtomicU64| seconds(Duration::from_micros(micros.load(Ordering::Acquire)));
        StageReport {
            seconds_busy: added_up(&self.busy_micros),
            seconds_waiting: added_up(&self.waiting_micros),
            items: self.items.load(Ordering::Acquire),
            bytes: self.bytes.load(Ordering::Acquire),
        }
    }
}

impl StageReport {
    /// Of its workers' time; near 1 where this stage sets the pace.
    fn share_busy(&self) -> f64 {
        self.seconds_busy / (self.seconds_busy + self.seconds_waiting).max(f64::MIN_POSITIVE)
    }
}

impl Report {
    /// Every message is accounted for.
    #[must_use]
    pub const fn sum_holds(&self) -> bool {
        self.received == self.loaded + self.duplicates + self.rejected + self.pending
    }

    /// Writes `report.json`.
    pub fn write(&self, path: &Path) -> Result<(), StagingError> {
        let json = serde_json::to_string_pretty(self).map_err(std::io::Error::from);
        json.and_then(|json| fs::write(path, json + "\n")).map_err(StagingError::io("write", path))
    }

    /// The summary for people.
    #[must_use]
    pub fn summary(&self, title: &str) -> String {
        let mut text = format!("{title} in {:.1} s\n", self.seconds);
        for (name, messages, remark) in [
            ("received", self.received, ""),
            ("loaded", self.loaded, ""),
            ("duplicates", self.duplicates, "recognised, not loaded again"),
            ("rejected", self.rejected, "in rejects/, each with its reason"),
            ("pending", self.pending, "safe in spool/, for the next run"),
            ("acknowledged", self.acknowledged, ""),
            ("ack failed", self.ack_failed, "will be delivered again, and recognised"),
        ] {
            let remark = if messages > 0 { remark } else { "" };
            if messages > 0 || name != "ack failed" {
                _ = writeln!(text, "{}", format!("  {name:<13} {:>13}   {remark}", grouped(messages)).trim_end());
            }
        }
        let stages = [
            ("drain", &self.stages.drain),
            ("transform", &self.stages.transform),
            ("load", &self.stages.load),
            ("ack", &self.stages.ack),
        ];
        let busy: Vec<String> = stages
            .iter()
            .filter(|(_, stage)| stage.items > 0)
            .map(|(name, stage)| format!("{name} {:.1} s ({:.0} %)", stage.seconds_busy, 100.0 * stage.share_busy()))
            .collect();
        if !busy.is_empty() {
            _ = writeln!(text, "  busy          {}", busy.join(" · "));
        }
        if let Some(line) = self.in_flight.as_ref().and_then(InFlightReport::line) {
            _ = writeln!(text, "  in flight     {line}");
        }
        text
    }
}

/// `1234567` as `1,234,567`.
#[must_use]
pub fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let groups: Vec<&str> = digits.as_bytes().rchunks(3).rev().filter_map(|group| str::from_utf8(group).ok()).collect();
    groups.join(",")
}

fn add(counter: &AtomicU64, amount: u64) {
    counter.fetch_add(amount, Ordering::AcqRel);
}

fn micros_since(started: Instant) -> u64 {
    u64::try_from(started.elapsed().as_micros()).unwrap_or(u64::MAX)
}

/// Seconds with a resolution of milliseconds, which is what a report needs.
fn seconds(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 1000.0).round() / 1000.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_grouped_by_thousands() {
        assert_eq!([0, 999, 1000, 1_234_567].map(grouped), ["0", "999", "1,000", "1,234,567"]);
    }

    #[test]
    fn what_entered_and_did_not_commit_is_pending_and_a_lost_message_breaks_the_sum() {
        let counters = Counters::default();
        counters.enter(&SealedSegment { id: SegmentId::now(), messages: 5, bytes: 100 });
        let report = counters.report(None);
        assert_eq!(report.pending, 5);
        assert!(report.sum_holds());
        assert!(!Report { loaded: 1, ..report }.sum_holds());
    }
}
