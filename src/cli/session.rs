//! What the commands that run stages share. At the start: the resolved configuration, the locked staging directory, the
//! connections to Postgres and the queue. At the end: the report, the summary and the exit code.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustix::process::Signal;
use tokio::runtime::{Builder, Runtime};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::OnceCell;
use tokio_util::sync::CancellationToken;

use super::account::Account;
use super::end::{End, Told, exit_code};
use super::output::{say, say_text};
use super::{KeyFlags, LimitFlags, SharedFlags};
use crate::ack::RejectRoute;
use crate::config::{Config, OnReject, QueueAddress, QueueSettings};
use crate::counters::{Counters, Expected};
use crate::drain::{Drain, Proof};
use crate::error::Error;
use crate::exit_code::ExitCode;
use crate::in_flight::InFlight;
use crate::keyring::{self, Key, Keyring};
use crate::load::{Loader, RejectAllowance};
use crate::progress::{self, Progress};
use crate::queue::{Depth, Queue, ReceiveTimes, Sqs};
use crate::report::{Report, Sampler, Surroundings};
use crate::spool::{self, Origin, SealedSegment, SpoolKeys};
use crate::stages::{Inventory, Owner, Stages};
use crate::staging::{Staging, StagingLock};
use crate::transform::Plan;

/// What is peeked at stays invisible for this time, should it not be given back.
pub(super) const PEEK: ReceiveTimes = ReceiveTimes { wait_seconds: 1, visibility_seconds: 30 };
/// How long a run whose work is done waits for a database that does not answer any more.
const EXPIRE_AT_MOST: Duration = Duration::from_secs(30);

/// A command that runs stages, from its configuration to its exit code.
pub(super) struct Session {
    pub(super) config: Config,
    pub(super) stages: Arc<Stages>,
    pub(super) stop: CancellationToken,
    counters: Arc<Counters>,
    progress: Progress,
    sampler: Sampler,
    account: Account,
    quiet: bool,
    keys: OnceCell<Keyring>,
    /// The queue, where its URL had to be asked for.
    found: Option<Sqs>,
    lock: StagingLock,
}

impl Session {
    /// Resolves the configuration and locks the staging directory. Must run in a runtime.
    pub(super) fn open(flags: &SharedFlags) -> Result<Self, Error> {
        let config = Config::resolve(flags.overrides())?;
        flags.account.start(&config.pipeline.name, config.queue_url().ok());
        let staging = Staging::open(&config.staging_dir)?;
        let lock = staging.lock()?;
        let counters = Arc::new(Counters::default());
        flags.account.count_by(&counters);
        let sampler = Sampler::start(Arc::clone(&counters));
        let stop = stop_on_signal(flags.account.clone())?;
        let stages = Stages::new(staging, Arc::clone(&counters), stop.clone(), config.spool, config.pipeline.dedupe);
        flags.account.show_metrics(&counters, &stages)?;
        let progress = Progress::start(flags.progress, flags.quiet, Arc::clone(&counters), Arc::clone(stages.gate()));
        Ok(Self {
            config,
            stages: Arc::new(stages),
            stop,
            counters,
            progress,
            sampler,
            account: flags.account.clone(),
            quiet: flags.quiet,
            keys: OnceCell::new(),
            found: None,
            lock,
        })
    }

    /// From now on, the staging directory keeps the report as that of the last run.
    pub(super) fn keep_report(&self) {
        self.account.keep_report(self.staging());
    }

    /// Where the files lie.
    pub(super) fn staging(&self) -> &Staging {
        self.stages.staging()
    }

    /// Compiles the mapping; reads the keys.
    pub(super) async fn plan(&self) -> Result<Arc<Plan>, Error> {
        let keys = self.keys().await?;
        Ok(Arc::new(Plan::compile(&self.config.pipeline, keys, self.config.queue_name())?))
    }

    /// What encrypts the spool, if it is to be.
    pub(super) async fn spool_key(&self) -> Result<Option<Key>, Error> {
        if !self.config.spool.encryption {
            return Ok(None);
        }
        Ok(Some(self.keys().await?.spool_key()?.clone()))
    }

