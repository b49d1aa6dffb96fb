//! Which run a report is of, and how it ended.

use jiff::Timestamp;
use serde::{Serialize, Serializer};
use uuid::Uuid;

use crate::error::Error;
use crate::exit_code::ExitCode;
use crate::host::host_name;

/// What is known of a run from its start.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct RunInfo {
    /// A `UUIDv7` of its own.
    pub run_id: Uuid,
    /// The version of pgsluice.
    pub version: &'static str,
    /// The host that it runs on.
    pub host: String,
    /// The pipeline's name; null where the configuration could not be read.
    pub pipeline: Option<String>,
    /// The queue as it is configured, by its URL, ARN or name; null where none is.
    pub queue: Option<String>,
    /// When it began.
    pub started_at: Timestamp,
}

impl Default for RunInfo {
    /// A run that begins now.
    fn default() -> Self {
        Self {
            run_id: Uuid::now_v7(),
            version: env!("CARGO_PKG_VERSION"),
            host: host_name(),
            pipeline: None,
            queue: None,
            started_at: Timestamp::now(),
        }
    }
}

/// What ended a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EndedBy {
    /// All was done.
    Done,
    /// A limit given by flag was reached, or the cap on what may be in flight.
    Limit,
    /// A signal.
    Signal,
    /// More rejects than `max_rejects`.
    MaxRejects,
    /// A segment's own files stopped it.
    Damage,
    /// The disk of the staging directory is full.
    DiskFull,
    /// Messages that others hold, that are delayed, or that nobody could ask for.
    InFlightElsewhere,
    /// It failed.
    Error,
}

impl Serialize for EndedBy {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

impl EndedBy {
    /// As the report has it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Limit => "limit",
            Self::Signal => "signal",
            Self::MaxRejects => "max_rejects",
            Self::Damage => "damage",
            Self::DiskFull => "disk_full",
            Self::InFlightElsewhere => "in_flight_elsewhere",
            Self::Error => "error",
        }
    }
}

/// The error that a run ended with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ErrorReport {
    /// The kind of error, in one word.
    pub code: &'static str,
    /// The error and its causes in one line.
    pub message: String,
    /// What a person can do.
    pub hint: Option<&'static str>,
}

impl From<&Error> for ErrorReport {
    fn from(error: &Error) -> Self {
        Self { code: error.code(), message: error.one_line(), hint: error.hint() }
    }
}

impl From<&Error> for EndedBy {
    fn from(error: &Error) -> Self {
        match error.exit_code() {
            ExitCode::TooManyRejects => Self::MaxRejects,
            _ if error.is_disk_full() => Self::DiskFull,
            _ => Self::Error,
        }
    }
}
