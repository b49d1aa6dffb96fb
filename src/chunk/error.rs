//! What can be wrong with a chunk, and what follows from it.

use thiserror::Error;

use crate::advice::{Advice, Advised, fatal};
use crate::durable::FileError;
use crate::segment::SegmentId;
use crate::spool::SpoolError;

/// A chunk could not be read, or its parts do not belong together.
#[derive(Debug, Error)]
#[allow(missing_docs, reason = "each message is the documentation")]
pub enum ChunkError {
    #[error("chunk of segment {segment} does not match its ids: {problem}")]
    Inconsistent { segment: SegmentId, problem: &'static str },
    #[error(transparent)]
    File(#[from] FileError),
    #[error(transparent)]
    Spool(#[from] SpoolError),
}

impl ChunkError {
    /// The disk is full that the segment's files are written to.
    #[must_use]
    pub fn is_disk_full(&self) -> bool {
        match self {
            Self::Inconsistent { .. } => false,
            Self::File(error) => error.is_disk_full(),
            Self::Spool(error) => error.is_disk_full(),
        }
    }

    /// The segment's own files cannot be read to their end.
    #[must_use]
    pub const fn is_damage(&self) -> bool {
        matches!(self, Self::Spool(error) if error.is_damage())
    }
}

impl Advised for ChunkError {
    fn advice(&self) -> Advice {
        match self {
            Self::Inconsistent { .. } => fatal("remove the segment's files from chunks/; a run makes them again"),
            Self::File(error) => error.advice(),
            Self::Spool(error) => error.advice(),
        }
    }
}
