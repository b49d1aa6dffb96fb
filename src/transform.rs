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
mod field;
mod numeric;
mod output;
mod pass;
mod plan;

pub use plan::Plan;

use self::output::Files;
use crate::chunk::StagedSegment;
use crate::segment::SegmentId;
use crate::spool::SpoolError;
use crate::staging::{Staging, StagingError};

/// Turns a sealed or archived segment into chunk, ids and rejects, on all threads of the current rayon pool.
///
/// Blocks until the files are durable. The files of an earlier transform of the segment are replaced.
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
