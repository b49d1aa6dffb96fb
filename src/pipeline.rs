//! Runs the stages over segments: channels, limits, shutdown. The only file that knows them all.
//!
//! ```text
//! drain ──▶ sealed ──▶ transform ──▶ staged ──▶ load ──▶ committed ──▶ acknowledge
//! ```
//!
//! Always true: stages overlap segment by segment through channels of `WAITING_SEGMENTS`, so nothing grows with the
//! backlog; a stage that fails stops the drain, and what is sealed stays in the spool for the next run. A damaged
//! segment stops itself alone; a full disk stops the receiving, and what is sealed goes on as loads make room.

mod stages;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::ack::RejectRoute;
use crate::drain::{Drain, DrainEnd};
use crate::error::Error;
use crate::load::{Committed, LoadMode, Loader};
use crate::queue::Queue;
use crate::report::Counters;
use crate::spool;
use crate::staging::{SegmentId, Staging};
use crate::transform::Plan;

use stages::OwnMessages;

/// Segments that may wait between two stages.
const WAITING_SEGMENTS: usize = 2;

/// What the stages work on.
#[derive(Debug)]
pub struct Pipeline {
    /// Where the files lie.
    pub staging: Staging,
    /// Whether loading a segment that the ledger has is skipped or repeated.
    pub mode: LoadMode,
    /// Where to count.
    pub counters: Arc<Counters>,
    /// Cancelled, no further segment of an earlier run is begun.
    pub stop: CancellationToken,
    /// Acknowledged segments are removed at once, not kept for replay.
    pub keeps_no_archive: bool,
    /// Chunks that are written, or complete and removed when they are loaded.
    pub chunks: watch::Sender<usize>,
    /// Set once a segment could not be read to its end.
    pub damaged: AtomicBool,
    /// Set once a stage found the disk full.
    pub disk_full: AtomicBool,
}

impl Pipeline {
    /// Drains the queue, and whatever an earlier run left, into Postgres, and deletes what is committed.
    pub async fn run<Q: Queue>(
        self: Arc<Self>,
        drain: Drain<Q>,
        plan: Arc<Plan>,
        mut loaders: Vec<Loader>,
        route: RejectRoute,
    ) -> Result<DrainEnd, Error> {
        spool::recover(&self.staging)?;
        let left = self.staging.sealed_segments()?;
        let known = ledger(&mut loaders, &left).await?;

        let (sealed, to_transform) = mpsc::channel(WAITING_SEGMENTS);
        let (staged, to_load) = mpsc::channel(WAITING_SEGMENTS);
        let (committed, to_acknowledge) = mpsc::channel(WAITING_SEGMENTS);
        let (queue, parallel) = (Arc::clone(&drain.queue), drain.settings.pollers);
        let own = Arc::new(OwnMessages::new(Arc::clone(&drain.in_flight), drain.stop.clone(), &left));
        let (stop, this) = (drain.stop.clone(), || Arc::clone(&self));

        let mut running = JoinSet::new();
        running.spawn(stopping(stop.clone(), this().enter_left(left, known, sealed.clone(), committed.clone())));
        running.spawn(stopping(stop.clone(), this().transform_all(plan, to_transform, staged, Some(Arc::clone(&own)))));
        running.spawn(stopping(stop.clone(), this().load_all(loaders, to_load, committed, Some(Arc::clone(&own)))));
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
    ) -> Result<(), Error> {
        let known = match self.mode {
            LoadMode::Once => ledger(&mut loaders, &segments).await?,
            LoadMode::Again => HashMap::new(),
        };
        let (sealed, to_transform) = mpsc::channel(WAITING_SEGMENTS);
        let (staged, to_load) = mpsc::channel(WAITING_SEGMENTS);
        let (committed, to_keep) = mpsc::channel(WAITING_SEGMENTS);
        let mut running = JoinSet::new();
        running.spawn(Arc::clone(&self).enter_left(segments, known, sealed, committed.clone()));
        running.spawn(Arc::clone(&self).transform_all(plan, to_transform, staged, None));
        running.spawn(Arc::clone(&self).load_all(loaders, to_load, committed, None));
        running.spawn(Arc::clone(&self).keep_all(to_keep));
        join(running).await
    }

    /// Loads the chunks that a transform left, on this host or another.
    pub async fn load_staged(self: Arc<Self>, segments: Vec<SegmentId>, loaders: Vec<Loader>) -> Result<(), Error> {
        let (staged, to_load) = mpsc::channel(WAITING_SEGMENTS);
        let (committed, to_keep) = mpsc::channel(WAITING_SEGMENTS);
        let mut running = JoinSet::new();
        running.spawn(Arc::clone(&self).enter_staged(segments, staged));
        running.spawn(Arc::clone(&self).load_all(loaders, to_load, committed, None));
        running.spawn(Arc::clone(&self).keep_all(to_keep));
        join(running).await
    }

    /// Turns sealed segments into chunks.
    pub async fn transform_sealed(self: Arc<Self>, segments: Vec<SegmentId>, plan: Arc<Plan>) -> Result<(), Error> {
        let (sealed, to_transform) = mpsc::channel(WAITING_SEGMENTS);
        let (staged, mut done) = mpsc::channel(WAITING_SEGMENTS);
        let (committed, _) = mpsc::channel(1);
        let mut running = JoinSet::new();
        running.spawn(Arc::clone(&self).enter_left(segments, HashMap::new(), sealed, committed));
        running.spawn(Arc::clone(&self).transform_all(plan, to_transform, staged, None));
        let this = Arc::clone(&self);
        running.spawn(async move {
            while done.recv().await.is_some() {
                this.chunk_is_done();
            }
            Ok(())
        });
        join(running).await
    }

    /// Acknowledges the segments in the spool that the ledger has.
    pub async fn acknowledge_committed<Q: Queue>(
        self: Arc<Self>,
        queue: Arc<Q>,
        loaders: &mut [Loader],
        parallel: usize,
        route: RejectRoute,
    ) -> Result<(), Error> {
        let known = ledger(loaders, &self.staging.sealed_segments()?).await?;
        let (committed, to_acknowledge) = mpsc::channel(WAITING_SEGMENTS);
        let entered = async {
            for segment in known.into_values() {
                self.counters.recognise(&segment);
                _ = committed.send(segment).await;
            }
            drop(committed);
        };
        let acknowledged = Arc::clone(&self).acknowledge_all(queue, None, parallel, route, to_acknowledge);
        let ((), outcome) = tokio::join!(entered, acknowledged);
        outcome
    }
}

/// What the ledger has of these segments, asked once.
async fn ledger(loaders: &mut [Loader], segments: &[SegmentId]) -> Result<HashMap<SegmentId, Committed>, Error> {
    match loaders.first_mut() {
        Some(loader) => Ok(loader.committed(segments).await?),
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
