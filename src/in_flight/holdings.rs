//! What must stay invisible to others, and where its receipt handles are.
//!
//! Always true: a message is held from its receive on: as a [`Batch`] with its handle in memory until all segments with a
//! part of the batch are sealed, then as a part of its segment, whose file has the handle. The segment is as old as the
//! first of its messages, and its visibility timeout as old as the earliest of theirs.

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::time::Instant;

use crate::queue::Message;
use crate::segment::SegmentId;

/// All that is neither settled nor let go.
#[derive(Debug, Default)]
pub(super) struct Holdings {
    held: Mutex<HashMap<Holding, Held>>,
    batches: AtomicU64,
}

/// What is kept invisible as a whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Holding {
    /// The messages of one receive, by number, until all of them are in sealed segments.
    Batch(u64),
    /// A sealed segment.
    Segment(SegmentId),
}

/// Since when something is held.
#[derive(Debug, Clone)]
pub(super) struct Held {
    /// When the first of its messages was received.
    pub(super) received: Instant,
    /// When the visibility timeout of its messages began for the last time; of the earliest of them.
    pub(super) extended: Instant,
    /// The receipt handles of a batch. A segment's are in its file.
    pub(super) handles: Arc<[String]>,
}

impl fmt::Display for Holding {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Batch(_) => formatter.write_str("messages that are not sealed yet"),
            Self::Segment(segment) => write!(formatter, "segment {segment}"),
        }
    }
}

/// The messages of one receive, from then until they are in sealed segments. Two segments may share them.
///
/// Dropped anywhere else than in [`super::InFlight::hold`], it leaves its messages to the keeper, which extends and at last
/// releases them: they are in the queue alone.
#[derive(Debug)]
pub struct Batch(u64);

impl Holdings {
    /// Messages were received just now.
    pub(super) fn receive(&self, messages: &[Message]) -> Arc<Batch> {
        let batch = Batch(self.batches.fetch_add(1, Ordering::AcqRel));
        let (received, handles) = (Instant::now(), messages.iter().map(|message| message.receipt_handle.clone()));
        let held = Held { received, extended: received, handles: handles.collect() };
        self.held().insert(batch.holding(), held);
        Arc::new(batch)
    }

    /// A segment was sealed with the messages of these batches, or a part of them.
    pub(super) fn seal(&self, segment: SegmentId, batches: Vec<Arc<Batch>>) {
        let mut all = self.held();
        let now = Instant::now();
        let (mut received, mut extended) = (now, now);
        for held in batches.iter().filter_map(|batch| all.get(&batch.holding())) {
            received = received.min(held.received);
            extended = extended.min(held.extended);
        }
        all.insert(Holding::Segment(segment), Held { received, extended, handles: Arc::default() });
        // Another segment may still wait for its part of a batch.
        for batch in batches.into_iter().filter_map(Arc::into_inner) {
            all.remove(&batch.holding());
        }
    }

    /// Nothing is done any more to keep it invisible.
    pub(super) fn let_go(&self, holding: Holding) {
        self.held().remove(&holding);
    }

    /// It was extended at this instant.
    pub(super) fn extended(&self, holding: Holding, at: Instant) {
        if let Some(held) = self.held().get_mut(&holding) {
            held.extended = at;
        }
    }

    /// What has a visibility timeout that began at this instant or before.
    pub(super) fn not_extended_since(&self, instant: Instant) -> Vec<(Holding, Held)> {
        let held = self.held();
        let due = held.iter().filter(|(_, held)| held.extended <= instant);
        due.map(|(&holding, held)| (holding, held.clone())).collect()
    }

    pub(super) fn all(&self) -> Vec<(Holding, Held)> {
        self.held().iter().map(|(&holding, held)| (holding, held.clone())).collect()
    }

    pub(super) fn holds(&self, holding: Holding) -> bool {
        self.held().contains_key(&holding)
    }

    fn held(&self) -> MutexGuard<'_, HashMap<Holding, Held>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Batch {
    const fn holding(&self) -> Holding {
        Holding::Batch(self.0)
    }
}

#[cfg(test)]
impl Holdings {
    /// Makes a batch this much older than it is.
    pub(super) fn age(&self, batch: &Batch, age: std::time::Duration) {
        let mut held = self.held();
        let held = held.get_mut(&batch.holding()).unwrap();
        (held.received, held.extended) = (held.received - age, held.extended - age);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::queue::simulated::messages;

    #[tokio::test(start_paused = true)]
    async fn a_batch_is_held_until_the_last_segment_with_a_part_of_it_is_sealed() {
        let holdings = Holdings::default();
        let began = Instant::now();
        let batch = holdings.receive(&messages(10));
        let holding = batch.holding();
        tokio::time::advance(Duration::from_secs(5)).await;
        let later = holdings.receive(&messages(1));
        let [first, second] = [SegmentId::now(), SegmentId::now()];
        holdings.seal(first, vec![Arc::clone(&batch)]);
        assert!(holdings.holds(holding) && holdings.holds(Holding::Segment(first)));
        holdings.seal(second, vec![later, batch]);
        assert!(!holdings.holds(holding));
        let due: Vec<Holding> = holdings.not_extended_since(began).into_iter().map(|(holding, _)| holding).collect();
        assert_eq!(due.len(), 2, "a segment is as old as its first message: {due:?}");
    }
}
