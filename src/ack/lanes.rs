//! The order of deletes: parallel over a segment, and one after the other within a FIFO group.
//!
//! Always true: a lane has one batch under way at most, and a group has one lane, so no message of a group is deleted
//! before those that were received before it. The caller bounds the receipts that wait, see [`Lanes::has_room`].

use std::collections::VecDeque;
use std::hash::{DefaultHasher, Hash, Hasher};

use crate::queue::BATCH_MESSAGES;
use crate::spool::Receipt;

pub(super) struct Lanes {
    lanes: Vec<Lane>,
    /// Where messages without a group go until a batch is full.
    filling: usize,
}

#[derive(Default)]
struct Lane {
    handles: VecDeque<String>,
    busy: bool,
}

impl Lanes {
    /// `parallel` lanes, at least one.
    pub(super) fn new(parallel: usize) -> Self {
        Self { lanes: (0..parallel.max(1)).map(|_| Lane::default()).collect(), filling: 0 }
    }

    /// Fewer receipts wait than would fill a batch for each lane. Without room, some lane has a whole batch.
    pub(super) fn has_room(&self) -> bool {
        self.lanes.iter().map(|lane| lane.handles.len()).sum::<usize>() < self.lanes.len() * BATCH_MESSAGES
    }

    pub(super) fn push(&mut self, receipt: Receipt<'_>) {
        let lane = match receipt.group() {
            Some(group) => self.lane_of(group),
            None => self.lane_to_fill(),
        };
        self.lanes[lane].handles.push_back(receipt.receipt_handle.into_owned());
    }

    /// The next batch of a lane that is not busy; the lane is busy from then on. A part of a batch only when
    /// `all_read`.
    pub(super) fn take(&mut self, all_read: bool) -> Option<(usize, Vec<String>)> {
        let enough = if all_read { 1 } else { BATCH_MESSAGES };
        let index = self.lanes.iter().position(|lane| !lane.busy && lane.handles.len() >= enough)?;
        let lane = &mut self.lanes[index];
        lane.busy = true;
        let count = lane.handles.len().min(BATCH_MESSAGES);
        Some((index, lane.handles.drain(..count).collect()))
    }

    /// The batch of this lane is settled.
    pub(super) fn done(&mut self, lane: usize) {
        self.lanes[lane].busy = false;
    }

    fn lane_of(&self, group: &str) -> usize {
        let mut hasher = DefaultHasher::new();
        group.hash(&mut hasher);
        usize::try_from(hasher.finish() % self.lanes.len() as u64).unwrap_or(0)
    }

    fn lane_to_fill(&mut self) -> usize {
        if self.lanes[self.filling].handles.len().is_multiple_of(BATCH_MESSAGES) {
            // A slow lane keeps what waits in it, so the others get more.
            let emptiest = self.lanes.iter().enumerate().min_by_key(|(_, lane)| lane.handles.len());
            self.filling = emptiest.map_or(0, |(index, _)| index);
        }
        self.filling
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;

    fn receipt(index: usize, group: Option<u8>) -> Receipt<'static> {
        Receipt {
            message_id: "m".into(),
            receipt_handle: index.to_string().into(),
            group_id: group.map(|group| group.to_string().into()),
            group_tag: None,
        }
    }

    proptest! {
        /// Whatever batch ends first: all receipts leave once, whole groups in order and never two batches at a time.
        #[test]
        fn groups_leave_in_order_and_nothing_stays(
            groups in proptest::collection::vec(proptest::option::of(0..4_u8), 0..200),
            parallel in 1..5_usize,
            choices in proptest::collection::vec(any::<prop::sample::Index>(), 1..50),
        ) {
            let mut lanes = Lanes::new(parallel);
            let mut source = groups.iter().enumerate().peekable();
            let mut running: Vec<(usize, Vec<String>)> = Vec::new();
            let mut ended: HashMap<u8, Vec<usize>> = HashMap::new();
            let mut taken = 0;
            let mut choices = choices.iter().cycle();
            loop {
                while lanes.has_room() && let Some((index, group)) = source.next() {
                    lanes.push(receipt(index, *group));
                }
                while let Some(batch) = lanes.take(source.peek().is_none()) {
                    running.push(batch);
                }
                if running.is_empty() {
                    break;
                }
                let (lane, handles) = running.remove(choices.next().unwrap().index(running.len()));
                lanes.done(lane);
                prop_assert!(handles.len() <= BATCH_MESSAGES);
                for handle in handles {
                    let index: usize = handle.parse().unwrap();
                    taken += 1;
                    if let Some(group) = groups[index] {
                        ended.entry(group).or_default().push(index);
                    }
                }
            }
            prop_assert_eq!(taken, groups.len());
            prop_assert!(ended.values().all(|order| order.is_sorted()));
        }
    }

    #[test]
    fn messages_without_groups_fill_whole_batches_for_every_lane() {
        let mut lanes = Lanes::new(3);
        for index in 0..30 {
            assert!(lanes.has_room());
            lanes.push(receipt(index, None));
        }
        assert!(!lanes.has_room());
        let batches: Vec<usize> = std::iter::from_fn(|| lanes.take(false)).map(|(_, batch)| batch.len()).collect();
        assert_eq!(batches, [10, 10, 10]);
    }
}
