//! The account of a command that runs stages: its report, written at the start and on every way out, and the same as log
//! events.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use super::SharedFlags;
use super::session::{first_signal, runtime};
use crate::config::ConfigError;
use crate::counters::Counters;
use crate::durable::FileError;
use crate::error::Error;
use crate::exit_code::ExitCode;
use crate::metrics::{Metrics, keep_written, listen, serve, write_file};
use crate::notify::NotifyUrl;
use crate::report::{EndedBy, Report, RunInfo, log_failed_command};
use crate::stages::Stages;
use crate::staging::Staging;
#[cfg(feature = "otel")]
use crate::trace::{Trace, TraceError};

/// The account of one command. All clones are the same account.
#[derive(Debug, Clone, Default)]
pub(super) struct Account {
    run: RunInfo,
    /// The command runs stages, and so has something to account for.
    is_of_run: bool,
    report: Option<PathBuf>,
    metrics_file: Option<Arc<Path>>,
    metrics_listen: Option<SocketAddr>,
    notify_url: Option<String>,
    state: Arc<State>,
}

#[derive(Debug, Default)]
struct State {
    /// What the configuration says of the run.
    configured: OnceLock<RunInfo>,
    /// What the run counts, once its stages can.
    counters: OnceLock<Arc<Counters>>,
    /// It is said how the run ended.
    is_closed: AtomicBool,
    metrics: OnceLock<Arc<Metrics>>,
    notify: OnceLock<NotifyUrl>,
    /// Where the report is kept for `status`.
    kept_in: OnceLock<Staging>,
    /// The report of a run that has ended.
    last_report: OnceLock<Report>,
    #[cfg(feature = "otel")]
    trace: OnceLock<Result<Trace, TraceError>>,
}

impl Account {
    /// The account of a command that runs stages, where these flags ask for it.
    pub(super) fn of_run(flags: &SharedFlags) -> Self {
        Self {
            is_of_run: true,
            report: flags.report.clone(),
            metrics_file: flags.metrics_file.as_deref().map(Arc::from),
            metrics_listen: flags.metrics_listen,
            notify_url: flags.notify_url.clone(),
            ..Self::default()
        }
    }

    /// Writes the report of a run that begins.
    pub(super) fn begin(&self) -> Result<(), Error> {
        #[cfg(feature = "otel")]
        if let Some(Err(error)) = self.state.trace.get() {
            tracing::warn!("no trace is sent: {error}");
        }
        if let Some(path) = &self.report {
            self.counted().begin(path)?;
        }
        if let Some(url) = &self.notify_url {
            let invalid =
                |problem: &str| ConfigError::InvalidSetting { setting: "--notify-url", problem: problem.to_owned() };
            let url: NotifyUrl = url.parse().map_err(invalid)?;
            self.state.notify.get_or_init(|| url);
        }
        Ok(())
    }

    /// The configuration is read: says that the run has started.
    pub(super) fn start(&self, pipeline: &str, queue: Option<&str>) {
        let (pipeline, queue) = (Some(pipeline.to_owned()), queue.map(str::to_owned));
        let run = self.state.configured.get_or_init(|| RunInfo { pipeline, queue, ..self.run.clone() });
        if self.is_of_run {
            run.log_started();
        }
    }

    /// From now on a report has these counts.
    pub(super) fn count_by(&self, counters: &Arc<Counters>) {
        self.state.counters.get_or_init(|| Arc::clone(counters));
    }

    /// What was counted by now.
    fn counted(&self) -> Report {
        Report::of(self.run(), &self.state.counters.get().cloned().unwrap_or_default())
    }

