//! What is not what it should be, although the system would let us use it.

use std::io;

use thiserror::Error;

use crate::advice::{Advice, Advised, fatal};

/// Why a file or a directory is not used. It is the cause in an [`io::Error`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub(crate) enum Refusal {
    #[error("it is a symbolic link, and none is followed")]
    Link,
    #[error("it is not a regular file")]
    NotAFile,
    #[error("it belongs to the user with the id {owner}, and this process runs as {own}")]
    OfAnother { owner: u32, own: u32 },
    #[error("everybody may write to it, and it has no sticky bit")]
    OpenToAll,
    #[error("nothing reads from the pipe")]
    NoReader,
}

impl Refusal {
    /// The refusal that is the cause of this error.
    pub(crate) fn of(error: &io::Error) -> Option<Self> {
        error.get_ref()?.downcast_ref().copied()
    }
}

impl From<Refusal> for io::Error {
    fn from(refusal: Refusal) -> Self {
        Self::new(io::ErrorKind::PermissionDenied, refusal)
    }
}

impl Advised for Refusal {
    fn advice(&self) -> Advice {
        fatal(match self {
            Self::Link | Self::NotAFile => {
                "put the file or directory itself there, and see who put something else there"
            }
            Self::OfAnother { .. } => {
                "run as its owner; or, if what it holds can be trusted, give it to this user (`chown`)"
            }
            Self::OpenToAll => "close it to others (`chmod o-w`), or choose another --staging-dir",
            Self::NoReader => "start what reads from it first",
        })
    }
}
