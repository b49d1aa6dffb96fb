//! Counts what is in flight, and makes a receive wait while that is too much; knows in which sealed segments it is.
//!
//! Always true: messages in flight plus what receives under way may still bring never exceed the cap. So the rate is
//! at most the cap ÷ the seconds from receive to delete; both are measured. A segment takes two instants of memory, and
//! there are never more of them than messages, so the cap bounds that, too.

mod flow;
mod keeper;

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, Semaphore};
use tokio::time::Instant;

pub use keeper::Keeper;

use crate::segment::SegmentId;
use flow::Flow;

/// The messages of this run that were received and not yet deleted.
#[derive(Debug)]
pub struct InFlight {
    cap: u32,
    free: Semaphore,
    flow: Mutex<Flow>,
    settled: Notify,
    segments: Mutex<HashMap<SegmentId, Held>>,
    extensions: AtomicU64,
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
            cap,
            free: Semaphore::new(cap as usize),
            flow: Mutex::new(Flow::new()),
            settled: Notify::new(),
            segments: Mutex::default(),
            extensions: AtomicU64::new(0),
        }
    }

    /// The most that may be in flight.
    #[must_use]
    pub const fn cap(&self) -> u32 {
        self.cap
    }

    /// Room for `messages` more, if there is some now.
    #[must_use]
    pub fn try_reserve(&self, messages: usize) -> Option<Reservation<'_>> {
        self.free.try_acquire_many(permits(messages)).ok()?.forget();
        Some(Reservation { in_flight: self, messages })
    }

    /// Waits until there is room for `messages` more.
    pub async fn reserve(&self, messages: usize) -> Reservation<'_> {
        if let Some(room) = self.try_reserve(messages) {
            return room;
        }
        let _waiting = Waiting::begin(self);
        // The semaphore is never closed, so waiting cannot fail.
        if let Ok(permit) = self.free.acquire_many(permits(messages)).await {
            permit.forget();
        }
        Reservation { in_flight: self, messages }
    }

    /// How many are in flight now.
    #[must_use]
    pub fn messages(&self) -> u64 {
        self.flow().messages()
    }

    /// How long the cap made at least one receive wait.
    #[must_use]
    pub fn time_at_cap(&self) -> Duration {
        self.flow().waited()
    }

    /// How long a message was in flight, on the mean; `None` where none was settled.
    #[must_use]
    pub fn mean_time_to_delete(&self) -> Option<Duration> {
        self.flow().mean_time()
    }

    /// How often a message's visibility timeout was extended.
    #[must_use]
    pub fn extensions(&self) -> u64 {
        self.extensions.load(Ordering::Acquire)
    }

    fn count_extensions(&self, messages: usize) {
        self.extensions.fetch_add(messages as u64, Ordering::AcqRel);
    }

    /// A segment was sealed; the first of its messages was received at `received`.
    pub fn hold(&self, segment: SegmentId, received: Instant) {
        self.segments().insert(segment, Held { received, extended: received });
    }

    /// The messages of a segment are deleted, or this run can do no more for them.
    pub fn settle(&self, segment: SegmentId, messages: u64) {
        self.let_go(segment);
        self.flow().settled(messages);
        self.free.add_permits(usize::try_from(messages).unwrap_or(0));
        self.settled.notify_waiters();
    }

    /// The segment's messages count on, but nothing is done any more to keep them invisible.
    fn let_go(&self, segment: SegmentId) {
        self.segments().remove(&segment);
    }

    /// The segment was extended at this instant.
    fn extended(&self, segment: SegmentId, at: Instant) {
        if let Some(held) = self.segments().get_mut(&segment) {
            held.extended = at;
        }
    }

    /// The segments whose visibility timeout began at this instant or before, and when they were received.
    fn not_extended_since(&self, instant: Instant) -> Vec<(SegmentId, Instant)> {
        let segments = self.segments();
        let due = segments.iter().filter(|(_, held)| held.extended <= instant);
        due.map(|(&segment, held)| (segment, held.received)).collect()
    }

    /// The segments that are neither settled nor let go.
    fn unsettled(&self) -> Vec<SegmentId> {
        self.segments().keys().copied().collect()
    }

    fn holds(&self, segment: SegmentId) -> bool {
        self.segments().contains_key(&segment)
    }

    fn segments(&self) -> MutexGuard<'_, HashMap<SegmentId, Held>> {
        self.segments.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn flow(&self) -> MutexGuard<'_, Flow> {
        self.flow.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until nothing is in flight.
    pub async fn none_remaining(&self) {
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
        self.in_flight.flow().arrived(arrived as u64);
    }
}

impl Drop for Reservation<'_> {
    fn drop(&mut self) {
        self.in_flight.free.add_permits(self.messages);
    }
}

/// A receive waits for room, until this is dropped.
struct Waiting<'a> {
    in_flight: &'a InFlight,
}

impl<'a> Waiting<'a> {
    fn begin(in_flight: &'a InFlight) -> Self {
        in_flight.flow().wait_begins();
        Self { in_flight }
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.in_flight.flow().wait_ends();
    }
}

fn permits(messages: usize) -> u32 {
    u32::try_from(messages).unwrap_or(u32::MAX)
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

    #[tokio::test(start_paused = true)]
    async fn time_at_the_cap_is_counted_also_of_a_wait_that_is_given_up() {
        let in_flight = InFlight::with_cap(10);
        in_flight.reserve(10).await.arrived(10);
        assert_eq!(in_flight.time_at_cap(), Duration::ZERO);
        let second = Duration::from_secs(1);
        assert!(tokio::time::timeout(second, in_flight.reserve(1)).await.is_err());
        tokio::time::advance(second).await;
        assert_eq!(in_flight.time_at_cap(), second);
        in_flight.settle(SegmentId::now(), 10);
        assert_eq!(in_flight.mean_time_to_delete(), Some(2 * second));
    }

    #[tokio::test]
    async fn a_receive_that_fails_gives_its_room_back() {
        let in_flight = InFlight::with_cap(10);
        drop(in_flight.reserve(10).await);
        assert!(in_flight.reserve(10).now_or_never().is_some());
        assert_eq!(in_flight.messages(), 0);
    }

    #[tokio::test]
    async fn waiting_for_none_remaining_ends_when_the_last_is_settled() {
        let in_flight = InFlight::with_cap(10);
        in_flight.reserve(10).await.arrived(2);
        in_flight.settle(SegmentId::now(), 1);
        assert!(in_flight.none_remaining().now_or_never().is_none());
        tokio::join!(in_flight.none_remaining(), async { in_flight.settle(SegmentId::now(), 1) });
    }
}
