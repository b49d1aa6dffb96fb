//! Masks the values of columns with the first key instead of older ones, or by `siv` instead of `fixed`.
//!
//! Always true:
//! - the ledger knows the new key before the first value is written with it;
//! - a value is written only over the text that it was read from, so what others change meanwhile stays theirs;
//! - whatever cannot be revealed, or is refused by the table, stays as it is, and is told at the end.
//!
//! So a rekey that is killed anywhere is resumed by starting it again: a text says by which key it was masked, and
//! those of the first key are skipped. `fixed` texts name no key, which is why values only come from there.
//!
//! The table is read block by block, because it may have no key: a range of blocks of all its partitions at once, which
//! is split until what it holds fits a short transaction. Passes follow one another until one changes nothing; what a
//! row's other writers moved into blocks that were done before is found by the next.

mod batch;
mod counts;
mod recode;
mod table;

use std::collections::BTreeMap;
use std::iter;
use std::ops::Range;
use std::sync::Arc;

use tokio_postgres::Transaction;

use self::batch::{Batch, StaleRow};
use self::recode::Recoder;
use self::table::Size;
use super::known_keys::{self, Offered};
use super::ledger::{self, Ledger, PipelineRow};
use super::target::Target;
use super::turn::Turn;
use super::{LoadError, preflight};
use crate::chunk::ColumnKey;
use crate::config::{ConfigError, DatabaseUrl, Mask, Pipeline};
use crate::host::host_name;
use crate::keyring::{Algorithm, Keyring};
use crate::postgres::sqlstate::{Meaning, judge};
use crate::postgres::watch::{IDENTIFY, TransactionId, Watch};
use crate::postgres::{Connection, Database, NOTICE_A_LOST_CLIENT_LOCALLY, PostgresError, Retries};

pub use counts::RekeyCounts;

/// Blocks, of all partitions together, that are looked at in one statement: 8 MB.
const STEP_BLOCKS: u64 = 1024;
/// Rows of one transaction, about, unless a single block holds more.
const BATCH_ROWS: u64 = 5_000;
/// Bytes of text of one transaction, about, unless a single block holds more.
const BATCH_BYTES: u64 = 8_000_000;
/// A transaction that waits, or lasts, holds locks on rows that others may want.
const LIMITS: &str = "SET LOCAL lock_timeout = '10s'; SET LOCAL statement_timeout = '60s'";

/// Rekeys the table of one pipeline over one connection, which it opens again when it is lost.
pub struct Rekeyer {
    database: Database,
    connection: Connection,
    watch: Arc<Watch>,
    ledger: Ledger,
    pipeline: Pipeline,
    target: Target,
    batch: Arc<Batch>,
    keys: Keyring,
    counts: Arc<RekeyCounts>,
}

/// What a rekey would do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RekeyPlan {
    /// The table, as `schema.table`.
    pub table: String,
    /// The columns that are rekeyed.
    pub columns: Vec<String>,
    /// The id of the key that their values will be masked with.
    pub key: String,
    /// Rows that hold a value that the key did not mask.
    pub rows: u64,
    /// The size of the table with its partitions, indexes and TOAST, in bytes.
    pub bytes: u64,
    /// Its unique and exclusion indexes over these columns.
    pub unique_indexes: Vec<String>,
}

/// Values that stay as they are, for one reason.
#[derive(Debug)]
struct Left {
    values: u64,
    /// One of them: `(0,1) of public.user_logins`.
    place: String,
    reason: String,
}

/// What a pass did.
#[derive(Debug, Default)]
struct Pass {
    changed: u64,
    /// By column; the empty name stands for whole rows.
    left: BTreeMap<String, Left>,
}

impl Rekeyer {
    /// Connects, and checks ledger, table and keys. `column`: the only one; otherwise all that are masked by `siv`.
    pub async fn connect(
        database: &DatabaseUrl,
        pipeline: &Pipeline,
        keys: &Keyring,
        column: Option<&str>,
    ) -> Result<Self, LoadError> {
        let recoders = recode::of_columns(pipeline, keys, column)?;
        let database = Database::new(database).map_err(PostgresError::from)?;
        let connection = database.connect().await?;
        let client = &connection.client;
        ledger::check_version(client).await?;
        let name = preflight::qualified_name(client, &pipeline.table).await?;
        let row = PipelineRow::find(client, &pipeline.name).await?;
        let row = row.ok_or_else(|| LoadError::NoPipeline { pipeline: pipeline.name.clone() })?;
        if let Some(known) = row.target.filter(|known| *known != name) {
            return Err(LoadError::OtherTable { pipeline: pipeline.name.clone(), table: name, known });
        }
        table::check(client, pipeline).await?;
        let ledger =
            Ledger { pipeline: row.id, host: host_name(), mapping: pipeline.fingerprint(), with_rejects: false };
        Ok(Self {
            watch: Arc::new(Watch::of(database.clone())),
            database,
            connection,
            ledger,
            pipeline: pipeline.clone(),
            target: Target::new(pipeline),
            batch: Arc::new(Batch::new(name, &pipeline.table, recoders)),
            keys: keys.clone(),
            counts: Arc::default(),
        })
    }

