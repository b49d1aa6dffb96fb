//! What a rekey has done so far, for whoever shows it.

use std::sync::atomic::{AtomicU64, Ordering};

/// Counters that are read while a rekey goes on.
#[derive(Debug, Default)]
pub struct RekeyCounts {
    rows: AtomicU64,
    done: AtomicU64,
    blocks: AtomicU64,
}

impl RekeyCounts {
    /// Rows that were written anew.
    #[must_use]
    pub fn rows(&self) -> u64 {
        self.rows.load(Ordering::Relaxed)
    }

    /// How far the pass is through the table, in percent.
    #[must_use]
    pub fn percent(&self) -> u64 {
        let blocks = self.blocks.load(Ordering::Relaxed);
        (self.done.load(Ordering::Relaxed) * 100).checked_div(blocks).unwrap_or(100)
    }

    pub(super) fn begin_pass(&self, blocks: u64) {
        self.done.store(0, Ordering::Relaxed);
        self.blocks.store(blocks, Ordering::Relaxed);
    }

    pub(super) fn pass_blocks(&self, done: u64) {
        self.done.store(done, Ordering::Relaxed);
    }

    pub(super) fn change_rows(&self, rows: u64) {
        self.rows.fetch_add(rows, Ordering::Relaxed);
    }
}
