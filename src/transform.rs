//! The transform stage: from a sealed spool segment to the chunk that COPY gets, the ids of its rows, and the
//! messages that could not become rows.
//!
//! Always true:
//! - each message of the segment is one row of the chunk or one line of the reject file;
//! - rows and ids stand in the order of the spool, a line of ids for each row;
//! - the same segment with the same mapping and keys gives the same bytes, so doing it again is harmless;
//! - where a chunk has its manifest it is complete.
//!
//! A message that does not fit the mapping is a reject, whatever it holds, and costs its neighbours nothing. Damage
//! in the segment itself (a checksum that does not match, a torn line) is an error that names file and offset, and
//! leaves neither chunk nor ids.

mod body;
mod field;
#[cfg(any(fuzzing, test))]
pub(crate) mod fuzz;
mod numeric;
mod output;
mod pass;
mod plan;
mod trial;

pub use plan::Plan;
pub use trial::TriedRow;

use crate::chunk::{ChunkWriter, Manifest};
use crate::config::ColumnType;
use crate::segment::SegmentId;
use crate::spool::SpoolError;
use crate::staging::{Staging, StagingError};

/// Whether a column of this type takes a JSON value that is not null.
#[must_use]
pub fn takes(kind: ColumnType, json: &str) -> bool {
    field::from_json(kind, json, &mut field::Buffers::default()).is_ok()
}

/// Turns a segment into a chunk, on all threads of the current rayon pool. Blocks.
///
/// What an earlier transform of the segment left is replaced. A segment of another pipeline than the plan's is refused.
#[tracing::instrument(skip_all, fields(%segment, messages = tracing::field::Empty))]
pub fn transform(staging: &Staging, segment: SegmentId, plan: &Plan) -> Result<Manifest, SpoolError> {
    let place = staging.find_segment(segment).ok_or(StagingError::NoSuchSegment { segment })?;
    let passed = pass::run(&place, plan, ChunkWriter::create(staging, segment)?)?;
    let manifest = passed.chunk.finish(plan.describe(segment, passed.counts, passed.seal))?;
    tracing::Span::current().record("messages", manifest.messages.cast_signed());
    tracing::debug!(rows = manifest.rows(), rejected = manifest.rejects, "transformed a segment");
    Ok(manifest)
}

#[cfg(test)]
mod tests;
