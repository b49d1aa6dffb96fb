//! What commands share that run stages: the configuration resolved, the staging directory locked, Postgres and the queue
//! connected; and at the end the report, the summary and the exit code.

use std::path::PathBuf;
use std::sync::Arc;

use rustix::process::Signal;
use tokio::runtime::{Builder, Runtime};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use super::end::{End, Told, exit_code};
use super::output::{say, say_text};
use super::{LimitFlags, SharedFlags};
use crate::config::{Config, QueueSettings};
use crate::counters::Counters;
use crate::drain::{Drain, Proof, open_gate};
use crate::error::Error;
use crate::exit_code::ExitCode;
use crate::in_flight::InFlight;
use crate::load::{Loader, RejectAllowance};
use crate::progress::Progress;
use crate::queue::{ReceiveTimes, Sqs};
use crate::report::Report;
use crate::stages::Stages;
use crate::staging::{Staging, StagingLock};
use crate::transform::Plan;

/// A command that runs stages, from its configuration to its exit code.
pub(super) struct Session {
    pub(super) config: Config,
    pub(super) stages: Arc<Stages>,
    pub(super) stop: CancellationToken,
    counters: Arc<Counters>,
    progress: Progress,
    report: Option<PathBuf>,
    quiet: bool,
    _lock: StagingLock,
}

impl Session {
    /// Resolves the configuration and locks the staging directory. Must run in a runtime.
    pub(super) fn open(flags: &SharedFlags) -> Result<Self, Error> {
        let config = Config::resolve(flags.overrides())?;
        let staging = Staging::open(&config.staging_dir)?;
        let lock = staging.lock()?;
        let counters = Arc::new(Counters::default());
        let progress = Progress::start(flags.progress, flags.quiet, Arc::clone(&counters));
        let stop = stop_on_signal()?;
        let stages = Stages::new(staging, Arc::clone(&counters), stop.clone(), config.spool.archive_days);
        Ok(Self {
            config,
            stages: Arc::new(stages),
            stop,
            counters,
            progress,
            report: flags.report.clone(),
            quiet: flags.quiet,
            _lock: lock,
        })
    }

    /// Where the files lie.
    pub(super) fn staging(&self) -> &Staging {
        self.stages.staging()
    }

    /// Compiles the mapping; needs the masking keys.
    pub(super) fn plan(&self) -> Result<Arc<Plan>, Error> {
        Ok(Arc::new(Plan::compile(&self.config.pipeline, &self.config.keys, self.config.queue_name())?))
    }

    /// Connects to the queue.
    pub(super) async fn connect_queue(&self) -> Result<Sqs, Error> {
        connect_queue(&self.config).await
    }

    /// Connects to Postgres, and finds a mapping that does not fit its table before anything is received.
    pub(super) async fn connect_loaders(&self, connections: usize) -> Result<Vec<Loader>, Error> {
        let database = self.config.database_url()?;
        let allowance = Arc::new(RejectAllowance::new(self.config.pipeline.rejects.max_rejects));
        let mut loaders = Vec::with_capacity(connections);
        for _ in 0..connections {
            let loader = Loader::connect(&database, &self.config.pipeline).await?;
            loaders.push(loader.sharing(Arc::clone(&allowance)));
        }
        if let Some(loader) = loaders.first_mut() {
            loader.check_mapping().await?;
        }
        Ok(loaders)
    }

    /// A drain with the session's settings.
    pub(super) fn drain(&self, queue: Sqs, limits: &LimitFlags, proof: Proof, stop: CancellationToken) -> Drain<Sqs> {
        let cap = self.config.queue.max_in_flight;
        let in_flight = self.counters.in_flight.get_or_init(|| Arc::new(InFlight::with_cap(cap)));
        Drain {
            queue: Arc::new(queue),
            staging: self.staging().clone(),
            settings: self.config.queue,
            spool: self.config.spool,
            limits: limits.drain_limits(),
            proof,
            gate: open_gate(),
            in_flight: Arc::clone(in_flight),
            counters: Arc::clone(&self.counters),
            stop,
            all_sealed: CancellationToken::new(),
        }
    }

