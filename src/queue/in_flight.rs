//! Counts what is in flight, and makes a receive wait while that is too much; knows in which sealed segments it is.
//!
//! Always true: messages in flight plus what receives under way may still bring never exceed the cap. A segment takes
//! two instants of memory, and there are never more of them than messages, so the cap bounds that, too.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::{Notify, Semaphore};
use tokio::time::Instant;

use crate::staging::SegmentId;

/// The messages of this run that were received and not yet deleted.
#[derive(Debug)]
pub struct InFlight {
    free: Semaphore,
    messages: AtomicU64,
    settled: Notify,
    segments: Mutex<HashMap<SegmentId, Held>>,
}

/// Since when a sealed segment is in flight.
#[derive(Debug, Clone, Copy)]
struct Held {
    /// When the first of its messages was received.
    received: Instant,
    /// When its visibility timeout began for the last time.
    extended: Instant,
}

/// Room for the messages of one receive. Dropped, it gives back what was not used.
#[derive(Debug)]
pub struct Reservation<'a> {
    in_flight: &'a InFlight,
    messages: usize,
}

impl InFlight {
    /// Allows `cap` messages.
    #[must_use]
    pub fn with_cap(cap: u32) -> Self {
        Self {
            free: Semaphore::new(cap as usize),
            messages: AtomicU64::new(0),
            settled: Notify::new(),
            segments: Mutex::default(),
        }
    }

    /// Waits until there is room for `messages` more.
    pub async fn reserve(&self, messages: usize) -> Reservation<'_> {
        let wanted = u32::try_from(messages).unwrap_or(u32::MAX);
        // The semaphore is never closed, so waiting cannot fail.
        if let Ok(permit) = self.free.acquire_many(wanted).await {
            permit.forget();
        }
        Reservation { in_flight: self, messages }
    }

    /// How many are in flight now.
    #[must_use]
    pub fn messages(&self) -> u64 {
        self.messages.load(Ordering::Acquire)
    }

    /// A segment was sealed; the first of its messages was received at `received`.
    pub fn hold(&self, segment: SegmentId, received: Instant) {
        self.segments().insert(segment, Held { received, extended: received });
    }

    /// The messages of a segment are deleted, or this run can do no more for them.
    pub fn settle(&self, segment: SegmentId, messages: u64) {
        self.let_go(segment);
        self.messages.fetch_sub(messages, Ordering::AcqRel);
        self.free.add_permits(usize::try_from(messages).unwrap_or(0));
        self.settled.notify_waiters();
    }

    /// The segment's messages count on, but nothing is done any more to keep them invisible.
    pub(super) fn let_go(&self, segment: SegmentId) {
        self.segments().remove(&segment);
    }

    /// The segment was extended at this instant.
    pub(super) fn extended(&self, segment: SegmentId, at: Instant) {
        if let Some(held) = self.segments().get_mut(&segment) {
            held.extended = at;
        }
    }

    /// The segments whose visibility timeout began at this instant or before, and when they were received.
    pub(super) fn not_extended_since(&self, instant: Instant) -> Vec<(SegmentId, Instant)> {
        let segments = self.segments();
        let due = segments.iter().filter(|(_, held)| held.extended <= instant);
        due.map(|(&segment, held)| (segment, held.received)).collect()
    }

    /// The segments that are neither settled nor let go.
    pub(super) fn unsettled(&self) -> Vec<SegmentId> {
        self.segments().keys().copied().collect()
    }

    pub(super) fn holds(&self, segment: SegmentId) -> bool {
        self.segments().contains_key(&segment)
    }

    fn segments(&self) -> MutexGuard<'_, HashMap<SegmentId, Held>> {
        self.segments.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until nothing is in flight.
    pub async fn none_left(&self) {
        loop {
            let settled = self.settled.notified();
            tokio::pin!(settled);
            settled.as_mut().enable();
            if self.messages() == 0 {
                return;
            }
            settled.await;
        }
    }
}

impl Reservation<'_> {
    /// This many arrived; the room for the others is free again.
    pub fn arrived(mut self, messages: usize) {
        let arrived = messages.min(self.messages);
        self.messages -= arrived;
        self.in_flight.messages.fetch_add(arrived as u64, Ordering::AcqRel);
    }
}

impl Drop for Reservation<'_> {
    fn drop(&mut self) {
        self.in_flight.free.add_permits(self.messages);
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    #[tokio::test]
    async fn a_receive_waits_at_the_cap_until_messages_are_settled() {
        let in_flight = InFlight::with_cap(20);
        in_flight.reserve(10).await.arrived(10);
        in_flight.reserve(10).await.arrived(4);
        assert_eq!(in_flight.messages(), 14);
        assert!(in_flight.reserve(10).now_or_never().is_none(), "6 free");
        in_flight.settle(SegmentId::now(), 4);
        assert!(in_flight.reserve(10).now_or_never().is_some());
    }

    #[tokio::test]
    async fn a_receive_that_fails_gives_its_room_back() {
        let in_flight = InFlight::with_cap(10);
        drop(in_flight.reserve(10).await);
        assert!(in_flight.reserve(10).now_or_never().is_some());
        assert_eq!(in_flight.messages(), 0);
    }

    #[tokio::test]
    async fn waiting_for_none_left_ends_when_the_last_is_settled() {
        let in_flight = InFlight::with_cap(10);
        in_flight.reserve(10).await.arrived(2);
        in_flight.settle(SegmentId::now(), 1);
        assert!(in_flight.none_left().now_or_never().is_none());
        tokio::join!(in_flight.none_left(), async { in_flight.settle(SegmentId::now(), 1) });
    }
}
