//! What can go wrong, by stage; and for each kind, in one table: is it tried again, what can a person do, and with
//! which code does the process end.
//!
//! Errors name files, segments, offsets, columns and SQLSTATEs, and never a value from a message: [`Error`] is
//! printed and logged. Kinds are told apart by type or SQLSTATE, not by text.

use std::io;
use std::path::{Path, PathBuf};

use thiserror::Error;

use crate::exit_code::ExitCode;
use crate::staging::SegmentId;

/// Any error of the library.
#[derive(Debug, Error)]
pub enum Error {
    /// Flags, environment, configuration file or keys.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The staging directory.
    #[error(transparent)]
    Staging(#[from] StagingError),
    /// Reading a spool segment.
    #[error(transparent)]
    Spool(#[from] SpoolError),
    /// SQS.
    #[error(transparent)]
    Queue(#[from] QueueError),
    /// Postgres.
    #[error(transparent)]
    Load(#[from] LoadError),
}

/// A mistake in flags, environment, configuration file or keys.
#[derive(Debug, Error)]
#[allow(missing_docs, reason = "each message is the documentation")]
pub enum ConfigError {
    #[error("cannot read {}", path.display())]
    Unreadable { path: PathBuf, source: io::Error },
    #[error("{} is not a valid configuration", path.display())]
    Invalid { path: PathBuf, source: Box<toml::de::Error> },
    #[error("{setting} is not set")]
    Missing { setting: &'static str, hint: &'static str },
    #[error("{setting} is not valid: {problem}")]
    InvalidSetting { setting: &'static str, problem: String },
    #[error("column {column}: {problem}")]
    InvalidColumn { column: String, problem: String },
    #[error("the mapping does not fit table {table}: {problem}")]
    MappingMismatch { table: String, problem: String },
}

/// The staging directory could not be used.
#[derive(Debug, Error)]
#[allow(missing_docs, reason = "each message is the documentation")]
pub enum StagingError {
    #[error("cannot {action} {}", path.display())]
    Io { action: &'static str, path: PathBuf, source: io::Error },
    #[error("{} is in use by another process", path.display())]
    Locked { path: PathBuf },
    #[error("no segment {segment} in the spool or the archive")]
    NoSuchSegment { segment: SegmentId },
}

impl StagingError {
    /// For `map_err`: an I/O error with what was tried, and on which file.
    pub fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { action, path, source }
    }
}

/// A spool segment could not be read to its end.
#[derive(Debug, Error)]
#[allow(missing_docs, reason = "each message is the documentation")]
pub enum SpoolError {
    #[error("cannot read {}", path.display())]
    Io { path: PathBuf, source: io::Error },
    #[error("{} is damaged at byte {offset}: {problem}", path.display())]
    Damaged { path: PathBuf, offset: u64, problem: &'static str },
    #[error(transparent)]
    Staging(#[from] StagingError),
}

/// The error of an AWS SDK call or of the credential chain, kept as the cause.
pub type BoxedError = Box<dyn std::error::Error + Send + Sync>;

/// SQS refused, or did not answer.
#[derive(Debug, Error)]
#[allow(missing_docs, reason = "each message is the documentation")]
pub enum QueueError {
    #[error("no AWS region is configured")]
    NoRegion,
    #[error("no AWS credentials were found")]
    NoCredentials { source: BoxedError },
    #[error("queue {queue_url} does not exist")]
    NoSuchQueue { queue_url: String },
    #[error("access to queue {queue_url} is denied ({code})")]
    AccessDenied { queue_url: String, code: String },
    #[error("cannot reach SQS at {endpoint}")]
    Unreachable { endpoint: String, source: BoxedError },
    #[error("SQS limits the request rate ({code})")]
    Throttled { code: String },
    #[error("too many messages of queue {queue_url} are in flight (OverLimit)")]
    OverLimit { queue_url: String },
    #[error("SQS answered {operation} with {code}")]
    Service { operation: &'static str, code: String, server_fault: bool },
}

/// Postgres refused, or the connection failed.
#[derive(Debug, Error)]
#[allow(missing_docs, reason = "each message is the documentation")]
pub enum LoadError {
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error("cannot connect to Postgres at {address}")]
    Unreachable { address: String, source: BoxedError },
    #[error("Postgres at {address} refused the connection: {message} (SQLSTATE {sqlstate})")]
    ConnectionRefused { address: String, message: String, sqlstate: String },
    #[error("table {table} does not exist")]
    NoTable { table: String },
    #[error("the ledger (schema pgsluice) does not exist in this database")]
    NoLedger,
    /// Without the server's message, which may quote a value.
    #[error("Postgres refused {action} (SQLSTATE {sqlstate}{place})")]
    Refused { action: String, sqlstate: String, place: String },
    #[error("the connection to Postgres was lost during {action}")]
    ConnectionLost { action: String, source: BoxedError },
    /// Passing: its transaction ends, and then the ledger has the segment or has not.
    #[error("segment {segment} is being loaded by another process")]
    SegmentBusy { segment: SegmentId },
    #[error("chunk of segment {segment} does not match its ids: {problem}")]
    InconsistentChunk { segment: SegmentId, problem: &'static str },
    #[error(transparent)]
    Staging(#[from] StagingError),
    #[error(transparent)]
    Spool(#[from] SpoolError),
}
