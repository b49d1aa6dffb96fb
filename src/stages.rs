//! Runs the stages over segments: channels, limits, shutdown. The only room that knows them all.
//!
//! ```text
//! drain ──▶ sealed ──▶ transform ──▶ staged ──▶ load ──▶ committed ──▶ acknowledge
//! ```
//!
//! Always true: each stage has a loop, which takes the next segment, does the stage's work on it, counts, and hands it
//! on. A loop ends when the stage before it has ended, and quietly when the stage behind it has: that one says why. Where
//! a stage has several workers, the first that fails ends the others: their transactions roll back, and their segments
//! stay in the spool.
//!
//! Stages overlap segment by segment through channels of `WAITING_SEGMENTS`, so nothing grows with the
//! backlog; a stage that fails stops the drain, and what is sealed stays in the spool for the next run. A damaged
//! segment stops itself alone; a full disk stops the receiving, and what is sealed goes on as loads make room.

mod acknowledging;
mod chunks;
mod entering;
mod loading;
mod retrying;
mod shutdown;
mod transforming;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

pub use retrying::{Retried, retry_rejects};
pub use shutdown::stop_after;

use crate::ack::RejectRoute;
use crate::blocking::blocking;
use crate::counters::Counters;
use crate::drain::{Drain, DrainEnd};
use crate::error::Error;
use crate::in_flight::InFlight;
use crate::load::{Committed, LoadMode, Loader};
use crate::queue::Queue;
use crate::segment::SegmentId;
use crate::spool;
use crate::staging::Staging;
use crate::transform::Plan;

use chunks::Chunks;
use shutdown::grace_is_over;

/// Segments that may wait between two stages.
const WAITING_SEGMENTS: usize = 2;

/// What the stages work on.
#[derive(Debug)]
pub struct Stages {
    staging: Staging,
    counters: Arc<Counters>,
    /// Cancelled, no further segment of an earlier run is begun.
    stop: CancellationToken,
    archive_days: u32,
    chunks: Chunks,
    damaged: AtomicBool,
    disk_full: AtomicBool,
    /// Told to stop, it did not begin a segment that it was to do.
    left_out: AtomicBool,
}

/// The drain beside the stages: what it has in flight, and what stops it.
struct OwnMessages {
    in_flight: Arc<InFlight>,
    stop: CancellationToken,
}

impl Stages {
    /// Stages over `staging`. With `archive_days = 0` acknowledged segments are removed at once.
    #[must_use]
    pub fn new(staging: Staging, counters: Arc<Counters>, stop: CancellationToken, archive_days: u32) -> Self {
        Self {
            staging,
            counters,
            stop,
            archive_days,
            chunks: Chunks::default(),
            damaged: AtomicBool::new(false),
            disk_full: AtomicBool::new(false),
            left_out: AtomicBool::new(false),
        }
    }

    /// Where the files lie.
    #[must_use]
    pub const fn staging(&self) -> &Staging {
        &self.staging
    }

    /// Where the stages count.
    #[must_use]
    pub const fn counters(&self) -> &Arc<Counters> {
        &self.counters
    }

    /// A segment could not be read to its end, or a stage found the disk full.
    #[must_use]
    pub fn set_something_aside(&self) -> bool {
        self.damaged.load(Ordering::Acquire) || self.disk_full.load(Ordering::Acquire)
    }

    /// Told to stop, it left out segments that it was to do.
    #[must_use]
    pub fn left_something_out(&self) -> bool {
        self.left_out.load(Ordering::Acquire)
    }

    /// Whether the next segment is to be left out, because the stages were told to stop.
    fn leaves_out_the_next(&self) -> bool {
        let stopped = self.stop.is_cancelled();
        self.left_out.fetch_or(stopped, Ordering::AcqRel);
        stopped
    }

