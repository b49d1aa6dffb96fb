//! The chunk format, both ends of it: what `transform` writes and `load` sends to COPY.
//!
//! Always true:
//! - each message of the segment is one row of the chunk or one line of the reject file;
//! - rows and ids stand in the order of the spool, a line of ids for each row;
//! - a chunk under its name is complete, and so are its ids and rejects.

pub mod csv;
mod error;
mod ids;
mod rows;
mod utc_text;

use std::fs;

pub use error::ChunkError;
pub use ids::{IdReader, RowId, push_id};
pub use rows::{Rows, send_whole};
pub use utc_text::UtcText;

use crate::durable::FileError;
use crate::reason::Stage;
use crate::segment::SegmentId;
use crate::spool::{SegmentReader, read_rejects};
use crate::staging::Staging;

/// A segment whose chunk is complete: received = rows + rejected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StagedSegment {
    /// Its name in every stage.
    pub id: SegmentId,
    /// Messages in the segment.
    pub received: u64,
    /// Rows in the chunk.
    pub rows: u64,
    /// Messages that the transform refused.
    pub rejected: u64,
    /// The chunk's size.
    pub chunk_bytes: u64,
}

impl StagedSegment {
    /// Finds a segment that was staged before, and counts what its files hold.
    pub fn open(staging: &Staging, id: SegmentId) -> Result<Self, ChunkError> {
        let chunk = staging.chunk(id);
        let chunk_bytes = fs::metadata(&chunk).map_err(FileError::of("inspect", &chunk))?.len();
        let mut rows = 0;
        let mut ids = SegmentReader::open(&staging.ids(id))?;
        while let Some(block) = ids.next_block()? {
            rows += block.line_feeds();
        }
        let mut rejected = 0;
        for entry in read_rejects(&staging.rejects(id))? {
            rejected += u64::from(entry?.reason.stage == Stage::Transform);
        }
        Ok(Self { id, received: rows + rejected, rows, rejected, chunk_bytes })
    }
}