    /// Where rejected messages go. What is sent to a dead-letter queue is opened first.
    pub(super) async fn reject_route(&self, queue: &Sqs) -> Result<RejectRoute, Error> {
        let policy = &self.config.pipeline.rejects;
        let route = RejectRoute::find(policy, queue).await?;
        if !matches!(policy.on_reject, OnReject::Send { .. }) {
            return Ok(route);
        }
        match self.keys().await {
            Ok(keys) => Ok(route.opening_with(&SpoolKeys::of(keys))),
            Err(error) if self.config.spool.encryption => Err(error),
            // A segment that was encrypted before tells which key it needs.
            Err(_) => Ok(route),
        }
    }

    /// Read once: a program may give them.
    async fn keys(&self) -> Result<&Keyring, Error> {
        Ok(self.keys.get_or_try_init(|| keyring::read(&self.config.keys)).await?)
    }

    /// Nothing is said except errors.
    pub(super) const fn is_quiet(&self) -> bool {
        self.quiet
    }

    /// Whose files this command may touch. `queue_url`: where it receives or deletes.
    pub(super) fn owner(&self, queue_url: Option<&str>) -> Owner {
        Owner { pipeline: self.config.pipeline.name.clone(), queue_url: queue_url.map(str::to_owned) }
    }

    /// What earlier runs left unfinished; what a process left open is sealed first.
    pub(super) fn take_inventory(&self, owner: &Owner) -> Result<Inventory, Error> {
        spool::recover(self.staging())?;
        Inventory::take(self.staging(), owner)
    }

    /// Asks for the queue's URL, where the queue is named otherwise: files are compared by it.
    pub(super) async fn find_queue(&mut self) -> Result<(), Error> {
        let address = self.config.queue_address()?;
        if !matches!(address, QueueAddress::Url(_)) {
            let found = Sqs::find(&address, receive_times(&self.config)).await?;
            self.config.set_queue_url(found.url());
            self.found = Some(found);
        }
        Ok(())
    }

    /// Connects to the queue.
    pub(super) async fn connect_queue(&self) -> Result<Sqs, Error> {
        let queue = match &self.found {
            // The URL need not tell the region, as the ARN did.
            Some(found) => {
                found.look().await?;
                found.clone()
            }
            None => connect_queue(&self.config).await?,
        };
        self.account.connected();
        Ok(queue)
    }

    /// Connects to Postgres, and finds a mapping that does not fit its table before anything is received.
    pub(super) async fn connect_loaders(&self, connections: usize) -> Result<Vec<Loader>, Error> {
        self.connect_loaders_with(connections, KeyFlags::default()).await
    }

    /// The same, and finds a key that the table has not been written with.
    pub(super) async fn connect_loaders_for(
        &self,
        plan: &Plan,
        connections: usize,
        keys: KeyFlags,
    ) -> Result<Vec<Loader>, Error> {
        let mut loaders = self.connect_loaders_with(connections, keys).await?;
        if let Some(loader) = loaders.first_mut() {
            loader.accept_keys(plan.keys(), plan.ring()).await?;
        }
        Ok(loaders)
    }

    /// The same, for chunks that say which keys they were made with.
    pub(super) async fn connect_loaders_with(&self, connections: usize, keys: KeyFlags) -> Result<Vec<Loader>, Error> {
        let database = self.config.database_url()?;
        let allowance = Arc::new(RejectAllowance::new(self.config.pipeline.rejects.max_rejects));
        let mut loaders = Vec::with_capacity(connections);
        for _ in 0..connections {
            let loader = Loader::connect(&database, &self.config.pipeline).await?;
            let loader = loader.sharing(Arc::clone(&allowance), Arc::clone(self.stages.gate()));
            loaders.push(loader.taking_new_keys(keys.new_key));
        }
        if let Some(loader) = loaders.first_mut() {
            loader.check_mapping().await?;
        }
        self.account.connected();
        Ok(loaders)
    }

