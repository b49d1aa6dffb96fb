//! Runs the stages over segments: channels, limits, shutdown. The only room that knows them all.
//!
//! ```text
//! drain ──▶ sealed ──▶ transform ──▶ staged ──▶ load ──▶ committed ──▶ acknowledge
//! ```
//!
//! Always true: each stage has a loop, which takes the next segment, does the stage's work on it, counts, and hands it
//! on. A loop ends when the stage before it has ended, and quietly when the stage behind it has, which says why. Where
//! a stage has several workers, the first that fails ends the others: their transactions roll back, and their segments
//! stay in the spool.
//!
//! Stages overlap segment by segment through channels of `WAITING_SEGMENTS`, so nothing grows with the
//! backlog; a stage that fails stops the drain, and what is sealed stays in the spool for the next run. A damaged
//! segment stops itself alone; a full disk stops the receiving, and what is sealed goes on as loads make room.

mod acknowledging;
mod chunks;
mod dropping;
mod entering;
mod expiring;
mod inventory;
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

pub use dropping::{Dropped, drop_rejects};
pub use inventory::{Inventory, Owner};
pub use retrying::{Retried, retry_rejects};
pub use shutdown::{beside, stop_after};

use crate::ack::RejectRoute;
use crate::blocking::blocking;
use crate::config::{Dedupe, SpoolSettings};
use crate::counters::Counters;
use crate::drain::{Drain, DrainEnd};
use crate::error::Error;
use crate::gate::Gate;
use crate::in_flight::InFlight;
use crate::load::{Committed, Loader};
use crate::queue::Queue;
use crate::report::EndedBy;
use crate::segment::SegmentId;
use crate::spool::SealedSegment;
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
    /// Once it is cancelled, no further segment of an earlier run is begun.
    stop: CancellationToken,
    spool: SpoolSettings,
    dedupe: Dedupe,
    chunks: Chunks,
    /// Closed while nothing shows that a segment can be loaded.
    gate: Arc<Gate>,
    damaged: AtomicBool,
    disk_full: AtomicBool,
}

/// The drain beside the stages: what it has in flight, and what stops it.
struct OwnMessages {
    in_flight: Arc<InFlight>,
    stop: CancellationToken,
}