    /// What a drain with these limits was told.
    pub(super) fn told(&self, limits: &LimitFlags) -> Told {
        Told { to_stop: self.stop.is_cancelled(), to_follow: limits.follow }
    }

    /// The end of stages that look at no queue.
    pub(super) fn end_without_queue(&self) -> End {
        End::without_queue(self.stop.is_cancelled(), self.stages.left_something_out())
    }

    /// The stages have ended: writes the report, prints the summary, and says how the process ends.
    pub(super) fn finish(self, title: &str, end: Result<End, Error>) -> Result<ExitCode, Error> {
        self.progress.finish();
        let queue_empty = end.as_ref().ok().and_then(|end| end.queue_empty);
        let mut report = Report::of(&self.counters, queue_empty);
        let code = exit_code(&end, report.sum_holds(), self.stages.set_something_aside());
        report.exit_code = code.number();
        if let Some(path) = &self.report {
            report.write(path)?;
        }
        if !self.quiet {
            say_text(&report.summary(title));
        }
        let end = end?;
        tracing::debug!(ended_by = ?end.ended_by, "the stages have ended");
        if code == ExitCode::Bug {
            say("error: the sum does not hold: received = loaded + duplicates + rejected + pending");
        } else if let (false, Some(remark)) = (self.quiet, &end.remark) {
            say(format_args!("  {remark}"));
        }
        Ok(code)
    }
}

/// Connects to the configured queue.
pub(super) async fn connect_queue(config: &Config) -> Result<Sqs, Error> {
    let QueueSettings { wait_seconds, visibility_seconds, .. } = config.queue;
    Ok(Sqs::connect(config.queue_url()?, ReceiveTimes { wait_seconds, visibility_seconds }).await?)
}

/// A runtime for one command: one thread for all that waits. What computes or blocks has threads of its own.
///
/// Measured over 50,000 messages, receives and deletes cost 0.8 of the CPU that they cost on a runtime of two threads:
/// futures that wake each other need not change threads. That one has CPU for about 40,000 messages a second; a second
/// one, for the drain alone, brought nothing on two cores.
pub(super) fn runtime() -> Result<Runtime, Error> {
    Builder::new_current_thread().enable_all().build().map_err(Error::system("start threads"))
}

/// From now on a file that reaches the process's limit of file sizes (`ulimit -f`) fails to be written, which counts as
/// a full disk. By default the signal that comes with it ends the process.
///
/// A handler, because the standard library has no safe way to ignore a signal; it stays when this runtime is gone.
pub(super) fn survive_file_size_limit() -> Result<(), Error> {
    let runtime = runtime()?;
    let _context = runtime.enter();
    let handled = signal(SignalKind::from_raw(Signal::XFSZ.as_raw()));
    handled.map(drop).map_err(Error::system("listen for signals"))
}

/// SIGINT and SIGTERM stop in an orderly way; a second one stops at once.
fn stop_on_signal() -> Result<CancellationToken, Error> {
    let listen = |kind| signal(kind).map_err(Error::system("listen for signals"));
    let (mut interrupt, mut terminate) = (listen(SignalKind::interrupt())?, listen(SignalKind::terminate())?);
    let stop = CancellationToken::new();
    let stopped = stop.clone();
    tokio::spawn(async move {
        tokio::select! { _ = interrupt.recv() => {}, _ = terminate.recv() => {} }
        tracing::info!("stopping: what is sealed is finished first; a second signal stops at once");
        stopped.cancel();
        tokio::select! { _ = interrupt.recv() => {}, _ = terminate.recv() => {} }
        std::process::exit(ExitCode::WorkLeft.number().into());
    });
    Ok(stop)
}
