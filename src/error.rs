//! The sum of the stages' errors: what a command ends with, in one line.
//!
//! Errors name files, segments, offsets, columns and SQLSTATEs, and never a value from a message: [`enum@Error`] is
//! printed and logged. Kinds are told apart by type or SQLSTATE, not by text. What follows from each stands beside the
//! stage that it comes from.

use std::io;

use thiserror::Error;

#[cfg(feature = "local")]
use crate::advice::BoxedError;
use crate::advice::{Advice, Advised, fatal};
use crate::chunk::ChunkError;
use crate::config::ConfigError;
use crate::durable::FileError;
use crate::exit_code::ExitCode;
use crate::import::ImportError;
use crate::keyring::KeyringError;
use crate::load::LoadError;
use crate::mask::RevealError;
use crate::postgres::PostgresError;
use crate::queue::QueueError;
use crate::spool::SpoolError;
use crate::staging::StagingError;

/// Any error of the library.
#[derive(Debug, Error)]
pub enum Error {
    /// Flags, environment, configuration file or keys.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The keys, or their source.
    #[error(transparent)]
    Keyring(#[from] KeyringError),
    /// A file.
    #[error(transparent)]
    File(#[from] FileError),
    /// The staging directory.
    #[error(transparent)]
    Staging(#[from] StagingError),
    /// Reading or writing a spool segment.
    #[error(transparent)]
    Spool(#[from] SpoolError),
    /// Reading or writing a chunk.
    #[error(transparent)]
    Chunk(#[from] ChunkError),
    /// SQS.
    #[error(transparent)]
    Queue(#[from] QueueError),
    /// A connection to Postgres.
    #[error(transparent)]
    Postgres(#[from] PostgresError),
    /// A load.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// A masked value could not be decrypted.
    #[error("cannot reveal {place}")]
    Reveal {
        /// Which one: the number of the value, or of the line.
        place: String,
        /// Why it could not be decrypted.
        source: RevealError,
    },
    /// A file could not be imported.
    #[error(transparent)]
    Import(#[from] ImportError),
    /// The run's report could not be written.
    #[error(transparent)]
    Report(FileError),
    /// Data could not be printed.
    #[error("cannot write to stdout")]
    Output {
        /// Why it failed.
        source: io::Error,
    },
    /// What the process needs of the system beside files: standard input, threads, signals, randomness.
    #[error("cannot {action}")]
    System {
        /// What was tried.
        action: &'static str,
        /// Why it failed.
        source: io::Error,
    },
    /// The demo's own servers.
    #[cfg(feature = "local")]
    #[error("the demo cannot {action}")]
    Demo {
        /// What was tried.
        action: &'static str,
        /// Why it failed.
        source: BoxedError,
    },
    /// A task died: a bug.
    #[error("a task panicked")]
    Panicked,
}

impl Error {
    /// For `map_err`: what was tried of the system.
    pub fn system(action: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::System { action, source }
    }

    /// For `map_err` on a task's handle. What the panic said may hold a value; the place of it was said before.
    #[must_use]
    #[allow(clippy::needless_pass_by_value, reason = "it takes what map_err gives")]
    pub fn panicked(_: tokio::task::JoinError) -> Self {
        Self::Panicked
    }

    /// The disk is full that holds the staging directory.
    #[must_use]
    pub fn is_disk_full(&self) -> bool {
        match self {
            Self::File(error) => error.is_disk_full(),
            Self::Staging(error) => error.is_disk_full(),
            Self::Spool(error) => error.is_disk_full(),
            Self::Chunk(error) => error.is_disk_full(),
            Self::Load(error) => error.is_disk_full(),
            Self::Import(error) => error.is_disk_full(),
            _ => false,
        }
    }

    /// A segment's own files cannot be read to their end, or are not what was loaded.
    #[must_use]
    pub const fn is_damage(&self) -> bool {
        match self {
            Self::Spool(error) => error.is_damage(),
            Self::Chunk(error) => error.is_damage(),
            Self::Load(LoadError::CountsDiffer { .. }) => true,
            Self::Load(error) => error.is_damage(),
            _ => false,
        }
    }

    /// Something about a segment's own files stops it, and no other: they cannot be opened or read, do not belong together,
    /// or are of a newer format.
    #[must_use]
    pub fn stops_its_segment_alone(&self) -> bool {
        match self {
            Self::Spool(error) => error.stops_its_segment_alone(),
            Self::Chunk(error) => error.stops_its_segment_alone(),
            Self::Load(error) => error.stops_its_segment_alone(),
            _ => false,
        }
    }

    /// The kind of error, in one word: a report's `error.code`.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Config(_) => "config",
            Self::Keyring(_) => "keys",
            Self::File(_) => "file",
            Self::Staging(_) => "staging",
            Self::Spool(_) => "spool",
            Self::Import(_) => "import",
            Self::Chunk(_) => "chunk",
            Self::Queue(_) => "queue",
            Self::Postgres(_) => "postgres",
            Self::Load(_) => "load",
            Self::Reveal { .. } => "reveal",
            Self::Report(_) => "report",
            Self::Output { .. } => "output",
            Self::System { .. } => "system",
            #[cfg(feature = "local")]
            Self::Demo { .. } => "demo",
            Self::Panicked => "bug",
        }
    }

    /// How the process ends with this error.
    #[must_use]
    pub fn exit_code(&self) -> ExitCode {
        self.advice().exit
    }

    /// What a person can do.
    #[must_use]
    pub fn hint(&self) -> Option<&'static str> {
        self.advice().hint
    }

    /// The error and its causes in one line.
    #[must_use]
    pub fn one_line(&self) -> String {
        let mut line = self.to_string();
        let mut cause = std::error::Error::source(self);
        while let Some(error) = cause {
            let text = error.to_string();
            // Some libraries repeat their cause in their own text.
            if !line.ends_with(&text) {
                line = format!("{line}: {text}");
            }
            cause = error.source();
        }
        line.replace('\n', " ")
    }
}

impl Advised for Error {
    fn advice(&self) -> Advice {
        match self {
            Self::Config(error) => error.advice(),
            Self::Keyring(error) => error.advice(),
            Self::File(error) => error.advice(),
            Self::Staging(error) => error.advice(),
            Self::Spool(error) => error.advice(),
            Self::Chunk(error) => error.advice(),
            Self::Queue(error) => error.advice(),
            Self::Postgres(error) => error.advice(),
            Self::Load(error) => error.advice(),
            Self::Reveal { source, .. } => source.advice(),
            Self::Import(error) => error.advice(),
            Self::Report(_) => fatal("check --report; what the run did to messages does not depend on it"),
            Self::Output { .. } => fatal("see what stdout is connected to: a file needs a disk with room"),
            Self::System { .. } => fatal("see what the system says, and the limits of this process (`ulimit -a`)"),
            #[cfg(feature = "local")]
            Self::Demo { .. } => fatal("the demo needs a PostgreSQL server (initdb, postgres) on this machine"),
            Self::Panicked => Advice { exit: ExitCode::Bug, ..fatal("this is a bug: please report it") },
        }
    }
}
