//! The chunks that take room on the disk: how many there are, and waiting for fewer.

use tokio::sync::watch;

use crate::chunk::Manifest;

/// Counts the chunks that are being written, or that are complete and not yet loaded and removed.
#[derive(Debug, Default)]
pub(super) struct Chunks(watch::Sender<usize>);

/// One of these chunks. Dropping it says that its room is free.
#[derive(Debug)]
pub(super) struct ChunkGuard {
    chunks: watch::Sender<usize>,
    others: usize,
}

/// A complete chunk on its way to Postgres.
#[derive(Debug)]
pub(super) struct StagedChunk {
    pub(super) manifest: Manifest,
    pub(super) guard: ChunkGuard,
}

impl Chunks {
    /// One more chunk.
    pub(super) fn begin(&self) -> ChunkGuard {
        let mut others = 0;
        self.0.send_modify(|chunks| {
            others = *chunks;
            *chunks += 1;
        });
        ChunkGuard { chunks: self.0.clone(), others }
    }

    /// Waits until there are fewer than this number. `false` where nothing can make them fewer.
    pub(super) async fn fewer_than(&self, number: usize) -> bool {
        number > 0 && self.0.subscribe().wait_for(|&now| now < number).await.is_ok()
    }
}

impl ChunkGuard {
    /// The number of other chunks when this one was begun.
    pub(super) const fn others(&self) -> usize {
        self.others
    }
}

impl Drop for ChunkGuard {
    fn drop(&mut self) {
        self.chunks.send_modify(|chunks| *chunks -= 1);
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    #[tokio::test]
    async fn a_chunk_that_is_dropped_makes_room_for_those_that_wait() {
        let chunks = Chunks::default();
        let first = chunks.begin();
        let second = chunks.begin();
        assert_eq!((first.others(), second.others()), (0, 1));
        assert!(chunks.fewer_than(2).now_or_never().is_none());
        drop(first);
        assert!(chunks.fewer_than(2).await);
        assert!(!chunks.fewer_than(0).await, "nothing can make room");
    }
}
