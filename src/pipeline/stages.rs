//! One loop a stage: take the next segment, do the stage's work on it, count, hand it on.
//!
//! A loop ends when the stage before it has ended, and quietly when the stage behind it has: that one says why. Where a
//! stage has several workers, the first that fails ends the others: their transactions roll back, and their segments
//! stay in the spool.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use tokio::sync::{Mutex, mpsc};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::Pipeline;
use crate::ack::{self, Deletes, RejectRoute};
use crate::blocking::blocking;
use crate::crash_point::CrashPoint;
use crate::drain::until_ended;
use crate::error::{Error, SpoolError};
use crate::load::{Committed, Loader};
use crate::queue::{InFlight, Queue};
use crate::spool::{self, SealedSegment};
use crate::staging::{SegmentId, remove_if_present};
use crate::transform::{Plan, StagedSegment, transform};

/// Segments that are transformed at a time: while one is flushed to disk, the other has the cores.
const TRANSFORMING_SEGMENTS: usize = 2;
/// Segments that are acknowledged at a time: while one waits for a delete that SQS is slow or fails to do, for up to
/// 20 s, the other goes on. They share the deletes that may be under way.
const ACKNOWLEDGING_SEGMENTS: usize = 2;

/// The messages that this run received, as opposed to those that an earlier one left in the spool.
pub(super) struct OwnMessages {
    in_flight: Arc<InFlight>,
    stop: CancellationToken,
    left: HashSet<SegmentId>,
}

impl OwnMessages {
    pub(super) fn new(in_flight: Arc<InFlight>, stop: CancellationToken, left: &[SegmentId]) -> Self {
        Self { in_flight, stop, left: left.iter().copied().collect() }
    }

    /// A segment is deleted from SQS, or this run can do no more for it.
    fn settle(&self, segment: SegmentId, messages: u64) {
        if !self.left.contains(&segment) {
            self.in_flight.settle(segment, messages);
        }
    }
}

/// What the transform's workers share.
struct Transforming {
    plan: Arc<Plan>,
    segments: Mutex<mpsc::Receiver<SealedSegment>>,
    staged: mpsc::Sender<StagedSegment>,
    own: Option<Arc<OwnMessages>>,
    /// Held by the worker that tries again because the disk is full.
    crowded: Mutex<()>,
}

/// What the workers of the acknowledgement share.
struct Acknowledging<Q> {
    queue: Arc<Q>,
    segments: Mutex<mpsc::Receiver<Committed>>,
    own: Option<Arc<OwnMessages>>,
    deletes: Deletes,
    route: RejectRoute,
}

impl Pipeline {
    /// Segments of an earlier run: those in the ledger go straight on, the others begin at the transform.
    pub(super) async fn enter_left(
        self: Arc<Self>,
        segments: Vec<SegmentId>,
        mut known: HashMap<SegmentId, Committed>,
        sealed: mpsc::Sender<SealedSegment>,
        committed: mpsc::Sender<Committed>,
    ) -> Result<(), Error> {
        for id in segments {
            if self.stop.is_cancelled() {
                break;
            }
            if let Some(segment) = known.remove(&id) {
                tracing::info!(segment = %id, "in the ledger already, skipped");
                self.counters.recognise(&segment);
                self.remove_chunk(id).await?;
                if committed.send(segment).await.is_err() {
                    break;
                }
            } else {
                let staging = self.staging.clone();
                let segment = blocking(move || spool::sealed_segment(&staging, id)).await?;
                self.counters.enter(&segment);
                if sealed.send(segment).await.is_err() {
                    break;
                }
            }
        }
        Ok(())
    }

    pub(super) async fn enter_staged(
        self: Arc<Self>,
        segments: Vec<SegmentId>,
        staged: mpsc::Sender<StagedSegment>,
    ) -> Result<(), Error> {
        for id in segments {
            if self.stop.is_cancelled() {
                break;
            }
            let staging = self.staging.clone();
            let segment = blocking(move || StagedSegment::open(&staging, id)).await?;
            self.counters.enter(&SealedSegment { id, messages: segment.received, bytes: segment.chunk_bytes });
            self.begin_chunk();
            if staged.send(segment).await.is_err() {
                break;
            }
        }
        Ok(())
    }

