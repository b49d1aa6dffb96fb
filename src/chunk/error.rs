//! What can be wrong with a chunk, and what follows from it.

use std::path::PathBuf;

use thiserror::Error;

use crate::advice::{Advice, Advised, fatal, usage};
use crate::durable::FileError;
use crate::segment::SegmentId;
use crate::spool::SpoolError;

/// A chunk could not be read, or its parts do not belong together.
#[derive(Debug, Error)]
#[allow(missing_docs, reason = "each message is the documentation")]
pub enum ChunkError {
    #[error("chunk of segment {segment} is not whole: {problem}")]
    Inconsistent { segment: SegmentId, problem: &'static str },
    #[error("chunk of segment {segment} was made {problem}")]
    OutOfDate { segment: SegmentId, problem: &'static str },
    #[error("chunk of segment {segment} is of pipeline {pipeline}, and this configuration is of pipeline {configured}")]
    OtherPipeline { segment: SegmentId, pipeline: String, configured: String },
    #[error("{} has format {format}, which is newer than this pgsluice", path.display())]
    NewerFormat { path: PathBuf, format: u32 },
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
            Self::Inconsistent { .. }
            | Self::OutOfDate { .. }
            | Self::OtherPipeline { .. }
            | Self::NewerFormat { .. } => false,
            Self::File(error) => error.is_disk_full(),
            Self::Spool(error) => error.is_disk_full(),
        }
    }

    /// The chunk is not whole or cannot be read, which says nothing of another one.
    #[must_use]
    pub fn stops_its_segment_alone(&self) -> bool {
        match self {
            Self::Inconsistent { .. } | Self::NewerFormat { .. } => true,
            Self::OutOfDate { .. } | Self::OtherPipeline { .. } => false,
            Self::File(error) => error.is_of_reading(),
            Self::Spool(error) => error.stops_its_segment_alone(),
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
            Self::Inconsistent { .. } | Self::OutOfDate { .. } => {
                fatal("`pgsluice transform` makes it again, and so do `run` and `replay`")
            }
            Self::OtherPipeline { .. } => {
                usage("run with that pipeline's configuration, or give this one a --staging-dir of its own")
            }
            Self::NewerFormat { .. } => fatal("use the pgsluice that wrote the file, or a newer one"),
            Self::File(error) => error.advice(),
            Self::Spool(error) => error.advice(),
        }
    }
}