    /// What was done so far.
    #[must_use]
    pub fn counts(&self) -> Arc<RekeyCounts> {
        Arc::clone(&self.counts)
    }

    /// Reads the whole table, and finds a column that is too narrow. Writes nothing.
    pub async fn plan(&mut self) -> Result<RekeyPlan, LoadError> {
        let columns: Vec<_> = self.batch.recoders.iter().map(|recoder| recoder.column.clone()).collect();
        let limits = preflight::check_masked(&self.connection.client, &self.pipeline, &columns).await?;
        let size = self.size().await?;
        let names: Vec<&str> = columns.iter().map(|column| column.name.as_str()).collect();
        let unique_indexes = table::unique_indexes(&self.connection.client, &self.pipeline, &names).await?;
        self.counts.begin_pass(size.blocks);
        let mut rows = 0;
        let mut start = 0;
        while start < size.blocks {
            let range = start..size.blocks.min(start + size.step());
            let batch = Arc::clone(&self.batch);
            let found = self.transact(async |transaction| batch.measure(transaction, &range).await).await?;
            for ((column, limit), needed) in names.iter().zip(&limits).zip(&found.characters) {
                if let (Some(limit), Some(needed)) = (limit, needed)
                    && needed > limit
                {
                    let table = self.batch.table.clone();
                    let problem =
                        format!("column {column} holds {limit} characters, and a value of it will have {needed}");
                    return Err(ConfigError::MappingMismatch { table, problem }.into());
                }
            }
            rows += found.rows;
            start = range.end;
            self.counts.pass_blocks(start);
        }
        Ok(RekeyPlan {
            table: self.batch.table.clone(),
            columns: names.into_iter().map(str::to_owned).collect(),
            key: self.batch.recoders.first().map_or_else(String::new, |recoder| recoder.key_id().to_owned()),
            rows,
            bytes: size.bytes,
            unique_indexes,
        })
    }

    /// Rekeys, in passes until one changes nothing. Dropping the future rolls back the batch that is being written.
    pub async fn rekey(&mut self) -> Result<(), LoadError> {
        self.record_key().await?;
        loop {
            let pass = self.pass().await?;
            if pass.changed > 0 {
                continue;
            }
            if pass.left.is_empty() {
                return Ok(());
            }
            let told: Vec<String> = pass.left.iter().map(|(column, left)| told(column, left)).collect();
            return Err(LoadError::NotRekeyed { table: self.batch.table.clone(), told: told.join("; ") });
        }
    }

    /// Before anything is written with it.
    async fn record_key(&mut self) -> Result<(), LoadError> {
        let of_column = |recoder: &Recoder| ColumnKey {
            column: recoder.column.masked_as().to_owned(),
            method: Mask::Siv.name().to_owned(),
            key: recoder.key_id().to_owned(),
        };
        let columns: Vec<ColumnKey> = self.batch.recoders.iter().map(of_column).collect();
        let masking = self.keys.iter().filter(|key| key.algorithm() != Algorithm::Spool);
        let ring: Vec<String> = masking.map(|key| key.id().to_owned()).collect();
        let (ledger, pipeline) = (self.ledger.clone(), self.pipeline.clone());
        let offered = Offered { columns: &columns, ring: &ring, new_key: false };
        self.transact(async |transaction| known_keys::accept(transaction, &ledger, &pipeline, offered).await).await
    }

    async fn size(&mut self) -> Result<Size, LoadError> {
        let pipeline = self.pipeline.clone();
        self.transact(async |transaction| table::size(transaction, &pipeline).await).await
    }

    /// Once through the table, as large as it is at the beginning.
    async fn pass(&mut self) -> Result<Pass, LoadError> {
        let size = self.size().await?;
        self.counts.begin_pass(size.blocks);
        let mut pass = Pass::default();
        let mut start = 0;
        while start < size.blocks {
            let end = size.blocks.min(start + size.step());
            let mut ranges: Vec<_> = iter::once(start..end).collect();
            while let Some(range) = ranges.pop() {
                let batch = Arc::clone(&self.batch);
                let found = self.transact(async |transaction| batch.measure(transaction, &range).await).await?;
                let pieces = found.rows.div_ceil(BATCH_ROWS).max(found.bytes.div_ceil(BATCH_BYTES));
                if pieces > 1 && range.end - range.start > 1 {
                    ranges.extend(split(&range, pieces).into_iter().rev());
                } else if found.rows > 0 {
                    self.rekey_range(&range, &mut pass).await?;
                }
            }
            start = end;
            self.counts.pass_blocks(start);
        }
        Ok(pass)
    }

