//! What can go wrong, by stage; and for each kind, in one table: is it tried again, what can a person do, and with
//! which code does the process end.
//!
//! Errors name files, segments, offsets, columns and SQLSTATEs, and never a value from a message: [`enum@Error`] is
//! printed and logged. Kinds are told apart by type or SQLSTATE, not by text.

pub(crate) mod sqlstate;

use std::io;
use std::path::{Path, PathBuf};

use thiserror::Error;

use crate::config::MaxRejects;
use crate::exit_code::ExitCode;
use crate::staging::SegmentId;
use crate::transform::RevealError;
use sqlstate::Meaning;

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
    /// A masked value could not be decrypted.
    #[error(transparent)]
    Reveal(#[from] RevealError),
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
    Panicked {
        /// What tokio says of it.
        source: tokio::task::JoinError,
    },
}

impl Error {
    /// The disk is full that holds the staging directory.
    #[must_use]
    pub fn is_disk_full(&self) -> bool {
        match self {
            Self::Staging(error) | Self::Load(LoadError::Staging(error)) => error.is_disk_full(),
            Self::Spool(error) | Self::Load(LoadError::Spool(error)) => error.is_disk_full(),
            _ => false,
        }
    }

    /// A segment's own files cannot be read to their end.
    #[must_use]
    pub const fn is_damage(&self) -> bool {
        matches!(
            self,
            Self::Spool(SpoolError::Damaged { .. }) | Self::Load(LoadError::Spool(SpoolError::Damaged { .. }))
        )
    }

    /// For `map_err` on a task's handle.
    #[must_use]
    pub fn panicked(source: tokio::task::JoinError) -> Self {
        Self::Panicked { source }
    }
}

/// A mistake in flags, environment, configuration file or keys.
#[derive(Debug, Error)]
#[allow(missing_docs, reason = "each message is the documentation")]
pub enum ConfigError {
    #[error("cannot read {}", path.display())]
    Unreadable { path: PathBuf, source: io::Error },
    #[error("{} line {line}: {problem}", path.display())]
    Invalid { path: PathBuf, line: usize, problem: String },
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

    /// The disk, or what this user may have of it, is used up.
    #[must_use]
    pub fn is_disk_full(&self) -> bool {
        use io::ErrorKind::{FileTooLarge, QuotaExceeded, StorageFull};
        matches!(self, Self::Io { source, .. } if matches!(source.kind(), StorageFull | QuotaExceeded | FileTooLarge))
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

impl SpoolError {
    /// The disk is full that the segment's files are written to.
    #[must_use]
    pub fn is_disk_full(&self) -> bool {
        matches!(self, Self::Staging(error) if error.is_disk_full())
    }
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
    #[error("SQS refused the credentials ({code})")]
    Unauthenticated { code: String },
    #[error("cannot reach SQS at {endpoint}")]
    Unreachable { endpoint: String, source: BoxedError },
    #[error("SQS limits the request rate ({code})")]
    Throttled { code: String },
    #[error("too many messages of queue {queue_url} are in flight (OverLimit)")]
    OverLimit { queue_url: String },
    #[error("queue {queue_url} has no redrive policy, so rejected messages that are left there would come for ever")]
    NoRedrivePolicy { queue_url: String },
    #[error(
        "a rejected message was delivered {receives} times, although its queue's maxReceiveCount is {max_receives}"
    )]
    NotRedriven { receives: u32, max_receives: u32 },
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
    #[error("table {table} took {taken} of the {sent} rows that COPY sent it of segment {segment}")]
    RowsSkipped { segment: SegmentId, table: String, sent: u64, taken: u64 },
    /// Passing: its transaction ends, and then the ledger has the segment or has not.
    #[error("segment {segment} is being loaded by another process")]
    SegmentBusy { segment: SegmentId },
    #[error(
        "segment {segment} would bring this run to {rejects} rejects in {messages} messages, and max_rejects is {limit}"
    )]
    TooManyRejects { segment: SegmentId, rejects: u64, messages: u64, limit: MaxRejects },
    #[error("chunk of segment {segment} does not match its ids: {problem}")]
    InconsistentChunk { segment: SegmentId, problem: &'static str },
    #[error(transparent)]
    Staging(#[from] StagingError),
    #[error(transparent)]
    Spool(#[from] SpoolError),
}

/// What follows from an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Advice {
    /// Waiting and trying again can help: the fault is the server's, the network's or of the moment.
    pub retry: bool,
    /// How the process ends if it does not.
    pub exit: ExitCode,
    /// What a person can do.
    pub hint: Option<&'static str>,
}

const fn fatal(hint: &'static str) -> Advice {
    Advice { retry: false, exit: ExitCode::Failed, hint: Some(hint) }
}

const fn retried(hint: &'static str) -> Advice {
    Advice { retry: true, ..fatal(hint) }
}

const fn usage(hint: &'static str) -> Advice {
    Advice { exit: ExitCode::Usage, ..fatal(hint) }
}

impl Error {
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

    /// What follows from the error.
    #[must_use]
    pub fn advice(&self) -> Advice {
        match self {
            Self::Config(error) => error.advice(),
            Self::Staging(error) => error.advice(),
            Self::Spool(error) => error.advice(),
            Self::Queue(error) => error.advice(),
            Self::Load(error) => error.advice(),
            Self::Reveal(RevealError::Config(error)) => error.advice(),
            Self::Reveal(_) => {
                fatal("give the key that the value was masked with in PGSLUICE_KEY, and its column's mapping")
            }
            #[cfg(feature = "local")]
            Self::Demo { .. } => fatal("the demo needs a PostgreSQL server (initdb, postgres) on this machine"),
            Self::Panicked { .. } => Advice { exit: ExitCode::Bug, ..fatal("this is a bug: please report it") },
        }
    }
}

impl ConfigError {
    fn advice(&self) -> Advice {
        match self {
            Self::Missing { hint, .. } => usage(hint),
            Self::Unreadable { .. } => usage("check --config and PGSLUICE_CONFIG"),
            Self::Invalid { .. } | Self::InvalidColumn { .. } => {
                usage("compare with the annotated pgsluice.toml that `pgsluice config example` prints")
            }
            Self::InvalidSetting { .. } => usage("correct the setting; `pgsluice --help` lists where each comes from"),
            Self::MappingMismatch { .. } => usage("correct [[column]] in pgsluice.toml, or the table"),
        }
    }
}

impl StagingError {
    fn advice(&self) -> Advice {
        match self {
            Self::Io { .. } if self.is_disk_full() => {
                fatal("make room in the staging directory and run again; what is sealed is safe there")
            }
            Self::Io { source, .. } => match source.kind() {
                io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
                    fatal("give the user who runs pgsluice write access, or choose another --staging-dir")
                }
                _ => fatal("check the path; what is sealed in the staging directory is safe, and a run resumes it"),
            },
            Self::Locked { .. } => fatal("wait for that process, or give this one a --staging-dir of its own"),
            Self::NoSuchSegment { .. } => {
                fatal("`pgsluice status` counts the segments; their names are the file names")
            }
        }
    }
}

