//! What the pollers of a drain found, all together.
//!
//! One empty receive proves nothing: SQS asks a part of its servers, another poller may just have got the last
//! messages, and what is in flight can become visible again. So every poller must have had an empty long poll since the
//! last arrival. A parked poller has no receive under way, so there is nothing to wait for; but pollers that are all
//! parked prove nothing.
//!
//! An empty long poll proves that the queue was empty for its whole duration. So it counts if it *ended* after the last
//! arrival, even if it began before. The poller that brought the last messages polls once more.
//!
//! While the verdict is near, pollers pause: a receive that begins then would have to be waited for.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::Notify;

const NEVER: u64 = u64::MAX;
const PARKED: u64 = u64::MAX - 1;

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

/// What a poller had found when it parked.
#[derive(Debug)]
pub(super) struct Parked(u64);

impl Emptiness {
    /// All of them parked.
    pub(super) fn of_pollers(pollers: usize) -> Self {
        let empty_since = (0..pollers).map(|_| AtomicU64::new(PARKED)).collect();
        Self { arrivals: AtomicU64::new(0), empty_since, changed: Notify::new(), resumed: Notify::new() }
    }

    /// How many receives brought messages so far.
    pub(super) fn arrivals(&self) -> u64 {
        self.arrivals.load(Ordering::Acquire)
    }

    pub(super) fn arrived(&self) {
        self.arrivals.fetch_add(1, Ordering::AcqRel);
        self.resume_pollers();
    }

    /// From now on it may have a receive under way.
    pub(super) fn polls(&self, poller: usize) {
        self.empty_since[poller].store(NEVER, Ordering::Release);
    }

    /// It has no receive under way, and begins none.
    pub(super) fn parks(&self, poller: usize) -> Parked {
        let before = self.empty_since[poller].swap(PARKED, Ordering::AcqRel);
        self.changed.notify_waiters();
        Parked(before)
    }

    /// It goes on where it parked: what it had found then still counts, if nothing has arrived since.
    pub(super) fn goes_on(&self, poller: usize, Parked(before): Parked) {
        self.empty_since[poller].store(before, Ordering::Release);
    }

    /// Its receive brought nothing.
    pub(super) fn came_back_empty(&self, poller: usize) {
        self.empty_since[poller].store(self.arrivals(), Ordering::Release);
        self.changed.notify_waiters();
    }

    /// The proof is not about to succeed: pollers that pause go on.
    pub(super) fn resume_pollers(&self) {
        self.resumed.notify_waiters();
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
            if self.is_shown() {
                return;
            }
            changed.await;
        }
    }

    /// Every poller that is not parked has come back empty since the last arrival.
    pub(super) fn is_shown(&self) -> bool {
        let arrivals = self.arrivals();
        let mut polling = self
            .empty_since
            .iter()
            .map(|since| since.load(Ordering::Acquire))
            .filter(|since| *since != PARKED)
            .peekable();
        polling.peek().is_some() && polling.all(|since| since == arrivals)
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;
    use tokio::time::Instant;

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

    /// Where a limit leaves one batch, pollers take turns. Each turn made what its poller had found before worthless, so
    /// they were never all empty at a time.
    #[tokio::test]
    async fn pollers_that_take_turns_are_shown_empty() {
        let emptiness = polling(2);
        let second = emptiness.parks(1);
        emptiness.came_back_empty(0);
        let first = emptiness.parks(0);
        emptiness.goes_on(1, second);
        assert!(!is_shown(&emptiness), "it has not polled yet");
        emptiness.came_back_empty(1);
        emptiness.goes_on(0, first);
        assert!(is_shown(&emptiness));
        emptiness.arrived();
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
