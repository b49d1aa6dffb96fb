//! Counts what is in flight, makes a receive wait while that is too much, and keeps it invisible to others.
//!
//! Always true:
//! - messages in flight plus what receives under way may still bring never exceed the cap. So the rate is at most the
//!   cap ÷ the seconds from receive to delete; both are measured;
//! - a message is held from its receive until it is settled, first as a part of a [`Batch`], then of a sealed segment. So
//!   what that takes of memory is bounded by the cap, too;
//! - a segment that an earlier run left in the spool is inherited: its messages may be in flight under the handles in its
//!   file, so they count as this run's own until they are settled, and are kept invisible like those, but no room is
//!   reserved for them.

mod flow;
mod holdings;
mod keeper;
mod recent;

use std::collections::HashMap;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, Semaphore};
use tokio::time::Instant;

pub use holdings::{Batch, BatchPart};
pub use keeper::Keeper;

use crate::queue::Message;
use crate::segment::SegmentId;
use crate::spool::SealedSegment;
use flow::Flow;
use holdings::{Holding, Holdings, Place};
use recent::Recent;

/// The messages of this run that were received and not yet deleted.
#[derive(Debug)]
pub struct InFlight {
    cap: u32,
    free: Semaphore,
    flow: Mutex<Flow>,
    changed: Notify,
    holdings: Holdings,
    books: Mutex<Books>,
    extensions: AtomicU64,
}

/// What this run knows beside the messages in flight, to judge the queue's own counts by.
#[derive(Debug, Default)]
struct Books {
    received: Recent,
    deleted: Recent,
    /// Segments of an earlier run that are not settled yet, and how many messages each has.
    inherited: HashMap<SegmentId, u64>,
    /// Messages received that had been received before, by whomever.
    redelivered: u64,
    set_aside: SetAside,
}

/// Segments that a run can do nothing for. Their messages may be in flight under the handles in their files.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SetAside {
    /// The messages of those that can be counted.
    pub messages: u64,
    /// The segments that cannot.
    pub uncounted: u64,
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
            changed: Notify::new(),
            holdings: Holdings::default(),
            books: Mutex::default(),
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
        Some(self.reserved(messages))
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
        self.reserved(messages)
    }

    fn reserved(&self, messages: usize) -> Reservation<'_> {
        self.flow().reserve();
        Reservation { in_flight: self, messages }
    }

    /// Waits until a receive waits for room and no other one is under way: nothing more arrives until something is
    /// deleted.
    pub async fn until_full(&self) {
        self.until(|| self.flow().is_full()).await;
    }

    /// Whether a receive waits for room.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.flow().is_waited_for()
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

    /// These segments are in the spool from an earlier run, which did not finish them. Until each is settled or set
    /// aside, this run is not done.
    pub fn inherit(&self, segments: &[SealedSegment]) {
        self.books().inherited.extend(segments.iter().map(|segment| (segment.id, segment.messages)));
        for segment in segments {
            if let Some(received) = Instant::now().checked_sub(segment.id.age())
                && keeper::can_be_held(received)
            {
                self.holdings.inherit(segment.id, received);
            }
        }
    }

    /// The messages of a batch are about to be appended to a segment, in their order.
    pub fn append(&self, batch: Batch) {
        self.holdings.place(&BatchPart { batch, messages: 0..usize::MAX }, Place::Appended);
    }

    /// These messages are in no segment after all.
    pub fn not_appended(&self, parts: &[BatchPart]) {
        for part in parts {
            self.holdings.place(part, Place::Received);
        }
    }

    /// A segment was sealed with the first of these messages, as many as it has. The others did not fit.
    pub fn hold(&self, segment: &SealedSegment, mut parts: Vec<BatchPart>) {
        let mut sealed = usize::try_from(segment.messages).unwrap_or(usize::MAX);
        let mut rest = Vec::new();
        for part in &mut parts {
            let BatchPart { batch, messages: Range { start, end } } = part.clone();
            let cut = end.min(start.saturating_add(sealed));
            sealed -= cut - start;
            part.messages = start..cut;
            rest.push(BatchPart { batch, messages: cut..end });
        }
        self.holdings.seal(segment.id, &parts);
        self.not_appended(&rest);
    }

    /// The messages of a segment are deleted, or SQS was asked to: this run does no more for them.
    pub fn settle(&self, segment: SegmentId, messages: u64) {
        self.holdings.let_go(Holding::Segment(segment));
        let was_inherited = self.books().inherited.remove(&segment).is_some();
        if !was_inherited {
            self.flow().settled(messages);
            self.free.add_permits(usize::try_from(messages).unwrap_or(0));
        }
        self.changed.notify_waiters();
    }

    /// This run can do nothing for a segment, whose messages stay in flight under the handles in its file. `None`: they
    /// cannot be counted.
    pub fn set_aside(&self, segment: SegmentId, messages: Option<u64>) {
        let mut books = self.books();
        match messages {
            Some(messages) => books.set_aside.messages += messages,
            None => books.set_aside.uncounted += 1,
        }
        drop(books);
        self.settle(segment, messages.unwrap_or(0));
    }

    /// What was set aside.
    #[must_use]
    pub fn what_is_set_aside(&self) -> SetAside {
        self.books().set_aside
    }

    /// Messages of inherited segments that may be in flight under the handles in their files. One that was delivered again
    /// to this run is not.
    #[must_use]
    pub fn inherited(&self) -> u64 {
        let books = self.books();
        books.inherited.values().sum::<u64>().saturating_sub(books.redelivered)
    }

    /// SQS confirmed this number of deletes just now.
    pub fn deleted(&self, messages: u64) {
        self.books().deleted.note(messages);
    }

    /// Deletes that SQS confirmed so lately that its counts may not know of them yet.
    #[must_use]
    pub fn recently_deleted(&self) -> u64 {
        self.books().deleted.messages()
    }

    /// Messages received so lately that SQS's counts may still call them visible.
    #[must_use]
    pub fn recently_received(&self) -> u64 {
        self.books().received.messages()
    }

    /// Waits until nothing is in flight that this run received or inherited.
    pub async fn none_remaining(&self) {
        self.until(|| self.messages() == 0 && self.books().inherited.is_empty()).await;
    }

    async fn until(&self, is_so: impl Fn() -> bool) {
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            if is_so() {
                return;
            }
            changed.await;
        }
    }

    fn books(&self) -> MutexGuard<'_, Books> {
        self.books.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn flow(&self) -> MutexGuard<'_, Flow> {
        self.flow.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Reservation<'_> {
    /// These arrived; the room for the others is free again.
    #[must_use]
    pub fn arrived(mut self, messages: &[Message]) -> Batch {
        let Self { in_flight, .. } = self;
        let arrived = messages.len().min(self.messages);
        self.messages -= arrived;
        in_flight.flow().arrived(arrived as u64);
        let mut books = in_flight.books();
        books.received.note(messages.len() as u64);
        books.redelivered += messages.iter().filter(|message| message.receive_count > 1).count() as u64;
        drop(books);
        in_flight.holdings.receive(messages)
    }
}

