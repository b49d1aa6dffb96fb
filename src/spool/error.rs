//! What can go wrong in the spool, and what follows from it.

use std::path::{Path, PathBuf};

use thiserror::Error;

use super::Unopened;
use crate::advice::{Advice, Advised, fatal, usage};
use crate::durable::FileError;
use crate::staging::StagingError;

/// A spool segment could not be written, or read to its end.
#[derive(Debug, Error)]
#[allow(missing_docs, reason = "each message is the documentation")]
pub enum SpoolError {
    #[error("{} is damaged at byte {offset}: {problem}", path.display())]
    Damaged { path: PathBuf, offset: u64, problem: &'static str },
    /// The segment itself is whole, and so it stays.
    #[error("{} is damaged at byte {offset}: {problem}", path.display())]
    RejectsDamaged { path: PathBuf, offset: u64, problem: &'static str },
    #[error("{} has format {format}, which is newer than this pgsluice", path.display())]
    NewerFormat { path: PathBuf, format: u32 },
    #[error("{} is encrypted with spool key {key}, which is not among the keys of this command", path.display())]
    UnknownKey { path: PathBuf, key: String },
    #[error(
        "{} belongs to pipeline {pipeline}, and this configuration is of pipeline {configured}", path.display()
    )]
    OtherPipeline { path: PathBuf, pipeline: String, configured: String },
    #[error(
        "{} holds messages of {queue_url}, and this configuration's queue is {configured}", path.display()
    )]
    OtherQueue { path: PathBuf, queue_url: String, configured: String },
    #[error(transparent)]
    File(#[from] FileError),
    #[error(transparent)]
    Staging(#[from] StagingError),
}

impl SpoolError {
    /// A line of this file that begins there could not be opened.
    pub(super) fn unopened(path: &Path, offset: u64, problem: Unopened) -> Self {
        let path = path.to_owned();
        match problem {
            Unopened::Damaged(problem) => Self::Damaged { path, offset, problem },
            Unopened::UnknownKey(key) => Self::UnknownKey { path, key },
        }
    }

    /// The disk is full that the segment's files are written to.
    #[must_use]
    pub fn is_disk_full(&self) -> bool {
        match self {
            Self::File(error) => error.is_disk_full(),
            Self::Staging(error) => error.is_disk_full(),
            Self::Damaged { .. }
            | Self::RejectsDamaged { .. }
            | Self::NewerFormat { .. }
            | Self::UnknownKey { .. }
            | Self::OtherPipeline { .. }
            | Self::OtherQueue { .. } => false,
        }
    }

    /// The segment's file cannot be opened or read, or is of a newer format, or its key is missing; or a line of its rejects
    /// cannot be read.
    #[must_use]
    pub fn stops_its_segment_alone(&self) -> bool {
        match self {
            Self::RejectsDamaged { .. } | Self::NewerFormat { .. } | Self::UnknownKey { .. } => true,
            Self::File(error) => error.is_of_reading(),
            _ => false,
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
            Self::RejectsDamaged { .. } => fatal(
                "restore the file from a copy, or take the line out of it and keep it elsewhere; its segment goes on then",
            ),
            Self::NewerFormat { .. } => fatal("use the pgsluice that wrote the file, or a newer one"),
            Self::UnknownKey { .. } => fatal(
                "name a keyring that has this key, by --key-file or PGSLUICE_KEY_FILE; without it nobody can read what the \
                 file holds",
            ),
            Self::OtherPipeline { .. } => usage(
                "run with that pipeline's configuration, or give this one a --staging-dir of its own; \
                 `pgsluice replay --from PIPELINE` loads its segments into this pipeline's table",
            ),
            Self::OtherQueue { .. } => usage(
                "run with that --queue-url until nothing of it is unfinished, or give this queue a --staging-dir of its own",
            ),
            Self::File(error) => error.advice(),
            Self::Staging(error) => error.advice(),
        }
    }
}
