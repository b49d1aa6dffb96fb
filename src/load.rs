//! Loads a staged segment into its table: rows, rejects and the ledger in one transaction.
//!
//! Always true:
//! - only [`Loader`] makes a [`Committed`], and only from a transaction that Postgres has committed; so whoever
//!   deletes messages for one deletes nothing that is not stored;
//! - a segment that is in the ledger is not loaded again, and with `dedupe = "message"` neither is a message;
//! - a chunk is in its table as a whole or not at all, but for rows that Postgres itself refuses, which become rejects.
//!
//! The ledger's rows come first, by COPY. Should one be there already, the transaction is rolled back, and a second
//! one claims the messages one by one and copies only the rows of those it got. What fails for a passing reason
//! (a lost connection, a deadlock, a restart) is tried again; anything else leaves the segment staged. When the
//! answer to COMMIT is lost, the next attempt asks the ledger. A connection that falls silent is given up, see `watch`.

mod allowance;
mod committed;
mod error;
mod evidence;
mod fitting;
mod isolate;
mod ledger;
mod message_keys;
mod preflight;
mod readmit;
mod rejects;
mod savepoint;
mod search;
mod target;
#[cfg(test)]
#[cfg(feature = "local")]
mod tests;
mod transaction;
mod turn;

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use tokio_postgres::Client;

pub use allowance::RejectAllowance;
pub use committed::Committed;
pub use error::LoadError;
pub use ledger::{LedgerTotals, ListedReject, RejectGroup, RejectRow, Selection, init, init_sql};

use crate::blocking::blocking;
use crate::chunk::{ChunkError, StagedSegment};
use crate::config::{DatabaseUrl, Dedupe, OnReject, Pipeline};
use crate::crash_point::CrashPoint;
use crate::postgres::watch::{Watch, answered};
use crate::postgres::{Connection, Database, PostgresError, Retries};
use crate::segment::SegmentId;
use crate::spool::Receipts;
use crate::staging::Staging;
use ledger::Ledger;
use message_keys::SegmentKeys;
use target::Target;
use transaction::{Destination, Filled, Work};
use turn::Turn;

/// Whether a segment that is in the ledger is loaded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LoadMode {
    /// Not again.
    #[default]
    Once,
    /// Again: the ledger forgets the segment in the same transaction. For a table that was emptied.
    Again,
}

/// Loads segments of one pipeline over one connection, which it opens again when it is lost.
pub struct Loader {
    database: Database,
    connection: Connection,
    watch: Arc<Watch>,
    destination: Destination,
    pipeline: Pipeline,
    allowance: Arc<RejectAllowance>,
    /// Days (counted from 1970-01-01) whose partitions were seen to in this run.
    ensured_days: BTreeSet<i32>,
    retries: u64,
}

impl Loader {
    /// Connects. A server that is starting up, has no connection free, or closes it at once is asked again for a
    /// while; one that cannot be reached is an error at once.
    pub async fn connect(database: &DatabaseUrl, pipeline: &Pipeline) -> Result<Self, LoadError> {
        let database = Database::new(database)?;
        let mut retries = Retries::new();
        let connection = loop {
            match database.connect().await {
                Err(error @ (PostgresError::ConnectionRefused { .. } | PostgresError::ConnectionLost { .. })) => {
                    retries.wait_after(error).await?;
                }
                connected => break connected?,
            }
        };
        Ok(Self {
            watch: Arc::new(Watch::of(database.clone())),
            database,
            connection,
            destination: Destination {
                ledger: Ledger {
                    pipeline: pipeline.name.as_str().into(),
                    host: host_name(),
                    with_rejects: matches!(pipeline.rejects.on_reject, OnReject::Send { .. }),
                },
                target: Target::new(pipeline),
                dedupe: pipeline.dedupe,
            },
            pipeline: pipeline.clone(),
            allowance: Arc::new(RejectAllowance::new(pipeline.rejects.max_rejects)),
            ensured_days: BTreeSet::new(),
            retries: 0,
        })
    }

    /// Counts rejects together with other loaders.
    #[must_use]
    pub fn sharing(self, allowance: Arc<RejectAllowance>) -> Self {
        Self { allowance, ..self }
    }

    /// Compares the mapping with the real table. One error names all that does not fit.
    pub async fn check_mapping(&mut self) -> Result<(), LoadError> {
        let pipeline = self.pipeline.clone();
        self.ask(async |client| preflight::check(client, &pipeline).await).await
    }

    /// Loads a staged segment, unless the ledger knows it.
    ///
    /// Dropping the future rolls back, unless COMMIT was sent.
    #[tracing::instrument(skip_all, fields(segment = %staged.id))]
    pub async fn load(
        &mut self,
        staging: &Staging,
        staged: &StagedSegment,
        mode: LoadMode,
    ) -> Result<Committed, LoadError> {
        let segment = staged.id;
        let files = staging.clone();
        let leaves = self.pipeline.rejects.on_reject == OnReject::Leave;
        let read =
            move || Ok::<_, LoadError>((SegmentKeys::read(&files, segment)?, leaves && is_in_queue(&files, segment)?));
        let (keys, leave_rejects) = blocking(read).await?;
        let keys = Arc::new(keys);
        if keys.rows as u64 != staged.rows || keys.total() as u64 != staged.received {
            let problem = "it was staged with other counts";
            return Err(ChunkError::Inconsistent { segment, problem }.into());
        }
        let mut work =
            Work { staging, segment, mode, keys, leave_rejects, claim: false, turn: Turn::default(), in_doubt: None };
        let mut retries = Retries::new();
        loop {
            let watch = Arc::clone(&self.watch);
            match watch.during(self.attempt(&mut work)).await {
                Ok(Some(committed)) => return Ok(committed),
                Ok(None) => work.claim = true,
                Err(error) => {
                    work.turn.after(&error);
                    self.prepare_retry(&mut retries, error).await?;
                }
            }
        }
    }

