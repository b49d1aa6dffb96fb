//! The proof that a queue is empty.
//!
//! One empty receive proves nothing: SQS asks a part of its servers, another poller may just have got the last
//! messages, and what is in flight can come back. A queue is drained when every poller has had an empty long poll
//! that began after the last arrival, and the queue's counts are zero but for what this run itself holds.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use backon::{ExponentialBuilder, Retryable};
use tokio::sync::Notify;

use crate::error::QueueError;
use crate::queue::{Depth, InFlight, Queue};

/// How often the counts are asked for while somebody else holds messages.
const RECHECK: Duration = Duration::from_millis(500);
const NEVER: u64 = u64::MAX;

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
    /// For each poller, `arrivals` at the start of its last empty receive.
    empty_since: Vec<AtomicU64>,
    changed: Notify,
}

impl Emptiness {
    pub(super) fn of_pollers(pollers: usize) -> Self {
        let empty_since = (0..pollers).map(|_| AtomicU64::new(NEVER)).collect();
        Self { arrivals: AtomicU64::new(0), empty_since, changed: Notify::new() }
    }

    pub(super) fn arrivals(&self) -> u64 {
        self.arrivals.load(Ordering::Acquire)
    }

    pub(super) fn arrived(&self) {
        self.arrivals.fetch_add(1, Ordering::AcqRel);
    }

    /// A receive that was begun after `asked` arrivals brought nothing.
    pub(super) fn came_back_empty(&self, poller: usize, asked: u64) {
        self.empty_since[poller].store(asked, Ordering::Release);
        self.changed.notify_waiters();
    }

    /// Waits until every poller has come back empty since the last arrival.
    pub(super) async fn all_came_back_empty(&self) {
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            let arrivals = self.arrivals();
            if self.empty_since.iter().all(|since| since.load(Ordering::Acquire) == arrivals) {
                return;
            }
            changed.await;
        }
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
                in_flight.none_left().await;
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
                tokio::time::sleep(RECHECK.min(idle)).await;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    #[tokio::test]
    async fn one_poller_that_came_back_empty_proves_nothing() {
        let emptiness = Emptiness::of_pollers(2);
        emptiness.came_back_empty(0, 0);
        assert!(emptiness.all_came_back_empty().now_or_never().is_none());
        emptiness.came_back_empty(1, 0);
        assert!(emptiness.all_came_back_empty().now_or_never().is_some());
    }

    #[tokio::test]
    async fn a_receive_that_began_before_the_last_arrival_proves_nothing() {
        let emptiness = Emptiness::of_pollers(2);
        emptiness.came_back_empty(0, 0);
        let asked = emptiness.arrivals();
        emptiness.arrived();
        emptiness.came_back_empty(1, asked);
        assert!(emptiness.all_came_back_empty().now_or_never().is_none());
        emptiness.came_back_empty(0, 1);
        emptiness.came_back_empty(1, 1);
        assert!(emptiness.all_came_back_empty().now_or_never().is_some());
    }
}