    /// Each worker takes the next segment as soon as it is free.
    pub(super) async fn transform_all(
        self: Arc<Self>,
        plan: Arc<Plan>,
        segments: mpsc::Receiver<SealedSegment>,
        staged: mpsc::Sender<StagedSegment>,
        own: Option<Arc<OwnMessages>>,
    ) -> Result<(), Error> {
        let (segments, crowded) = (Mutex::new(segments), Mutex::default());
        let work = Arc::new(Transforming { plan, segments, staged, own, crowded });
        let mut workers = JoinSet::new();
        for _ in 0..TRANSFORMING_SEGMENTS {
            workers.spawn(Arc::clone(&self).transform_next(Arc::clone(&work)));
        }
        drop(work);
        until_ended(&mut workers).await
    }

    async fn transform_next(self: Arc<Self>, work: Arc<Transforming>) -> Result<(), Error> {
        let counters = &self.counters.transform;
        while let Some(segment) = counters.wait_for(async { work.segments.lock().await.recv().await }).await {
            match self.transform_one(segment.id, &work).await {
                Ok(done) => {
                    if counters.wait_for(work.staged.send(done)).await.is_err() {
                        break;
                    }
                }
                Err(error) => self.set_aside(segment.id, segment.messages, error.into(), work.own.as_deref())?,
            }
        }
        Ok(())
    }

    /// Tries a segment again while the disk is full and loads make room. One worker does that at a time: two chunks
    /// that do not fit beside each other may fit one after the other.
    async fn transform_one(&self, segment: SegmentId, work: &Transforming) -> Result<StagedSegment, SpoolError> {
        let counters = &self.counters.transform;
        let mut alone = None;
        loop {
            let others = self.begin_chunk();
            let started = Instant::now();
            let (staging, plan) = (self.staging.clone(), Arc::clone(&work.plan));
            let error = match blocking(move || transform(&staging, segment, &plan)).await {
                Ok(done) => {
                    CrashPoint::Transform.pass();
                    counters.add(started, done.received, done.chunk_bytes);
                    return Ok(done);
                }
                Err(error) => error,
            };
            self.chunk_is_done();
            if !error.is_disk_full() {
                return Err(error);
            }
            self.receive_no_more(work.own.as_deref());
            if alone.is_none() {
                alone = Some(counters.wait_for(work.crowded.lock()).await);
            } else if !counters.wait_for(self.waits_for_room(others, &work.staged)).await {
                return Err(error);
            }
        }
    }

    /// Counts one more chunk that is written or waits to be loaded; tells how many others there are.
    fn begin_chunk(&self) -> usize {
        let mut others = 0;
        self.chunks.send_modify(|chunks| {
            others = *chunks;
            *chunks += 1;
        });
        others
    }

    async fn remove_chunk(&self, segment: SegmentId) -> Result<(), Error> {
        let staging = self.staging.clone();
        Ok(blocking(move || staging.remove_chunk(segment)).await?)
    }

    /// Nobody waits for the room of this chunk any more.
    pub(super) fn chunk_is_done(&self) {
        self.chunks.send_modify(|chunks| *chunks -= 1);
    }

    fn receive_no_more(&self, own: Option<&OwnMessages>) {
        self.disk_full.store(true, Ordering::Release);
        if let Some(own) = own {
            own.stop.cancel();
        }
    }

    /// Waits until one of the chunks that were there is loaded and removed. `false` where there is none to wait for.
    async fn waits_for_room(&self, others: usize, staged: &mpsc::Sender<StagedSegment>) -> bool {
        if others == 0 {
            return false;
        }
        let mut watched = self.chunks.subscribe();
        tokio::select! {
            fewer = watched.wait_for(|&now| now < others) => fewer.is_ok(),
            () = staged.closed() => false,
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
            own.settle(segment, messages);
        }
        Ok(())
    }

