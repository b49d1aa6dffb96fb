//! Loads a staged segment into its table: rows, rejects and the ledger in one transaction.
//!
//! Always true:
//! - only [`Loader`] makes a [`Committed`], and only from a transaction that Postgres has committed; so an
//!   acknowledgement, which needs one, deletes nothing that is not stored;
//! - a segment that is in the ledger is not loaded again, and with `dedupe = "message"` neither is a message;
//! - a chunk is in its table as a whole or not at all, except rows that Postgres itself refuses, which become rejects.
//!
//! The ledger's rows come first, by COPY. Should one be there already, the transaction is rolled back, and a second
//! one claims the messages one by one and copies only the rows of those it got. What fails for a passing reason
//! (a lost connection, a deadlock, a restart) is tried again; anything else leaves the segment staged. When the
//! answer to COMMIT is lost, the next attempt asks the ledger. A connection that falls silent is given up, see `watch`.

mod again;
mod allowance;
mod committed;
mod create_table;
mod dropping;
mod error;
mod evidence;
mod fitting;
mod isolate;
mod known_keys;
mod ledger;
mod message_keys;
mod preflight;
mod questions;
mod readmit;
mod redelivered;
mod rejects;
mod rekey;
mod roles;
mod savepoint;
mod search;
mod survey;
mod target;
#[cfg(test)]
#[cfg(feature = "local")]
mod tests;
mod transaction;
mod trial;
mod turn;

use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;

use tokio_postgres::Client;

pub use allowance::RejectAllowance;
pub use committed::Committed;
pub use create_table::create_table;
pub use error::LoadError;
pub use ledger::{
    Fate, Forgotten, FoundReject, LedgerDay, LedgerTotals, ListedReject, LoadedSegment, NotHere, RejectGroup,
    RejectRow, RejectedSegment, Selection, init, init_sql,
};
pub use preflight::Misfit;
pub use readmit::Readmitted;
pub use rejects::settle_kept_rejects;
pub use rekey::{RekeyCounts, RekeyPlan, Rekeyer};
pub use roles::{Role, role_sql};
pub use survey::{LedgerSurvey, Server, Survey, TableSurvey};
pub use trial::{CopyTrial, try_copy};

use crate::blocking::blocking;
use crate::chunk::{ChunkError, ColumnKey, Manifest};
use crate::config::{DatabaseUrl, Dedupe, OnReject, Pipeline};
use crate::crash_point::CrashPoint;
use crate::gate::Gate;
use crate::host::host_name;
use crate::postgres::watch::{Watch, answered};
use crate::postgres::{Connection, Database, PostgresError, Retries};
use crate::segment::SegmentId;
use crate::spool::Receipts;
use crate::staging::Staging;
use known_keys::Offered;
use ledger::{Ledger, PipelineRow};
use message_keys::SegmentKeys;
use target::Target;
use transaction::{Destination, Filled, Work};
use turn::Turn;

/// Loads segments of one pipeline over one connection, which it opens again when it is lost.
pub struct Loader {
    database: Database,
    connection: Connection,
    watch: Arc<Watch>,
    destination: Destination,
    pipeline: Pipeline,
    allowance: Arc<RejectAllowance>,
    gate: Arc<Gate>,
    /// Days (counted from 1970-01-01) whose partitions are there, as far as this loader has asked for them.
    ensured_days: BTreeSet<i32>,
    /// A masking key that the ledger does not know is meant.
    takes_new_keys: bool,
    /// Keys that the ledger knows, as far as this loader has asked.
    known_keys: HashSet<ColumnKey>,
    retries: u64,
}

impl Loader {
    /// Connects. A server that is starting up, has no connection free, or closes it at once is asked again for a
    /// while; one that cannot be reached is an error at once.
    pub async fn connect(database: &DatabaseUrl, pipeline: &Pipeline) -> Result<Self, LoadError> {
        let database = Database::new(database).map_err(PostgresError::from)?;
        let mut retries = Retries::new();
        loop {
            match Self::open(&database, pipeline).await {
                Err(LoadError::Postgres(
                    error @ (PostgresError::ConnectionRefused { .. } | PostgresError::ConnectionLost { .. }),
                )) => retries.wait_after(error).await?,
                opened => return opened,
            }
        }
    }

