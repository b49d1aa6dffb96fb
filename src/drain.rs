//! The drain: parallel long-polling receives into sealed spool segments, until the queue is proven empty.
//!
//! Always true: a message counts as received once it is in the spool; messages in flight never exceed the cap; the
//! drain deletes nothing. Stopped or failed, it seals what it has, so what was received is never thrown away; what
//! a poller held in memory at that moment is still in SQS. So it is when the disk is full: that ends the drain, too,
//! and leaves the stages behind it room to finish.
//!
//! Pollers receive and hand their messages to one spooler, which appends them to the open segment and seals it at
//! its limits, and at once when every poller came back empty. `crew` decides how many pollers there are, `emptiness`
//! when the queue is empty.

mod crew;
mod emptiness;
mod spooler;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBackoff, ExponentialBuilder};
use tokio::sync::mpsc::{self, error::TrySendError};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::advice::Advised;
use crate::config::{QueueSettings, SpoolSettings};
use crate::counters::Counters;
use crate::crash_point::CrashPoint;
use crate::error::Error;
use crate::in_flight::{InFlight, Keeper, Reservation};
use crate::queue::{BATCH_MESSAGES, Message, Queue, QueueError, ReceiveAttempt};
use crate::spool::{Origin, SealedSegment};
use crate::staging::Staging;
use crate::workers::until_ended;

use crew::{Crew, Receive, Seat};
use emptiness::Emptiness;
pub use emptiness::{DrainEnd, Proof};
use spooler::{Spooler, Taken};

/// Batches that may wait for the spooler; beyond it, receives wait.
const WAITING_BATCHES: usize = 256;
/// Tries of a receive that fails by SQS's fault, beyond those that the SDK makes by itself.
const RECEIVE_RETRIES: usize = 8;
/// How long a poller waits after OverLimit: an answer that comes at once must not become a storm of requests.
const OVER_LIMIT_PAUSE: Duration = Duration::from_millis(500);

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
    /// Whose they are.
    pub origin: Origin,
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
    /// The drain cancels it once it receives nothing any more and everything it received is sealed.
    pub all_sealed: CancellationToken,
}

/// What the pollers share.
struct Polling<Q> {
    drain: Drain<Q>,
    crew: Arc<Crew>,
    emptiness: Arc<Emptiness>,
    budget: AtomicU64,
    batches: mpsc::Sender<Arrival>,
    /// Receives fail, and the warning about it is written.
    failing: AtomicBool,
}

/// The messages of one receive.
struct Arrival {
    at: Instant,
    messages: Vec<Message>,
}

impl<Q: Queue> Drain<Q> {
    /// What keeps this drain's messages invisible to others.
    #[must_use]
    pub fn keeper(&self) -> Keeper<Q> {
        let (queue, in_flight) = (Arc::clone(&self.queue), Arc::clone(&self.in_flight));
        Keeper::new(queue, in_flight, self.staging.clone(), self.settings.pollers)
    }

    /// Drains until the queue is empty, a limit is met or `stop` is cancelled. Sends each segment as it is sealed.
    pub async fn run(self, sealed: mpsc::Sender<SealedSegment>) -> Result<DrainEnd, Error> {
        let (batches, waiting) = mpsc::channel(WAITING_BATCHES);
        let most = self.most_pollers();
        let (crew, emptiness) = (Arc::new(Crew::of_at_most(most)), Arc::new(Emptiness::of_pollers(most)));
        let spooler = Spooler::new(&self, Arc::clone(&crew), Arc::clone(&emptiness), sealed);
        let spooler = tokio::spawn(spooler.run(waiting));

        let budget = AtomicU64::new(self.limits.max_messages.unwrap_or(u64::MAX));
        let failing = AtomicBool::new(false);
        let polling = Arc::new(Polling { drain: self, crew, emptiness, budget, batches, failing });
        let mut pollers = JoinSet::new();
        for index in 0..most {
            pollers.spawn(Arc::clone(&polling).poll(index));
        }
        let end = polling.until_done(&mut pollers).await;
        polling.drain.stop.cancel();
        let others = until_ended(&mut pollers).await;
        drop(polling);
        // The spooler's own failure ends the pollers, so it is the one to tell.
        match spooler.await.map_err(Error::panicked)?? {
            Taken::Everything => others.and(end),
            Taken::WhatFits => others.and(Ok(DrainEnd::DiskFull)),
        }
    }