    /// Each loader takes the next segment as soon as it is free.
    pub(super) async fn load_all(
        self: Arc<Self>,
        loaders: Vec<Loader>,
        segments: mpsc::Receiver<StagedSegment>,
        committed: mpsc::Sender<Committed>,
        own: Option<Arc<OwnMessages>>,
    ) -> Result<(), Error> {
        let segments = Arc::new(Mutex::new(segments));
        let mut workers = JoinSet::new();
        for loader in loaders {
            workers.spawn(Arc::clone(&self).load_next(loader, Arc::clone(&segments), committed.clone(), own.clone()));
        }
        drop((segments, committed));
        until_ended(&mut workers).await
    }

    async fn load_next(
        self: Arc<Self>,
        mut loader: Loader,
        segments: Arc<Mutex<mpsc::Receiver<StagedSegment>>>,
        committed: mpsc::Sender<Committed>,
        own: Option<Arc<OwnMessages>>,
    ) -> Result<(), Error> {
        let counters = &self.counters.load;
        while let Some(segment) = counters.wait_for(async { segments.lock().await.recv().await }).await {
            let started = Instant::now();
            let done = match loader.load(&self.staging, &segment, self.mode).await {
                Ok(done) => done,
                Err(error) => {
                    self.set_aside(segment.id, segment.received, error.into(), own.as_deref())?;
                    self.chunk_is_done();
                    continue;
                }
            };
            counters.add(started, segment.received, segment.chunk_bytes);
            self.counters.commit(&done);
            self.remove_chunk(segment.id).await?;
            self.chunk_is_done();
            CrashPoint::RemoveChunk.pass();
            if counters.wait_for(committed.send(done)).await.is_err() {
                break;
            }
        }
        Ok(())
    }

    /// Each worker takes the next segment as soon as it is free. Together they have up to `parallel` deletes under way.
    pub(super) async fn acknowledge_all<Q: Queue>(
        self: Arc<Self>,
        queue: Arc<Q>,
        own: Option<Arc<OwnMessages>>,
        parallel: usize,
        route: RejectRoute,
        segments: mpsc::Receiver<Committed>,
    ) -> Result<(), Error> {
        let (segments, deletes) = (Mutex::new(segments), Deletes::at_most(parallel));
        let work = Arc::new(Acknowledging { queue, segments, own, deletes, route });
        let mut workers = JoinSet::new();
        for _ in 0..ACKNOWLEDGING_SEGMENTS {
            workers.spawn(Arc::clone(&self).acknowledge_next(Arc::clone(&work)));
        }
        drop(work);
        until_ended(&mut workers).await
    }

    async fn acknowledge_next<Q: Queue>(self: Arc<Self>, work: Arc<Acknowledging<Q>>) -> Result<(), Error> {
        let Acknowledging { queue, own, deletes, route, .. } = &*work;
        let counters = &self.counters.ack;
        while let Some(segment) = counters.wait_for(async { work.segments.lock().await.recv().await }).await {
            let started = Instant::now();
            let done = match ack::acknowledge(&**queue, &self.staging, &segment, deletes, route).await {
                Ok(done) => done,
                Err(error) => {
                    self.set_aside(segment.segment(), segment.received(), error, own.as_deref())?;
                    continue;
                }
            };
            counters.add(started, done.deleted, 0);
            self.counters.add_acknowledged(done.deleted, done.failed);
            if let Some(own) = own {
                own.settle(segment.segment(), segment.received());
            }
            if self.keeps_no_archive {
                let archived = self.staging.archive(segment.segment());
                blocking(move || remove_if_present(&archived)).await?;
            }
        }
        Ok(())
    }

    /// What has receipt handles stays for `ack`; what came by `import` is done.
    pub(super) async fn keep_all(self: Arc<Self>, mut segments: mpsc::Receiver<Committed>) -> Result<(), Error> {
        while let Some(segment) = segments.recv().await {
            let is_in_spool = self.staging.spool(segment.segment()).exists();
            if is_in_spool && ack::nothing_to_acknowledge(&self.staging, &segment).await? {
                ack::archive(&self.staging, &segment).await?;
            }
        }
        Ok(())
    }
}
