//! One loop a stage: take the next segment, do the stage's work on it, count, hand it on.
//!
//! A loop ends when the stage before it has ended, and quietly when the stage behind it has: that one says why.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use tokio::sync::{Mutex, mpsc};
use tokio::task::JoinSet;

use super::Pipeline;
use crate::ack::{self, RejectRoute};
use crate::crash_point::CrashPoint;
use crate::error::{Error, SpoolError};
use crate::load::{Committed, Loader};
use crate::queue::{InFlight, Queue};
use crate::spool::{self, SealedSegment};
use crate::staging::SegmentId;
use crate::transform::{Plan, StagedSegment, transform};

/// The messages that this run received, as opposed to those that an earlier one left in the spool.
pub(super) struct OwnMessages {
    in_flight: Arc<InFlight>,
    left: HashSet<SegmentId>,
}

impl OwnMessages {
    pub(super) fn new(in_flight: Arc<InFlight>, left: &[SegmentId]) -> Self {
        Self { in_flight, left: left.iter().copied().collect() }
    }

    /// A segment is deleted from SQS, or this run can do no more for it.
    fn settle(&self, segment: SegmentId, messages: u64) {
        if !self.left.contains(&segment) {
            self.in_flight.settle(messages);
        }
    }
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
                self.staging.remove_chunk(id)?;
                if committed.send(segment).await.is_err() {
                    break;
                }
            } else {
                let segment = spool::sealed_segment(&self.staging, id)?;
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
            let segment = StagedSegment::open(&self.staging, id)?;
            self.counters.enter(&SealedSegment { id, messages: segment.received, bytes: segment.chunk_bytes });
            if staged.send(segment).await.is_err() {
                break;
            }
        }
        Ok(())
    }

    pub(super) async fn transform_all(
        self: Arc<Self>,
        plan: Arc<Plan>,
        mut segments: mpsc::Receiver<SealedSegment>,
        staged: mpsc::Sender<StagedSegment>,
        own: Option<Arc<OwnMessages>>,
    ) -> Result<(), Error> {
        while let Some(segment) = segments.recv().await {
            let started = Instant::now();
            let (staging, plan) = (self.staging.clone(), Arc::clone(&plan));
            let transformed = tokio::task::spawn_blocking(move || transform(&staging, segment.id, &plan)).await;
            match transformed.map_err(Error::panicked)? {
                Ok(done) => {
                    CrashPoint::Transform.pass();
                    self.counters.transform.add(started, done.received, done.chunk_bytes);
                    if staged.send(done).await.is_err() {
                        break;
                    }
                }
                Err(damage @ SpoolError::Damaged { .. }) => {
                    tracing::error!("{damage}; this segment stays in the spool, the others go on");
                    self.damaged.store(true, Ordering::Release);
                    if let Some(own) = &own {
                        own.settle(segment.id, segment.messages);
                    }
                }
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// Each loader takes the next segment as soon as it is free.
    pub(super) async fn load_all(
        self: Arc<Self>,
        loaders: Vec<Loader>,
        segments: mpsc::Receiver<StagedSegment>,
        committed: mpsc::Sender<Committed>,
    ) -> Result<(), Error> {
        let segments = Arc::new(Mutex::new(segments));
        let mut workers = JoinSet::new();
        for loader in loaders {
            workers.spawn(Arc::clone(&self).load_next(loader, Arc::clone(&segments), committed.clone()));
        }
        drop((segments, committed));
        // The first failure ends the others, too: their transactions roll back, and the segments stay in the spool.
        while let Some(end) = workers.join_next().await {
            end.map_err(Error::panicked)??;
        }
        Ok(())
    }

    async fn load_next(
        self: Arc<Self>,
        mut loader: Loader,
        segments: Arc<Mutex<mpsc::Receiver<StagedSegment>>>,
        committed: mpsc::Sender<Committed>,
    ) -> Result<(), Error> {
        while let Some(segment) = { segments.lock().await.recv().await } {
            let started = Instant::now();
            let done = loader.load(&self.staging, &segment, self.mode).await?;
            self.counters.load.add(started, segment.received, segment.chunk_bytes);
            self.counters.commit(&done);
            self.staging.remove_chunk(segment.id)?;
            CrashPoint::RemoveChunk.pass();
            if committed.send(done).await.is_err() {
                break;
            }
        }
        Ok(())
    }

    pub(super) async fn acknowledge_all<Q: Queue>(
        self: Arc<Self>,
        queue: Arc<Q>,
        own: Option<Arc<OwnMessages>>,
        parallel: usize,
        route: RejectRoute,
        mut segments: mpsc::Receiver<Committed>,
    ) -> Result<(), Error> {
        while let Some(segment) = segments.recv().await {
            let started = Instant::now();
            let done = ack::acknowledge(&*queue, &self.staging, &segment, parallel, &route).await?;
            self.counters.ack.add(started, done.deleted, 0);
            self.counters.add_acknowledged(done.deleted, done.failed);
            if let Some(own) = &own {
                own.settle(segment.segment(), segment.received());
            }
        }
        Ok(())
    }

    /// What has receipt handles stays for `ack`; what came by `import` is done.
    pub(super) async fn keep_all(self: Arc<Self>, mut segments: mpsc::Receiver<Committed>) -> Result<(), Error> {
        while let Some(segment) = segments.recv().await {
            if self.staging.spool(segment.segment()).exists() && ack::nothing_to_acknowledge(&self.staging, &segment)? {
                ack::archive(&self.staging, &segment)?;
            }
        }
        Ok(())
    }
}