    /// Which of the segments the ledger knows, and how they were loaded. One query.
    pub async fn known(&mut self, segments: &[SegmentId]) -> Result<HashMap<SegmentId, Committed>, LoadError> {
        let ledger = self.destination.ledger.clone();
        let found = self.ask(async |client| ledger.find(client, segments).await).await?;
        let known = found.into_iter().map(|(record, _)| (record.segment, Committed::found_in_ledger(record)));
        Ok(known.collect())
    }

    /// How often it tried something again since the last call.
    pub fn take_retries(&mut self) -> u64 {
        std::mem::take(&mut self.retries)
    }

    /// What the ledger holds of this pipeline.
    pub async fn totals(&mut self) -> Result<LedgerTotals, LoadError> {
        let ledger = self.destination.ledger.clone();
        self.ask(async |client| ledger.totals(client).await).await
    }

    /// Asks what changes nothing, again where that can help.
    async fn ask<T>(&mut self, question: impl AsyncFn(&Client) -> Result<T, LoadError>) -> Result<T, LoadError> {
        let mut retries = Retries::new();
        loop {
            let asked = async {
                self.reconnect().await?;
                answered(question(&self.connection.client)).await?
            };
            match asked.await {
                Ok(answer) => return Ok(answer),
                Err(error) => self.prepare_retry(&mut retries, error).await?,
            }
        }
    }

    /// Waits before the next attempt, which will have a new connection if this one was lost; or gives the error back.
    async fn prepare_retry(&mut self, retries: &mut Retries, error: LoadError) -> Result<(), LoadError> {
        if matches!(error, LoadError::Postgres(PostgresError::ConnectionLost { .. })) {
            self.connection.sever();
        }
        retries.wait_after(error).await?;
        self.retries += 1;
        Ok(())
    }

    /// Opens a new connection where there is none any more.
    async fn reconnect(&mut self) -> Result<(), LoadError> {
        if self.connection.is_closed() {
            self.connection = self.database.connect().await?;
            self.watch.end_last(&self.connection.client).await?;
        }
        Ok(())
    }

    /// One transaction. `None`: it was rolled back because a message is in the ledger already.
    async fn attempt(&mut self, work: &mut Work<'_>) -> Result<Option<Committed>, LoadError> {
        self.reconnect().await?;
        self.ensure_partitions(&work.keys).await?;
        let lost = |action: &str| {
            let action = format!("{action} of segment {}", work.segment);
            move |error| PostgresError::of_statement(&action, error)
        };
        let transaction = self.connection.client.transaction().await.map_err(lost("BEGIN"))?;
        self.watch.began(self.destination.ledger.begin(&transaction).await?);
        work.turn.wait(&transaction, &self.destination.target).await?;
        match self.destination.fill(&transaction, work, &self.allowance).await? {
            Filled::SegmentKnown(record) => Ok(Some(Committed::found_in_ledger(record))),
            Filled::CommittedBefore(record) => {
                self.allowance.count(&record);
                Ok(Some(Committed::confirmed(record)))
            }
            Filled::MessageKnown => Ok(None),
            Filled::Ready(record, loaded_at) => {
                let admission = self.allowance.admit(&record)?;
                let unanswered = lost("COMMIT");
                work.in_doubt = Some(loaded_at);
                CrashPoint::BeforeCommit.pass();
                transaction.commit().await.map_err(unanswered)?;
                CrashPoint::Commit.pass();
                admission.committed();
                Ok(Some(Committed::confirmed(record)))
            }
        }
    }

    async fn ensure_partitions(&mut self, keys: &SegmentKeys) -> Result<(), LoadError> {
        if self.pipeline.dedupe == Dedupe::Segment {
            return Ok(());
        }
        let mut missing = keys.days.difference(&self.ensured_days);
        if let Some(&first) = missing.next() {
            let last = missing.last().copied().unwrap_or(first);
            self.destination.ledger.ensure_partitions(&self.connection.client, first, last).await?;
            self.ensured_days.extend(&keys.days);
        }
        Ok(())
    }
}

/// Whether a queue still has the segment's messages: it is not acknowledged, and was not imported. Blocks.
fn is_in_queue(staging: &Staging, segment: SegmentId) -> Result<bool, LoadError> {
    let path = staging.spool(segment);
    if !path.exists() {
        return Ok(false);
    }
    Ok(Receipts::open(&path)?.next().transpose()?.is_some())
}

fn host_name() -> String {
    let from_kernel = || std::fs::read_to_string("/proc/sys/kernel/hostname");
    let name = std::env::var("HOSTNAME").or_else(|_| from_kernel()).unwrap_or_default();
    if name.trim().is_empty() { "unknown".to_owned() } else { name.trim().to_owned() }
}
