//! The receipts of a segment, read as they are needed: what an acknowledgement deletes and the visibility keeper
//! extends. Imported messages have none.

use std::collections::VecDeque;

use super::{Receipt, SegmentReader, SpoolError};
use crate::durable::Place;

/// Iterates over the receipts of a segment file in its order, a block of the file in memory at a time.
#[derive(Debug)]
pub struct Receipts {
    reader: SegmentReader,
    read: VecDeque<Receipt<'static>>,
}

impl Receipts {
    /// Opens a segment file.
    pub fn open(place: &Place) -> Result<Self, SpoolError> {
        Ok(Self { reader: SegmentReader::open(place)?, read: VecDeque::new() })
    }

    /// Up to `count` receipt handles; fewer, and at last none, at the end of the segment.
    pub fn next_handles(&mut self, count: usize) -> Result<Vec<String>, SpoolError> {
        self.by_ref().take(count).map(|receipt| receipt.map(|receipt| receipt.receipt_handle.into_owned())).collect()
    }

    /// Reads on until there is a receipt, or no more blocks.
    fn fill(&mut self) -> Result<(), SpoolError> {
        while self.read.is_empty() {
            let Some(block) = self.reader.next_block()? else { break };
            for receipt in block.receipts() {
                let receipt = receipt?;
                if !receipt.receipt_handle.is_empty() {
                    self.read.push_back(receipt.into_owned());
                }
            }
        }
        Ok(())
    }
}

impl Iterator for Receipts {
    type Item = Result<Receipt<'static>, SpoolError>;

    fn next(&mut self) -> Option<Self::Item> {
        match self.fill() {
            Ok(()) => self.read.pop_front().map(Ok),
            Err(error) => Some(Err(error)),
        }
    }
}
