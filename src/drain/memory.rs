//! How much of what was received may wait in memory for the spooler: a number of bytes, because a message may have one
//! or a million.
//!
//! Always true: a receive begins only while what waits, and what receives under way are expected to bring, fit into
//! `LIMIT_BYTES`, or while nothing waits: so a single batch that is larger than that passes alone. A receive is expected
//! to bring as much as the largest of the last ones. Where it brings more, the limit is exceeded by the difference,
//! and the next receives wait for longer.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use crate::queue::Message;

const LIMIT_BYTES: usize = 32 << 20;
/// What the first receives are expected to bring.
const FIRST_EXPECTED_BYTES: usize = 64 << 10;
/// What a message takes beside its texts.
const MESSAGE_BYTES: usize = 256;
/// Smaller batches lower what is expected by this part of the difference each, so that one large batch among small
/// ones is soon forgotten.
const FORGETTING: usize = 16;

/// The memory of one drain.
#[derive(Debug)]
pub(super) struct Memory {
    state: Mutex<State>,
    changed: Notify,
}

#[derive(Debug)]
struct State {
    taken_bytes: usize,
    expected_bytes: usize,
}

/// Room for what one receive brings. Dropped, it is free again.
#[derive(Debug)]
pub(super) struct Room {
    memory: Arc<Memory>,
    bytes: usize,
}

impl Memory {
    pub(super) fn new() -> Self {
        let state = State { taken_bytes: 0, expected_bytes: FIRST_EXPECTED_BYTES };
        Self { state: Mutex::new(state), changed: Notify::new() }
    }

    /// Room for one more receive, if there is some now.
    pub(super) fn try_take(self: &Arc<Self>) -> Option<Room> {
        let mut state = self.state();
        let bytes = state.expected_bytes;
        let fits = state.taken_bytes == 0 || state.taken_bytes + bytes <= LIMIT_BYTES;
        fits.then(|| {
            state.taken_bytes += bytes;
            Room { memory: Arc::clone(self), bytes }
        })
    }

    /// Waits until there is room for one more receive.
    pub(super) async fn take(self: &Arc<Self>) -> Room {
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            if let Some(room) = self.try_take() {
                return room;
            }
            changed.await;
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Room {
    /// These messages came, and take as much room as they do.
    pub(super) fn arrived(&mut self, messages: &[Message]) {
        self.arrived_bytes(messages.iter().map(bytes_of).sum());
    }

    fn arrived_bytes(&mut self, bytes: usize) {
        let mut state = self.memory.state();
        state.taken_bytes = state.taken_bytes - self.bytes + bytes;
        let expected = state.expected_bytes;
        state.expected_bytes = bytes.max(expected - (expected.saturating_sub(bytes)).div_ceil(FORGETTING));
        drop(state);
        self.bytes = bytes;
        self.memory.changed.notify_waiters();
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        self.memory.state().taken_bytes -= self.bytes;
        self.memory.changed.notify_waiters();
    }
}

fn bytes_of(message: &Message) -> usize {
    let attributes = message.attributes.as_ref().map_or(0, |attributes| attributes.get().len());
    MESSAGE_BYTES + message.body.len() + message.receipt_handle.len() + attributes
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    const MIB: usize = 1 << 20;

    fn arrive(memory: &Arc<Memory>, bytes: usize) -> Option<Room> {
        let mut room = memory.try_take()?;
        room.arrived_bytes(bytes);
        Some(room)
    }

    /// 256 batches could wait for a slow disk, whatever they held: 1.9 GB with bodies of 1 MiB.
    #[test]
    fn large_batches_are_as_many_as_fit() {
        let memory = Arc::new(Memory::new());
        let waiting: Vec<Room> = std::iter::from_fn(|| arrive(&memory, 10 * MIB)).take(100).collect();
        assert_eq!(waiting.len(), 3);
        drop(waiting);
        assert_eq!(memory.state().taken_bytes, 0);
    }

    #[tokio::test]
    async fn a_batch_beyond_the_limit_passes_alone() {
        let memory = Arc::new(Memory::new());
        let huge = arrive(&memory, 2 * LIMIT_BYTES).unwrap();
        let next = memory.take();
        tokio::pin!(next);
        assert!(next.as_mut().now_or_never().is_none());
        drop(huge);
        let next = next.now_or_never();
        assert!(next.is_some(), "nothing waits any more");
        assert!(memory.try_take().is_none(), "it may be as large");
    }

    #[test]
    fn small_batches_are_soon_expected_again_after_a_large_one() {
        let memory = Arc::new(Memory::new());
        drop(arrive(&memory, 10 * MIB));
        let mut small = 0;
        while memory.state().expected_bytes > LIMIT_BYTES / 64 {
            drop(arrive(&memory, 5000));
            small += 1;
        }
        assert!(small < 64, "{small} receives of 64 pollers");
    }

    #[test]
    fn a_receive_that_brings_nothing_says_nothing_about_the_next() {
        let memory = Arc::new(Memory::new());
        drop(arrive(&memory, 10 * MIB));
        drop(memory.try_take());
        assert_eq!(memory.state().expected_bytes, 10 * MIB);
    }
}
