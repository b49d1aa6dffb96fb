//! The pollers of one drain: each receives while it has a seat and there is room, and hands on what it gets.
//!
//! Always true: a receive begins only with a part of the budget, room in memory and room in flight, and gives back what
//! it does not use; what a receive brought is held by the keeper before the poller does anything else. A receive that is
//! under way is never broken off, because that would hide its messages for a visibility timeout.
//!
//! On failure a receive is asked for again, with growing pauses, for longer than other calls; then the drain fails.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBackoff, ExponentialBuilder};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::budget::{Budget, Draw};
use super::crew::{Crew, Receive, Seat};
use super::emptiness::Emptiness;
use super::memory::{Memory, Room};
use super::proof::{prove, until_open};
use super::{Drain, DrainEnd};
use crate::advice::Advised;
use crate::crash_point::CrashPoint;
use crate::error::Error;
use crate::in_flight::{Batch, Reservation};
use crate::queue::{Message, Queue, QueueError, ReceiveAttempt};
use crate::workers::until_ended;

/// Tries of a receive that fails by SQS's fault, beyond those that the SDK makes by itself.
const RECEIVE_RETRIES: usize = 8;
/// How long a poller waits after OverLimit: an answer that comes at once must not become a storm of requests.
const OVER_LIMIT_PAUSE: Duration = Duration::from_millis(500);

/// What the pollers share.
pub(super) struct Polling<Q> {
    pub(super) drain: Drain<Q>,
    pub(super) crew: Arc<Crew>,
    pub(super) emptiness: Arc<Emptiness>,
    most: usize,
    budget: Budget,
    /// How the drain ends once the budget is spent.
    end_at_limit: DrainEnd,
    memory: Arc<Memory>,
    arrivals: mpsc::UnboundedSender<Arrival>,
    /// Receives fail, and the warning about it is written.
    failing: AtomicBool,
}

/// The messages of one receive, on their way to the spooler.
pub(super) struct Arrival {
    pub(super) messages: Vec<Message>,
    pub(super) batch: Batch,
    /// Free again once the spooler is done with the messages.
    pub(super) _room: Room,
}

/// All that a receive needs before it begins.
struct Admission<'a> {
    draw: Draw<'a>,
    memory: Room,
    in_flight: Reservation<'a>,
}

impl<Q: Queue> Polling<Q> {
    pub(super) fn of(drain: Drain<Q>, arrivals: mpsc::UnboundedSender<Arrival>) -> Self {
        let (most, (messages, end_at_limit)) = (drain.most_pollers(), drain.most_messages());
        Self {
            crew: Arc::new(Crew::of_at_most(most)),
            emptiness: Arc::new(Emptiness::of_pollers(most)),
            most,
            budget: Budget::of(messages),
            end_at_limit,
            memory: Arc::new(Memory::new()),
            arrivals,
            failing: AtomicBool::new(false),
            drain,
        }
    }

    /// Receives until the queue is proven empty, a poller fails, or all have ended. No poller is left then.
    pub(super) async fn until_done(self: &Arc<Self>) -> Result<DrainEnd, Error> {
        let mut pollers = JoinSet::new();
        for index in 0..self.most {
            pollers.spawn(Arc::clone(self).poll(index));
        }
        let end = tokio::select! {
            verdict = self.proven() => verdict,
            ended = until_ended(&mut pollers) => {
                ended.map(|()| if self.budget.is_spent() { self.end_at_limit } else { DrainEnd::Stopped })
            }
            () = self.arrivals.closed() => Ok(DrainEnd::Stopped),
        };
        self.drain.stop.cancel();
        until_ended(&mut pollers).await.and(end)
    }

    async fn proven(&self) -> Result<DrainEnd, Error> {
        let Drain { queue, in_flight, proof, gate, limits, .. } = &self.drain;
        match limits.idle {
            Some(idle) => Ok(prove(&**queue, &self.emptiness, in_flight, *proof, gate, idle).await?.into()),
            None => std::future::pending().await,
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
        let stop = &self.drain.stop;
        while let Some(Some(Admission { draw, mut memory, in_flight })) =
            stop.run_until_cancelled(self.admission(index)).await
        {
            let (began, asked) = (Instant::now(), draw.messages());
            let Some(messages) = self.receive(asked).await? else { break };
            let receive = Receive { began, ended: Instant::now(), asked, brought: messages.len() };
            if messages.is_empty() {
                self.drain.counters.drain.waited(began.into_std());
                self.emptiness.came_back_empty(index);
                drop((draw, memory, in_flight));
            } else {
                let batch = in_flight.arrived(&messages);
                CrashPoint::Receive.pass();
                draw.received(messages.len());
                memory.arrived(&messages);
                self.drain.counters.drain.finished(began.into_std(), messages.len() as u64);
                self.emptiness.arrived();
                if self.arrivals.send(Arrival { messages, batch, _room: memory }).is_err() {
                    break;
                }
            }
            if stop.is_cancelled() {
                break;
            }
            match self.crew.came_back(seat, receive) {
                Some(kept) => seat = kept,
                None => return Ok(true),
            }
            // A drain that ends when the queue is empty may have proved it in a moment.
            if receive.brought == 0 && self.drain.limits.idle.is_some() {
                let long_poll = Duration::from_secs(self.drain.settings.wait_seconds.into());
                if stop.run_until_cancelled(self.emptiness.pause(index, long_poll)).await.is_none() {
                    break;
                }
            }
        }
        Ok(false)
    }

    /// Waits until one more receive may begin; `None` once all is received that may be.
    async fn admission(&self, index: usize) -> Option<Admission<'_>> {
        let Drain { gate, in_flight, counters, .. } = &self.drain;
        loop {
            if !*gate.borrow() {
                // What the queue was before is no proof any more.
                self.emptiness.polls(index);
                counters.drain.wait_for(until_open(gate)).await;
            }
            let draw = match self.budget.try_draw() {
                Some(draw) => draw,
                None => self.draw_when_others_are_back(index).await?,
            };
            let memory = match self.memory.try_take() {
                Some(room) => room,
                None => self.held_up(self.memory.take()).await,
            };
            let in_flight = match in_flight.try_reserve(draw.messages()) {
                Some(room) => room,
                None => self.held_up(in_flight.reserve(draw.messages())).await,
            };
            // It may have been closed during the waits.
            if *gate.borrow() {
                return Some(Admission { draw, memory, in_flight });
            }
        }
    }

    /// Waits for a stage behind the receives.
    async fn held_up<T>(&self, room: impl Future<Output = T>) -> T {
        let _held_up = self.crew.held_up();
        self.drain.counters.drain.wait_for(room).await
    }

    /// Receives under way have asked for all that is left of the budget. This one is not waited for meanwhile.
    async fn draw_when_others_are_back(&self, index: usize) -> Option<Draw<'_>> {
        let parked = self.emptiness.parks(index);
        let draw = self.drain.counters.drain.wait_for(self.budget.draw()).await;
        self.emptiness.goes_on(index, parked);
        draw
    }

    /// One receive, however often it takes; `None` once the drain is to stop and there is no answer yet.
    ///
    /// Retried longer than other calls: a drain that gives up ends the run, and what a lost answer hid is delivered
    /// again, on a FIFO queue by the retry itself. OverLimit is no failure but a full house: like an empty receive it
    /// lets the spooler seal what it has, so that deletes make room; and if the messages are others', the proof of
    /// emptiness waits for them as long as for any.
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