    /// More of them than the cap has room for would only wait for each other.
    fn most_pollers(&self) -> usize {
        self.settings.pollers.min(self.in_flight.cap() as usize / BATCH_MESSAGES).max(1)
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
            ended = until_ended(pollers) => ended.map(|()| DrainEnd::Stopped),
            () = self.batches.closed() => Ok(DrainEnd::Stopped),
        }
    }

    /// Receives whenever there is a seat for it, until nothing is left to do for it.
    async fn poll(self: Arc<Self>, index: usize) -> Result<(), Error> {
        while let Some(Some(seat)) = self.drain.stop.run_until_cancelled(self.crew.seat()).await {
            self.emptiness.polls(index);
            let parks = self.poll_seated(index, seat).await;
            self.emptiness.parks(index);
            if !parks? {
                self.crew.dismiss_parked();
            }
        }
        Ok(())
    }

    /// Receives until its seat is gone; `false` where the drain is to stop, or its limits leave nothing to receive.
    async fn poll_seated(&self, index: usize, mut seat: Seat<'_>) -> Result<bool, Error> {
        while let Some(wanted) = self.draw_on_budget()
            && let Some(room) = self.room_for(wanted).await
        {
            let began = Instant::now();
            let Some(messages) = self.receive(wanted).await? else { break };
            let receive = Receive { began, ended: Instant::now(), asked: wanted, brought: messages.len() };
            self.budget.fetch_add((wanted - messages.len().min(wanted)) as u64, Ordering::AcqRel);
            room.arrived(messages.len());
            if messages.is_empty() {
                self.drain.counters.drain.waited(began.into_std());
                self.emptiness.came_back_empty(index);
            } else {
                CrashPoint::Receive.pass();
                self.drain.counters.drain.finished(began.into_std(), messages.len() as u64);
                self.emptiness.arrived();
                if !self.hand_on(messages).await {
                    break;
                }
            }
            if self.drain.stop.is_cancelled() {
                break;
            }
            match self.crew.came_back(seat, receive) {
                Some(kept) => seat = kept,
                None => return Ok(true),
            }
            // A drain that ends when the queue is empty may have proved it in a moment.
            if receive.brought == 0 && self.drain.limits.idle.is_some() {
                let long_poll = Duration::from_secs(self.drain.settings.wait_seconds.into());
                let pause = self.emptiness.pause(index, long_poll);
                if self.drain.stop.run_until_cancelled(pause).await.is_none() {
                    break;
                }
            }
        }
        Ok(false)
    }

    /// Room in flight; `None` where there will be none.
    async fn room_for(&self, wanted: usize) -> Option<Reservation<'_>> {
        let Drain { in_flight, proof, counters, stop, .. } = &self.drain;
        match (in_flight.try_reserve(wanted), proof) {
            (Some(room), _) => Some(room),
            (None, Proof::Acknowledged) => {
                let _held_up = self.crew.held_up();
                counters.drain.wait_for(stop.run_until_cancelled(in_flight.reserve(wanted))).await
            }
            // A drain on its own deletes nothing, so waiting brings no room.
            (None, Proof::Spooled) => None,
        }
    }

    /// Gives messages to the spooler; `false` where it takes no more.
    async fn hand_on(&self, messages: Vec<Message>) -> bool {
        match self.batches.try_send(Arrival { at: Instant::now(), messages }) {
            Ok(()) => true,
            Err(TrySendError::Full(arrival)) => {
                let _held_up = self.crew.held_up();
                self.drain.counters.drain.wait_for(self.batches.send(arrival)).await.is_ok()
            }
            Err(TrySendError::Closed(_)) => false,
        }
    }

    /// One receive, however often it takes; `None` once the drain is to stop and there is no answer yet.
    ///
    /// Retried longer than other calls: a drain that gives up ends the run, and what a lost answer hid comes again, on
    /// a FIFO queue by the retry itself. OverLimit is no failure but a full house: like an empty receive it lets the
    /// spooler seal what it has, so that deletes make room; and if the messages are others', the proof of emptiness
    /// waits for them as long as for any.
    async fn receive(&self, wanted: usize) -> Result<Option<Vec<Message>>, Error> {
        let mut attempt = ReceiveAttempt::begin();
        let mut delays = receive_delays();
        loop {
            let error = match self.drain.queue.receive(wanted, &attempt).await {
                Ok(messages) => {
                    self.tell_recovery();
                    return Ok(Some(messages));
                }
                Err(QueueError::OverLimit { .. }) => {
                    self.drain.counters.add_throttles(1);
                    self.pause(OVER_LIMIT_PAUSE).await;
                    return Ok(Some(Vec::new()));
                }
                Err(error) => error,
            };
            let Some(delay) = delays.next().filter(|_| error.is_transient()) else { return Err(error.into()) };
            self.drain.counters.add_retries(1);
            self.drain.counters.add_throttles(u64::from(error.is_throttling()));
            self.tell_outage(error);
            if !self.pause(delay).await {
                return Ok(None);
            }
            attempt = attempt.again();
        }
    }

    /// Whether the time passed, and the drain is not to stop.
    async fn pause(&self, time: Duration) -> bool {
        self.drain.stop.run_until_cancelled(tokio::time::sleep(time)).await.is_some()
    }

    fn tell_outage(&self, error: QueueError) {
        if !self.failing.swap(true, Ordering::AcqRel) {
            tracing::warn!(problem = Error::from(error).one_line(), "a receive failed and is tried again");
        }
    }

    fn tell_recovery(&self) {
        if self.failing.load(Ordering::Acquire) && self.failing.swap(false, Ordering::AcqRel) {
            tracing::info!("receives succeed again");
        }
    }

    /// How many messages the next receive may bring; `None` once `max_messages` are received or asked for.
    fn draw_on_budget(&self) -> Option<usize> {
        let draw = |budget: u64| budget.min(BATCH_MESSAGES as u64);
        let drawn = self
            .budget
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, |budget| (budget > 0).then(|| budget - draw(budget)));
        drawn.ok().map(|budget| usize::try_from(draw(budget)).unwrap_or(BATCH_MESSAGES))
    }
}

/// About 40 s altogether, beside what the SDK takes for each try: throttling and a restart pass.
fn receive_delays() -> ExponentialBackoff {
    ExponentialBuilder::default()
        .with_min_delay(Duration::from_millis(200))
        .with_max_delay(Duration::from_secs(10))
        .with_max_times(RECEIVE_RETRIES)
        .with_jitter()
        .build()
}
