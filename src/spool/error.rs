//! What can go wrong in the spool, and what follows from it.

use std::path::PathBuf;

use thiserror::Error;

use crate::advice::{Advice, Advised, fatal};
use crate::durable::FileError;
use crate::staging::StagingError;

/// A spool segment could not be written, or read to its end.
#[derive(Debug, Error)]
#[allow(missing_docs, reason = "each message is the documentation")]
pub enum SpoolError {
    #[error("{} is damaged at byte {offset}: {problem}", path.display())]
    Damaged { path: PathBuf, offset: u64, problem: &'static str },
    #[error(transparent)]
    File(#[from] FileError),
    #[error(transparent)]
    Staging(#[from] StagingError),
}

impl SpoolError {
    /// The disk is full that the segment's files are written to.
    #[must_use]
    pub fn is_disk_full(&self) -> bool {
        match self {
            Self::File(error) => error.is_disk_full(),
            Self::Staging(error) => error.is_disk_full(),
            Self::Damaged { .. } => false,
        }
    }

    /// The segment's own files cannot be read to their end.
    #[must_use]
    pub const fn is_damage(&self) -> bool {
        matches!(self, Self::Damaged { .. })
    }
}

impl Advised for SpoolError {
    fn advice(&self) -> Advice {
        match self {
            Self::Damaged { .. } => fatal("restore the file from a copy, or move it away; other segments are unharmed"),
            Self::File(error) => error.advice(),
            Self::Staging(error) => error.advice(),
        }
    }
}