    /// Removes what was kept for long enough, here and in the ledger. The work of the command is done: what fails here is
    /// said, and no more. A command that is told to stop leaves it to the next one.
    pub(super) async fn expire(&self) {
        self.expire_by(async {
            let database = self.config.database_url()?;
            self.stages.expire(&database, &self.config.pipeline).await
        })
        .await;
    }

    /// The same, of files alone; for a command that needs no database, where none may be configured.
    pub(super) async fn expire_files(&self) {
        if let Ok(database) = self.config.database_url() {
            self.expire_by(self.stages.expire_files(&database, &self.config.pipeline)).await;
        }
    }

    async fn expire_by(&self, expired: impl Future<Output = Result<(), Error>>) {
        if self.stop.is_cancelled() {
            return;
        }
        let ended = tokio::select! {
            ended = tokio::time::timeout(EXPIRE_AT_MOST, expired) => ended,
            () = self.stop.cancelled() => return,
        };
        match ended {
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                tracing::warn!("what was kept for long enough could not be removed: {}", error.one_line());
            }
            Err(_) => tracing::warn!("the database is silent; what was kept for long enough is left to the next run"),
        }
    }

    /// A drain with the session's settings.
    pub(super) fn drain(
        &self,
        queue: Sqs,
        spool_key: Option<Key>,
        limits: &LimitFlags,
        proof: Proof,
        stop: CancellationToken,
    ) -> Result<Drain<Sqs>, Error> {
        let origin = Origin::of_queue(&self.config.pipeline.name, self.config.queue_url()?);
        let cap = self.config.queue.max_in_flight;
        let in_flight = self.counters.in_flight.get_or_init(|| Arc::new(InFlight::with_cap(cap)));
        Ok(Drain {
            queue: Arc::new(queue),
            staging: self.staging().clone(),
            origin,
            spool_key,
            settings: self.config.queue,
            spool: self.config.spool,
            limits: limits.drain_limits(self.account.run().started_at),
            proof,
            gate: self.stages.gate().watch(),
            in_flight: Arc::clone(in_flight),
            counters: Arc::clone(&self.counters),
            stop,
            all_sealed: CancellationToken::new(),
        })
    }

    /// For progress: counts what the queue holds, beside the run, and adds what earlier runs left. Where the queue does
    /// not say, or a run follows, nothing is known.
    pub(super) fn expect_of_queue(&self, queue: &Sqs, limits: &LimitFlags, left: u64, are_received: bool) {
        if limits.follow || !self.progress.is_shown() {
            return;
        }
        let (queue, counters, at_most) = (queue.clone(), Arc::clone(&self.counters), limits.max_messages);
        tokio::spawn(async move {
            if let Ok(Depth { visible, in_flight, delayed }) = queue.depth().await {
                // What earlier runs left is in flight, or will be redelivered.
                let messages = visible + delayed + in_flight.max(left);
                let messages = messages.min(at_most.map_or(u64::MAX, |at_most| at_most.saturating_add(left)));
                counters.expect(Expected { messages, is_estimate: true, are_received });
            }
        });
    }

    /// For progress: the messages of these files, as `count` counts each beside the import, are to be received.
    pub(super) fn expect_of_files(&self, files: Vec<PathBuf>, count: fn(&Path) -> io::Result<u64>) {
        if !self.progress.is_shown() {
            return;
        }
        let counters = Arc::clone(&self.counters);
        tokio::task::spawn_blocking(move || {
            // What cannot be read twice, such as a pipe, has no total; an error is the import's to say.
            if let Ok(messages) = files.iter().map(|file| count(file)).sum() {
                counters.expect(Expected { messages, is_estimate: true, are_received: true });
            }
        });
    }

    /// For progress: these segments are to be loaded.
    pub(super) fn expect_segments(&self, segments: &[SealedSegment]) {
        let messages = segments.iter().map(|segment| segment.messages).sum();
        self.counters.expect(Expected { messages, is_estimate: false, are_received: false });
    }

    /// What a drain with these limits was told.
    pub(super) fn told(&self, limits: &LimitFlags) -> Told {
        Told { to_stop: self.stop.is_cancelled(), to_follow: limits.follow }
    }

    /// The stages have ended: writes the report, prints the summary, and says how the process ends.
    pub(super) fn finish(self, title: &str, end: Result<End, Error>) -> Result<ExitCode, Error> {
        self.conclude(Some(title), end)
    }

    /// The same without a summary, for a command that has said what it did.
    pub(super) fn finish_silently(self, end: Result<End, Error>) -> Result<ExitCode, Error> {
        self.conclude(None, end)
    }

    fn conclude(self, title: Option<&str>, end: Result<End, Error>) -> Result<ExitCode, Error> {
        self.progress.finish();
        // Until the process ends: a thread that outlives the grace may still write, while the report is sent.
        std::mem::forget(self.lock);
        let samples = self.sampler.finish();
        let counted = Report { samples, ..Report::of(self.account.run(), &self.counters) };
        let code = exit_code(&end, counted.sum_holds(), self.stages.set_aside_by().is_some());
        let report = match &end {
            Err(error) => counted.failed(error),
            Ok(end) => {
                let ended_by = self.stages.set_aside_by().unwrap_or(end.ended_by);
                Report { queue_empty: end.queue_empty, ..counted.ended(ended_by, code) }
            }
        };
        let reported = self.account.close(&report);
        if let (false, Some(title)) = (self.quiet, title) {
            let around = Surroundings {
                staging: &self.config.staging_dir,
                report: self.account.report(),
                records_rejects: self.config.pipeline.rejects.on_reject != OnReject::Leave,
            };
            say_text(&report.summary(title, around));
        }
        if let (Err(_), Err(error)) = (&end, &reported) {
            tracing::warn!("{}", error.one_line());
        }
        let end = end?;
        reported?;
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
    Ok(Sqs::connect(&config.queue_address()?, receive_times(config)).await?)
}

