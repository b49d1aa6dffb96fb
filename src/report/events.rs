//! The account of a run as log events, for collectors: the report's keys, with numbers as numbers.

use super::{ErrorReport, Report, RunInfo};
use crate::error::Error;

/// The target of these events. Where logs are for people on a terminal, the summary and the error line say the same.
pub const EVENTS: &str = "pgsluice::account";

impl RunInfo {
    /// Logs `run.started`.
    pub fn log_started(&self) {
        let Self { run_id, version, host, pipeline, queue, started_at } = self;
        let (pipeline, queue) = (pipeline.as_deref(), queue.as_deref());
        tracing::info!(target: EVENTS, %run_id, version, host, pipeline, queue, %started_at, "run.started");
    }
}

impl Report {
    /// Logs `run.rejects` for each reason, and then `run.finished`, or `run.failed` for a run that ended with an error.
    pub fn log_end(&self) {
        let run_id = &self.run.run_id;
        for rejects in &self.rejects_by_reason {
            let (stage, field) = (rejects.reason.stage.name(), rejects.reason.field.as_deref());
            let (reason, count) = (&*rejects.reason.text, rejects.count);
            tracing::info!(target: EVENTS, %run_id, stage, field, reason, count, "run.rejects");
        }
        // The level and the text of an event are fixed where it stands.
        macro_rules! log {
            ($level:ident, $name:literal) => {
                tracing::$level!(
                    target: EVENTS,
                    %run_id,
                    version = self.run.version,
                    host = self.run.host,
                    pipeline = self.run.pipeline,
                    queue = self.run.queue,
                    started_at = %self.run.started_at,
                    ended_by = self.ended_by.map(|ended_by| ended_by.name()),
                    exit_code = self.exit_code,
                    error.code = self.error.as_ref().map(|error| error.code),
                    error.message = self.error.as_ref().map(|error| &*error.message),
                    error.hint = self.error.as_ref().and_then(|error| error.hint),
                    received = self.received,
                    loaded = self.loaded,
                    duplicates = self.duplicates,
                    rejected = self.rejected,
                    pending = self.pending,
                    acknowledged = self.acknowledged,
                    ack_failed = self.ack_failed,
                    segments = self.segments,
                    seconds = self.seconds,
                    bytes = self.bytes,
                    retries = self.retries,
                    throttles = self.throttles,
                    queue_empty = self.queue_empty,
                    $name
                )
            };
        }
        if self.error.is_some() { log!(error, "run.failed") } else { log!(info, "run.finished") }
    }
}

/// Logs that a command failed that makes no report.
pub fn log_failed_command(error: &Error) {
    let ErrorReport { code, message, hint } = error.into();
    let version = env!("CARGO_PKG_VERSION");
    tracing::error!(
        target: EVENTS,
        version,
        error.code = code,
        error.message = message,
        error.hint = hint,
        "command.failed"
    );
}
