//! What commands share that run stages: the configuration resolved, the staging directory locked, Postgres connected;
//! and at the end the report, the summary and the exit code.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::runtime::{Builder, Runtime};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::SharedFlags;
use crate::config::Config;
use crate::error::{Error, StagingError};
use crate::exit_code::ExitCode;
use crate::load::{LoadMode, Loader, RejectAllowance};
use crate::pipeline::Pipeline;
use crate::progress::Progress;
use crate::report::Counters;
use crate::staging::{Staging, StagingLock};
use crate::transform::Plan;

/// A command that runs stages, from its configuration to its exit code.
pub(super) struct Session {
    pub(super) config: Config,
    pub(super) pipeline: Arc<Pipeline>,
    pub(super) stop: CancellationToken,
    progress: Progress,
    report: Option<PathBuf>,
    quiet: bool,
    _lock: StagingLock,
}

impl Session {
    /// Resolves the configuration and locks the staging directory. Must run in a runtime.
    pub(super) fn open(flags: &SharedFlags, mode: LoadMode) -> Result<Self, Error> {
        let config = Config::resolve(flags.overrides())?;
        let staging = Staging::open(&config.staging_dir)?;
        let lock = staging.lock()?;
        let counters = Arc::new(Counters::default());
        let progress = Progress::start(flags.progress, flags.quiet, Arc::clone(&counters));
        let stop = stop_on_signal()?;
        let pipeline = Pipeline {
            staging,
            mode,
            counters,
            stop: stop.clone(),
            keeps_no_archive: config.spool.archive_days == 0,
            chunks: watch::Sender::default(),
            damaged: AtomicBool::new(false),
            disk_full: AtomicBool::new(false),
        };
        Ok(Self {
            config,
            pipeline: Arc::new(pipeline),
            stop,
            progress,
            report: flags.report.clone(),
            quiet: flags.quiet,
            _lock: lock,
        })
    }

    /// Compiles the mapping; needs the masking keys.
    pub(super) fn plan(&self) -> Result<Arc<Plan>, Error> {
        Ok(Arc::new(Plan::compile(&self.config.pipeline, &self.config.keys, self.config.queue_name())?))
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

    /// The stages have ended: writes the report, prints the summary, and says how the process ends.
    pub(super) fn finish(self, title: &str, end: Result<End, Error>) -> Result<ExitCode, Error> {
        self.progress.finish();
        let queue_empty = end.as_ref().ok().and_then(|end| end.queue_empty);
        let mut report = self.pipeline.counters.report(queue_empty);
        let stuck = self.pipeline.damaged.load(Ordering::Acquire) || self.pipeline.disk_full.load(Ordering::Acquire);
        let code = match &end {
            Err(error) => error.exit_code(),
            Ok(_) if !report.sum_holds() => ExitCode::Bug,
            Ok(end) if end.work_left || stuck => ExitCode::WorkLeft,
            Ok(_) => ExitCode::Done,
        };
        report.exit_code = code.number();
        if let Some(path) = &self.report {
            report.write(path)?;
        }
        if !self.quiet {
            eprint!("{}", report.summary(title));
        }
        let end = end?;
        if code == ExitCode::Bug {
            eprintln!("error: the sum does not hold: received = loaded + duplicates + rejected + pending");
        } else if let (false, Some(remark)) = (self.quiet, &end.remark) {
            eprintln!("  {remark}");
        }
        Ok(code)
    }
}

impl End {
    /// The end of a command that looks at no queue: all is done, unless it was stopped.
    pub(super) fn without_queue(stop: &CancellationToken) -> Self {
        let work_left = stop.is_cancelled();
        let remark = work_left.then(|| "stopped before the end; what is left is safe".to_owned());
        Self { queue_empty: None, work_left, remark }
    }
}

/// How the stages of a command ended.
#[derive(Debug)]
pub(super) struct End {
    /// The queue was proven empty, or was not; `None` where no queue was asked.
    pub(super) queue_empty: Option<bool>,
    /// Something is left to do, all of it safe.
    pub(super) work_left: bool,
    /// The last line of the summary.
    pub(super) remark: Option<String>,
}

/// A runtime for one command: one thread for all that waits. What computes or blocks has threads of its own.
///
/// Measured over 50,000 messages, receives and deletes cost 0.8 of the CPU that they cost on a runtime of two threads:
/// futures that wake each other need not change threads. That one has CPU for about 40,000 messages a second; a second
/// one, for the drain alone, brought nothing on two cores.
pub(super) fn runtime() -> Result<Runtime, Error> {
    Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|source| StagingError::io("start threads in", std::path::Path::new("this process"))(source).into())
}

/// SIGINT and SIGTERM stop in an orderly way; a second one stops at once.
fn stop_on_signal() -> Result<CancellationToken, Error> {
    let listen =
        |kind| signal(kind).map_err(StagingError::io("listen for signals in", std::path::Path::new("this process")));
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
