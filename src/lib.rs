//! pgsluice empties an Amazon SQS queue into a Postgres table: a staged bulk loader.
//!
//! ```text
//!  SQS ──drain──▶ staging/spool/S.ndjson ──transform──▶ staging/chunks/S.csv ──load──▶ Postgres
//!   ▲              raw messages, durable    rayon, all cores   what COPY gets      one transaction
//!   └───────────────────────────ack: DeleteMessageBatch, only after S has committed ◀───┘
//! ```
//!
//! One sealed spool segment = one CSV chunk = one COPY transaction = one batch of acknowledgements. A segment is named
//! once, by a [`segment::SegmentId`], and its boundary is fixed when it is sealed; so to resume and to replay are the
//! same: do the files that are left. Postgres holds the only record of what is loaded.
//!
//! Guarantees, and where they are kept:
//! 1. A message is deleted only after the transaction that holds its row, or its reject, has committed:
//!    [`ack::acknowledge`] takes a [`load::Committed`], and only [`load`] can make one.
//! 2. A message delivered twice yields one row: the ledger's key, see [`load`].
//! 3. Killed at any instant, a second run finishes the work: [`staging`], [`spool::recover`], the ledger.
//! 4. A message that cannot become a row stops nothing and is kept raw with the reason: [`transform`], [`load`].
//! 5. Every run ends with a sum that must hold: [`counters`], [`report`].
//! 6. No plaintext of masked fields in Postgres, logs, errors or the report: [`mask`], [`error`].
//!
//! Imports run one way, from the bottom: aws, segment, reason, suggestion, exit code, advice, durable → staging, config → queue →
//! keyring → spool, mask → chunk → transform, postgres → load → error → in_flight, counters → drain, ack, report → stages,
//! progress, metrics, trace, page → status, find, check → infer → cli.
//! The test `imports_run_one_way` holds the order.

pub mod ack;
pub mod advice;
mod aws;
mod blocking;
pub mod check;
pub mod chunk;
pub mod cli;
pub mod config;
pub mod counters;
mod crash_point;
pub mod drain;
pub mod durable;
pub mod error;
pub mod exit_code;
pub mod find;
#[cfg(any(fuzzing, test))]
pub mod fuzz;
pub mod gate;
mod host;
mod https;
pub mod import;
pub mod in_flight;
pub mod infer;
pub mod keyring;
pub mod load;
#[cfg(feature = "local")]
pub mod local;
pub mod mask;
pub mod metrics;
pub mod notify;
pub mod page;
pub mod postgres;
pub mod progress;
pub mod queue;
pub mod reason;
pub mod report;
pub mod segment;
pub mod spool;
pub mod stages;
pub mod staging;
pub mod status;
pub mod suggestion;
#[cfg(feature = "otel")]
pub mod trace;
pub mod transform;
mod unescape;
mod workers;

#[cfg(test)]
mod import_order;
