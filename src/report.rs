//! What a run did: the sum that must hold, `report.json`, and the summary for people.

mod events;
mod in_flight;
mod rejects;
mod run;
mod samples;
mod segment_times;
mod summary;

use std::io::{self, Write};
use std::path::Path;
use std::time::Duration;

use jiff::Timestamp;
use serde::Serialize;

use crate::config::ConfigError;
use crate::counters::{Counters, StageCounters};
use crate::durable::{FileError, given};
use crate::error::Error;
use crate::exit_code::ExitCode;

pub use events::{EVENTS, log_failed_command};
pub use in_flight::InFlightReport;
pub use rejects::RejectCount;
pub use run::{EndedBy, ErrorReport, RunInfo};
pub use samples::{SAMPLES, Sample, Sampler};
pub use segment_times::SegmentTimesReport;
pub use summary::Surroundings;

/// `report.json`: the names are a contract.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Report {
    /// Which run it is of.
    #[serde(flatten)]
    pub run: RunInfo,
    /// When the run ended; null while it runs.
    pub finished_at: Option<Timestamp>,
    /// What ended it; null while it runs.
    pub ended_by: Option<EndedBy>,
    /// The error that it ended with, if it failed.
    pub error: Option<ErrorReport>,
    /// Messages that entered this run: from the queue, or from the unfinished segments of an earlier run.
    pub received: u64,
    /// Rows committed.
    pub loaded: u64,
    /// Messages recognised as loaded or rejected before.
    pub duplicates: u64,
    /// Messages that could not become rows; kept with their reason.
    pub rejected: u64,
    /// Why they could not, the most frequent reason first; at most 101 of each stage, of which the last is of the rest.
    pub rejects_by_reason: Vec<RejectCount>,
    /// Messages safe in the spool and not yet committed.
    pub pending: u64,
    /// Deletes that SQS confirmed.
    pub acknowledged: u64,
    /// Deletes that failed for good; their messages will be redelivered, and recognised.
    pub ack_failed: u64,
    /// Segments committed.
    pub segments: u64,
    /// Wall-clock time.
    pub seconds: f64,
    /// Spool bytes that entered.
    pub bytes: u64,
    /// SQS requests and transactions that were tried again.
    pub retries: u64,
    /// Answers in which SQS limited the rate of requests.
    pub throttles: u64,
    /// The time of each stage.
    pub stages: StageReports,
    /// What the cap on messages in flight meant; null where no queue was drained.
    pub in_flight: Option<InFlightReport>,
    /// The queue was proven empty; null where no queue was asked.
    pub queue_empty: Option<bool>,
    /// How the process ends; null while it runs.
    pub exit_code: Option<u8>,
    /// What it had done at each second; at most [`SAMPLES`], thinned by halves.
    pub samples: Vec<Sample>,
    /// When segments were in each stage, in the order in which they entered; at most
    /// [`crate::counters::TIMED_SEGMENTS`], thinned by halves.
    pub segment_times: Vec<SegmentTimesReport>,
}

/// The time of each stage.
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

impl StageReport {
    fn of(counters: &StageCounters) -> Self {
        let counts = counters.counts();
        Self {
            seconds_busy: seconds(counts.busy),
            seconds_waiting: seconds(counts.waiting),
            items: counts.items,
            bytes: counts.bytes,
        }
    }
}

impl Report {
    /// The counts as they are now, of a run that has not ended.
    #[must_use]
    pub fn of(run: RunInfo, counters: &Counters) -> Self {
        let counts = counters.counts();
        Self {
            run,
            finished_at: None,
            ended_by: None,
            error: None,
            received: counts.received,
            loaded: counts.loaded,
            duplicates: counts.duplicates,
            rejected: counts.rejected,
            rejects_by_reason: RejectCount::all(&counters.reasons()),
            pending: counts.pending,
            acknowledged: counts.acknowledged,
            ack_failed: counts.ack_failed,
            segments: counts.segments,
            seconds: seconds(counts.elapsed),
            bytes: counts.bytes,
            retries: counts.retries,
            throttles: counts.throttles,
            stages: StageReports {
                drain: StageReport::of(&counters.drain),
                transform: StageReport::of(&counters.transform),
                load: StageReport::of(&counters.load),
                ack: StageReport::of(&counters.ack),
            },
            in_flight: counters.in_flight.get().map(|in_flight| InFlightReport::from(&**in_flight)),
            queue_empty: None,
            exit_code: None,
            samples: Vec::new(),
            segment_times: counters.segment_times().into_iter().map(SegmentTimesReport::from).collect(),
        }
    }

    /// The run ends now.
    #[must_use]
    pub fn ended(self, ended_by: EndedBy, exit_code: ExitCode) -> Self {
        let (finished_at, ended_by) = (Some(Timestamp::now()), Some(ended_by));
        Self { finished_at, ended_by, exit_code: Some(exit_code.number()), ..self }
    }

    /// The run ends now, with this error.
    #[must_use]
    pub fn failed(self, error: &Error) -> Self {
        Self { error: Some(error.into()), ..self.ended(error.into(), error.exit_code()) }
    }

    /// Every message is accounted for.
    #[must_use]
    pub const fn sum_holds(&self) -> bool {
        self.received == self.loaded + self.duplicates + self.rejected + self.pending
    }

    /// As `report.json` has it.
    #[must_use]
    pub fn to_json(&self) -> Vec<u8> {
        // A report holds nothing that JSON has no form for.
        let mut json = serde_json::to_vec_pretty(self).unwrap_or_default();
        json.push(b'\n');
        json
    }

    /// Writes the report of a run that begins, which replaces that of an earlier run, and finds before anything moves that
    /// it cannot be written. A stream is left alone: its reader would take this for the end.
    pub fn begin(&self, path: &Path) -> Result<(), ConfigError> {
        let begun = if given::is_stream(path) { Ok(()) } else { self.write_file(path) };
        begun.map_err(ConfigError::of_given_file("write", path, "check --report"))
    }

    /// Writes `report.json`.
    pub fn write(&self, path: &Path) -> Result<(), FileError> {
        self.write_file(path).map_err(FileError::of("write", path))
    }

    fn write_file(&self, path: &Path) -> io::Result<()> {
        given::open_to_replace(path)?.write_all(&self.to_json())
    }
}

/// `1234567` as `1,234,567`.
#[must_use]
pub fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let groups: Vec<&str> = digits.as_bytes().rchunks(3).rev().filter_map(|group| str::from_utf8(group).ok()).collect();
    groups.join(",")
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
    fn a_lost_message_breaks_the_sum() {
        let report = Report::of(RunInfo::default(), &Counters::default());
        assert!(report.sum_holds());
        assert!(!Report { received: 1, ..report }.sum_holds());
    }
}