const fn receive_times(config: &Config) -> ReceiveTimes {
    let QueueSettings { wait_seconds, visibility_seconds, .. } = config.queue;
    ReceiveTimes { wait_seconds, visibility_seconds }
}

/// A runtime for one command: one thread on which everything waits. Work that computes or blocks has threads of its
/// own.
///
/// Measured over 50,000 messages, receives and deletes cost 0.8 of the CPU that they cost on a runtime of two threads:
/// futures that wake each other need not change threads. One thread has CPU for about 40,000 messages a second; a
/// second runtime, for the drain alone, brought nothing on two cores.
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

/// Waits for SIGINT or SIGTERM. Where the process cannot listen for signals, this never returns.
pub(super) async fn first_signal() {
    match (signal(SignalKind::interrupt()), signal(SignalKind::terminate())) {
        (Ok(mut interrupt), Ok(mut terminate)) => {
            tokio::select! { _ = interrupt.recv() => {}, _ = terminate.recv() => {} }
        }
        _ => std::future::pending().await,
    }
}

/// SIGINT and SIGTERM stop in an orderly way; a second one stops at once, and leaves a report of what was counted by then.
fn stop_on_signal(account: Account) -> Result<CancellationToken, Error> {
    let listen = |kind| signal(kind).map_err(Error::system("listen for signals"));
    let (mut interrupt, mut terminate) = (listen(SignalKind::interrupt())?, listen(SignalKind::terminate())?);
    let stop = CancellationToken::new();
    let stopped = stop.clone();
    tokio::spawn(async move {
        tokio::select! { _ = interrupt.recv() => {}, _ = terminate.recv() => {} }
        tracing::info!("stopping: what is sealed is finished first; a second signal stops at once");
        stopped.cancel();
        tokio::select! { _ = interrupt.recv() => {}, _ = terminate.recv() => {} }
        account.abandon();
        progress::wipe();
        std::process::exit(ExitCode::WorkLeft.number().into());
    });
    Ok(stop)
}
