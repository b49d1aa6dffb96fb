//! The transform stage: from a sealed spool segment to the chunk that COPY gets, the ids of its rows, and the
//! messages that could not become rows.
//!
//! Always true:
//! - each message of the segment is one row of the chunk or one line of the reject file;
//! - rows and ids stand in the order of the spool, a line of ids for each row;
//! - the same segment with the same mapping and keys gives the same bytes, so doing it again is harmless;
//! - a chunk under its name is complete, and so are its ids and rejects.
//!
//! A message that does not fit the mapping is a reject, whatever it holds, and costs its neighbours nothing. Damage
//! in the segment itself (a checksum that does not match, a torn line) is an error that names file and offset, and
//! leaves neither chunk nor ids.

mod body;
pub mod csv;
mod field;
mod instant;
mod mapping;
pub mod mask;
mod numeric;
mod output;
mod pass;
pub mod reject;

use std::fs;

use self::output::Files;
use self::reject::Stage;
use crate::error::{SpoolError, StagingError};
use crate::spool::SegmentReader;
use crate::staging::{SegmentId, Staging};

pub(crate) use instant::Instant;
pub use mapping::Plan;
pub use mask::{Masker, RevealError, Revealed, reveal};

/// A segment whose chunk is complete: received = rows + rejected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StagedSegment {
    /// Its name in every stage.
    pub id: SegmentId,
    /// Messages in the segment.
    pub received: u64,
    /// Rows in the chunk.
    pub rows: u64,
    /// Messages that this stage refused.
    pub rejected: u64,
    /// The chunk's size.
    pub chunk_bytes: u64,
}

impl StagedSegment {
    /// Finds a segment that was staged before, and counts what its files hold.
    pub fn open(staging: &Staging, id: SegmentId) -> Result<Self, SpoolError> {
        let chunk = staging.chunk(id);
        let chunk_bytes = fs::metadata(&chunk).map_err(|source| SpoolError::Io { path: chunk, source })?.len();
        let mut rows = 0;
        let mut ids = SegmentReader::open(&staging.ids(id))?;
        while let Some(block) = ids.next_block()? {
            rows += block.line_feeds();
        }
        let mut rejected = 0;
        for entry in reject::read(&staging.rejects(id))? {
            rejected += u64::from(entry?.stage == Stage::Transform);
        }
        Ok(Self { id, received: rows + rejected, rows, rejected, chunk_bytes })
    }
}

/// Turns a sealed or archived segment into chunk, ids and rejects, on all threads of the current rayon pool.
///
/// Blocks until the files are durable. What an earlier transform of the segment left is replaced.
#[tracing::instrument(skip_all, fields(%segment))]
pub fn transform(staging: &Staging, segment: SegmentId, plan: &Plan) -> Result<StagedSegment, SpoolError> {
    let path = staging.find_segment(segment).ok_or(StagingError::NoSuchSegment { segment })?;
    let files = pass::run(&path, plan, Files::create(staging, segment)?)?;
    let counts = files.finish()?;
    tracing::debug!(rows = counts.rows, rejected = counts.rejected, "transformed a segment");
    Ok(StagedSegment {
        id: segment,
        received: counts.rows + counts.rejected,
        rows: counts.rows,
        rejected: counts.rejected,
        chunk_bytes: counts.chunk_bytes,
    })
}

#[cfg(test)]
mod tests;