impl Stages {
    /// Stages over `staging`. `spool` says how long what is done is kept, `dedupe` whether what is sealed may be given
    /// back to the queue.
    #[must_use]
    pub fn new(
        staging: Staging,
        counters: Arc<Counters>,
        stop: CancellationToken,
        spool: SpoolSettings,
        dedupe: Dedupe,
    ) -> Self {
        Self {
            staging,
            counters,
            stop,
            spool,
            dedupe,
            chunks: Chunks::default(),
            gate: Arc::default(),
            damaged: AtomicBool::new(false),
            disk_full: AtomicBool::new(false),
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

    /// What lets a drain beside the stages receive.
    #[must_use]
    pub const fn gate(&self) -> &Arc<Gate> {
        &self.gate
    }

    /// What set a segment aside, if anything did: damage, or a full disk.
    #[must_use]
    pub fn set_aside_by(&self) -> Option<EndedBy> {
        let damaged = self.damaged.load(Ordering::Acquire).then_some(EndedBy::Damage);
        damaged.or_else(|| self.disk_full.load(Ordering::Acquire).then_some(EndedBy::DiskFull))
    }

    /// Drains the queue, and whatever an earlier run left unfinished, into Postgres, and deletes what is committed.
    ///
    /// Once the drain's `stop` is cancelled, `grace` remains to finish what is sealed; the rest is made visible again.
    pub async fn run<Q: Queue>(
        self: Arc<Self>,
        drain: Drain<Q>,
        inventory: Inventory,
        plan: Arc<Plan>,
        loaders: Vec<Loader>,
        route: RejectRoute,
        stop: CancellationToken,
    ) -> Result<DrainEnd, Error> {
        let (keeper, all_sealed) = (drain.keeper(), drain.all_sealed.clone());
        let grace = drain.settings.shutdown_grace;
        let end = tokio::select! {
            end = Arc::clone(&self).run_to_end(drain, inventory, plan, loaders, route) => end,
            () = grace_is_over(&stop, grace, &all_sealed) => Ok(DrainEnd::Stopped),
        };
        // What remains becomes visible now, so that others need not wait for its visibility timeout. It stays in the spool
        // as well: the process that loads it first wins, and the ledger tells the other. By `dedupe = "segment"` the ledger
        // could not tell, so there only what is in no file is given back; for the rest the timeout has to pass.
        match self.dedupe {
            Dedupe::Message => keeper.release().await,
            Dedupe::Segment => keeper.release_unsealed().await,
        }
        end
    }

    async fn run_to_end<Q: Queue>(
        self: Arc<Self>,
        drain: Drain<Q>,
        inventory: Inventory,
        plan: Arc<Plan>,
        mut loaders: Vec<Loader>,
        route: RejectRoute,
    ) -> Result<DrainEnd, Error> {
        let known = known(&mut loaders, &inventory.ids()).await?;
        let known = self.keep_redelivered_rejects(&mut loaders, known).await?;
        let unfinished = [inventory.sealed, inventory.committed].concat();
        self.count_unfinished(&unfinished, &known);
        self.gate.doubt(unfinished.iter().filter(|segment| !known.contains_key(&segment.id)).count());

        let (sealed, to_transform) = mpsc::channel(WAITING_SEGMENTS);
        let (staged, to_load) = mpsc::channel(WAITING_SEGMENTS);
        let (committed, to_acknowledge) = mpsc::channel(WAITING_SEGMENTS);
        let (queue, parallel) = (Arc::clone(&drain.queue), drain.settings.pollers);
        drain.in_flight.inherit(&unfinished);
        for segment in inventory.unreadable {
            drain.in_flight.set_aside(segment, None);
        }
        let own = Arc::new(OwnMessages { in_flight: Arc::clone(&drain.in_flight), stop: drain.stop.clone() });
        let (stop, this) = (drain.stop.clone(), || Arc::clone(&self));

        let mut running = JoinSet::new();
        running.spawn(stopping(
            stop.clone(),
            this().enter_unfinished(unfinished, known, sealed.clone(), committed.clone()),
        ));
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

    /// Loads segments wherever they lie; needs no queue. Logs each that the ledger has already.
    pub async fn replay(
        self: Arc<Self>,
        segments: Vec<SealedSegment>,
        plan: Arc<Plan>,
        mut loaders: Vec<Loader>,
    ) -> Result<(), Error> {
        let ids: Vec<SegmentId> = segments.iter().map(|segment| segment.id).collect();
        let known = known(&mut loaders, &ids).await?;
        self.count_unfinished(&segments, &known);
        let (sealed, to_transform) = mpsc::channel(WAITING_SEGMENTS);
        let (staged, to_load) = mpsc::channel(WAITING_SEGMENTS);
        let (committed, to_keep) = mpsc::channel(WAITING_SEGMENTS);
        let mut running = JoinSet::new();
        running.spawn(Arc::clone(&self).enter_unfinished(segments, known, sealed, committed.clone()));
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
    pub async fn transform_sealed(self: Arc<Self>, segments: Vec<SealedSegment>, plan: Arc<Plan>) -> Result<(), Error> {
        self.count_unfinished(&segments, &HashMap::new());
        let (sealed, to_transform) = mpsc::channel(WAITING_SEGMENTS);
        let (staged, mut done) = mpsc::channel(WAITING_SEGMENTS);
        let (committed, _) = mpsc::channel(1);
        let mut running = JoinSet::new();
        running.spawn(Arc::clone(&self).enter_unfinished(segments, HashMap::new(), sealed, committed));
        running.spawn(Arc::clone(&self).transform_all(plan, to_transform, staged, None));
        running.spawn(async move {
            while done.recv().await.is_some() {}
            Ok(())
        });
        join(running).await
    }

    /// Acknowledges the unfinished segments that the ledger knows. Whether it has acknowledged all of these.
    pub async fn acknowledge_committed<Q: Queue>(
        self: Arc<Self>,
        inventory: Inventory,
        queue: Arc<Q>,
        loaders: &mut [Loader],
        parallel: usize,
        route: RejectRoute,
    ) -> Result<bool, Error> {
        let here = [inventory.ids(), inventory.unreadable.clone()].concat();
        let mut known = known(loaders, &here).await?;
        let loaded: Vec<SegmentId> = known.keys().copied().collect();
        known.retain(|segment, _| !inventory.unreadable.contains(segment));
        let known = self.keep_redelivered_rejects(loaders, known).await?;
        let (committed, to_acknowledge) = mpsc::channel(WAITING_SEGMENTS);
        let entered = async {
            for segment in known.into_values() {
                if self.stop.is_cancelled() {
                    break;
                }
                self.counters.enter_known(&segment);
                self.commit_segment(segment.segment()).await?;
                _ = committed.send(segment).await;
            }
            drop(committed);
            Ok(())
        };
        let acknowledged = Arc::clone(&self).acknowledge_all(queue, None, parallel, route, to_acknowledge);
        let (entered, acknowledged) = tokio::join!(entered, acknowledged);
        entered.and(acknowledged)?;
        Ok(loaded.into_iter().all(|segment| self.staging.find_unacknowledged(segment).is_none()))
    }

    /// Whether any segment here is unfinished.
    pub fn is_unfinished(&self) -> Result<bool, Error> {
        Ok(!self.staging.sealed_segments()?.is_empty() || !self.staging.committed_segments()?.is_empty())
    }

    /// Whether any of these segments still waits for its load.
    #[must_use]
    pub fn has_unfinished(&self, segments: &[SegmentId]) -> bool {
        self.counters.is_any_pending(segments)
    }

    /// Those of these segments that may be acknowledged: the bodies of their rejects are here.
    async fn keep_redelivered_rejects(
        &self,
        loaders: &mut [Loader],
        known: HashMap<SegmentId, Committed>,
    ) -> Result<HashMap<SegmentId, Committed>, Error> {
        let mut kept = HashMap::new();
        let Some(loader) = loaders.first_mut() else { return Ok(kept) };
        for (segment, committed) in known {
            match loader.keep_redelivered_rejects(&self.staging, committed).await.map_err(Error::from) {
                Ok(committed) => _ = kept.insert(segment, committed),
                // Without this it is not acknowledged, and stays unfinished.
                Err(error) if error.is_damage() || error.is_disk_full() || error.stops_its_segment_alone() => {
                    tracing::warn!(%segment, "{}", error.one_line());
                }
                Err(error) => return Err(error),
            }
        }
        Ok(kept)
    }

    async fn commit_segment(&self, segment: SegmentId) -> Result<(), Error> {
        let staging = self.staging.clone();
        Ok(blocking(move || staging.commit_segment(segment)).await?)
    }

    fn receive_no_more(&self, own: Option<&OwnMessages>) {
        self.disk_full.store(true, Ordering::Release);
        if let Some(own) = own {
            own.stop.cancel();
        }
    }

    /// Sets a segment aside that its own files or a full disk stop: it moves to `damaged/` or stays where it is, and the
    /// others go on. Any other error is given back.
    fn set_aside(
        &self,
        segment: SegmentId,
        messages: u64,
        error: Error,
        own: Option<&OwnMessages>,
    ) -> Result<(), Error> {
        let place = if error.is_damage() {
            self.damaged.store(true, Ordering::Release);
            self.staging.set_damaged_aside(segment)?;
            "is moved to damaged/"
        } else if error.is_disk_full() {
            self.disk_full.store(true, Ordering::Release);
            "stays in the spool"
        } else if error.stops_its_segment_alone() {
            self.damaged.store(true, Ordering::Release);
            "stays where it is"
        } else {
            return Err(error);
        };
        tracing::error!(%segment, "{}; this segment {place}, the others go on", error.one_line());
        self.gate.skip();
        if let Some(own) = own {
            // A segment with nothing in it is one that nobody can count.
            own.in_flight.set_aside(segment, (messages > 0).then_some(messages));
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
