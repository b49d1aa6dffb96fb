//! The proof that a queue is empty.
//!
//! One empty receive proves nothing: SQS asks a part of its servers, another poller may just have got the last
//! messages, and what is in flight can come back. A queue is drained when every poller has had an empty long poll
//! since the last arrival, and the queue's counts are zero but for what this run itself holds. A poller that is parked
//! has no receive under way, so there is nothing to wait for; but pollers that are all parked prove nothing.
//!
//! A long poll speaks for all of its time, so one that ends after the last arrival counts, although it may have begun
//! before: what was there at the arrival would have ended it. And who brought the last messages polls once more.
//!
//! While the verdict is near, pollers pause: a receive that begins then would have to be waited for.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use backon::{ExponentialBuilder, Retryable};
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::advice::Advised;
use crate::in_flight::InFlight;
use crate::queue::{Depth, Queue, QueueError};

/// How often the counts are asked for while somebody else holds messages.
const RECHECK: Duration = Duration::from_millis(500);
const NEVER: u64 = u64::MAX;
const PARKED: u64 = u64::MAX - 1;

/// How a drain ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DrainEnd {
    /// The queue is proven empty.
    Empty,
    /// Nothing came for the idle time, but the counts say that there is something: in flight elsewhere, or delayed.
    NotEmpty(Depth),
    /// A limit was met, or the run was stopped.
    Stopped,
    /// The disk of the staging directory is full, so nothing more can be received.
    DiskFull,
}

/// What must have become of this run's own messages before a queue counts as drained.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Proof {
    /// They are in sealed segments: a drain on its own.
    Spooled,
    /// They are deleted: a whole run.
    Acknowledged,
}

/// Which pollers have come back empty since the last arrival.
#[derive(Debug)]
pub(super) struct Emptiness {
    /// Receives that brought messages.
    arrivals: AtomicU64,
    /// For each poller, `arrivals` at the end of its last empty receive, or that it is parked.
    empty_since: Vec<AtomicU64>,
    changed: Notify,
    resumed: Notify,
}

impl Emptiness {
    /// All of them parked.
    pub(super) fn of_pollers(pollers: usize) -> Self {
        let empty_since = (0..pollers).map(|_| AtomicU64::new(PARKED)).collect();
        Self { arrivals: AtomicU64::new(0), empty_since, changed: Notify::new(), resumed: Notify::new() }
    }

    fn arrivals(&self) -> u64 {
        self.arrivals.load(Ordering::Acquire)
    }

    pub(super) fn arrived(&self) {
        self.arrivals.fetch_add(1, Ordering::AcqRel);
        self.resumed.notify_waiters();
    }

    /// From now on it may have a receive under way.
    pub(super) fn polls(&self, poller: usize) {
        self.empty_since[poller].store(NEVER, Ordering::Release);
    }

    /// It has no receive under way, and begins none.
    pub(super) fn parks(&self, poller: usize) {
        self.empty_since[poller].store(PARKED, Ordering::Release);
        self.changed.notify_waiters();
    }

    /// Its receive brought nothing.
    pub(super) fn came_back_empty(&self, poller: usize) {
        self.empty_since[poller].store(self.arrivals(), Ordering::Release);
        self.changed.notify_waiters();
    }

    /// Keeps a poller that came back empty from polling again while the proof may be about to succeed: until there is
    /// something to receive, another poller has received something, or this time has passed.
    pub(super) async fn pause(&self, poller: usize, most: Duration) {
        let resumed = self.resumed.notified();
        tokio::pin!(resumed);
        resumed.as_mut().enable();
        if self.empty_since[poller].load(Ordering::Acquire) == self.arrivals() {
            // That nothing resumed it is an answer, too.
            _ = tokio::time::timeout(most, resumed).await;
        }
    }