    /// Shows the counts of the run to Prometheus, where that is asked for. Must be called in a runtime.
    pub(super) fn show_metrics(&self, counters: &Arc<Counters>, stages: &Stages) -> Result<(), Error> {
        if self.metrics_file.is_none() && self.metrics_listen.is_none() {
            return Ok(());
        }
        let metrics = Arc::new(Metrics::new(&self.run(), Arc::clone(counters), stages.gate().watch()));
        let metrics = self.state.metrics.get_or_init(|| metrics);
        if let Some(path) = &self.metrics_file {
            write_file(metrics, path).map_err(|FileError { path, source, .. }| {
                ConfigError::of_given_file("write", &path, "check --metrics-file")(source)
            })?;
            tokio::spawn(keep_written(Arc::clone(metrics), Arc::clone(path)));
        }
        if let Some(address) = self.metrics_listen {
            let failed = |error| ConfigError::InvalidSetting {
                setting: "--metrics-listen",
                problem: format!("cannot listen on {address}: {error}"),
            };
            let listener = listen(address).map_err(failed)?;
            let address = listener.local_addr().unwrap_or(address);
            tracing::info!("metrics are at http://{address}/metrics");
            tokio::spawn(serve(listener, Arc::clone(metrics)));
        }
        Ok(())
    }

    /// From now on the staging directory keeps the report as that of the last run, for `status`.
    pub(super) fn keep_report(&self, staging: &Staging) {
        self.state.kept_in.get_or_init(|| staging.clone());
        self.keep(&self.counted());
    }

    /// Nothing depends on it, so a failure is said, and no more.
    fn keep(&self, report: &Report) {
        if let Some(staging) = self.state.kept_in.get()
            && let Err(error) = report.keep(staging)
        {
            tracing::warn!("the report of this run could not be kept: {}", Error::from(error).one_line());
        }
    }

    /// The run is connected to the queue, or to Postgres.
    pub(super) fn connected(&self) {
        if let Some(metrics) = self.state.metrics.get() {
            metrics.connected();
        }
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
        self.keep(report);
        let written = self.report().map_or(Ok(()), |path| report.write(path)).map_err(Error::Report);
        report.log_end();
        self.end_metrics(report);
        #[cfg(feature = "otel")]
        if let Some(trace) = self.trace() {
            trace.end(report);
        }
        self.state.last_report.get_or_init(|| report.clone());
        written
    }

    /// The process ends at once, by a second signal: says what was counted by then.
    pub(super) fn abandon(&self) {
        if !self.state.is_closed.load(Ordering::Acquire) {
            // That it cannot be written changes nothing of the end.
            _ = self.close(&self.counted().ended(EndedBy::Signal, ExitCode::WorkLeft));
        }
    }

    fn end_metrics(&self, report: &Report) {
        let Some(metrics) = self.state.metrics.get() else { return };
        if let Some(exit_code) = report.exit_code {
            metrics.ended(exit_code);
        }
        if let Some(path) = &self.metrics_file
            && let Err(error) = write_file(metrics, path)
        {
            tracing::warn!("{}", Error::from(error).one_line());
        }
    }

    /// Posts the report of a run that has ended, where that is asked for. A signal ends that at once.
    pub(super) fn notify(&self) {
        let (Some(url), Some(report)) = (self.state.notify.get(), self.state.last_report.get()) else { return };
        let Ok(runtime) = runtime() else { return };
        let json = report.to_json();
        let posted = runtime.block_on(async {
            tokio::select! {
                posted = url.post(&json) => posted.map_err(|error| error.to_string()),
                () = first_signal() => Err("a signal ended that".to_owned()),
            }
        });
        if let Err(problem) = posted {
            tracing::warn!("the report was not delivered to {}: {problem}", url.host());
        }
    }

    /// Begins the trace of the command, where the environment asks for one. It comes before the log, which feeds it.
    #[cfg(feature = "otel")]
    pub(super) fn begin_trace(&self, command: &str) {
        if let Some(trace) = Trace::from_environment(command).transpose() {
            self.state.trace.get_or_init(|| trace);
        }
    }

    /// The trace of the command, if there is one.
    #[cfg(feature = "otel")]
    pub(super) fn trace(&self) -> Option<&Trace> {
        self.state.trace.get()?.as_ref().ok()
    }

    /// Sends what is left of the trace of a run that has ended.
    #[cfg(feature = "otel")]
    pub(super) fn deliver_trace(&self) {
        if let Some(trace) = self.trace() {
            trace.deliver();
        }
    }

    /// The command has failed; a run that has not said so yet ends here.
    pub(super) fn fail(&self, error: &Error) {
        if !self.is_of_run {
            log_failed_command(error);
        } else if !self.state.is_closed.load(Ordering::Acquire) {
            // That it cannot be written is less than why the run failed.
            _ = self.close(&self.counted().failed(error));
        }
    }
}
