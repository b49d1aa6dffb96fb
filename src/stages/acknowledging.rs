//! The acknowledgement's loop: the next committed segment, its deletes, into the archive.

use std::sync::Arc;
use std::time::Instant;

use tokio::sync::{Mutex, mpsc};
use tokio::task::JoinSet;

use super::{OwnMessages, Stages};
use crate::ack::{self, Acknowledged, Deletes, RejectRoute};
use crate::blocking::blocking;
use crate::counters::RunStage;
use crate::durable::remove_if_present;
use crate::error::Error;
use crate::load::Committed;
use crate::queue::Queue;
use crate::workers::until_ended;

/// Segments that are acknowledged at a time: while one waits for a delete that SQS is slow or fails to do, for up to
/// 20 s, the other goes on. They share the deletes that may be under way.
const ACKNOWLEDGING_SEGMENTS: usize = 2;

/// What the workers of the acknowledgement share.
struct Acknowledging<Q> {
    queue: Arc<Q>,
    segments: Mutex<mpsc::Receiver<Committed>>,
    own: Option<Arc<OwnMessages>>,
    deletes: Deletes,
    route: RejectRoute,
}

impl Stages {
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
        let counters = &self.counters;
        while let Some(segment) = counters.ack.wait_for(async { work.segments.lock().await.recv().await }).await {
            let started = Instant::now();
            let tell = |answer: Acknowledged| {
                counters.ack.did(answer.deleted);
                counters.acknowledge(answer.deleted, answer.failed);
                counters.add_retries(answer.retries);
                counters.add_throttles(answer.throttles);
                if let Some(own) = own {
                    own.in_flight.deleted(answer.deleted);
                }
            };
            let done = ack::acknowledge(&**queue, &self.staging, &segment, deletes, route, &tell).await;
            counters.ack.worked(started);
            if let Err(error) = done {
                self.set_aside(segment.segment(), segment.received(), error, own.as_deref())?;
                continue;
            }
            counters.passed(RunStage::Ack, segment.segment(), started);
            if let Some(own) = own {
                own.in_flight.settle(segment.segment(), segment.received());
            }
            if self.spool.archive_days == 0 {
                let archived = self.staging.archive(segment.segment());
                blocking(move || remove_if_present(&archived)).await?;
            }
        }
        Ok(())
    }
}