    async fn rekey_range(&mut self, range: &Range<u64>, pass: &mut Pass) -> Result<(), LoadError> {
        let batch = Arc::clone(&self.batch);
        let stale = self.transact(async |transaction| batch.read(transaction, range).await).await?;
        let mut rows = Vec::with_capacity(stale.len());
        for mut row in stale {
            for (recoder, value) in batch.recoders.iter().zip(&mut row.values) {
                match value.old.as_deref().map(|text| recoder.recode(&self.keys, text)).transpose() {
                    Ok(new) => value.new = new.flatten(),
                    Err(error) => pass.leave(&recoder.column.name, &row.place, &error),
                }
            }
            if row.values.iter().any(|value| value.new.is_some()) {
                rows.push(row);
            }
        }
        self.write(range, &rows, pass).await
    }

    /// Writes the rows in one transaction. Where the table refuses them, the half that it refuses is halved until the
    /// one row is found, which stays as it is.
    async fn write(&mut self, range: &Range<u64>, rows: &[StaleRow], pass: &mut Pass) -> Result<(), LoadError> {
        let batch = Arc::clone(&self.batch);
        let mut pieces = vec![rows];
        while let Some(piece) = pieces.pop().filter(|piece| !piece.is_empty()) {
            match self.transact(async |transaction| batch.write(transaction, range, piece).await).await {
                Ok(written) => {
                    pass.changed += written;
                    self.counts.change_rows(written);
                    // Of one that another writer was faster with, the next pass will see more.
                    for row in piece.iter().skip(usize::try_from(written).unwrap_or(usize::MAX)) {
                        pass.leave("", &row.place, &"it was changed meanwhile, or a trigger skipped it");
                    }
                }
                Err(LoadError::Postgres(error)) if is_of_row(&error) => {
                    if let [row] = piece {
                        pass.leave("", &row.place, &error);
                    } else {
                        let (first, second) = piece.split_at(piece.len() / 2);
                        pieces.extend([second, first]);
                    }
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// One transaction, which is tried again where that can help.
    async fn transact<T>(
        &mut self,
        work: impl AsyncFn(&Transaction<'_>) -> Result<T, LoadError>,
    ) -> Result<T, LoadError> {
        let (mut retries, mut turn) = (Retries::new(), Turn::default());
        loop {
            let watch = Arc::clone(&self.watch);
            match watch.during(self.attempt(turn, &work)).await {
                Ok(done) => return Ok(done),
                Err(error) => {
                    turn.after(&error);
                    if matches!(error, LoadError::Postgres(PostgresError::ConnectionLost { .. })) {
                        self.connection.sever();
                    }
                    retries.wait_after(error).await?;
                }
            }
        }
    }

    async fn attempt<T>(
        &mut self,
        turn: Turn,
        work: &impl AsyncFn(&Transaction<'_>) -> Result<T, LoadError>,
    ) -> Result<T, LoadError> {
        if self.connection.is_closed() {
            self.connection = self.database.connect().await?;
            self.watch.end_last(&self.connection.client).await?;
        }
        let failed = |error| PostgresError::of_statement(&format!("rekeying {}", self.batch.table), error);
        let transaction = self.connection.client.transaction().await.map_err(failed)?;
        let limits = format!("{NOTICE_A_LOST_CLIENT_LOCALLY}; {LIMITS}");
        transaction.batch_execute(&limits).await.map_err(failed)?;
        let id = transaction.query_typed_one(IDENTIFY, &[]).await;
        let id = id.and_then(|row| Ok(TransactionId { backend: row.try_get(0)?, started_us: row.try_get(1)? }));
        self.watch.began(id.map_err(failed)?);
        turn.wait(&transaction, &self.target).await?;
        let done = work(&transaction).await?;
        transaction.commit().await.map_err(failed)?;
        Ok(done)
    }
}

impl Pass {
    fn leave(&mut self, column: &str, place: &str, reason: &dyn std::fmt::Display) {
        let left = || Left { values: 0, place: place.to_owned(), reason: reason.to_string() };
        self.left.entry(column.to_owned()).or_insert_with(left).values += 1;
    }
}

fn told(column: &str, Left { values, place, reason }: &Left) -> String {
    let what = if column.is_empty() { "rows".to_owned() } else { format!("column {column}") };
    format!("{what}: {values}, such as {place}: {reason}")
}

/// Whether a row is at fault, and others may succeed.
fn is_of_row(error: &PostgresError) -> bool {
    matches!(error, PostgresError::Refused { sqlstate, .. } if judge(sqlstate).0 == Meaning::Row)
}

/// About this number of parts, each of a block at least.
fn split(range: &Range<u64>, parts: u64) -> Vec<Range<u64>> {
    let length = (range.end - range.start).div_ceil(parts).max(1);
    let starts = (range.start..range.end).step_by(usize::try_from(length).unwrap_or(usize::MAX));
    starts.map(|start| start..range.end.min(start + length)).collect()
}

#[cfg(test)]
mod tests {
    use super::split;

    #[test]
    fn a_range_is_split_into_parts_that_are_the_whole() {
        assert_eq!(split(&(3..13), 4), [3..6, 6..9, 9..12, 12..13]);
        assert_eq!(split(&(0..2), 1_000), [0..1, 1..2]);
    }
}
