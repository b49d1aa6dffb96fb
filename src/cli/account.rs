//! The account of a command that runs stages: its report, written at the start and on every way out, and the same as log
//! events.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use crate::counters::Counters;
use crate::error::Error;
use crate::report::{Report, RunInfo, log_failed_command};

/// The account of one command. All clones are the same account.
#[derive(Debug, Clone, Default)]
pub(super) struct Account {
    run: RunInfo,
    /// The command runs stages, and so has something to account for.
    is_of_run: bool,
    report: Option<PathBuf>,
    state: Arc<State>,
}

#[derive(Debug, Default)]
struct State {
    /// What the configuration says of the run.
    configured: OnceLock<RunInfo>,
    /// It is said how the run ended.
    is_closed: AtomicBool,
}

impl Account {
    /// The account of a command that runs stages, and writes its report to this file.
    pub(super) fn of_run(report: Option<PathBuf>) -> Self {
        Self { is_of_run: true, report, ..Self::default() }
    }

    /// Writes the report of a run that begins.
    pub(super) fn begin(&self) -> Result<(), Error> {
        match &self.report {
            Some(path) => Ok(Report::of(self.run.clone(), &Counters::default()).begin(path)?),
            None => Ok(()),
        }
    }

    /// The configuration is read: says that the run has started.
    pub(super) fn start(&self, pipeline: &str, queue: Option<&str>) {
        let (pipeline, queue) = (Some(pipeline.to_owned()), queue.map(str::to_owned));
        self.state.configured.get_or_init(|| RunInfo { pipeline, queue, ..self.run.clone() }).log_started();
    }

    /// What is known of the run.
    pub(super) fn run(&self) -> RunInfo {
        self.state.configured.get().unwrap_or(&self.run).clone()
    }

    /// Where the report is written, if it is.
    pub(super) fn report(&self) -> Option<&Path> {
        self.report.as_deref()
    }

    /// The run has ended.
    pub(super) fn close(&self, report: &Report) -> Result<(), Error> {
        self.state.is_closed.store(true, Ordering::Release);
        let written = self.report().map_or(Ok(()), |path| report.write(path)).map_err(Error::Report);
        report.log_end();
        written
    }

    /// The command has failed. Of a run that was not closed, nothing was counted.
    pub(super) fn fail(&self, error: &Error) {
        if !self.is_of_run {
            log_failed_command(error);
        } else if !self.state.is_closed.load(Ordering::Acquire) {
            // That it cannot be written is less than why the run failed.
            _ = self.close(&Report::of(self.run(), &Counters::default()).failed(error));
        }
    }
}
