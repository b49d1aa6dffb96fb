//! The transform's loop: the next sealed segment, its chunk, on to the load.

use std::sync::Arc;
use std::time::Instant;

use tokio::sync::{Mutex, mpsc};
use tokio::task::JoinSet;

use super::chunks::StagedChunk;
use super::{OwnMessages, Stages};
use crate::blocking::blocking;
use crate::chunk::Manifest;
use crate::counters::RunStage;
use crate::crash_point::CrashPoint;
use crate::error::Error;
use crate::segment::SegmentId;
use crate::spool::{SealedSegment, SpoolError, sealed_segment};
use crate::staging::Staging;
use crate::transform::{Plan, transform};
use crate::workers::until_ended;

/// Segments that are transformed at a time: while one is flushed to disk, the other has the cores.
const TRANSFORMING_SEGMENTS: usize = 2;

/// What the transform's workers share.
struct Transforming {
    plan: Arc<Plan>,
    segments: Mutex<mpsc::Receiver<SealedSegment>>,
    staged: mpsc::Sender<StagedChunk>,
    own: Option<Arc<OwnMessages>>,
    /// Held by the worker that tries again because the disk is full.
    crowded: Mutex<()>,
}

impl Stages {
    /// Each worker takes the next segment as soon as it is free.
    pub(super) async fn transform_all(
        self: Arc<Self>,
        plan: Arc<Plan>,
        segments: mpsc::Receiver<SealedSegment>,
        staged: mpsc::Sender<StagedChunk>,
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
    async fn transform_one(&self, segment: SegmentId, work: &Transforming) -> Result<StagedChunk, SpoolError> {
        let counters = &self.counters.transform;
        let mut alone = None;
        loop {
            let guard = self.chunks.begin();
            let started = Instant::now();
            let (staging, plan) = (self.staging.clone(), Arc::clone(&work.plan));
            let error = match blocking(move || chunk_of(&staging, segment, &plan)).await {
                Ok(manifest) => {
                    CrashPoint::Transform.pass();
                    self.counters.passed(RunStage::Transform, segment, started);
                    counters.finished(started, manifest.messages);
                    counters.wrote(manifest.row_bytes());
                    return Ok(StagedChunk { manifest, guard });
                }
                Err(error) => error,
            };
            let others = guard.others();
            drop(guard);
            if !error.is_disk_full() {
                return Err(error);
            }
            self.receive_no_more(work.own.as_deref());
            if alone.is_none() {
                alone = Some(counters.wait_for(work.crowded.lock()).await);
            } else if !counters.wait_for(self.has_room_again(others, &work.staged)).await {
                return Err(error);
            }
        }
    }

    /// Waits until one of the chunks that were there is loaded and removed. `false` where there is none to wait for.
    async fn has_room_again(&self, others: usize, staged: &mpsc::Sender<StagedChunk>) -> bool {
        tokio::select! {
            is_fewer = self.chunks.fewer_than(others) => is_fewer,
            () = staged.closed() => false,
        }
    }
}

/// The chunk that an earlier command left, if it is whole and what the plan would make; else a new one.
fn chunk_of(staging: &Staging, segment: SegmentId, plan: &Plan) -> Result<Manifest, SpoolError> {
    if let Ok(manifest) = Manifest::read(staging, segment)
        && plan.made(&manifest)
        && manifest.seal.is_some()
        && manifest.seal == sealed_segment(staging, segment)?.seal
        && manifest.verify(staging).is_ok()
    {
        return Ok(manifest);
    }
    transform(staging, segment, plan)
}