impl SpoolError {
    fn advice(&self) -> Advice {
        match self {
            Self::Io { .. } => fatal("check the file and its disk"),
            Self::Damaged { .. } => fatal("restore the file from a copy, or move it away; other segments are unharmed"),
            Self::Staging(error) => error.advice(),
        }
    }
}

impl QueueError {
    /// What follows from the error.
    #[must_use]
    pub fn advice(&self) -> Advice {
        match self {
            Self::NoRegion => usage("set AWS_REGION, or a region in the AWS profile"),
            Self::NoCredentials { .. } => {
                usage("set AWS_PROFILE or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or attach a role")
            }
            Self::NoSuchQueue { .. } => fatal("check --queue-url, AWS_REGION and AWS_ENDPOINT_URL"),
            Self::AccessDenied { .. } => fatal(
                "the role needs sqs:ReceiveMessage, DeleteMessage, ChangeMessageVisibility, GetQueueAttributes, and for a dlq_url SendMessage",
            ),
            Self::Unauthenticated { .. } => {
                fatal("renew the credentials, check this machine's clock, and run again: what was received is safe")
            }
            Self::Unreachable { .. } => retried("check AWS_ENDPOINT_URL, AWS_REGION and the network"),
            Self::Throttled { .. } => retried("lower queue.pollers, or raise the quota"),
            Self::OverLimit { .. } => retried("lower queue.max_in_flight, or wait for other consumers"),
            Self::NoRedrivePolicy { .. } => {
                usage("give the queue a RedrivePolicy, or choose on_reject = \"keep\" or \"dlq\"")
            }
            Self::NotRedriven { .. } => fatal("check the queue's RedrivePolicy, and run again"),
            Self::Service { server_fault: true, .. } => retried("SQS has a problem; run again later"),
            Self::Service { .. } => fatal("check the queue's settings"),
        }
    }

    /// Waiting and asking again can help.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        self.advice().retry
    }
}

impl LoadError {
    /// What follows from the error.
    #[must_use]
    pub fn advice(&self) -> Advice {
        match self {
            Self::Config(error) => error.advice(),
            Self::SegmentBusy { .. } => retried("wait for the other process"),
            Self::Unreachable { .. } => retried("check DATABASE_URL, and that Postgres runs and accepts connections"),
            Self::NoTable { .. } | Self::NoLedger => {
                fatal("run `pgsluice init`, or let a DBA run `pgsluice init --print`")
            }
            Self::ConnectionRefused { sqlstate, .. } | Self::Refused { sqlstate, .. } => {
                let (meaning, hint) = sqlstate::judge(sqlstate);
                Advice { retry: meaning == Meaning::Moment, ..fatal(hint) }
            }
            Self::ConnectionLost { .. } => retried("see the server's log; run again, what is loaded is recognised"),
            Self::TooManyRejects { .. } => Advice {
                exit: ExitCode::TooManyRejects,
                ..fatal(
                    "see the reasons in the segment's file in rejects/; correct the mapping, or raise max_rejects, and \
                     run again: nothing of the segment was loaded or deleted",
                )
            },
            Self::RowsSkipped { .. } => fatal(
                "a BEFORE trigger that returns NULL skips rows unseen: let it RAISE, which makes each a reject, or load another table",
            ),
            Self::InconsistentChunk { .. } => fatal("remove the segment's files from chunks/; a run makes them again"),
            Self::Staging(error) => error.advice(),
            Self::Spool(error) => error.advice(),
        }
    }

    /// Waiting and trying again can help.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        self.advice().retry
    }
}