    /// Drains the queue, and whatever an earlier run left unfinished, into Postgres, and deletes what is committed.
    ///
    /// Once the drain's `stop` is cancelled, `grace` remains to finish what is sealed; the rest is made visible again.
    pub async fn run<Q: Queue>(
        self: Arc<Self>,
        drain: Drain<Q>,
        plan: Arc<Plan>,
        loaders: Vec<Loader>,
        route: RejectRoute,
        stop: CancellationToken,
    ) -> Result<DrainEnd, Error> {
        let (keeper, all_sealed) = (drain.keeper(), drain.all_sealed.clone());
        let grace = drain.settings.shutdown_grace;
        let end = tokio::select! {
            end = Arc::clone(&self).run_to_end(drain, plan, loaders, route) => end,
            () = grace_is_over(&stop, grace, &all_sealed) => Ok(DrainEnd::Stopped),
        };
        // Others need not wait for its visibility timeout. It stays in the spool, too; whichever process loads it first
        // wins, and the ledger tells the other.
        keeper.release().await;
        let expired = self.staging.expire_archive(self.archive_days);
        end.and_then(|end| expired.map(|_| end).map_err(Error::from))
    }

    async fn run_to_end<Q: Queue>(
        self: Arc<Self>,
        drain: Drain<Q>,
        plan: Arc<Plan>,
        mut loaders: Vec<Loader>,
        route: RejectRoute,
    ) -> Result<DrainEnd, Error> {
        spool::recover(&self.staging)?;
        let unfinished = self.staging.sealed_segments()?;
        let known = known(&mut loaders, &unfinished).await?;

        let (sealed, to_transform) = mpsc::channel(WAITING_SEGMENTS);
        let (staged, to_load) = mpsc::channel(WAITING_SEGMENTS);
        let (committed, to_acknowledge) = mpsc::channel(WAITING_SEGMENTS);
        let (queue, parallel) = (Arc::clone(&drain.queue), drain.settings.pollers);
        drain.in_flight.inherit(unfinished.iter().copied());
        let own = Arc::new(OwnMessages { in_flight: Arc::clone(&drain.in_flight), stop: drain.stop.clone() });
        let (stop, this) = (drain.stop.clone(), || Arc::clone(&self));

        let mut running = JoinSet::new();
        running
            .spawn(stopping(stop.clone(), this().enter_sealed(unfinished, known, sealed.clone(), committed.clone())));
        running.spawn(stopping(stop.clone(), this().transform_all(plan, to_transform, staged, Some(Arc::clone(&own)))));
        running.spawn(stopping(
            stop.clone(),
            this().load_all(LoadMode::Once, loaders, to_load, committed, Some(Arc::clone(&own))),
        ));
        running
            .spawn(stopping(stop.clone(), this().acknowledge_all(queue, Some(own), parallel, route, to_acknowledge)));
        let mut keeping = JoinSet::new();
        let keeper = drain.keeper();
        keeping.spawn(async move { keeper.keep().await });
        let end = drain.run(sealed).await;
        join(running).await?;
        if self.disk_full.load(Ordering::Acquire) { end.and(Ok(DrainEnd::DiskFull)) } else { end }
    }

    /// Loads segments from the spool or the archive; needs no queue. Says of each that the ledger has already.
    pub async fn replay(
        self: Arc<Self>,
        segments: Vec<SegmentId>,
        plan: Arc<Plan>,
        mut loaders: Vec<Loader>,
        mode: LoadMode,
    ) -> Result<(), Error> {
        let known = match mode {
            LoadMode::Once => known(&mut loaders, &segments).await?,
            LoadMode::Again => HashMap::new(),
        };
        let (sealed, to_transform) = mpsc::channel(WAITING_SEGMENTS);
        let (staged, to_load) = mpsc::channel(WAITING_SEGMENTS);
        let (committed, to_keep) = mpsc::channel(WAITING_SEGMENTS);
        let mut running = JoinSet::new();
        running.spawn(Arc::clone(&self).enter_sealed(segments, known, sealed, committed.clone()));
        running.spawn(Arc::clone(&self).transform_all(plan, to_transform, staged, None));
        running.spawn(Arc::clone(&self).load_all(mode, loaders, to_load, committed, None));
        running.spawn(Arc::clone(&self).keep_all(to_keep));
        join(running).await
    }

    /// Loads the chunks that a transform left, on this host or another.
    pub async fn load_staged(self: Arc<Self>, segments: Vec<SegmentId>, loaders: Vec<Loader>) -> Result<(), Error> {
        let (staged, to_load) = mpsc::channel(WAITING_SEGMENTS);
        let (committed, to_keep) = mpsc::channel(WAITING_SEGMENTS);
        let mut running = JoinSet::new();
        running.spawn(Arc::clone(&self).enter_staged(segments, staged));
        running.spawn(Arc::clone(&self).load_all(LoadMode::Once, loaders, to_load, committed, None));
        running.spawn(Arc::clone(&self).keep_all(to_keep));
        join(running).await
    }

