//! Counts what is in flight, and makes a receive wait while that is too much.
//!
//! Always true: messages in flight plus what receives under way may still bring never exceed the cap.

use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::{Notify, Semaphore};

/// The messages of this run that were received and not yet deleted.
#[derive(Debug)]
pub struct InFlight {
    free: Semaphore,
    messages: AtomicU64,
    settled: Notify,
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
        Self { free: Semaphore::new(cap as usize), messages: AtomicU64::new(0), settled: Notify::new() }
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

    /// Messages left flight: deleted, or given back.
    pub fn settle(&self, messages: u64) {
        self.messages.fetch_sub(messages, Ordering::AcqRel);
        self.free.add_permits(usize::try_from(messages).unwrap_or(0));
        self.settled.notify_waiters();
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
        in_flight.settle(4);
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
        in_flight.settle(1);
        assert!(in_flight.none_left().now_or_never().is_none());
        tokio::join!(in_flight.none_left(), async { in_flight.settle(1) });
    }
}
