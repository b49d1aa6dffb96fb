//! What can go wrong in a load, and what follows from it.

use thiserror::Error;

use crate::advice::{Advice, Advised, fatal, retried, usage};
use crate::chunk::ChunkError;
use crate::config::{ConfigError, MaxRejects};
use crate::durable::FileError;
use crate::exit_code::ExitCode;
use crate::postgres::PostgresError;
use crate::reason::Reason;
use crate::segment::SegmentId;
use crate::spool::SpoolError;
use crate::staging::StagingError;

/// A segment could not be loaded, or the ledger could not be asked.
#[derive(Debug, Error)]
#[allow(missing_docs, reason = "each message is the documentation")]
pub enum LoadError {
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error(transparent)]
    Postgres(#[from] PostgresError),
    #[error("table {table} does not exist")]
    NoTable { table: String },
    #[error("the ledger (schema pgsluice) does not exist in this database")]
    NoLedger,
    #[error("the ledger (schema pgsluice) has version {version}, which is older than this pgsluice")]
    OlderLedger { version: i32 },
    #[error("the ledger (schema pgsluice) has version {version}, which is newer than this pgsluice")]
    NewerLedger { version: i32 },
    #[error("pipeline {pipeline} loads {known} in this ledger, and this configuration says {table}")]
    OtherTable { pipeline: String, table: String, known: String },
    #[error("column {column} of table {table} has been written with key {known}, and this key is {key}")]
    UnknownKey { column: String, table: String, known: String, key: String },
    #[error("the ledger does not know pipeline {pipeline}")]
    NoPipeline { pipeline: String },
    /// What is told names columns and places, and no value.
    #[error("some values of table {table} stay as they were; {told}")]
    NotRekeyed { table: String, told: String },
    #[error("table {table} is not empty, so loading segments again would make second rows")]
    TableNotEmpty { table: String },
    #[error("no message with this id is a reject of pipeline {pipeline}")]
    NoSuchReject { pipeline: String },
    #[error("the body of {rejects} of these rejects is not in the staging directory's rejects/")]
    NoKeptBody { rejects: usize },
    /// Passing: it is made before the next attempt.
    #[error("a partition of the ledger was removed meanwhile")]
    NoMessagePartition,
    #[error("the ledger counts {ledger} messages of segment {segment}, and its file holds {sealed}")]
    CountsDiffer { segment: SegmentId, ledger: u64, sealed: u64 },
    #[error("table {table} took {taken} of the {sent} rows that COPY sent it of segment {segment}")]
    RowsSkipped { segment: SegmentId, table: String, sent: u64, taken: u64 },
    #[error("table {table} has no partition for a row of segment {segment}")]
    NoPartition { segment: SegmentId, table: String },
    /// Before any row was taken, so the table or the mapping is at fault.
    #[error(
        "table {table} refused {rows} rows of segment {segment} alike and took none: {}{}",
        reason.text, reason.field.as_ref().map(|field| format!(", {field}")).unwrap_or_default()
    )]
    RowsRefused { segment: SegmentId, table: String, rows: usize, reason: Box<Reason> },
    /// Passing: its transaction ends, and then the ledger has the segment or has not.
    #[error("segment {segment} is being loaded by another process")]
    SegmentBusy { segment: SegmentId },
    #[error(
        "segment {segment} would bring this run to {rejects} rejects in {messages} messages, and max_rejects is {limit}"
    )]
    TooManyRejects { segment: SegmentId, rejects: u64, messages: u64, limit: MaxRejects },
    #[error(transparent)]
    Chunk(#[from] ChunkError),
    #[error(transparent)]
    File(#[from] FileError),
    #[error(transparent)]
    Staging(#[from] StagingError),
    #[error(transparent)]
    Spool(#[from] SpoolError),
}

impl LoadError {
    /// The disk is full that the segment's files are written to.
    #[must_use]
    pub fn is_disk_full(&self) -> bool {
        match self {
            Self::Chunk(error) => error.is_disk_full(),
            Self::File(error) => error.is_disk_full(),
            Self::Staging(error) => error.is_disk_full(),
            Self::Spool(error) => error.is_disk_full(),
            _ => false,
        }
    }

    /// The segment's own files stop it, which says nothing of another one.
    #[must_use]
    pub fn stops_its_segment_alone(&self) -> bool {
        match self {
            Self::Chunk(error) => error.stops_its_segment_alone(),
            Self::File(error) => error.is_of_reading(),
            Self::Spool(error) => error.stops_its_segment_alone(),
            _ => false,
        }
    }

    /// The segment's own files cannot be read to their end.
    #[must_use]
    pub const fn is_damage(&self) -> bool {
        match self {
            Self::Chunk(error) => error.is_damage(),
            Self::Spool(error) => error.is_damage(),
            _ => false,
        }
    }
}

impl Advised for LoadError {
    fn advice(&self) -> Advice {
        match self {
            Self::Config(error) => error.advice(),
            Self::Postgres(error) => error.advice(),
            Self::SegmentBusy { .. } => retried("wait for the other process"),
            Self::NoMessagePartition => retried("run again"),
            Self::NoTable { .. } => fatal(
                "create the table, or correct pipeline.table; for the built-in mapping `pgsluice init` creates it",
            ),
            Self::NoLedger | Self::OlderLedger { .. } => {
                fatal("run `pgsluice init`, or let a DBA run what `pgsluice init --print` prints")
            }
            Self::NewerLedger { .. } => fatal("use the pgsluice that made it, or a newer one"),
            Self::OtherTable { .. } => usage(
                "give this pipeline a name of its own; or, if the table was moved, run `pgsluice init` with this configuration",
            ),
            Self::UnknownKey { .. } => usage(
                "give the key that the column has been written with: alone, or in the keyring behind a new one; \
                 --new-key says that values under another key are meant",
            ),
            Self::NoPipeline { .. } => fatal("run `pgsluice init` with this configuration"),
            Self::NotRekeyed { .. } => fatal(
                "give a keyring that holds the keys that they were masked with, or see to these rows by hand, and run again",
            ),
            Self::TableNotEmpty { .. } => usage(
                "to go on after a `replay --again` that did not end, give `replay` without --again; else empty the table \
                     first, or give --keep-rows if its rows are not of these segments",
            ),
            Self::NoSuchReject { .. } => fatal("`pgsluice rejects list --entries` lists the ids of all rejects"),
            Self::NoKeptBody { .. } => fatal(
                "the host that recorded the reject keeps its body for rejects_days; see also the queue of pipeline.dlq_url",
            ),
            Self::CountsDiffer { .. } => {
                fatal("nothing of the segment is deleted; see where the file came from, and move it away")
            }
            Self::NoPartition { .. } => fatal(
                "create the partition that the row belongs to, or a default one, and run again; nothing of the segment \
                 was loaded, rejected or deleted",
            ),
            Self::RowsRefused { .. } => fatal(
                "one cause for all rows is a fault of the table or the mapping: correct it and run again; nothing of the \
                 segment was loaded, rejected or deleted. If the messages are bad after all, let the mapping refuse them \
                 (required, max_length, scale, a type), or drop the constraint until they are loaded",
            ),
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
            Self::Chunk(error) => error.advice(),
            Self::File(error) => error.advice(),
            Self::Staging(error) => error.advice(),
            Self::Spool(error) => error.advice(),
        }
    }
}