    /// Turns sealed segments into chunks.
    pub async fn transform_sealed(self: Arc<Self>, segments: Vec<SegmentId>, plan: Arc<Plan>) -> Result<(), Error> {
        let (sealed, to_transform) = mpsc::channel(WAITING_SEGMENTS);
        let (staged, mut done) = mpsc::channel(WAITING_SEGMENTS);
        let (committed, _) = mpsc::channel(1);
        let mut running = JoinSet::new();
        running.spawn(Arc::clone(&self).enter_sealed(segments, HashMap::new(), sealed, committed));
        running.spawn(Arc::clone(&self).transform_all(plan, to_transform, staged, None));
        running.spawn(async move {
            while done.recv().await.is_some() {}
            Ok(())
        });
        join(running).await
    }

    /// Acknowledges the segments in the spool that the ledger has. Returns how many of them it could not finish: deletes
    /// failed, or it was told to stop.
    pub async fn acknowledge_committed<Q: Queue>(
        self: Arc<Self>,
        queue: Arc<Q>,
        loaders: &mut [Loader],
        parallel: usize,
        route: RejectRoute,
    ) -> Result<usize, Error> {
        let known = known(loaders, &self.staging.sealed_segments()?).await?;
        let all: Vec<SegmentId> = known.keys().copied().collect();
        let (committed, to_acknowledge) = mpsc::channel(WAITING_SEGMENTS);
        let entered = async {
            for segment in known.into_values() {
                if self.leaves_out_the_next() {
                    break;
                }
                self.counters.enter_known(&segment);
                _ = committed.send(segment).await;
            }
            drop(committed);
        };
        let acknowledged = Arc::clone(&self).acknowledge_all(queue, None, parallel, route, to_acknowledge);
        let ((), outcome) = tokio::join!(entered, acknowledged);
        let expired = self.staging.expire_archive(self.archive_days);
        outcome.and(expired.map_err(Error::from))?;
        let unfinished = self.staging.sealed_segments()?;
        Ok(all.iter().filter(|segment| unfinished.binary_search(segment).is_ok()).count())
    }

    async fn remove_chunk(&self, segment: SegmentId) -> Result<(), Error> {
        let staging = self.staging.clone();
        Ok(blocking(move || staging.remove_chunk(segment)).await?)
    }

    fn receive_no_more(&self, own: Option<&OwnMessages>) {
        self.disk_full.store(true, Ordering::Release);
        if let Some(own) = own {
            own.stop.cancel();
        }
    }

    /// A segment that its own files stop, or a full disk: it stays in the spool, and the others go on. Any other error
    /// is given back.
    fn set_aside(
        &self,
        segment: SegmentId,
        messages: u64,
        error: Error,
        own: Option<&OwnMessages>,
    ) -> Result<(), Error> {
        if error.is_damage() {
            self.damaged.store(true, Ordering::Release);
        } else if error.is_disk_full() {
            self.disk_full.store(true, Ordering::Release);
        } else {
            return Err(error);
        }
        tracing::error!(%segment, "{}; this segment stays in the spool, the others go on", error.one_line());
        if let Some(own) = own {
            own.in_flight.set_aside(segment, messages);
        }
        Ok(())
    }
}

/// Which of these segments the ledger knows, asked once.
async fn known(loaders: &mut [Loader], segments: &[SegmentId]) -> Result<HashMap<SegmentId, Committed>, Error> {
    match loaders.first_mut() {
        Some(loader) => Ok(loader.known(segments).await?),
        None => Ok(HashMap::new()),
    }
}

/// A stage whose failure stops the drain.
async fn stopping(stop: CancellationToken, stage: impl Future<Output = Result<(), Error>>) -> Result<(), Error> {
    let end = stage.await;
    if end.is_err() {
        stop.cancel();
    }
    end
}

/// Waits for all stages, also after one has failed: the others finish what they have. Tells the first failure.
async fn join(mut running: JoinSet<Result<(), Error>>) -> Result<(), Error> {
    let mut outcome = Ok(());
    while let Some(end) = running.join_next().await {
        outcome = outcome.and(end.map_err(Error::panicked).flatten());
    }
    outcome
}