    /// Waits until every poller that is not parked has come back empty since the last arrival.
    pub(super) async fn all_came_back_empty(&self) {
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            if self.polling_came_back_empty() {
                return;
            }
            changed.await;
        }
    }

    fn polling_came_back_empty(&self) -> bool {
        let arrivals = self.arrivals();
        let mut polling = self
            .empty_since
            .iter()
            .map(|since| since.load(Ordering::Acquire))
            .filter(|since| *since != PARKED)
            .peekable();
        polling.peek().is_some() && polling.all(|since| since == arrivals)
    }

    /// Waits until the queue is drained, or until nothing came for `idle` although the counts are not zero.
    pub(super) async fn prove<Q: Queue>(
        &self,
        queue: &Q,
        in_flight: &InFlight,
        proof: Proof,
        idle: Duration,
    ) -> Result<DrainEnd, QueueError> {
        let mut quiet = (NEVER, Instant::now());
        loop {
            self.all_came_back_empty().await;
            if proof == Proof::Acknowledged {
                in_flight.none_remaining().await;
            }
            let arrivals = self.arrivals();
            if quiet.0 != arrivals {
                quiet = (arrivals, Instant::now());
            }
            let ask = || queue.depth();
            let depth = ask.retry(ExponentialBuilder::default().with_jitter()).when(QueueError::is_transient).await?;
            if self.arrivals() == arrivals {
                if depth.visible == 0 && depth.delayed == 0 && depth.in_flight <= in_flight.messages() {
                    return Ok(DrainEnd::Empty);
                }
                if quiet.1.elapsed() >= idle {
                    return Ok(DrainEnd::NotEmpty(depth));
                }
                self.resumed.notify_waiters();
                tokio::time::sleep(RECHECK.min(idle)).await;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    fn polling(pollers: usize) -> Emptiness {
        let emptiness = Emptiness::of_pollers(pollers);
        (0..pollers).for_each(|poller| emptiness.polls(poller));
        emptiness
    }

    fn is_shown(emptiness: &Emptiness) -> bool {
        emptiness.all_came_back_empty().now_or_never().is_some()
    }

    #[tokio::test]
    async fn one_poller_that_came_back_empty_proves_nothing() {
        let emptiness = polling(2);
        emptiness.came_back_empty(0);
        assert!(!is_shown(&emptiness));
        emptiness.came_back_empty(1);
        assert!(is_shown(&emptiness));
    }

    #[tokio::test]
    async fn a_receive_that_ended_before_the_last_arrival_proves_nothing() {
        let emptiness = polling(2);
        emptiness.came_back_empty(0);
        emptiness.arrived();
        emptiness.came_back_empty(1);
        assert!(!is_shown(&emptiness));
        emptiness.came_back_empty(0);
        assert!(is_shown(&emptiness));
    }

    #[tokio::test(start_paused = true)]
    async fn a_poller_that_came_back_empty_pauses_until_something_arrives() {
        const MOST: Duration = Duration::from_secs(1);
        let emptiness = polling(2);
        emptiness.came_back_empty(0);
        let began = Instant::now();
        emptiness.pause(0, MOST).await;
        assert_eq!(began.elapsed(), MOST);
        tokio::join!(emptiness.pause(0, MOST), async { emptiness.arrived() });
        emptiness.pause(0, MOST).await;
        assert_eq!(began.elapsed(), MOST, "what arrived before the pause counts, too");
    }

    #[tokio::test]
    async fn a_parked_poller_is_not_waited_for_and_one_that_polls_again_is() {
        let emptiness = polling(2);
        emptiness.came_back_empty(0);
        emptiness.parks(1);
        assert!(is_shown(&emptiness));
        emptiness.polls(1);
        assert!(!is_shown(&emptiness));
    }

    #[tokio::test]
    async fn pollers_that_are_all_parked_prove_nothing() {
        let emptiness = polling(2);
        emptiness.came_back_empty(0);
        emptiness.parks(0);
        emptiness.parks(1);
        assert!(!is_shown(&emptiness));
    }
}
