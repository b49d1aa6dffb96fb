//! What must stay invisible to others, and where its receipt handles are.
//!
//! Always true: a message is held from its receive on: as a part of a [`Batch`] with its handle in memory until a segment
//! with it is sealed, then as a part of that segment, whose file has the handle. The segment is as old as the first of its
//! messages, and its visibility timeout as old as the earliest of theirs.
//!
//! A message that was appended to a segment which is not sealed yet may be in a sealed one after all, when the next run
//! recovers the file. So it is told apart from one that is in the queue alone.

use std::collections::HashMap;
use std::fmt;
use std::ops::Range;
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
    /// The messages of one receive, as far as they are not in sealed segments.
    Batch(Batch),
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
    handles: Arc<[String]>,
    /// Where each message of a batch is.
    places: Vec<Place>,
}

/// Where a message of a batch is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// In the queue alone.
    Received,
    /// In the file of a segment that is not sealed yet, or on its way there.
    Appended,
    Sealed,
}

impl fmt::Display for Holding {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Batch(_) => formatter.write_str("messages that are not sealed yet"),
            Self::Segment(segment) => write!(formatter, "segment {segment}"),
        }
    }
}

/// The messages of one receive, by number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Batch(u64);

/// Messages of a batch that follow each other in one segment, by their positions in the batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BatchPart {
    /// Whose messages they are.
    pub batch: Batch,
    /// The positions.
    pub messages: Range<usize>,
}

impl Holdings {
    /// Messages were received just now.
    pub(super) fn receive(&self, messages: &[Message]) -> Batch {
        let batch = Batch(self.batches.fetch_add(1, Ordering::AcqRel));
        let (received, handles) = (Instant::now(), messages.iter().map(|message| message.receipt_handle.clone()));
        let places = vec![Place::Received; messages.len()];
        let held = Held { received, extended: received, handles: handles.collect(), places };
        self.held().insert(Holding::Batch(batch), held);
        batch
    }

    /// Messages of a batch are somewhere else now. What is sealed is held no more as a part of the batch.
    pub(super) fn place(&self, BatchPart { batch, messages }: &BatchPart, place: Place) {
        let (mut all, holding) = (self.held(), Holding::Batch(*batch));
        let Some(held) = all.get_mut(&holding) else { return };
        let end = messages.end.min(held.places.len());
        held.places[messages.start.min(end)..end].fill(place);
        if held.places.iter().all(|place| *place == Place::Sealed) {
            all.remove(&holding);
        }
    }

    /// A segment was sealed with these messages.
    pub(super) fn seal(&self, segment: SegmentId, parts: &[BatchPart]) {
        let now = Instant::now();
        let (mut received, mut extended) = (now, now);
        let mut all = self.held();
        for held in parts.iter().filter_map(|part| all.get(&Holding::Batch(part.batch))) {
            received = received.min(held.received);
            extended = extended.min(held.extended);
        }
        all.insert(Holding::Segment(segment), Held::of_segment(received, extended));
        drop(all);
        for part in parts {
            self.place(part, Place::Sealed);
        }
    }

    /// An earlier run sealed a segment; the first of its messages was received then.
    pub(super) fn inherit(&self, segment: SegmentId, received: Instant) {
        // When it was extended for the last time, that run knew.
        self.held().insert(Holding::Segment(segment), Held::of_segment(received, received));
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

impl Held {
    fn of_segment(received: Instant, extended: Instant) -> Self {
        Self { received, extended, handles: Arc::default(), places: Vec::new() }
    }

    /// The receipt handles of those messages of a batch that are at such a place.
    pub(super) fn handles(&self, is_wanted: impl Fn(Place) -> bool) -> impl Iterator<Item = &String> {
        let wanted = move |(handle, place): (_, &Place)| is_wanted(*place).then_some(handle);
        self.handles.iter().zip(&self.places).filter_map(wanted)
    }
}

#[cfg(test)]
impl Holdings {
    /// Makes a batch this much older than it is.
    pub(super) fn age(&self, batch: Batch, age: std::time::Duration) {
        let mut held = self.held();
        let held = held.get_mut(&Holding::Batch(batch)).unwrap();
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
        tokio::time::advance(Duration::from_secs(5)).await;
        let later = holdings.receive(&messages(1));
        let part = |batch, messages| BatchPart { batch, messages };
        let [first, second] = [SegmentId::now(), SegmentId::now()];
        // The later segment is sealed first.
        holdings.seal(second, &[part(batch, 4..10), part(later, 0..1)]);
        assert!(holdings.holds(Holding::Batch(batch)) && holdings.holds(Holding::Segment(second)));
        let unsealed: Vec<String> =
            holdings.held()[&Holding::Batch(batch)].handles(|place| place != Place::Sealed).cloned().collect();
        assert_eq!(unsealed, ["0", "1", "2", "3"]);
        holdings.seal(first, &[part(batch, 0..4)]);
        assert!(!holdings.holds(Holding::Batch(batch)) && !holdings.holds(Holding::Batch(later)));
        let due: Vec<Holding> = holdings.not_extended_since(began).into_iter().map(|(holding, _)| holding).collect();
        assert_eq!(due.len(), 2, "a segment is as old as its first message: {due:?}");
    }
}