    async fn open(database: &Database, pipeline: &Pipeline) -> Result<Self, LoadError> {
        let connection = database.connect().await?;
        ledger::check_version(&connection.client).await?;
        let target = preflight::qualified_name(&connection.client, &pipeline.table).await?;
        let row = PipelineRow::ensure(&connection.client, &pipeline.name, &target).await?;
        Ok(Self::over(database.clone(), connection, pipeline, row.id))
    }

    /// Connects to ask the ledger, and records nothing, not even the pipeline.
    pub async fn connect_to_ask(database: &DatabaseUrl, pipeline: &Pipeline) -> Result<Self, LoadError> {
        let database = Database::new(database).map_err(PostgresError::from)?;
        let connection = database.connect().await?;
        let row = PipelineRow::find(&connection.client, &pipeline.name).await?;
        Ok(Self::over(database, connection, pipeline, row.map_or(0, |row| row.id)))
    }

    fn over(database: Database, connection: Connection, pipeline: &Pipeline, pipeline_no: i32) -> Self {
        Self {
            watch: Arc::new(Watch::of(database.clone())),
            database,
            connection,
            destination: Destination {
                pipeline: pipeline.name.clone(),
                ledger: Ledger {
                    pipeline: pipeline_no,
                    host: host_name(),
                    mapping: pipeline.fingerprint(),
                    with_rejects: matches!(pipeline.rejects.on_reject, OnReject::Send { .. }),
                },
                target: Target::new(pipeline),
                dedupe: pipeline.dedupe,
            },
            pipeline: pipeline.clone(),
            allowance: Arc::new(RejectAllowance::new(pipeline.rejects.max_rejects)),
            gate: Arc::default(),
            ensured_days: BTreeSet::new(),
            takes_new_keys: false,
            known_keys: HashSet::new(),
            retries: 0,
        }
    }

    /// Counts rejects together with other loaders, and closes the gate while it tries a load again.
    #[must_use]
    pub fn sharing(self, allowance: Arc<RejectAllowance>, gate: Arc<Gate>) -> Self {
        Self { allowance, gate, ..self }
    }

    /// Takes masking keys that the ledger does not know.
    #[must_use]
    pub fn taking_new_keys(self, takes_new_keys: bool) -> Self {
        Self { takes_new_keys, ..self }
    }

    /// Checks that the columns may be written with these keys, and records those that are new to them. `ring`: the ids of
    /// all masking keys that were at hand.
    pub async fn accept_keys(&mut self, columns: &[ColumnKey], ring: &[String]) -> Result<(), LoadError> {
        let mut retries = Retries::new();
        while !columns.iter().all(|key| self.known_keys.contains(key)) {
            match answered(self.accept_once(columns, ring)).await.map_err(LoadError::from).flatten() {
                Ok(()) => self.known_keys.extend(columns.iter().cloned()),
                Err(error) => self.prepare_retry(&mut retries, error).await?,
            }
        }
        Ok(())
    }

    async fn accept_once(&mut self, columns: &[ColumnKey], ring: &[String]) -> Result<(), LoadError> {
        self.reconnect().await?;
        let failed = |error| PostgresError::of_statement("looking at keys in the ledger", error);
        let transaction = self.connection.begin().await.map_err(failed)?;
        self.watch.identify(&transaction).await?;
        let offered = Offered { columns, ring, new_key: self.takes_new_keys };
        known_keys::accept(&transaction, &self.destination.ledger, &self.pipeline, offered).await?;
        Ok(transaction.commit().await.map_err(failed)?)
    }

    /// Compares the mapping with the real table. One error names all that does not fit.
    pub async fn check_mapping(&mut self) -> Result<(), LoadError> {
        let pipeline = self.pipeline.clone();
        self.ask(async |client| preflight::check(client, &pipeline).await).await
    }

    /// Checks that a chunk with this manifest is what this pipeline's mapping makes today, as far as that can be told
    /// without keys.
    pub fn check_manifest(&self, manifest: &Manifest) -> Result<(), ChunkError> {
        let segment = manifest.segment;
        if manifest.pipeline != self.pipeline.name {
            return Err(ChunkError::OtherPipeline {
                segment,
                pipeline: manifest.pipeline.clone(),
                configured: self.pipeline.name.clone(),
            });
        }
        if manifest.mapping != self.destination.ledger.mapping {
            return Err(ChunkError::OutOfDate { segment, problem: "with another mapping than today's" });
        }
        Ok(())
    }

