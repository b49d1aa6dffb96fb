//! The load's loop: the next chunk, one transaction, on to the acknowledgement.

use std::sync::Arc;
use std::time::Instant;

use tokio::sync::{Mutex, mpsc};
use tokio::task::JoinSet;

use super::chunks::StagedChunk;
use super::{OwnMessages, Stages};
use crate::ack;
use crate::counters::RunStage;
use crate::crash_point::CrashPoint;
use crate::error::Error;
use crate::load::{Committed, Loader};
use crate::workers::until_ended;

/// What the load's workers share.
struct Loading {
    chunks: Mutex<mpsc::Receiver<StagedChunk>>,
    committed: mpsc::Sender<Committed>,
    own: Option<Arc<OwnMessages>>,
}

impl Stages {
    /// Each loader takes the next chunk as soon as it is free.
    pub(super) async fn load_all(
        self: Arc<Self>,
        loaders: Vec<Loader>,
        chunks: mpsc::Receiver<StagedChunk>,
        committed: mpsc::Sender<Committed>,
        own: Option<Arc<OwnMessages>>,
    ) -> Result<(), Error> {
        let work = Arc::new(Loading { chunks: Mutex::new(chunks), committed, own });
        let mut workers = JoinSet::new();
        for loader in loaders {
            workers.spawn(Arc::clone(&self).load_next(loader, Arc::clone(&work)));
        }
        drop(work);
        until_ended(&mut workers).await
    }

    async fn load_next(self: Arc<Self>, mut loader: Loader, work: Arc<Loading>) -> Result<(), Error> {
        let counters = &self.counters.load;
        while let Some(StagedChunk { manifest, guard }) =
            counters.wait_for(async { work.chunks.lock().await.recv().await }).await
        {
            let started = Instant::now();
            let outcome = loader.load(&self.staging, &manifest).await;
            self.counters.add_retries(loader.take_retries());
            let done = match outcome {
                Ok(done) => done,
                Err(error) => {
                    self.set_aside(manifest.segment, manifest.messages, error.into(), work.own.as_deref())?;
                    continue;
                }
            };
            if done.was_known() {
                self.gate.skip();
            } else {
                self.gate.prove();
            }
            self.counters.passed(RunStage::Load, manifest.segment, started);
            counters.finished(started, manifest.messages);
            counters.wrote(manifest.row_bytes());
            self.counters.commit(&done);
            self.commit_segment(manifest.segment).await?;
            drop(guard);
            CrashPoint::RemoveChunk.pass();
            // Without a queue, nothing is deleted.
            let done = match &work.own {
                Some(_) => loader.keep_redelivered_rejects(&self.staging, done).await,
                None => Ok(done),
            };
            let done = match done {
                Ok(done) => done,
                Err(error) => {
                    self.set_aside(manifest.segment, manifest.messages, error.into(), work.own.as_deref())?;
                    continue;
                }
            };
            if counters.wait_for(work.committed.send(done)).await.is_err() {
                break;
            }
        }
        Ok(())
    }

    /// Segments with receipt handles stay for `ack`; imported ones are done.
    pub(super) async fn keep_all(self: Arc<Self>, mut segments: mpsc::Receiver<Committed>) -> Result<(), Error> {
        while let Some(segment) = segments.recv().await {
            let (segment, received) = (segment.segment(), segment.received());
            if self.staging.find_unacknowledged(segment).is_none() {
                continue;
            }
            match ack::has_nothing_to_delete(&self.staging, segment).await {
                Ok(true) => ack::archive(&self.staging, segment).await?,
                Ok(false) => {}
                Err(error) => self.set_aside(segment, received, error.into(), None)?,
            }
        }
        Ok(())
    }
}