impl Drop for Reservation<'_> {
    fn drop(&mut self) {
        self.in_flight.flow().unreserve();
        self.in_flight.free.add_permits(self.messages);
        self.in_flight.changed.notify_waiters();
    }
}

/// A receive waits for room, until this is dropped.
struct Waiting<'a> {
    in_flight: &'a InFlight,
}

impl<'a> Waiting<'a> {
    fn begin(in_flight: &'a InFlight) -> Self {
        in_flight.flow().wait_begins();
        in_flight.changed.notify_waiters();
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
    use crate::queue::simulated::messages;

    fn arrive(in_flight: &InFlight, asked: usize, arrived: usize) -> Batch {
        in_flight.try_reserve(asked).unwrap().arrived(&messages(arrived))
    }

    #[tokio::test]
    async fn a_receive_waits_at_the_cap_until_messages_are_settled() {
        let in_flight = InFlight::with_cap(20);
        _ = arrive(&in_flight, 10, 10);
        _ = arrive(&in_flight, 10, 4);
        assert_eq!(in_flight.messages(), 14);
        assert!(in_flight.reserve(10).now_or_never().is_none(), "6 free");
        in_flight.settle(SegmentId::now(), 4);
        assert!(in_flight.reserve(10).now_or_never().is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn time_at_the_cap_is_counted_also_of_a_wait_that_is_given_up() {
        let in_flight = InFlight::with_cap(10);
        _ = arrive(&in_flight, 10, 10);
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
        _ = arrive(&in_flight, 10, 2);
        in_flight.settle(SegmentId::now(), 1);
        assert!(in_flight.none_remaining().now_or_never().is_none());
        tokio::join!(in_flight.none_remaining(), async { in_flight.settle(SegmentId::now(), 1) });
    }

    /// A run that was started again after a kill called its own messages those of other consumers, because it did not
    /// wait for what its predecessor had received.
    #[tokio::test]
    async fn what_an_earlier_run_left_is_waited_for_and_takes_no_room() {
        let in_flight = InFlight::with_cap(10);
        let [settled, set_aside, unreadable] = [7, 5, 0].map(SealedSegment::of_messages);
        in_flight.inherit(&[settled, set_aside, unreadable]);
        assert_eq!(in_flight.inherited(), 12);
        in_flight.settle(settled.id, 7);
        in_flight.set_aside(unreadable.id, None);
        assert!(in_flight.none_remaining().now_or_never().is_none());
        in_flight.set_aside(set_aside.id, Some(5));
        assert!(in_flight.none_remaining().now_or_never().is_some());
        assert_eq!(in_flight.what_is_set_aside(), SetAside { messages: 5, uncounted: 1 });
        assert_eq!(in_flight.inherited(), 0);
        _ = arrive(&in_flight, 10, 10);
        assert!(in_flight.try_reserve(1).is_none(), "settling made room for messages that had none");
    }

    #[tokio::test]
    async fn it_is_full_once_a_receive_waits_and_no_other_can_bring_anything() {
        let in_flight = InFlight::with_cap(20);
        _ = arrive(&in_flight, 10, 10);
        let under_way = in_flight.try_reserve(10).unwrap();
        assert!(in_flight.until_full().now_or_never().is_none(), "nothing waits");
        let waiting = in_flight.reserve(10);
        tokio::pin!(waiting);
        assert!(waiting.as_mut().now_or_never().is_none());
        assert!(in_flight.until_full().now_or_never().is_none(), "a receive is under way");
        _ = under_way.arrived(&messages(10));
        assert!(in_flight.until_full().now_or_never().is_some());
        in_flight.settle(SegmentId::now(), 10);
        _ = waiting.await;
        assert!(in_flight.until_full().now_or_never().is_none(), "there is room");
    }
}