    /// Loads a staged segment, unless the ledger knows it.
    ///
    /// Dropping the future rolls back, unless COMMIT was sent.
    #[tracing::instrument(skip_all, fields(segment = %manifest.segment, messages = manifest.messages.cast_signed()))]
    pub async fn load(&mut self, staging: &Staging, manifest: &Manifest) -> Result<Committed, LoadError> {
        self.check_manifest(manifest)?;
        self.accept_keys(&manifest.keys, &manifest.ring).await?;
        let segment = manifest.segment;
        let (files, staged) = (staging.clone(), manifest.clone());
        let leaves = self.pipeline.rejects.on_reject == OnReject::Leave;
        let read = move || {
            let keys = SegmentKeys::read(&files, &staged)?;
            Ok::<_, LoadError>((keys, leaves && is_in_queue(&files, segment)?))
        };
        let (keys, leave_rejects) = blocking(read).await?;
        let keys = Arc::new(keys);
        let superseded = HashSet::new();
        let turn = Turn::default();
        let mut work = Work { staging, segment, keys, leave_rejects, claim: false, turn, in_doubt: None, superseded };
        let (mut retries, mut retrying) = (Retries::new(), None);
        let committed = loop {
            let watch = Arc::clone(&self.watch);
            match watch.during(self.attempt(&mut work)).await {
                Ok(Some(committed)) => break committed,
                Ok(None) => work.claim = true,
                Err(error) => {
                    retrying.get_or_insert_with(|| self.gate.retry());
                    work.turn.after(&error);
                    self.prepare_retry(&mut retries, error).await?;
                }
            }
        };
        if !committed.was_known() {
            let settled = Readmitted { loaded: work.superseded, ..Readmitted::default() };
            let (files, pipeline) = (staging.clone(), self.pipeline.name.clone());
            blocking(move || settle_kept_rejects(&files, segment, &pipeline, &settled)).await?;
        }
        Ok(committed)
    }

    /// Forgets messages that cannot be delivered any more. What is in use is left for the next time.
    pub async fn prune(&mut self) -> Result<(), LoadError> {
        let ledger = self.destination.ledger.clone();
        self.ask(async |client| ledger.prune(client).await).await
    }

    /// How often it tried something again since the last call.
    pub fn take_retries(&mut self) -> u64 {
        std::mem::take(&mut self.retries)
    }

    /// Asks something that may be asked twice, and asks it again where that can help.
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
        match error {
            LoadError::Postgres(PostgresError::ConnectionLost { .. }) => self.connection.sever(),
            LoadError::NoMessagePartition => self.ensured_days.clear(),
            _ => {}
        }
        retries.wait_after(error).await?;
        self.retries += 1;
        Ok(())
    }

    /// Opens a new connection where the last one is closed.
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
        let segment = work.segment;
        let lost = |action: &str| {
            let action = format!("{action} of segment {segment}");
            move |error| PostgresError::of_statement(&action, error)
        };
        let transaction = self.connection.begin().await.map_err(lost("BEGIN"))?;
        let begun = self.destination.ledger.begin(&transaction).await?;
        self.watch.began(begun.id);
        work.turn.wait(&transaction, &self.destination.target).await?;
        match self.destination.fill(&transaction, begun.segment_no, work, &self.allowance).await? {
            Filled::SegmentKnown(record) => Ok(Some(Committed::found_in_ledger(record))),
            Filled::CommittedBefore(mut record) => {
                if record.rejected > 0 {
                    let rejects = self.destination.ledger.rejects_of(&transaction, segment).await?;
                    record.reasons = rejects.iter().map(|reject| &reject.reason).collect();
                }
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
        let missing: Vec<i32> = keys.days.difference(&self.ensured_days).copied().collect();
        if !missing.is_empty() {
            self.destination.ledger.ensure_partitions(&mut self.connection, &missing).await?;
            self.ensured_days.extend(missing);
        }
        Ok(())
    }
}

/// Whether a queue still has the segment's messages: it is not acknowledged, and was not imported. Blocks.
fn is_in_queue(staging: &Staging, segment: SegmentId) -> Result<bool, LoadError> {
    let Some(path) = staging.find_unacknowledged(segment) else { return Ok(false) };
    Ok(Receipts::open(&path)?.next().transpose()?.is_some())
}
