//! The drain: parallel long-polling receives into sealed spool segments, until the queue is proven empty.
//!
//! Always true: a message counts as received once it is in the spool; messages in flight never exceed the cap; the
//! drain deletes nothing. Stopped or failed, it seals what it has, so what was received is never thrown away; what
//! a poller held in memory at that moment is still in SQS. So it is when the disk is full: that ends the drain, too,
//! and leaves the stages behind it room to finish.
//!
//! Pollers receive and hand their messages to one spooler, which appends them to the open segment and seals it at
//! its limits, and at once when every poller came back empty. `emptiness` decides when the queue is empty.

mod emptiness;
mod spooler;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use backon::{ExponentialBuilder, Retryable};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::config::{QueueSettings, SpoolSettings};
use crate::crash_point::CrashPoint;
use crate::error::{Error, QueueError};
use crate::queue::{BATCH_MESSAGES, InFlight, Message, Queue};
use crate::report::Counters;
use crate::spool::SealedSegment;
use crate::staging::Staging;

use emptiness::Emptiness;
pub use emptiness::{DrainEnd, Proof};
use spooler::{Spooled, Spooler};

/// Batches that may wait for the spooler; beyond it, receives wait.
const WAITING_BATCHES: usize = 256;
/// Tries of a receive that fails by SQS's fault, beyond those that the SDK makes by itself.
const RECEIVE_RETRIES: usize = 5;

/// When a drain ends.
#[derive(Debug, Clone, Copy)]
pub struct DrainLimits {
    /// How long messages that others hold, or that are delayed, are waited for. `None` follows the queue for ever.
    pub idle: Option<Duration>,
    /// Stop after this many messages.
    pub max_messages: Option<u64>,
}

/// One drain of one queue.
#[derive(Debug)]
pub struct Drain<Q> {
    /// Where messages come from.
    pub queue: Arc<Q>,
    /// Where segments go.
    pub staging: Staging,
    /// How to receive.
    pub settings: QueueSettings,
    /// When to seal.
    pub spool: SpoolSettings,
    /// When to end.
    pub limits: DrainLimits,
    /// What proves that nothing is left to do.
    pub proof: Proof,
    /// The messages received and not yet deleted.
    pub in_flight: Arc<InFlight>,
    /// Where to count.
    pub counters: Arc<Counters>,
    /// Ends the drain in an orderly way. The drain cancels it at its own end, too.
    pub stop: CancellationToken,
}

/// What the pollers share.
struct Polling<Q> {
    drain: Drain<Q>,
    emptiness: Arc<Emptiness>,
    budget: AtomicU64,
    batches: mpsc::Sender<Vec<Message>>,
}

impl<Q: Queue> Drain<Q> {
    /// Drains until the queue is empty, a limit is met or `stop` is cancelled. Sends each segment as it is sealed.
    pub async fn run(self, sealed: mpsc::Sender<SealedSegment>) -> Result<DrainEnd, Error> {
        let (batches, waiting) = mpsc::channel(WAITING_BATCHES);
        let emptiness = Arc::new(Emptiness::of_pollers(self.settings.pollers));
        let spooler = Spooler::new(&self, Arc::clone(&emptiness), sealed);
        let spooler = tokio::spawn(spooler.run(waiting));

        let budget = AtomicU64::new(self.limits.max_messages.unwrap_or(u64::MAX));
        let polling = Arc::new(Polling { drain: self, emptiness, budget, batches });
        let mut pollers = JoinSet::new();
        for index in 0..polling.drain.settings.pollers {
            pollers.spawn(Arc::clone(&polling).poll(index));
        }
        let end = polling.until_done(&mut pollers).await;
        polling.drain.stop.cancel();
        let others = until_ended(&mut pollers).await;
        drop(polling);
        // The spooler's own failure ends the pollers, so it is the one to tell.
        match spooler.await.map_err(Error::panicked)?? {
            Spooled::Everything => others.and(end),
            Spooled::WhatFits => others.and(Ok(DrainEnd::DiskFull)),
        }
    }
}

impl<Q: Queue> Polling<Q> {
    /// Waits for the proof of emptiness, a poller's failure, or the end of all pollers.
    async fn until_done(&self, pollers: &mut JoinSet<Result<(), Error>>) -> Result<DrainEnd, Error> {
        let drain = &self.drain;
        let proven = async {
            match drain.limits.idle {
                Some(idle) => self.emptiness.prove(&*drain.queue, &drain.in_flight, drain.proof, idle).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            end = proven => Ok(end?),
            end = until_ended(pollers) => end,
            () = self.batches.closed() => Ok(DrainEnd::Stopped),
        }
    }

    async fn poll(self: Arc<Self>, index: usize) -> Result<(), Error> {
        let Drain { queue, in_flight, counters, stop, .. } = &self.drain;
        while let Some(wanted) = self.draw_on_budget() {
            let room = tokio::select! {
                () = stop.cancelled() => break,
                room = in_flight.reserve(wanted) => room,
            };
            let asked = self.emptiness.arrivals();
            let started = Instant::now();
            let receive = || queue.receive(wanted);
            let messages = receive.retry(retry_policy()).when(QueueError::is_transient).await?;
            self.budget.fetch_add((wanted - messages.len().min(wanted)) as u64, Ordering::AcqRel);
            room.arrived(messages.len());
            if messages.is_empty() {
                self.emptiness.came_back_empty(index, asked);
            } else {
                CrashPoint::Receive.pass();
                counters.drain.add(started, messages.len() as u64, 0);
                self.emptiness.arrived();
                if self.batches.send(messages).await.is_err() {
                    break;
                }
            }
            if stop.is_cancelled() {
                break;
            }
        }
        Ok(())
    }

    /// How many messages the next receive may bring; `None` once `max_messages` are received or asked for.
    fn draw_on_budget(&self) -> Option<usize> {
        let draw = |left: u64| left.min(BATCH_MESSAGES as u64);
        let drawn =
            self.budget.fetch_update(Ordering::AcqRel, Ordering::Acquire, |left| (left > 0).then(|| left - draw(left)));
        drawn.ok().map(|left| usize::try_from(draw(left)).unwrap_or(BATCH_MESSAGES))
    }
}

/// Waits for all pollers, or for the first that fails.
async fn until_ended(pollers: &mut JoinSet<Result<(), Error>>) -> Result<DrainEnd, Error> {
    while let Some(end) = pollers.join_next().await {
        end.map_err(Error::panicked)??;
    }
    Ok(DrainEnd::Stopped)
}

/// Longer than for a delete: a drain that gives up ends the run, and throttling passes.
fn retry_policy() -> ExponentialBuilder {
    ExponentialBuilder::default()
        .with_min_delay(Duration::from_millis(200))
        .with_max_times(RECEIVE_RETRIES)
        .with_jitter()
}
